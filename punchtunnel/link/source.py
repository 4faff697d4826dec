"""A stream's way into the hole: what its source gives, one frame at a time.

    source --splice--> [ pipe ] --> hole      bulk of a plain link
    source --read----> [ frame ] -> hole      everything else

The counterpart of sink.py.  Readiness is edge-triggered (poller.py): a
source is *ready* until a read has shown that it has nothing.

Knows neither credit's reasons nor whose turn it is; owns no descriptor.
"""

from __future__ import annotations

from punchtunnel.ends.end import End
from punchtunnel.link.outgoing import LONGEST_FRAME, Outgoing
from punchtunnel.system import pipes
from punchtunnel.system.pipes import WORTH_SPLICING
from punchtunnel.system.poller import HANG_UP, URGENT

# Bytes.  A stream that sends less at a time waits for no other's frame but one.
SPARSE = 4096


class Supply:
    """What one stream will send."""

    def __init__(self) -> None:
        self._end: End | None = None
        # Where to splice from; None: copy.
        self._spliced_source: int | None = None
        # Something else than bytes lies ahead: a short read is not the last.
        self._hung_up = False
        # TCP's urgent mark, which cannot be spliced past.
        self._urgent = False
        # The source gives so much at a time that splicing it pays.
        self._bulk = False
        # It ends where it has nothing more at once; well, or with this failure.
        self.ending = False
        self._failure: OSError | None = None
        self.is_open = True
        self.ready = True
        # It sent little the last time, and twice in a row: the short rest of what was long is no message.
        self.sparse = True
        self.talks = False

    def join(self, end: End, *, splice: bool) -> None:
        """Say where everything comes from."""
        self._end = end
        self._spliced_source = end.spliced_source if splice else None

    def tell(self, events: int) -> None:
        """Take in what the poller says of the source: it can be read."""
        self.ready = True
        self._hung_up = bool(events & (HANG_UP | URGENT))
        self._urgent = bool(events & URGENT)

    def fail(self, error: OSError) -> None:
        """The source has broken: what it holds already goes first, and then `load` raises this."""
        self.ready = self.ending = self._hung_up = True
        self._failure = error

    def is_worth(self, credit: int, longest: int) -> bool:
        """Tell whether a frame with this credit, and this long at most, is one: bulk waits for enough."""
        return self.is_open and credit >= (min(WORTH_SPLICING, longest) if self._bulk else 1)

    def load(self, outgoing: Outgoing, credit: int) -> int:
        """Read one frame's payload into `outgoing`, and return its bytes.

        0 is nothing: because the source is not `ready`, because it has ended
        and is not `is_open`, or because another try will tell.

        Raises:
            OSError: The source is broken.
        """
        assert self._end is not None
        limit = min(credit, outgoing.frame_limit)
        if self._spliced_source is not None and self._bulk and outgoing.splices and not self._urgent:
            count = self._splice(outgoing, self._spliced_source, limit)
        else:
            count = self._copy(outgoing, self._end, min(limit, LONGEST_FRAME))
        if count:
            self._bulk = count >= WORTH_SPLICING
            self.talks = self.sparse and count <= SPARSE
            self.sparse = count <= SPARSE
        if self._failure is not None and not self.is_open:
            if not count:
                raise self._failure
            outgoing.failure = self._failure
        return count

    def _copy(self, outgoing: Outgoing, end: End, limit: int) -> int:
        count = outgoing.load_copied(end, limit, to_end=self._hung_up)
        if count is None:
            self.ready = False
            self.is_open = not self.ending
            return 0
        self.ready = self._hung_up or count == limit or not end.short_is_dry
        # FIN goes with the last payload: alone it would cost as much again.
        self.is_open = count > 0 and not outgoing.found_end
        return count

    def _splice(self, outgoing: Outgoing, source: int, limit: int) -> int:
        try:
            count = outgoing.load_spliced(source, limit)
        except OSError as error:
            if not pipes.cannot_splice(error):
                raise
            self._spliced_source = None
            return 0
        if count is None:
            self.ready = False
            self.is_open = not self.ending
        elif not count:
            # Only the end's own read knows whether that is meant as its end.
            self._bulk = False
        return count or 0
