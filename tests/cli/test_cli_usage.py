"""Bad input gets one clear sentence and exit status 2; help and version tell the truth."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import punchtunnel
from punchtunnel.cli import command
from punchtunnel.errors import Exit
from punchtunnel.reporting.events import SCHEMA
from punchtunnel.words import habits

from ..reporting.test_events import check

PEER = "198.51.100.7"

# Arguments, and a word of the sentence.
MISTAKES: list[tuple[list[str], str]] = [
    (["--stdio"], "no peer"),
    (["-L", "2222"], "no peer"),
    (["256.1.1.1"], "neither an address nor a host name"),
    ([PEER, "not a host"], "neither an address nor a host name"),
    ([""], "neither an address nor a host name"),
    ([f"{PEER}:22"], "--to 22 there"),
    # Habits of other programs.
    ([PEER, "-R", "8080:localhost:80"], "either side may be either"),
    ([PEER, "-R8080:localhost:80"], "either side may be either"),
    ([PEER, "-D", "1080"], "is no proxy"),
    ([PEER, "-vD1080"], "is no proxy"),
    ([PEER, "-p", "22"], "--to there"),
    (["-l", "2222"], "needs no listening side"),
    ([PEER, "-e", "/bin/sh"], "starts no program"),
    ([PEER, "-u"], "TCP only"),
    ([PEER, "-J", "gate"], "--via"),
    ([PEER, "-o", "Port=22"], "ssh's"),
    (["me@home.example"], "ssh -p 2222 me@localhost"),
    (["me@home.example:22"], "ssh -p 2222 me@localhost"),
    (["me@198.51.100.7"], "only the address"),
    (["http://home.example"], "or 80, is what --to there"),
    (["https://me@home.example:8443/a?b"], "or 443, is what --to there"),
    (["x://"], "is a URL"),
    (["home.example:22"], "--to 22 there"),
    ([PEER, "--to", "http://localhost:8080/"], "as in localhost:80"),
    ([PEER, "--to", "me@nas:22"], "names a user"),
    ([PEER, "-L", "https://localhost"], "as in localhost:443"),
    (["--doctor", "--stun", "https://stun.example"], "as in host.example:443"),
    (["--relay", "me@relay.example:4001"], "names a user"),
    ([f"{PEER}:65536"], "outside 1–65535"),
    ([PEER, "--port", "65536"], "outside 1–65535"),
    ([PEER, "--port", "22"], "--to 22 here"),
    (["0.0.0.0"], "not the address of one machine"),
    (["255.255.255.255"], "broadcast"),
    (["fe80::1%" + "a" * 64], ""),
    (["fe80::1%\udcff"], ""),
    (["\udcff"], "neither an address nor a host name"),
    ([PEER, "-L", "65536"], "outside 0–65535"),
    ([PEER, "-L", "-1"], "port number"),
    ([PEER, "-L", "no-such-service"], "port number"),
    ([PEER, "-L", "::"], "brackets"),
    ([PEER, "-L", ":"], "port number"),
    ([PEER, "-L", "*:"], "port number"),
    ([PEER, "--to", ":22"], "neither an address nor a host name"),
    ([PEER, "--to", "*:22"], "neither an address nor a host name"),
    ([PEER, "-L", "::1:22"], "brackets"),
    ([PEER, "-L", "::1:\n22"], "brackets"),
    ([PEER, "-L", "2222:localhost:22"], "--to on the other side"),
    ([PEER, "22"], "a port belongs to -L"),
    ([PEER, "-6"], "no PEER has an address"),
    (["::1", "-4"], "no PEER has an address"),
    (["::1", "--bind", "127.0.0.1"], "no PEER has an address"),
    (["fe80::1"], "needs its interface"),
    ([PEER, "--bind", "0.0.0.0"], "leave it out"),
    ([PEER, "--bind", "fe80::1"], "needs its interface"),
    ([PEER, "--plain", "--secret-file", "/nowhere", "--show"], "proves nothing"),
    ([PEER, "-L", "unix:"], "no path"),
    ([PEER, "-L", "2222", "-L", "x"], "port number"),
    ([PEER, "--to", "0"], "outside 1–65535"),
    ([PEER, "--to", "nas:99999"], "outside 1–65535"),
    ([PEER, "--to", "nas"], "does not end in a port number"),
    ([PEER, "--to", "nas:"], "does not end in a port number"),
    ([PEER, "--to", ""], "does not end in a port number"),
    (["home.example:no-such-service"], "knows no service 'no-such-service': give the port's number"),
    (["home.example:ssh"], "--to 22 there and -L 2222 here"),
    ([PEER, "--to", "nas:no-such-service"], "knows no service"),
    ([PEER, "--relay", "relay.example:no-such-service"], "knows no service"),
    ([PEER, "--meet", "relay.example:no-such-service"], "knows no service"),
    ([PEER, "--show", "--stun", "stun.example:no-such-service"], "knows no service"),
    (["--doctor", "--ntp", "ntp.example:no-such-service"], "knows no service"),
    ([PEER, "--port", "no-such-service"], "neither a port number nor a service"),
    ([PEER, "--port", "5_0"], "neither a port number nor a service"),
    ([PEER, "--port", "ssh"], "--port 22 is ssh's"),
    ([PEER, "--port", "-1"], "--port -1 is outside"),
    ([PEER, "--bind", "nosuch0"], "--bind"),
    ([PEER, "--bind", "::1", "-4"], "not of the family"),
    ([PEER, "--bind", "198.51.100.1", "-6"], "not of the family"),
    ([PEER, "-4", "-6"], "contradict"),
    ([PEER, "-q", "-v"], "contradict"),
    ([PEER, "--stdio", "-L", "2222"], "contradicts"),
    ([PEER, "--stdio", "--to", "22"], "contradicts"),
    ([PEER, "-n", "--send-only"], "nothing to do"),
    ([PEER, "--recv-only", "--send-only"], "nothing to do"),
    ([PEER, "-n", "-L", "2222"], "are for stdio"),
    ([PEER, "--send-only", "--to", "22"], "are for stdio"),
    ([PEER, "--recv-only", "--to", "22"], "are for stdio"),
    ([PEER, "-f"], "-f is for -L and --to"),
    ([PEER, "-f", "-L", "2222", "-z"], "-f is for -L and --to"),
    ([PEER, "--pid-file", "x", "-L", "2222"], "--pid-file is for -f"),
    (["--doctor", "-f"], "as a whole"),
    ([PEER, "-k"], "--recv-only"),
    ([PEER, "-k", "-z", "--recv-only"], "-z"),
    ([PEER, "-z", "--progress"], "-z"),
    ([PEER, "--progress", "-L", "2222"], "is for stdio"),
    ([PEER, "--progress", "--to", "22"], "is for stdio"),
    ([PEER, "--status-fd", "1"], "mix events"),
    ([PEER, "--status-fd", "1000000"], "not open"),
    ([PEER, "--status-fd", "-1"], "not open"),
    ([PEER, "--status-fd", "three"], "--status-fd"),
    ([PEER, "-L", "2222", "--to", "22", "--status-fd", "0"], "reading only"),
    ([PEER, "--to", "22"], "--no-secret"),
    ([PEER, "-k", "-L", "2222", "--to", "22"], "--no-secret"),
    ([PEER, "--plain", "--to", "22"], "--no-secret"),
    # One of them is another machine; and a name may be, tomorrow.
    (["127.0.0.1", PEER, "--to", "22"], "--no-secret"),
    (["localhost", "--to", "22"], "--no-secret"),
    ([PEER, "--no-secret", "--require-secret"], "contradicts"),
    ([PEER, "--no-secret", "--secret-file", "x"], "contradicts"),
    ([PEER, "--no-secret", "--ask-secret"], "contradicts"),
    ([PEER, "--doctor"], "as a whole"),
    (["--relay", "192.0.2.1"], "there is no secret to meet with"),
    (["--meet", "192.0.2.1", "--to", "22"], "there is no secret to meet with"),
    (["--relay", "192.0.2.1", "--plain"], "leave out --plain"),
    (["--relay", "192.0.2.1", "--resume", "0"], "contradict --resume 0"),
    (["--relay", "a b"], "--relay"),
    (["--meet", "192.0.2.1:0"], "--meet"),
    (["--meet", "unix:/x"], "--meet"),
    ([PEER, "--birthday", "300"], "by appointment alone"),
    (["--relay", "192.0.2.1", "--birthday", "2000"], "outside 0–1024"),
    (["--relay", "192.0.2.1", "--birthday", "-1"], "outside 0–1024"),
    ([PEER, "--sessions", "2"], "for a side with -k and --to"),
    ([PEER, "-k", "--to", "22", "--sessions", "0"], "from 1 on"),
    ([PEER, "--via", "ssh gate"], "at the other end of the command"),
    ([PEER, "--via", "ssh gate", "--plain"], "on the way of the command"),
    ([PEER, "--require-secret"], "there is none"),
    ([PEER, "--ask-secret"], "needs a terminal"),
    ([PEER, "--secret-file", "x", "--ask-secret"], "contradict"),
    ([PEER, "-L", "unix:/" + "a" * 108], "at most 107 bytes"),
    (["--forget", "-k"], "only --doctor"),
    (["--peers", "-k"], "no other option but --json"),
    (["--pair", "nas", "--to", "22"], "--pair takes PEERs"),
    (["--pair", "no name"], "is no name for a peer"),
    ([PEER, "--stun", "192.0.2.1"], "for --doctor"),
    ([PEER, "--ntp", "192.0.2.1"], "for --doctor"),
    (["--doctor", "--bind", "nosuch0"], "--bind"),
    (["--doctor", "--channel", "a"], "as a whole"),
    (["--doctor", "-4"], "as a whole"),
    (["--doctor", "-6"], "as a whole"),
    (["--doctor", "-k", "-L", "80", "--plain"], "as a whole"),
    (["--doctor", "--stun", "unix:/x"], "--stun"),
    (["--doctor", "--stun", "192.0.2.1:0"], "--stun"),
    (["--doctor", "--stun", ":3478"], "--stun"),
    (["--doctor", "--stun", ""], "--stun"),
    (["--doctor", "--ntp", "a b"], "--ntp"),
    *(([PEER, option, value], option) for option in ("-w", "-i", "--clock-offset") for value in ("nan", "inf")),
    *(([PEER, option, value], option) for option in ("-w", "-i") for value in ("-1", "-inf")),
    *(([PEER, option, "10 min"], "as in 90s, 10m") for option in ("-w", "-i", "--resume", "--clock-offset")),
    ([PEER, "-w", "-10m"], "such as 600"),
    ([PEER, "-w", "soon"], "-w"),
    ([PEER, "-w"], "-w"),
    ([PEER, "--to"], "--to"),
    ([PEER, "--channel"], "--channel"),
    ([PEER, "--no-such-option"], "--no-such-option"),
]


def run(*arguments: str | bytes, keep: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run the real command."""
    return subprocess.run(
        [sys.executable, "-m", "punchtunnel", *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        cwd=Path(punchtunnel.__file__).parent.parent,
        env=os.environ | {"COLUMNS": "100", "LC_ALL": "C.UTF-8"},
        timeout=60,
        pass_fds=() if keep is None else (keep,),
    )


def assert_one_sentence(stderr: str) -> None:
    assert re.fullmatch(r"punchtunnel: [^A-Z\n][^\n]*\n", stderr)
    for unwanted in ("Usage:", "Traceback", "Error", "\x1b"):
        assert unwanted not in stderr


@pytest.mark.parametrize(("arguments", "word"), MISTAKES, ids=[ascii(" ".join(each)) for each, _ in MISTAKES])
def test_a_mistake_gets_one_sentence_and_status_2(
    arguments: list[str], word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # In this process, because a new one for each mistake takes 0.2 s.
    monkeypatch.setattr(sys, "argv", ["punchtunnel", *arguments])
    with pytest.raises(SystemExit) as ended:
        command.main()
    output, errors = capsys.readouterr()
    assert_one_sentence(errors)
    assert "invalid value: " not in errors
    assert word in errors
    assert output == ""
    assert ended.value.code == Exit.USAGE


@pytest.mark.parametrize("given", [["--relay", "192.0.2.1"], ["--meet", "192.0.2.1"]])
def test_a_secret_that_a_relay_could_guess_is_refused(
    given: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["punchtunnel", *given])
    monkeypatch.setenv("PUNCHTUNNEL_SECRET", "correct horse battery staple, and twenty words more")
    with pytest.raises(SystemExit) as ended:
        command.main()
    errors = capsys.readouterr().err
    assert_one_sentence(errors)
    assert "too weak to meet with" in errors
    assert ended.value.code == Exit.USAGE


def test_the_environment_names_relays_and_the_doctor_is_not_kept_from_its_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PUNCHTUNNEL_RELAY", "192.0.2.1 relay.example.org:443")
    monkeypatch.setattr(sys, "argv", ["punchtunnel"])
    with pytest.raises(SystemExit):
        command.main()
    assert "there is no secret to meet with" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["punchtunnel", "--doctor", "--no-map"])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code in (Exit.OK, Exit.LOST)


@pytest.mark.parametrize(
    "arguments", [["-R", "1:b:2"], ["256.1.1.1"], [PEER, "-w", "soon"], [PEER, "--stdio", "--to", "22"]]
)
def test_the_real_command_says_one_sentence_and_exits_with_2(arguments: list[str]) -> None:
    done = run(*arguments)
    assert_one_sentence(done.stderr)
    assert done.stdout == ""
    assert done.returncode == 2


def test_without_an_argument_it_shows_how_to_begin_on_one_screen() -> None:
    """It said that there is no peer, and that was all."""
    done = run()
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert lines[0].startswith("usage: punchtunnel PEER")
    assert len([line for line in lines if line.startswith("  ")]) == 3
    assert len(lines) <= 10
    assert max(map(len, lines)) <= 80


def test_the_examples_without_an_argument_are_those_of_the_man_page() -> None:
    page = (Path(punchtunnel.__file__).parents[1] / "docs" / "man.py").read_text()
    examples = [line.strip() for line in habits.NOTHING_GIVEN.splitlines() if line.startswith("  ")]
    assert "\n    ".join(examples) in page


def test_without_an_argument_and_without_stderr_it_ends_with_2_too() -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f'"{sys.executable}" -m punchtunnel 2>&-'],
        stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False,
        cwd=Path(punchtunnel.__file__).parent.parent,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, b"")


@pytest.mark.parametrize("option", habits.OPTIONS_OF_OTHERS)
def test_an_option_of_another_program_is_none_of_ours(option: str) -> None:
    assert not re.search(rf"^  .*{option}\b", run("--help").stdout, re.MULTILINE)
    assert habits.OPTIONS_OF_OTHERS[option].startswith(f"{option} is ")


def test_a_channel_of_any_bytes_is_used_or_refused_with_a_sentence() -> None:
    """A name that is not UTF-8 ended with a traceback."""
    done = run("127.0.0.1", "--channel", b"\xff", "-w", "0.1")
    assert_one_sentence(done.stderr)
    assert done.returncode in (Exit.USAGE, Exit.NO_HOLE)


def test_help_documents_every_exit_status_and_every_pair_of_roles() -> None:
    done = run("--help")
    assert (done.returncode, done.stderr) == (0, "")
    statuses = done.stdout.partition("Exit status:")[2]
    for status in Exit:
        assert re.search(rf"\b{int(status)}\b", statuses), f"{status!r} is not documented"
    roles = done.stdout.partition("Roles that fit together")[2].partition("Exit status:")[0]
    for pair in (("stdio", "--stdio"), ("stdio", "--to"), ("-L", "--to"), ("-L", "--stdio")):
        assert re.search(rf"{pair[0]} +{pair[1]}\b", roles)


def test_help_names_every_option_once_and_tells_units() -> None:
    text = run("-h").stdout
    for option in ("--stdio", "-L", "--to", "--channel", "-w", "-i", "-k", "-n", "--send-only", "--recv-only"):
        assert re.search(rf"^  .*{option}\b", text, re.MULTILINE), option
    for option in (
        "-4",
        "-6",
        "--bind",
        "--clock-offset",
        "-v",
        "-q",
        "--json",
        "--status-fd",
        "--progress",
        "--show",
        "-z",
        "-N",
        "--doctor",
        "--stun",
        "--ntp",
        "--version",
        "--help",
    ):
        assert re.search(rf"^  .*{option}\b", text, re.MULTILINE), option
    assert len(re.findall(r"^  .* TIME +[A-Z]", text, re.MULTILINE)) == 4
    assert "90s, 10m, 2h, 1d" in text


def test_version_is_the_version_of_the_package() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"punchtunnel {punchtunnel.__version__}\n", "")


@pytest.mark.parametrize("mistake", [["--to", "0"], ["--no-such-option"], ["--progress"]])
def test_with_json_a_mistake_is_told_as_the_exit_event(mistake: list[str]) -> None:
    done = run(PEER, "--json", *mistake)
    assert done.returncode == 2
    first, last = map(json.loads, done.stderr.splitlines())
    assert (first["event"], first["schema"], first["version"]) == ("start", SCHEMA, punchtunnel.__version__)
    assert (last["event"], last["status"]) == ("exit", 2)
    assert last["reason"]
    for event in (first, last):
        check(event)


@pytest.mark.parametrize("mistake", [["--to", "0"], ["--no-such-option"]])
def test_with_a_status_descriptor_a_mistake_is_told_on_both(mistake: list[str], tmp_path: Path) -> None:
    with open(tmp_path / "events", "w+") as file:
        done = run(PEER, "--status-fd", str(file.fileno()), *mistake, keep=file.fileno())
        assert_one_sentence(done.stderr)
        file.seek(0)
        assert [json.loads(line)["event"] for line in file] == ["start", "exit"]


PAGES = ["--version", "--help", "--new-secret", "--show", "--doctor --no-map"]


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize(("out", "reason"), [(">&-", "Bad file descriptor"), (">/dev/full", "No space left on device")])
def test_a_page_that_cannot_be_written_is_one_sentence(page: str, out: str, reason: str) -> None:
    """With stdout closed they ended with 0, and a script took nothing for a secret."""
    command = [sys.executable, "-m", "punchtunnel", *page.split()]
    done = subprocess.run(
        ["/bin/sh", "-c", f'"$@" {out}', "sh", *command],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        cwd=Path(punchtunnel.__file__).parent.parent,
        env=os.environ | {"LC_ALL": "C.UTF-8"},
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, f"punchtunnel: cannot write: {reason}\n")


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_page_whose_reader_has_gone_ends_as_by_sigpipe_and_without_words(page: str, unbuffered: str) -> None:
    """They ended with 1, and --show said that it cannot write, where --doctor ended with 141."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "punchtunnel", *page.split()],
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=subprocess.PIPE,
            cwd=Path(punchtunnel.__file__).parent.parent,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
            timeout=60,
            check=False,
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")
