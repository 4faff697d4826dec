"""One side of an appointment: observes its ports, tells its offer, hears the other side's, and opens the hole.

    stdin   one line of JSON: an `Order`
    stdout  the offer in hexadecimal digits, a line
    stdin   the other side's, a line
    stdout  one line of JSON: a `Report`

Whoever starts both hands the offers over, where two real sides would have met at a relay.
"""

from __future__ import annotations

import dataclasses
import json
import random
import resource
import sys
import time
from dataclasses import dataclass

from punchtunnel.address import Place
from punchtunnel.errors import PunchtunnelError
from punchtunnel.protocol.hello import NO_TRAITS, Role
from punchtunnel.protocol.offers import Offer, Offered, Source, decode_offer
from punchtunnel.punching.appointed import Appointment, Plan, addresses_of, plans_of
from punchtunnel.punching.guesses import round_seconds
from punchtunnel.punching.puncher import open_hole
from punchtunnel.punching.settings import settings_from
from punchtunnel.reach.observing import fresh_ports, observe
from punchtunnel.reporting import events

SECRET = b"one that both sides have"
DIRECT_SECONDS = 15.0
WORD = b"through"


@dataclass(frozen=True, slots=True)
class Order:
    """What a side is told: STUN servers, the plan, its birthday, and a channel that only the two have."""

    servers: tuple[str, ...]
    plan: str
    channel: str
    birthday: int = 0
    # Seconds; more than both sides need by their own reckoning are not given.
    wait_s: float = 60.0
    # A public address at which the other side may find it without a port that was seen.
    hosts: tuple[str, ...] = ()


@dataclass(slots=True)
class Report:
    """What came out."""

    port_use: str
    plans: list[str]
    local: str = ""
    remote: str = ""
    seconds: float = 0.0
    dials: int = 0
    failed: str = ""
    cpu_s: float = 0.0


def keep_appointment(order: Order) -> Report:
    """Be one side."""
    rng = random.SystemRandom()
    servers = [Place(host, 3478) for host in order.servers]
    observed = observe(servers, fresh_ports(rng))
    hosts = dict.fromkeys((*order.hosts, *observed.hosts))
    mine = Offer(
        1,
        port_use=observed.port_use,
        last=observed.last,
        low=observed.low,
        high=observed.high,
        candidates=(*(Offered(Source.HOST, host) for host in hosts), *observed.candidates),
    )
    print(mine.encode().hex(), flush=True)
    theirs = decode_offer(bytes.fromhex(sys.stdin.readline()))
    report = Report(mine.port_use.name, [one.value for one in plans_of(mine, theirs)])
    appointment = Appointment(mine, theirs, observed.own_ports, Plan(order.plan), order.birthday)
    wait = round_seconds(appointment) if appointment.plan is Plan.GUESS else DIRECT_SECONDS
    peers = addresses_of(mine, theirs)
    settings = settings_from(peers, order.channel, min(order.wait_s, wait), None, 0, 0, Role.RAW, NO_TRAITS, SECRET)
    settings = dataclasses.replace(settings, appointment=appointment)
    began = time.monotonic()
    try:
        hole = open_hole(settings, report=events.unreported)
    except PunchtunnelError as error:
        report.failed = f"{type(error).__name__}: {error}"
    else:
        report.seconds = time.monotonic() - began
        report.local, report.remote, report.dials = hole.local, hole.remote, hole.counts.dials
        hole.sock.settimeout(5)
        with hole.sock:
            hole.sock.sendall(WORD)
            heard = hole.unread
            while len(heard) < len(WORD) and (more := hole.sock.recv(len(WORD))):
                heard += more
            report.failed = "" if heard == WORD else f"heard {heard!r}"
    usage = resource.getrusage(resource.RUSAGE_SELF)
    report.cpu_s = usage.ru_utime + usage.ru_stime
    observed.close()
    return report


if __name__ == "__main__":
    told = json.loads(sys.stdin.readline())
    told["servers"], told["hosts"] = tuple(told["servers"]), tuple(told["hosts"])
    print(json.dumps(dataclasses.asdict(keep_appointment(Order(**told)))), flush=True)
