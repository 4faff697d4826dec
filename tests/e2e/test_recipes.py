"""Every recipe of docs/RECIPES.md is done with the real programs, and gives what it promises."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from base64 import b64encode
from hashlib import sha1
from pathlib import Path

import pytest

from . import stand_ins
from .ends import Lab
from .flows import MIB, digest, free_port, noise, receive
from .programs import SshServer, needs, postgres, run
from .recipes import Pair, recipes, wait_until

SSH = "Log in with ssh"
TAR = "Copy a directory without an account"
PIPES = "Send a disk, or a ZFS snapshot"


@pytest.fixture
def data_path() -> list[str]:
    """Saved peers have a secret: all links are sealed."""
    return []


@pytest.fixture
def pair(lab: Lab) -> Pair:
    return Pair(lab)


def lines_of(path: Path, words: str) -> int:
    return path.read_text().count(words) if path.exists() else 0


def make_photos(folder: Path) -> Path:
    for number in range(20):
        path = folder / "photos" / f"album {number % 3}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(noise(20_000 * number, number))
    return folder / "photos"


def same(one: Path, other: Path) -> bool:
    return run("diff", "-r", str(one), str(other)) == b""


def test_no_recipe_is_without_a_test() -> None:
    source = Path(__file__).read_text()
    assert [title for title, steps in recipes().items() if not steps or f'"{title}"' not in source] == []


# ---- with ssh


@pytest.fixture
def logged_in(lab: Lab, pair: Pair) -> Pair:
    """Do the recipe of ssh, on which others build."""
    server = SshServer(lab)
    server.opens_in(pair.home.home)
    ssh = shutil.which("ssh")
    # It takes the user's home from the system, whatever HOME is.
    pair.laptop.provide("ssh", f'exec {ssh} -F "$HOME/.ssh/config" "$@"')
    user = re.findall("User .*", server.config)[0]
    printed = pair.play(
        SSH, {"22": server.port}, {"User me": user, "ControlPersist 10m": f"ControlPersist 10m\n{server.config}"}
    )
    assert "load average" in printed[0]
    return pair


def test_several_ssh_share_one_hole_until_it_is_closed(logged_in: Pair) -> None:
    laptop = logged_in.laptop
    assert laptop.run("ssh home 'tr a-z A-Z' <<< words") == "WORDS\n"
    laptop.run("ssh home 'exit 7'", status=7)
    assert lines_of(laptop.log, "hole open") == 1
    laptop.run("ssh -O exit home")
    wait_until(lambda: not laptop.running("--stdio"))


def test_ssh_without_a_hole_ends_with_255_and_punchtunnel_says_why(logged_in: Pair) -> None:
    laptop = logged_in.laptop
    laptop.saves("wait = 1")
    laptop.run("ssh -S none -o ProxyCommand='punchtunnel %h --stdio --channel nobody' home uptime", status=255)
    assert re.search(r"punchtunnel: no hole to \S+ in 1 s", laptop.said)


def test_rsync_copies_a_directory_and_a_second_time_what_is_missing(logged_in: Pair) -> None:
    needs("rsync")
    title = "Copy a directory with rsync"
    photos = make_photos(logged_in.laptop.home)
    logged_in.play(title)
    there = logged_in.home.home / "photos"
    assert same(photos, there)
    (there / "album 0" / "3.jpg").unlink()
    logged_in.play(title)
    assert same(photos, there)


def test_rsync_that_was_cut_says_so_and_does_no_harm_to_the_copy_of_the_next_one(logged_in: Pair) -> None:
    """Its other half waited for the session to be resumed; by --partial, it then wrote its half of the file."""
    needs("rsync")
    title = "Copy a directory with rsync"
    home, laptop = logged_in.home, logged_in.laptop
    photos, there = laptop.home / "photos", home.home / "photos"
    photos.mkdir()
    (photos / "large.jpg").write_bytes(noise(30 * MIB))
    (line,) = lines(title, "laptop")
    cut = laptop.start(line.replace("rsync", "rsync --bwlimit=5m", 1))
    wait_until(lambda: list(there.glob(".large.jpg.*")))
    laptop.kill("--stdio")
    assert cut.wait(60) > 0
    logged_in.play(title)
    assert digest(there / "large.jpg") == digest(photos / "large.jpg")
    home.kill("punchtunnel")
    wait_until(lambda: not list(there.glob(".large.jpg.*")))
    assert digest(there / "large.jpg") == digest(photos / "large.jpg")


def test_git_clones_and_pushes(logged_in: Pair) -> None:
    needs("git")
    home, laptop = logged_in.home, logged_in.laptop
    laptop.write(".gitconfig", "[user]\nname = me\nemail = me@example.org\n")
    home.run("git init --quiet --bare project.git")
    logged_in.play("Clone and push with git")
    assert home.run("git -C project.git log --format=%s --all") == "By way of the hole\n"


def test_sshfs_mounts_a_directory(logged_in: Pair) -> None:
    needs("sshfs", "fusermount3")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("nobody may mount here: there is no /dev/fuse")
    photos = make_photos(logged_in.home.home)
    logged_in.play("Mount a directory with sshfs")
    there = logged_in.laptop.home / "photos"
    assert there.is_mount()
    assert same(photos, there)
    (there / "new").write_bytes(noise(MIB))
    logged_in.laptop.kill("--stdio")

    def is_back() -> bool:
        try:
            return (there / "new").read_bytes() == noise(MIB)
        except OSError:
            return False

    wait_until(is_back)
    logged_in.laptop.run("fusermount3 -u photos")
    assert (photos / "new").read_bytes() == noise(MIB)


# ---- pipes


def test_tar_copies_a_directory(pair: Pair) -> None:
    photos = make_photos(pair.home.home)
    pair.play(TAR)
    assert pair.statuses() == [0]
    assert same(photos, pair.laptop.home / "photos")


def test_of_a_file_that_tar_cannot_read_home_is_told(pair: Pair) -> None:
    make_photos(pair.home.home)
    pair.play(TAR, {"tar c photos": "tar c photos nothing"})
    assert pair.statuses() == [2]


@pytest.fixture
def zfs(pair: Pair) -> None:
    """Play the part of ZFS: a stream goes out here, and comes in there."""
    pair.home.provide("zfs", '[ "$*" = "send -R tank/photos@monday" ] && exec cat disk')
    pair.laptop.provide("zfs", '[ "$*" = "receive -s tank/photos" ] && exec cat > received')


@pytest.mark.usefixtures("zfs")
def test_a_disk_and_a_snapshot_are_sent(pair: Pair) -> None:
    (pair.home.home / "disk").write_bytes(noise(20 * MIB))
    pair.play(PIPES, {"/dev/sdb": "disk"})
    assert pair.statuses() == [0, 0]
    for name in ("sdb.img", "received"):
        assert (pair.laptop.home / name).read_bytes() == noise(20 * MIB)


def lines(title: str, machine: str) -> list[str]:
    return [step.text for step in recipes()[title] if step.machine == machine]


@pytest.mark.usefixtures("zfs")
@pytest.mark.parametrize(
    ("title", "number", "name"), [(PIPES, 0, "sdb.img"), (PIPES, 1, "received"), (TAR, 0, "photos")]
)
def test_a_stream_that_was_cut_is_never_taken_for_a_whole_one(pair: Pair, title: str, number: int, name: str) -> None:
    pair.home.provide("zfs", "exec cat /dev/zero")
    with (pair.home.home / "photos").open("wb") as huge:
        # Sparse, so that it takes tar and the hole longer than it takes to be killed.
        huge.truncate(20_000 * MIB)
    pair.laptop.saves("resume = 1")
    sender = pair.home.start(lines(title, "home")[number].replace("/dev/sdb", "/dev/zero"))
    receiver = pair.laptop.start(lines(title, "laptop")[number])
    there = pair.laptop.home / name
    wait_until(lambda: there.exists() and there.stat().st_size)
    pair.home.kill("punchtunnel")
    assert sender.wait(60) != 0
    assert receiver.wait(60) == (2 if title == TAR else 1)


# ---- ports


def test_psql_asks_a_database(lab: Lab, pair: Pair) -> None:
    with postgres(lab) as port:
        run("psql", "-h", "127.0.0.1", "-p", str(port), "-U", "me", "-c", "create database shop", "postgres")
        run("psql", "-h", "127.0.0.1", "-p", str(port), "-U", "me", "-c", "create table orders ()", "shop")
        own = free_port()
        (counted,) = pair.play("Use a database", {"5432": port}, {"5432": own, "psql": f"psql -p {own}"})
        assert counted.split() == ["count", "-------", "0", "(1", "row)"]
        pair.laptop.kill()


def test_a_viewer_sees_the_screen_of_a_server_that_speaks_first(lab: Lab, pair: Pair) -> None:
    """Both are stand-ins that speak VNC's protocol."""
    pair.laptop.provide("vncviewer", stand_ins.script("vncviewer"))
    printed = pair.play("See a screen with VNC", {"5900": lab.serve(stand_ins.show_screen)}, {"5901": free_port()})
    assert printed == [f"home {stand_ins.PIXELS.hex()}\n"]


def test_recipes_with_different_channels_run_beside_each_other(lab: Lab, pair: Pair) -> None:
    screen, chat = lab.serve(lambda sock: sock.sendall(b"screen")), lab.serve(lambda sock: sock.sendall(b"chat"))
    ports = {"5901": free_port(), "8080": free_port()}
    pair.laptop.provide("vncviewer", "true")
    pair.laptop.provide("python3", "true")
    pair.play("See a screen with VNC", {"5900": screen}, ports)
    pair.play("Talk by WebSocket", {"8080": chat}, ports)
    assert [receive(lab.connect(port)) for port in ports.values()] == [b"screen", b"chat"]


def test_curl_gets_two_pages_through_one_connection(pair: Pair) -> None:
    needs("curl")
    pair.home.write("public/one.html", "<h1>one</h1>")
    pair.home.write("public/two.html", "<h1>two</h1>")
    # How many connections each page took.
    pair.laptop.write(".curlrc", 'silent\nfail\nwrite-out = "%{num_connects} "\n')
    theirs, own = free_port(), free_port()
    assert pair.play("Serve web pages", {"8000": theirs}, {"8000": own}) == ["1 0 "]
    assert [(pair.laptop.home / f"{name}.html").read_text() for name in ("one", "two")] == [
        "<h1>one</h1>",
        "<h1>two</h1>",
    ]
    by_name = f"curl --connect-to ::localhost:{own} http://photos.example/one.html"
    assert "<h1>one</h1>" in pair.laptop.run(by_name)


def answer_socket(sock: socket.socket) -> None:
    """Take a WebSocket, and send the first message back in capitals (RFC 6455 §1.3 and §5.2)."""
    asked = b""
    while b"\r\n\r\n" not in asked:
        asked += sock.recv(4096)
    (key,) = re.findall(rb"(?i)^sec-websocket-key: (\S+)\r$", asked, re.M)
    accepted = b64encode(sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11", usedforsecurity=False).digest())
    lines = b"HTTP/1.1 101 Switching Protocols", b"Upgrade: websocket", b"Connection: Upgrade"
    sock.sendall(b"\r\n".join([*lines, b"Sec-WebSocket-Accept: " + accepted, b"", b""]))
    opcode, size = receive(sock, 2)
    mask = receive(sock, 4)
    text = bytes(byte ^ mask[at % 4] for at, byte in enumerate(receive(sock, size & 0x7F)))
    assert opcode == 0x81
    sock.sendall(bytes([opcode, len(text)]) + text.upper())
    # Until it closes.
    assert receive(sock, 1) == b"\x88"
    sock.sendall(b"\x88\x00")


def test_a_websocket_is_spoken_through_a_port(lab: Lab, pair: Pair) -> None:
    python = "/usr/bin/python3"
    if subprocess.run([python, "-c", "import websockets"], capture_output=True, check=False).returncode:
        pytest.skip("not installed: python3-websockets")
    # A person types a line, sees the answer, and then types Ctrl-D.
    pair.laptop.provide("python3", f'(echo words; until grep -q WORDS printed; do sleep 0.02; done) | {python} "$@"')
    (printed,) = pair.play("Talk by WebSocket", {"8080": lab.serve(answer_socket)}, {"8080": free_port()})
    assert "< WORDS" in printed


# ---- from the start


@pytest.fixture
def reached(lab: Lab, pair: Pair) -> tuple[dict[str, object], dict[str, object]]:
    """Let ssh log in to home at a port; return what stands for addresses and ports on home and on laptop."""
    server = SshServer(lab)
    server.opens_in(pair.home.home)
    (user,) = re.findall(r"User (.*)", server.config)
    pair.laptop.write(".ssh/config", server.config)
    pair.laptop.provide("ssh", f'exec {shutil.which("ssh")} -F "$HOME/.ssh/config" "$@"')
    home = {"22": server.port, "203.0.113.9": " ".join(lab.towards_right)}
    return home, {"2222": free_port(), "me@": f"{user}@", "198.51.100.7": " ".join(lab.towards_left)}


def show_page(sock: socket.socket) -> None:
    sock.recv(4096)
    sock.sendall(b"HTTP/1.0 200 OK\r\n\r\n<h1>one</h1>")


def test_two_programs_are_reached_by_their_names(
    lab: Lab, pair: Pair, reached: tuple[dict[str, object], dict[str, object]]
) -> None:
    needs("curl")
    home, laptop = reached
    pair.laptop.write(".curlrc", "silent\nfail\n")
    home |= {"8000": lab.serve(show_page)}
    laptop |= {"8000": free_port()}
    (printed,) = pair.play("Reach several programs through one hole", home, laptop)
    assert "load average" in printed
    assert (pair.laptop.home / "one.html").read_text() == "<h1>one</h1>"


def test_the_unit_is_installed_and_what_it_starts_is_met(
    lab: Lab, pair: Pair, reached: tuple[dict[str, object], dict[str, object]]
) -> None:
    """The unit is looked at by systemd, and its line is run without."""
    needs("systemctl", "systemd-analyze")
    home, laptop = reached
    root = pair.home.home / "root"
    (root / "etc/systemd/system").mkdir(parents=True)
    (pair.laptop.home / "punchtunnel.secret").symlink_to(root / "etc/punchtunnel.secret")
    pair.home.provide("systemctl", stand_ins.script("systemctl", ROOT=root))
    options = " ".join(lab.towards_right[1:])
    home = {
        "TARGET=22": f"'TARGET={home['22']}' 'OPTIONS={options}'",
        "203.0.113.9": lab.right,
        "/etc/": f"{root}/etc/",
    }
    (printed,) = pair.play("Start it with the machine", home, laptop)
    assert "load average" in printed
    assert (root / "etc/systemd/system/multi-user.target.wants/punchtunnel.service").is_symlink()


def test_a_container_is_met(pair: Pair, reached: tuple[dict[str, object], dict[str, object]]) -> None:
    """The tool takes the place of the image, which test_dockerfile.py is about."""
    pair.home.provide("docker", stand_ins.script("docker"))
    (printed,) = pair.play("Run it in a container", *reached)
    assert "load average" in printed
