"""The error tree and the exit status that each branch stands for.

An error's text is one sentence for a person: lower case, what happened, with
numbers, and what to try.  Anything that is not a `PunchtunnelError` is a bug
and shows its traceback.
"""

from __future__ import annotations

import errno
from enum import IntEnum

# Errors of the system that tell that it is out of descriptors or memory.
NO_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Exit(IntEnum):
    """Exit statuses, as `--help` and the man page list them."""

    OK = 0
    LOST = 1
    USAGE = 2
    NO_HOLE = 3
    REJECTED = 4
    LOCAL = 5
    TARGET = 6
    # 128 + signal number, as a shell reports a process that a signal ended.
    HANGUP = 129
    INTERRUPTED = 130
    BROKEN_PIPE = 141
    TERMINATED = 143


class PunchtunnelError(Exception):
    """Base of every error that this package raises on purpose."""

    status: Exit = Exit.LOST


class LinkError(PunchtunnelError):
    """The link was lost, or data was cut."""


class LostError(LinkError):
    """The hole was lost: another one may be punched."""


class PeerError(LinkError):
    """The peer's bytes break the protocol; the connection must be closed."""


class RecordError(PeerError):
    """A record is not the peer's: somebody on the way has changed it, and the hole is of no more use."""


class UsageError(PunchtunnelError, ValueError):
    """An argument is wrong or contradicts another one."""

    status = Exit.USAGE


class NoHoleError(PunchtunnelError):
    """No hole had opened when the time to wait was over."""

    status = Exit.NO_HOLE


class RejectedError(PunchtunnelError):
    """The peer was met, but its role, version or secret does not fit, or only one side is plain."""

    status = Exit.REJECTED


class LocalError(PunchtunnelError):
    """Something on this machine is refused: a port is taken, a file cannot be read."""

    status = Exit.LOCAL


class TargetError(PunchtunnelError):
    """The side that has --to could not reach its target."""

    status = Exit.TARGET


class SignalError(PunchtunnelError):
    """A signal asked this process to end."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"ended by signal {signal_number}")
        self.status = Exit(128 + signal_number)
