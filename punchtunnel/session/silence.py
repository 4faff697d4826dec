"""When the silence of a peer is the end of a link, and what it says about the way.

    heard ── HEARTBEAT ──> ping ───────── DEAD_AFTER ─────────> dead
                             └── its kernel acknowledges ── DEAD_AFTER more ──> dead

Rule 1: silence counts from the first ping that nothing has followed.  Counted from what
        was heard last, an idle link would survive an outage of 25 s at most.
Rule 2: acknowledgments are a sign of life, but not for ever: the kernel of a peer whose
        process stands still sends them too.
Rule 3: a process that slept is behind what has happened: it asks at once, and does not wait for long.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from punchtunnel import words
from punchtunnel.errors import LinkError, LostError
from punchtunnel.system import clock
from punchtunnel.system.tcp import Delivery

# Seconds.  A side that has sent or heard nothing for HEARTBEAT sends a ping.  A peer
# that does not answer for DEAD_AFTER is gone.
HEARTBEAT = 15.0
DEAD_AFTER = 40.0
# The same where a lost hole costs nothing but a pause: so a side that nothing tells of it
# notices it well before the other one, which knows, gives up looking (--resume).
LOST_AFTER = 30.0
# Seconds for a sign of life after waking: a wireless network needs some to come back.
WAKE_TIMEOUT = 10.0
# Seconds.  Pings are repeated more often than that, and each is acknowledged.
FRESH_ACK = 10.0
# Times in a row that the kernel has sent one segment: it may be too long for the way.
SUSPECT_AFTER = 2
# The same, with at least 22 s between the first and the last.  If short packets have
# come in the meantime, or if no long one was ever acknowledged, this is no outage.
SWALLOWED_AFTER = 9
LATEST_SIGN = 20.0
# Seconds after which it is no chance that a peer's kernel acknowledges and its process says
# nothing: when that link is cut, the silence says more than the cut.
LONG_SILENCE = 30.0
NEVER = float("inf")


class Carrier(Protocol):
    """What is needed of link.carrier.Carrier."""

    heard_at: float

    @property
    def said_at(self) -> float:
        """See link.carrier.Carrier."""

    def delivery(self) -> Delivery | None:
        """See link.carrier.Carrier."""

    def let_fragment(self) -> None:
        """See link.carrier.Carrier."""


class Silence:
    """Asks a peer that is silent, and ends the session of one that does not answer.

    Args:
        carrier: The hole.
        ping: Asks the peer for a sign of life.
        later: Calls once after so many seconds; what was to be called by the same name is not (Timers.later).
        die: Called with why the link is lost.
        monotonic: Steady seconds.
        with_sleep: The same, going on while the machine is suspended.
        dead_after: Seconds of silence after a question; None: DEAD_AFTER.
    """

    def __init__(
        self,
        carrier: Carrier,
        ping: Callable[[], object],
        later: Callable[[str, float, Callable[[], object]], None],
        die: Callable[[LinkError], None],
        monotonic: Callable[[], float] = time.monotonic,
        with_sleep: Callable[[], float] = clock.with_sleep,
        *,
        dead_after: float | None = None,
    ) -> None:
        self._carrier = carrier
        self._ping = ping
        self._later = later
        self._die = die
        self._dead_after = dead_after or DEAD_AFTER
        self._monotonic = monotonic
        self._with_sleep = with_sleep
        self._looked_at = with_sleep()
        # When the first ping was sent that nothing has followed.
        self._asked_at = NEVER
        # Bytes of the packets that the way swallows while it carries short ones; 0: none.
        self._swallowed = 0
        # The peer's kernel has answered lately, whatever its process does.
        self._acknowledged = False

    def has_slept(self, longest: float) -> bool:
        """Tell whether more than `longest` seconds have passed since the last call."""
        before, self._looked_at = self._looked_at, self._with_sleep()
        return self._looked_at - before > longest

    def expect(self, seconds: float, *, path_only: bool = False) -> None:
        """Ask for a sign of life now; the link is dead if none comes in so many seconds.

        With `path_only` an answer of the peer's kernel is good enough: its process may stand still.
        """
        self._ping()
        asked = self._monotonic()

        def judge() -> None:
            delivery = self._carrier.delivery() if path_only else None
            carries = delivery is not None and delivery.silent_s < self._monotonic() - asked
            if self._carrier.heard_at < asked and not carries:
                self._die(self.why())

        self._later("probe", seconds, judge)

    def look(self) -> None:
        """Ask, or end the session, if it is time."""
        carrier, now = self._carrier, self._monotonic()
        delivery = carrier.delivery()
        if delivery is not None:
            if delivery.repeats >= SUSPECT_AFTER:
                carrier.let_fragment()
            self._acknowledged = delivery.silent_s < FRESH_ACK
            only_short = delivery.silent_s < LATEST_SIGN or delivery.acknowledged < delivery.packet_size
            self._swallowed = delivery.packet_size if only_short and delivery.repeats >= SWALLOWED_AFTER else 0
        if carrier.heard_at >= self._asked_at:
            self._asked_at = NEVER
        if now - self._asked_at >= (2 * self._dead_after if self._acknowledged else self._dead_after):
            self._die(self.why())
        elif now - min(carrier.said_at, carrier.heard_at) >= HEARTBEAT:
            self._asked_at = min(self._asked_at, now)
            self._ping()

    @property
    def swallows(self) -> bool:
        """Tell whether the way swallows long packets while it carries short ones."""
        return self._swallowed > 0

    def why(self, error: LinkError | None = None) -> LinkError:
        """Return why the link is lost; `error` is what the kernel says, if that says more than that time is over."""
        if self._swallowed:
            return LinkError(words.black_hole(self._swallowed))
        seconds = self._monotonic() - self._carrier.heard_at
        is_deaf = self._acknowledged and seconds >= LONG_SILENCE
        if error is not None and not is_deaf and not isinstance(error.__cause__, TimeoutError):
            return error
        return LostError(words.deaf_link(seconds) if self._acknowledged else words.dead_link(seconds))
