"""The listening sockets of -L: bound before the punch begins, and cleaned up at the end."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import ipaddress
import os
import socket
import stat
import time
from collections.abc import Callable, Iterable, Iterator

from punchtunnel import words
from punchtunnel.address import EVERYWHERE, LOCALHOST, AnyPlace, Place, UnixPlace
from punchtunnel.ends.sockets import notice_absence, system_reason, tune
from punchtunnel.errors import LocalError
from punchtunnel.system.tcp import name_of

# Seconds for the lock of a folder, which others hold for a millisecond, and between two tries to get it.
LOCK_PATIENCE = 3.0
LOCK_RETRY = 0.01
# Ports of the kernel's choice that are tried in the second family.
BOTH_TRIES = 10
# Hosts that mean one address of each family.
_PAIRS = {LOCALHOST: ("127.0.0.1", "::1"), EVERYWHERE: ("0.0.0.0", "::")}
_NO_IPV6 = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT}


@contextlib.contextmanager
def listening(places: Iterable[AnyPlace], told: Callable[[str], None]) -> Iterator[list[socket.socket]]:
    """Listen on every place of -L; close the sockets at the end, and remove the Unix sockets' files.

    Args:
        places: Where to listen.
        told: Called with the name of each place as soon as it is bound; port 0 has become a number in it.

    Raises:
        LocalError: A port is taken, or an address is not this machine's.
    """
    with contextlib.ExitStack() as stack:
        listeners = []
        for place in places:
            if isinstance(place, UnixPlace):
                listeners.append(stack.enter_context(listen(place)))
                stack.callback(_unlink, place.path, _identity(place.path))
                told(str(place))
                continue
            pair = _PAIRS.get(place.host)
            for listener in _listen_on_both(*pair, place.port) if pair else [listen(place)]:
                listeners.append(stack.enter_context(listener))
                told(name_of(listener.getsockname()))
        yield listeners


def listen(place: AnyPlace) -> socket.socket:
    """Bind and listen; a name is resolved, and its first address taken.

    Raises:
        LocalError: The port is taken, or the address is not this machine's.
    """
    try:
        if isinstance(place, UnixPlace):
            return _listen_unix(place.path)
        infos = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, sockaddr = infos[0]
        listener = socket.create_server(sockaddr, family=family, backlog=socket.SOMAXCONN)
        # Accepted sockets inherit it (sockets.ACCEPTED_INHERIT).
        tune(listener)
        notice_absence(listener)
        return listener
    except UnicodeError as error:
        # A "%" followed by a name that no interface can have.
        raise LocalError(words.not_our_address(str(place))) from error
    except OSError as error:
        reason = OSError(error.errno, system_reason(error))
        raise LocalError(words.cannot(words.listen_on(str(place)), reason)) from error


def exposed(listeners: Iterable[socket.socket]) -> list[str]:
    """Return the names of the listeners that other machines can connect to."""
    places = [one.getsockname() for one in listeners if one.family != socket.AF_UNIX]
    return [name_of(place) for place in places if not ipaddress.ip_address(place[0]).is_loopback]


def _listen_on_both(ipv4: str, ipv6: str, port: int) -> list[socket.socket]:
    """Listen on one address of each family, as ssh does, or of IPv4 alone where the machine has no IPv6.

    One of the two in another program's hands is an error: its clients and ours would get each other's server.

    Raises:
        LocalError: The port is taken in one of the families.
    """
    for more in reversed(range(BOTH_TRIES)):
        first = listen(Place(ipv4, port))
        second = Place(ipv6, first.getsockname()[1])
        try:
            return [first, listen(second)]
        except LocalError as error:
            cause = error.__cause__
            if isinstance(cause, OSError) and cause.errno in _NO_IPV6:
                return [first]
            first.close()
            # Another program may have the port that the kernel has chosen in the first family.
            if port or not more:
                raise
    raise AssertionError


def _listen_unix(path: str) -> socket.socket:
    """Listen on a Unix socket that only this user can connect to; a stale one of an earlier process is replaced."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Before bind(), which gives the file the mode that the socket has (Linux): there is no
        # moment at which others could connect.
        os.fchmod(sock.fileno(), 0o600)
        # Until it listens, a socket looks as a stale one does.
        with _alone_in(os.path.dirname(path) or "."):
            try:
                sock.bind(path)
            except OSError as error:
                if error.errno != errno.EADDRINUSE or not _is_stale(path):
                    raise
                os.unlink(path)
                sock.bind(path)
            sock.listen(socket.SOMAXCONN)
    except OSError:
        sock.close()
        raise
    return sock


@contextlib.contextmanager
def _alone_in(folder: str) -> Iterator[None]:
    """Keep other processes from taking over a stale socket in the same folder meanwhile.

    The folder itself is locked: a lock file would stay behind, or be unlinked while another process waits for it.

    Raises:
        OSError: The folder cannot be opened, or is locked for longer than LOCK_PATIENCE.
    """
    deadline = time.monotonic() + LOCK_PATIENCE
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                # Whoever can open the folder can lock it, so nobody is waited for without end.
                if time.monotonic() >= deadline:
                    raise
                time.sleep(LOCK_RETRY)
        yield
    finally:
        os.close(fd)


def _is_stale(path: str) -> bool:
    """Tell whether `path` is a socket that no process listens on.

    A file that is no socket refuses connections too, and is not ours to remove.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        return stat.S_ISSOCK(os.stat(path).st_mode) and probe.connect_ex(path) == errno.ECONNREFUSED


def _identity(path: str) -> tuple[int, int]:
    info = os.lstat(path)
    return info.st_dev, info.st_ino


def _unlink(path: str, ours: tuple[int, int]) -> None:
    """Remove our socket, unless another process has put its own in that place."""
    with contextlib.suppress(OSError):
        if _identity(path) == ours:
            os.unlink(path)
