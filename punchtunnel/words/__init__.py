"""The sentences that a person reads, all in one place, so that they speak with one voice.

A sentence is lower case and without exception names: what happened, with
numbers, and what to try.  The same word always names the same thing: hole,
dial, hold, bucket, winner, leader, stream, credit, target, peer.

    words             why it failed, and what to try
    words.usage       what is wrong with the command line
    words.peer        what a peer has done wrong, and why it was rejected
    words.show        --show
    words.doctor      --doctor
    words.services    what --to names, and -L and --stdio ask for
    words.reach       why a router maps no port, and a command leads to nobody
    words.ending      how much a pipe has moved
    words.quantities  bytes, rates and times

These modules import nothing of the package.  The code that chooses a sentence
stands where the cause is known.  The sentence of an event stands with its
fields (reporting/events.py), the help of an option with it (cli/command.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

NOT_PROVED = "wrong secret: the peer has another one, or none; give both sides the same"

# What "try now" does while punching, and while a link is up.
DIAL_ANEW = "dialling every port anew"
PROBE_LINK = "asking the peer for a sign of life"
NO_ADDRESS = "no PEER has an address of the family that -4, -6 or --bind asks for"
# What follows the sentence of a lost link, unless the run punches again by itself (-k).
PUNCH_AGAIN = "start both sides again, or give both -k"
LINK_CUT = (
    "link lost: it was cut without a goodbye: the peer's process or its machine ended, or a router has forgotten it"
)
NAME_UNANSWERED = "the name server has not answered: check this machine's network, or give an address"
NEVER_MET = "the hole was lost before the peer said anything on it: it has not heard that the hole was chosen"
# What follows the sentence of a punch that found nothing.
UNMET_BEFORE = "a hole had opened before, and was lost before the peer said anything on it"
ANOTHER_NAT = "the router's own address, {address}, is none of the Internet: another NAT follows (double NAT)"
NO_ROUTER_ANSWERS = "no router here answers to PCP, NAT-PMP or UPnP"
NO_THREAD = "the system refuses another thread: raise `ulimit -u`, or the limit of tasks (TasksMax=, pids)"
PEER_QUIT = "the peer ended before everything was delivered"
ADDRESS_GONE = "link lost: this machine has given up the address that the connection had"
PEER_RESTARTED = "the peer has ended, or was started anew, and knows nothing of this session any more"
PEER_LOOKS_FOR_ANOTHER = "the peer looks for a session that this process does not know"
NOT_THIS_SESSION = "whoever answered was not the peer of this session"
PEER_CANNOT_RESUME = "the peer does not resume (its --resume 0, or its version): the session ends with its connection"
PLAIN_CANNOT_RESUME = "a plain link (--plain) ends with its connection: only a sealed one can go on over another"
PEER_COMES_BACK = "link lost: the peer comes back by another connection"
TURNED_AWAY = "turned away: there are as many sessions as --sessions allows"
SERVICE_FULL = "the service at the far side has as many sessions as it takes (its --sessions): try again later"
PEER_NEVER_CAME = "the peer ended before anything was connected to the hole"
PEER_TAKES_NOTHING = "the peer takes nothing (--send-only)"
STDIN_NOT_READ = f"{PEER_TAKES_NOTHING}: stdin is not read"
WAITING_FOR_STDIN = (
    "the peer has sent everything; stdin here has given nothing and is still open, so its end is waited for: "
    "give --recv-only if nothing is to be sent from here"
)
TYPING_GOES_ON = "the peer sends nothing; what is typed here goes there, until Ctrl-D"
PROMPT = "secret: "
BIND = "bind a port"
THIS_MACHINE = "this machine"
PEER_WAS_ENDED = "the peer's process was ended"
OVER_WITHOUT_KEEP = "the peer has left, and nothing failed: with -k this side would wait for the next session"
SESSION_OVER = "the session is over"
TUNNEL_OVER = "the tunnel has ended: no stream can be opened any more"
STREAM_CUT = "the stream was cut: the link was lost, or one side has given it up"
NO_ANSWER = "no answer"
CLOSED_FROM_START = "it was closed when this program started"


def peers_text(peers: Sequence[str]) -> str:
    """Return several PEERs as one word in a sentence."""
    return " or ".join(peers)


def no_hole(
    peers: Sequence[str],
    families: Sequence[str],
    wait: float,
    dials: int,
    cause: str,
    count: int,
    who: str,
    *,
    nat64: str = "",
    own: str = "",
) -> str:
    """Say that there is no hole, and why.

    Args:
        peers: As given on the command line.
        families: What was dialled: "IPv4", "IPv6" or both.
        wait: Seconds.
        dials: How many were made.
        cause: A key of NO_HOLE.
        count: How many of the dials or connections show that cause.
        who: The address that is the cause: where connections came from, or what a router has refused.
        nat64: The prefix through which IPv4 was dialled, or "".
        own: The address that this machine dials from.
    """
    peer, family = peers_text(peers), " and ".join(families)
    why = NO_HOLE[cause].format(count=count, who=who, peer=peer, family=family, own=own)
    way = f" through the NAT64 {nat64}" if nat64 else ""
    return f"no hole to {peer}{way} in {wait:g} s: {dials} dials{why}"


_OVERLAP = "start both sides so that their waits (-w) overlap"
_PRIVATE = "give each side the other's private address: that of this machine is {own}, `ip addr` there shows the other"
_DOCTOR = "and if they did, see what `punchtunnel --doctor` says on both"
# Why there is no hole, by the cause that punching/diagnosis.py has found; the fields are those of no_hole.
NO_HOLE = {
    "nobody": ", nobody came: {peer} is this machine itself; start the other side here, with the same --channel, "
    "or give the address of the other machine",
    "checked": "; the peer has checked the path (-z), which works, and has not come again: start it without -z",
    "channel": "; a punchtunnel there uses another channel: give both sides the same --channel",
    "together": ", {count} came back to this machine itself: {peer} is the address of its own router, so both sides "
    f"seem to be behind that; {_PRIVATE}",
    "own_router": ": {who} is the address of this machine's own router, as that says itself, so both sides seem to be "
    f"behind it; {_PRIVATE}",
    "foreign": ", and {count} connections came from {who}, which is not the peer's address: "
    "if that is the peer, give that address instead",
    "rewritten": ", {count} connections came from the peer's address, but from another port than expected and not from "
    "a punchtunnel: its router rewrites ports, or another program there is calling; start punchtunnel there, "
    "and see what `punchtunnel --doctor` says on both sides",
    "mute": ", {count} answered but not by a punchtunnel: a router or another program takes these connections, "
    "and the peer is not punching, or not towards this address; check both addresses, and "
    f"{_OVERLAP}",
    "hung_up": ", {count} were closed at once by the far end: most likely a punchtunnel there was given another "
    "address than this machine is seen by, which `punchtunnel --doctor --stun HOST` here shows; give it that one, or "
    "give both sides the same secret: then this machine may come from anywhere",
    "next_door": ", {count} refused at once by this machine's own router: either {who} is its address, and both sides "
    f"are behind it: {_PRIVATE}; or it forbids outgoing TCP to ports 10240–32767",
    "refused": ", {count} refused at once: the peer is not punching yet, or not by {family}, or a router rewrites "
    f"ports; {_OVERLAP}, with the same --channel, {_DOCTOR}",
    "forbidden": ", {count} forbidden by this machine's own firewall: allow outgoing TCP to ports 10240–32767",
    "unusable": ", {count} ports of this machine in use, most likely by another punchtunnel to the same peer; "
    "give every link its own --channel",
    "absent": ", nobody in this machine's own network has that address (ARP or its like found nobody): the machine "
    "is off, or it is its private address in another network; then give its public one, which "
    "`punchtunnel --doctor --stun HOST` there shows",
    "unreachable": ", {count} unreachable: there is no route to that address from here; "
    "check it, and this machine's network",
    "no_nat64": ", {count} unreachable: IPv4 has no route from here, and no NAT64 was found that leads from IPv6 to "
    "it (nobody here has an IPv6 address for ipv4only.arpa): give the peer's IPv6 address, or connect this machine by "
    "IPv4",
    "silent": ", no answer at all to {count}: the peer is not punching, or not by {family}, its address is wrong, or a "
    f"router on the way drops everything or rewrites ports; {_OVERLAP}, {_DOCTOR}",
}


# What a port that PEER was given with has met.
NOT_BY_PORT = {
    "somebody": "; {place} answers, but not as a punchtunnel: the port leads to another program or machine",
    "refused": "; {place} refuses: forward that port to the peer, and give --port with it there",
    "nothing": "; {place} does not answer: forward that port to the peer, and give --port with it there",
}


def unresolved(peer: str, reason: str) -> str:
    """Say that a name has no address."""
    return f"{_unresolved(peer)}: {reason}; check its spelling and this machine's network, or give an address"


def _unresolved(peer: str) -> str:
    return f"{peer!r} cannot be resolved"


def perhaps_mistyped(reason: str, peers: Iterable[str]) -> str:
    """Return why a run failed, and whether one of these PEERs may have been meant as the name of a saved one."""
    for peer in peers:
        if not {".", ":"} & set(peer) and _unresolved(peer) in reason:
            return f"{reason}; and no saved peer is called {peer} (punchtunnel --peers lists them)"
    return reason


def all_ports_busy(count: int, channel: str) -> str:
    """Say that no port of the schedule could be bound."""
    return (
        f"none of the {count} ports of channel {channel!r} could be bound: "
        f"another punchtunnel is punching on it; give every link its own --channel"
    )


def port_refused(port: int, error: OSError) -> str:
    """Say that the port of --port cannot be listened on."""
    remedy = "end what has it, or give another one"
    if isinstance(error, PermissionError):
        remedy = "give one above 1023, which needs no privileges" if port < 1024 else "give another one"
    return f"cannot listen on --port {port}: {error.strerror or error}; {remedy}"


def forgotten(peers: int) -> str:
    """Say how many peers are forgotten."""
    return f"forgotten: {peers} peer{'' if peers == 1 else 's'}"


def not_our_address(bind: str | None) -> str:
    """Say that `--bind` names no address of this machine."""
    return f"cannot bind {bind}: it is not an address of this machine"


def no_resources(reason: str) -> str:
    """Say that the system is out of descriptors or memory."""
    return f"the system refuses more sockets: {reason}; raise `ulimit -n`"


def refused_call(call: str, reason: str) -> str:
    """Say that the system refused a call that never fails, as a sandbox may."""
    return f"the system refused a call: {reason}, in `{call}`"


NO_MEMORY = "out of memory: this process needs more than the system gives it"


def internal_error(error: Exception) -> str:
    """Say that this is a bug."""
    return f"internal error, which is a bug: {type(error).__name__}: {error}"


def target_failed(target: str, reason: str, *, local: bool = False) -> str:
    """Say on the --to side that its target could not be reached; `local`: this system is out of descriptors."""
    advice = "raise `ulimit -n`" if local else "start it, or correct --to"
    return f"the target {target} cannot be reached: {reason}; {advice}"


# Why the far side reset a stream; the keys are those of mux.Reason.
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
    9: "the far side's disk is full: not everything was written there",
    10: "the program at the far side has ended, or takes no more",
    11: "the far side could not write what came: its own message says why",
    12: "the far side could not read what it was to send: its own message says why",
    13: "all services of the far side have names: ask for one, as in -L PORT=NAME or --stdio=NAME",
}


def reset_reason(reason: int) -> str:
    """Return why a stream was reset; a reason that only a later version knows gets the plainest words."""
    return RESET_REASONS.get(reason, RESET_REASONS[0])


def narrow_hole(window: int) -> str:
    """Say why a hole is so slow."""
    return (
        f"the hole is slow: only {window} bytes at a time may be on their way to the peer, because this machine does "
        f"not scale TCP windows (sysctl net.ipv4.tcp_window_scaling), or a router on the way removes that option"
    )


def in_session(number: int, text: str) -> str:
    """Say in which of several sessions something happened."""
    return f"session {number}: {text}"


def served_already(process: int | None) -> str:
    """Say that another process of this machine waits for the same peers."""
    other = "another process" if process is None else f"process {process}"
    return f"{other} of this machine serves this peer on this channel already: end it, or give both sides a --channel"


def without_lost(reason: str) -> str:
    """Return why a link is lost without saying that it is."""
    return reason.removeprefix("link lost: ")


def not_back(reason: str, seconds: float) -> str:
    """Say that a lost connection could not be replaced in time."""
    return f"{reason}; and no other connection could be made in {seconds:.0f} s"


def dead_link(seconds: float) -> str:
    """Say that the peer was silent for too long."""
    silence = f"nothing heard from the peer for {seconds:.0f} s"
    return f"link lost: {silence}: its machine or the way there is gone"


def deaf_link(seconds: float) -> str:
    """Say that the peer's kernel answers, and its process does not."""
    return (
        f"link lost: nothing heard from the peer for {seconds:.0f} s, although its machine acknowledges what is sent: "
        f"its process stands still, or long packets are lost on the way here (MTU)"
    )


def black_hole(size: int) -> str:
    """Say that the way swallows packets of that size."""
    return (
        f"link lost: packets of {size} bytes vanish on the way, shorter ones came through: the path's MTU is smaller, "
        "and a router there does not say so; set a smaller MTU on this machine and on the peer's "
        "(`ip link set DEVICE mtu 1000`; IPv6 needs 1280: use -4), and start again"
    )


def broken_link(error: OSError) -> str:
    """Say that the operating system ended the link."""
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return LINK_CUT
    return f"link lost: {error.strerror or error}"


def unread_rest(seconds: float) -> str:
    """Say that a program here has not read what came before the hole ended."""
    return (
        f"the hole has ended, and for {seconds:.0f} s a program here has read nothing of what came before that: "
        "its connection is cut"
    )


def left_out(count: int) -> str:
    """Say how many sentences of the same kind were left out before this one."""
    return f" (and {count} more like it before; -vv prints all)"


def local_reset(error: OSError) -> str:
    """Say that the local client or target ended its connection with an error."""
    return f"the local connection broke: {error.strerror or error}"


def goodbye(code: int) -> str:
    """Say what the code of the peer's GO_AWAY frame means; it is not 0."""
    if code in GOODBYES:
        return GOODBYES[code]
    return f"link lost: the peer ended it with code {code} (1: it could not read us, 2: it failed itself)"


GOODBYES = {3: PEER_QUIT, 4: SERVICE_FULL}


def idle_link(seconds: float) -> str:
    """Say that --idle-timeout has ended the session."""
    return f"nothing was sent or received for {seconds:g} s (-i)"


# ---- secrets

# Without a number, which would help whoever reads the log and guesses.
WEAK_SECRET = "the secret can be guessed, being short or common: `punchtunnel --new-secret` prints one"  # noqa: S105
CONNECTS_TO_ANYONE = (
    "no secret: the far end is whoever answers at the peer's address; "
    "give both sides the same secret, or no_secret=True"
)


def readable_secret(path: str) -> str:
    """Say that others may read the file of a secret, which is not used then."""
    return f"others on this machine can read the secret in {path}: make a fresh one, and chmod 600 {path}"


def foreign_secret(path: str) -> str:
    """Say that another user may change the file of a secret."""
    return f"the secret in {path} belongs to another user, who can change it"


# ---- what could not be done

READ_STDIN = "read stdin"
WRITE_STDOUT = "write stdout"
ACCEPT = "accept a local client"
WRITE = "write"
WATCH = "watch a connection"


def listen_on(place: str) -> str:
    """Return what `cannot` says of binding a -L."""
    return f"listen on {place}"


def write_file(path: str) -> str:
    """Return what `cannot` says of writing a file."""
    return f"write {path}"


def read_secret(path: str) -> str:
    """Return what `cannot` says of reading the file of a secret."""
    return f"read the secret from {path}"


def cannot(what: str, error: OSError) -> str:
    """Say that something on this machine failed: one of the above, and the system's reason."""
    return f"cannot {what}: {error.strerror or error}"
