"""When a link works: in the next turn of the loop, or a little later, so that two things go in one segment.

    what is urgent               after the events that have come together, or in the next turn
    ACK of a stream              after ACK_DELAY              mux.control, not urgent
    acknowledgment of frames     after ACKNOWLEDGE_DELAY      journal (resume.py)

What goes with something else costs neither side a wake-up or a record of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from punchtunnel.link.carrier import Carrier
from punchtunnel.link.stream import Stream
from punchtunnel.link.turns import ACK_DELAY
from punchtunnel.protocol.mux import Mux
from punchtunnel.protocol.resume import ACKNOWLEDGE_DELAY
from punchtunnel.system.loop import Loop
from punchtunnel.system.poller import Poller


class Later:
    """What a link has asked its loop for.

    Args:
        loop: The running loop.
        poller: Watches what the link works for; tells of nothing else.
        mux: Of the link.
        work: Sends what is urgent.
    """

    def __init__(self, loop: Loop, poller: Poller, mux: Mux[Stream], work: Callable[[], None]) -> None:
        self._loop = loop
        self._poller = poller
        self._mux = mux
        self._work = work
        poller.after = work
        self._is_soon = False
        self._hurrying: asyncio.TimerHandle | None = None
        self._acknowledging: asyncio.TimerHandle | None = None

    def soon(self) -> None:
        """Work after the events that are being told, which may be under way, or in the next turn of the loop."""
        if self._poller.is_telling:
            self._poller.is_due = True
        else:
            self.in_next_turn()

    def in_next_turn(self) -> None:
        """Work in the next turn of the loop: this one is over."""
        self._poller.may_spin = False
        if not self._is_soon:
            self._is_soon = True
            self._loop.call_soon(self._work_soon)

    def look(self) -> None:
        """Let the timer run that sends control frames that are not urgent: nothing else is to be sent now."""
        if self._hurrying is None:
            self._hurrying = self._loop.call_later(ACK_DELAY, self._hurry)

    def acknowledge(self, carrier: Carrier) -> None:
        """Let the timer run that acknowledges what has come, also while the hole is full, and other things are sent."""
        if self._acknowledging is None and carrier.owes:
            self._acknowledging = self._loop.call_later(ACKNOWLEDGE_DELAY, self._acknowledge, carrier)

    def _work_soon(self) -> None:
        self._is_soon = False
        self._work()

    def _hurry(self) -> None:
        self._hurrying = None
        self._mux.hurry()
        self._work()

    def _acknowledge(self, carrier: Carrier) -> None:
        # On another hole the first word says the same.
        self._acknowledging = None
        carrier.acknowledge(self._mux)
        self._work()
