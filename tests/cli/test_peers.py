"""Saved peers: what a name stands for, what goes before it, and files that are wrong or too open."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

import pytest

from punchtunnel import words
from punchtunnel.cli import command, peers, run
from punchtunnel.cli.options import Options
from punchtunnel.cli.peers import Saved
from punchtunnel.errors import Exit, LocalError, UsageError
from punchtunnel.protocol.secret import normal

SECRET = "39dm-0teb-nmj3-k5sh-t62h-1tra-md"
LAPTOP = f"""
[laptop]
secret = "{SECRET}"
peers = ["203.0.113.9", "2001:db8::9"]
channel = "of the pair"
wait = 30
listen = ["2222", "8080"]
keep-open = true
"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path / "punchtunnel" / "peers.toml"


def write(path: Path, text: str, mode: int = 0o600) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def given(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[Options, bytes]:
    """Return the options that a run gets for a command line, and the saved secret."""
    found: list[tuple[Options, bytes]] = []

    def note(options: Options, _status: object, saved: bytes, *_more: object) -> tuple[Exit, str]:
        found.append((options, saved))
        return Exit.OK, ""

    monkeypatch.setattr(run, "_perform", note)
    monkeypatch.setattr(sys, "argv", ["punchtunnel", *arguments])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == Exit.OK
    return found[0]


def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return the one line with which a command line is refused."""
    monkeypatch.setattr(sys, "argv", ["punchtunnel", *arguments])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == Exit.USAGE
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


@pytest.mark.parametrize(
    ("home", "config", "expected"),
    [
        ("/home/a", "", "/home/a/.config/punchtunnel/peers.toml"),
        ("/home/a", "/etc/a", "/etc/a/punchtunnel/peers.toml"),
        ("/home/a", "relative", "/home/a/.config/punchtunnel/peers.toml"),
        ("", "", "/.config/punchtunnel/peers.toml"),
    ],
)
def test_they_are_where_other_programs_keep_such_files(home: str, config: str, expected: str) -> None:
    assert peers.path_of({"HOME": home, "XDG_CONFIG_HOME": config}) == Path(expected)


@pytest.mark.parametrize(
    ("saved", "to"),
    [
        ('"22"', ["22"]),
        ("22", ["22"]),
        ('["ssh=22", "web=nas:80"]', ["ssh=22", "web=nas:80"]),
        ('"ssh=22"', ["ssh=22"]),
    ],
)
def test_one_text_or_number_is_a_list_of_one(
    saved: str, to: list[str], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A saved relay = "relay.example" was read letter by letter."""
    write(path, f'[laptop]\npeers = ["203.0.113.9"]\nto = {saved}\nrelay = "relay.example"\n')
    options, _ = given(monkeypatch, "laptop")
    assert (options.to, options.relay) == (to, ["relay.example"])


@pytest.mark.parametrize("role", [["-L", "2222"], ["--to", "80"], ["--stdio"], ["--stdio=web"]])
@pytest.mark.parametrize("saved", ['stdio = "ssh"', "to = 22", 'listen = ["2222=ssh", "8080"]'])
def test_a_role_on_the_command_line_takes_the_place_of_the_saved_one(
    role: list[str], saved: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A saved `stdio` could not be overridden: -L beside it was a contradiction."""
    write(path, f'[home]\npeers = ["203.0.113.9"]\nwait = 30\n{saved}\n')
    options, _ = given(monkeypatch, "home", *role)
    alone, _ = given(monkeypatch, "203.0.113.9", "-w", "30", *role)
    assert options == alone


def test_a_saved_service_can_be_checked(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A saved flag cannot be taken back on the command line: -z was said to contradict -k, which nobody typed."""
    saved = 'to = 22\nkeep-open = true\nsessions = 3\nprogress = true\nbackground = true\npid-file = "pid"\n'
    write(path, f'[home]\npeers = ["203.0.113.9"]\nwait = 30\n{saved}')
    options, _ = given(monkeypatch, "home", "-z")
    alone, _ = given(monkeypatch, "203.0.113.9", "-w", "30", "--to", "22", "-z")
    assert options == alone


@pytest.mark.parametrize(("saved", "stdio", "service"), [("true", True, None), ('"ssh"', False, "ssh")])
def test_stdio_is_saved_as_a_flag_or_with_the_name_of_a_service(
    saved: str, stdio: bool, service: str | None, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(path, f'[home]\npeers = ["203.0.113.9"]\nstdio = {saved}\n')
    options, _ = given(monkeypatch, "home")
    assert (options.stdio, options.service) == (stdio, service)
    assert given(monkeypatch, "home", "--stdio=web")[0].service == "web"


def test_a_name_stands_for_addresses_a_secret_and_options(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path, LAPTOP)
    options, secret = given(monkeypatch, "laptop")
    assert options.peers == ["203.0.113.9", "2001:db8::9"]
    assert (options.channel, options.wait, options.listen, options.keep) == (
        "of the pair",
        30.0,
        ["2222", "8080"],
        True,
    )
    assert secret == normal(SECRET)


@pytest.mark.parametrize("port", ["443", '"443"', '"https"'])
def test_a_saved_port_is_a_number_or_a_service(path: Path, port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path, f'[home]\npeers = ["home.example:https"]\nrelay = ["relay.example:https"]\nport = {port}\n')
    options, _ = given(monkeypatch, "home")
    assert (options.peers, options.relay, options.port) == (["home.example:443"], ["relay.example:443"], 443)


def test_the_command_line_goes_before_what_is_saved(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path, LAPTOP)
    options, _ = given(monkeypatch, "laptop", "-w", "5", "--channel", "another", "-L", "3333")
    assert (options.channel, options.wait, options.listen) == ("another", 5.0, ["3333"])


@pytest.mark.parametrize("arguments", [["203.0.113.9"], ["desktop"], ["desktop", "198.51.100.7"], ["laptop:2222"]])
def test_nothing_else_is_a_name(path: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    write(path, LAPTOP)
    options, secret = given(monkeypatch, *arguments)
    assert (options.peers or [], secret) == (arguments, b"")


@pytest.mark.parametrize("arguments", [["laptop", "198.51.100.7"], ["friend", "laptop"], ["laptop", "laptop"]])
def test_a_saved_peer_is_met_alone(
    arguments: list[str], path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beside others it could not be resolved, or there was no secret."""
    write(path, LAPTOP)
    assert "laptop is a saved peer" in (said := refusal(monkeypatch, capsys, *arguments))
    assert "start one run for each" in said


@pytest.mark.parametrize("text", ["", LAPTOP])
def test_a_name_that_is_neither_saved_nor_resolved_may_have_been_mistyped(
    text: str, path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> NoReturn:
        raise UsageError(words.unresolved(peer, "Name or service not known"))

    write(path, text)
    monkeypatch.setattr(run, "_perform", fail)
    added = "; and no saved peer is called laptp (punchtunnel --peers lists them)\n"
    peer = "laptp"
    assert refusal(monkeypatch, capsys, "laptp").endswith(added)
    peer = "relay"
    assert "saved peer" not in refusal(monkeypatch, capsys, "laptp")
    peer = "laptp.example"
    assert "saved peer" not in refusal(monkeypatch, capsys, "laptp.example")


def test_without_a_file_every_peer_is_what_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert given(monkeypatch, "laptop")[0].peers == ["laptop"]
    assert not path.exists()


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o660])
def test_a_file_that_others_can_read_is_refused(path: Path, mode: int) -> None:
    write(path, LAPTOP, mode)
    with pytest.raises(LocalError, match="others on this machine can read"):
        peers.read(path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (f'[laptop]\nsecret = "{SECRET}" and more', r"wrong at line 2, column \d+$"),
        (f'[laptop]\nsecret = "{SECRET}"\nsecret = "{SECRET}"\n', r"wrong at line 3, column \d+ \(a key, or a name"),
        ("[laptop]\n[laptop]\n", "stands twice"),
        (f'[büro]\nsecret = "{SECRET}"', r"line 1, column 3 \(a name in brackets has letters, digits, - and _"),
        ('[laptop]\nsecret = " "', r"peers.toml: \[laptop\] secret: the secret is empty"),
        ("[laptop]\npeers = 7", "is no saved peer"),
        ("[laptop]\nsecret = 7", "is no saved peer"),
        ('["not a name"]', "is no saved peer"),
        ("laptop = 7", "is no saved peer"),
        ("[laptop]\nwait = [1]", r"peers.toml: \[laptop\] wait: needs a text in quotes, a number"),
        ("[laptop]\nto = {a = 1}", r"peers.toml: \[laptop\] to: needs a text in quotes, a number"),
    ],
)
def test_a_file_that_is_wrong_says_where_and_shows_no_secret(path: Path, text: str, sentence: str) -> None:
    write(path, text)
    with pytest.raises(UsageError, match=sentence) as caught:
        peers.read(path)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_file_in_another_encoding_is_said_to_be_no_utf_8(path: Path) -> None:
    """The sentence was: it is wrong at not UTF-8."""
    write(path, LAPTOP)
    path.write_bytes(path.read_bytes() + "# Büro".encode("latin-1"))
    with pytest.raises(UsageError, match=r"peers.toml cannot be read: it is no text in UTF-8$"):
        peers.read(path)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("stdio = 3", "stdio: needs true, or the name of a service in quotes"),
        ("keep-open = 3", "keep-open: needs true or false"),
        ('wait = "abc"', "wait: 'abc' is no time: give seconds, or a number with its unit"),
        ("wait = true", "wait: 'true' is no time"),
        ('port = "no such"', "port: 'no such' is neither a port number nor a service"),
        ("resume = []", "resume: needs a number, or a text in quotes"),
        ('verbose = "x"', "verbose: needs a number from 0 on"),
        ("verbose = -1", "verbose: needs a number from 0 on"),
        ("verbose = true", "verbose: needs a number from 0 on"),
        ("sessions = 2.5", "sessions: needs a whole number"),
        ("log = 5", "log: needs a text in quotes"),
        ("to = true", "to: needs a text in quotes, or a list of them"),
        *(
            (f"{page} = true", f"has {page}, which is no option of a saved peer")
            for page in ("version", "new-secret", "pair", "show", "doctor", "forget", "help", "stdio-service")
        ),
    ],
)
def test_a_value_that_an_option_does_not_take_names_the_file_the_peer_and_the_key(
    line: str, sentence: str, path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They were tracebacks, a page instead of a run, or a file that was called 5."""
    write(path, f'[home]\npeers = ["203.0.113.9"]\n{line}\n')
    assert f"{path}: [home] {sentence}" in refusal(monkeypatch, capsys, "home")


def test_an_option_that_is_none_is_told_when_the_peer_is_used(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(path, LAPTOP + "\n[other]\ncolour = 7\n")
    assert given(monkeypatch, "laptop")[0].peers
    assert "[other] has colour, which is no option" in refusal(monkeypatch, capsys, "other")


def test_a_secret_is_never_part_of_what_is_shown(path: Path) -> None:
    write(path, LAPTOP)
    assert normal(SECRET).decode() not in repr(peers.read(path))


def test_a_peer_is_added_behind_what_is_there_and_only_once(path: Path) -> None:
    peers.add(path, Saved("laptop", ("203.0.113.9",), options={"channel": 'a "b"', "relay": ["r:1"]}), SECRET)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    path.write_text("# mine\n" + path.read_text())
    peers.add(path, Saved("home"), SECRET)
    saved = peers.read(path)
    assert path.read_text().startswith("# mine\n[laptop]\n")
    assert saved["laptop"] == Saved("laptop", ("203.0.113.9",), normal(SECRET), {"channel": 'a "b"', "relay": ["r:1"]})
    assert saved["home"] == Saved("home", (), normal(SECRET))
    with pytest.raises(UsageError, match="there is a peer home already"):
        peers.add(path, Saved("home"), SECRET)
    assert [one.name for one in path.parent.iterdir()] == ["peers.toml"]


def test_a_folder_that_cannot_be_written_is_told(path: Path) -> None:
    path.parent.write_text("a file")
    with pytest.raises(LocalError, match="cannot write"):
        peers.add(path, Saved("home"), SECRET)
