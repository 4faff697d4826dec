"""A stream of the link as asyncio's reader and writer.

    program                                               the far side
    reader, writer ══ socket pair ══ ProgramEnd ── Link ── hole ── ...

The socket pair makes it an ordinary stream of asyncio, with its backpressure
and its half-close, and an ordinary socket for the link.  A socket pair cannot
say that a stream was cut: it has no RST, and its other side would read an end
of file.  So an end that is aborted sets the reader's exception itself.  In the
other direction, an end of file from the program counts only if the program
has called `write_eof` or `close`.
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
    """Our half of a socket pair; the program's streams have the other one.

    Args:
        service: What the stream is for, or "".
    """

    def __init__(self, service: str = "") -> None:
        ours, self.theirs = socket.socketpair()
        super().__init__(ours)
        self.service = service
        # No descriptors are passed through it.
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
            # The program has aborted its transport, or dropped it: what was written may be missing.
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        return count

    def close(self) -> None:
        """See End."""
        super().close()
        self.over.set()

    def abort(self) -> None:
        """See End."""
        # First: the reader would take the closed socket for an end of file.
        self.fail("")
        self.close()

    def fail(self, reason: str) -> None:
        """Let the reader raise LinkError; a reason that comes later replaces the general one."""
        if self.error is None:
            self.error = LinkError(reason or words.STREAM_CUT)
            self.reader.set_exception(self.error)
        elif reason:
            self.error.args = (reason,)


class StreamProtocol(asyncio.StreamReaderProtocol):
    """Gives waiting calls, `drain` too, the error that the end knows instead of the socket pair's."""

    def __init__(self, end: ProgramEnd) -> None:
        super().__init__(end.reader)
        self._stream_end = end

    def eof_received(self) -> bool | None:
        """See asyncio.Protocol."""
        stays = super().eof_received()
        if not stays and self._stream_end.writer is not None:
            # asyncio closes the transport itself after the peer's end of file, as with TLS.
            self._stream_end.writer.has_ended = True
        return stays

    def connection_lost(self, error: Exception | None) -> None:
        """See asyncio.Protocol."""
        super().connection_lost(self._stream_end.error or error)


class Writer(asyncio.StreamWriter):
    """A StreamWriter that can wait until its stream is over at the far side too."""

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
        # Awaited by `wait_closed`, which raises what this raises.
        self.delivered: Callable[[], Awaitable[None]] | None = None
        # Why nothing can be written; "" while it can.
        self._refusal = ""
        # The program has called `write_eof` or `close`.
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
        # A transport that was aborted before has cut its stream, and `close` does not end it well.
        self.has_ended = self.has_ended or not self.transport.is_closing()

    def refuse(self, reason: str) -> None:
        """Send EOF at once; `write` raises LinkError with this reason from now on."""
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
        """Return a fact about the hole by its name, or what the transport has under that name."""
        return self._facts[name] if name in self._facts else super().get_extra_info(name, default)

    async def wait_closed(self) -> None:
        """Wait until the stream is over in both directions; with `connect`, until the link is over too.

        Raises:
            LinkError: The stream was cut.
        """
        # The end has a better reason than the socket pair.
        with contextlib.suppress(OSError, LinkError):
            await super().wait_closed()
        await self._stream_end.over.wait()
        if self._stream_end.error is not None:
            raise LinkError(*self._stream_end.error.args)
        if self.delivered is not None:
            await self.delivered()
