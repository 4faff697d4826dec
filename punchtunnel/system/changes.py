"""Tells when an address or a route of this machine changes, as Linux announces it (rtnetlink(7)); no polling."""

from __future__ import annotations

import errno
import os
import socket

# linux/rtnetlink.h: RTMGRP_LINK, and those of addresses and routes by IP version.
_GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
_ROUTE = 0
_RECEIVE_SIZE = 65536


class Changes:
    """Readable after a change, until `drain`.

    Raises:
        OSError: This system has no such thing, or does not allow it.
    """

    def __init__(self) -> None:
        family = getattr(socket, "AF_NETLINK", None)
        if family is None:
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
        self._sock = socket.socket(family, socket.SOCK_RAW, _ROUTE)
        try:
            self._sock.setblocking(False)
            self._sock.bind((0, _GROUPS))
        except OSError:
            self._sock.close()
            raise

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._sock.fileno()

    def drain(self) -> None:
        """Forget what has come: that something has changed is all that counts."""
        while True:
            try:
                self._sock.recv(_RECEIVE_SIZE)
            except BlockingIOError:
                return
            except OSError as error:
                # There were too many at once.
                if error.errno != errno.ENOBUFS:
                    raise

    def close(self) -> None:
        """Give the descriptor back."""
        self._sock.close()
