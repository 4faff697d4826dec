"""The packets of one punch as a picture: time runs down, every packet is a line.  Pure.

    left host   left router                right router   right host
        |------------|--.                       |             |
        |            |    `--.  SYN             |             |
        |            |         `--.             |             |
        |            |              `---------->|------------>|

The laboratory's log has what enters the internet between the two routers.
Where a packet started and ended follows from it: what a router answers itself
leaves with a full TTL, and what was refused got no further than that router.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from .drawing import Colours, box, document, text
from .packetlog import DELIVERED, PacketLog, Record
from .packets import RST, SYN

# A packet that a host has sent has passed its router: one hop less than Linux gives it.
FULL_TTL = 64
# Bytes of the handshake on the winner (docs/PROTOCOL.md, "Election"), and what is sent there.
HELLO, PICK, ACCEPT, PROOF = 36, 37, 69, 32
NAMES = {HELLO: "HELLO", PICK: "PICK", ACCEPT: "ACCEPT", PROOF: "proof"}

# Pixels.
TOP, BOTTOM = 72, 76
HOSTS = {"left": 250, "right": 604}
ROUTERS = {"left": 322, "right": 532}
NOTE_EDGE = {"left": 234, "right": 620}
LINE_HEIGHT = 16
PIXELS_PER_MS = 2.6

COLOURS: Colours = {
    "hold": ("#b35900", "#f0a04b"), "dial": ("#0969da", "#58a6ff"), "reset": ("#c9302c", "#ff7b72"),
    "open": ("#1a7f37", "#3fb950"), "box": ("#e9ecef", "#262c33"), "life": ("#8c959f", "#6e7681"),
}  # fmt: skip
WEIGHTS = """\
line, path { stroke-width: 1.2 }
.winner { stroke-width: 2.6 }
.faint { opacity: .4 }
.strong { font-weight: bold }
"""


@dataclass(frozen=True, slots=True)
class Shown:
    """One packet as it is drawn; times in seconds after the first one."""

    kind: str
    label: str
    origin: str
    start_s: float
    # Of the way between the routers, 0 to 1.
    share: float
    from_router: bool
    to_router: bool
    wins: bool
    port: int


@dataclass(frozen=True, slots=True)
class Note:
    """A sentence beside a host's line, at a moment."""

    side: str
    time_s: float
    text: str
    kind: str = ""


def other(side: str) -> str:
    """Return the opposite side."""
    return "right" if side == "left" else "left"


def winner(log: PacketLog) -> int | None:
    """Return the port of the hole: the first that carries the follower's answer to a PICK."""
    return next((one.source_port for one in log.records if one.length == ACCEPT), None)


def tells(log: PacketLog) -> bool:
    """Tell whether a run shows what the picture is for.

    One side comes first and is refused, and the hole is where one held and
    the other dialled.
    """
    port = winner(log)
    if port is None:
        return False
    syns = [one for one in log.records if one.source_port == port and one.is_bare_syn]
    refused = [one for one in log.records if one.flags & RST and one.ttl == FULL_TTL]
    return len(refused) >= 4 and [one.fate == DELIVERED for one in syns] == [False, True]


def duration(log: PacketLog) -> float:
    """Return the seconds from the first packet to the last message of the handshake."""
    port = winner(log)
    return float("inf") if port is None else _end(log, port) - log.records[0].time_s


def _end(log: PacketLog, port: int) -> float:
    """Return when the proof left, the last message of the handshake; later records may have its size."""
    hole = [one for one in log.records if one.source_port == port]
    accepted = next(one for one in hole if one.length == ACCEPT)
    return next(one.time_s for one in hole if one.length == PROOF and one.time_s > accepted.time_s)


def svg(log: PacketLog, delay_s: float, names: dict[str, str]) -> str:
    """Return the picture.

    Args:
        log: Of a run in which a hole was opened.
        delay_s: Of the path, in each direction.
        names: What to call the two sides.

    Raises:
        ValueError: There is no hole in the log.
    """
    port = winner(log)
    if port is None:
        raise ValueError("no hole was opened in this log")
    start = log.records[0].time_s
    end = _end(log, port) + delay_s
    shown = list(_shown([one for one in log.records if one.time_s <= _end(log, port)], start, port))
    height = TOP + _pixels(end - start) + BOTTOM
    shapes = [*_frame(height, names, end - start)]
    for one in sorted(shown, key=lambda one: one.wins):
        shapes += _packet(one, delay_s)
    for side in HOSTS:
        shapes += _labels([one for one in shown if one.wins and one.origin == side], delay_s)
    shapes += _notes(_story(log, shown, start, end, port, delay_s, names))
    shapes += _legend(height)
    return document(height, "\n".join(shapes), COLOURS, WEIGHTS)


# ---- what is shown


def _shown(records: Sequence[Record], start: float, port: int) -> Iterator[Shown]:
    refused = {
        (one.origin, one.source_port, (one.acknowledged - 1) % 2**32)
        for one in records
        if one.flags & RST and one.ttl == FULL_TTL
    }
    for one in records:
        kind, label = _kind(one)
        if not kind:
            continue
        stopped = one.is_bare_syn and (one.towards, one.target_port, one.sequence) in refused
        share = 1.0 if one.fate == DELIVERED else one.ttl / 10
        wins = one.source_port == port and not (one.flags & RST)
        from_router = bool(one.flags & RST) and one.ttl == FULL_TTL
        yield Shown(kind, label, one.origin, one.time_s - start, share, from_router, stopped, wins, one.source_port)


def _kind(one: Record) -> tuple[str, str]:
    """Return how a packet is drawn and what is written on it; nothing for bare acknowledgements."""
    if one.flags & RST:
        return "reset", "RST"
    if one.is_bare_syn:
        return ("dial", "SYN") if one.fate == DELIVERED else ("hold", "SYN")
    if one.flags & SYN:
        return "open", "SYN-ACK"
    return ("open", NAMES[one.length]) if one.length in NAMES else ("", "")


def _story(
    log: PacketLog, shown: list[Shown], start: float, end: float, port: int, delay_s: float, names: dict[str, str]
) -> Iterator[Note]:
    """Yield what a reader should see, where it happens."""
    first = shown[0].origin
    second = other(first)
    begins = {side: (log.first_syn(side) or start) - start for side in (first, second)}
    for side in (first, second):
        # The first SYN of each port; what comes later is written over.
        firsts = {one.port: one.kind for one in reversed(shown) if one.origin == side and one.label == "SYN"}
        holds = list(firsts.values()).count("hold")
        yield Note(side, begins[side], f"{names[side]} starts on {len(firsts)} ports:")
        yield Note(side, begins[side], f"{holds} holds", "hold")
        yield Note(side, begins[side], f"{len(firsts) - holds} dials", "dial")
    refusals = [one.start_s for one in shown if one.from_router and one.start_s < begins[second]]
    yield Note(second, refusals[0], f"the router of {names[second]} knows", "reset")
    yield Note(second, refusals[0], "nobody there yet: it refuses", "reset")
    yield Note(first, refusals[0] + delay_s, f"{len(refusals)} refused: dialled again", "reset")
    yield Note(first, refusals[0] + delay_s, "after a jittered wait", "reset")
    yield from _story_of_the_hole(log, shown, start, end, port, delay_s, names)


def _story_of_the_hole(
    log: PacketLog, shown: list[Shown], start: float, end: float, port: int, delay_s: float, names: dict[str, str]
) -> Iterator[Note]:
    hold, dial = [one for one in shown if one.port == port and one.label == "SYN"]
    holder = hold.origin
    # Where it starts its line has its own note already.
    at = max(hold.start_s, (log.first_syn(holder) or 0) - start) + 3.2 * LINE_HEIGHT / PIXELS_PER_MS / 1000
    for line in (f"port {port} is a hold:", "its SYN dies on the way,", "but its own router now", "expects an answer"):
        yield Note(holder, at, line, "hold")
    yield Note(holder, dial.start_s + delay_s, "so this SYN may come in", "open")
    first_hello = next(one for one in shown if one.port == port and one.label == "HELLO")
    yield Note(first_hello.origin, first_hello.start_s, "open: HELLO at once,", "open")
    yield Note(first_hello.origin, first_hello.start_s, "on every connection", "open")
    pick = next(one for one in shown if one.label == "PICK")
    yield Note(pick.origin, pick.start_s, "the leader picks one", "open")
    later = max((log.first_syn(side) or start) for side in ("left", "right"))
    proof = [one for one in shown if one.wins][-1]
    took = f"{(end - later) * 1000:.0f} ms after {names[_last(log)]}"
    for line in ("the hole is open and sealed", took, "has started"):
        yield Note(other(proof.origin), end - start, line, "open")


def _last(log: PacketLog) -> str:
    """Return the side that started last."""
    return max(("left", "right"), key=lambda side: log.first_syn(side) or 0.0)


# ---- shapes


def _pixels(seconds: float) -> int:
    return math.ceil(seconds * 1000 * PIXELS_PER_MS)


def _y(seconds: float) -> float:
    return TOP + seconds * 1000 * PIXELS_PER_MS


def _frame(height: int, names: dict[str, str], seconds: float) -> Iterator[str]:
    """Yield the four life lines, their heads, and the scale of time."""
    bottom = height - BOTTOM
    for tick in range(0, math.ceil(seconds * 1000), 20):
        y = _y(tick / 1000)
        yield f'<path class="grid" d="M{ROUTERS["left"]},{y:.1f} H{ROUTERS["right"]}"/>'
        yield text(8, y + 4, f"{tick} ms", "muted")
    for side in ("left", "right"):
        for x, label in ((HOSTS[side], names[side]), (ROUTERS[side], "router")):
            yield f'<path class="line-life" d="M{x},{TOP - 24} V{bottom}"/>'
            yield box(x - 32, TOP - 52, 64, 28, "box")
            yield text(x, TOP - 34, label, "title" if label == names[side] else "", anchor="middle")
    yield text((ROUTERS["left"] + ROUTERS["right"]) / 2, TOP - 34, "internet", "muted", anchor="middle")


def _packet(one: Shown, delay_s: float) -> Iterator[str]:
    """Yield the line of one packet: through the own router, the internet, and the other router."""
    towards = other(one.origin)
    here, there = ROUTERS[one.origin], ROUTERS[towards]
    weight = "winner" if one.wins else "faint"
    look = f"line-{one.kind} {weight}"
    y1, y2 = _y(one.start_s), _y(one.start_s + delay_s * one.share)
    x2 = here + (there - here) * one.share
    if not one.from_router:
        yield _line(look, HOSTS[one.origin], y1, here, y1)
    yield _line(look, here, y1, x2, y2)
    if one.share < 1:
        yield f'<circle class="{one.kind} {weight}" cx="{x2:.1f}" cy="{y2:.1f}" r="{3.5 if one.wins else 1.8}"/>'
    elif not one.to_router:
        yield _line(look, there, y2, HOSTS[towards], y2)
        if one.wins:
            yield _head(one.kind, HOSTS[towards], y2, 1 if HOSTS[towards] > there else -1)


def _labels(winners: Sequence[Shown], delay_s: float) -> Iterator[str]:
    """Yield what one side's packets on the winner are called, none written over the one before."""
    before_s, at = -math.inf, 0.0
    for one in winners:
        here, there = ROUTERS[one.origin], ROUTERS[other(one.origin)]
        is_close = (one.start_s - before_s) * 1000 * PIXELS_PER_MS < LINE_HEIGHT
        # Not in the middle, where two that cross would be written over each other.
        at = 0.5 * one.share if one.share < 1 else 0.62 if is_close and at < 0.5 else 0.27
        before_s = one.start_s
        x, y = here + (there - here) * at, _y(one.start_s + delay_s * at)
        angle = math.degrees(math.atan(_pixels(delay_s) / (there - here)))
        yield (
            f'<text class="{one.kind} strong" text-anchor="middle" '
            f'transform="translate({x:.1f},{y - 5:.1f}) rotate({angle:.1f})">{one.label}</text>'
        )


def _line(look: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{look}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _head(look: str, x: float, y: float, direction: int) -> str:
    back = x - 9 * direction
    return f'<path class="{look}" d="M{x} {y:.1f} L{back} {y - 4.5:.1f} L{back} {y + 4.5:.1f} Z"/>'


def _notes(notes: Iterable[Note]) -> Iterator[str]:
    """Yield the sentences beside the two hosts, none above another."""
    free = {"left": 0.0, "right": 0.0}
    for note in sorted(notes, key=lambda note: note.time_s):
        y = max(_y(note.time_s) + 4, free[note.side])
        free[note.side] = y + LINE_HEIGHT
        kind = f"{note.kind} strong" if note.kind == "open" else note.kind
        yield text(NOTE_EDGE[note.side], round(y, 1), note.text, kind, anchor="end" if note.side == "left" else "start")


def _legend(height: int) -> Iterator[str]:
    words = (
        ("hold", "hold: a SYN that dies on the way"),
        ("dial", "dial: a SYN that gets across"),
        ("reset", "refused (RST)"),
        ("open", "open; thick and labelled: the connection that is picked"),
    )
    for number, (kind, meaning) in enumerate(words):
        x, y = 60 + number % 2 * 290, height - 34 + number // 2 * 20
        yield _line(f"line-{kind} winner", x, y - 4, x + 26, y - 4)
        yield text(x + 34, y, meaning)
