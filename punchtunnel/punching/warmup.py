"""Load what comes after the first SYNs while these are under way.

The ciphers take a slow machine a second.  Loaded in the loop of the punch they
would hold up its hello for so long, and the peer would wait for it in vain.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

from punchtunnel.protocol.agreement import Agreement, preload


class Warmup:
    """One thread, which begins no further step once somebody is there: the rest is faster without it.

    Args:
        agree: Makes a fresh key agreement; None if the link is not to be sealed.
        meanwhile: Loads what comes after the punch; None if there is nothing.
        wanted: Tells whether there is still time for another step.
    """

    def __init__(
        self,
        agree: Callable[[], Agreement] | None,
        meanwhile: Callable[[], None] | None,
        wanted: Callable[[], bool],
    ) -> None:
        self._agree = agree
        self._meanwhile = meanwhile
        self._wanted = wanted
        self._started = False
        self._thread: threading.Thread | None = None
        # Made by the thread; list.append and pop are atomic.
        self._prepared: list[Agreement] = []

    def start(self) -> None:
        """Begin, unless it has begun before."""
        if self._started or not (self._agree or self._meanwhile):
            return
        self._started = True
        thread = threading.Thread(target=self._run, name="preload")
        # Without a thread, or a descriptor, things are loaded when they are needed; an error is told then.
        with contextlib.suppress(RuntimeError):
            thread.start()
            self._thread = thread

    def agreement(self) -> Agreement:
        """Return a fresh agreement: the one that was made while there was nothing else to do, or a new one."""
        assert self._agree is not None
        return self._prepared.pop() if self._prepared else self._agree()

    def join(self) -> None:
        """Wait for the thread: some modules cannot be loaded any more while the interpreter ends."""
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            if self._agree is not None:
                preload()
                if self._wanted():
                    self._prepared.append(self._agree())
            if self._meanwhile is not None and self._wanted():
                self._meanwhile()
