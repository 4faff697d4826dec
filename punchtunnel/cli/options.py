"""Every option of the command line: its name, type, default, and what --help says about it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated

import typer

from punchtunnel.cli import durations, ports

# Holds the secret, unless an option says where it is.
SECRET_VARIABLE = "PUNCHTUNNEL_SECRET"  # noqa: S105 -- the name of a variable
# Relays, separated by spaces, unless an option names some.
MEET_VARIABLE, RELAY_VARIABLE = "PUNCHTUNNEL_MEET", "PUNCHTUNNEL_RELAY"


def _show_version(wanted: bool) -> None:
    if wanted:
        from punchtunnel import __version__

        typer.echo(f"punchtunnel {__version__}")
        raise typer.Exit


def _show_new_secret(wanted: bool) -> None:
    if wanted:
        from punchtunnel.protocol import secret

        typer.echo(secret.fresh(os.urandom))
        raise typer.Exit


def _own_addresses(incomplete: str) -> list[str]:
    """Return the addresses that complete --bind.  If none does, the shells offer files."""
    # Imported late: only a shell that completes needs it.
    from punchtunnel.system.addresses import own_addresses

    return [address for address in own_addresses() if address.startswith(incomplete)]


def _own_places(incomplete: str) -> list[str]:
    """Return the places that complete -L: an address after which only the port is missing."""
    places = [f"[{address}]:" if ":" in address else f"{address}:" for address in _own_addresses("")]
    return [place for place in places if place.startswith(incomplete)]


def _saved_names(incomplete: str) -> list[str]:
    """Return the names of saved peers that complete PEER."""
    from punchtunnel.cli import peers
    from punchtunnel.errors import PunchtunnelError

    try:
        saved = peers.read(peers.path_of(os.environ))
    except PunchtunnelError:
        return []
    return [name for name in saved if name.startswith(incomplete)]


@dataclass(frozen=True, slots=True)
class Options:
    """Punch a TCP hole to PEER and send any TCP program through it.

    Run one command on each of the two machines, within two minutes (-w).
    Both must know the other's public address.  A PORT is a number, or a
    service's name as in /etc/services.

    Both need the same secret, in PUNCHTUNNEL_SECRET or by --secret-file or
    --ask-secret: by it the two machines prove to each other who they are, and
    --to asks for it.  --new-secret makes one.  The link is encrypted in any case.
    """

    peers: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PEER[:PORT]...",
            help="Address of the other machine, or the name of a saved peer; several addresses, with one secret, are "
            "tried at once.",
            autocompletion=_saved_names,
        ),
    ] = None
    stdio: Annotated[
        bool,
        typer.Option(
            "--stdio",
            help="Join the hole to stdin and stdout (the default); --stdio=NAME: to what --to NAME=... names there.",
        ),
    ] = False
    # What --stdio=NAME becomes (command.py): a flag takes no value.
    service: Annotated[str | None, typer.Option("--stdio-service", hidden=True)] = None
    listen: Annotated[
        list[str] | None,
        typer.Option(
            "-L",
            "--listen",
            metavar="[BIND:]PORT[=NAME]",
            help="Local port, or unix:/path, that leads to --to there, or to its NAME; may be repeated.  :PORT is for "
            "other machines, too.",
            autocompletion=_own_places,
        ),
    ] = None
    to: Annotated[
        list[str] | None,
        typer.Option(
            "--to",
            metavar="[NAME=][HOST:]PORT",
            help="Where connections from the far side lead, or unix:/path; may be repeated, with a NAME for each.",
        ),
    ] = None
    channel: Annotated[
        str, typer.Option("--channel", metavar="NAME", help="Separates links between the same two machines.")
    ] = ""
    wait: Annotated[
        float | None,
        typer.Option(
            "-w",
            "--wait",
            metavar="TIME",
            parser=durations.of_option,
            help="To get a hole: seconds, or 90s, 10m, 2h, 1d, as every TIME; 0: for ever.  [default: 120; with -k: "
            "for ever]",
        ),
    ] = None
    idle: Annotated[
        float,
        typer.Option(
            "-i",
            "--idle-timeout",
            metavar="TIME",
            parser=durations.of_option,
            help="End a session after so long without traffic; 0: never.",
            show_default=False,
        ),
    ] = 0.0
    resume: Annotated[
        float | None,
        typer.Option(
            "--resume",
            metavar="TIME",
            parser=durations.of_option,
            help="To get another hole when one is lost; 0: the session ends with it.  [default: 60]",
        ),
    ] = None
    keep: Annotated[bool, typer.Option("-k", "--keep-open", help="When a session or the hole ends, punch again.")] = (
        False
    )
    background: Annotated[
        bool, typer.Option("-f", "--background", help="With -L or --to: go to the background once the hole is up.")
    ] = False
    pid_file: Annotated[
        str | None,
        typer.Option("--pid-file", metavar="FILE", help="With -f: FILE has the process's number while that runs."),
    ] = None
    sessions: Annotated[
        int | None,
        typer.Option("--sessions", metavar="N", help="With -k and --to: serve up to N at once.  [default: 16]"),
    ] = None
    no_stdin: Annotated[bool, typer.Option("-n", "--no-stdin", help="Do not read stdin: send EOF at once.")] = False
    send_only: Annotated[bool, typer.Option("--send-only", help="Write nothing to stdout.")] = False
    recv_only: Annotated[bool, typer.Option("--recv-only", help="Send nothing; like -n.")] = False
    ipv4: Annotated[bool, typer.Option("-4", "--ipv4", help="IPv4 only.")] = False
    ipv6: Annotated[bool, typer.Option("-6", "--ipv6", help="IPv6 only.")] = False
    bind: Annotated[
        str | None,
        typer.Option(
            "--bind",
            metavar="ADDR",
            help="Address or interface of this machine to punch from.",
            autocompletion=_own_addresses,
        ),
    ] = None
    port: Annotated[
        int,
        typer.Option(
            "--port",
            metavar="PORT",
            parser=ports.of_option,
            help="Listen on PORT too, which leads here from outside; the other side gives it after PEER.",
            show_default=False,
        ),
    ] = 0
    via: Annotated[
        str,
        typer.Option(
            "--via",
            metavar="COMMAND",
            help="If no hole opens at once, also join the peer by this command's stdin and stdout; without PEER by it "
            "alone.",
            show_default=False,
        ),
    ] = ""
    meet: Annotated[
        list[str] | None,
        typer.Option(
            "--meet",
            metavar="HOST[:PORT]",
            envvar=MEET_VARIABLE,
            show_envvar=False,
            help="Transit relay where the two sides meet if no hole opens at once; no payload passes it.  PEER may be "
            "left out.",
        ),
    ] = None
    relay: Annotated[
        list[str] | None,
        typer.Option(
            "--relay",
            metavar="HOST[:PORT]",
            envvar=RELAY_VARIABLE,
            show_envvar=False,
            help="The same, and it carries the session until there is a direct hole.",
        ),
    ] = None
    birthday: Annotated[
        int,
        typer.Option(
            "--birthday",
            metavar="N",
            help="After a meeting, where a router chooses a random port for each connection: up to N holds or dials "
            "in place of 400 and 128; on both sides.",
            show_default=False,
        ),
    ] = 0
    no_map: Annotated[bool, typer.Option("--no-map", help="Do not ask the router to forward a port.")] = False
    no_memory: Annotated[
        bool, typer.Option("--no-memory", help="Neither use nor write down what worked with this peer.")
    ] = False
    clock_offset: Annotated[
        float,
        typer.Option(
            "--clock-offset",
            metavar="TIME",
            parser=durations.of_option,
            help="Add to this machine's clock; -TIME: it is ahead.",
            show_default=False,
        ),
    ] = 0.0
    secret_file: Annotated[
        str | None, typer.Option("--secret-file", metavar="FILE", help="Read the shared secret from FILE.")
    ] = None
    ask_secret: Annotated[bool, typer.Option("--ask-secret", help="Ask for the shared secret on the terminal.")] = False
    require_secret: Annotated[bool, typer.Option("--require-secret", help="Refuse to run without a secret.")] = False
    no_secret: Annotated[
        bool,
        typer.Option("--no-secret", help="With --to: let in anybody who answers at the peer's address."),
    ] = False
    new_secret: Annotated[
        bool,
        typer.Option("--new-secret", callback=_show_new_secret, is_eager=True, help="Print a fresh secret and exit."),
    ] = False
    pair: Annotated[
        str | None,
        typer.Option(
            "--pair",
            metavar="NAME",
            help="Pair with another machine by a code that is copied, save it as NAME, with PEER if given, and exit.",
        ),
    ] = None
    list_peers: Annotated[bool, typer.Option("--peers", help="List the saved peers, and exit.")] = False
    plain: Annotated[bool, typer.Option("--plain", help="Do not seal the link; must be given on both sides.")] = False
    verbose: Annotated[
        int, typer.Option("-v", "--verbose", count=True, help="Say what happens; -vv says more, -vvv everything.")
    ] = 0
    log: Annotated[
        str | None,
        typer.Option("--log", metavar="FILE", help="Append what -v says to FILE, each line with its time (UTC)."),
    ] = None
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Say only why it failed.")] = False
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line on stderr for every event.")] = False
    status_fd: Annotated[
        int | None,
        typer.Option("--status-fd", metavar="N", help="Write what --json tells to descriptor N; stderr is for people."),
    ] = None
    progress: Annotated[
        bool, typer.Option("--progress", help="With stdio: bytes, rate, average and time, as pv shows them.")
    ] = False
    show: Annotated[
        bool,
        typer.Option(
            "--show", help="Print the command for the other machine and the ports; sends nothing without --stun."
        ),
    ] = False
    check: Annotated[
        bool, typer.Option("-z", help="Only check the path: meet the peer, measure the round trip, and leave it alone.")
    ] = False
    doctor: Annotated[
        bool,
        typer.Option(
            "--doctor", help="Look at this machine, without a PEER; --no-map, and no --stun or --ntp: send nothing."
        ),
    ] = False
    stun: Annotated[
        list[str] | None,
        typer.Option(
            "--stun",
            metavar="HOST[:PORT]",
            help="STUN server to ask by TCP where this machine is seen: with --doctor, --show, --meet or --relay.",
        ),
    ] = None
    ntp: Annotated[
        str | None, typer.Option("--ntp", metavar="HOST[:PORT]", help="With --doctor: ask this NTP server the time.")
    ] = None
    forget: Annotated[
        bool, typer.Option("--forget", help="With --doctor: delete all that is remembered of peers, and exit.")
    ] = False
    half_close: Annotated[bool, typer.Option("-N", help="Accepted and ignored: EOF always reaches the far side.")] = (
        False
    )
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False

    @property
    def is_stdio(self) -> bool:
        """Tell whether this side has stdio: neither -L nor --to is given."""
        return not (self.listen or self.to)

    @property
    def serves_many(self) -> bool:
        """Tell whether this side serves several sessions at once."""
        return self.keep and bool(self.to) and not self.listen and self.sessions != 1

    @property
    def reads_stdin(self) -> bool:
        """Tell whether stdin is read and sent, with stdio."""
        return not (self.recv_only or self.no_stdin)
