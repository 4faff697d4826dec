"""What is remembered in files: hints that are there in the next run, or not, and never an error."""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchtunnel.reach import memory as module
from punchtunnel.reach.memory import KEY_SIZE, MAX_PEERS, Memory, state_directory
from punchtunnel.reach.remembered import LIFETIME, NOTHING, Remembered, Seen, Way

from ..system.test_folder import no_room

NOW = 1_700_000_000.0
PEERS = ["home.example", "203.0.113.9"]
WAY = Way("same port", "203.0.113.9", 4711, 4711, NOW)
KNOWN = Remembered(NOW, (Seen("home.example", ("203.0.113.9",), NOW),), WAY)


class Clock:
    """A wall clock that tests set."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def memory_in(directory: Path | None) -> Memory:
    return Memory(directory, Clock())


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def peer_files(directory: Path) -> list[Path]:
    return sorted(directory.glob("punchtunnel-peer-*"))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where the directory is to be."""
    return tmp_path / "state" / "punchtunnel"


# ---- where


@pytest.mark.parametrize(
    ("environ", "directory"),
    [
        ({"STATE_DIRECTORY": "/var/lib/a:/var/lib/b", "XDG_STATE_HOME": "/x", "HOME": "/h"}, "/var/lib/a"),
        ({"STATE_DIRECTORY": "", "XDG_STATE_HOME": "/x", "HOME": "/h"}, "/x/punchtunnel"),
        ({"STATE_DIRECTORY": "relative:/b", "HOME": "/h"}, "/h/.local/state/punchtunnel"),
        ({"XDG_STATE_HOME": "relative", "HOME": "/h"}, "/h/.local/state/punchtunnel"),
        ({"XDG_STATE_HOME": "", "HOME": "/h"}, "/h/.local/state/punchtunnel"),
        ({"XDG_STATE_HOME": "/x"}, "/x/punchtunnel"),
        ({"HOME": "/h"}, "/h/.local/state/punchtunnel"),
        ({"HOME": "relative"}, None),
        ({"HOME": ""}, None),
        ({}, None),
    ],
)
def test_directory_is_that_of_the_service_or_of_the_user(environ: dict[str, str], directory: str | None) -> None:
    assert state_directory(environ) == (None if directory is None else Path(directory))


# ---- what is kept


def test_what_was_remembered_is_known_in_the_next_run(place: Path) -> None:
    memory_in(place).remember(PEERS, "work", KNOWN)
    assert memory_in(place).recall(PEERS, "work") == KNOWN


def test_nothing_is_known_at_first_and_nothing_is_made_by_asking(tmp_path: Path, place: Path) -> None:
    memory = memory_in(place)
    assert memory.recall(PEERS, "") == NOTHING
    memory.failed(PEERS, "")
    assert memory.forget() == 0
    assert list(tmp_path.iterdir()) == []
    place.mkdir(mode=0o700, parents=True)
    assert memory.recall(PEERS, "") == NOTHING
    memory.failed(PEERS, "")
    assert names(place) == []


def test_only_this_user_can_read_the_files(place: Path) -> None:
    before = os.umask(0)
    try:
        memory_in(place).remember(PEERS, "", KNOWN)
    finally:
        os.umask(before)
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert [stat.S_IMODE(path.stat().st_mode) for path in place.iterdir()] == [0o600] * 2


def test_each_peer_and_channel_has_its_own_file(place: Path) -> None:
    memory = memory_in(place)
    cases = [(["a.example"], ""), (["a.example"], "b"), (["a.example", "b"], ""), (["b"], "a.example"), (["ab"], "")]
    for number, (peers, channel) in enumerate(cases, 1):
        memory.remember(peers, channel, KNOWN._replace(addresses=(), way=WAY._replace(own_port=number)))
    ways = [memory.recall(peers, channel).way for peers, channel in cases]
    assert [way and way.own_port for way in ways] == [1, 2, 3, 4, 5]


def test_order_and_spelling_of_the_peers_do_not_matter(place: Path) -> None:
    memory_in(place).remember(PEERS, "", KNOWN)
    for peers in ([*reversed(PEERS)], ["HOME.Example.", *PEERS]):
        assert memory_in(place).recall(peers, "") == KNOWN
    assert len(peer_files(place)) == 1


def test_names_of_files_tell_nothing_without_the_key(place: Path) -> None:
    memory = memory_in(place)
    peers = ["b.example", "203.0.113.9", "a.example", "2001:db8::7", "c.example"]
    memory.remember(peers, "work", KNOWN)
    (path,) = peer_files(place)
    digits = path.name.removeprefix("punchtunnel-peer-")
    assert len(bytes.fromhex(digits)) == 16
    parts = b"2001:db8::7", b"203.0.113.9", b"a.example", b"b.example", b"c.example", b"work"
    message = b"punchtunnel memory 1" + b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    assert digits == hmac.digest(memory.key(), message, hashlib.sha256).hex()[:32]
    other = place.with_name("other")
    memory_in(other).remember(peers, "work", KNOWN)
    assert peer_files(other)[0].name != path.name
    assert b"work" not in path.read_bytes()


def test_the_later_of_two_runs_wins(place: Path) -> None:
    memory_in(place).remember(PEERS, "", KNOWN)
    later = Remembered(NOW, (), WAY._replace(kind="mapped"))
    memory_in(place).remember(PEERS, "", later)
    assert memory_in(place).recall(PEERS, "") == later
    assert len(names(place)) == 2


def test_a_week_later_it_is_forgotten_and_a_wrong_clock_knows_nothing(place: Path) -> None:
    clock = Clock()
    memory = Memory(place, clock)
    memory.remember(PEERS, "", KNOWN)
    for now, known in ((NOW + LIFETIME, KNOWN), (NOW + LIFETIME + 1, NOTHING), (NOW - 1, NOTHING), (-1.0, NOTHING)):
        clock.now = now
        assert memory.recall(PEERS, "") == known


def test_a_loopback_address_is_remembered_of_a_peer_on_loopback_only(place: Path) -> None:
    memory = memory_in(place)
    here = Remembered(NOW, (Seen("a.example", ("127.0.0.2",), NOW),), WAY._replace(host="127.0.0.2"))
    cases = (["127.0.0.2", "a.example"], here), (["::1", "a.example"], here), (["a.example"], Remembered(NOW))
    for peers, known in cases:
        memory.remember(peers, "", here)
        assert memory.recall(peers, "") == known


def test_two_failures_in_a_row_drop_the_way(place: Path) -> None:
    memory = memory_in(place)
    memory.remember(PEERS, "", KNOWN)
    memory.failed(PEERS, "")
    assert memory_in(place).recall(PEERS, "").way == WAY._replace(failures=1)
    memory.remember(PEERS, "", KNOWN)
    for way in (WAY._replace(failures=1), None, None):
        memory_in(place).failed(PEERS, "")
        assert memory.recall(PEERS, "") == KNOWN._replace(way=way)


def test_what_cannot_be_encoded_as_utf_8_is_a_name_like_any_other(place: Path) -> None:
    memory = memory_in(place)
    memory.remember(["\udcff"], "\udcff", KNOWN._replace(addresses=()))
    assert memory.recall(["\udcff"], "\udcff").way == WAY


# ---- how many


def test_of_51_peers_the_oldest_is_removed(place: Path) -> None:
    memory = memory_in(place)
    for number in range(MAX_PEERS):
        memory.remember([f"peer{number}.example"], "", KNOWN)
        newest = max(peer_files(place), key=lambda path: path.stat().st_mtime_ns)
        # Backwards, and all before now: the last one is the oldest.
        os.utime(newest, (1000 - number, 1000 - number))
    assert len(peer_files(place)) == MAX_PEERS == 50
    memory.remember(PEERS, "", KNOWN)
    assert len(peer_files(place)) == MAX_PEERS
    assert memory.recall(PEERS, "") == KNOWN
    known = [memory.recall([f"peer{number}.example"], "") != NOTHING for number in range(MAX_PEERS)]
    assert known == [True] * 49 + [False]


def test_what_was_written_last_stays_even_if_all_others_are_of_the_future(place: Path) -> None:
    memory = memory_in(place)
    memory.key()
    future = time.time() + 1e6
    for number in range(70):
        path = place / f"punchtunnel-peer-{number:032x}"
        path.touch(0o600)
        os.utime(path, (future, future))
    memory.remember(PEERS, "", KNOWN)
    assert len(peer_files(place)) == MAX_PEERS
    assert memory.recall(PEERS, "") == KNOWN


def test_files_that_killed_processes_left_do_not_pile_up(place: Path) -> None:
    memory = memory_in(place)
    memory.key()
    for number in range(60):
        (place / f"punchtunnel-new-{number:032x}").touch(0o600)
    memory.remember(PEERS, "", KNOWN)
    assert len(names(place)) == 1 + MAX_PEERS


def test_files_of_others_are_not_counted_and_not_removed(place: Path) -> None:
    """A program that systemd has started may start punchtunnel, which inherits its STATE_DIRECTORY."""
    place.mkdir(mode=0o700, parents=True)
    digits = "0123456789abcdef" * 2
    near = [digits, f"punchtunnel-peer-{digits}0", f"punchtunnel-peer-{digits.upper()}", "punchtunnel-peer-", "key"]
    others = near + [f"{number:032x}" for number in range(60)]
    for name in others:
        (place / name).touch(0o600)
    memory = memory_in(place)
    memory.remember(PEERS, "", KNOWN)
    assert len(names(place)) == len(set(others)) + 2
    assert memory.forget() == 1
    assert names(place) == sorted(set(others))


# ---- the key


def test_the_key_is_the_same_in_every_run(place: Path) -> None:
    key = memory_in(place).key()
    assert len(key) == KEY_SIZE == 32
    assert memory_in(place).key() == key == (place / "punchtunnel-key").read_bytes()
    assert memory_in(place.with_name("other")).key() != key


def test_who_is_too_late_takes_the_key_that_was_made(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link, first, second = os.link, memory_in(place), memory_in(place)
    keys = []

    def raced(source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        monkeypatch.setattr(os, "link", link)
        keys.append(second.key())
        link(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "link", raced)
    assert first.key() == keys[0] == first.key() == second.key()
    assert names(place) == ["punchtunnel-key"]


def test_threads_that_begin_together_have_one_key(tmp_path: Path) -> None:
    together, keys = threading.Barrier(4), list[tuple[int, bytes]]()

    def one() -> None:
        for number in range(20):
            memory = memory_in(tmp_path / str(number))
            together.wait(60)
            keys.append((number, memory.key()))

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(keys) == 80
    assert sorted(set(keys)) == [(n, (tmp_path / str(n) / "punchtunnel-key").read_bytes()) for n in range(20)]
    assert all(names(tmp_path / str(number)) == ["punchtunnel-key"] for number in range(20))


def test_processes_that_begin_together_have_one_key(place: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from punchtunnel.reach.memory import Memory;"
        "memory = Memory(Path(sys.argv[1]), float); print(flush=True); sys.stdin.readline(); print(memory.key().hex())"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "\n"
    for process in processes:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    keys = {process.communicate(timeout=60)[0].strip() for process in processes}
    assert keys == {(place / "punchtunnel-key").read_bytes().hex()}


@pytest.mark.parametrize("damaged", [b"", b"short"])
def test_a_damaged_key_is_made_anew(damaged: bytes, place: Path) -> None:
    memory_in(place).remember(PEERS, "", KNOWN)
    (place / "punchtunnel-key").write_bytes(damaged)
    assert memory_in(place).recall(PEERS, "") == NOTHING
    memory_in(place).remember(PEERS, "", KNOWN)
    assert memory_in(place).recall(PEERS, "") == KNOWN
    assert len((place / "punchtunnel-key").read_bytes()) == KEY_SIZE


@pytest.mark.parametrize("what", ["directory", "link", "writable"])
def test_where_the_key_cannot_be_trusted_nothing_is_remembered(what: str, place: Path, tmp_path: Path) -> None:
    key = memory_in(place).key()
    path = place / "punchtunnel-key"
    if what == "writable":
        path.chmod(0o666)
    else:
        path.rename(tmp_path / "target")
        if what == "link":
            path.symlink_to(tmp_path / "target")
        else:
            path.mkdir()
    memory = memory_in(place)
    memory.remember(PEERS, "", KNOWN)
    memory.failed(PEERS, "")
    assert memory.recall(PEERS, "") == NOTHING
    assert memory.key() == memory.key() != key
    assert names(place) == ["punchtunnel-key"]


def test_a_file_system_without_hard_links_remembers_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", link)
    memory = memory_in(place)
    memory.remember(PEERS, "", KNOWN)
    assert memory.recall(PEERS, "") == NOTHING
    assert memory.key() == memory.key()
    assert names(place) == []


def test_a_key_that_could_not_be_written_is_written_later(place: Path) -> None:
    memory = memory_in(place)
    with no_room():
        key = memory.key()
    assert names(place) == []
    assert memory.key() == key == memory_in(place).key()


# ---- where nothing can be written or believed


def use(memory: Memory) -> None:
    """Call everything; nothing is to be remembered, and nothing raised."""
    memory.remember(PEERS, "", KNOWN)
    assert memory.recall(PEERS, "") == NOTHING
    memory.failed(PEERS, "")
    key = memory.key()
    assert len(key) == KEY_SIZE
    assert memory.key() == key
    assert memory.forget() == 0
    assert memory.key() != key


def test_a_memory_of_nothing() -> None:
    use(memory_in(None))


@pytest.mark.parametrize("below", ["/proc/self", "/proc/sys/net/new", "/proc/sys/net/ipv4", "/dev/null", "/dev/null/x"])
def test_a_directory_that_cannot_be_made_or_written_to(below: str) -> None:
    use(memory_in(Path(below)))


def test_a_file_in_the_place_of_the_directory(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"precious")
    use(memory_in(path))
    use(memory_in(path / "below"))
    assert path.read_bytes() == b"precious"


def test_a_link_that_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "missing")
    use(memory_in(tmp_path / "link"))
    use(memory_in(tmp_path / "link" / "below"))
    assert names(tmp_path) == ["link"]


def test_a_full_disk_keeps_what_was_known(place: Path) -> None:
    memory = memory_in(place)
    memory.remember(PEERS, "", KNOWN)
    with no_room():
        memory.remember(PEERS, "", KNOWN._replace(way=None))
        memory.remember(["other.example"], "", KNOWN)
        memory.failed(PEERS, "")
    assert memory.recall(PEERS, "") == KNOWN
    assert len(names(place)) == 2


def test_a_directory_of_another_user_is_left_alone(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory_in(place).remember(PEERS, "", KNOWN)
    before = names(place)
    stranger = os.geteuid() + 1
    with monkeypatch.context() as patched:
        patched.setattr(os, "geteuid", lambda: stranger)
        use(memory_in(place))
        use(memory_in(place.with_name("new")))
    assert names(place) == before
    assert memory_in(place).recall(PEERS, "") == KNOWN
    assert names(place.parent) == ["punchtunnel"]


@pytest.mark.parametrize("bits", [0o770, 0o707, 0o1777], ids=oct)
def test_a_directory_that_others_can_write_to_is_left_alone(bits: int, place: Path) -> None:
    memory_in(place).remember(PEERS, "", KNOWN)
    before = names(place)
    place.chmod(bits)
    use(memory_in(place))
    assert names(place) == before


@pytest.mark.parametrize("what", ["directory", "fifo", "link", "writable"])
def test_a_file_that_cannot_be_trusted_is_not_read(what: str, place: Path, tmp_path: Path) -> None:
    memory = memory_in(place)
    memory.remember(PEERS, "", KNOWN)
    (path,) = peer_files(place)
    content = path.read_bytes()
    if what == "writable":
        path.chmod(0o606)
    else:
        path.rename(tmp_path / "target")
        if what == "directory":
            path.mkdir()
        elif what == "fifo":
            os.mkfifo(path, 0o600)
        else:
            path.symlink_to(tmp_path / "target")
    assert memory.recall(PEERS, "") == NOTHING
    memory.failed(PEERS, "")
    memory.remember(PEERS, "", KNOWN._replace(way=None))
    assert memory.recall(PEERS, "") == (NOTHING if what == "directory" else KNOWN._replace(way=None))
    assert what == "writable" or (tmp_path / "target").read_bytes() == content
    assert len(names(place)) == 2


# ---- damage


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Memory, Path]:
    """A memory with one peer, and the file of that."""
    place = tmp_path_factory.mktemp("memory") / "punchtunnel"
    memory = memory_in(place)
    memory.remember(PEERS, "", KNOWN)
    return memory, peer_files(place)[0]


@given(st.binary(max_size=300))
def test_any_bytes_in_a_file_are_something_or_nothing(written: tuple[Memory, Path], data: bytes) -> None:
    memory, path = written
    path.write_bytes(data)
    assert memory.recall(PEERS, "") == NOTHING
    memory.failed(PEERS, "")
    assert path.read_bytes() == data


@pytest.mark.parametrize("size", [0, 1, 100, 4096, 4097, 1 << 20])
def test_a_file_of_any_size_that_is_not_ours_is_nothing(size: int, written: tuple[Memory, Path]) -> None:
    memory, path = written
    memory.remember(PEERS, "", KNOWN)
    path.write_bytes(b"[" * size)
    assert memory.recall(PEERS, "") == NOTHING
    memory.remember(PEERS, "", KNOWN)
    with path.open("ab") as file:
        file.write(b" " * 4096)
    assert memory.recall(PEERS, "") == NOTHING
    memory.remember(PEERS, "", KNOWN)
    assert memory.recall(PEERS, "") == KNOWN


# ---- forgetting


def test_forgetting_removes_all_files_and_tells_how_many_peers(place: Path) -> None:
    memory = memory_in(place)
    for number in range(3):
        memory.remember([f"peer{number}.example"], "", KNOWN)
    key = memory.key()
    (place / f"punchtunnel-new-{'0' * 32}").touch()
    (place / f"punchtunnel-peer-{'0' * 32}").mkdir()
    os.utime(place / f"punchtunnel-peer-{'0' * 32}", (0, 0))
    assert memory_in(place).forget() == 3
    assert names(place) == [f"punchtunnel-peer-{'0' * 32}"]
    assert memory_in(place).forget() == 0
    assert memory_in(place).recall(["peer0.example"], "") == NOTHING
    assert memory_in(place).key() != key


def test_after_forgetting_a_memory_has_a_new_key_and_works_on(place: Path) -> None:
    memory = memory_in(place)
    memory.remember(PEERS, "", KNOWN)
    key = memory.key()
    assert memory.forget() == 1
    assert memory.recall(PEERS, "") == NOTHING
    memory.remember(PEERS, "", KNOWN)
    assert memory.key() != key
    assert memory_in(place).recall(PEERS, "") == KNOWN


# ---- the cost


def test_the_import_brings_no_json() -> None:
    program = f"import sys, {module.__name__}; print('json' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "False\n"
