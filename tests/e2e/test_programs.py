"""curl, socat and ncat: as clients, and as what a target leads to."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess

import pytest

from .ends import COMMAND, PIPE, Lab
from .flows import MIB, Collector, Flow, echo, noise, receive
from .programs import needs, run, socat_server, wait_for_line, web_server


def test_curl_fetches_50_mb_from_a_web_server(lab: Lab) -> None:
    needs("curl")
    (lab.folder / "large").write_bytes(noise(50 * MIB))
    left, _ = lab.tunnel(web_server(lab, lab.folder))
    body = run("curl", "-sS", "--fail", f"http://127.0.0.1:{left.port}/large")
    assert hashlib.sha256(body).digest() == hashlib.sha256(noise(50 * MIB)).digest()


def test_curl_fetches_ten_files_at_once(lab: Lab) -> None:
    needs("curl")
    shared = lab.folder / "shared"
    shared.mkdir()
    for number in range(10):
        (shared / str(number)).write_bytes(noise(5 * MIB, number))
    left, _ = lab.tunnel(web_server(lab, shared))
    url = f"http://127.0.0.1:{left.port}/[0-9]"
    run("curl", "-sS", "--fail", "--parallel", "--parallel-immediate", url, "-o", f"{lab.folder}/got #1")
    for number in range(10):
        assert (lab.folder / f"got {number}").read_bytes() == noise(5 * MIB, number)


def test_curl_is_told_that_nothing_listens_at_the_target(lab: Lab) -> None:
    needs("curl")
    left, _ = lab.tunnel(1)
    url = f"http://127.0.0.1:{left.port}/"
    done = subprocess.run(["curl", "-sS", url], capture_output=True, timeout=60, check=False)
    # 7, 52, 56: RST while connecting, sending or receiving.  No hang, and no EOF.
    assert done.returncode in (7, 52, 56)


def test_curl_by_unix_socket(lab: Lab) -> None:
    needs("curl")
    (lab.folder / "page").write_bytes(b"a page")
    path = lab.folder / "socket"
    lab.tunnel(web_server(lab, lab.folder), f"unix:{path}")
    assert run("curl", "-sS", "--fail", "--unix-socket", str(path), "http://home/page") == b"a page"


def test_socat_as_client_half_closes_and_gets_everything_back(lab: Lab) -> None:
    needs("socat")
    left, _ = lab.tunnel(lab.serve(echo))
    data = noise(5 * MIB)
    assert run("socat", "-t", "30", "-", f"TCP:127.0.0.1:{left.port}", data=data) == data


def test_socat_as_target_runs_a_command_that_answers_behind_the_eof(lab: Lab) -> None:
    needs("socat", "sha256sum")
    left, _ = lab.tunnel(socat_server(lab, "SYSTEM:sha256sum"))
    data = noise(5 * MIB)
    answer = run("socat", "-t", "30", "-", f"TCP:127.0.0.1:{left.port}", data=data)
    assert answer.decode().split()[0] == hashlib.sha256(data).hexdigest()


def test_socat_joins_the_stdio_of_an_end_to_something_else(lab: Lab) -> None:
    """`EXEC` gives it a socket as stdin and stdout, `EXEC,pty` a terminal."""
    needs("socat")
    port = lab.serve(echo)
    lab.start_right("--to", str(port))
    command = " ".join([*COMMAND, *lab.towards_right, "--stdio"])
    data = noise(MIB)
    assert run("socat", "-t", "30", "-", f"EXEC:{command}", data=data) == data


def test_ncat_as_client_half_closes_and_gets_everything_back(lab: Lab) -> None:
    needs("ncat")
    left, _ = lab.tunnel(lab.serve(echo))
    data = noise(5 * MIB)
    assert run("ncat", "127.0.0.1", str(left.port), data=data) == data


def test_ncat_without_shutdown_is_ended_by_the_server(lab: Lab) -> None:
    """The server knows by itself when it has everything, and closes first."""
    needs("ncat")
    data = noise(MIB)

    def answer(sock: socket.socket) -> None:
        assert receive(sock, len(data)) == data
        sock.sendall(b"got it")

    left, _ = lab.tunnel(lab.serve(answer))
    assert run("ncat", "--no-shutdown", "127.0.0.1", str(left.port), data=data) == b"got it"


@pytest.mark.parametrize("option", ["--send-only", "--recv-only"])
def test_ncat_one_way(lab: Lab, option: str) -> None:
    needs("ncat")
    received: list[bytes] = []

    def handle(sock: socket.socket) -> None:
        if option == "--send-only":
            received.append(receive(sock))
        else:
            sock.sendall(noise(MIB))

    left, _ = lab.tunnel(lab.serve(handle))
    out = run("ncat", option, "127.0.0.1", str(left.port), data=noise(MIB) if option == "--send-only" else b"")
    left.wait_for("stream_closed")
    lab.close_servers()
    assert (received, out) == (([noise(MIB)], b"") if option == "--send-only" else ([], noise(MIB)))


def test_ncat_as_target_takes_a_file_and_gives_a_file(lab: Lab) -> None:
    """One way each: ncat -e loses the end of large answers, also without a tunnel."""
    needs("ncat")
    data = noise(5 * MIB)
    path = lab.folder / "socket"
    taking = lab.program("ncat", "-v", "-l", "-U", str(path), "--recv-only", stdout=PIPE, stderr=PIPE)
    wait_for_line(taking, "Listening on")
    left, _ = lab.tunnel(f"unix:{path}")
    taken = Collector(os.dup(taking.stdout.fileno() if taking.stdout else -1))
    run("ncat", "--send-only", "127.0.0.1", str(left.port), data=data)
    assert taking.wait(30) == 0
    assert taking.stdout is not None
    taking.stdout.close()
    assert taken.whole() == data
    path.unlink()
    giving = lab.program("ncat", "-v", "-l", "-U", str(path), "--send-only", stdin=PIPE, stderr=PIPE)
    wait_for_line(giving, "Listening on")
    assert giving.stdin is not None
    flow = Flow(os.dup(giving.stdin.fileno()), [data])
    giving.stdin.close()
    flow.start()
    assert run("ncat", "--recv-only", "127.0.0.1", str(left.port)) == data
    flow.join(30)


def test_tar_from_machine_to_machine(lab: Lab) -> None:
    """What the README shows: two commands, two pipes."""
    needs("tar")
    source, there = lab.folder / "source", lab.folder / "there"
    source.mkdir()
    there.mkdir()
    for number in range(50):
        (source / str(number)).write_bytes(noise(100_000, number))
    packer = lab.program("tar", "-C", str(source), "-c", ".", stdout=PIPE)
    left = lab.start_left(stdin=packer.stdout)
    right = lab.start_right("-n")
    unpacker = lab.program("tar", "-C", str(there), "-x", stdin=right.process.stdout)
    assert (left.status(), right.status()) == (0, 0)
    assert (packer.wait(30), unpacker.wait(30)) == (0, 0)
    assert not run("diff", "-r", str(source), str(there))
