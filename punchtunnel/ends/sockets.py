"""An end that is a connected stream socket: a local client of -L, or a connection to the target of --to."""

from __future__ import annotations

import os
import socket
import sys

from punchtunnel.system import tcp

# Linux copies the options of a listener to the sockets it accepts: two system calls less for each.
ACCEPTED_INHERIT = sys.platform == "linux"
# So many sockets of a link may use what the kernel gives them, which is 4 MiB each for a
# reader that takes nothing.  Of each further one so many bytes may wait unsent.  With a
# limit on all, a single fast stream cost a tenth more processor time (measured).
ROOMY = 16
UNSENT = 128 * 1024
# A client or a target that has vanished (no power, no route) is known to be gone after
# 105 s of silence, and else after the 93 s that its kernel's retries take then.
KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_COUNT = 45, 12, 5
LONGEST_RETRY = 8.0

# Only Linux has it.
_MORE = getattr(socket, "MSG_MORE", 0)


class SocketEnd:
    """A connected stream socket; owns it.

    Args:
        sock: The socket.
        tuned: It was accepted from a listener that `tune` has seen, and has inherited its options.
        others: How many streams the link has already.
    """

    finishes_late = False

    def __init__(self, sock: socket.socket, *, tuned: bool = False, others: int = 0) -> None:
        if sock.gettimeout() != 0:
            sock.setblocking(False)
        is_tcp = not tcp.is_unix(sock)
        # A read of a Unix socket stops short of a message that carries descriptors.
        self.short_is_dry = is_tcp
        if is_tcp and not tuned:
            tune(sock)
        if others >= ROOMY and is_tcp:
            tcp.limit_unsent(sock, UNSENT)
        self._sock = sock
        # Plain attributes, not properties: the link reads them all the time. They stay valid only until `close`.
        self.source_fd = self.sink_fd = self.spliced_source = self.spliced_sink = sock.fileno()

    def is_at_hand(self, limit: int) -> bool:
        """See End; nothing of a socket blocks."""
        return True

    def read_into(self, view: memoryview) -> int | None:
        """See End."""
        try:
            return self._sock.recv_into(view)
        except BlockingIOError:
            return None

    def write(self, data: memoryview) -> int:
        """See End."""
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0

    def write_last(self, data: memoryview) -> int:
        """See End; the FIN goes in the same segment, which wakes the reader once."""
        try:
            return self._sock.send(data, _MORE)
        except BlockingIOError:
            return 0

    def finish_writing(self) -> bool:
        """See End."""
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            # The program may be gone already; the next read tells.
            return True
        return True

    def failure(self) -> OSError | None:
        """See End."""
        code = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return OSError(code, os.strerror(code)) if code else None

    def close(self) -> None:
        """See End."""
        self._sock.close()

    def abort(self) -> None:
        """See End."""
        tcp.abort(self._sock)


def tune(sock: socket.socket) -> None:
    """Set what every TCP socket of an end has: small segments leave at once, urgent bytes stay in their place."""
    tcp.send_at_once(sock)
    tcp.keep_urgent_bytes(sock)


def notice_absence(sock: socket.socket) -> None:
    """Let a TCP connection end within two minutes after its other side has vanished, idle or not."""
    tcp.keep_alive(sock, KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_COUNT)
    tcp.retry_within(sock, LONGEST_RETRY)


def system_reason(error: OSError) -> str:
    """Return an error in the system's own words; asyncio and socket put other ones into `strerror`."""
    if isinstance(error, socket.gaierror) or not error.errno:
        return error.strerror or str(error)
    return os.strerror(error.errno)
