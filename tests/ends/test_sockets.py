"""A connected socket as an end: EOF stays EOF, and an abort is a reset."""

from __future__ import annotations

import errno
import socket

import pytest

from punchtunnel.ends.sockets import SocketEnd, system_reason


def test_eof_is_passed_in_both_directions() -> None:
    ours, theirs = socket.socketpair()
    end = SocketEnd(ours)
    assert end.read_into(memoryview(bytearray(10))) is None
    assert end.write(memoryview(b"x")) == 1
    end.finish_writing()
    assert theirs.recv(10) == b"x"
    assert theirs.recv(10) == b""
    theirs.close()
    assert end.read_into(memoryview(bytearray(10))) == 0
    end.close()


def test_aborted_tcp_connection_is_reset() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
        with client:
            SocketEnd(accepted).abort()
            with pytest.raises(ConnectionResetError):
                client.recv(1)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.EADDRINUSE, "[Errno 98] error while attempting to bind"), "Address already in use"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "Name or service not known"),
        (TimeoutError("timed out"), "timed out"),
    ],
)
def test_an_error_is_told_in_the_words_of_the_system(error: OSError, told: str) -> None:
    assert system_reason(error) == told
