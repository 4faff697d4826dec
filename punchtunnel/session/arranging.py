"""Two sides that have met through a relay arrange to meet without it: offers, and tries by appointment.

    leader                                follower
    gathers                               gathers
      |  OFFER 1  ------------------------> |
      |  <------------------------  OFFER 1 |
    tries when it has come                tries half a round trip after it has said so
      |  no hole: 5 s later                 |
      |  OFFER 2  ------------------------> |  gathers
      ...

Both tries begin in the same moment, so that SYNs cross (as DCUtR of libp2p does it; arXiv 2510.27500).

Rule 1: nothing is dialled before the other side has proved the secret, and has said where it is.
Rule 2: a try is announced by the leader alone; a follower that has reason to hope for one asks for it.
Rule 3: the pauses grow to an hour: what has failed in one network fails again, until something changes.

Blocking, in a thread of its own: it waits for minutes between two tries, and a punch blocks, too.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from itertools import count
from typing import Protocol

from punchtunnel import words
from punchtunnel.errors import LostError, NoHoleError
from punchtunnel.protocol.offers import LAST_NUMBER, MAX_OFFER, Flag, Offer, decode_offer
from punchtunnel.protocol.records import OFFER
from punchtunnel.punching.hole import Hole
from punchtunnel.session.rawrecords import RawRecords
from punchtunnel.system.signals import Wake

# Seconds from a try that has failed to the next one: the first may have come too early, and
# later something may have changed without a word to this process.
PAUSES = (5.0, 15.0, 60.0, 300.0, 3600.0)
# Seconds from a try of another kind than the first to the next one of such: it leaves some hundred entries in
# the routers, which keep them for about so long.
COSTLY_AGAIN = 240.0
# The two clocks of that began with the same try, a round trip apart at most.
EARLY = 10.0
# Seconds for the follower's offer: it gathers before it says so.
OFFER_TIMEOUT = 10.0
# Seconds.
LONGEST_WAIT = 86400.0
# Seconds between two words that only say that a side is there, and without any until it is taken for gone.
REPEAT, SILENCE = 20.0, 90.0
# Seconds for the first word through a relay.
FIRST_TIMEOUT = 5.0


class Gathered(Protocol):
    """How this side can be met, for one try: mappings and ports that are kept open until `close`.

    Attributes:
        offer: What the peer is told; its number and flags are the caller's.
        own_ports: Of this machine, one for each OBSERVED candidate of the offer.
    """

    offer: Offer
    own_ports: tuple[int, ...]

    def close(self) -> None:
        """Let go what is kept for the try."""


class Ways(Protocol):
    """What leads to a direct hole."""

    def gather(self, signals: Wake) -> Gathered:
        """Find out how this side can be met; takes a second or two, and fails at nothing."""

    def plans(self, mine: Offer, theirs: Offer) -> int:
        """Return how many kinds of tries there are for these two: the second follows the first without a pause."""

    def punch(self, gathered: Gathered, theirs: Offer, signals: Wake) -> Hole:
        """Try once, as the offers and their number say.

        Raises:
            NoHoleError: No hole has opened.
            SignalError: A signal has come.
        """


class Talk(Protocol):
    """What carries offers."""

    @property
    def round_trip(self) -> float:
        """Seconds; 0 if that is not known."""

    def say(self, offer: Offer) -> None:
        """Send one.

        Raises:
            LostError, OSError: The relayed connection is broken.
        """

    def hear(self, timeout: float) -> Offer | None:
        """Wait for one, for so many seconds; None: there was none, or something has changed here meanwhile.

        Raises:
            LostError, OSError: The relayed connection is broken.
            SignalError: A signal has come.
        """


class RawTalk:
    """Talks by single records on a relayed hole that no link is on.

    A relay tells nobody that one side has vanished.  So while nothing else is said, the leader repeats
    its last offer every REPEAT seconds, and the follower answers that with its own.

    Args:
        records: Of the hole.
        leads: This side leads on it.
        round_trip: Seconds.
        signals: What may end the wait.
        monotonic: Any steady time in seconds.
    """

    def __init__(
        self,
        records: RawRecords,
        leads: bool,
        round_trip: float,
        signals: Wake,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._records = records
        self._leads = leads
        self.round_trip = round_trip
        self._signals = signals
        self._monotonic = monotonic
        # The last offer of ours, and the numbers of those that were repeated.
        self._said: Offer | None = None
        self._repeated = -1

    def say(self, offer: Offer) -> None:
        """See Talk."""
        if offer.number:
            self._said = offer
        self._records.say(offer.encode(), OFFER)

    def hear(self, timeout: float) -> Offer | None:
        """See Talk.

        Raises:
            LostError: Nothing has come for SILENCE seconds.
        """
        now = self._monotonic()
        until, silent_until, repeat_at = now + timeout, now + SILENCE, now + REPEAT
        while True:
            due = min(until, silent_until, repeat_at)
            try:
                data = self._records.hear(OFFER, MAX_OFFER, due - now, self._signals, hurries=True)
            except TimeoutError:
                now = self._monotonic()
                if now >= silent_until:
                    raise LostError(words.LINK_CUT) from None
                if now < repeat_at or now >= until:
                    # It is over, or something has changed here.
                    return None
                repeat_at = now + REPEAT
                if self._leads and self._said is not None:
                    self._repeated = self._said.number
                    self._records.say(self._said.encode(), OFFER)
                continue
            now = self._monotonic()
            silent_until = now + SILENCE
            if not self._is_repeated(offer := decode_offer(data)):
                return offer

    def _is_repeated(self, offer: Offer) -> bool:
        """Tell whether an offer only says that its side is there; the follower answers it."""
        if self._said is None or offer.number != self._said.number:
            return False
        if self._leads:
            return self._repeated == offer.number
        self._records.say(self._said.encode(), OFFER)
        return True


class Arranger:
    """Arranges tries until one of them succeeds.

    Args:
        talk: Carries the offers.
        leads: This side leads on the relayed hole.
        ways: What is tried.
        flags: Of our offers.
        monotonic: Any steady time in seconds.
        signals: What may end it.
        report: Told why a try has failed, and in how many seconds the next one follows, if this side knows that.

    Attributes:
        why: Why the last try has failed, as a sentence.
    """

    def __init__(
        self,
        talk: Talk,
        leads: bool,
        ways: Ways,
        flags: Flag,
        signals: Wake,
        monotonic: Callable[[], float],
        report: Callable[[str, float | None], None],
    ) -> None:
        self._talk = talk
        self._leads = leads
        self._ways = ways
        self._flags = flags
        self._signals = signals
        self._monotonic = monotonic
        self._report = report
        self._pauses = 0
        self.why = ""
        self._number = 0
        # When the last try of another kind than the first began.
        self._costly_at = float("-inf")

    def run(self, deadline: float, tries: int | None = None) -> Hole:
        """Return the first direct hole.

        Args:
            deadline: When to give up, as `monotonic` counts.
            tries: How many tries are made, at most; None: any number.

        Raises:
            NoHoleError: It is too late, or they were made.
            LostError, OSError: The relayed connection is broken.
            PeerError: The peer breaks the rules.
            SignalError: A signal has come.
        """
        for made in count(1):
            with contextlib.ExitStack() as kept:

                def gather(kept: contextlib.ExitStack = kept) -> Gathered:
                    return kept.enter_context(contextlib.closing(self._ways.gather(self._signals)))

                gathered, theirs = self._propose(gather(), deadline) if self._leads else self._follow(gather, deadline)
                plans, began = self._ways.plans(gathered.offer, theirs), self._monotonic()
                is_costly = (self._number - 1) % plans != 0
                try:
                    if is_costly and began - self._costly_at < COSTLY_AGAIN - EARLY:
                        # The leader knows that as well.
                        raise NoHoleError(self.why)
                    self._costly_at = began if is_costly else self._costly_at
                    return self._ways.punch(gathered, theirs, self._signals)
                except NoHoleError as error:
                    self.why = str(error)
            if made == tries or self._monotonic() >= deadline:
                break
            self._pause(plans, deadline)
        raise NoHoleError(self.why)

    def _follow(self, gather: Callable[[], Gathered], deadline: float) -> tuple[Gathered, Offer]:
        """Answer the leader's next offer; return ours and that one when it is time for the try."""
        # At first both gather at once.  Later it may be an hour until the next try.
        gathered = gather() if not self._number else None
        while (theirs := self._hear_until(deadline)) is not None:
            if theirs.number in (0, self._number):
                continue
            self._number = theirs.number
            gathered = gathered or gather()
            self._say(gathered)
            # The leader hears it after half a round trip.
            self._signals.sleep(self._talk.round_trip / 2)
            return gathered, theirs
        raise NoHoleError(self.why)

    def _propose(self, gathered: Gathered, deadline: float) -> tuple[Gathered, Offer]:
        """Announce the next try; return our offer and the follower's when it is time for it."""
        while self._monotonic() < deadline:
            self._number = self._number % LAST_NUMBER + 1
            self._say(gathered)
            until = min(self._monotonic() + OFFER_TIMEOUT, deadline)
            while (theirs := self._hear_until(until)) is not None:
                if theirs.number == self._number:
                    return gathered, theirs
                # 0 asks for what is under way, and others are late answers.
        raise NoHoleError(self.why)

    def _say(self, gathered: Gathered) -> None:
        gathered.offer = gathered.offer._replace(number=self._number, flags=self._flags)
        self._talk.say(gathered.offer)

    def _hear_until(self, deadline: float) -> Offer | None:
        """Return the next offer; None when it is too late."""
        while (left := deadline - self._monotonic()) > 0:
            if (theirs := self._talk.hear(min(left, LONGEST_WAIT))) is not None:
                return theirs
            if not self._leads and self._number and deadline - self._monotonic() > 0:
                # Something has changed here: a try may be worth it now.
                self._talk.say(Offer(0, self._flags))
        return None

    def _pause(self, plans: int, deadline: float) -> None:
        """Wait before the next try; the follower goes on, and waits for the leader."""
        other_follows = self._number % plans != 0
        if other_follows and self._monotonic() - self._costly_at >= COSTLY_AGAIN:
            # Of another kind.
            return
        if not self._leads:
            self._report(self.why, None)
            return
        pause = PAUSES[min(self._pauses, len(PAUSES) - 1)]
        self._pauses += 1
        self._report(self.why, pause)
        until = min(self._monotonic() + pause, deadline)
        # The follower's wish, or a change here, ends the pause; a late answer does not.
        while (left := until - self._monotonic()) > 0 and (heard := self._talk.hear(left)) is not None:
            if not heard.number:
                break
        if other_follows:
            # Its number is left out.
            self._number += 1


def first_words(records: RawRecords, flags: Flag, waited: float, signals: Wake) -> Offer:
    """Exchange the first words on a relayed hole: who may do what there, and for how long each has waited.

    Raises:
        TimeoutError, OSError, LostError: The peer is not there.
        PeerError: It says something else.
        SignalError: A signal has come.
    """
    records.say(Offer(0, flags, waited).encode(), OFFER)
    return decode_offer(records.hear(OFFER, MAX_OFFER, FIRST_TIMEOUT, signals))
