"""How the tool and each of its peers are started: an entry at the left, an exit at the right.

Every function takes a stage and the target's port, starts both hops, waits
until a connection goes through, and returns where clients connect.  A peer is
configured as its manual suggests for speed, and no further.
"""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .stage import Stage, environment, free_port, wait_until_listening

SSH_CIPHER = "aes128-gcm@openssh.com"
TLS_CIPHER = "TLS_AES_128_GCM_SHA256"
# What socat, and HAProxy if it is tuned, are given to move at once.
BUFFER = 1048576
SOCAT_BUFFER = f"-b{BUFFER}"
_SECRET = secrets.token_hex(16)


@dataclass(frozen=True, slots=True)
class Forwarder:
    """What was started.

    Attributes:
        host: Where clients on the left host connect to.
        port: The port there.
        hops: The processes that forward; their processor time counts.
        speaks_iperf: Whether the far end is iperf3's own server.
    """

    host: str
    port: int
    hops: tuple[subprocess.Popen[bytes], ...] = ()
    speaks_iperf: bool = False


Process = subprocess.Popen[bytes]
Start = Callable[[Stage, int], Forwarder]


def _ready(stage: Stage, port: int, far: Process, near: Process) -> Forwarder:
    wait_until_listening(near, port)
    stage.load("probe", "127.0.0.1", port)
    return Forwarder("127.0.0.1", port, (far, near))


def nothing(stage: Stage, target: int) -> Forwarder:
    """Connect without a forwarder: what plain TCP does, and how fast the load itself can be."""
    return Forwarder(stage.place.right, target)


def iperf3(stage: Stage, _target: int) -> Forwarder:
    """Connect without a forwarder, and with iperf3 as the load."""
    port = free_port()
    server = stage.right("iperf3", "-s", "-B", stage.place.right, "-p", str(port))
    wait_until_listening(server, port)
    return Forwarder(stage.place.right, port, speaks_iperf=True)


# ---- the tool


def tool_command(stage: Stage, own: str, other: str) -> list[str]:
    """Return the command of one end, without its role."""
    # The channel keeps it apart from real tunnels of this machine.
    return [*stage.program, other, "--bind", own, "--channel", stage.name, "-q"]


def tool_ends(stage: Stage, sealed: bool) -> tuple[list[str], list[str], dict[str, str]]:
    """Return the commands of the left and of the right end, without roles, and their environment."""
    left = tool_command(stage, stage.place.left, stage.place.right)
    right = tool_command(stage, stage.place.right, stage.place.left)
    if sealed:
        return left, right, environment(stage.tool, PUNCHTUNNEL_SECRET=_SECRET)
    return [*left, "--plain"], [*right, "--plain", "--no-secret"], environment(stage.tool)


def punchtunnel(stage: Stage, target: int, sealed: bool, options: Sequence[str] = ()) -> Forwarder:
    """Start the tool with -L at the left and --to at the right."""
    left, right, env = tool_ends(stage, sealed)
    port = free_port()
    far = stage.right(*right, *options, "--to", f"{stage.place.right}:{target}", env=env)
    return _ready(stage, port, far, stage.left(*left, *options, "-L", str(port), env=env))


# ---- the peers: two hops alike, "127.0.0.1:port -> right:middle" and "right:middle -> right:target"


def _two_hops(stage: Stage, target: int, hop: Callable[[str, str, str, str], list[str]]) -> Forwarder:
    """Start what `hop` returns for a role ("near" or "far"), a name for files, and "HOST:PORT" from and towards."""
    port, middle, right = free_port(), f"{stage.place.right}:{free_port()}", stage.place.right
    name = stage.name.replace(" ", "-")
    far = stage.right(*hop("far", f"{name}-far", middle, f"{right}:{target}"))
    wait_until_listening(far, int(middle.rpartition(":")[2]))
    return _ready(stage, port, far, stage.left(*hop("near", f"{name}-near", f"127.0.0.1:{port}", middle)))


def socat(stage: Stage, target: int, *options: str) -> Forwarder:
    """Start a socat at either end that forks for each connection."""

    def hop(_role: str, _name: str, listen: str, towards: str) -> list[str]:
        address, _, port = listen.rpartition(":")
        # Its usual backlog of 5 would measure lost SYNs.
        listener = f"TCP-LISTEN:{port},bind={address},reuseaddr,fork,backlog=512"
        return ["socat", *options, "-t10", listener, f"TCP:{towards}"]

    return _two_hops(stage, target, hop)


def haproxy(stage: Stage, target: int, splice: bool, pipe: int = 0) -> Forwarder:
    """Start HAProxy in TCP mode at either end, with as many threads as it likes.

    `option splice-auto` was tried and never splices such streams; being told
    to, it does.

    Args:
        stage, target: As everywhere.
        splice: Tell it to.
        pipe: Bytes of its pipes; 0: the system's, 64 KiB.
    """
    tuning = f" tune.pipesize {pipe}\n" if pipe else ""
    options = " option splice-request\n option splice-response\n" if splice else ""

    def hop(_role: str, name: str, listen: str, towards: str) -> list[str]:
        config = stage.folder / f"{name}.haproxy"
        config.write_text(
            f"global\n maxconn 4000\n{tuning}"
            f"defaults\n mode tcp\n timeout connect 10s\n timeout client 1h\n timeout server 1h\n{options}"
            f"listen hop\n bind {listen}\n server next {towards}\n"
        )
        return ["haproxy", "-db", "-q", "-f", str(config)]

    return _two_hops(stage, target, hop)


def stunnel(stage: Stage, target: int) -> Forwarder:
    """Start stunnel at either end: TLS 1.3 with a shared key, so that no certificate is needed."""

    def hop(role: str, name: str, listen: str, towards: str) -> list[str]:
        config, key = stage.folder / f"{name}.stunnel", stage.folder / "stunnel-key"
        key.write_text(f"bench:{_SECRET}\n")
        key.chmod(0o600)
        config.write_text(
            f"foreground = yes\npid =\nsyslog = no\ndebug = err\nsslVersion = TLSv1.3\nciphersuites = {TLS_CIPHER}\n"
            f"[hop]\nclient = {'yes' if role == 'near' else 'no'}\naccept = {listen}\nconnect = {towards}\n"
            f"PSKsecrets = {key}\nTIMEOUTclose = 0\n"
        )
        return ["stunnel", str(config)]

    return _two_hops(stage, target, hop)


def bare(stage: Stage, target: int) -> Forwarder:
    """Start a loop of recv, AES-GCM and send at either end, with nothing around it."""

    def hop(role: str, _name: str, listen: str, towards: str) -> list[str]:
        return [sys.executable, "-m", "bench.bare", role, listen, towards]

    return _two_hops(stage, target, hop)


def bare_streams(stage: Stage, target: int, sealed: bool) -> Forwarder:
    """Start streams over one connection with little around them."""

    def hop(role: str, _name: str, listen: str, towards: str) -> list[str]:
        return [sys.executable, "-m", "bench.barestreams", role, listen, towards, *(["sealed"] if sealed else [])]

    return _two_hops(stage, target, hop)


# ---- ssh


def ssh(stage: Stage, target: int) -> Forwarder:
    """Start an OpenSSH server at the right, and a client with -L at the left."""
    server, _port, client = start_sshd(stage)
    port = free_port()
    forward = f"127.0.0.1:{port}:{stage.place.right}:{target}"
    # With -N instead of a session on a terminal the server leaves Nagle's
    # algorithm on, and small messages wait for acknowledgements.
    session = ["-tt", "-L", forward, stage.place.right, "exec sleep infinity"]
    return _ready(stage, port, server, stage.left(*client, *session))


def start_sshd(stage: Stage) -> tuple[Process, int, list[str]]:
    """Start a server of our own; return it, its port, and the beginning of a client's command, up to the host."""
    folder, port = _ssh_folder(stage), free_port()
    config = folder / f"sshd-{port}"
    config.write_text(
        f"ListenAddress {stage.place.right}\nPort {port}\nHostKey {folder}/host\nPidFile none\n"
        f"AuthorizedKeysFile {folder}/user.pub\nStrictModes no\nUsePAM no\nPermitRootLogin prohibit-password\n"
        f"PasswordAuthentication no\nKbdInteractiveAuthentication no\nCompression no\nUseDNS no\n"
    )
    path = shutil.which("sshd", path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    server = stage.right(str(path), "-D", "-e", "-f", str(config))
    wait_until_listening(server, port)
    options = {
        "IdentityFile": f"{folder}/user", "UserKnownHostsFile": os.devnull, "StrictHostKeyChecking": "no",
        "BatchMode": "yes", "LogLevel": "ERROR", "Compression": "no", "Ciphers": SSH_CIPHER,
        "ExitOnForwardFailure": "yes", "User": getpass.getuser(), "Port": str(port),
    }  # fmt: skip
    # No configuration file: the user's own must not matter.
    return server, port, ["ssh", "-F", "none", *(f"-o{name}={value}" for name, value in options.items())]


def _ssh_folder(stage: Stage) -> Path:
    """Return the folder with the two keys; make them when they are needed first."""
    folder = stage.folder / "ssh"
    if not folder.exists():
        folder.mkdir(mode=0o700)
        for name in ("host", "user"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
            subprocess.run(command, check=True)
        if os.geteuid() == 0:
            # What sshd of root wants; /run is our own then, see sandbox.py.
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    return folder
