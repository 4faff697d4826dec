"""What all events have in common; events.py has each of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, dataclass_transform

SCHEMA = 1


class Level(IntEnum):
    """The verbosity from which on an event is printed: -q is -1, -v is 1, -vv is 2; -vvv has all."""

    ERROR = -1
    NOTE = 0
    INFO = 1
    DEBUG = 2


@dataclass_transform(frozen_default=True)
class Event:
    """One thing that has happened; each subclass is a dataclass of its fields.

    Type checkers take it for a frozen one.  At run time it only gets an
    `__init__`, and the rest is here: thirty frozen dataclasses would cost every
    start 13 ms, these cost 4 (measured).

    Attributes:
        name: Its name in JSON.
        level: The verbosity from which on people read the sentence.
        sentence: For people; the fields are filled in.  "": for programs only.
        notice: For a service manager; the fields are filled in.  "": nothing.
        repeats: The peer or a stranger can cause it as often as they like.
        strange: A stranger can, too, who has proved nothing.
        progress: Of an event that is repeated as long as a state lasts, the
            field that changes even if nothing happens; "" of all others.
        lasting: Of an event that comes again while the same state lasts, the
            field that tells one state from another: people are told once.
    """

    # Not among the fields.
    __slots__ = ("__dict__", "_session")
    _session: int

    name: ClassVar[str]
    level: ClassVar[Level]
    sentence: ClassVar[str]
    notice: ClassVar[str]
    repeats: ClassVar[bool]
    strange: ClassVar[bool]
    progress: ClassVar[str]
    lasting: ClassVar[str]

    def __init_subclass__(
        cls,
        *,
        name: str,
        level: Level = Level.DEBUG,
        sentence: str = "",
        notice: str = "",
        repeats: bool = False,
        strange: bool = False,
        progress: str = "",
        lasting: str = "",
    ) -> None:
        cls.name, cls.level, cls.sentence, cls.notice = name, level, sentence, notice
        cls.repeats, cls.strange, cls.progress, cls.lasting = repeats, strange, progress, lasting
        dataclass(eq=False, repr=False)(cls)

    @property
    def fields(self) -> dict[str, object]:
        """The fields by their names, in the order of docs/EVENTS.md."""
        return vars(self)

    def belong(self, session: int) -> None:
        """Take note that this happened in one of several sessions."""
        self._session = session

    @property
    def session(self) -> int:
        """The number of the session in which it happened, from 1 on; 0 where there is one at a time."""
        return getattr(self, "_session", 0)

    def fill(self, text: str) -> str:
        """Return a text with the fields in their places."""
        return text.format_map(vars(self))

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


Report = Callable[[Event], None]


def unreported(_: Event) -> None:
    """Drop an event: the report of a program that wants none."""
