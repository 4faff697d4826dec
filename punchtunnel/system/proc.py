"""What Linux tells in the files of /proc; other systems have none of them.

A file that cannot be read is None.  One whose content has another form (some
containers imitate a few of them) raises ValueError.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/proc")


def read(name: str) -> str | None:
    """Return the text of one file, named as "net/route"; None if it cannot be read."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return (ROOT / name).read_text("utf-8")
    return None


def file_system(device: int) -> str | None:
    """Return the type of the file system that is mounted from a device (st_dev), as "ext4"; None if it is unknown."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in (read("self/mountinfo") or "").splitlines():
        mount, _, mounted = line.partition(" - ")
        if mount.split()[2:3] == [wanted] and mounted:
            return mounted.split()[0]
    return None


def ephemeral_ports() -> list[tuple[int, int]] | None:
    """Return the ranges that outgoing connections get their ports from, lowest and highest port each.

    Raises:
        ValueError: The sysctls have another form.
    """
    text = read("sys/net/ipv4/ip_local_port_range")
    if text is None:
        return None
    low, high = map(int, text.split())
    ranges: list[tuple[int, int]] = []
    for first, last in sorted(_reserved_ports()):
        if first > low:
            ranges.append((low, min(high, first - 1)))
        low = max(low, last + 1)
    return [one for one in (*ranges, (low, high)) if one[0] <= one[1]]


def _reserved_ports() -> Iterator[tuple[int, int]]:
    text = (read("sys/net/ipv4/ip_local_reserved_ports") or "").strip()
    for part in text.split(",") if text else ():
        first, _, last = part.partition("-")
        yield int(first), int(last or first)


def taken_ports(low: int, high: int) -> int:
    """Count the ports from `low` to `high` that some TCP socket has.

    Raises:
        ValueError: The tables of sockets have another form.
    """
    ports: set[int] = set()
    for name in ("net/tcp", "net/tcp6"):
        for line in (read(name) or "").splitlines()[1:]:
            ports.add(int(line.split()[1].rpartition(":")[2], 16))
    return sum(low <= port <= high for port in ports)
