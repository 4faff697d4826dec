"""The part of an event loop that a session uses, with a guard around each callback, and timers by name.

A loop writes an exception of a callback to a log and goes on, and a session
that goes on with half of its state would hang.  The loop's own exception
handler is no way out: it belongs to the program that runs the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

Callback = Callable[..., object]


class Loop(Protocol):
    """What a session needs of a loop; those of asyncio and uvloop have it."""

    def call_soon(self, callback: Callback, *args: Any) -> asyncio.Handle:
        """See asyncio.AbstractEventLoop."""

    def call_soon_threadsafe(self, callback: Callback, *args: Any) -> asyncio.Handle:
        """See asyncio.AbstractEventLoop."""

    def call_later(self, delay: float, callback: Callback, *args: Any) -> asyncio.TimerHandle:
        """See asyncio.AbstractEventLoop."""

    def add_reader(self, fd: int, callback: Callback, *args: Any) -> None:
        """See asyncio.AbstractEventLoop."""

    def remove_reader(self, fd: int) -> bool:
        """See asyncio.AbstractEventLoop."""


class GuardedLoop:
    """A loop that reports exceptions of its callbacks instead of logging them.

    Args:
        loop: The running loop.
        broke: Called with an exception that a callback has not caught: a bug.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, broke: Callable[[BaseException], None]) -> None:
        self._loop = loop
        self._broke = broke

    def call_soon(self, callback: Callback, *args: Any) -> asyncio.Handle:
        """See Loop."""
        return self._loop.call_soon(self._call, callback, *args)

    def call_soon_threadsafe(self, callback: Callback, *args: Any) -> asyncio.Handle:
        """See Loop."""
        return self._loop.call_soon_threadsafe(self._call, callback, *args)

    def call_later(self, delay: float, callback: Callback, *args: Any) -> asyncio.TimerHandle:
        """See Loop."""
        return self._loop.call_later(delay, self._call, callback, *args)

    def add_reader(self, fd: int, callback: Callback, *args: Any) -> None:
        """See Loop."""
        self._loop.add_reader(fd, self._call, callback, *args)

    def remove_reader(self, fd: int) -> bool:
        """See Loop."""
        return self._loop.remove_reader(fd)

    def _call(self, callback: Callback, *args: Any) -> None:
        try:
            callback(*args)
        except Exception as error:
            self._broke(error)


class Timers:
    """Calls that a loop will make later, each known by its name.

    Args:
        loop: The running loop.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._handles: dict[str, asyncio.TimerHandle] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._handles

    def later(self, name: str, seconds: float, call: Callable[[], object]) -> None:
        """Call once after so many seconds; a timer of the same name is replaced."""
        if (handle := self._handles.get(name)) is not None:
            handle.cancel()

        def run() -> None:
            del self._handles[name]
            call()

        self._handles[name] = self._loop.call_later(seconds, run)

    def drop(self, *names: str) -> None:
        """Cancel the timers of these names, as far as there are any."""
        for name in names:
            if (handle := self._handles.pop(name, None)) is not None:
                handle.cancel()

    def cancel(self) -> None:
        """Cancel all of them."""
        for handle in self._handles.values():
            handle.cancel()
        self._handles.clear()
