"""Private namespaces: a laboratory that cannot leave anything behind.

    caller's namespaces          private mount, network and process namespaces
    +---------------------+      +------------------------------------------+
    | the lab as started, |      | the lab itself, process 1                |
    | waits, forwards the | ---> | /run is a tmpfs: /run/netns, scratch     |
    | exit status         |      | every child, namespace and device        |
    +---------------------+      +------------------------------------------+

When process 1 ends, for whatever reason, the kernel kills every other process
in there, and with the last one go the mounts, the namespaces and the devices.
No clean-up code has to run, so none can be forgotten or interrupted.  The one
thing the kernel does not do is to kill process 1 when its waiting parent is
killed; PR_SET_PDEATHSIG asks for that.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path as FilePath

# From <linux/sched.h>, <linux/mount.h> and <linux/prctl.h>; os.unshare and
# os.setns came with Python 3.12 only.
CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWNET = 0x00020000, 0x20000000, 0x40000000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
PR_SET_PDEATHSIG = 1

RUN = FilePath("/run")
SCRATCH = RUN / "natlab"
NAMESPACES = RUN / "netns"
# Where lines for /etc/hosts stand that only one namespace has.
HOSTS = SCRATCH / "hosts"
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")


def missing() -> str | None:
    """Return why the laboratory cannot run on this machine, or None if it can."""
    if os.geteuid() != 0:
        return "the network laboratory needs root"
    for program, package in (("ip", "iproute2"), ("nft", "nftables"), ("nsenter", "util-linux")):
        if shutil.which(program) is None:
            return f"the network laboratory needs {program} (Debian package {package})"
    if not FilePath("/dev/net/tun").exists():
        return "the network laboratory needs /dev/net/tun"
    probe = ["unshare", "--mount", "--net", "--pid", "--fork", "nft", "add table ip natlab"]
    if subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        return "the network laboratory needs the right to make namespaces and nftables tables"
    return None


def enter() -> None:
    """Go on in private namespaces; only the child returns, the caller's process waits and exits."""
    _check(_libc.unshare(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET), "unshare")
    alive, held = os.pipe()
    child = os.fork()
    if child:
        os.close(alive)
        _wait(child)
    os.close(held)
    # A session of its own: Ctrl-C on the terminal reaches the waiting parent only.
    os.setsid()
    die_with_parent()
    if select.select([alive], [], [], 0)[0]:  # the parent was gone before the line above
        os._exit(1)
    _mount("none", "/", "", MS_REC | MS_PRIVATE)
    _mount("proc", "/proc", "proc", 0)
    _mount("tmpfs", str(RUN), "tmpfs", 0)
    for directory in (SCRATCH, NAMESPACES, HOSTS):
        directory.mkdir()
    os.environ["TMPDIR"] = str(SCRATCH)
    # No run remembers another one.
    os.environ["XDG_STATE_HOME"] = "/dev/null"
    os.environ.pop("STATE_DIRECTORY", None)


def names_in(namespace: str) -> FilePath:
    """Return the file with what names mean in a namespace; most have none."""
    return HOSTS / namespace


def _wait(child: int) -> None:
    """Wait for process 1 and exit as it did; a signal to this process ends it at once."""
    ended_by: list[int] = []

    def end(number: int, _frame: object) -> None:
        ended_by.append(number)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)

    for number in FORWARDED:
        signal.signal(number, end)
    _pid, status = os.waitpid(child, 0)
    code = 128 + ended_by[0] if ended_by else os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


def _mount(what: str, where: str, kind: str, flags: int) -> None:
    result = _libc.mount(what.encode(), where.encode(), kind.encode(), ctypes.c_ulong(flags), None)
    _check(result, f"mount {where}")


def die_with_parent() -> None:
    """Ask the kernel to kill this process when the thread that started it ends."""
    _check(_libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")


def leave_system_log() -> None:
    """Be without this machine's log and console from now on: what syslog(3) is told goes nowhere."""
    _check(_libc.unshare(CLONE_NEWNS), "unshare")
    for place in ("/dev/log", "/dev/console"):
        if os.path.exists(place):
            _mount("/dev/null", place, "", MS_BIND)


@contextlib.contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Be in the network namespace of that name for a while, for making a socket or device there."""
    with open("/proc/self/ns/net") as back, open(NAMESPACES / namespace) as there:
        _check(_libc.setns(there.fileno(), CLONE_NEWNET), f"setns {namespace}")
        try:
            yield
        finally:
            _check(_libc.setns(back.fileno(), CLONE_NEWNET), "setns back")
