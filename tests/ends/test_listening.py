"""Places of -L are bound or refused with a reason, and nothing of them is left afterwards."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from punchtunnel.address import Place, UnixPlace
from punchtunnel.ends.listening import listen, listening
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


def test_stale_unix_socket_is_taken_over_but_a_live_one_is_not(tmp_path: Path) -> None:
    place = UnixPlace(str(tmp_path / "socket"))
    listen(place).close()
    with listen(place), pytest.raises(LocalError, match="in use"):
        listen(place)


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
