"""`punchtunnel --doctor` behind the routers of topology.py, with coturn on the internet.

    +------+        +--------+                    +-------------------------+
    | left |--------| router |===( internet )=====| right: turnserver, NTP  |
    +------+        +--------+                    | 198.51.100.20 and .21   |
     doctor                                       +-------------------------+

`python -m tests.natlab.clinic` runs all consultations and prints one JSON
object: name -> what came out.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass

from . import build, ends, internet, relay, sandbox
from .packetlog import PacketLog
from .relay import STUN_PORT
from .run import SceneError, log_of, standing
from .topology import BEHAVIOURS, PUBLIC, Behaviour
from .wire import Path

SERVER, SECOND, SERVER6 = "198.51.100.20", "198.51.100.21", "2001:db8:2:1::2"
ONE = ("--stun", SERVER)
TWO = (*ONE, "--stun", SECOND)
NTP_PORT = 123
# Seconds for a server to listen, and for a consultation to end.
PATIENCE = 20.0
# A consultation is mostly waiting.
JOBS = 3

SAME_FOR_EACH = BEHAVIOURS["same port for each"]
NAMED = "stun.example"
# Nobody has that address: what is sent there is lost without a word.
NOBODY6 = "2001:db8:99::1"
# A VPN beside the home's network, which takes the Internet in two halves.  It has no other end.
_VPN = """\
ip link add tun0 type veth peer name tun1
ip addr add 10.8.0.2/24 dev tun0
ip link set tun0 up
ip link set tun1 up
ip route add 0.0.0.0/1 dev tun0
ip route add 128.0.0.0/1 dev tun0"""
_STATEFUL = """\
iptables -P INPUT DROP
iptables -A INPUT -i lo -j ACCEPT
iptables -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
iptables -A INPUT -p tcp -m tcp --dport 22 -m comment --comment "let me in" -j ACCEPT"""
_NO_WAY_OUT = "ip route del default\nip -6 route del default"
_STATELESS = """\
nft -f - <<'END'
table inet own {
  chain input { type filter hook input priority 0; policy accept
    tcp flags & (fin|syn|rst|ack) == syn tcp dport != 22 drop
  }
}
END"""


@dataclass(frozen=True, slots=True)
class Consultation:
    """One run of the doctor: behind what, with which options, and what else is done to its machine."""

    name: str
    behaviour: Behaviour = BEHAVIOURS["drop"]
    options: tuple[str, ...] = ()
    script: str = ""
    # Which machine of the left site it runs on.
    where: str = "left-host"
    # Seconds that the time server on the internet is fast.
    fast_s: float | None = None
    # Lines for its /etc/hosts.
    names: str = ""
    # Whether the STUN server has a second address.
    twofold: bool = True


CONSULTATIONS = (
    Consultation("keeps ports", options=TWO),
    Consultation("keeps ports, one server with two addresses", options=ONE),
    Consultation("rewrites ports", BEHAVIOURS["random"], TWO),
    Consultation("rewrites ports in a row", BEHAVIOURS["sequential ports"], TWO),
    Consultation("rewrites ports in a block", BEHAVIOURS["port block"], TWO),
    Consultation("rewrites ports the same way for each", SAME_FOR_EACH, TWO),
    Consultation("rewrites ports the same way, one server with one address", SAME_FOR_EACH, ONE, twofold=False),
    Consultation("keeps ports, one server with one address", options=ONE, twofold=False),
    Consultation("the router forwards ports", BEHAVIOURS["mapper"]),
    Consultation("rewrites ports, and forwards one", BEHAVIOURS["mapper, random"], TWO),
    Consultation("the router forwards ports to nobody", BEHAVIOURS["mapper denies"]),
    Consultation("forwards ports behind a carrier", BEHAVIOURS["mapper behind a carrier"]),
    Consultation("forwards ports, and is not asked", BEHAVIOURS["mapper"], ("--no-map",)),
    Consultation("public", PUBLIC, TWO),
    Consultation("IPv6", BEHAVIOURS["random"], ("--stun", f"[{SERVER6}]:{STUN_PORT}")),
    Consultation("IPv4 and IPv6", options=("--stun", NAMED), names=f"{SERVER} {NAMED}\n{SERVER6} {NAMED}\n"),
    Consultation("IPv6 leads nowhere", options=("--stun", NAMED), names=f"{SERVER} {NAMED}\n{NOBODY6} {NAMED}\n"),
    Consultation("a VPN beside", script=_VPN),
    Consultation("a VPN beside, bound to the other way", options=(*TWO, "--bind", "eth0"), script=_VPN),
    Consultation("behind a NAT64", BEHAVIOURS["nat64"], TWO),
    Consultation("IPv6 only, no NAT64", options=ONE, script="\n".join(build.without_ipv4("eth0"))),
    Consultation("two NATs", BEHAVIOURS["double nat"], TWO),
    Consultation("behind the carrier's NAT only", BEHAVIOURS["double nat"], TWO, where="left-box1"),
    Consultation("nothing is asked"),
    Consultation("own firewall drops what is unexpected", PUBLIC, script=_STATEFUL),
    Consultation("own firewall drops every SYN", PUBLIC, script=_STATELESS),
    Consultation("own firewall drops all that comes", PUBLIC, script=build.forbid("input")),
    Consultation("own firewall drops what is sent", script=build.forbid("output")),
    Consultation("no route", script=f"{_NO_WAY_OUT}\nip addr flush dev eth0"),
    Consultation("own network only", script=_NO_WAY_OUT),
    Consultation("few ports", script="echo 1024 60999 > /proc/sys/net/ipv4/ip_local_port_range"),
    Consultation("clock a little wrong", options=("--ntp", SERVER), fast_s=0.25),
    Consultation("clock far too slow", options=("--ntp", SERVER), fast_s=30.0),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came out: exit status, findings, anything on stderr that is no event, packets that left the site."""

    status: int
    findings: list[dict[str, object]]
    words: list[str]
    packets: int


async def consult(number: int, one: Consultation) -> Outcome:
    """Run the doctor once."""
    scene = build.internet_scene(f"clinic{number}", one.behaviour, PUBLIC, stranger=False, neighbours=False)
    right = scene.hosts["right"].namespace
    here = f"{scene.prefix}-{one.where}"
    scene.configure(right, f"ip addr add {SECOND}/32 dev {internet.DEVICE}")
    scene.configure(here, one.script)
    if one.names:
        scene.names[here] = one.names
    plan = internet.Plan(tuple(scene.sites), (), Path(0.005), number, True, str(log_of(scene)))
    actors = [(right, ["time", str(NTP_PORT), str(one.fast_s)])] if one.fast_s is not None else []
    async with standing(scene, plan, actors), contextlib.AsyncExitStack() as stack:
        if "--stun" in one.options:
            addresses = (SERVER, *((SECOND,) if one.twofold else ()), SERVER6)
            await stack.enter_async_context(turnserver(right, scene.prefix, addresses))
        command = [sys.executable, "-m", "punchtunnel", "--doctor", "--json", *one.options]
        ended = await ends.run_end(here, command, b"", PATIENCE)
    log = PacketLog.load(log_of(scene))
    packets = sum(record.origin == "left" for record in log.records)
    findings = [json.loads(line) for line in ended.received.splitlines()]
    return Outcome(-1 if ended.status is None else ended.status, findings, ended.words, packets)


@contextlib.asynccontextmanager
async def turnserver(namespace: str, prefix: str, addresses: Sequence[str]) -> AsyncIterator[None]:
    """Run Debian's coturn in the foreground, with nothing but a command line and a scratch directory."""
    scratch = sandbox.SCRATCH / f"{prefix}-turn"
    scratch.mkdir()
    command = relay.stun_command(scratch, addresses)
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        *ends.in_namespace(namespace, command), stdin=quiet, stdout=quiet, stderr=quiet, cwd=scratch
    )
    try:
        deadline = time.monotonic() + PATIENCE
        while len(relay.listening(process.pid, STUN_PORT)) < len(addresses):
            if process.returncode is not None or time.monotonic() > deadline:
                log = "".join(file.read_text() for file in scratch.glob("log*"))
                raise SceneError(f"turnserver does not listen: {log}")
            await asyncio.sleep(0.02)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def consult_all() -> dict[str, Outcome]:
    """Run all consultations, some at a time."""
    limit = asyncio.Semaphore(JOBS)

    async def one(number: int) -> Outcome:
        async with limit:
            return await consult(number, CONSULTATIONS[number])

    outcomes = await asyncio.gather(*map(one, range(len(CONSULTATIONS))))
    return {each.name: outcome for each, outcome in zip(CONSULTATIONS, outcomes, strict=True)}


if __name__ == "__main__":
    sandbox.die_with_parent()
    sandbox.enter()
    print(json.dumps({name: asdict(outcome) for name, outcome in asyncio.run(consult_all()).items()}, indent=1))
