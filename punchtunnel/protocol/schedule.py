"""When to dial which ports: a pure function of the clock and the channel.

Time is cut into overlapping buckets, one new one every WINDOW seconds:

    t            0    25    50    75   100   125   150   175   200
    k0 changes        |           |           |           |
    bucket 0    ======|           .           .
    bucket 1    ======|===========|           .          two are current at
    bucket 2          |===========|===========|          any moment: k0, k0+1
    bucket 3                      |===========|====

Rule 1: k0 = floor(t / 50 - 1/2); buckets k0 and k0+1 are dialled.  Two clocks
        that differ by at most 50 s share a bucket: that covers ±20 s of clock
        error on either side and 10 s between the starts, guaranteed.  One
        bucket alone fails for any two clocks with a border between them.
Rule 2: A few ports do not depend on the clock at all, so that a clock that is
        wrong by hours still meets.
Rule 3: A bucket's ports are kept one window longer than it is current.
Rule 4: Ports come from HMAC-SHA256 keyed by the channel name: stable across
        versions and machines (`random.Random` promises neither), and not
        shared by every user in the world.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

# Seconds; see rule 1.
WINDOW = 50.0
# Free of privileged ports, of Linux's ephemeral range (32768–60999) and of
# everybody else's (49152–65535).
LOWEST_PORT = 10240
HIGHEST_PORT = 32767
PORTS_PER_BUCKET = 8
CLOCK_FREE_PORTS = 4

# Some ports of each bucket are listened on as well.  Not all: behind a
# NAT a listener answers a crossing SYN with a sequence number of its own, the
# NAT drops that answer, and the port is of no use until the listener gives up
# a minute later.  A few are enough for the peer that they are there for, the
# one whose ports are rewritten.
LISTENERS_PER_BUCKET = 2

# Sockets that listen or dial at one time.  Routers and watchful administrators
# take notice of more.
MAX_SOCKETS = 60
# The bucket label of the ports that do not depend on the clock.
CLOCK_FREE = -(2**63)


class PortCounts(NamedTuple):
    """How many ports of each kind are used; fewer when a PEER has many addresses.

    The first ports of every list are the ones that are used, so two sides
    with different counts still share the smaller one.
    """

    per_bucket: int = PORTS_PER_BUCKET
    clock_free: int = CLOCK_FREE_PORTS

    def ports(self, bucket: int) -> int:
        """Return how many ports of `bucket` are used."""
        return self.clock_free if bucket == CLOCK_FREE else self.per_bucket


def port_counts(addresses: int, families: int, further: int = 0) -> PortCounts:
    """Return the largest counts that stay below MAX_SOCKETS.

    Args:
        addresses: Peer addresses, each of which costs one dial a port, and by each interface again.
        families: Address families, each of which costs the listeners of all
            buckets: two current ones, one retained, and the clock-free one.
        further: Interfaces beside the usual one, in each family, each of
            which costs one listener a bucket.
    """
    ports = (MAX_SOCKETS - 4 * (LISTENERS_PER_BUCKET * families + further)) // addresses
    clock_free = max(1, min(CLOCK_FREE_PORTS, ports // 5))
    per_bucket = max(1, min(PORTS_PER_BUCKET, (ports - clock_free) // 3))
    return PortCounts(per_bucket, clock_free)


def first_bucket(t: float) -> int:
    """Return k0 for the Unix time `t` in seconds: the older current bucket."""
    return math.floor(t / WINDOW - 0.5)


def current_buckets(t: float) -> tuple[int, int, int]:
    """Return the buckets whose ports are dialled at `t`; the clock-free one is among them."""
    k0 = first_bucket(t)
    return (CLOCK_FREE, k0, k0 + 1)


def retained_buckets(t: float) -> frozenset[int]:
    """Return the buckets whose ports stay open at `t` if they are (rule 3)."""
    return frozenset((*current_buckets(t), first_bucket(t) - 1))


def next_change(t: float) -> float:
    """Return the Unix time at which `current_buckets` changes next."""
    return (first_bucket(t) + 1.5) * WINDOW


def bucket_ports(channel: str, bucket: int, count: int) -> list[int]:
    """Return the first `count` ports of one bucket, all different.

    A 16-bit big-endian word of HMAC-SHA256(channel, "punchtunnel ports 1" ‖
    bucket ‖ block), block = 0, 1, 2 …, is a port if it lies below the largest
    multiple of the range's size (rejection, so no port is likelier).
    """
    ports: list[int] = []
    for word in _words(channel, bucket):
        size = HIGHEST_PORT - LOWEST_PORT + 1
        if word >= 65536 - 65536 % size:
            continue
        port = LOWEST_PORT + word % size
        if port not in ports:
            ports.append(port)
        if len(ports) == count:
            break
    return ports


def _words(channel: str, bucket: int) -> Iterator[int]:
    for block in range(2**16):
        message = b"punchtunnel ports 1" + struct.pack(">qH", bucket, block)
        digest = hmac.digest(channel.encode(), message, hashlib.sha256)
        yield from struct.unpack(">16H", digest)
    raise AssertionError("a million words hold enough ports")


def ports_of(channel: str, buckets: Iterable[int], counts: PortCounts) -> list[int]:
    """Return the ports of all `buckets`, each once, in the order of the buckets."""
    ports: dict[int, None] = {}
    for bucket in buckets:
        ports.update(dict.fromkeys(bucket_ports(channel, bucket, counts.ports(bucket))))
    return list(ports)


def port_pairs(channel: str, buckets: Iterable[int], counts: PortCounts) -> list[tuple[int, int]]:
    """Return ports in pairs, for two ends on one machine.

    Dialling from a port to itself on one machine connects to oneself, so each
    end takes one port of a pair.
    """
    pairs: dict[tuple[int, int], None] = {}
    for bucket in buckets:
        count = counts.ports(bucket)
        ports = bucket_ports(channel, bucket, count + count % 2)
        pairs.update(dict.fromkeys(zip(ports[::2], ports[1::2], strict=True)))
    return list(pairs)


def channel_tag(channel: str) -> bytes:
    """Return eight bytes that tell channels apart when they share a port by chance."""
    return hmac.digest(channel.encode(), b"punchtunnel channel 1", hashlib.sha256)[:8]
