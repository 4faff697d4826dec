"""Who sends next: streams that may have something to send take turns, one frame each.

    credit, or bytes to read --> [ ring ] --> one frame --> again, if there may be more

Rule 1: a stream is in the ring at most once, and only while its source may
        have something.
Rule 2: a stream that sent little on its last turn goes ahead of those that
        sent a lot, once for each time that it had nothing to send.
Rule 3: a stream that goes away leaves the ring at once.  While the hole takes
        nothing no turn comes, and a peer may open and reset streams for ever.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence

from punchtunnel.link.outgoing import Outgoing
from punchtunnel.link.source import Ending, Source
from punchtunnel.link.splicing import Splicing
from punchtunnel.link.stream import Stream

# Frames and receives in one turn of the loop, and the seconds after the first of them
# (frames can be very small).  Timers, signals and new connections then get their turn.
STEPS_PER_TURN = 16
LONGEST_TURN = 0.02
# One record can hold 20,000 events that cost a connection each.  After so many the clock
# is looked at, and what is left of the record waits for the next turn.
EVENTS_PER_LOOK = 32
# Seconds for which an ACK waits for something to go with: alone it costs both
# sides as much as a connection's data.
ACK_DELAY = 0.02


# A stream, the bytes of payload that it has sent, and how its source ends with them.
Turn = tuple[Stream, int, Ending | None]
Sent = Sequence[Turn]
NOTHING: Sent = ()


class Turns:
    """The ring.

    Attributes:
        ring: The streams, in the order of their turns.
    """

    def __init__(self) -> None:
        self.ring: deque[Stream] = deque()

    def add(self, stream: Stream, *, first: bool = False) -> None:
        """Put a stream into the ring if its source may have something, before all others or after them."""
        source = stream.source
        if source.ready and source.is_open and not stream.in_ring:
            stream.in_ring = True
            if first:
                self.ring.appendleft(stream)
            else:
                self.ring.append(stream)

    def load(self, outgoing: Outgoing, splicing: Splicing | None, begin: int = 0) -> Turn:
        """Give the first stream its turn: read one frame's payload from its source; see `Source.load`."""
        stream = self.ring.popleft()
        stream.in_ring = False
        source, tempo = stream.source, outgoing.tempo
        if not source.is_worth(stream.credit, tempo.frame_limit):
            # Its next credit brings it back.
            return stream, 0, None
        is_new = source.is_new
        count, ending = source.load(outgoing, splicing, stream.credit, begin)
        if count and source.talks and self.ring and self._has_more(self.ring[-1].source, is_new=is_new):
            tempo.interactive_at = time.monotonic()
        if source.ready:
            self.add(stream)
        return stream, count, ending

    @staticmethod
    def _has_more(last: Source, *, is_new: bool) -> bool:
        """Tell whether the last stream in the ring sends more than messages; of two new ones nobody knows."""
        return not last.sparse or (last.is_new and not is_new)

    def remove(self, stream: Stream) -> None:
        """Take a stream out, if it is in."""
        if stream.in_ring:
            stream.in_ring = False
            self.ring.remove(stream)
