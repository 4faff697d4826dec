"""Bytes, rates and times as a person reads them."""

from __future__ import annotations


def size(count: float) -> str:
    """Return bytes as a person reads them."""
    if count < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        count /= 1024
        # 1023.95 would read 1024.0.
        if count < 1023.95:
            return f"{count:.1f} {unit}"
    return f"{count / 1024:.1f} TiB"


def rate(count: float) -> str:
    """Return bytes a second as a person reads them."""
    return f"{size(count)}/s"


def duration(seconds: float) -> str:
    """Return seconds as a stopwatch shows them."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def milliseconds(seconds: float) -> str:
    """Return a round trip."""
    return f"{seconds * 1000:.1f} ms" if seconds >= 0.001 else f"{seconds * 1000:.2f} ms"


def utc(t: float) -> str:
    """Return the time of day of a Unix time."""
    minutes, second = divmod(int(t) % 86400, 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{second:02}"
