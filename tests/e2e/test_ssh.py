"""OpenSSH through the hole: as ProxyCommand, and through a local port."""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
from pathlib import Path

import pytest

from .conftest import on_one_path
from .ends import DEVNULL, PIPE, Lab, environment
from .flows import MIB, digest, noise
from .programs import SshServer, needs, proxy, run


def random_file(path: Path, size: int) -> Path:
    path.write_bytes(os.urandom(size))
    return path


def test_ssh_through_a_port_runs_a_command_and_returns_its_status(lab: Lab) -> None:
    server = SshServer(lab)
    left, _ = lab.tunnel(server.port)
    command = server.ssh("-p", str(left.port), "127.0.0.1")
    assert run(*command, "tr a-z A-Z; echo done", data=b"words\n") == b"WORDS\ndone\n"
    assert lab.program(*command, "exit 7").wait(60) == 7


def test_100_mb_go_through_a_port_by_scp_and_come_back_by_sftp(lab: Lab) -> None:
    server = SshServer(lab)
    left, _ = lab.tunnel(server.port)
    source = random_file(lab.folder / "source", 100 * MIB)
    there, back = lab.folder / "there", lab.folder / "back"
    run("scp", *server.options, "-P", str(left.port), str(source), f"127.0.0.1:{there}")
    assert digest(there) == digest(source)
    batch = f"get {there} {back}\n".encode()
    run("sftp", *server.options, "-P", str(left.port), "-b", "-", "127.0.0.1", data=batch)
    assert digest(back) == digest(source)


def test_three_sessions_at_once_through_one_port(lab: Lab) -> None:
    server = SshServer(lab)
    left, _ = lab.tunnel(server.port)
    sessions = []
    for number in range(3):
        path = lab.folder / str(number)
        path.write_bytes(noise(20 * MIB, number))
        with path.open("rb") as stdin, path.with_suffix(".back").open("wb") as stdout:
            command = server.ssh("-p", str(left.port), "127.0.0.1", "cat")
            sessions.append(lab.program(*command, stdin=stdin, stdout=stdout))
    assert [session.wait(60) for session in sessions] == [0, 0, 0]
    for number in range(3):
        assert (lab.folder / f"{number}.back").read_bytes() == noise(20 * MIB, number)


def test_ssh_by_proxy_command_runs_a_command_and_returns_its_status(lab: Lab) -> None:
    server = SshServer(lab)
    lab.start_right("-k", "--to", str(server.port))
    command = server.ssh("-o", proxy(lab), "home")
    # One session behind the other, served by the same far end.
    assert run(*command, "tr a-z A-Z", data=b"words\n") == b"WORDS\n"
    assert (
        subprocess.run([*command, "exit 7"], stdin=DEVNULL, timeout=60, env=environment(), check=False).returncode == 7
    )
    assert run(*command, "cat", data=noise(MIB)) == noise(MIB)


@pytest.mark.exhaustive
def test_100_mb_by_scp_over_the_proxy_command(lab: Lab) -> None:
    server = SshServer(lab)
    right = lab.start_right("--to", str(server.port))
    source = random_file(lab.folder / "source", 100 * MIB)
    there = lab.folder / "there"
    run("scp", *server.options, "-o", proxy(lab), str(source), f"home:{there}")
    assert digest(there) == digest(source)
    # ssh ends its ProxyCommand by SIGHUP, before or behind the last goodbye.
    assert right.status() in (0, 1)


def test_ssh_says_why_when_the_target_behind_the_proxy_command_refuses(lab: Lab) -> None:
    server = SshServer(lab)
    right = lab.start_right("--to", "127.0.0.1:1")
    command = [*server.ssh("-o", proxy(lab), "home"), "true"]
    done = subprocess.run(command, stdin=DEVNULL, capture_output=True, timeout=60, env=environment(), check=False)
    assert done.returncode == 255
    assert b"punchtunnel: the far side's target refused the connection" in done.stderr
    assert right.status() != 0


def test_rsync_of_a_folder_over_the_proxy_command(lab: Lab) -> None:
    needs("rsync")
    server = SshServer(lab)
    source, there = lab.folder / "source", lab.folder / "there"
    for number in range(200):
        path = source / f"folder {number % 7}" / f"file {number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(noise(number * 1000, number))
    shell = shlex.join(server.ssh("-o", proxy(lab)))
    for _ in range(2):
        # The second time everything is there already.
        right = lab.start_right("--to", str(server.port))
        run("rsync", "-a", "--checksum", "-e", shell, f"{source}/", f"home:{there}/")
        assert right.status() in (0, 1)
    assert not run("diff", "-r", str(source), str(there))


def test_port_forwarding_inside_ssh_inside_the_tunnel(lab: Lab) -> None:
    """ssh's own -W over the hole: a stream in a stream, closed from the inner side."""
    server = SshServer(lab)
    left, _ = lab.tunnel(server.port)
    command = server.ssh("-p", str(left.port), "-W", f"127.0.0.1:{server.port}", "127.0.0.1")
    session = lab.program(*command, stdin=PIPE, stdout=PIPE)
    assert session.stdout is not None
    assert session.stdout.read(8) == b"SSH-2.0-"
    assert session.stdin is not None
    session.stdin.close()
    assert session.wait(60) == 0


@on_one_path
@pytest.mark.exhaustive
def test_ten_ssh_sessions_use_one_service_while_one_of_them_moves_a_gigabyte(lab: Lab) -> None:
    """The second one used to hang until the first was over."""
    server = SshServer(lab)
    service = lab.start_right("-k", "--to", str(server.port))
    command = server.ssh("-o", proxy(lab), "home")
    size = 1_000_000_000
    bulk = lab.program(*command, f"head -c {size} /dev/zero | sha256sum; head -c {size} /dev/zero", stdout=PIPE)
    typing = [lab.program(*command, "cat", stdin=PIPE, stdout=PIPE) for _ in range(9)]
    for number in range(20):
        for session in typing:
            assert session.stdin is not None
            assert session.stdout is not None
            session.stdin.write(b"line %d\n" % number)
            session.stdin.flush()
            assert session.stdout.readline() == b"line %d\n" % number
    # The lines of nine may be through before the tenth, whichever that is, has had its punch.
    service.wait_for("link_up", 10)
    assert len({event["session"] for event in service.find("link_up")}) == 10
    for session in typing:
        rest, _ = session.communicate(timeout=60)
        assert (rest, session.returncode) == (b"", 0)
    assert bulk.stdout is not None
    line = bulk.stdout.readline()
    taken, hashed = 0, hashlib.sha256()
    while piece := bulk.stdout.read(MIB):
        taken += len(piece)
        hashed.update(piece)
    assert (taken, line.split()[0].decode(), bulk.wait(60)) == (size, hashed.hexdigest(), 0)
