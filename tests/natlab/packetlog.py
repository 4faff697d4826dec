"""The packet log: what entered the internet, what became of it, and questions about it.

A record is written when a packet enters, because a SYN counts for the side
that sent it also when it is lost; its fate is part of the record.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path as FilePath

from .packets import ACK, RST, SYN, TCP, Packet, flags_text

DELIVERED = "delivered"


@dataclass(frozen=True, slots=True)
class Record:
    """One packet: Unix time in seconds, the two sites, its fields, and its fate."""

    time_s: float
    origin: str
    towards: str
    protocol: int
    source: str
    source_port: int
    target: str
    target_port: int
    flags: int
    sequence: int
    acknowledged: int
    ttl: int
    length: int
    fate: str

    @property
    def is_bare_syn(self) -> bool:
        """Tell whether this packet opens a connection."""
        return self.protocol == TCP and self.flags & (SYN | ACK | RST) == SYN

    def text(self, start_s: float) -> str:
        """Return one line, with the time in milliseconds after `start_s`."""
        what = flags_text(self.flags) if self.protocol == TCP else "icmp"
        numbers = f"seq {self.sequence:010d} ack {self.acknowledged:010d}" if self.protocol == TCP else ""
        return (
            f"{(self.time_s - start_s) * 1000:10.2f} ms  {self.origin:>8} > {self.towards:<8} "
            f"{self.source}:{self.source_port} > {self.target}:{self.target_port}  "
            f"{what:4} {numbers} ttl {self.ttl} len {self.length}  {self.fate}"
        )


def record(time_s: float, origin: str, towards: str, packet: Packet, fate: str) -> Record:
    """Return the record of `packet`, which came from site `origin` for site `towards`."""
    return Record(
        time_s, origin, towards, packet.protocol, packet.source, packet.source_port, packet.target, packet.target_port,
        packet.flags, packet.sequence, packet.acknowledged, packet.ttl, packet.length, fate,
    )  # fmt: skip


class PacketLog:
    """The records of one run, in the order of time."""

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self.records = list(records)

    def syns(self, origin: str, since_s: float = 0.0, until_s: float = float("inf")) -> int:
        """Count the bare SYNs that `origin` sent; the window is in Unix time, seconds."""
        opening = (one for one in self.records if one.origin == origin and one.is_bare_syn)
        return sum(since_s <= one.time_s < until_s for one in opening)

    def payload(self, towards: str) -> int:
        """Count the bytes of TCP that the two sides have sent to a third site, or to each other if that is ""."""
        sides = {"left", "right"}
        goal = {towards} if towards else sides
        return sum(one.length for one in self.records if one.origin in sides and one.towards in goal)

    def first_syn(self, origin: str) -> float | None:
        """Return the Unix time of the first bare SYN of `origin`, or None."""
        return next((one.time_s for one in self.records if one.origin == origin and one.is_bare_syn), None)

    def text(self) -> str:
        """Return the whole log as lines for people."""
        start_s = self.records[0].time_s if self.records else 0.0
        return "".join(one.text(start_s) + "\n" for one in self.records)

    def save(self, file: FilePath) -> None:
        """Write one JSON object a line."""
        with file.open("w") as out:
            out.writelines(json.dumps(asdict(one)) + "\n" for one in self.records)

    @classmethod
    def load(cls, file: FilePath) -> PacketLog:
        """Read what `save` wrote."""
        with file.open() as lines:
            return cls(Record(**json.loads(line)) for line in lines)
