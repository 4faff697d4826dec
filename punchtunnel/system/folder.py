"""A directory of small files that only this user can change.

The directory is opened once, looked at, and everything else goes through its descriptor, so that
nobody can put another one in its place meanwhile.

Nothing is flushed to the disk: after a power failure a file may be empty.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class Folder:
    """Files below a directory, by their bare names; a context manager, which closes the descriptor.

    The directory itself may be a symbolic link, as systemd makes one for StateDirectory= with
    DynamicUser=; its files may not.
    """

    def __init__(self, path: Path, *, make: bool = False) -> None:
        """Open a directory.

        Args:
            path: Absolute.
            make: A missing one is made with mode 0700, and so are those above it.

        Raises:
            OSError: There is none, it cannot be made, belongs to another user, or others can write to it.
        """
        if make:
            _make(path)
        self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _check(os.fstat(self._fd))
        except OSError:
            os.close(self._fd)
            raise

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def read(self, name: str, limit: int) -> bytes:
        """Return the first `limit` bytes of a file.

        Raises:
            OSError: There is none, or it is no regular file, another user's, or others can write to it.
        """
        # A FIFO in its place must not block, and is refused below.
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self._fd)
        try:
            info = os.fstat(fd)
            _check(info)
            if not stat.S_ISREG(info.st_mode):
                raise PermissionError
            return os.read(fd, limit)
        finally:
            os.close(fd)

    def replace(self, name: str, data: bytes, temporary: str) -> None:
        """Write a file, with mode 0600, in the place of the one that may be there; all of it or nothing.

        Args:
            name: Of the file.
            data: All of it.
            temporary: Another name, which nothing else uses.

        Raises:
            OSError: It cannot be written.
        """
        self._write(temporary, data, lambda: os.replace(temporary, name, src_dir_fd=self._fd, dst_dir_fd=self._fd))

    def add(self, name: str, data: bytes, temporary: str) -> None:
        """Write a file as `replace` does, but in nobody's place.

        Raises:
            FileExistsError: There is one already, and it is whole.
            OSError: It cannot be written, or the file system has no hard links.
        """
        self._write(temporary, data, lambda: os.link(temporary, name, src_dir_fd=self._fd, dst_dir_fd=self._fd))

    def remove(self, name: str) -> None:
        """Remove a file, or a symbolic link and not what it leads to.

        Raises:
            OSError: There is none, or it is a directory.
        """
        os.unlink(name, dir_fd=self._fd)

    def oldest_first(self) -> list[str]:
        """Return all names, sorted by the time of their last change.

        Raises:
            OSError: The directory cannot be read.
        """
        ages = []
        with os.scandir(self._fd) as entries:
            for entry in entries:
                # Another process may have removed it.
                with contextlib.suppress(FileNotFoundError):
                    ages.append((entry.stat(follow_symlinks=False).st_mtime_ns, entry.name))
        return [name for _, name in sorted(ages)]

    def _write(self, temporary: str, data: bytes, publish: Callable[[], None]) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        fd = os.open(temporary, flags, 0o600, dir_fd=self._fd)
        try:
            with open(fd, "wb") as file:
                # The umask may have taken more rights away.
                os.fchmod(fd, 0o600)
                file.write(data)
            publish()
        finally:
            # After a rename it is not there any more.
            with contextlib.suppress(OSError):
                self.remove(temporary)


def _make(path: Path) -> None:
    """Make a directory, unless it exists, below one that belongs to this user.

    Root with another user's HOME, as after sudo, would leave there what that user cannot change.
    """
    missing = []
    while not os.path.lexists(path):
        missing.append(path)
        path = path.parent
    if os.stat(path).st_uid != os.geteuid():
        raise PermissionError
    for one in reversed(missing):
        # Another process may make it at the same time.
        with contextlib.suppress(FileExistsError):
            os.mkdir(one, 0o700)
            # The umask may have taken more rights away.
            os.chmod(one, 0o700)


def _check(info: os.stat_result) -> None:
    if info.st_uid != os.geteuid() or info.st_mode & _WRITABLE_BY_OTHERS:
        raise PermissionError
