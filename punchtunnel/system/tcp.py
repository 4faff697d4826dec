"""What the kernel's TCP is asked for beyond connect, send and receive.

Each function uses an option where the system has it.  Elsewhere it does
nothing, or returns that the answer is not known, and its callers do without.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from punchtunnel.address import join_host_port

# linux/in.h; Python's socket module does not name it.
_IP_MINTTL = 21
_IPV6_MINHOPCOUNT = 73
_IPV6_ADDR_PREFERENCES, _PREFER_SRC_PUBLIC = 72, 2
_TCP_RTO_MAX_MS = 44
_IP_MTU_DISCOVER, _IP_PMTUDISC_DONT = 10, 0
# linux/tcp.h: struct tcp_info begins with the state and has the smoothed round
# trip, in microseconds, at this offset.
_TCP_INFO_SIZE = 104
_TCP_INFO_RTT = 68
# In the same structure: how often the SYN was to be sent again, and how many of
# those copies have left this machine and are not acknowledged.
_TCP_INFO_RETRANSMITS = 2
_TCP_INFO_RETRANS = 36
# In the same structure: options in use, the segment size, and milliseconds since
# anything came from the peer's kernel.
_TCP_INFO_OPTIONS = 5
_TCP_INFO_SND_MSS = 16
_TCP_INFO_LAST_ACK_RECV = 56
_TIMESTAMPS = 1
_WINDOW_SCALING = 4
_TIMESTAMPS_SIZE = 12
# Of IP and TCP, without options.
_IPV4_HEADERS, _IPV6_HEADERS = 40, 60
# In the same structure since Linux 4.9: bytes acknowledged, segments received, segments
# with data sent, and the bytes a second that arrived lately.
_TCP_INFO_PROGRESS_SIZE = 168
_TCP_INFO_BYTES_ACKED = 120
_TCP_INFO_SEGMENTS_IN = 140
_TCP_INFO_DATA_SEGMENTS_OUT = 156
_TCP_INFO_DELIVERY_RATE = 160
# In the same structure since Linux 5.4: the peer's receive window.
_TCP_INFO_WINDOW_SIZE = 232
_TCP_INFO_SND_WND = 228
# Bytes.  Without scaling every fresh connection has a larger window: as much as fits into
# the 16 bits of the header, or half of the smallest buffer that anybody gives a socket.
_NARROW = 4096
# asm-generic/socket.h; Python's socket module does not name it.
_SO_MAX_PACING_RATE = 47
# All bits set: no limit.
_NO_RATE_LIMIT = struct.pack("@l", -1)
# linux/tcp_states.h
SYN_SENT = 2
# Routers quote an expired packet with the TTL that was left of it: 1 or 0.
_SMALLEST_TTL = 2
# Not `sock.family`, which makes an enum of the number each time: half a microsecond,
# several times for each new connection.
_family: Callable[[socket.socket], int] = socket.SocketType.family.__get__
# SO_LINGER on, 0 s.
_LINGER_RESET = struct.pack("ii", 1, 0)


def name_of(sockaddr: Sequence[object]) -> str:
    """Return `host:port` of an address that getsockname, getpeername or accept has returned."""
    return join_host_port(str(sockaddr[0]), int(str(sockaddr[1])))


def is_unix(sock: socket.socket) -> bool:
    """Tell whether a stream socket is a Unix one, and not TCP."""
    return _family(sock) == socket.AF_UNIX


def abort(sock: socket.socket) -> None:
    """Close with RST alone: the program at the other side reads an error, and not EOF."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
    sock.close()


def close_with_reset(sock: socket.socket) -> None:
    """Close with FIN and RST, so that the same ports can be dialled again at once.

    The RST is for the two hosts: no TIME_WAIT blocks the ports for a minute.
    The FIN is for Linux routers on the way: an entry that was closed by RST
    alone refuses the peer's SYN for ten seconds more, and each further SYN of
    ours prolongs that (nf_conntrack_proto_tcp.c: a SYN replaces a closed entry
    only if IP_CT_TCP_FLAG_CLOSE_INIT is set, which a FIN sets).
    """
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_WR)
    abort(sock)


def share_port(sock: socket.socket) -> None:
    """Let other sockets of this user bind the same port, if they set this option too."""
    if hasattr(socket, "SO_REUSEPORT"):
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def send_at_once(sock: socket.socket) -> None:
    """Switch Nagle's algorithm off: small segments leave at once."""
    _set(sock, socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def acknowledge_at_once(sock: socket.socket) -> None:
    """Acknowledge what has come, and what comes next, without a delay, on Linux; it soon goes back to its own rule."""
    _set_tcp(sock, "TCP_QUICKACK", 1)


def keep_urgent_bytes(sock: socket.socket) -> None:
    """Leave the byte that is marked as urgent in its place among the others (RFC 6093 §6)."""
    _set(sock, socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)


def prefer_lasting_source(sock: socket.socket) -> None:
    """Send from an address that stays, where the system makes temporary ones too (RFC 5014, RFC 8981), on Linux."""
    if sys.platform == "linux" and _family(sock) == socket.AF_INET6:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_ADDR_PREFERENCES, _PREFER_SRC_PUBLIC)


def use_interface(sock: socket.socket, name: str) -> None:
    """Let what is sent leave by an interface, and nothing in that comes by another one, whatever the routes say.

    On Linux; since 5.7 without privileges.

    Raises:
        OSError: There is no such interface, or that is not allowed.
    """
    option = getattr(socket, "SO_BINDTODEVICE", None)
    if option is not None:
        sock.setsockopt(socket.SOL_SOCKET, option, name.encode())


def limit_segments(sock: socket.socket, size: int) -> None:
    """Exchange segments of at most `size` bytes, options included, in both directions.

    Has an effect before `connect` and `listen` only: the number goes into the SYN,
    so that the peer's kernel obeys it too.
    """
    _set_tcp(sock, "TCP_MAXSEG", size)


def let_fragment(sock: socket.socket) -> None:
    """Let routers cut packets that are too long for them, on Linux with IPv4: the kernel sends no DF from now on."""
    if sys.platform == "linux" and _family(sock) == socket.AF_INET:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_DONT)


def limit_silence(sock: socket.socket, seconds: float) -> None:
    """End the connection when sent bytes are not acknowledged for so long."""
    _set_tcp(sock, "TCP_USER_TIMEOUT", int(seconds * 1000))


def retry_within(sock: socket.socket, seconds: float) -> None:
    """Send again what is not acknowledged at least so often, on Linux 6.15 and later; usually it is two minutes."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, _TCP_RTO_MAX_MS, int(seconds * 1000))


def keep_alive(sock: socket.socket, idle: int, interval: int, count: int) -> None:
    """End the connection when its other side has vanished without a word.

    Args:
        sock: A connection, or a listener, whose connections inherit it on Linux.
        idle: Seconds without a segment before the first probe.
        interval: Seconds between probes that are not answered.
        count: So many of them end the connection.
    """
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    _set_tcp(sock, "TCP_KEEPIDLE", idle)
    _set_tcp(sock, "TCP_KEEPINTVL", interval)
    _set_tcp(sock, "TCP_KEEPCNT", count)


def limit_unsent(sock: socket.socket, size: int) -> None:
    """Make the socket unwritable while `size` bytes wait unsent in the kernel."""
    _set_tcp(sock, "TCP_NOTSENT_LOWAT", size)


def wait_for_bytes(sock: socket.socket, size: int) -> None:
    """Make the socket readable only once it holds `size` bytes, or EOF; a read takes fewer all the same.

    On Linux only: it looks again when the number is lowered, other systems may not.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)


def open_receive_window(sock: socket.socket, size: int) -> None:
    """Advertise a window of `size` bytes from the start, on Linux; at most half of tcp_rmem's last number.

    The kernel's own measurement widens the window one round trip late.  A
    socket that asks to be readable only with so many bytes gets the room for
    them (tcp_set_rcvlowat) and keeps it; SO_RCVBUF would be a limit for ever.
    """
    wait_for_bytes(sock, size)
    wait_for_bytes(sock, 1)


def time_to_live(sock: socket.socket) -> int:
    """Return the TTL or hop limit of the packets that are sent."""
    return sock.getsockopt(*_ttl_option(sock))


def set_time_to_live(sock: socket.socket, ttl: int) -> None:
    """Set the TTL or hop limit of the packets that are sent from now on."""
    sock.setsockopt(*_ttl_option(sock), ttl)


def ignore_expiry(sock: socket.socket, ignore: bool) -> bool:
    """Make the kernel ignore ICMP time-exceeded for this socket, on Linux.

    Both families have a minimum TTL for the packets of a socket (RFC 5082).
    `tcp_v4_err` compares it with the packet that the ICMP error quotes, so a
    small minimum ignores exactly the packets that have expired.  `tcp_v6_err`
    compares it with the ICMP packet itself, so only the largest minimum helps,
    and the socket then ignores every packet.

    Returns:
        Whether the socket ignores every packet until this is undone.
    """
    if sys.platform != "linux":
        return False
    # A sandbox may lack both options: its connections in the making then fail sooner.
    with contextlib.suppress(OSError):
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MINHOPCOUNT, 255 if ignore else 0)
            return ignore
        sock.setsockopt(socket.IPPROTO_IP, _IP_MINTTL, _SMALLEST_TTL if ignore else 0)
    return False


def state(sock: socket.socket) -> int:
    """Return the connection's state as linux/tcp_states.h numbers it; 0 where that is not known."""
    if sys.platform != "linux":
        return 0
    with contextlib.suppress(OSError):
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    return 0


def is_stopped_here(sock: socket.socket) -> bool:
    """Tell whether the SYNs of a connect() do not leave this machine, which its second SYN shows."""
    if sys.platform != "linux":
        return False
    with contextlib.suppress(OSError):
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
        (under_way,) = struct.unpack_from("=I", info, _TCP_INFO_RETRANS)
        return info[0] == SYN_SENT and info[_TCP_INFO_RETRANSMITS] > 0 and not under_way
    return False


def round_trip(sock: socket.socket) -> float:
    """Return the kernel's estimate of the round trip in seconds; 0.0 where it has none."""
    if sys.platform != "linux":
        return 0.0
    with contextlib.suppress(OSError):
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
        (microseconds,) = struct.unpack_from("=I", info, _TCP_INFO_RTT)
        return float(microseconds) / 1e6
    return 0.0


def narrow_window(sock: socket.socket) -> int:
    """Return the peer's receive window in bytes if that peer does not know how small it is, 0 otherwise.

    A Linux that offers to scale windows, and gets in SYN_SENT a bare SYN that
    does not, answers without a look at that (tcp_rcv_synsent_state_process):
    from then on it announces its window divided by 128 or 1024, and this side,
    which does not multiply, may send 502 or 63 bytes at a time.  Each of them
    waits 0.2 s for a window that is worth a segment, and never comes.

    Known as soon as anything of the peer has come after its SYN.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_WINDOW_SIZE)
            if len(info) == _TCP_INFO_WINDOW_SIZE and not info[_TCP_INFO_OPTIONS] & _WINDOW_SCALING:
                (window,) = struct.unpack_from("=I", info, _TCP_INFO_SND_WND)
                return int(window) if window < _NARROW else 0
    return 0


@dataclass(frozen=True, slots=True)
class Progress:
    """What the kernel has measured of a connection.

    Attributes:
        round_trip: Seconds, smoothed over the last segments.
        rate: Bytes a second that arrived lately, and that were not sent faster
            (tcp_rate.c); of a sender that pauses, the rate of its best burst.
        samples: `round_trip` has at most so many measurements in it.
    """

    round_trip: float
    rate: float
    samples: int


def progress(sock: socket.socket) -> Progress | None:
    """Return what the kernel has measured of a connection; None where it does not tell."""
    if sys.platform != "linux":
        return None
    with contextlib.suppress(OSError):
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_PROGRESS_SIZE)
        if len(info) == _TCP_INFO_PROGRESS_SIZE:
            (microseconds,) = struct.unpack_from("=I", info, _TCP_INFO_RTT)
            (came,) = struct.unpack_from("=I", info, _TCP_INFO_SEGMENTS_IN)
            (went,) = struct.unpack_from("=I", info, _TCP_INFO_DATA_SEGMENTS_OUT)
            (rate,) = struct.unpack_from("=Q", info, _TCP_INFO_DELIVERY_RATE)
            return Progress(microseconds / 1e6, float(rate), min(came, went))
    return None


@dataclass(frozen=True, slots=True)
class Delivery:
    """What the kernel knows of a connection whose segments do not arrive.

    Attributes:
        repeats: How often in a row the oldest segment has been sent again.
        silent_s: Seconds since the peer's kernel was heard; acknowledgments count.
        packet_size: Bytes of a full packet, from its IP header on.
        acknowledged: Bytes that the peer's kernel has acknowledged in all.
    """

    repeats: int
    silent_s: float
    packet_size: int
    acknowledged: int


def delivery(sock: socket.socket) -> Delivery | None:
    """Return what the kernel knows of what does not arrive; None where it does not tell."""
    if sys.platform != "linux":
        return None
    with contextlib.suppress(OSError):
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_PROGRESS_SIZE)
        if len(info) < _TCP_INFO_PROGRESS_SIZE:
            return None
        (acknowledged,) = struct.unpack_from("=Q", info, _TCP_INFO_BYTES_ACKED)
        (segment,) = struct.unpack_from("=I", info, _TCP_INFO_SND_MSS)
        (silent_ms,) = struct.unpack_from("=I", info, _TCP_INFO_LAST_ACK_RECV)
        headers = _IPV6_HEADERS if _family(sock) == socket.AF_INET6 else _IPV4_HEADERS
        options = _TIMESTAMPS_SIZE if info[_TCP_INFO_OPTIONS] & _TIMESTAMPS else 0
        return Delivery(info[_TCP_INFO_RETRANSMITS], silent_ms / 1000, segment + options + headers, acknowledged)
    return None


def limit_rate(sock: socket.socket, rate: float | None) -> None:
    """Send at most `rate` bytes a second, on Linux; None: as many as the congestion control allows.

    From then on TCP spaces its segments evenly, even without a limit.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            # At most what fits into an unsigned long of 32 bits.
            value = _NO_RATE_LIMIT if rate is None else struct.pack("@L", min(int(rate), 2**31))
            sock.setsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, value)


def _set(sock: socket.socket, level: int, option: int, value: int) -> None:
    """Set an option that the system may refuse.  contextlib.suppress() would cost more than the call itself."""
    try:
        sock.setsockopt(level, option, value)
    except OSError:
        return


def _set_tcp(sock: socket.socket, name: str, value: int) -> None:
    option = getattr(socket, name, None)
    if option is not None:
        _set(sock, socket.IPPROTO_TCP, option, value)


def _ttl_option(sock: socket.socket) -> tuple[int, int]:
    if sock.family == socket.AF_INET6:
        return socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS
    return socket.IPPROTO_IP, socket.IP_TTL
