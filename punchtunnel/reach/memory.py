"""Remember what worked with a peer, as hints for the next punch (remembered.py says which).

    $STATE_DIRECTORY, or $XDG_STATE_HOME/punchtunnel, or ~/.local/state/punchtunnel      0700
        punchtunnel-key             32 random bytes                                      0600
        punchtunnel-peer-<hash>     JSON with the addresses and ports of one peer        0600

Who can read what: this user and root can read everything, other users nothing.  A hash is made with
the key, so a list of the names of the files, as a backup prints one, tells neither peers nor channels.
The content has the peer's names and addresses as they are, and the channel and the secret are in none
of the files.

Rule 1: nothing here fails.  Where nothing can be written or read, nothing is remembered.
Rule 2: a directory or a file that others could have changed counts as missing.
Rule 3: of two processes that write at the same time, the later one wins.
Rule 4: the directory may be another program's: only files with names as above are ever touched.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from punchtunnel.reach.remembered import MAX_SIZE, NOTHING, Remembered, canonical, decode, encode, is_loopback
from punchtunnel.system.folder import Folder

KEY_SIZE = 32
# The files of more are removed, the oldest first.
MAX_PEERS = 50
_KEY = "punchtunnel-key"
_PEER = "punchtunnel-peer-"
# A file that is being written; one that stays is left by a process that was killed.
_TEMPORARY = "punchtunnel-new-"
_HASHED = re.compile(rf"({_PEER}|{_TEMPORARY})[0-9a-f]{{32}}")


def state_directory(environ: Mapping[str, str]) -> Path | None:
    """Return the directory of the files, which need not exist; None if the environment names none.

    Args:
        environ: STATE_DIRECTORY is systemd's (systemd.exec(5), the first of several), then comes
            XDG_STATE_HOME, then HOME.  A relative path is ignored, as the XDG Base Directory
            Specification says.
    """
    service = Path(environ.get("STATE_DIRECTORY", "").partition(":")[0])
    if service.is_absolute():
        return service
    state, home = Path(environ.get("XDG_STATE_HOME", "")), Path(environ.get("HOME", ""))
    if state.is_absolute():
        return state / "punchtunnel"
    return home / ".local" / "state" / "punchtunnel" if home.is_absolute() else None


class Memory:
    """What was written in earlier runs of this user, and takes what is to be read in later ones.

    Args:
        directory: Of the files; made at the first write.  None is a memory of nothing.
        wall: Tells the wall time in seconds; may be wrong.
        random_bytes: Returns as many random bytes.
    """

    def __init__(
        self,
        directory: Path | None,
        wall: Callable[[], float],
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._directory = directory
        self._wall = wall
        self._random_bytes = random_bytes
        # Becomes the lasting key if there is none yet, and something can be written.
        self._fresh_key = random_bytes(KEY_SIZE)

    def key(self) -> bytes:
        """Return KEY_SIZE bytes that only this user knows: the same in each run, or in this one if none can be kept."""
        with contextlib.suppress(OSError), self._open(make=True) as folder:
            return self._lasting_key(folder)
        return self._fresh_key

    def recall(self, peers: Sequence[str], channel: str) -> Remembered:
        """Return what is known; NOTHING if that is nothing.

        Args:
            peers: As in Settings.
            channel: Its name.
        """
        with contextlib.suppress(OSError), self._open() as folder:
            return self._read(folder, folder.read(_KEY, KEY_SIZE), peers, channel)
        return NOTHING

    def remember(self, peers: Sequence[str], channel: str, remembered: Remembered) -> None:
        """Keep what is known, in the place of what was; it counts from its times on, for LIFETIME."""
        with contextlib.suppress(OSError), self._open(make=True) as folder:
            self._write(folder, self._lasting_key(folder), peers, channel, remembered)

    def failed(self, peers: Sequence[str], channel: str) -> None:
        """Count a punch in which no hole opened, against the way that is remembered."""
        with contextlib.suppress(OSError), self._open() as folder:
            key = folder.read(_KEY, KEY_SIZE)
            known = self._read(folder, key, peers, channel)
            if known.way is not None:
                self._write(folder, key, peers, channel, known.after_failure())

    def forget(self) -> int:
        """Remove all files of ours, the key too; return how many peers are forgotten."""
        count = 0
        self._fresh_key = self._random_bytes(KEY_SIZE)
        with contextlib.suppress(OSError), self._open() as folder:
            for name in folder.oldest_first():
                if name == _KEY or _HASHED.fullmatch(name):
                    with contextlib.suppress(OSError):
                        folder.remove(name)
                        count += name.startswith(_PEER)
        return count

    def _open(self, *, make: bool = False) -> Folder:
        if self._directory is None:
            raise FileNotFoundError
        return Folder(self._directory, make=make)

    def _lasting_key(self, folder: Folder) -> bytes:
        """Return the key of the file, which is made if there is none.

        Raises:
            OSError: It can neither be read nor written.
        """
        with contextlib.suppress(FileNotFoundError):
            key = folder.read(_KEY, KEY_SIZE)
            if len(key) == KEY_SIZE:
                return key
            # The machine may have lost its power when it was made.
            folder.remove(_KEY)
        with contextlib.suppress(FileExistsError):
            folder.add(_KEY, self._fresh_key, self._temporary())
            return self._fresh_key
        # Another process was faster.
        return folder.read(_KEY, KEY_SIZE)

    def _read(self, folder: Folder, key: bytes, peers: Sequence[str], channel: str) -> Remembered:
        data = folder.read(_file_of(key, peers, channel), MAX_SIZE + 1)
        return decode(data, self._wall(), {canonical(peer) for peer in peers}, local=_are_local(peers))

    def _write(self, folder: Folder, key: bytes, peers: Sequence[str], channel: str, remembered: Remembered) -> None:
        name = _file_of(key, peers, channel)
        folder.replace(name, encode(remembered, local=_are_local(peers)), self._temporary())
        # The clock may have gone back: what was written just now stays, whatever its time.
        others = [other for other in folder.oldest_first() if other != name and _HASHED.fullmatch(other)]
        for other in others[: max(0, len(others) - MAX_PEERS + 1)]:
            with contextlib.suppress(OSError):
                folder.remove(other)

    def _temporary(self) -> str:
        return _TEMPORARY + self._random_bytes(16).hex()


def _file_of(key: bytes, peers: Sequence[str], channel: str) -> str:
    """Return the name of a file: the same for any order and spelling of the peers."""
    # With their sizes, so that no two lists make the same bytes.
    parts = [part.encode("utf-8", "surrogatepass") for part in (*sorted(set(map(canonical, peers))), channel)]
    message = b"punchtunnel memory 1" + b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return _PEER + hmac.digest(key, message, hashlib.sha256).hex()[:32]


def _are_local(peers: Sequence[str]) -> bool:
    """Tell whether a peer is on this machine's loopback: only then such an address is worth remembering."""
    return any(map(is_loopback, peers))
