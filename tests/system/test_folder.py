"""A directory that only this user can change: what is made has the right modes, and nothing else is believed."""

from __future__ import annotations

import contextlib
import os
import resource
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from punchtunnel.system.folder import Folder


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A directory of this user's, with one file in it."""
    path = tmp_path / "own"
    with Folder(path, make=True) as folder:
        folder.replace("file", b"old", "new")
    return path


@contextlib.contextmanager
def no_room() -> Iterator[None]:
    """Every write to a file fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777], ids=oct)
def test_modes_do_not_depend_on_the_umask(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        with Folder(tmp_path / "a" / "b", make=True) as folder:
            folder.replace("replaced", b"x", "new")
            folder.add("added", b"x", "new")
    finally:
        os.umask(before)
    assert [mode(tmp_path / name) for name in ("a", "a/b")] == [0o700] * 2
    assert [mode(tmp_path / "a" / "b" / name) for name in ("replaced", "added")] == [0o600] * 2


def test_a_missing_directory_is_made_only_when_that_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Folder(tmp_path / "missing")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_is_made_at_the_same_time_as_by_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mkdir = os.mkdir

    def twice(path: Path, mode: int) -> None:
        mkdir(path, mode)
        mkdir(path, mode)

    monkeypatch.setattr(os, "mkdir", twice)
    with Folder(tmp_path / "a" / "b", make=True) as folder:
        assert folder.oldest_first() == []


def test_no_directory_is_made_in_that_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root with the HOME of somebody else would leave there what that user cannot change."""
    stranger = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: stranger)
    with pytest.raises(PermissionError):
        Folder(tmp_path / ".local" / "state", make=True)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_of_another_user_is_not_opened(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(os.listdir("/proc/self/fd"))
    stranger = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: stranger)
    for make in (False, True):
        with pytest.raises(PermissionError):
            Folder(own, make=make)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("bits", [0o720, 0o702, 0o1777], ids=oct)
def test_a_directory_that_others_can_write_to_is_not_opened(bits: int, own: Path) -> None:
    own.chmod(bits)
    with pytest.raises(PermissionError):
        Folder(own, make=True)


def test_a_directory_that_others_can_read_is_opened(own: Path) -> None:
    own.chmod(0o755)
    with Folder(own) as folder:
        assert folder.read("file", 9) == b"old"


def test_a_link_may_lead_to_the_directory(own: Path, tmp_path: Path) -> None:
    """systemd makes one from /var/lib to /var/lib/private for a DynamicUser."""
    (tmp_path / "link").symlink_to(own)
    with Folder(tmp_path / "link", make=True) as folder:
        assert folder.read("file", 9) == b"old"


def test_no_more_is_read_than_wanted(own: Path) -> None:
    with Folder(own) as folder:
        assert folder.read("file", 2) == b"ol"


@pytest.mark.parametrize("bits", [0o620, 0o602, 0o666], ids=oct)
def test_a_file_that_others_can_write_to_is_not_read(bits: int, own: Path) -> None:
    (own / "file").chmod(bits)
    with Folder(own) as folder, pytest.raises(PermissionError):
        folder.read("file", 9)


def test_a_file_of_another_user_is_not_read(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Folder(own) as folder:
        stranger = os.geteuid() + 1
        monkeypatch.setattr(os, "geteuid", lambda: stranger)
        with pytest.raises(PermissionError):
            folder.read("file", 9)


def test_what_is_no_regular_file_is_not_read_and_does_not_block(own: Path) -> None:
    (own / "directory").mkdir(0o700)
    os.mkfifo(own / "fifo", 0o600)
    (own / "link").symlink_to(own / "file")
    before = len(os.listdir("/proc/self/fd"))
    with Folder(own) as folder:
        for name in ("directory", "fifo"):
            with pytest.raises(PermissionError):
                folder.read(name, 9)
        with pytest.raises(OSError, match="symbolic links"):
            folder.read("link", 9)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_link_is_replaced_and_removed_and_never_followed(own: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    with Folder(own) as folder:
        for name in ("replaced", "removed", "new"):
            (own / name).symlink_to(target)
        folder.replace("replaced", b"x", "temporary")
        folder.remove("removed")
        with pytest.raises(FileExistsError):
            folder.replace("file", b"x", "new")
        with pytest.raises(FileExistsError):
            folder.add("replaced", b"y", "temporary")
    assert target.read_bytes() == b"precious"
    assert sorted(path.name for path in own.iterdir()) == ["file", "new", "replaced"]


def test_a_file_is_added_once(own: Path) -> None:
    with Folder(own) as folder:
        folder.add("added", b"first", "new")
        with pytest.raises(FileExistsError):
            folder.add("added", b"second", "new")
        assert folder.read("added", 9) == b"first"
        assert sorted(folder.oldest_first()) == ["added", "file"]


def test_a_full_disk_leaves_the_old_file_and_nothing_else(own: Path) -> None:
    with Folder(own) as folder:
        for write in (folder.replace, folder.add):
            with no_room(), pytest.raises(OSError, match="File too large"):
                write("file", b"new", "temporary")
        assert folder.oldest_first() == ["file"]
        assert folder.read("file", 9) == b"old"


def test_a_directory_in_the_place_of_a_file_stays_and_leaves_no_temporary_file(own: Path) -> None:
    (own / "directory").mkdir()
    with Folder(own) as folder:
        with pytest.raises(IsADirectoryError):
            folder.replace("directory", b"x", "new")
        # EISDIR on Linux, EPERM as POSIX has it.
        with pytest.raises((IsADirectoryError, PermissionError)):
            folder.remove("directory")
    assert sorted(path.name for path in own.iterdir()) == ["directory", "file"]


def test_names_are_sorted_by_the_time_of_their_last_change(own: Path) -> None:
    with Folder(own) as folder:
        for number, name in enumerate(["b", "c", "a"]):
            folder.replace(name, b"x", "new")
            os.utime(own / name, (number, number))
        (own / "dangling").symlink_to("missing")
        os.utime(own / "dangling", (9, 9), follow_symlinks=False)
        assert folder.oldest_first() == ["b", "c", "a", "dangling", "file"]


def test_a_file_that_goes_away_meanwhile_has_no_time(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    @contextlib.contextmanager
    def late(fd: int) -> Iterator[list[os.DirEntry[str]]]:
        with scandir(fd) as entries:
            found = list(entries)
        (own / "file").unlink()
        yield found

    with Folder(own) as folder:
        folder.replace("other", b"x", "new")
        monkeypatch.setattr(os, "scandir", late)
        assert folder.oldest_first() == ["other"]
