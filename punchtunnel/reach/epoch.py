"""Whether a router has lost its table of mappings since it was last heard: pure.

Each answer has the seconds since the router began to keep its table.  A router
that was started anew, or whose memory was cleared, counts from zero again, and
then every mapping has to be asked for anew.
"""

from __future__ import annotations


class Epoch:
    """The clock of one router, as one protocol tells it.

    Args:
        strict: RFC 6887 §8.5: a clock that runs too fast is another one, too.
            Otherwise RFC 6886 §3.6: only one that has fallen behind.
    """

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict
        self._before: tuple[int, float] | None = None

    def is_new(self, epoch: int, now: float) -> bool:
        """Take the clock of an answer that came `now`, in seconds; tell whether it is another one than before."""
        before, self._before = self._before, (epoch, now)
        if before is None:
            return False
        theirs, ours = epoch - before[0], now - before[1]
        if not self._strict:
            # Seven eighths of what has passed, and 2 s for the way of the answers.
            return theirs < ours * 7 / 8 - 2
        # Two answers may come in the wrong order, which is worth a second.
        return theirs < -1 or ours + 2 < theirs - theirs / 16 or theirs + 2 < ours - ours / 16
