"""What helps every punch of a run: it is made when it is first wanted, and ends with the run."""

from __future__ import annotations

import errno
import hashlib
import hmac
import itertools
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from punchtunnel.address import is_literal
from punchtunnel.punching.settings import Settings

if TYPE_CHECKING:
    from punchtunnel.address import Place
    from punchtunnel.punching.helper import Meeting, PortMapper, RouterNews, Way
    from punchtunnel.reach.memory import Memory

Answer = TypeVar("Answer")
# Bytes from which the mapper makes its nonces, and a meeting what it is called at its relay.
KEY_SIZE = 32
# Seconds that a punch waits for storage: it takes 0.1 ms where it is well.
READING = 0.1
# Seconds that the end of a run waits for storage.
WRITING = 0.3


class Gatherer:
    """Has the mapper and the memory of a run (punching.helper.Gathering).

    Args:
        settings: What to bind, and whose addresses are remembered.
        wall: Unix time in seconds.

    Attributes:
        told: What was reported, so that the next punch does not repeat it.
    """

    def __init__(self, settings: Settings, wall: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._wall = wall
        self._mapper: PortMapper | None = None
        self._memory: Memory | None = None
        self._writer: threading.Thread | None = None
        self._known_key = b""
        # Which of this user's processes with this channel and role this is, from 0.
        self._number = 0
        self._claimed: list[socket.socket | None] = []
        self.told: set[str] = set()

    def __enter__(self) -> Gatherer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def mapper(self) -> PortMapper:
        """Return the one mapper."""
        if self._mapper is None:
            # Imported late: most holes open before it is wanted.
            from punchtunnel.reach.mapping import Mapper

            self._mapper = Mapper(self._key(), self._settings.interface, self._settings.bind)
        return self._mapper

    def _key(self) -> bytes:
        """Return what only this user knows: the same in each run, or in this one if nothing may be remembered."""
        if not self._known_key:
            fresh = os.urandom(KEY_SIZE)
            self._known_key = self._ask(lambda memory: memory.key(), fresh) if self._settings.remembers else fresh
        return self._known_key

    def meeting(self, relay: Place) -> Meeting:
        """Return a new meeting at a relay.

        Raises:
            OSError: There is no descriptor left.
        """
        # Imported late: few runs name a relay.
        from punchtunnel.reach.meeting import Identity, Meeting

        settings = self._settings
        who = Identity(settings.secret, settings.channel, self._relay_key(), int(settings.role))
        return Meeting(relay, who, bind=settings.bind or "", interface=settings.interface)

    def _relay_key(self) -> bytes:
        """Return the same as `_key`, but another one for each process of this user: two may meet each other.

        A process that is started again finds the number of its predecessor free, and so the same key.
        """
        # Imported late: few runs name a relay.
        from punchtunnel.system.claim import claim

        for number in itertools.count():
            if self._claimed:
                break
            try:
                self._claimed = [claim(f"relay {self._settings.channel} {int(self._settings.role)} {number}")]
                self._number = number
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    break
        key = self._key()
        return hmac.digest(key, bytes([self._number % 256]), hashlib.sha256) if self._number else key

    def heard(self) -> RouterNews | None:
        """Return what this machine's routers have said so far; None if they were not asked."""
        return None if self._mapper is None else self._mapper.heard()

    def recall(self) -> Mapping[str, Sequence[str]]:
        """Return what the names led to; the address by which a hole opened comes first."""
        if not self._remembers_names:
            return {}
        from punchtunnel.reach.remembered import NOTHING

        known = self._ask(lambda memory: memory.recall(self._settings.peers, self._settings.channel), NOTHING)
        best = known.way.host if known.way else ""
        return {
            name: sorted(hosts, key=lambda host: host != best)
            for name in self._settings.peers
            if (hosts := known.hosts_of(name))
        }

    def remember(self, names: Mapping[str, Sequence[str]], way: Way) -> None:
        """Write down what has worked, in a thread: storage may be slow, and the session waits for nothing."""
        if not (names and self._remembers_names):
            return
        from punchtunnel.reach import remembered

        now = self._wall()
        seen = tuple(remembered.Seen(name, tuple(hosts), now) for name, hosts in names.items())
        known = remembered.Remembered(now, seen, remembered.Way(*way, now))
        self._write(lambda memory: memory.remember(self._settings.peers, self._settings.channel, known))

    def failed(self) -> None:
        """Count it against the way that is remembered."""
        if self._remembers_names:
            self._write(lambda memory: memory.failed(self._settings.peers, self._settings.channel))

    def release(self) -> None:
        """Let the routers forward nothing any more; waits for nothing."""
        if self._mapper is not None:
            self._mapper.release()

    def close(self) -> None:
        """End everything, and wait for it for a moment."""
        if self._mapper is not None:
            self._mapper.close()
            self._mapper = None
        for sock in self._claimed:
            if sock is not None:
                sock.close()
        self._claimed = []
        if self._writer is not None:
            self._writer.join(WRITING)

    @property
    def _remembers_names(self) -> bool:
        """Literals lead where they led before, and without a secret nothing that is remembered may be used."""
        settings = self._settings
        return settings.remembers and settings.proves and not all(map(is_literal, settings.peers))

    def _remembering(self) -> Memory:
        if self._memory is None:
            from punchtunnel.reach.memory import Memory, state_directory

            self._memory = Memory(state_directory(os.environ), self._wall)
        return self._memory

    def _write(self, do: Callable[[Memory], None]) -> None:
        if self._writer is not None and self._writer.is_alive():
            # Storage stands still, and what is to be written is only a hint.
            return
        self._writer = self._work(do)

    def _ask(self, question: Callable[[Memory], Answer], otherwise: Answer) -> Answer:
        """Return the answer, or `otherwise` where storage stands still: the punch does not wait for it."""
        answers: list[Answer] = []
        if (reader := self._work(lambda memory: answers.append(question(memory)))) is not None:
            reader.join(READING)
        return answers[0] if answers else otherwise

    def _work(self, do: Callable[[Memory], None]) -> threading.Thread | None:
        """Let a thread do something with the memory; None if the system refuses it."""
        thread = threading.Thread(target=do, args=(self._remembering(),), name="memory", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            return None
        return thread
