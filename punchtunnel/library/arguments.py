"""From the arguments of a call to checked settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from punchtunnel.address import parse_server
from punchtunnel.errors import UsageError
from punchtunnel.protocol import secret as secrets
from punchtunnel.protocol import token
from punchtunnel.protocol.hello import NO_TRAITS, Role, Trait
from punchtunnel.punching.settings import Relay, Settings, has_fast_aes, settings_from
from punchtunnel.reach import stun as stun_servers
from punchtunnel.reach import transit
from punchtunnel.words import usage


def settings_of(
    role: Role,
    peers: Sequence[str],
    channel: str,
    secret: str | bytes,
    no_secret: bool,
    wait: float,
    bind: str | None,
    family: int,
    clock_offset: float,
    plain: bool,
    resume: float,
    port: int,
    map_ports: bool,
    meet: Sequence[str],
    relay: Sequence[str],
    stun: Sequence[str],
) -> Settings:
    """Return the settings of a call; `calls.connect` says what its arguments are.

    Raises:
        UsageError: One of them is wrong, or contradicts another one.
    """
    text = secret.decode("utf-8", "surrogateescape") if isinstance(secret, bytes) else secret
    if not isinstance(resume, int | float):
        raise UsageError(usage.WRONG_TYPE.format(name="resume", kind=type(resume).__name__))
    if not 0 <= resume < float("inf"):
        raise UsageError(usage.NOT_SECONDS.format(option="resume", seconds=resume))
    traits = Trait.PLAIN if plain else Trait.RESUME if resume else NO_TRAITS
    traits |= Trait.FAST_AES if has_fast_aes() else NO_TRAITS
    # Another type is told of by settings_from.
    shared = secrets.normal(text) if text and isinstance(text, str) else text or b""
    settings = settings_from(peers, channel, wait, bind, family, clock_offset, role, traits, shared, port)
    servers = [parse_server("stun", one, stun_servers.DEFAULT_PORT) for one in stun]
    settings = replace(settings, maps=map_ports, relays=relays_of(meet, relay), stun=servers)
    if settings.relays:
        token.check(shared, sealed=settings.sealed)
        if not resume:
            raise UsageError(usage.MEETING_WITHOUT_RESUME)
    if shared and no_secret:
        raise UsageError(usage.NO_SECRET_WITH_SECRET)
    if settings.serves_anyone and not no_secret:
        raise UsageError(usage.PROGRAM_SERVES_ANYONE)
    return settings


def relays_of(meet: Sequence[str], relay: Sequence[str]) -> tuple[Relay, ...]:
    """Return relays, each once: one that may carry the session may be met at, too.

    Args:
        meet: Those where the two sides only meet, as HOST[:PORT].
        relay: Those that may carry it as well.

    Raises:
        UsageError: One of them is no HOST[:PORT].
    """
    met = {parse_server("--meet", text, transit.DEFAULT_PORT): False for text in meet}
    carrying = {parse_server("--relay", text, transit.DEFAULT_PORT): True for text in relay}
    return tuple(Relay(place, carries) for place, carries in (met | carrying).items())
