"""The completion files, in three real shells."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from punchtunnel.address import parse_bind, parse_listen
from punchtunnel.system.addresses import own_addresses

ROOT = Path(__file__).parents[2]
FILES = ROOT / "punchtunnel" / "cli" / "completions"
SHELLS = ("bash", "zsh", "fish")


def tool(*arguments: str, **environment: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "punchtunnel", *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    ).stdout


@pytest.fixture
def shell_environment(tmp_path: Path) -> dict[str, str]:
    """A PATH on which `punchtunnel` is this checkout, and a home without settings."""
    command = tmp_path / "punchtunnel"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m punchtunnel "$@"\n')
    command.chmod(0o755)
    return os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path),
        "TERM": "dumb",
    }


def run_shell(shell: str, script: str, environment: dict[str, str]) -> str:
    path = shutil.which(shell)
    if path is None:
        pytest.skip(f"{shell} is not installed")
    arguments = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[shell]
    done = subprocess.run(
        [path, *arguments, "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_fishs_file_is_what_the_tool_prints() -> None:
    """Those for bash and zsh do more than typer's own: no space behind a colon, and IPv6 in bash."""
    printed = tool(_PUNCHTUNNEL_COMPLETE="source_fish")
    assert (FILES / "punchtunnel.fish").read_text() == printed.lstrip("\n"), "run `make completions`"


# Lets a test name the shell, which is otherwise found among the parents of the process.
NAMED = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
# Where --install-completion puts the script, below a user's home.
INSTALLED = {
    "bash": ".bash_completions/punchtunnel.sh",
    "zsh": ".zfunc/_punchtunnel",
    "fish": ".config/fish/completions/punchtunnel.fish",
}


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_that_is_shown_is_the_file(shell: str) -> None:
    """It was typer's own, which puts a space between an address and its port."""
    assert tool("--show-completion", shell, **NAMED) == (FILES / f"punchtunnel.{shell}").read_text()


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_that_is_installed_is_the_file(shell: str, tmp_path: Path) -> None:
    said = tool("--install-completion", shell, **NAMED, HOME=str(tmp_path))
    installed = tmp_path / INSTALLED[shell]
    assert str(installed) in said.replace("\n", "")
    assert installed.read_text().rstrip() == (FILES / f"punchtunnel.{shell}").read_text().rstrip()


def test_the_shell_that_asks_is_found(shell_environment: dict[str, str]) -> None:
    # The last command would replace the shell.
    shown = run_shell("bash", "punchtunnel --show-completion; true", shell_environment)
    assert shown == (FILES / "punchtunnel.bash").read_text()


def test_bash_completes_once_the_script_is_installed(shell_environment: dict[str, str]) -> None:
    script = """
        punchtunnel --install-completion >/dev/null
        source ~/.bashrc
        complete -p punchtunnel
    """
    assert "-F _punchtunnel_completion" in run_shell("bash", script, shell_environment)


def test_bash_completes_options(shell_environment: dict[str, str]) -> None:
    script = f"""
        source {FILES}/punchtunnel.bash
        complete -p punchtunnel >/dev/null
        COMP_LINE='punchtunnel --s' COMP_POINT=15
        _punchtunnel_completion punchtunnel
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    assert {"--stdio", "--send-only"} <= set(run_shell("bash", script, shell_environment).split())


@pytest.mark.parametrize("columns", ["40", "80"])
def test_an_option_is_one_offer_however_narrow_the_terminal_is(columns: str) -> None:
    """What an option is for was wrapped, and bash offered pieces of it."""
    asked = {"_TYPER_COMPLETE_ARGS": "punchtunnel --", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    offers = tool(COLUMNS=columns, _PUNCHTUNNEL_COMPLETE="complete_fish", **asked).splitlines()
    assert len(offers) > 20
    assert [offer for offer in offers if not offer.startswith("--")] == []


def test_zsh_completes_options(shell_environment: dict[str, str]) -> None:
    # compadd only works inside a completion; a stand-in shows what would be offered.
    script = f"""
        autoload -U compinit && compinit -D
        source {FILES}/punchtunnel.zsh
        [[ $_comps[punchtunnel] == _punchtunnel_completion ]] || exit 1
        _arguments() {{ print -r -- "$@" }}
        words=(punchtunnel --s); CURRENT=2
        _punchtunnel_completion
    """
    offered = run_shell("zsh", script, shell_environment)
    assert "--stdio" in offered
    assert "--send-only" in offered


def test_fish_completes_options(shell_environment: dict[str, str]) -> None:
    script = f"source {FILES}/punchtunnel.fish; complete --do-complete 'punchtunnel --s'"
    offered = [line.split("\t")[0] for line in run_shell("fish", script, shell_environment).splitlines()]
    assert {"--stdio", "--send-only"} <= set(offered)


# ---- values


class Terminal:
    """An interactive shell in a terminal: keys in, and everything that it shows."""

    def __init__(self, arguments: list[str], environment: dict[str, str]) -> None:
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            arguments, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
        )
        os.close(slave)
        self.shown = ""

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def expect(self, text: str) -> str:
        """Read until `text` is shown, forget everything up to it, and return what was before it."""
        while text not in self.shown:
            assert select.select([self._master], [], [], 30)[0], f"{text!r} is not in {self.shown!r}"
            self.shown += os.read(self._master, 4096).decode(errors="replace")
        before, _, self.shown = self.shown.partition(text)
        return before

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)


PREPARE = {
    "bash": "bind 'set bell-style none'; bind 'set enable-bracketed-paste off'",
    "zsh": "unsetopt zle_bracketed_paste; autoload -U compinit && compinit -D",
}

# Line, how it goes on, and what is typed behind it.
Complete = Callable[..., None]


@pytest.fixture(params=SHELLS)
def complete(request: pytest.FixtureRequest, shell_environment: dict[str, str]) -> Iterator[Complete]:
    """Press Tab behind a line in each shell, and see how it goes on; fish can say it without a terminal."""
    shell = request.param
    if shell == "fish":
        yield lambda line, rest, *_: run_fish(line, rest, shell_environment)
        return
    path = shutil.which(shell)
    if path is None:
        pytest.skip(f"{shell} is not installed")
    arguments = {"bash": ["--norc", "-i"], "zsh": ["-f", "-i"]}[shell]
    terminal = Terminal([path, *arguments], shell_environment | {"COLUMNS": "200"})

    def press_tab(line: str, rest: str, then: str = "") -> None:
        # Split, so that the echo of the line is not taken for its output.
        terminal.press(f"{PREPARE[shell]}; source {FILES}/punchtunnel.{shell}; echo rea''dy\n")
        terminal.expect("ready")
        terminal.press(f"{line}\t")
        terminal.expect(rest)
        if then:
            terminal.press(then)
            assert " " not in terminal.expect(then)

    try:
        yield press_tab
    finally:
        terminal.close()


def run_fish(line: str, rest: str, environment: dict[str, str]) -> None:
    script = f"source {FILES}/punchtunnel.fish; complete --do-complete '{line}'"
    offered = [line.split("\t")[0] for line in run_shell("fish", script, environment).splitlines()]
    assert line.split()[-1] + rest in offered


def test_file_of_the_secret_is_completed_in_every_shell(complete: Complete, tmp_path: Path) -> None:
    (tmp_path / "a-well-kept-secret").touch()
    complete(f"punchtunnel --secret-file {tmp_path}/a-well", "-kept-secret")


def test_an_own_address_is_completed_in_every_shell(complete: Complete) -> None:
    complete("punchtunnel --bind 127.0.0", ".1")


def test_the_address_of_a_local_port_is_completed_in_every_shell(complete: Complete) -> None:
    complete("punchtunnel -L 127.0.0", ".1:")


@pytest.mark.parametrize("complete", ["bash", "zsh"], indirect=True)
def test_the_port_is_typed_right_behind_its_address(complete: Complete) -> None:
    """There was a space between, and the port became a PEER."""
    complete("punchtunnel -L 127.0.0", ".1:", "2222")


@pytest.mark.parametrize("complete", ["bash", "zsh"], indirect=True)
def test_an_address_with_colons_is_completed(complete: Complete) -> None:
    """bash takes a colon for the end of a word."""
    if "::1" not in own_addresses():
        pytest.skip("no IPv6 here")
    complete("punchtunnel --bind ::", "1")


def test_every_own_address_is_offered_as_bind_and_listen_take_it() -> None:
    own = own_addresses()
    assert "127.0.0.1" in own
    for address in own:
        assert parse_bind(address)
    assert offered("--bind", "") == own
    for place in offered("-L", ""):
        assert parse_listen(f"{place}22")


def offered(option: str, incomplete: str) -> list[str]:
    """Return what the tool offers to bash behind an option."""
    words = f"punchtunnel\n{option}\n{incomplete}"
    return tool(_PUNCHTUNNEL_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD="2").split()


def test_nothing_is_offered_for_a_peer_because_none_is_remembered(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "punchtunnel", "127.0.0.1", "-w", "0.2"],
        env=os.environ | {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path)},
        cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False,
    )  # fmt: skip
    assert not list(tmp_path.iterdir())
    assert tool(_PUNCHTUNNEL_COMPLETE="complete_bash", COMP_WORDS="punchtunnel\n12", COMP_CWORD="1").split() == []
