"""Bytes, rates and times as a person reads them."""

from __future__ import annotations


def size(count: float) -> str:
    """Return bytes as a person reads them: to three digits or four, so that the columns of a line suffice."""
    if count < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        count /= 1024
        # 1023.5 would read 1024.
        if count < 1023.5:
            return f"{_short(count)} {unit}"
    return f"{_short(count / 1024)} TiB"


def _short(number: float) -> str:
    """Return a number with a decimal if it is below a hundred."""
    # 99.95 would read 100.0.
    return f"{number:.1f}" if number < 99.95 else f"{number:.0f}"


def rate(count: float) -> str:
    """Return bytes a second as a person reads them."""
    return f"{size(count)}/s"


def duration(seconds: float) -> str:
    """Return seconds as a stopwatch shows them."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def span(seconds: float) -> str:
    """Return how long something took, for a sentence."""
    if seconds < 0.095:
        return f"{max(seconds, 0.01):.2f} s"
    if seconds < 0.95:
        return f"{seconds:.1f} s"
    # 59.5 would read 60.
    return f"{seconds:.0f} s" if seconds < 59.5 else duration(round(seconds))


def milliseconds(seconds: float) -> str:
    """Return a round trip."""
    return f"{seconds * 1000:.2f} ms" if seconds < 0.001 else f"{_short(seconds * 1000)} ms"


def utc(t: float) -> str:
    """Return the time of day of a Unix time."""
    minutes, second = divmod(int(t) % 86400, 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{second:02}"
