"""Places of -L are bound or refused with a reason, and nothing of them is left afterwards."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from punchtunnel.address import AnyPlace, Place, UnixPlace
from punchtunnel.ends import listening as listening_module
from punchtunnel.ends.listening import exposed, listen, listening
from punchtunnel.ends.sockets import ACCEPTED_INHERIT
from punchtunnel.errors import LocalError


def test_port_in_use_is_a_local_error() -> None:
    with listen(Place("127.0.0.1", 0)) as first, pytest.raises(LocalError, match="in use"):
        listen(Place("127.0.0.1", first.getsockname()[1]))


@pytest.mark.parametrize("host", ["fe80::1%nosuch", "fe80::1%a..b"])
def test_an_interface_that_is_not_there_is_a_local_error(host: str) -> None:
    with pytest.raises(LocalError):
        listen(Place(host, 0))


def test_listens_on_ipv6() -> None:
    with listen(Place("::1", 0)) as listener:
        assert listener.getsockname()[0] == "::1"


def without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.create_server

    def create_server(address: Any, *, family: int = socket.AF_INET, **options: Any) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
        return real(address, family=family, **options)

    monkeypatch.setattr(socket, "create_server", create_server)


@pytest.mark.parametrize("ipv6", [True, False])
def test_a_port_alone_listens_on_the_loopback_of_both_families(ipv6: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """`-L 2222` listened on 127.0.0.1 only, and `-L localhost:2222` on ::1 only."""
    if not ipv6:
        without_ipv6(monkeypatch)
    told: list[str] = []
    with listening([Place("localhost", 0)], told.append) as listeners:
        (port,) = {listener.getsockname()[1] for listener in listeners}
        assert told == [f"127.0.0.1:{port}", f"[::1]:{port}"][: 1 + ipv6]
        for host in ("127.0.0.1", "::1")[: 1 + ipv6]:
            socket.create_connection((host, port), 30).close()


@pytest.mark.parametrize("ipv6", [True, False])
def test_a_star_listens_on_every_address_of_both_families(ipv6: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not ipv6:
        without_ipv6(monkeypatch)
    told: list[str] = []
    with listening([Place("*", 0)], told.append) as listeners:
        (port,) = {listener.getsockname()[1] for listener in listeners}
        assert told == [f"0.0.0.0:{port}", f"[::]:{port}"][: 1 + ipv6]
        assert exposed(listeners) == told
        for host in ("127.0.0.1", "127.0.0.2", "::1")[: 2 + ipv6]:
            socket.create_connection((host, port), 30).close()


def test_loopback_and_unix_sockets_are_open_to_nobody_else(tmp_path: Path) -> None:
    places: list[AnyPlace] = [Place("localhost", 0), Place("127.0.0.9", 0), UnixPlace(str(tmp_path / "a"))]
    with listening(places, lambda _: None) as listeners:
        assert exposed(listeners) == []


def test_a_port_that_another_program_has_in_one_family_is_refused() -> None:
    with (
        listen(Place("::1", 0)) as other,
        pytest.raises(LocalError, match=r"listen on \[::1\]:\d+: Address already in use"),
        listening([Place("localhost", other.getsockname()[1])], lambda _: None),
    ):
        pass


def test_a_port_of_the_kernels_choice_is_free_in_both_families(monkeypatch: pytest.MonkeyPatch) -> None:
    with listen(Place("::1", 0)) as other:
        real, choices = listening_module.listen, [other.getsockname()[1]]

        def choose(place: Place) -> socket.socket:
            return real(Place(place.host, choices.pop())) if place.port == 0 and choices else real(place)

        monkeypatch.setattr(listening_module, "listen", choose)
        with listening([Place("localhost", 0)], lambda _: None) as listeners:
            assert len({listener.getsockname()[1] for listener in listeners} | {other.getsockname()[1]}) == 2


def test_stale_unix_socket_is_taken_over_but_a_live_one_is_not(tmp_path: Path) -> None:
    place = UnixPlace(str(tmp_path / "socket"))
    listen(place).close()
    with listen(place), pytest.raises(LocalError, match="in use"):
        listen(place)


def test_a_unix_socket_is_for_this_user_only_from_its_first_moment_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever could enter the folder could connect."""
    place, modes = tmp_path / "socket", list[int]()

    class Watched(socket.socket):
        def bind(self, address: Any) -> None:
            super().bind(address)
            modes.append(stat.S_IMODE(place.stat().st_mode))

    monkeypatch.setattr(socket, "socket", Watched)
    before = os.umask(0)
    try:
        with listen(UnixPlace(str(place))):
            modes.append(stat.S_IMODE(place.stat().st_mode))
    finally:
        os.umask(before)
    assert modes == [0o600, 0o600]


def test_of_many_starts_on_one_stale_socket_one_has_it(tmp_path: Path) -> None:
    """Each found it stale, and unlinked what another one had just put there: it listened where nobody could come."""
    place = UnixPlace(str(tmp_path / "socket"))

    def begin(start: threading.Barrier) -> socket.socket | str:
        start.wait()
        try:
            return listen(place)
        except LocalError as error:
            return str(error)

    for _ in range(20):
        listen(place).close()
        start = threading.Barrier(8)
        with ThreadPoolExecutor(8) as pool:
            begun = list(pool.map(begin, [start] * 8))
        assert sum("in use" in one for one in begun if isinstance(one, str)) == 7
        (winner,) = (one for one in begun if isinstance(one, socket.socket))
        with winner, socket.socket(socket.AF_UNIX) as client:
            client.connect(place.path)
            winner.accept()[0].close()


def test_a_folder_that_somebody_keeps_locked_is_a_local_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening_module, "LOCK_PATIENCE", 0.05)
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        with pytest.raises(LocalError, match="cannot listen"):
            listen(UnixPlace(str(tmp_path / "socket")))
    finally:
        os.close(fd)
    listen(UnixPlace(str(tmp_path / "socket"))).close()


def test_ordinary_file_is_not_removed_for_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(LocalError):
        listen(UnixPlace(str(path)))
    assert path.read_text() == "data"


@pytest.mark.skipif(not ACCEPTED_INHERIT, reason="each accepted socket is told itself")
def test_an_accepted_socket_has_what_its_listener_was_told() -> None:
    with listen(Place("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE)


def test_each_place_is_named_once_it_is_bound(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    told = list[str]()
    with listening([Place("127.0.0.1", 0), Place("::1", 0), UnixPlace(path)], told.append) as listeners:
        ports = [listener.getsockname()[1] for listener in listeners[:2]]
        assert told == [f"127.0.0.1:{ports[0]}", f"[::1]:{ports[1]}", f"unix:{path}"]


def test_nothing_is_left_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with listening([Place("127.0.0.1", 0), UnixPlace(str(path))], lambda _: None) as listeners:
        assert path.is_socket()
    assert [listener.fileno() for listener in listeners] == [-1, -1]
    assert not path.exists()


def test_one_place_that_cannot_be_bound_takes_back_those_before_it(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    told = list[str]()
    places = [UnixPlace(str(path)), UnixPlace(str(tmp_path / "nowhere" / "socket"))]
    with pytest.raises(LocalError), listening(places, told.append):
        pass
    assert told == [f"unix:{path}"]
    assert not path.exists()


def test_the_socket_of_another_process_in_our_place_stays(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as other:
        with listening([UnixPlace(str(path))], lambda _: None):
            # Ours stays alive under another name, so that its inode is not given away again.
            path.rename(tmp_path / "ours")
            other.bind(str(path))
        assert path.is_socket()
