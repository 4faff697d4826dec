"""pip, pipx and uv install it from a checkout, a wheel and an sdist, under every Python that is at hand.

punchtunnel.pyz runs under each of them that it is for, with nothing installed.

Everything happens in virtual environments of the test's own, with whatever the
package index says the dependencies are.  Without an index these tests are
skipped, with its last word as the reason.
"""

from __future__ import annotations

import contextlib
import os
import re
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
from release import preamble

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


# In a shell's own words: pipx and uv install also what is in README.
INSTALL_LINES = [
    command.strip()
    for line in re.findall(r"^(?:pipx|uv|pip) .*", (ROOT / "README.md").read_text(), re.MULTILINE)
    for command in [line.partition("#")[0], *re.findall(r"(?:uv tool|pip) install \S+", line.partition("#")[2])]
]


def run(command: Sequence[str | Path], cwd: str | Path = "/", **extra: str) -> str:
    """Run a command that must work, away from the checkout unless told; return what it said."""
    done = subprocess.run(
        [str(word) for word in command], env=environment() | extra, cwd=cwd, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LIMIT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}"
    return done.stdout


@dataclass(frozen=True)
class Built:
    """The tools of packagers, a copy of this checkout, and what `make dist` has made of it."""

    bin: Path
    source: Path
    wheel: Path
    sdist: Path
    pyz: Path


@pytest.fixture(scope="session")
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
    source = copy_of_checkout(folder / "source")
    make_dist(source)
    (wheel,) = (source / "dist").glob("*.whl")
    (sdist,) = (source / "dist").glob("*.tar.gz")
    return Built(python.parent, source, wheel, sdist, source / "dist" / "punchtunnel.pyz")


def copy_of_checkout(folder: Path) -> Path:
    """Copy the checkout, because a build leaves nothing behind in one of somebody else."""
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".*", "__pycache__", "build", "dist"))
    shutil.copy(ROOT / ".gitignore", folder)
    return folder


def make_dist(source: Path, umask: int = 0o022, **extra: str) -> str:
    """Do in a copy what `make dist` does; return its sums."""
    command = [sys.executable, "-m", "release"]
    subprocess.run(command, cwd=source, env=environment() | extra, timeout=LIMIT, check=True, umask=umask)
    return (source / "dist" / "SHA256SUMS").read_text()


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
    check_transfer([command])


def check_transfer(command: Sequence[str | Path], **extra: str) -> None:
    """Send some bytes from one process to another: no dependency is missing."""
    net = f"127.{1 + secrets.randbelow(250)}.{secrets.randbelow(256)}"
    channel = secrets.token_hex(8)
    with contextlib.ExitStack() as stack:
        ends = []
        for own, peer in ((1, 2), (2, 1)):
            words = [*command, f"{net}.{peer}", "--bind", f"{net}.{own}", "--channel", channel, "-w", "60"]
            end = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment() | extra, cwd="/"
            )
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


@pytest.mark.parametrize("line", INSTALL_LINES)
def test_what_readme_says_installs_it(built: Built, tmp_path: Path, line: str) -> None:
    """In a clone today, and from an index once it has the package: here a folder of packages plays that part."""
    folders = {
        "PIPX_BIN_DIR": tmp_path / "bin",
        "PIPX_HOME": tmp_path / "pipx",
        "PIPX_MAN_DIR": tmp_path / "man",
        "UV_CACHE_DIR": built.source.parent / "cache",
        "UV_FIND_LINKS": built.wheel.parent,
        "UV_TOOL_BIN_DIR": tmp_path / "bin",
        "UV_TOOL_DIR": tmp_path / "uv",
    }
    links = f"{built.wheel.parent} {os.environ.get('PIP_FIND_LINKS', '')}"
    path = f"{tmp_path}/pip/bin:{built.bin}:{os.environ['PATH']}"
    pythons = {"PIPX_DEFAULT_PYTHON": sys.executable, "UV_PYTHON": sys.executable}
    run([sys.executable, "-m", "venv", tmp_path / "pip"])
    places = {name: str(place) for name, place in folders.items()} | pythons | {"PIP_FIND_LINKS": links, "PATH": path}
    from_clone = re.search(r"install '?\.", line)
    run(["/bin/sh", "-c", line], cwd=built.source if from_clone else "/", **places)
    tool = line.partition(" ")[0]
    prefix = tmp_path / {"pip": "pip", "pipx": "pipx/venvs/punchtunnel", "uv": "uv/punchtunnel"}[tool]
    check_installation(tmp_path / ("pip/bin" if tool == "pip" else "bin") / "punchtunnel", prefix)
    if tool == "pipx":
        assert (tmp_path / "man" / "man1" / "punchtunnel.1").exists()
    if "[upnp]" in line:
        run([prefix / "bin" / "python", "-c", "import miniupnpc"])


def test_readme_has_lines_for_a_clone_and_for_an_index() -> None:
    assert {"pipx install .", "uv tool install .", "pip install .", "pipx install punchtunnel"} <= {*INSTALL_LINES}


@pytest.mark.parametrize("version", PYTHONS)
def test_one_file_runs_where_nothing_is_installed(built: Built, tmp_path: Path, version: str) -> None:
    run([PYTHONS[version], "-m", "venv", "--without-pip", tmp_path / "venv"])
    command: list[str | Path] = [tmp_path / "venv" / "bin" / "python", built.pyz]
    home = {"HOME": str(tmp_path)}
    if version not in preamble.PYTHONS:
        done = subprocess.run(
            command, env=environment() | home, stderr=subprocess.PIPE, text=True, timeout=LIMIT, check=False
        )
        assert (done.returncode, done.stderr.count("\n")) == (preamble.STATUS, 1)
        assert f"this is cpython {version} on linux" in done.stderr
        return
    check_transfer(command, **home)
    assert run([*command, "--version"], **home) == f"punchtunnel {punchtunnel.__version__}\n"
    program = "import cryptography.fernet, uvloop; print(uvloop.new_event_loop.__module__, uvloop.__file__)"
    name, where = run([*command, "-c", program], SHIV_INTERPRETER="1", **home).split()
    assert name == "uvloop"
    assert Path(where).is_relative_to(tmp_path / ".shiv")
    assert [path.name for path in tmp_path.iterdir() if path.name != "venv"] == [".shiv"]


def test_one_file_is_a_command(built: Built, tmp_path: Path) -> None:
    """By its name: its first line finds Python on PATH."""
    (tmp_path / "python3").symlink_to(sys.executable)
    places = {"HOME": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    assert run([built.pyz, "--version"], **places) == f"punchtunnel {punchtunnel.__version__}\n"


def test_the_same_source_gives_the_same_bytes(built: Built, tmp_path: Path) -> None:
    """Elsewhere, at another hour, for a user with another mask, in another zone; and from the sdist."""
    sums = (built.source / "dist" / "SHA256SUMS").read_text()
    run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=built.source / "dist")
    date = str(int((ROOT / "pyproject.toml").stat().st_mtime))
    other = copy_of_checkout(tmp_path / "elsewhere")
    for path in other.rglob("*"):
        os.utime(path)
        path.chmod(path.stat().st_mode & 0o700)
    assert make_dist(other, 0o077, SOURCE_DATE_EPOCH=date, TZ="Asia/Tokyo", PYTHONHASHSEED="7") == sums
    # Python before 3.11.4 has no safe way to do that.
    run(["tar", "--extract", "--file", built.sdist, "--directory", tmp_path])
    (unpacked,) = tmp_path.glob("punchtunnel-*")
    run(
        [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", tmp_path, unpacked],
        SOURCE_DATE_EPOCH=date,
    )
    assert (tmp_path / built.wheel.name).read_bytes() == built.wheel.read_bytes()
