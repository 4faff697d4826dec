"""Open a hole: one synchronous loop, which is the life of a punch.

    names ── resolver ──> addresses ──┐
    clock ── strategy ──> ports ──────┴─> dialler ── connections ──> callers
                                                                        │
                                            hole <── winner <── election

Rule 1: nothing blocks but the loop's own wait, never longer than CLOCK_CHECK.
Rule 2: a connection that says something else, or nothing, costs only itself.
Rule 3: everything but the winner is closed, with RST where it had opened, so
        that no TIME_WAIT blocks the ports of the next run.
"""

from __future__ import annotations

import os
import random
import selectors
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from punchtunnel import words
from punchtunnel.errors import LocalError, NoHoleError, RejectedError, UsageError
from punchtunnel.protocol import schedule
from punchtunnel.protocol.agreement import Agreement
from punchtunnel.protocol.election import Election
from punchtunnel.protocol.hello import NONCE_SIZE, Hello, Trait
from punchtunnel.punching import diagnosis
from punchtunnel.punching.announce import announce
from punchtunnel.punching.callers import Callers, Connection
from punchtunnel.punching.candidates import Kind
from punchtunnel.punching.choice import strategy_for
from punchtunnel.punching.dialler import Dialler
from punchtunnel.punching.hole import Counts, Hole
from punchtunnel.punching.listeners import Listeners
from punchtunnel.punching.nextrouter import NextRouter
from punchtunnel.punching.nomination import Nomination, nonce_after
from punchtunnel.punching.outlook import Outlook
from punchtunnel.punching.rations import Rations, Tries
from punchtunnel.punching.resolver import Answer
from punchtunnel.punching.settings import Settings
from punchtunnel.punching.warmup import Warmup
from punchtunnel.punching.whereabouts import Whereabouts
from punchtunnel.reporting import events
from punchtunnel.system.addresses import source_towards
from punchtunnel.system.signals import Wake
from punchtunnel.words import reach, usage

if TYPE_CHECKING:
    from punchtunnel.punching.helper import Gathering, Helper, News
    from punchtunnel.punching.relays import Relays
    from punchtunnel.punching.routers import Routers
    from punchtunnel.punching.via import Via

# Seconds.  The wall clock may be stepped while we wait.
CLOCK_CHECK = 1.0
# Until this machine's routers are asked for a port.
ROUTERS_DELAY = 0.1


def open_hole(
    settings: Settings,
    clock: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
    rng: random.Random | None = None,
    nonce: bytes | None = None,
    report: events.Report = events.unreported,
    signals: Wake | None = None,
    rations: Rations | None = None,
    meanwhile: Callable[[], None] | None = None,
    gathering: Gathering | None = None,
) -> Hole:
    """Punch as `settings` say, and return the hole.

    Args:
        settings: Checked values, with a peer, a command or an appointment.
        clock: Unix time in seconds; decides the ports.
        monotonic: Any steady time in seconds; decides the waits.
        rng: Jitter and coins; the system's by default.
        nonce: NONCE_SIZE bytes; by default such that the side that was there
            first leads.
        report: Where events go.
        signals: What may end the wait.
        rations: What each source has left of tries at the secret; the same
            object for all punches with it, or each one would give fresh tries.
        meanwhile: Called in a thread once the SYNs, if any, are under way: what
            comes after the punch can be loaded while the peer is waited for.
        gathering: Has what else can help; None: nothing.

    Raises:
        UsageError: Neither a peer nor anything else to meet it by, or one that is no address and has none.
        NoHoleError: The time to wait has passed.
        RejectedError: The peer cannot be linked to.
        LocalError: No port of this machine could be used, or too few because of a limit of this process.
        SignalError: A signal has come.
    """
    if not (settings.peers or settings.via or settings.relays or settings.appointment):
        raise UsageError(usage.NO_PEER)
    rng, rations = rng or random.SystemRandom(), rations or Rations(monotonic)
    puncher = Puncher(settings, clock, monotonic, rng, nonce, report, signals, rations, meanwhile, gathering)
    try:
        return puncher.run()
    finally:
        puncher.close()


class Puncher:
    """One punch; `open_hole` tells what the arguments are."""

    def __init__(
        self,
        settings: Settings,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        rng: random.Random,
        nonce: bytes | None,
        report: events.Report,
        signals: Wake | None,
        rations: Rations,
        meanwhile: Callable[[], None] | None,
        gathering: Gathering | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._monotonic = monotonic
        self._report = report
        self._signals = signals
        self._rations = rations
        self._started = monotonic()
        self._planned = self._told = float("-inf")
        self._buckets: tuple[int, ...] = ()
        self._closed = False

        counts = self._counts = Counts()
        selector = self._selector = selectors.DefaultSelector()
        callers = self._callers = Callers(words.peers_text(settings.peers))
        self._warmup = Warmup(self._agree if settings.sealed else None, meanwhile, self._has_time)
        # Without one it is drawn when the first connection opens; it is not sent before.
        self._has_nonce = nonce is not None
        self._election = self._hold_election(nonce or bytes(NONCE_SIZE), Tries(callers.who, rations, rng))
        # Some carriers send traffic out of another address than the one that is
        # known, so a peer that proves the secret may come from anywhere.
        listeners = self._listeners = Listeners(
            selector, counts, report, self._on_open, open_to_all=settings.proves, given_port=settings.port
        )
        strategy, self._forwarded = strategy_for(settings, rng, self._started)
        self._dialler = Dialler(settings, strategy, listeners, selector, monotonic, counts, report, self._on_open)
        self._nomination = Nomination(
            settings, self._election, callers, self._dialler, selector, monotonic, counts, report
        )
        self._gathering = gathering
        self._whereabouts = Whereabouts(settings, report, gathering.recall if gathering else dict)
        self._next_router = NextRouter(settings, selector)
        self._outlook = Outlook(
            settings, counts, self._dialler, self._whereabouts, self._next_router, gathering, report
        )
        self._routers: Routers | None = None
        # A hole that opens at once needs no router, and waits for none.
        self._ask_routers_at = self._started + ROUTERS_DELAY if settings.maps and gathering else float("inf")
        self._helpers: list[Helper[object]] = []
        self._via = self._begin_via() if settings.via else None
        self._relays = self._begin_relays(gathering) if settings.relays and gathering is not None else None

    def _begin_via(self) -> Via:
        # Imported late: few runs have a command.
        from punchtunnel.punching.via import Via

        via = Via(self._settings, self._monotonic, self._on_open, self._report, self._gathering)
        self._employ(via, lambda _: None)
        return via

    def _begin_relays(self, gathering: Gathering) -> Relays:
        # Imported late: few runs have any.
        from punchtunnel.punching.relays import Relays

        return Relays(self._settings, gathering, self._started, self._employ, self._on_open, self._report)

    def _hold_election(self, nonce: bytes, limits: Tries) -> Election:
        settings = self._settings
        tag = schedule.channel_tag(settings.channel)
        return Election(
            Hello(nonce, tag, settings.role, settings.traits | Trait.PADS),
            agree=self._warmup.agreement if settings.sealed else None,
            strict=settings.proves,
            limits=limits if settings.sealed else None,
            resumed=settings.resumed,
            insists=settings.insists,
        )

    # ---- the loop

    def run(self) -> Hole:
        """Punch until there is a hole; `open_hole` tells what is raised."""
        if self._signals is not None:
            self._selector.register(self._signals, selectors.EVENT_READ, self._check_signals)
        self._employ(self._whereabouts.resolver, self._on_resolved)
        self._whereabouts.begin(self._started)
        self._use_addresses()
        deadline = self._started + self._settings.wait if self._settings.wait else float("inf")
        while (winner := self._nomination.winner) is None:
            self._check_signals()
            now = self._monotonic()
            if now >= deadline:
                if self._gathering is not None:
                    self._gathering.failed()
                raise self._no_hole()
            if now - self._planned >= CLOCK_CHECK:
                self._plan(now)
            self._dialler.start_due()
            if self._via is not None:
                self._via.start()
            if self._relays is not None:
                self._relays.start(now)
            if self._whereabouts.addresses or not self._settings.peers:
                # The first SYNs, if this side has to send any, are under way.
                self._warmup.start()
                self._ask_routers(now)
            if now - self._told >= CLOCK_CHECK:
                self._told = now
                early, rejected = now - self._started < CLOCK_CHECK, self._nomination.rejection is not None
                self._outlook.tell(now - self._started, early=early, rejected=rejected)
            self._nomination.expire(now)
            self._wait(deadline)
        port = winner.listening_port
        news = self._gathering.heard() if self._gathering is not None else None
        mapped = news is not None and port is not None and news.leads_to(*port)
        hole = winner.hole(self._settings, self._monotonic() - self._started, self._counts, mapped=mapped)
        if (
            self._gathering is not None
            and self._settings.proves
            and self._whereabouts.names
            and not winner.connection.is_brought
        ):
            self._gathering.remember(self._whereabouts.names, winner.way(mapped=mapped))
        if not self._settings.resumed:
            announce(hole, winner.connection.round_trip, self._report, proves=self._settings.proves)
        return hole

    def _wait(self, deadline: float) -> None:
        """Wait for sockets and helpers until something is due, and handle what they have."""
        if self._nomination.winner is not None:
            return
        due = min(deadline, self._dialler.next_due(), self._callers.next_expiry())
        if self._whereabouts.addresses:
            # Before that nobody is asked, however late it is.
            due = min(due, self._ask_routers_at)
        due = min((due, *(one.due for one in (self._via, self._relays) if one is not None))) - self._monotonic()
        for key, _ in self._selector.select(max(0.0, min(CLOCK_CHECK, due))):
            # An earlier one of this batch may have closed it, or won.
            if self._nomination.winner is None and self._selector.get_map().get(key.fd) is key:
                key.data()

    def _check_signals(self) -> None:
        """Raise SignalError if one has come; if it only asks to try now, forget every wait."""
        if self._signals is None or not self._signals.check():
            return
        self._report(events.TryingNow(what=words.DIAL_ANEW))
        self._dialler.start_over()
        self._next_router.forget()
        if self._routers is not None:
            self._routers.start_over()
        if self._via is not None:
            self._via.start_over()
        if self._relays is not None:
            self._relays.start_over(self._monotonic())
        self._whereabouts.look_again(self._monotonic())
        self._planned = float("-inf")

    def _no_hole(self) -> NoHoleError | RejectedError | LocalError:
        if self._nomination.rejection is not None:
            return self._nomination.rejection
        where, settings = self._whereabouts, self._settings
        wait = round(settings.wait + settings.spent, 1)
        others = "; ".join(one.why_not() for one in (self._via, self._relays) if one is not None)
        if settings.appointment:
            # Both sides were there.
            return NoHoleError(diagnosis.why_no_direct_hole(wait, self._counts, self._dialler.fates()))
        if not settings.peers:
            return NoHoleError(reach.no_hole(wait, others))
        via = f"; {others}" if others else ""
        if not where.addresses:
            return NoHoleError(("; ".join(where.failed) or words.NAME_UNANSWERED) + via)
        evidence = self._dialler.evidence()
        finding = self._outlook.finding(evidence)
        if finding.cause is diagnosis.Cause.STARVED:
            return LocalError(words.no_resources(os.strerror(self._counts.shortage)))
        own = source_towards(where.addresses[0], settings.interface) or ""
        given = {one.remote: fate for one, fate in evidence.items() if one.kind is Kind.FORWARDED}
        return NoHoleError(
            diagnosis.why_no_hole(
                settings.peers, where.families(), wait, self._counts, finding, nat64=str(where.nat64 or ""), own=own
            )
            + "".join(diagnosis.why_not_by(remote, fate) for remote, fate in given.items())
            + via
        )

    def close(self) -> None:
        """Close everything but the winner."""
        self._closed = True
        self._nomination.close()
        self._tell_guesses()
        self._dialler.close()
        self._next_router.close()
        for helper in self._helpers:
            helper.close()
        self._selector.close()
        self._warmup.join()

    def _ask_routers(self, now: float) -> None:
        """Ask for a mapping, or for another one, if that is due."""
        if now < self._ask_routers_at or self._gathering is None:
            return
        if self._routers is None:
            # Imported late, as the delay is: most holes open before.
            from punchtunnel.punching.routers import Routers

            self._routers = Routers(self._settings, self._gathering, self._selector, self._listeners, self._report)
        busy = self._callers.busy
        self._ask_routers_at = self._routers.ask(now, self._whereabouts.addresses, busy=busy)

    # ---- where to, and when

    def _employ(self, helper: Helper[News], use: Callable[[News], None]) -> None:
        """Let a helper work beside the punch, and use what it brings."""
        self._helpers.append(helper)
        self._selector.register(helper, selectors.EVENT_READ, lambda: use(helper.take()))

    def _on_resolved(self, answer: Answer) -> None:
        self._whereabouts.take(self._monotonic(), answer)
        self._use_addresses()

    def _use_addresses(self) -> None:
        """Punch towards the addresses that are known now."""
        where = self._whereabouts
        self._callers.addresses = self._listeners.addresses = where.addresses
        if self._forwarded is not None:
            self._forwarded.places = where.forwarded
        self._nomination.compare(where.addresses)
        self._planned = float("-inf")

    def _plan(self, now: float) -> None:
        """Once a second: look at the clock, and at the names' addresses when they are old."""
        self._planned = now
        self._tell_guesses()
        self._nomination.retry()
        if self._nomination.winner is not None:
            return
        self._whereabouts.refresh(now)
        if not (self._whereabouts.addresses or self._settings.appointment):
            return
        wall = self._clock() + self._settings.clock_offset
        buckets = schedule.current_buckets(wall)
        # A network may come or go without a word to this process.
        if buckets != self._buckets:
            self._whereabouts.find_ways()
        busy = self._callers.busy
        self._dialler.plan(self._whereabouts.dialled(now, busy=busy), wall)
        self._next_router.ask(self._dialler.refusing())
        if buckets != self._buckets:
            self._buckets = buckets
            ports = self._dialler.ports
            peer = words.peers_text(self._settings.peers)
            self._report(events.Punching(peer=peer, port_count=len(ports), ports=ports))

    # ---- connections

    def _tell_guesses(self) -> None:
        if (guesses := self._rations.take_untold()) is not None:
            self._report(events.Guessed(remote=guesses.place, count=guesses.failed))

    def _on_open(self, connection: Connection, unread: bytes = b"") -> None:
        if not self._has_nonce:
            self._has_nonce = True
            self._election.mine = self._election.mine._replace(nonce=nonce_after(self._monotonic() - self._started))
        self._nomination.admit(connection, unread)

    def _agree(self) -> Agreement:
        return Agreement(self._settings.secret, schedule.channel_tag(self._settings.channel), os.urandom)

    def _has_time(self) -> bool:
        """Tell whether there is nothing else to do: nobody is on a connection."""
        return not (self._callers.busy or self._nomination.winner or self._closed)
