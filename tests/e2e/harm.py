"""What a relay can do to the bytes that it carries.  Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Harm:
    """What becomes of the bytes of one direction.

    Offsets count from the first byte after "ok\n"; a segment is that of its first byte, and of the one after it.

    Attributes:
        delay_s: Every byte is passed on so many seconds late.
        held: Nothing is passed on before `HostileRelay.release`.
        cut_at: Both connections end after so many bytes.
        flips: The lowest bit of this byte is another one.
        repeats: This segment is passed on twice.
        leaves_out: This segment is not passed on; it comes after one that is repeated.
    """

    delay_s: float = 0.0
    held: bool = False
    cut_at: int | None = None
    flips: int | None = None
    repeats: tuple[int, int] | None = None
    leaves_out: tuple[int, int] | None = None


NONE = Harm()
# Of the direction from whoever has asked first, and of the other one.
Harms = tuple[Harm, Harm]


class Tampering:
    """Does harm to the bytes of one direction.

    Attributes:
        at: Bytes seen so far.
        is_cut: Nothing more passes.
    """

    def __init__(self, harm: Harm) -> None:
        self._harm = harm
        self._kept = b""
        self.at = 0
        self.is_cut = False

    def feed(self, data: bytes) -> bytes:
        """Return what is passed on."""
        harm, begin = self._harm, self.at
        if harm.cut_at is not None and begin + len(data) >= harm.cut_at:
            data = data[: max(0, harm.cut_at - begin)]
            self.is_cut = True
        self.at = begin + len(data)
        out = bytearray(data)
        if harm.flips is not None and begin <= harm.flips < self.at:
            out[harm.flips - begin] ^= 1
        if harm.leaves_out is not None:
            first, last = (min(max(edge - begin, 0), len(data)) for edge in harm.leaves_out)
            del out[first:last]
        if harm.repeats is not None:
            first, last = (min(max(edge - begin, 0), len(data)) for edge in harm.repeats)
            self._kept += data[first:last]
            if begin < harm.repeats[1] <= self.at:
                out[last:last] = self._kept
        return bytes(out)


def first(count: int, forth: Harm = NONE, back: Harm = NONE) -> Callable[[int], Harms]:
    """Return harms for the first pairs, and none after that."""
    return lambda number: (forth, back) if number < count else (NONE, NONE)


def released(harms: Callable[[int], Harms]) -> Callable[[int], Harms]:
    """Return the same harms, but for what is held."""

    def without(number: int) -> Harms:
        forth, back = harms(number)
        return replace(forth, held=False), replace(back, held=False)

    return without
