"""What came out of one run: exit statuses, bytes, events and packets -> a Result.  Pure."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field

from .cells import DATAGRAMS, DIRECT, RELAYED, Cell, Fails, Limit
from .ends import Outcome
from .packetlog import PacketLog
from .subjects import Subject

# An end that must fail has to be gone this soon after its deadline, in
# seconds; interpreter start and stop on a busy machine are part of it.
LATE = 3.0


@dataclass(slots=True)
class Result:
    """What came out of one run.  Pairs of numbers are (left, right)."""

    cell: str
    subject: str
    run: int
    passed: bool
    # One sentence for a failure; empty otherwise.
    why: str
    # From the later start to the later hole; the slowest hole of several.
    seconds: float | None
    syns: tuple[int, int]
    sockets: tuple[int, int]
    reasons: list[str] = field(default_factory=list)
    measured: dict[str, float] = field(default_factory=dict)


def judge(
    cell: Cell,
    subject: Subject,
    run: int,
    plays: list[list[Outcome]],
    log: PacketLog,
    syns: tuple[int, int],
    datagrams: tuple[int, int] = (0, 0),
) -> Result:
    """Return the result of a run; every play holds left and right of each channel in turn."""
    everyone = [outcome for play in plays for outcome in play]
    pairs = [tuple(play[at : at + 2]) for play in plays for at in range(0, len(play), 2)]
    if cell.fails is None:
        complaints = _connected(pairs) + _went_on(cell, everyone)
    else:
        judged = everyone[:1] if cell.kills else everyone
        complaints = _failed(judged, cell.fails, cell.wait_s + cell.lasts_s, subject.explains)
    measured = {
        limit.name: datagrams[0] if limit.measure == DATAGRAMS else _measure(limit, everyone[0], log)
        for limit in cell.limits
    }
    complaints += [
        f"{limit.name}: {measured[limit.name]:g}, more than {limit.most:g}"
        for limit in cell.limits
        if measured[limit.name] > limit.most
    ]
    complaints += [
        f"{limit.name}: {measured[limit.name]:g}, less than {limit.least:g}"
        for limit in cell.limits
        if measured[limit.name] < limit.least
    ]
    backs = [outcome.back_s for outcome in everyone if outcome.back_s is not None]
    if backs:
        measured["seconds to go on"] = round(max(backs), 2)
    most = [outcome.most_sockets for outcome in everyone]
    sockets = max(most[::2]), max(most[1::2], default=0)
    if max(sockets) > cell.sockets:
        complaints.append(f"{max(sockets)} sockets at once")
    times = [seconds for pair in pairs if (seconds := _hole_time(pair)) is not None]
    reasons = [f"{outcome.status}: {outcome.reason}" for outcome in everyone]
    return Result(
        cell.title, subject.name, run, not complaints, "; ".join(complaints), max(times, default=None),
        syns, sockets, reasons, measured,
    )  # fmt: skip


def _connected(pairs: list[tuple[Outcome, ...]]) -> list[str]:
    complaints = []
    for pair in pairs:
        left, right = pair
        for side, one, other in (("left", left, right), ("right", right, left)):
            if one.status != 0:
                complaints.append(f"{side} exit {one.status} ({one.reason})")
            elif _digest(one.received) != _digest(other.sent):
                complaints.append(f"{side} got {len(one.received)} of {len(other.sent)} bytes, or others")
    return complaints


def _went_on(cell: Cell, everyone: list[Outcome]) -> list[str]:
    """Return what is wrong with a session that something has happened to."""
    complaints = [
        f"{one.count('resumed')} holes after the first one instead of {cell.resumes}"
        for one in everyone
        if one.count("resumed") < cell.resumes
    ]
    if cell.happens and not cell.pieces and None in [one.back_s for one in everyone]:
        complaints.append("no bytes came after all that has happened")
    complaints += [
        f"went on {one.back_s:.1f} s after all that has happened, not within {cell.back_s:g} s"
        for one in everyone
        if cell.back_s and one.back_s is not None and one.back_s > cell.back_s
    ]
    return complaints


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _failed(everyone: list[Outcome], fails: Fails, wait_s: float, explains: bool) -> list[str]:
    complaints = []
    for number, one in enumerate(everyone):
        words = (fails.others or fails.words) if number % 2 else fails.words
        started_s = one.time_of("punching")
        if one.status != fails.status:
            complaints.append(f"exit {one.status} instead of {fails.status} ({one.reason})")
        elif explains and not re.search(words, one.reason):
            complaints.append(f"the reason does not name the cause ({words}): {one.reason}")
        elif started_s is not None and one.ended_s > started_s + wait_s + LATE:
            complaints.append(f"ended {one.ended_s - started_s:.1f} s after its first dial, with -w {wait_s:g}")
    return complaints


def _hole_time(pair: tuple[Outcome, ...]) -> float | None:
    """Return the seconds from the later start to both sides holding the winner."""
    starts = [one.time_of("punching") for one in pair]
    holes = [one.time_of("hole") for one in pair]
    if len(pair) < 2 or None in starts or None in holes:
        return None
    return max(time for time in holes if time is not None) - max(time for time in starts if time is not None)


def _measure(limit: Limit, end: Outcome, log: PacketLog) -> float:
    """Return what `limit` is about, for the left end; windows begin with its first dial."""
    if limit.measure in (RELAYED, DIRECT):
        return log.payload("relay" if limit.measure == RELAYED else "")
    start_s = end.time_of("punching") or 0.0
    since_s, until_s = start_s + limit.since_s, start_s + limit.until_s
    if limit.measure == "syns":
        return log.syns("left", since_s, until_s)
    return end.cpu_percent(since_s, until_s) or 0.0
