"""A stream of the link as asyncio's reader and writer.

    program                                               the far side
    reader, writer ══ socket pair ══ ProgramEnd ── Link ── hole ── ...

The socket pair is what makes it an ordinary stream of asyncio, with its
backpressure and its half-close; and link.py sees a socket as always.  What a
socket pair cannot say is that a stream was cut: it knows no RST, and its
other side would read an end of file.  So an end that is aborted tells the
reader itself, and an end of file from the program counts only if the program
has asked for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from punchtunnel import words
from punchtunnel.ends.sockets import SocketEnd
from punchtunnel.errors import LinkError


class ProgramEnd(SocketEnd):
    """Our half of a socket pair; the program's streams have the other one."""

    def __init__(self) -> None:
        ours, self.theirs = socket.socketpair()
        super().__init__(ours)
        # Nobody passes descriptors through it.
        self.short_is_dry = True
        self.theirs.setblocking(False)
        self.reader = asyncio.StreamReader()
        self.writer: Writer | None = None
        self.over = asyncio.Event()
        self.error: LinkError | None = None

    def read_into(self, view: memoryview) -> int | None:
        """See End."""
        count = super().read_into(view)
        if count == 0 and (self.writer is None or not self.writer.has_ended):
            # Its transport was aborted, or thrown away: what was written may be missing.
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        return count

    def close(self) -> None:
        """See End."""
        super().close()
        self.over.set()

    def abort(self) -> None:
        """See End."""
        # Before the socket is closed: that would be read as an end of file.
        self.fail("")
        self.close()

    def fail(self, reason: str) -> None:
        """Let the reader raise LinkError; a reason may also be told later, before anybody has read it."""
        if self.error is None:
            self.error = LinkError(reason or words.STREAM_CUT)
            self.reader.set_exception(self.error)
        elif reason:
            self.error.args = (reason,)


class StreamProtocol(asyncio.StreamReaderProtocol):
    """Tells whoever waits, also in `drain`, what the end knows instead of what the socket pair says."""

    def __init__(self, end: ProgramEnd) -> None:
        super().__init__(end.reader)
        self._stream_end = end

    def eof_received(self) -> bool | None:
        """See asyncio.Protocol."""
        stays = super().eof_received()
        if not stays and self._stream_end.writer is not None:
            # asyncio closes the transport itself, as TLS does behind the peer's end.
            self._stream_end.writer.has_ended = True
        return stays

    def connection_lost(self, error: Exception | None) -> None:
        """See asyncio.Protocol."""
        super().connection_lost(self._stream_end.error or error)


class Writer(asyncio.StreamWriter):
    """A StreamWriter that knows when its stream is over at the far side too."""

    def __init__(
        self,
        transport: asyncio.WriteTransport,
        protocol: StreamProtocol,
        end: ProgramEnd,
        facts: Mapping[str, str | None],
    ) -> None:
        super().__init__(transport, protocol, end.reader, asyncio.get_running_loop())
        self._stream_end = end
        self._facts = facts
        # What must end well for `wait_closed` to return.
        self.delivered: Callable[[], Awaitable[None]] | None = None
        # Why nothing can be written.
        self._refusal = ""
        # The program has said that it will write no more.
        self.has_ended = False

    def close(self) -> None:
        """See asyncio.StreamWriter."""
        self._end()
        super().close()

    def write_eof(self) -> None:
        """See asyncio.StreamWriter."""
        self._end()
        super().write_eof()

    def _end(self) -> None:
        # What was aborted before is no end any more.
        self.has_ended = self.has_ended or not self.transport.is_closing()

    def refuse(self, reason: str) -> None:
        """Send EOF at once; whoever writes is told why that is of no use."""
        self._refusal = reason
        self.write_eof()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """See asyncio.StreamWriter.

        Raises:
            LinkError: The peer takes nothing.
        """
        if self._refusal:
            raise LinkError(self._refusal)
        super().write(data)

    def writelines(self, data: Iterable[bytes | bytearray | memoryview]) -> None:
        """See `write`."""
        self.write(b"".join(data))

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return a fact about the hole, or what the socket pair knows."""
        return self._facts[name] if name in self._facts else super().get_extra_info(name, default)

    async def wait_closed(self) -> None:
        """Wait until the stream is over in both directions; of `connect`, also the link.

        Raises:
            LinkError: It was cut.
        """
        # That the socket pair broke says less than the end does.
        with contextlib.suppress(OSError, LinkError):
            await super().wait_closed()
        await self._stream_end.over.wait()
        if self._stream_end.error is not None:
            raise LinkError(*self._stream_end.error.args)
        if self.delivered is not None:
            await self.delivered()
