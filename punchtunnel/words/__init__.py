"""Every sentence that a person reads, so that tone and wording stay one hand's.

Lower case, no exception names; what happened, with numbers, and what to try.
The same word always names the same thing: hole, dial, hold, bucket, winner,
leader, stream, credit, target, peer.

    words           why it failed, and what to try
    words.usage     what is wrong with the command line
    words.protocol  what a peer has done wrong
    words.events    what happens on the way
    words.display   the line of a terminal, --progress, and -z
    words.show      --show
    words.doctor    --doctor

Only the help of each option stands with the option (command.py).
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from punchtunnel.words.events import EVENTS, Level

if TYPE_CHECKING:
    from punchtunnel.protocol.hello import Hello, Role, Trait
    from punchtunnel.punching.hole import Counts


# The bits of hello.Trait; importing it here would turn the layers upside down.
NO_RECEIVE = 1
PLAIN = 2


class Report(Protocol):
    """Where events go.  The names of the fields carry their units (`wait_s`)."""

    def __call__(self, event: str, /, **fields: object) -> None:
        """Take in one event of EVENTS with its fields."""


def unreported(event: str, /, **fields: object) -> None:
    """Drop an event: the report of a program that wants none."""


NOT_PROVED = "wrong secret: the peer has another one, or none; give both sides the same"

# What "try now" does while punching, and while a link is up.
DIAL_ANEW = "dialling every port anew"
PROBE_LINK = "asking the peer for a sign of life"
NO_ADDRESS = "no PEER has an address of the family that -4, -6 or --bind asks for"
PUNCH_AGAIN = "start both sides again, or give both -k"
LINK_CUT = (
    "link lost: it was cut without a goodbye: the peer's process or its machine ended, or a router has forgotten it; "
    f"{PUNCH_AGAIN}"
)
NAME_UNANSWERED = "the name server has not answered: check this machine's network, or give an address"
PEER_QUIT = "the peer ended before everything was delivered"
PEER_NEVER_CAME = "the peer ended before anything was connected to the hole"
PEER_TAKES_NOTHING = "the peer takes nothing (--send-only)"
STDIN_NOT_READ = f"{PEER_TAKES_NOTHING}: stdin is not read"
PROMPT = "secret: "
BIND = "bind a port"
LOCAL_CLIENT = "a local client"
SESSION_OVER = "the session is over"
TUNNEL_OVER = "the tunnel has ended: no stream can be opened any more"
STREAM_CUT = "the stream was cut: the link was lost, or one side has given it up"
NO_ANSWER = "no answer"
CLOSED_FROM_START = "it was closed when this program started"


def peers_text(peers: Sequence[str]) -> str:
    """Return several PEERs as one word in a sentence."""
    return " or ".join(peers)


def no_hole(peers: Sequence[str], wait: float, counts: Counts, outcomes: Mapping[str, int]) -> str:
    """Say why there is no hole, and what to try.

    Args:
        peers: As given.
        wait: Seconds.
        counts: What happened in all.
        outcomes: How the last dial of each route ended: a field of Counts, or
            "pending".  The majority tells the cause: a single odd answer
            among twenty ports is chance.
    """
    start = f"no hole to {peers_text(peers)} in {wait:g} s: {counts.dials} dials"
    if not counts.dials:
        return f"{start}, nobody came: start the other side, with the same --channel"
    if counts.other_channel:
        return f"{start}; a punchtunnel there uses another channel: give both sides the same --channel"
    # What our dials met; the others came to our listeners.
    answered = max(0, counts.strangers + counts.mute - counts.rewritten)
    if counts.foreign and not counts.refused + answered:
        return start + _CAUSES["foreign"].format(count=counts.foreign)
    if counts.rewritten > answered:
        return start + _CAUSES["rewritten"].format(count=counts.rewritten)
    causes = {
        "mute": answered,
        "refused": counts.refused,
        "forbidden": counts.forbidden,
        "unusable": counts.unusable,
        "unreachable": counts.unreachable,
    }
    # A host without IPv6 finds all of a peer's IPv6 addresses unreachable: what
    # the others say counts.
    share = {kind: outcomes.get(kind, 0) for kind in causes} | {"silent": outcomes.get("pending", 0)}
    share["silent"] += outcomes.get("silent", 0) + outcomes.get("expired", 0)
    reachable = {kind: count for kind, count in share.items() if count and kind != "unreachable"}
    cause = max(reachable or share, key=lambda kind: share[kind]) if any(share.values()) else "silent"
    if cause == "silent" and share["unusable"] > sum(share.values()) // 4:
        # Two on one channel share the ports between them: what is left to each is silent.
        cause = "unusable"
    if cause == "silent" and causes["refused"] + causes["mute"] > (counts.dials - counts.held_again) // 4:
        # Most ports are held at any moment; what the other dials met says more.
        cause = max(("refused", "mute"), key=lambda kind: causes[kind])
    # A dial that this machine refuses is made again and again: its ports are what counts.
    count = share[cause] if cause == "unusable" else causes.get(cause) or share[cause]
    return start + _CAUSES[cause].format(count=count)


_CAUSES = {
    "foreign": ", no answer; {count} connections came from another address than the peer's: "
    "if that is the peer, give its address instead",
    "rewritten": ", {count} connections came from the peer's address, but from another port than expected and not from "
    "a punchtunnel: its router rewrites ports, or another program there is calling; start punchtunnel there, "
    "and see what `punchtunnel --doctor` says on both sides",
    "mute": ", {count} answered but not by a punchtunnel: a router or another program takes these connections, "
    "and the peer is not punching, or not towards this address; check both addresses, and start both sides within "
    "the same minute",
    "refused": ", {count} refused at once: the peer is not punching yet, or a router rewrites ports; "
    "start both sides within the same minute, with the same --channel, and if they were, see what "
    "`punchtunnel --doctor` says on both",
    "forbidden": ", {count} forbidden by this machine's own firewall: allow outgoing TCP to ports 10240–32767",
    "unusable": ", {count} ports of this machine in use, most likely by another punchtunnel to the same peer; "
    "give every link its own --channel",
    "unreachable": ", {count} unreachable: there is no route to that address from here; "
    "check it, and this machine's network",
    "silent": ", no answer at all to {count}: the peer is not punching, its address is wrong, or a router on the way "
    "drops everything or rewrites ports; start both sides within the same minute, and if they were, see what "
    "`punchtunnel --doctor` says on both",
}


def unresolved(peer: str, reason: str) -> str:
    """Say that a name has no address."""
    return f"{peer!r} cannot be resolved: {reason}; check its spelling and this machine's network, or give an address"


def all_ports_busy(count: int, channel: str) -> str:
    """Say that no port of the schedule could be bound."""
    return (
        f"none of the {count} ports of channel {channel!r} could be bound: "
        f"another punchtunnel is punching on it; give every link its own --channel"
    )


def not_our_address(bind: str | None) -> str:
    """Say that `--bind` names no address of this machine."""
    return f"cannot bind {bind}: it is not an address of this machine"


def no_resources(reason: str) -> str:
    """Say that the system is out of something."""
    return f"the system refuses more sockets: {reason}; raise `ulimit -n`"


def role_name(role: Role) -> str:
    """Return a role as the options that choose it."""
    names = {1: "--stdio", 2: "-L", 4: "--to", 8: "a library socket"}
    return " and ".join(name for bit, name in names.items() if role & bit) or "nothing"


def verifier(data: bytes) -> str:
    """Return bytes as groups of letters and digits that can be read aloud."""
    text = base64.b32encode(data).decode().lower()
    return "-".join(text[i : i + 4] for i in range(0, len(text), 4))


def rejected(mine: Role, traits: Trait, version: int, hello: Hello | None) -> str:
    """Say why the peer was rejected and what to change."""
    if hello is None:
        return f"the peer speaks another protocol: version {version}, not 1; install the same punchtunnel on both sides"
    if (traits ^ hello.traits) & PLAIN:
        side = "here" if traits & PLAIN else "there"
        return f"--plain is given {side} but not on the other side: give it on both, or better on neither"
    if traits & hello.traits & NO_RECEIVE:
        return "both sides are --send-only, so nobody would receive anything: drop it on one side"
    both = f"roles do not fit: {role_name(mine)} here, {role_name(hello.role)} there"
    if mine == hello.role and "-L" in role_name(mine):
        return f"{both}: both sides listen; one side needs --to HOST:PORT, or no option for stdio"
    if mine == hello.role:
        return f"{both}: both sides wait to dial a target; one side needs -L PORT, or no option for stdio"
    if 8 in (mine, hello.role):
        return f"{both}: punchtunnel.punch() meets only punchtunnel.punch(); use the same on both sides"
    return f"{both}: pair -L with --to, or give one of the two alone to meet stdio"


def target_failed(target: str, reason: str, *, local: bool = False) -> str:
    """Say on the --to side that its target could not be reached; `local`: because of this system."""
    advice = "raise `ulimit -n`" if local else "start it, or correct --to"
    return f"the target {target} cannot be reached: {reason}; {advice}"


# Why the far side reset a stream; the keys are mux.Reason.
RESET_REASONS = {
    0: "connection reset by the far side",
    1: "the far side's target refused the connection: start it, or correct --to there",
    2: "the far side's target did not answer in time: start it, or correct --to there",
    3: "the far side's target is unreachable: correct --to there, or its network",
    4: "the far side cannot resolve the name of its target: correct --to there",
    5: "the far side is out of descriptors or streams",
    6: "the far side did not expect another stream",
    7: "the far side held 64 MiB that nobody read",
    8: PEER_QUIT,
}


def reset_reason(reason: int) -> str:
    """Return why a stream was reset, also for a reason of a later version."""
    return RESET_REASONS.get(reason, RESET_REASONS[0])


def dead_link(seconds: float) -> str:
    """Say that nothing was heard for too long."""
    silence = f"nothing heard from the peer for {seconds:.0f} s"
    return f"link lost: {silence}: its machine or the way there is gone; {PUNCH_AGAIN}"


def broken_link(error: OSError) -> str:
    """Say that the operating system ended the link."""
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return LINK_CUT
    return f"link lost: {error.strerror or error}; {PUNCH_AGAIN}"


def unread_rest(seconds: float) -> str:
    """Say that somebody here does not take what came before the hole ended."""
    return (
        f"the hole has ended, and for {seconds:.0f} s a program here has read nothing of what came before that: "
        "its connection is cut"
    )


def left_out(count: int) -> str:
    """Say how many like it were not told."""
    return f" (and {count} more of the kind before it; -vv tells all)"


def ended_by_signal(number: int) -> str:
    """Say that a signal ended this process."""
    return f"ended by signal {number}"


def local_reset(error: OSError) -> str:
    """Say that the local client or target ended its connection with an error."""
    return f"the local connection broke: {error.strerror or error}"


def protocol_error(code: int) -> str:
    """Say that the peer ended the link because of an error."""
    return f"link lost: the peer ended it with code {code} (1: it could not read us, 2: it failed itself)"


def idle_link(seconds: float) -> str:
    """Say that --idle-timeout ended the session."""
    return f"nothing was sent or received for {seconds:g} s (-i)"


def readable_secret(path: str) -> str:
    """Say that a secret is not well kept."""
    return f"others on this machine can read the secret in {path}: chmod 600 {path}"


# What could not be done, for `cannot`.
READ_STDIN = "read stdin"
WRITE_STDOUT = "write stdout"
ACCEPT = "accept a local client"
WRITE = "write"


def listen_on(place: str) -> str:
    """Return binding a -L as a part of `cannot`."""
    return f"listen on {place}"


def read_secret(path: str) -> str:
    """Return reading the file of a secret as a part of `cannot`."""
    return f"read the secret from {path}"


def to_target(target: str) -> str:
    """Say where a stream leads on the --to side."""
    return f"to {target}"


def foreign_secret(path: str) -> str:
    """Say that somebody else can change a secret."""
    return f"the secret in {path} belongs to another user, who can change it"


def cannot(what: str, error: OSError) -> str:
    """Say that reading or writing an own descriptor failed."""
    return f"cannot {what}: {error.strerror or error}"


def level(event: str) -> Level:
    """Return from which verbosity on an event is shown."""
    return EVENTS[event][0]


def sentence(event: str, fields: dict[str, object]) -> str:
    """Return the text of one event.

    A field that is missing shows by its name: a message must never end a run.
    """
    return fill(event, EVENTS[event][1], fields)


def fill(event: str, text: str, fields: Mapping[str, object]) -> str:
    """Return `text` with its fields filled in; where one does not fit, the event and what there is."""
    with contextlib.suppress(KeyError, ValueError, TypeError):
        return text.format(**fields)
    return f"{event} {fields}"
