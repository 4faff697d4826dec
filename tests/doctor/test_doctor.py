"""`punchtunnel --doctor` as it is run, with servers of its own on loopback; tests/natlab has the routers."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import random
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import punchtunnel
from punchtunnel.address import Place
from punchtunnel.doctor import asking, sampling
from punchtunnel.doctor.facts import Bind, Sight
from punchtunnel.errors import Exit
from punchtunnel.protocol.schedule import HIGHEST_PORT, LOWEST_PORT
from punchtunnel.reach import questions, stun
from punchtunnel.system.addresses import Address

from ..natlab.actors import NTP_TO_UNIX
from ..reach.stunserver import Reply, honest, mapped, moved, server
from ..reporting.test_events import check, check_finding

ROOT = Path(punchtunnel.__file__).parent.parent
WAIT = 60
RNG = random.Random(3)


def run(*arguments: str, shell: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "punchtunnel", "--doctor", "--no-map", *arguments]
    if shell:
        command = ["/bin/sh", "-c", f'"$@" {shell}', "sh", *command]
    return subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd="/", timeout=WAIT, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8"},
    )  # fmt: skip


def findings(text: str) -> dict[str, dict[str, Any]]:
    return {one["check"]: one for one in map(json.loads, text.splitlines())}


# ---- servers


@contextlib.contextmanager
def time_server(fast_s: float, silent: int = 0) -> Iterator[Place]:
    """Tell a time that is off, but not to the first `silent` questions."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))

    def serve() -> None:
        for number in range(1 << 30):
            question, client = sock.recvfrom(512)
            if not question:
                return
            now = struct.pack("!Q", int((time.time() + fast_s + NTP_TO_UNIX) * 2**32))
            if number >= silent:
                sock.sendto(b"\x24\x02" + bytes(22) + question[40:48] + now + now, client)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield Place(*sock.getsockname())
    finally:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", sock.getsockname())
        thread.join(WAIT)
        sock.close()
        assert not thread.is_alive()


# ---- the command


def test_the_report_is_lines_with_the_verdict_and_the_next_step_last() -> None:
    done = run()
    lines = done.stdout.splitlines()
    assert done.stderr == ""
    checks = [line.partition("  ")[0] for line in lines if not line.startswith(" ")]
    # A machine without a network has no uplink.
    assert [check[:8] for check in checks] == [
        *("clock", "route", "uplinks")[: 2 + ("uplinks" in checks)],
        "address", "ipv6", "ports", "sharing", "firewall", "firewall", "public", "verdict",
    ]  # fmt: skip
    assert "next: " in lines[-1]
    assert lines[-1].startswith("verdict")
    bad = any(" bad " in line for line in lines)
    assert done.returncode == (Exit.LOST if bad else Exit.OK)


def test_with_json_each_finding_is_an_object_and_the_exit_is_told_as_ever() -> None:
    done = run("--json")
    found = findings(done.stdout)
    assert found.keys() >= {"clock", "route", "verdict"}
    for one in found.values():
        check_finding(one)
    told = [json.loads(line) for line in done.stderr.splitlines()]
    for event in told:
        check(event)
    assert [event["event"] for event in told] == ["start", "exit"]
    assert told[-1]["status"] == done.returncode


def test_events_may_go_elsewhere_than_the_findings() -> None:
    done = run("--status-fd", "3", shell="3>&2")
    assert [json.loads(line)["event"] for line in done.stderr.splitlines()] == ["start", "exit"]
    assert done.stdout.splitlines()[-1].startswith("verdict")


def test_a_broken_stdout_is_no_traceback() -> None:
    done = run(shell="| head -c 1 >/dev/null")
    assert done.stderr == ""
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("shell", "reason"), [(">/dev/full", "No space left on device"), (">&-", "Bad file descriptor")]
)
def test_a_full_disk_or_a_closed_stdout_is_one_sentence(shell: str, reason: str) -> None:
    done = run(shell=shell)
    assert done.stderr == f"punchtunnel: cannot write: {reason}\n"
    assert done.returncode == 1


def test_quiet_prints_only_what_is_bad() -> None:
    """It printed everything."""
    loud, quiet = run("--json"), run("--json", "-q")
    bad = [one for one in map(json.loads, loud.stdout.splitlines()) if one["level"] == "bad"]
    assert [one["finding"] for one in map(json.loads, quiet.stdout.splitlines())] == [one["finding"] for one in bad]
    assert quiet.returncode == loud.returncode
    with server(moved) as one, server(moved) as other:
        done = run("-q", "--stun", str(one), "--stun", str(other))
    assert "mapping" in done.stdout
    assert " ok " not in done.stdout


def test_servers_that_are_named_are_asked_and_the_verdict_follows() -> None:
    with server(moved) as one, server(moved) as other:
        done = run("--json", "--stun", str(one), "--stun", str(other))
    found = findings(done.stdout)
    assert found["mapping"]["finding"] == "mapping_rewritten"
    assert found["stun"]["fields"]["seen"] == "127.0.0.1:4711"
    assert found["verdict"]["sentence"].endswith("use IPv6 or a port mapping") or found["route"]["level"] == "bad"
    assert done.returncode == 1


def seen_at(host: str) -> Reply:
    return lambda request, client: honest(request, (host, client[1]))


def test_the_verdict_has_the_whole_command_for_the_other_machine() -> None:
    with server(seen_at("198.51.100.7")) as one, server(seen_at("198.51.100.7")) as other:
        found = findings(run("--json", "--stun", str(one), "--stun", str(other)).stdout)
    assert found["public"]["finding"] == "public_seen"
    command = found["verdict"]["fields"]["command"]
    assert command.split()[:2] == ["punchtunnel", "198.51.100.7"]
    assert f"`{command}`" in found["verdict"]["remedy"] or found["verdict"]["finding"] == "verdict_mend"


def test_what_a_server_claims_is_no_command() -> None:
    """Its answer is believed only as far as it is an address in the Internet."""
    with server(seen_at("192.168.1.7")) as one:
        found = findings(run("--json", "--stun", str(one)).stdout)
    assert "192.168.1.7" not in found["verdict"]["fields"]["command"]
    assert found["public"]["finding"] != "public_seen"


def test_only_what_is_bound_is_looked_at() -> None:
    with server(honest) as one:
        found = [
            json.loads(line) for line in run("--json", "--bind", "127.0.0.2", "--stun", str(one)).stdout.splitlines()
        ]
    (address,) = [finding for finding in found if finding["check"] == "address"]
    assert address["fields"]["address"] == "127.0.0.2"
    assert {finding["fields"]["seen"].partition(":")[0] for finding in found if finding["check"] == "stun"} == {
        "127.0.0.2"
    }
    assert "uplinks" not in {finding["check"] for finding in found}


def test_what_is_bound_must_be_here() -> None:
    done = run("--bind", "198.51.100.99")
    assert (done.returncode, done.stdout) == (Exit.LOCAL, "")
    assert done.stderr == "punchtunnel: cannot bind 198.51.100.99: it is not an address of this machine\n"
    assert run("--bind", "nosuch0").returncode == Exit.USAGE


def test_a_clock_that_is_far_off_is_bad() -> None:
    with time_server(120.0) as place:
        found = findings(run("--json", "--ntp", str(place)).stdout)
    assert found["clock"]["finding"] == "clock_wrong"
    assert found["clock"]["fields"]["offset_s"] == pytest.approx(120, abs=5)
    assert " s behind" in found["clock"]["sentence"]
    assert found["verdict"]["level"] == "bad"


# ---- what is asked, and how


def ports_of(sights: list[Sight], server: Place) -> list[int]:
    return [one.own.port for one in sights if one.server == str(server)]


def test_ports_of_the_punchs_range_are_seen_two_of_them_by_both_servers() -> None:
    with server(honest) as one, server(honest) as other:
        sights = sampling.sights([one, other], RNG)
    assert all(sight.seen == sight.own and LOWEST_PORT <= sight.own.port <= HIGHEST_PORT for sight in sights)
    first, second = ports_of(sights, one), ports_of(sights, other)
    assert len(set(first)) == len(first) == sampling.OWN_PORTS
    assert second == first[: questions.CROSSED]


def test_all_connections_are_open_before_the_first_answer() -> None:
    """They were made one after the other, with 5 s for each."""
    with server(honest, together=sampling.OWN_PORTS) as one, server(honest, together=questions.CROSSED) as other:
        sights = sampling.sights([one, other], RNG)
    assert all(sight.seen for sight in sights)


def pointing(other: Place) -> Reply:
    """Answer as a server that has another address, too (RFC 5780)."""

    def reply(request: bytes, client: tuple[str, int]) -> bytes:
        body = mapped(client) + mapped((other.host, other.port), 0x802C)
        return struct.pack("!HH", 0x0101, len(body)) + request[4:] + body

    return reply


def test_another_port_of_the_same_server_is_no_other_destination() -> None:
    """coturn with one address names its other port: a router that chooses for each address seemed to keep ports."""
    with server(honest) as other, server(pointing(other)) as one:
        assert {sight.server for sight in sampling.sights([one], RNG)} == {str(one)}


def test_one_server_is_asked_at_its_other_address_too_and_no_further() -> None:
    with server(honest, host="127.0.0.2") as other, server(pointing(other)) as one, server(pointing(other)) as two:
        sights = sampling.sights([one], RNG)
        assert sorted(ports_of(sights, other)) == sorted(ports_of(sights, one)[: questions.CROSSED])
        assert {sight.server for sight in sampling.sights([one, two], RNG)} == {str(one), str(two)}


def test_a_server_that_is_named_twice_is_asked_once() -> None:
    with server(honest) as one:
        assert len(sampling.sights([one, one], RNG)) == sampling.OWN_PORTS


def test_few_ports_are_asked_for_if_only_the_address_is_wanted() -> None:
    with server(honest) as one:
        assert len(sampling.sights([one], RNG, own_ports=1)) == 1


BAD_SERVERS: list[tuple[Reply, str]] = [
    (lambda request, client: b"SSH-2.0-OpenSSH_9.2\r\n", "no STUN server"),
    (lambda request, client: honest(request[:8] + bytes(12), client), "no STUN server"),
]


@pytest.mark.parametrize(("reply", "why"), BAD_SERVERS)
def test_a_server_that_talks_nonsense_is_told_and_the_other_still_asked(reply: Reply, why: str) -> None:
    with server(reply) as bad, server(honest) as good:
        sights = sampling.sights([bad, good], RNG)
    for sight in sights:
        if sight.server == str(bad):
            assert why in sight.reason
            assert not sight.silent
        else:
            assert sight.seen == sight.own


def test_a_server_that_is_not_there_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        place = Place(*gone.getsockname())
    sight, *_ = sampling.sights([place], RNG)
    assert (sight.seen, sight.reason, sight.silent) == (None, "Connection refused", False)


def test_a_server_that_says_nothing_or_too_little_ends_the_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "PATIENCE", 0.2)
    for reply in (lambda request, client: b"", lambda request, client: honest(request, client)[:-1]):
        with server(reply) as mute:
            sights = sampling.sights([mute], RNG)
        # Its machine has answered: the way there is no black hole.
        assert {(sight.reason, sight.silent) for sight in sights} == {("no answer", False)}


def test_a_server_that_hangs_up_is_told() -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def hang_up() -> None:
        for _ in range(sampling.OWN_PORTS):
            sock, _ = listener.accept()
            with sock:
                sock.recv(stun.MAX_ANSWER)

    thread = threading.Thread(target=hang_up)
    thread.start()
    with listener:
        sights = sampling.sights([Place(*listener.getsockname())], RNG)
        thread.join(WAIT)
    assert {sight.reason for sight in sights} == {"the server has ended the connection without an answer"}


def test_a_lost_question_about_the_time_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "NTP_PATIENCE", 0.5)
    with time_server(-3.0, silent=1) as place:
        clock = asking.clock(place)
    assert clock.offset_s == pytest.approx(-3.0, abs=1.0)
    with time_server(0.0, silent=2) as place:
        assert asking.clock(place).reason == "no answer"


def test_this_machine_is_no_router() -> None:
    assert asking.hops(Place("::1", 9)) == []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
        deaf.bind(("127.0.0.1", 0))
        assert asking.hops(Place(*deaf.getsockname())) == ["", "", ""]


@pytest.mark.parametrize(
    ("server", "other", "may"),
    [
        ("192.0.2.1", "127.0.0.1", True),
        ("1.1.1.1", "8.8.8.8", True),
        ("1.1.1.1", "127.0.0.1", False),
        ("1.1.1.1", "192.168.1.1", False),
        ("2606:4700::1111", "fe80::1", False),
        ("fe80::1", "10.0.0.1", True),
    ],
)
def test_a_server_of_the_internet_names_no_machine_of_this_network(server: str, other: str, may: bool) -> None:
    """STUN here is plain TCP: whoever is on the way could have a service on loopback asked."""
    assert questions.may_lead(server, Place(other, 1)) is may


class FewNames:
    """A stand-in for getaddrinfo that answers for the name of RFC 7050, and for IPv4 literals."""

    def __init__(self, known: str | OSError) -> None:
        self.known = known

    def __call__(self, host: str, port: int | None, family: int = 0, type: int = 0) -> list[tuple[object, ...]]:
        if host != "ipv4only.arpa.":
            return [(socket.AF_INET, type, 6, "", (host, port))]
        if isinstance(self.known, OSError):
            raise self.known
        return [(socket.AF_INET6, type, 6, "", (self.known, 0, 0, 0))]


@pytest.mark.parametrize(
    ("known", "prefix"),
    [("64:ff9b::c000:aa", "64:ff9b::/96"), (socket.gaierror(socket.EAI_NONAME, "no such name"), None)],
)
def test_the_prefix_of_a_nat64_is_what_the_name_server_says(
    monkeypatch: pytest.MonkeyPatch, known: str | OSError, prefix: str | None
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", FewNames(known))
    assert asking.nat64() == (prefix and ipaddress.IPv6Network(prefix))


def test_an_ipv4_server_is_asked_through_a_nat64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", FewNames(""))
    place, prefix = Place("192.0.2.33", 3478), ipaddress.IPv6Network("64:ff9b::/96")
    (target,) = sampling._targets(place, prefix)
    assert (target.address, target.version) == (Address(socket.AF_INET6, "64:ff9b::c000:221"), 4)
    (target,) = sampling._targets(place, None)
    assert (target.address, target.version) == (Address(socket.AF_INET, "192.0.2.33"), 4)


class TwoAddresses:
    """A stand-in for getaddrinfo that knows a name with an address of each IP version."""

    def __call__(self, host: str, port: int, family: int = 0, type: int = 0) -> list[tuple[object, ...]]:
        return [
            (socket.AF_INET6, type, 6, "", ("::1", port, 0, 0)),
            (socket.AF_INET, type, 6, "", ("127.0.0.1", port)),
        ]


def test_a_name_is_asked_in_both_ip_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    """IPv6 was never asked where the server had an IPv4 address."""
    with server(honest) as one:
        monkeypatch.setattr(socket, "getaddrinfo", TwoAddresses())
        monkeypatch.setattr(sampling, "source_towards", lambda address, _: address.host)
        sights = sampling.sights([Place("stun.example", one.port)], RNG)
    assert [sight.version for sight in sights] == [4] * sampling.OWN_PORTS + [6]
    assert all(sight.seen for sight in sights[:-1])
    # Nothing listens there.
    assert not sights[-1].seen


def test_an_ip_version_without_a_route_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with server(honest) as one:
        monkeypatch.setattr(socket, "getaddrinfo", TwoAddresses())
        monkeypatch.setattr(sampling, "source_towards", lambda address, _: None if ":" in address.host else "127.0.0.1")
        sights = sampling.sights([Place("stun.example", one.port)], RNG)
    assert {sight.version for sight in sights} == {4}


def test_questions_leave_by_the_address_that_is_bound() -> None:
    with server(honest) as one:
        sights = sampling.sights([one], RNG, bind=Bind("127.0.0.2"))
    assert {sight.own.host for sight in sights} == {"127.0.0.2"}
