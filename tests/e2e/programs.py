"""Real programs that nobody here wrote, started so that they leave nothing behind."""

from __future__ import annotations

import contextlib
import getpass
import os
import pwd
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from .ends import COMMAND, PIPE, Lab, environment
from .flows import WAIT, free_port

# Where servers live that are not in a user's PATH.
SYSTEM_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
SFTP_SERVERS = ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/lib/ssh/sftp-server")


def needs(*names: str) -> None:
    """Skip the test unless these programs are installed."""
    missing = [name for name in names if shutil.which(name, path=SYSTEM_PATH) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


def run(*command: str, data: bytes = b"", wait: float = 90.0) -> bytes:
    """Run a program to its end and return its stdout; it must exit with 0."""
    done = subprocess.run(command, input=data, capture_output=True, timeout=wait, env=environment(), check=False)
    assert done.returncode == 0, f"{command[0]}: {done.returncode}: {done.stderr.decode(errors='replace')}"
    return done.stdout


def wait_for_line(process: subprocess.Popen[bytes], words: str) -> str:
    """Return the first line on stderr that has these words, and read on in the background."""
    assert process.stderr is not None
    found: list[str] = []
    seen = threading.Event()

    def read() -> None:
        with contextlib.suppress(OSError, ValueError):
            for line in process.stderr or ():
                if not found and words.encode() in line:
                    found.append(line.decode())
                    seen.set()
        seen.set()

    threading.Thread(target=read, daemon=True).start()
    assert seen.wait(WAIT), f"no {words!r} in {WAIT} s"
    assert found, f"ended without {words!r}: {process.poll()}"
    return found[0]


def socat_server(lab: Lab, address: str) -> int:
    """Start a socat that joins each connection to an address of its own kind; return its port."""
    options = ["-d", "-d", "-t", "30"]
    server = lab.program("socat", *options, "TCP-LISTEN:0,bind=127.0.0.1,fork", address, stderr=PIPE)
    return int(wait_for_line(server, "listening on").strip().rpartition(":")[2])


def web_server(lab: Lab, folder: Path) -> int:
    """Start Python's web server; return its port."""
    code = (
        "import functools, http.server as h, sys\n"
        "handler = functools.partial(h.SimpleHTTPRequestHandler, directory=sys.argv[1])\n"
        "server = h.ThreadingHTTPServer(('127.0.0.1', 0), handler)\n"
        "print('ready at', server.server_port, file=sys.stderr, flush=True)\n"
        "server.serve_forever()\n"
    )
    server = lab.program(sys.executable, "-c", code, str(folder), stderr=PIPE)
    return int(wait_for_line(server, "ready at").split()[-1])


@contextlib.contextmanager
def postgres(lab: Lab) -> Iterator[int]:
    """Start a PostgreSQL server of the test's own, which believes whoever is on loopback; give its port."""
    needs("psql")
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not folders:
        pytest.skip("not installed: postgresql")
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder:
        # It refuses to run as root.
        user = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
        shutil.chown(folder, user.pw_uid, user.pw_gid)
        as_user = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        as_user = as_user if os.geteuid() == 0 else []
        data, port = f"{folder}/data", free_port()
        run(*as_user, f"{folders[-1]}/initdb", "--no-sync", "--auth=trust", "--username=me", "-D", data)
        server = lab.program(*as_user, f"{folders[-1]}/postgres", "-D", data, "-p", str(port), "-k", "", stderr=PIPE)
        try:
            wait_for_line(server, "ready to accept connections")
            yield port
        finally:
            # Killed, it would leave memory that is shared.
            server.send_signal(signal.SIGINT)
            server.wait(WAIT)


class SshServer:
    """An OpenSSH server of the test's own, and how to log in to it.

    Attributes:
        port: Where it listens, on loopback.
    """

    def __init__(self, lab: Lab) -> None:
        needs("sshd", "ssh", "ssh-keygen")
        self._folder = lab.folder / "ssh"
        self._folder.mkdir(mode=0o700)
        for name in ("host", "user"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self._folder / name))
        host_key = (self._folder / "host.pub").read_text()
        (self._folder / "known_hosts").write_text(f"behind-the-hole {host_key}")
        shutil.copy(self._folder / "user.pub", self._folder / "authorized_keys")
        self.port = free_port()
        self._configure()
        server = lab.program(*_sshd(), "-D", "-e", "-f", str(self._folder / "sshd_config"), stderr=PIPE)
        wait_for_line(server, "Server listening on")

    def _configure(self) -> None:
        sftp = next((path for path in SFTP_SERVERS if os.path.exists(path)), "internal-sftp")
        folder = self._folder
        (folder / "sshd_config").write_text(
            f"ListenAddress 127.0.0.1\nPort {self.port}\nHostKey {folder}/host\nPidFile none\n"
            f"AuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nUsePAM no\n"
            f"PermitRootLogin prohibit-password\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
            f"MaxStartups 100\nSubsystem sftp {sftp}\n"
        )
        (folder / "ssh_config").write_text(
            f"Host *\nUser {getpass.getuser()}\nIdentityFile {folder}/user\nIdentitiesOnly yes\nBatchMode yes\n"
            f"UserKnownHostsFile {folder}/known_hosts\nGlobalKnownHostsFile none\nStrictHostKeyChecking yes\n"
            f"HostKeyAlias behind-the-hole\nConnectTimeout 60\nLogLevel ERROR\n"
        )

    @property
    def config(self) -> str:
        """What ssh's configuration needs to log in."""
        return (self._folder / "ssh_config").read_text()

    def opens_in(self, folder: Path) -> None:
        """Begin every session in this folder, in place of the user's home."""
        key = (self._folder / "user.pub").read_text()
        command = f'cd {folder} && eval \\"$SSH_ORIGINAL_COMMAND\\"'
        (self._folder / "authorized_keys").write_text(f'command="{command}" {key}')

    @property
    def options(self) -> list[str]:
        """Options for ssh, scp, sftp."""
        return ["-F", str(self._folder / "ssh_config")]

    def ssh(self, *options: str) -> list[str]:
        """Return the beginning of an ssh command line, up to the host."""
        return ["ssh", *self.options, *options]


def proxy(lab: Lab) -> str:
    """Return the ssh option that makes the left end of a hole the way to the server."""
    return f"ProxyCommand={shlex.join([*COMMAND, *lab.towards_right, '--stdio'])}"


def _sshd() -> list[str]:
    """Return the command that starts sshd, which wants an empty folder of its own when it is root."""
    path = shutil.which("sshd", path=SYSTEM_PATH)
    assert path is not None
    if os.geteuid() != 0 or os.path.isdir("/run/sshd"):
        return [path]
    # A /run that only this sshd and its children see: nothing is left behind.
    prepare = "mount -t tmpfs none /run && mkdir -m 755 /run/sshd"
    if subprocess.run(["unshare", "-m", "sh", "-c", prepare], capture_output=True, check=False).returncode != 0:
        pytest.skip("sshd needs the folder /run/sshd, and this machine does not let us make a private one")
    return ["unshare", "-m", "sh", "-c", f'{prepare} && exec "$@"', "sh", path]
