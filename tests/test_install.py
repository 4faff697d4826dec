"""pip, pipx and uv install it from a checkout, a wheel and an sdist, under every Python that is at hand.

Everything happens in virtual environments of the test's own, with whatever the
package index says the dependencies are.  Without an index these tests are
skipped, with its last word as the reason.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

import punchtunnel

ROOT = Path(__file__).parent.parent
# Seconds for one step: a slow index, a busy machine.
LIMIT = 300

pytestmark = [pytest.mark.exhaustive, pytest.mark.timeout(900)]

# What a package must leave below its prefix.
SHARED = {
    "share/man/man1/punchtunnel.1": "docs/punchtunnel.1",
    "share/bash-completion/completions/punchtunnel": "punchtunnel/cli/completions/punchtunnel.bash",
    "share/zsh/site-functions/_punchtunnel": "punchtunnel/cli/completions/punchtunnel.zsh",
    "share/fish/vendor_completions.d/punchtunnel.fish": "punchtunnel/cli/completions/punchtunnel.fish",
}


def pythons() -> dict[str, str]:
    """Return one interpreter of each version from 3.11 on: on PATH, or among pyenv's."""
    found = {f"{sys.version_info.major}.{sys.version_info.minor}": sys.executable}
    for minor in range(11, 30):
        version = f"3.{minor}"
        # pyenv's shims are on PATH also for versions that they then refuse to run.
        candidates = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}"), reverse=True)
        on_path = shutil.which(f"python{version}")
        if on_path is not None and "/shims/" not in on_path:
            candidates.append(Path(on_path))
        if candidates:
            found.setdefault(version, str(candidates[0]))
    return found


PYTHONS = pythons()


def environment() -> dict[str, str]:
    """Return an environment in which only what is installed is found."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    # uv brings certificates of its own, which do not know a proxy between this machine and the index.
    return kept | {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "UV_SYSTEM_CERTS": "1", "LC_ALL": "C.UTF-8"}


def run(command: Sequence[str | Path], **extra: str) -> str:
    """Run a command that must work, away from the checkout; return what it said."""
    done = subprocess.run(
        [str(word) for word in command], env=environment() | extra, cwd="/", stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LIMIT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}"
    return done.stdout


@dataclass(frozen=True)
class Built:
    """The tools of packagers, and what they have made of this checkout."""

    bin: Path
    wheel: Path
    sdist: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("built")
    run([sys.executable, "-m", "venv", folder / "venv"])
    python = folder / "venv" / "bin" / "python"
    got = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--upgrade", "pip", "hatchling", "pipx", "uv"],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LIMIT, check=False,
    )  # fmt: skip
    if got.returncode:
        pytest.skip(f"the package index cannot be reached: {got.stdout.strip().splitlines()[-1]}")
    # A copy, because a build leaves nothing behind in a checkout of somebody else.
    source = folder / "source"
    unwanted = shutil.ignore_patterns(".*", "__pycache__", "build", "dist")
    shutil.copytree(ROOT, source, ignore=unwanted)
    shutil.copy(ROOT / ".gitignore", source)
    subprocess.run([python, "-m", "hatchling", "build", "-d", folder / "dist"], cwd=source, timeout=LIMIT, check=True)
    (wheel,) = (folder / "dist").glob("*.whl")
    (sdist,) = (folder / "dist").glob("*.tar.gz")
    return Built(python.parent, wheel, sdist)


def check_installation(command: Path, prefix: Path) -> None:
    """The command runs, two of it meet, and every file is where its reader looks for it."""
    assert run([command, "--version"]) == f"punchtunnel {punchtunnel.__version__}\n"
    for place, source in SHARED.items():
        assert (prefix / place).read_bytes() == (ROOT / source).read_bytes()
    # The name makes typer take the shell from the command line.
    shown = run([command, "--show-completion", "bash"], _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert shown == (ROOT / "punchtunnel/cli/completions/punchtunnel.bash").read_text()
    (licence,) = prefix.glob("lib/python3*/site-packages/punchtunnel-*.dist-info/licenses/LICENSE")
    assert licence.read_bytes() == (ROOT / "LICENSE").read_bytes()
    program = "import punchtunnel; print(punchtunnel.__file__, punchtunnel.connect.__name__)"
    (python,) = prefix.glob("bin/python")
    where, name = run([python, "-c", program]).split()
    assert Path(where).is_relative_to(prefix)
    assert (Path(where).parent / "py.typed").exists()
    assert name == "connect"
    check_transfer(command)


def check_transfer(command: Path) -> None:
    """Send some bytes from one process to another: no dependency is missing."""
    net = f"127.{1 + secrets.randbelow(250)}.{secrets.randbelow(256)}"
    channel = secrets.token_hex(8)
    with contextlib.ExitStack() as stack:
        ends = []
        for own, peer in ((1, 2), (2, 1)):
            words = [str(command), f"{net}.{peer}", "--bind", f"{net}.{own}", "--channel", channel, "-w", "60"]
            end = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(), cwd="/")
            stack.enter_context(end)
            stack.callback(end.kill)
            ends.append(end)
        assert ends[0].stdin is not None
        ends[0].stdin.write(b"through the hole")
        ends[0].stdin.close()
        ends[0].stdin = None
        assert ends[1].communicate(timeout=LIMIT)[0] == b"through the hole"
        assert [end.wait(LIMIT) for end in ends] == [0, 0]


def install(built: Built, python: str, what: Path, folder: Path) -> None:
    """Install with the newest pip into a virtual environment of its own, and look at it."""
    run([python, "-m", "venv", "--without-pip", folder])
    run([built.bin / "pip", "--python", folder, "install", "--quiet", what])
    run([built.bin / "pip", "--python", folder, "check"])
    check_installation(folder / "bin" / "punchtunnel", folder)


@pytest.mark.parametrize("version", PYTHONS)
def test_pip_installs_the_wheel_under_every_python(built: Built, tmp_path: Path, version: str) -> None:
    install(built, PYTHONS[version], built.wheel, tmp_path / "venv")


def test_pip_installs_the_sdist(built: Built, tmp_path: Path) -> None:
    install(built, sys.executable, built.sdist, tmp_path / "venv")


def test_pip_installs_a_checkout(built: Built, tmp_path: Path) -> None:
    install(built, sys.executable, ROOT, tmp_path / "venv")


def test_pipx_installs_a_checkout(built: Built, tmp_path: Path) -> None:
    places = {"PIPX_HOME": tmp_path / "home", "PIPX_BIN_DIR": tmp_path / "bin", "PIPX_MAN_DIR": tmp_path / "man"}
    run([built.bin / "pipx", "install", ROOT], **{name: str(place) for name, place in places.items()})
    check_installation(tmp_path / "bin" / "punchtunnel", tmp_path / "home" / "venvs" / "punchtunnel")
    assert (tmp_path / "man" / "man1" / "punchtunnel.1").exists()


def test_uv_installs_a_checkout(built: Built, tmp_path: Path) -> None:
    places = {
        "UV_TOOL_DIR": tmp_path / "tools",
        "UV_TOOL_BIN_DIR": tmp_path / "bin",
        "UV_CACHE_DIR": tmp_path / "cache",
    }
    command: list[str | Path] = [built.bin / "uv", "tool", "install", "--python", sys.executable, ROOT]
    run(command, **{name: str(place) for name, place in places.items()})
    check_installation(tmp_path / "bin" / "punchtunnel", tmp_path / "tools" / "punchtunnel")


def test_sdist_has_what_the_tests_and_the_docs_need_and_nothing_else(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = [
        "LICENSE",
        "README.md",
        "CHANGELOG.md",
        "Makefile",
        "docs/punchtunnel.1",
        "docs/man.py",
        "tests/cli/test_man.py",
    ]
    assert names >= {*wanted, *SHARED.values()}
    assert not [name for name in names if "__pycache__" in name or name.endswith((".pyc", ".egg-info"))]
