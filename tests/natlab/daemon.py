"""A router's port-mapping daemon: Debian's miniupnpd (nftables), in the router's namespace.

    python -m tests.natlab.daemon KIND DIRECTORY      runs it, in DIRECTORY

Says "ready" after the daemon has answered, and ends it when stdin ends.  When
the daemon alone ends, another one is started: so a router forgets what it has
mapped (`forget`), and its epoch starts anew.

The chains that the daemon fills belong to the router's own table (build.py),
whose `forward` asks the one called FORWARD: an accept in a table of its own
would not keep the router's filter from dropping.  DNAT and SNAT need a table
of the family inet, so they stand beside the `table ip nat` of the router.

What miniupnpd 2.3.1 does that matters here: it maps nothing while its outside
address is a reserved one, and says 3 (network failure) to NAT-PMP; PCP comes
with NAT-PMP, and nothing switches one of the two off, so the other version's
packets are dropped; a port that is taken or not allowed becomes the next one
that is not, in spite of PREFER_FAILURE; its permissions are about IPv4, and
pinholes for IPv6 are given to everybody.
"""

from __future__ import annotations

import os
import select
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path as FilePath

from . import sandbox
from .internet import DEVICE
from .topology import Daemon

PROGRAM, PACKAGE = "miniupnpd", "miniupnpd-nftables"
TABLE = "natlab"
FORWARD, INBOUND, OUTBOUND = "mapped_forward", "mapped_inbound", "mapped_outbound"
GATEWAY, LAN = "192.168.1.1", "192.168.1.0/24"
# RFC 6886 §3, RFC 6887 §19.
PORT = 5351
# Where UPnP's descriptions are; any port would do.
HTTP_PORT = 5000
# Seconds for the daemon to answer once, and at all.  Its start takes 0.02 s on an idle machine.
PROBE, PATIENCE = 0.5, 20.0
PAUSE = 0.01
# Below 10240, where the tool's own begin.
UNUSED_PORTS = "1024-10239"
# The first byte of the other protocol's packets: NAT-PMP is version 0, and PCP 2.
_OTHER_VERSION = {Daemon.NATPMP: 2, Daemon.PCP: 0}
_ALLOWED = {Daemon.DENIED: "", Daemon.OTHER_PORTS: f"allow {UNUSED_PORTS} {LAN} 1024-65535\n"}


def missing() -> str | None:
    """Return why routers with a daemon cannot run on this machine, or None if they can."""
    if shutil.which(PROGRAM) is None:
        return f"routers that map ports need {PROGRAM} (Debian package {PACKAGE})"
    return None


def directory_of(namespace: str) -> FilePath:
    """Return where the daemon of a router has its files."""
    return sandbox.SCRATCH / f"{namespace}.daemon"


def chains() -> str:
    """Return the chains that the daemon fills, for the router's table of the family inet."""
    return f"""\
  chain {FORWARD} {{ }}
  chain {INBOUND} {{ type nat hook prerouting priority -100; }}
  chain {OUTBOUND} {{ type nat hook postrouting priority 100; }}"""


def input_rule(kind: Daemon) -> str:
    """Return the rule for the router's `input` by which it speaks one protocol only; the probe is not concerned."""
    if kind is Daemon.UPNP:
        # PCP over IPv6 is there all the same.
        return f'iifname != "lo" udp dport {PORT} reject'
    if (version := _OTHER_VERSION.get(kind)) is None:
        return ""
    # The first byte behind the UDP header.
    return f'iifname != "lo" udp dport {PORT} @th,64,8 {version} drop'


def processes(namespace: str) -> tuple[int, int]:
    """Return the daemon of a router, and the process that starts the next one when that ends."""
    pid = int((directory_of(namespace) / "pid").read_text())
    # proc(5): the fourth field is the parent; the second may hold spaces.
    return pid, int(FilePath(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def forget(namespace: str) -> str:
    """Return the shell line that ends the daemon of a router: all that it has mapped goes, and another one starts."""
    return f"kill -KILL $(cat {directory_of(namespace)}/pid)"


def config(kind: Daemon, directory: FilePath, devices: list[str]) -> str:
    """Return the configuration file of the daemon for some LAN devices."""
    # Over IPv6 the daemon serves only LANs that are given by their devices; by UPnP, too, each by its own.
    listens = "\n".join(f"listening_ip={device}" for device in devices)
    upnp, natpmp = kind not in _OTHER_VERSION, kind is not Daemon.UPNP
    return f"""\
ext_ifname={DEVICE}
{listens}
http_port={HTTP_PORT}
enable_upnp={"yes" if upnp else "no"}
enable_natpmp={"yes" if natpmp else "no"}
ipv6_disable=no
secure_mode=yes
system_uptime=no
uuid=00000000-0000-4000-8000-000000000001
minissdpdsocket={directory}/minissdpd.sock
upnp_table_name={TABLE}
upnp_nat_table_name={TABLE}
upnp_forward_chain={FORWARD}
upnp_nat_chain={INBOUND}
upnp_nat_postrouting_chain={OUTBOUND}
{_ALLOWED.get(kind, f"allow 1024-65535 {LAN} 1024-65535" + chr(10))}deny 0-65535 0.0.0.0/0 0-65535
"""


def start(kind: Daemon, directory: FilePath) -> subprocess.Popen[bytes]:
    """Start the daemon, and return once it answers; what it says goes to a file."""
    with (directory / "log").open("ab") as log:
        process = subprocess.Popen(
            [PROGRAM, "-d", "-f", str(directory / "conf"), "-P", str(directory / "pid")],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=directory, preexec_fn=sandbox.die_with_parent,
        )  # fmt: skip
    deadline = time.monotonic() + PATIENCE
    while not answers(kind):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            process.wait()
            raise SystemExit(f"{PROGRAM} does not answer: {(directory / 'log').read_text(errors='replace')}")
        # Until its socket is there, each try is refused at once.
        time.sleep(PAUSE)
    return process


def answers(kind: Daemon) -> bool:
    """Tell whether the daemon has begun to serve; its sockets are all made before that."""
    try:
        if kind is Daemon.UPNP:
            with socket.create_connection((GATEWAY, HTTP_PORT), PROBE) as web:
                web.sendall(b"GET /rootDesc.xml HTTP/1.0\r\n\r\n")
                return bool(web.recv(1))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.settimeout(PROBE)
            asking.connect((GATEWAY, PORT))
            asking.send(bytes(2))
            return bool(asking.recv(1))
    except OSError:
        return False


def serve(kind: Daemon, directory: FilePath) -> None:
    """Run the daemon until stdin ends, and another one after each that ends before."""
    directory.mkdir()
    devices = [name for _index, name in socket.if_nameindex() if name.startswith("lan")]
    (directory / "conf").write_text(config(kind, directory, devices))
    sandbox.leave_system_log()
    process = start(kind, directory)
    try:
        print("ready", flush=True)
        while ended(process):
            process.wait()
            (directory / "pid").unlink(missing_ok=True)
            flush = "".join(f"flush chain inet {TABLE} {chain}\n" for chain in (FORWARD, INBOUND, OUTBOUND))
            subprocess.run(["nft", "-f", "-"], input=flush, text=True, check=True)
            process = start(kind, directory)
    finally:
        process.terminate()
        process.wait()


def ended(process: subprocess.Popen[bytes]) -> bool:
    """Wait for the end of a process or of stdin; tell whether it was the process's."""
    gone = os.pidfd_open(process.pid)
    try:
        readable, _, _ = select.select([gone, sys.stdin], [], [])
    finally:
        os.close(gone)
    return sys.stdin not in readable


if __name__ == "__main__":
    sandbox.die_with_parent()
    serve(Daemon(sys.argv[1]), FilePath(sys.argv[2]))
