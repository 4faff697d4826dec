"""Every program in docs/examples does what its first lines promise."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from punchtunnel.punching.settings import DEFAULT_RESUME

from .ends import PIPE, ROOT, Lab, environment
from .flows import MIB, WAIT, noise

EXAMPLES = ROOT / "docs" / "examples"
TESTED = {
    "copy_directory.py",
    "http_server.py",
    "chat.py",
    "punchtunnel.service",
    "transit-relay.service",
    "Dockerfile",
}


@pytest.fixture
def data_path() -> list[str]:
    """Every example has a secret: all links are sealed."""
    return []


def start(lab: Lab, name: str, side: str, *arguments: str, secret: str = "open sesame") -> subprocess.Popen[bytes]:
    """Start an example; `arguments` may have {peer}."""
    own, peer = (lab.left, lab.right) if side == "left" else (lab.right, lab.left)
    words = [argument.format(peer=peer) for argument in arguments]
    command = [sys.executable, str(EXAMPLES / name), *words, "--bind", own, "--channel", lab.channel]
    process = lab.program(
        *command, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=environment() | {"PUNCHTUNNEL_SECRET": secret}
    )
    assert process.stdin is not None
    lab.own(process.stdin)
    return process


def ending(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    """Wait for the end; return the exit status and what was said on stderr."""
    assert process.stderr is not None
    # A lost connection is sought for DEFAULT_RESUME seconds.
    return process.wait(WAIT + DEFAULT_RESUME), process.stderr.read().decode()


def line(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().decode().rstrip("\n")


def type_line(process: subprocess.Popen[bytes], text: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{text}\n".encode())


def make_tree(root: Path) -> dict[str, bytes]:
    for number in range(30):
        path = root / f"folder {number % 4}" / f"file {number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(noise(number * 50_000, number))
    (root / "empty").mkdir()
    os.symlink("folder 0", root / "link")
    return tree(root)


def tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() if path.is_file() else b"" for path in root.rglob("*")}


def test_no_example_is_without_a_test() -> None:
    assert {path.name for path in EXAMPLES.iterdir() if path.is_file()} == TESTED


def test_directory_is_copied_whole(lab: Lab) -> None:
    wanted = make_tree(lab.folder / "photos")
    home = start(lab, "copy_directory.py", "left", "send", "{peer}", str(lab.folder / "photos"))
    laptop = start(lab, "copy_directory.py", "right", "receive", "{peer}", str(lab.folder / "copy"))
    assert [ending(home), ending(laptop)] == [(0, ""), (0, "")]
    assert tree(lab.folder / "copy") == wanted


@pytest.mark.exhaustive
@pytest.mark.parametrize("killed", ["send", "receive"])
def test_directory_that_was_cut_is_no_copy(lab: Lab, killed: str) -> None:
    photos = lab.folder / "photos"
    photos.mkdir()
    # Sparse, so that it takes tar and the hole longer than it takes to be killed.
    with (photos / "huge").open("wb") as file:
        file.truncate(20_000 * MIB)
    copy = lab.folder / "copy"
    ends = {
        "send": start(lab, "copy_directory.py", "left", "send", "{peer}", str(photos)),
        "receive": start(lab, "copy_directory.py", "right", "receive", "{peer}", str(copy)),
    }
    deadline = time.monotonic() + WAIT
    while not ((copy / "huge").exists() and (copy / "huge").stat().st_size):
        assert time.monotonic() < deadline
        assert ends[killed].poll() is None
    ends[killed].kill()
    (survivor,) = (end for name, end in ends.items() if name != killed)
    status, said = ending(survivor)
    assert status == 1
    assert "not copied: link lost" in said


def test_http_server_behind_a_hole_serves_the_clients_of_a_local_port(lab: Lab) -> None:
    root = lab.folder / "public"
    root.mkdir()
    (root / "index.html").write_text("<h1>home</h1>")
    (root / "large").write_bytes(noise(5 * MIB, 1))
    (root / "loop").symlink_to("loop")
    (lab.folder / "private").write_text("not for the laptop")
    home = start(lab, "http_server.py", "left", "{peer}", str(root), "--once")
    laptop = lab.start_right("-L", "0", shell="export PUNCHTUNNEL_SECRET='open sesame'")
    laptop.wait_for("link_up")
    url = f"http://127.0.0.1:{laptop.port}"
    with urllib.request.urlopen(f"{url}/", timeout=WAIT) as page:
        assert (page.status, page.headers["Content-Type"], page.read()) == (200, "text/html", b"<h1>home</h1>")
    with urllib.request.urlopen(f"{url}/large", timeout=WAIT) as page:
        assert page.read() == noise(5 * MIB, 1)
    for missing in ("nothing", "../private", "%2e%2e/private", "loop"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{url}/{missing}", timeout=WAIT)
    lab.connect(laptop.port).sendall(b"no HTTP at all\r\n\r\n")
    laptop.process.terminate()
    assert line(home).startswith(f"serving {root} to {lab.right}:")
    assert ending(home)[0] == 0


def test_chat_passes_lines_in_both_directions_and_ends_for_both(lab: Lab) -> None:
    home = start(lab, "chat.py", "left", "{peer}")
    laptop = start(lab, "chat.py", "right", "{peer}")
    assert line(home) == f"punching towards {lab.right} …"
    assert line(laptop) == f"punching towards {lab.left} …"
    assert line(home).startswith(f"connected with {lab.right}:")
    assert line(laptop).startswith(f"connected with {lab.left}:")
    type_line(home, "Is anybody there?")
    assert line(laptop) == "> Is anybody there?"
    type_line(laptop, "Ja, schöne Grüße\x1b[2J")
    assert line(home) == "> Ja, schöne Grüße[2J"
    assert home.stdin is not None
    home.stdin.close()
    assert [ending(home), ending(laptop)] == [(0, ""), (0, "")]


def test_chat_without_a_secret_shows_both_the_same_verifier(lab: Lab) -> None:
    ends = [start(lab, "chat.py", side, "{peer}", secret="") for side in ("left", "right")]
    verifiers = [[line(end) for _ in range(3)][2] for end in ends]
    assert verifiers[0] == verifiers[1]
    assert verifiers[0].startswith("verifier: ")


def test_ctrl_c_ends_a_chat_without_a_traceback(lab: Lab) -> None:
    chat = start(lab, "chat.py", "left", "{peer}")
    assert chat.stdout is not None
    assert chat.stdout.readline().startswith(b"punching towards")
    chat.send_signal(signal.SIGINT)
    _, err = chat.communicate(timeout=WAIT)
    assert (chat.returncode, err) == (130, b"")
