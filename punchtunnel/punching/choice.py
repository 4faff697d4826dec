"""Which strategies a punch has: what few runs need is imported only by them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from punchtunnel.punching.candidates import Kind
from punchtunnel.punching.strategy import ScheduledPorts

if TYPE_CHECKING:
    import random

    from punchtunnel.punching.appointed import Appointment
    from punchtunnel.punching.forwarded import ForwardedPorts
    from punchtunnel.punching.race import Strategy
    from punchtunnel.punching.settings import Settings


class Choice(NamedTuple):
    """The strategy, and the part of it that is told of forwarded ports, if there is one."""

    strategy: Strategy
    forwarded: ForwardedPorts | None = None


def strategy_for(settings: Settings, rng: random.Random, now: float) -> Choice:
    """Return what is dialled: the ports of the schedule, and beside them those that somebody has told us of.

    Args:
        settings: Of this side.
        rng: Jitter and coins.
        now: Steady time in seconds.
    """
    if settings.appointment is not None:
        return _by_appointment(settings, settings.appointment, rng, now)
    scheduled = ScheduledPorts(settings.channel, rng, now)
    if not settings.forwarded:
        return Choice(scheduled)
    from punchtunnel.punching.forwarded import ForwardedPorts
    from punchtunnel.punching.race import Race

    forwarded = ForwardedPorts(settings.port, rng, now)
    race = Race({Kind.SAME_PORT: scheduled, Kind.PAIR: scheduled, Kind.FORWARDED: forwarded})
    return Choice(race, forwarded)


def _by_appointment(settings: Settings, appointment: Appointment, rng: random.Random, now: float) -> Choice:
    from punchtunnel.punching.appointed import AppointedPorts, Plan, forwarded_places
    from punchtunnel.punching.forwarded import ForwardedPorts
    from punchtunnel.punching.race import Race

    if appointment.plan is Plan.GUESS:
        from punchtunnel.punching.guesses import FreshPorts, GuessedPorts

        if appointment.mine.port_use.is_hard:
            return Choice(FreshPorts(appointment, settings.channel))
        return Choice(GuessedPorts(appointment, settings.channel, rng))
    scheduled = ScheduledPorts(settings.channel, rng, now)
    observed = AppointedPorts(appointment, settings.channel, rng, now)
    forwarded = ForwardedPorts(settings.port, rng, now, forwarded_places(appointment.theirs))
    strategies: dict[Kind, Strategy] = {Kind.OBSERVED: observed, Kind.FORWARDED: forwarded}
    return Choice(Race(strategies | {Kind.SAME_PORT: scheduled, Kind.PAIR: scheduled}), forwarded)
