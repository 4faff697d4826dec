"""The main flows with a secret, what only a sealed link promises, and pairs that must not meet.

Without a secret, and plain, the same flows are in the other files.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import re
import select
import shlex
import socket
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator, Sequence

import pytest

from punchtunnel.protocol import schedule
from punchtunnel.protocol.agreement import Agreement
from punchtunnel.protocol.election import Election
from punchtunnel.protocol.hello import NONCE_SIZE, Hello, Role
from punchtunnel.protocol.verdicts import Send, Won

from .ends import COMMAND, DEVNULL, PIPE, End, Lab, environment
from .flows import MIB, echo, noise, receive
from .test_forward import talk_at_once

SECRET = "correct horse battery staple"
OTHER = "another horse entirely"

# What both sides add: options, and what the shell does before.
MODES = {"secret": ([], SECRET), "no secret": ([], ""), "plain": (["--plain"], "")}


@pytest.fixture
def data_path() -> list[str]:
    """Return nothing: these tests choose their modes themselves."""
    return []


IN_EVERY_MODE = pytest.mark.parametrize("mode", MODES)


def knowing(secret: str) -> str:
    return f"export PUNCHTUNNEL_SECRET={shlex.quote(secret)}" if secret else "unset PUNCHTUNNEL_SECRET"


def pair(lab: Lab, mode: str, left: Sequence[str] = (), right: Sequence[str] = ()) -> tuple[End, End]:
    options, secret = MODES[mode]
    ends = (
        lab.start_left(*options, *left, shell=knowing(secret)),
        lab.start_right(*options, *right, shell=knowing(secret)),
    )
    for end in ends:
        end.wait_for("link_up")
    return ends


# ---- the main flows


def test_10_mb_go_both_ways_and_both_ends_exit_with_0(lab: Lab) -> None:
    left, right = pair(lab, "secret")
    data = {left: noise(10 * MIB, seed=1), right: noise(10 * MIB, seed=2)}
    for end, whole in data.items():
        end.feed([whole])
    received = {end: end.receive() for end in (right, left)}
    assert received == {right: data[left], left: data[right]}
    assert (left.status(), right.status()) == (0, 0)


def test_20_connections_through_one_port_return_every_byte(lab: Lab) -> None:
    left, _ = pair(lab, "secret", ["-L", "0"], ["--to", str(lab.serve(echo))])
    talk_at_once(left.port, 20, 300_000)


def test_one_direction_lives_on_when_the_other_has_ended(lab: Lab) -> None:
    left, right = pair(lab, "secret")
    left.send(b"all I have to say")
    left.send_eof()
    assert right.receive() == b"all I have to say"
    for number in range(3):
        right.send(b"still here %d\n" % number)
        assert left.receive(13) == b"still here %d\n" % number
    right.send_eof()
    assert left.receive() == b""
    assert (left.status(), right.status()) == (0, 0)


@pytest.mark.parametrize("mode", ["secret", "plain"])
@pytest.mark.usefixtures("without_resuming")
def test_killed_peer_is_a_lost_link_and_never_an_end_of_file(lab: Lab, mode: str) -> None:
    left, right = pair(lab, mode)
    right.send(b"half of ")
    assert left.receive(8) == b"half of "
    right.process.kill()
    assert left.status(wait=10) == 1
    assert left.reason.startswith("link lost: ")


@pytest.mark.parametrize("mode", ["secret", "plain"])
@pytest.mark.usefixtures("without_resuming")
def test_clients_of_a_killed_peer_see_a_reset(lab: Lab, mode: str) -> None:
    left, right = pair(lab, mode, ["-L", "0"], ["--to", str(lab.serve(echo))])
    with lab.connect(left.port) as client:
        client.sendall(b"one")
        assert receive(client, 3) == b"one"
        right.process.kill()
        with pytest.raises(ConnectionResetError):
            receive(client)


# ---- what is told


def test_both_sides_tell_one_verifier_and_whether_the_peer_is_authenticated(lab: Lab) -> None:
    for mode, authenticated in (("secret", True), ("no secret", False)):
        ends = pair(lab, mode)
        told = [end.wait_for("sealed") for end in ends]
        assert told[0]["verifier"] == told[1]["verifier"]
        assert re.fullmatch(r"([a-z2-7]{4}-){7}[a-z2-7]{4}", told[0]["verifier"])
        assert [each["authenticated"] for each in told] == [authenticated] * 2
        assert [len(end.find("unauthenticated")) for end in ends] == [int(not authenticated)] * 2
        assert not any(end.find("unsealed") for end in ends)
        for end in ends:
            end.send_eof()
        assert [end.status() for end in ends] == [0, 0]


def test_a_plain_link_claims_no_seal(lab: Lab) -> None:
    for end in pair(lab, "plain"):
        assert not end.find("sealed")
        assert not end.find("unauthenticated")
        assert len(end.find("unsealed")) == 1


@pytest.mark.parametrize(("mode", "words"), [("secret", b""), ("no secret", b"not authent"), ("plain", b"is plain")])
@pytest.mark.parametrize("quiet", [False, True])
def test_every_link_without_a_secret_says_so_once_where_there_is_no_terminal(
    lab: Lab, mode: str, words: bytes, quiet: bool
) -> None:
    """A neighbour received a whole file, and the sender exited with 0 and an empty stderr."""
    options, secret = MODES[mode]
    env = environment() | ({"PUNCHTUNNEL_SECRET": secret} if secret else {})
    ends = [
        lab.program(*COMMAND, *where, *options, *["-q"][: int(quiet)], stdin=DEVNULL, stdout=PIPE, stderr=PIPE, env=env)
        for where in (lab.towards_right, lab.towards_left)
    ]
    for end in ends:
        _, err = end.communicate(timeout=30)
        assert end.returncode == 0
        if quiet or not words:
            assert err == b""
        else:
            assert words in err
            assert err.count(b"\n") == 1


@pytest.mark.parametrize("as_json", [True, False])
def test_no_output_has_the_secret_in_it(lab: Lab, as_json: bool) -> None:
    secret = "xylophon quagmire"
    options = ["--json"] if as_json else ["-vvv"]
    env = environment() | {"PUNCHTUNNEL_SECRET": secret}
    ends = [
        lab.program(*COMMAND, *where, *options, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, env=env)
        for where in (lab.towards_right, lab.towards_left)
    ]
    for end in ends:
        out, err = end.communicate(timeout=30)
        assert end.returncode == 0
        assert b"verifier" in err
        for text in (secret, secret.encode().hex(), repr(secret.encode())[2:-1], "xylophon", "quagmire"):
            assert text.encode() not in out + err


# ---- pairs that must not meet


def assert_refused(end: End, sentence: str, wait: float = 10.0) -> None:
    assert end.status(wait) == 4, end
    assert sentence in end.reason
    assert "\n" not in end.reason
    assert not end.find("link_up")


@pytest.mark.parametrize(
    "secrets",
    [
        pytest.param((SECRET, OTHER), id="wrong"),
        pytest.param((SECRET, ""), id="none at the right"),
        pytest.param(("", SECRET), id="none at the left", marks=pytest.mark.exhaustive),
    ],
)
def test_different_secrets_are_told_at_once_and_refused_at_the_deadline(lab: Lab, secrets: tuple[str, str]) -> None:
    left = lab.start_left("-w", "3", shell=knowing(secrets[0]))
    right = lab.start_right("-w", "3", shell=knowing(secrets[1]))
    for end in (left, right):
        rejected = end.wait_for("rejected")
        assert rejected["reason"].startswith("wrong secret: ")
        # It goes on: this may have been a stranger.
        assert rejected["time_s"] < end.wait_for("exit")["time_s"] - 0.5
        assert_refused(end, "wrong secret")
        assert len(end.find("rejected")) == 1


@pytest.mark.parametrize("plain", ["left", "right"])
def test_plain_against_sealed_is_refused_on_both_sides(lab: Lab, plain: str) -> None:
    left = lab.start_left("-w", "3", *(["--plain"] if plain == "left" else []), shell=knowing(""))
    right = lab.start_right("-w", "3", *(["--plain"] if plain == "right" else []), shell=knowing(""))
    for end in (left, right):
        end.wait_for("rejected")
        assert_refused(end, "--plain is given ")


@pytest.mark.exhaustive
def test_plain_against_a_secret_is_refused_on_both_sides(lab: Lab) -> None:
    left = lab.start_left("--plain", "-w", "3")
    right = lab.start_right("-w", "3", shell=knowing(SECRET))
    assert_refused(left, "--plain is given here")
    assert_refused(right, "--plain is given on the other side but not here")


def test_a_stranger_with_a_wrong_secret_does_not_keep_the_right_peer_out(lab: Lab) -> None:
    left = lab.start_left(shell=knowing(SECRET))
    stranger = lab.start_right(shell=knowing(OTHER))
    left.wait_for("rejected")
    stranger.wait_for("rejected")
    stranger.process.kill()
    stranger.process.wait(30)
    right = lab.start_right(shell=knowing(SECRET))
    right.send(b"it is me")
    assert left.receive(8) == b"it is me"
    for end in (left, right):
        end.send_eof()
    assert (left.status(), right.status()) == (0, 0)


def test_a_plain_stranger_does_not_end_a_punch_with_a_secret(lab: Lab) -> None:
    left = lab.start_left(shell=knowing(SECRET))
    stranger = lab.start_right("--plain")
    left.wait_for("rejected")
    stranger.wait_for("rejected")
    stranger.process.kill()
    stranger.process.wait(30)
    right = lab.start_right("-n", shell=knowing(SECRET))
    right.wait_for("link_up")
    left.send_eof()
    assert (left.status(), right.status()) == (0, 0)


def test_a_peer_that_never_got_the_last_word_is_punched_for_again(lab: Lab) -> None:
    """The leader took the hole, lost it, and ended with status 1, while the follower punched on."""
    left = lab.start_left(shell=knowing(SECRET))
    left.wait_for("punching")
    wins_and_leaves(lab)
    left.wait_for("punching_again")
    assert not left.find("link_up")
    right = lab.start_right(shell=knowing(SECRET))
    left.send(b"nothing is lost")
    assert right.receive(15) == b"nothing is lost"
    for end in (left, right):
        end.send_eof()
    assert (left.status(), right.status()) == (0, 0)


def wins_and_leaves(lab: Lab) -> None:
    """Follow the left end in an election, as a peer that knows the secret, and be gone when it has won."""
    tag = schedule.channel_tag(lab.channel)
    election = Election(
        Hello(bytes(NONCE_SIZE), tag, Role.STDIO), lambda: Agreement(SECRET.encode(), tag, os.urandom), strict=True
    )
    place = (lab.left, schedule.bucket_ports(lab.channel, schedule.CLOCK_FREE, 1)[0])
    with socket.create_connection(place, 30, source_address=(lab.right, 0)) as sock:
        actions, won = election.opened(1), False
        while not won:
            for action in actions:
                if isinstance(action, Send):
                    sock.sendall(action.data)
                won = won or isinstance(action, Won)
            if not won:
                data = sock.recv(4096)
                assert data, "the left end has not chosen this connection"
                actions = election.received(1, data)


# ---- options


def test_a_file_others_can_read_is_refused_and_one_of_ones_own_opens_the_hole(lab: Lab) -> None:
    path = lab.folder / "secret"
    path.write_text(f"{SECRET}\n")
    path.chmod(0o644)
    refused = lab.start_left("-n", "--secret-file", str(path))
    assert refused.status() == 5
    assert f"chmod 600 {path}" in refused.reason
    path.chmod(0o600)
    left = lab.start_left("-n", "--secret-file", str(path))
    right = lab.start_right("-n", shell=knowing(SECRET))
    assert (left.status(), right.status()) == (0, 0)
    assert not left.find("warning") + right.find("warning")


def run_alone(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    whole = {name: value for name, value in environment().items() if name != "PUNCHTUNNEL_SECRET"} | env
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, env=whole, stdin=DEVNULL, timeout=30, check=False
    )


@pytest.mark.parametrize(
    ("arguments", "env", "status", "words"),
    [
        (["--require-secret"], {}, 2, "--require-secret, but there is none"),
        (["--plain", "--require-secret"], {}, 2, "--plain contradicts a secret"),
        (["--plain", "--secret-file", "x"], {}, 2, "--plain contradicts a secret"),
        (["--secret-file", "/nowhere/at all"], {}, 5, "cannot read the secret from /nowhere/at all"),
        ([], {"PUNCHTUNNEL_SECRET": ""}, 2, "PUNCHTUNNEL_SECRET is set and empty"),
        (["--secret-file", "x", "--ask-secret"], {}, 2, "contradict each other"),
    ],
)
def test_usage_that_cannot_mean_anything_ends_with_one_sentence(
    arguments: list[str], env: dict[str, str], status: int, words: str
) -> None:
    done = run_alone("127.0.0.1", "-w", "0.1", *arguments, **env)
    assert done.returncode == status
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_require_secret_is_content_with_one() -> None:
    assert run_alone("127.0.0.1", "-w", "0.1", "--require-secret", PUNCHTUNNEL_SECRET=SECRET).returncode == 3


def test_asking_without_a_terminal_is_one_sentence_and_reads_no_stdin() -> None:
    """stdin carries tunnel bytes: the first line of a file to send became the secret."""
    done = subprocess.run(
        [*COMMAND, "127.0.0.1", "-w", "0.1", "--ask-secret"],
        capture_output=True,
        text=True,
        env=environment(),
        input="first line of the data\n",
        timeout=30,
        check=False,
        start_new_session=True,
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def ask_on_a_terminal(typed: bytes) -> tuple[int, str, bool]:
    """Type at the prompt for a secret; return the exit status, what was shown, and whether echo is on again."""
    pid, terminal = os.forkpty()
    if not pid:
        os.execvpe(COMMAND[0], [*COMMAND, "127.0.0.1", "-w", "0.1", "--ask-secret"], environment())
    shown = b""
    try:
        while not shown.endswith(b"secret: "):
            assert select.select([terminal], [], [], 30)[0], shown
            shown += os.read(terminal, 1000)
        os.write(terminal, typed)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        echo = bool(termios.tcgetattr(terminal)[3] & termios.ECHO)
        with contextlib.suppress(OSError):
            while select.select([terminal], [], [], 0)[0] and (piece := os.read(terminal, 1000)):
                shown += piece
    finally:
        os.close(terminal)
    return status, shown.decode(errors="replace"), echo


def test_control_c_at_the_prompt_leaves_the_terminal_as_it_was() -> None:
    """It used to end the process by the signal, with echo switched off."""
    status, shown, echo = ask_on_a_terminal(b"half a sec\x03")
    assert (status, echo) == (130, True)
    assert "half" not in shown


def test_secret_that_is_no_text_is_one_sentence_without_a_byte_of_it() -> None:
    """It used to be a traceback that showed the byte."""
    status, shown, echo = ask_on_a_terminal(b"caf\xe9\xff\n")
    assert (status, echo) == (2, True)
    assert "Traceback" not in shown
    assert "0x" not in shown


def test_a_new_secret_is_128_bits_in_groups_and_works_as_it_is(lab: Lab) -> None:
    done = run_alone("--new-secret")
    assert (done.returncode, done.stderr) == (0, "")
    secret = done.stdout.strip()
    assert re.fullmatch(r"([0-9a-hjkmnp-tv-z]{4}-){6}[0-9a-hjkmnp-tv-z]{2}", secret)
    assert 5 * len(secret.replace("-", "")) >= 128
    assert run_alone("--new-secret").stdout != done.stdout
    left = lab.start_left("-n", "--require-secret", shell=knowing(secret))
    right = lab.start_right("-n", "--require-secret", shell=knowing(secret.upper().replace("-", " ")))
    assert (left.status(), right.status()) == (0, 0)


# ---- what an onlooker sees


def _between(left: str, right: str) -> array.array[int]:
    """Return a packet filter (classic BPF) for IPv4 packets between two hosts, in either direction."""
    here, there = (int.from_bytes(socket.inet_aton(host), "big") for host in (left, right))
    load, equal, answer = 0x20, 0x15, 0x06
    source, destination, everything = 12, 16, 0xFFFFFFFF
    program = array.array("Q")
    for code, on_true, on_false, operand in [
        (load, 0, 0, source),
        (equal, 0, 2, here),
        (load, 0, 0, destination),
        (equal, 3, 4, there),
        (equal, 0, 3, there),
        (load, 0, 0, destination),
        (equal, 0, 1, here),
        (answer, 0, 0, everything),
        (answer, 0, 0, 0),
    ]:
        program.append(struct.unpack("=Q", struct.pack("=HBBI", code, on_true, on_false, operand))[0])
    return program


class Capture(threading.Thread):
    """Records the TCP payloads that pass `lo` between two addresses."""

    def __init__(self, left: str, right: str) -> None:
        super().__init__(daemon=True)
        # All protocols; SO_RCVBUFFORCE, because nothing may be lost.
        self._sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0003))
        with contextlib.suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, 33, 64 * MIB)
        # Without the filter a busy machine's other traffic would never let it end.
        program = _between(left, right)
        attach_filter, (address, count) = 26, program.buffer_info()
        self._sock.setsockopt(socket.SOL_SOCKET, attach_filter, struct.pack("HL", count, address))
        self._sock.bind(("lo", 0x0003))
        self._sock.settimeout(0.2)
        self._over = threading.Event()
        self.streams: dict[bytes, bytearray] = {}
        self.start()

    def run(self) -> None:
        """Read packets until `stop`, and those that wait then."""
        while True:
            try:
                packet, _ = self._sock.recvfrom(1 << 17)
            except TimeoutError:
                if self._over.is_set():
                    return
                continue
            self._take(packet)

    def _take(self, packet: bytes) -> None:
        if packet[0] >> 4 != 4 or packet[9] != 6:
            return
        tcp = packet[(packet[0] & 15) * 4 :]
        payload = tcp[(tcp[12] >> 4) * 4 :]
        # Each packet on `lo` is seen twice, leaving and coming; once more does no harm.
        self.streams.setdefault(packet[12:20] + tcp[:4], bytearray()).extend(payload)

    def stop(self) -> bytes:
        """Return everything that has passed."""
        self._over.set()
        self.join(30)
        self._sock.close()
        return b"\xf0\xf0".join(map(bytes, self.streams.values()))


@contextlib.contextmanager
def capturing(lab: Lab) -> Iterator[Capture]:
    try:
        capture = Capture(lab.left, lab.right)
    except PermissionError:
        pytest.skip("a capture on `lo` needs CAP_NET_RAW")
    try:
        yield capture
    finally:
        capture.stop() if capture.is_alive() else None


def runs(data: bytes) -> set[bytes]:
    return {data[place : place + 8] for place in range(len(data) - 7)}


@pytest.mark.skipif(sys.platform != "linux", reason="a capture needs AF_PACKET")
@IN_EVERY_MODE
def test_no_8_byte_run_of_the_plaintext_can_be_seen_unless_plain(lab: Lab, mode: str) -> None:
    text = b"".join(b"%06d: nobody but us two may read this line\n" % number for number in range(2000))
    with capturing(lab) as capture:
        left, right = pair(lab, mode)
        left.feed([text])
        right.feed([text[::-1]])
        assert right.receive() == text
        assert left.receive() == text[::-1]
        assert (left.status(), right.status()) == (0, 0)
        seen = capture.stop()
    assert len(seen) > 2 * len(text), "the capture has missed the run"
    assert b"\xf0PUNCH\r\n" in seen
    found = runs(text) & runs(seen)
    if mode == "plain":
        assert len(found) > 1000, "the check finds nothing, whatever passes"
    else:
        assert not found
    for secret in (SECRET.encode(), SECRET.encode()[:8]):
        assert secret not in seen


def test_json_events_stay_one_object_a_line_in_every_mode(lab: Lab) -> None:
    ends = pair(lab, "secret")
    for end in ends:
        end.send_eof()
    assert [end.status() for end in ends] == [0, 0]
    for end in ends:
        assert not end.words
        assert json.dumps(end.events)
