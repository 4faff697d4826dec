"""The sockets on the ports of this machine; `--doctor` tries them by the same functions.

A port can have a listener and a dial at one time, and with several addresses
of a peer several dials.  For that every socket on it needs SO_REUSEADDR, and
SO_REUSEPORT as far as the system has it.
"""

from __future__ import annotations

import errno
import os
import socket

from punchtunnel.system import tcp

# Routers answer with RST or not at all; a listener's queue never needs more.
BACKLOG = 16
# Bytes of a segment, options included: what the smallest MTU that IPv6 allows has room
# for (RFC 8200 §5: 1280, less 40 and 20 of headers).  Where a router drops longer packets
# without telling (an MTU black hole), a hole would open and carry nothing.  QUIC begins with
# packets of 1200 bytes for that reason (RFC 9000 §14.1).
LONGEST_SEGMENT = 1220


def listening_socket(
    family: socket.AddressFamily, host: str | None, port: int, *, shared: bool, interface: str = ""
) -> socket.socket:
    """Return a socket that listens on a port of ours.

    Args:
        family: AF_INET or AF_INET6.
        host: Literal address of this machine, or None for any.
        port: Its number.
        shared: Dials of this process may have the port too.
        interface: The only one that is listened on; "" is any.

    Raises:
        OSError: The port is taken, or `host` is not an address of this machine.
    """
    sock = _new_socket(family)
    try:
        if interface:
            tcp.use_interface(sock, interface)
        if shared:
            tcp.limit_segments(sock, LONGEST_SEGMENT)
        sock.bind(sockaddr(family, host, port))
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    if shared:
        # Not before: bound with the option, the port could be had by a process of another user as well.
        tcp.share_port(sock)
    return sock


def dialling_socket(
    family: socket.AddressFamily, host: str | None, port: int, *, local: bool = False, interface: str = ""
) -> socket.socket:
    """Return a socket that dials from a port of ours, which other sockets of this user may have too.

    Args:
        family: AF_INET or AF_INET6.
        host: Literal address of this machine, or None for any.
        port: Its number.
        local: It dials this machine: no router is on the way.
        interface: The only one that it leaves by; "" is any.

    Raises:
        OSError: As `listening_socket`.
    """
    sock = _new_socket(family)
    try:
        if interface:
            tcp.use_interface(sock, interface)
        tcp.share_port(sock)
        if not local:
            tcp.limit_segments(sock, LONGEST_SEGMENT)
        sock.bind(sockaddr(family, host, port))
    except OSError:
        sock.close()
        raise
    return sock


def sockaddr(family: socket.AddressFamily, host: str | None, port: int) -> tuple[str, int] | tuple[str, int, int, int]:
    """Return what `bind` takes.

    Raises:
        OSError: The interface that `host` names is gone.
    """
    host, _, interface = (host or ("::" if family == socket.AF_INET6 else "0.0.0.0")).partition("%")
    if not interface:
        return (host, port)
    if interface.isascii() and interface.isdecimal():
        return (host, port, 0, int(interface))
    try:
        return (host, port, 0, socket.if_nametoindex(interface))
    except OSError as error:
        raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL)) from error


def _new_socket(family: socket.AddressFamily) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        # The peer was given that one, and its firewall expects what it was given.
        tcp.prefer_lasting_source(sock)
    return sock
