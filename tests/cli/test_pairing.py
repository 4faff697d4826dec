"""--pair: codes that are copied, mistyped or swapped, and two machines that play it through."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchtunnel import words
from punchtunnel.cli import paired, pairing, peers
from punchtunnel.cli.options import Options
from punchtunnel.cli.pairing import Code, Pairing, read_code
from punchtunnel.errors import UsageError
from punchtunnel.protocol.secret import ALPHABET, is_fresh, normal
from punchtunnel.words import usage

SECRET = bytes(range(16))
CODE = Code(SECRET, ("203.0.113.9", "2001:db8::9"), "relay.example.org:4001")

addresses = st.lists(st.ip_addresses(v=4) | st.ip_addresses(v=6), max_size=4).map(lambda found: tuple(map(str, found)))
relays = st.sampled_from(["", "relay.example.org", "192.0.2.7:443", "[2001:db8::1]:4001"])
codes = st.builds(Code, st.sampled_from([b"", SECRET, b"\xff" * 16]), addresses, relays)


@given(codes)
def test_a_code_is_read_as_it_was_written(code: Code) -> None:
    assert read_code(code.text) == code
    assert read_code(code.text.upper().replace("-", "  ") + "\n") == code


def test_a_code_for_a_usual_machine_is_short() -> None:
    assert len(Code(SECRET, ("203.0.113.9",)).text.replace("-", "")) <= 42
    assert len(Code(addresses=("203.0.113.9",)).text.replace("-", "")) <= 16


@given(codes, st.data())
def test_a_digit_that_was_mistyped_is_noticed(code: Code, data: st.DataObject) -> None:
    text = code.text.replace("-", "")
    at = data.draw(st.integers(0, len(text) - 1))
    wrong = data.draw(st.sampled_from([digit for digit in ALPHABET if digit != text[at]]))
    try:
        assert read_code(text[:at] + wrong + text[at + 1 :]) != code
    except UsageError:
        return


@given(st.text(max_size=500) | st.text(alphabet=ALPHABET, max_size=500))
def test_what_is_no_code_is_refused(text: str) -> None:
    with contextlib.suppress(UsageError):
        read_code(text)


class Person:
    """Answers what is asked, in order, and notes what is told."""

    def __init__(self, *answers: str) -> None:
        self._answers = list(answers)
        self.told: list[str] = []

    def ask(self, _prompt: str, read: Callable[[str], Code]) -> Code | None:
        text = self._answers.pop(0)
        return read(text) if text else None

    def tell(self, _sentence: str, code: str) -> None:
        self.told.append(code)


def play(person: Person, own: tuple[str, ...] = (), relay: str = "") -> Pairing:
    return pairing.pair(own, relay, lambda size: SECRET[:size], person.ask, person.tell)


def test_both_have_one_secret_and_channel_and_each_other_s_addresses() -> None:
    first = Person("", Code(addresses=("198.51.100.7",)).text)
    one = play(first, ("203.0.113.9",), "r:1")
    second = Person(first.told[0])
    other = play(second, ("198.51.100.7",))
    assert (one.secret, one.channel, one.relay) == (other.secret, other.channel, other.relay)
    assert (one.addresses, other.addresses, one.relay) == (("198.51.100.7",), ("203.0.113.9",), "r:1")
    assert is_fresh(normal(one.secret))
    assert read_code(second.told[0]) == Code(addresses=("198.51.100.7",))
    assert one.secret not in repr(one)


def test_the_answer_may_be_left_out() -> None:
    assert play(Person("", ""), relay="r:1").addresses == ()


@pytest.mark.parametrize(
    ("answers", "sentence"),
    [
        ([Code(addresses=("203.0.113.9",)).text], "waits for it: type it there"),
        (["", CODE.text], "a code and no answer"),
        (["nonsense!"], "no code of --pair"),
        ([CODE.text + "0"], "mistyped"),
        ([CODE.text[:-6]], "mistyped"),
    ],
)
def test_the_wrong_code_says_what_to_do(answers: list[str], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        play(Person(*answers))


# ---- two machines


class Machine:
    """One of the two, with a configuration of its own."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-m", "punchtunnel", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"XDG_CONFIG_HOME": str(folder)},
        )

    def type(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def end(self) -> tuple[int, str]:
        _, errors = self.process.communicate(timeout=60)
        return self.process.returncode, errors


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[list[Machine]]:
    made = [
        Machine(tmp_path / "a", "--pair", "laptop", "--relay", "r.example.org"),
        Machine(tmp_path / "b", "--pair", "home"),
    ]
    yield made
    for one in made:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()


def test_two_machines_are_paired_and_list_each_other(machines: list[Machine]) -> None:
    first, second = machines
    first.type("")
    second.type(first.line())
    first.type(second.line())
    for machine, name in ((first, "laptop"), (second, "home")):
        status, errors = machine.end()
        assert status == 0, errors
        assert f"{name} is saved in {machine.folder}/punchtunnel/peers.toml: use it" in errors
        assert f"punchtunnel {name} --to 22 here and -L 2222 there" in errors
    one, other = (peers.read(machine.folder / "punchtunnel" / "peers.toml") for machine in machines)
    assert one["laptop"].secret == other["home"].secret != b""
    assert one["laptop"].options == other["home"].options
    assert one["laptop"].options["relay"] == ["r.example.org"]
    listed = Machine(first.folder, "--peers", "--json")
    shown = json.loads(listed.line())
    assert listed.end()[0] == 0
    assert (shown["name"], shown["secret"]) == ("laptop", True)
    assert one["laptop"].secret.decode() not in json.dumps(shown)


def test_a_name_that_is_taken_or_none_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    peers.add(tmp_path / "punchtunnel" / "peers.toml", peers.Saved("home"), "secret")
    for name, sentence in (
        ("home", "there is a peer home already"),
        ("a b", "is no name"),
        ("203.0.113.9", "is no name"),
        ("", "up to 63 letters, digits, - and _, beginning with a letter or a digit"),
        ("-a", "is no name"),
        ("a" * 64, "is no name"),
    ):
        status, errors = Machine(tmp_path, f"--pair={name}").end()
        assert status == 2
        assert sentence in errors


def test_a_saved_peer_is_no_address_to_pair_with(tmp_path: Path) -> None:
    peers.add(tmp_path / "punchtunnel" / "peers.toml", peers.Saved("home"), "secret")
    status, errors = Machine(tmp_path, "--pair", "other", "home").end()
    assert status == 2
    assert "home is a saved peer and no address" in errors


def test_the_address_of_the_other_machine_can_be_given(tmp_path: Path) -> None:
    """Behind a NAT no machine knows its own address, and a STUN server had to be named on both."""
    machine = Machine(tmp_path, "--pair", "laptop", "203.0.113.9", "[2001:db8::9]:40022")
    machine.type("")
    machine.line()
    machine.type(Code(addresses=("203.0.113.9", "203.0.113.10")).text)
    status, errors = machine.end()
    assert status == 0, errors
    assert "its address is not known" not in errors
    saved = peers.read(tmp_path / "punchtunnel" / "peers.toml")["laptop"]
    assert saved.peers == ("203.0.113.9", "[2001:db8::9]:40022", "203.0.113.10")


def test_an_address_that_is_none_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    status, errors = Machine(tmp_path, "--pair", "laptop", "me@203.0.113.9").end()
    assert status == 2
    assert "@" in errors


@pytest.mark.parametrize("options", [Options(pair="home", to=["22"]), Options(pair="home", no_map=True)])
def test_what_pairing_has_no_use_for_is_refused(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with pytest.raises(UsageError, match="--pair takes PEERs"):
        paired.perform(options, print)


def test_a_script_without_stdin_is_told_that_there_was_no_answer(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "--pair", "laptop", "203.0.113.9")
    status, errors = machine.end()
    assert status == 0, errors
    assert "peers.toml, without an answer of the other machine: use it" in errors


def test_a_pipe_with_a_mistake_ends_it(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "--pair", "laptop")
    machine.type(CODE.text + "0")
    status, errors = machine.end()
    assert (status, "mistyped" in errors) == (2, True)
    assert not (tmp_path / "punchtunnel" / "peers.toml").exists()


def test_a_folder_that_cannot_be_written_is_told_before_the_code_is_printed(tmp_path: Path) -> None:
    """The other machine had saved what this one could not."""
    (tmp_path / "punchtunnel").write_text("a file")
    machine = Machine(tmp_path, "--pair", "laptop")
    assert machine.line() == ""
    status, errors = machine.end()
    assert (status, "cannot write" in errors) == (5, True)


# ---- a person at a terminal


class Typist:
    """A person at the terminal of a process, which is that of its session."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        environment = os.environ | {"XDG_CONFIG_HOME": str(folder)}
        self.pid, self.fd = pty.fork()
        if not self.pid:
            os.execvpe(sys.executable, [sys.executable, "-m", "punchtunnel", *arguments], environment)
        self.status: int | None = None
        self.seen = ""

    def wait_for(self, text: str) -> None:
        """Read until a text is shown, behind what was waited for before."""
        before = len(self.seen)
        while text not in self.seen[before:]:
            assert select.select([self.fd], [], [], 60)[0], self.seen
            self.seen += os.read(self.fd, 4096).decode()

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def end(self) -> int:
        """Return the exit status, after all that is shown."""
        # EIO: nobody has the other end of the terminal open.
        with contextlib.suppress(OSError):
            while data := os.read(self.fd, 4096):
                self.seen += data.decode()
        self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.status

    def leave(self) -> None:
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)


@pytest.fixture
def sit_down(tmp_path: Path) -> Iterator[Callable[..., Typist]]:
    with contextlib.ExitStack() as stack:

        def start(*arguments: str) -> Typist:
            typist = Typist(tmp_path, *arguments)
            stack.callback(typist.leave)
            return typist

        yield start


FIRST, SECOND = usage.ASK_FOR_CODE, usage.ASK_FOR_ANSWER


def test_a_person_who_mistypes_is_asked_again(tmp_path: Path, sit_down: Callable[..., Typist]) -> None:
    """The machine ended, and the other one had saved it."""
    typist = sit_down("--pair", "laptop")
    for wrong in ("nonsense!", CODE.text + "0", Code(addresses=("203.0.113.9",)).text):
        typist.wait_for(FIRST)
        typist.type(wrong + "\n")
    typist.wait_for(FIRST)
    typist.type("\n")
    for wrong in (CODE.text, Code(addresses=("203.0.113.9",)).text[:-1]):
        typist.wait_for(SECOND)
        typist.type(wrong + "\n")
    typist.wait_for(SECOND)
    typist.type(Code(addresses=("203.0.113.9",)).text + "\n")
    assert typist.end() == 0, typist.seen
    assert peers.read(tmp_path / "punchtunnel" / "peers.toml")["laptop"].peers == ("203.0.113.9",)


@pytest.mark.parametrize(("key", "status"), [("\x04", 2), ("\x03", 130)], ids=["Ctrl-D", "Ctrl-C"])
@pytest.mark.parametrize("prompts", [[FIRST], [FIRST, SECOND]], ids=["code", "answer"])
def test_a_person_who_gives_up_has_saved_nothing_and_ends_the_line(
    key: str, status: int, prompts: list[str], tmp_path: Path, sit_down: Callable[..., Typist]
) -> None:
    """Ctrl-D was Enter, and the shell's prompt stood behind this one."""
    typist = sit_down("--pair", "laptop", "203.0.113.9")
    for prompt in prompts[:-1]:
        typist.wait_for(prompt)
        typist.type("\n")
    typist.wait_for(prompts[-1])
    typist.type(key)
    assert typist.end() == status, typist.seen
    end = typist.seen.rpartition(prompts[-1])[2]
    assert end.removeprefix("^C").startswith("\r\n")
    assert ("no peer is saved" in end) == (status == 2)
    assert not (tmp_path / "punchtunnel" / "peers.toml").exists()


def test_ctrl_c_in_place_of_a_secret_ends_the_line(sit_down: Callable[..., Typist]) -> None:
    typist = sit_down("127.0.0.1", "--ask-secret")
    typist.wait_for(words.PROMPT)
    typist.type("\x03")
    assert typist.end() == 130, typist.seen
    assert typist.seen.rpartition(words.PROMPT)[2].removeprefix("^C").startswith("\r\n")
