"""From options to the checked values that a run needs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from punchtunnel import words
from punchtunnel.address import AnyPlace, parse_listen, parse_server, parse_target, with_number
from punchtunnel.cli.options import Options
from punchtunnel.errors import LocalError, UsageError
from punchtunnel.protocol.hello import NO_TRAITS, Role, Trait
from punchtunnel.protocol.service import is_service
from punchtunnel.punching.settings import (
    DEFAULT_RESUME,
    DEFAULT_SESSIONS,
    DEFAULT_WAIT,
    Relay,
    Settings,
    has_fast_aes,
    settings_from,
)
from punchtunnel.system.addresses import is_own_literal
from punchtunnel.system.services import port_of
from punchtunnel.words import services, usage

if TYPE_CHECKING:
    from punchtunnel.doctor.facts import Bind

# Of --birthday: the connections that a carrier allows a customer, and more than a home router likes.
MOST_BIRTHDAY = 1024
# Of STUN servers (RFC 8489 §18.6).
STUN_PORT = 3478
# Seconds: three centuries.  A longer time is a mistake.
LONGEST = 1e10


def _traits(options: Options) -> Trait:
    return (
        (Trait.NO_RECEIVE if options.send_only else NO_TRAITS)
        | (Trait.PLAIN if options.plain else NO_TRAITS)
        | (Trait.CHECK if options.check else NO_TRAITS)
        | (Trait.FAST_AES if has_fast_aes() else NO_TRAITS)
        | (Trait.SERVICE if options.serves_many else NO_TRAITS)
        | (Trait.RESUME if resume_of(options) and not (options.plain or options.check) else NO_TRAITS)
    )


def sessions_of(options: Options) -> int:
    """Return how many sessions a service has at once, at most."""
    return options.sessions or DEFAULT_SESSIONS


def resume_of(options: Options) -> float:
    """Return the seconds for which another hole is looked for when one is lost."""
    return DEFAULT_RESUME if options.resume is None else options.resume


def wait_of(options: Options) -> float:
    """Return the seconds for which a hole is waited for; 0: for ever."""
    if options.wait is not None:
        return options.wait
    return 0.0 if options.keep else DEFAULT_WAIT


def listens_of(options: Options) -> list[tuple[AnyPlace, str]]:
    """Return the places of -L, each with the service that its clients get, or "".

    The name follows the last "="; after unix: a path that has one itself may end in another one, for no name.

    Raises:
        UsageError: One has another form.
    """
    found = []
    for text in options.listen or ():
        place, is_named, service = text.rpartition("=")
        if not is_named or (text.startswith("unix:") and "/" in service):
            place, service = text, ""
        elif text.startswith("unix:") and not service:
            pass
        elif not is_service(service):
            raise UsageError(services.NOT_A_LISTEN.format(text=text, name=service))
        if is_named and not place:
            raise UsageError(usage.no_port("-L", text))
        found.append((parse_listen(place, port_of), service))
    return found


def targets_of(options: Options) -> dict[str, AnyPlace]:
    """Return the targets of --to by the names of services, "" for one without.

    Raises:
        UsageError: One has another form, or two have one name.
    """
    found: dict[str, AnyPlace] = {}
    for text in options.to or ():
        service, is_named, place = text.partition("=")
        if not is_named or text.startswith("unix:"):
            service, place = "", text
        elif not is_service(service):
            raise UsageError(services.NOT_A_TARGET.format(text=text, name=service))
        if is_named and not place:
            raise UsageError(usage.no_port("--to", text))
        if service in found:
            raise UsageError(services.TARGET_TWICE.format(name=service) if service else services.TWO_NAMELESS)
        found[service] = parse_target(place, port_of)
    return found


def service_of(options: Options) -> str:
    """Return what --stdio is to be joined to at the far side, or "".

    Raises:
        UsageError: No service can be called that.
    """
    if options.service is not None and not is_service(options.service):
        raise UsageError(services.NOT_OF_STDIO.format(name=options.service))
    return options.service or ""


def with_numbers(options: Options) -> Options:
    """Return the options with the numbers of those ports after a host that are given as services.

    Raises:
        UsageError: This machine knows no such service.
    """
    peers, stun, meet, relay = (
        None if given is None else [with_number(text, port_of) for text in given]
        for given in (options.peers, options.stun, options.meet, options.relay)
    )
    ntp = None if options.ntp is None else with_number(options.ntp, port_of)
    return replace(options, peers=peers, stun=stun, meet=meet, relay=relay, ntp=ntp)


def settings_of(options: Options) -> Settings:
    """Check the options that concern the punch, and return them as settings, without the secret.

    Raises:
        UsageError: An option is wrong or contradicts another one.
    """
    _check_contradictions(options)
    waits = {
        "-w": options.wait or 0.0,
        "-i": options.idle,
        "--resume": resume_of(options),
        "--clock-offset": abs(options.clock_offset),
    }
    for name, seconds in waits.items():
        if not 0 <= seconds < LONGEST:
            raise UsageError(usage.NOT_SECONDS.format(option=name, seconds=seconds))
    if not (options.peers or options.via or options.show or options.meet or options.relay):
        raise UsageError(usage.NO_PEER)
    settings = settings_from(
        peers=options.peers or [],
        channel=options.channel,
        wait=wait_of(options),
        bind=options.bind,
        family=4 if options.ipv4 else 6 if options.ipv6 else 0,
        clock_offset=options.clock_offset,
        role=_role(options),
        traits=_traits(options),
        port=options.port,
    )
    return replace(
        settings,
        maps=not options.no_map,
        remembers=not options.no_memory,
        via=options.via,
        relays=_relays_of(options),
        stun=[parse_server("--stun", text, STUN_PORT) for text in options.stun or ()],
        birthday=_birthday_of(options),
    )


def _birthday_of(options: Options) -> int:
    """Return how many holds or dials are allowed.

    Raises:
        UsageError: They are too many, or nothing is guessed.
    """
    if options.birthday and not (options.meet or options.relay):
        raise UsageError(usage.BIRTHDAY_WITHOUT_MEETING)
    if not 0 <= options.birthday <= MOST_BIRTHDAY:
        raise UsageError(usage.BIRTHDAY_OUTSIDE.format(number=options.birthday, most=MOST_BIRTHDAY))
    return options.birthday


def _relays_of(options: Options) -> tuple[Relay, ...]:
    """Return the relays, each once; one that may carry the session may be met at, too.

    Raises:
        UsageError: One of them is no HOST[:PORT].
    """
    if not (options.meet or options.relay):
        return ()
    # Imported late: few runs name any.
    from punchtunnel.library.arguments import relays_of

    return relays_of(options.meet or (), options.relay or ())


def bind_of(options: Options) -> Bind:
    """Return what --bind names, as the doctor takes it.

    Raises:
        UsageError: It is neither an address nor an interface.
        LocalError: It is no address of this machine.
    """
    # Imported late: a punch does not need it.
    from punchtunnel.doctor.facts import Bind

    bound = settings_from(
        peers=(), channel="", wait=0.0, bind=options.bind, family=0, clock_offset=0.0, role=Role.STDIO, traits=NO_TRAITS
    )
    # A punch is told by the kernel.
    if bound.bind is not None and "%" not in bound.bind and not is_own_literal(bound.bind):
        raise LocalError(words.not_our_address(bound.bind))
    return Bind(bound.bind or "", bound.interface)


def _role(options: Options) -> Role:
    """Return the role that the options ask for."""
    role = (Role.LISTEN if options.listen else Role(0)) | (Role.TO if options.to else Role(0))
    return role or Role.STDIO


def _check_contradictions(options: Options) -> None:
    """Check that no two options contradict each other.

    Raises:
        UsageError: Two options do.
    """
    ports = not options.is_stdio
    sends_nothing = not options.reads_stdin
    if options.ipv4 and options.ipv6:
        raise UsageError(usage.BOTH_FAMILIES)
    if options.via and options.plain:
        raise UsageError(usage.VIA_PLAIN)
    relayed = bool(options.meet or options.relay)
    if relayed and options.plain:
        raise UsageError(usage.MEETING_IN_PLAIN)
    if relayed and not resume_of(options):
        raise UsageError(usage.MEETING_WITHOUT_RESUME)
    if options.check and (options.keep or options.progress):
        raise UsageError(usage.CHECK_ALONE)
    if options.background and (options.check or not ports):
        raise UsageError(usage.BACKGROUND_OF_STDIO)
    if options.pid_file is not None and not options.background:
        raise UsageError(usage.PID_FILE_ALONE)
    if options.progress and ports:
        raise UsageError(usage.PROGRESS_OF_PORTS)
    if options.progress and options.as_json and options.status_fd is None:
        raise UsageError(usage.PROGRESS_AND_JSON)
    if options.quiet and options.verbose:
        raise UsageError(usage.QUIET_AND_VERBOSE)
    if options.send_only and sends_nothing:
        raise UsageError(usage.NOTHING_TO_DO)
    if options.sessions is not None and not (options.keep and options.to and not options.listen):
        raise UsageError(usage.SESSIONS_OF_A_SERVICE)
    if options.sessions is not None and options.sessions < 1:
        raise UsageError(usage.NO_SESSIONS)
    if ports and (options.stdio or options.service is not None):
        raise UsageError(usage.STDIO_AND_PORTS)
    if ports and (options.send_only or sends_nothing):
        raise UsageError(usage.STDIO_OPTIONS)
    if not ports and options.keep and not sends_nothing:
        raise UsageError(usage.KEEP_WITH_STDIN)
