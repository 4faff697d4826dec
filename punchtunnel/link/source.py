"""A stream's way into the hole: what its source gives, one frame at a time.

    source --read----> [ frame ] -> hole      everything, but
    source --splice--> [ pipe ] --> hole      bulk of a plain link (splicing.py)

The counterpart of sink.py.  Readiness is edge-triggered (poller.py): a
source is *ready* until a read has shown that it has nothing.

Knows neither the rules of credit nor whose turn it is; owns no descriptor.
"""

from __future__ import annotations

from dataclasses import dataclass

from punchtunnel.ends.end import End
from punchtunnel.link.outgoing import BULK, Outgoing
from punchtunnel.link.splicing import Splicing
from punchtunnel.system import pipes
from punchtunnel.system.poller import HANG_UP, URGENT

# Bytes.  A stream that sends less at a time waits for one frame of another at most.
SPARSE = 4096


@dataclass(frozen=True, slots=True)
class Ending:
    """How a source has ended: at its end of file (None), or by a failure."""

    failure: OSError | None


# Bytes of payload, and how the source ends with them; None: it goes on.  A plain tuple:
# one is made for each frame.
Loaded = tuple[int, Ending | None]
NOTHING: Loaded = (0, None)


class Source:
    """What one stream will send.

    Attributes:
        is_open: Its end has not been found yet.
        ready: It may have something.
        is_new: It has sent nothing.
        sparse: It sent little the last time.
        talks: It sent little twice in a row.  The short rest of what was long is no message.
    """

    __slots__ = (
        "_bulk", "_drains", "_end", "_failure", "_hung_up", "_spliced_fd", "_urgent",
        "is_new", "is_open", "ready", "sparse", "talks",
    )  # fmt: skip

    def __init__(self) -> None:
        self._end: End | None = None
        # Where to splice from; None: nowhere.
        self._spliced_fd: int | None = None
        # Something else than bytes lies ahead: a short read is not the last.
        self._hung_up = False
        # What lies ahead is TCP's urgent mark, which cannot be spliced past.
        self._urgent = False
        # The source gives so much at a time that a frame should be long, and splicing pays.
        self._bulk = False
        # The source ends as soon as it has nothing more; with this failure, if there is one.
        self._drains = False
        self._failure: OSError | None = None
        self.is_open = True
        self.ready = False
        self.is_new = self.sparse = True
        self.talks = False

    def join(self, end: End, *, ready: bool = True) -> None:
        """Say where everything comes from."""
        self._end = end
        self._spliced_fd = end.spliced_source
        self.ready = ready

    def tell(self, events: int) -> None:
        """Take in what the poller says of the source: it can be read."""
        self.ready = True
        self._hung_up = bool(events & (HANG_UP | URGENT))
        self._urgent = bool(events & URGENT)

    def drain(self) -> None:
        """Read what the source holds already, and end it there."""
        self.ready = self._drains = True

    def fail(self, error: OSError) -> None:
        """The source has broken: what it holds already goes first."""
        self.ready = self._drains = self._hung_up = True
        self._failure = error

    def is_worth(self, credit: int, longest: int) -> bool:
        """Tell whether a frame of `credit` bytes, and `longest` at most, is worth its header: bulk waits for more."""
        return self.is_open and credit >= (min(BULK, longest) if self._bulk else 1)

    def load(self, outgoing: Outgoing, splicing: Splicing | None, credit: int, begin: int = 0) -> Loaded:
        """Read one frame's payload into the room of `outgoing`, from `begin` on, or into the pipe of `splicing`.

        Returns:
            The bytes of payload, and how the source ends with them. `NOTHING`:
            it is no longer `ready`, or another try will tell.
        """
        assert self._end is not None
        limit = min(credit, outgoing.tempo.frame_limit)
        fd = self._spliced_fd if self._bulk and not self._urgent else None
        if fd is not None and splicing is not None and self._end.is_at_hand(limit):
            count, ending = self._splice(splicing, fd, limit)
        else:
            room = outgoing.room[begin:] if begin else outgoing.room
            count, ending = self._copy(self._end, room, min(limit, len(room)))
        if count:
            self._bulk = count >= BULK
            self.talks = self.sparse and count <= SPARSE
            self.sparse = count <= SPARSE
            self.is_new = False
        if ending is not None:
            self.is_open = False
        return count, ending

    def _copy(self, end: End, room: memoryview, limit: int) -> Loaded:
        try:
            count = end.read_into(room[:limit])
        except OSError as error:
            return 0, Ending(error)
        if count is None:
            return self._nothing()
        if not count:
            return 0, Ending(self._failure)
        self.ready = self._hung_up or count == limit or not end.short_is_dry
        return self._find_end(end, room, count, limit) if self._hung_up else (count, None)

    def _find_end(self, end: End, room: memoryview, count: int, limit: int) -> Loaded:
        """Read on after `count` bytes: a FIN with the last payload costs half as much as one of its own."""
        more: int | None = count
        try:
            while more and count < limit:
                more = end.read_into(room[count:limit])
                count += more or 0
        except OSError as error:
            # A socket reports its reset once: the next read would take it for EOF.
            return count, Ending(self._failure or error)
        return count, Ending(self._failure) if more == 0 else None

    def _splice(self, splicing: Splicing, fd: int, limit: int) -> Loaded:
        try:
            count = splicing.pipe.fill(fd, limit)
        except OSError as error:
            if not pipes.cannot_splice(error):
                return 0, Ending(error)
            self._spliced_fd = None
            return NOTHING
        if count is None:
            return self._nothing()
        if not count:
            # Only a read by the end itself tells whether this is meant as its end.
            self._bulk = False
        return count, None

    def _nothing(self) -> Loaded:
        self.ready = False
        return (0, Ending(self._failure)) if self._drains else NOTHING
