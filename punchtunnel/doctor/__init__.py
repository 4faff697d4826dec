"""`punchtunnel --doctor`: look at this machine without a peer, and tell what to expect.

    survey.py     this machine, without a packet    ─┐
    asking.py     the time, and routers on the way   ├─> findings.py ──> stdout
    sampling.py   how STUN servers see our ports     │
    forwarding.py whether the router forwards ports  │
    sights.py     what that means                   ─┘

Each finding is one line, with its remedy in a second one, or one JSON object;
the verdict comes last.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator, Sequence

from punchtunnel import words
from punchtunnel.address import Place, parse_server
from punchtunnel.doctor import asking, findings, forwarding, sampling, sights, sntp, survey
from punchtunnel.doctor.facts import ANY, Bind, Sight
from punchtunnel.doctor.findings import Finding, Level
from punchtunnel.errors import Exit, PunchtunnelError
from punchtunnel.reach import stun
from punchtunnel.words import show

_STDOUT = 1


def examine(
    stun_servers: Sequence[str],
    ntp_server: str | None,
    as_json: bool,
    *,
    quiet: bool = False,
    bind: Bind = ANY,
    maps: bool = False,
) -> Exit:
    """Print all findings and the verdict on stdout.

    Args:
        stun_servers: HOST[:PORT] of each; none is asked if there is none.
        ntp_server: The same, or None.
        as_json: Print one JSON object a line.
        quiet: Print only what is bad.
        bind: The part of this machine that is looked at.
        maps: Ask this machine's router to forward a port.

    Returns:
        OK, or LOST if something speaks against punching from here;
        BROKEN_PIPE if the reader of stdout is gone.

    Raises:
        UsageError: A server is no HOST[:PORT].
        PunchtunnelError: stdout cannot be written.
    """
    servers = stun_places(stun_servers)
    ntp = None if ntp_server is None else parse_server("--ntp", ntp_server, sntp.DEFAULT_PORT)
    found: list[Finding] = []
    try:
        rng = random.SystemRandom()
        clock = survey.clock() if ntp is None else asking.clock(ntp)
        _print(found, [findings.of_clock(clock)], as_json, quiet)
        facts = survey.facts(rng, bind)
        _print(found, findings.of_machine(facts), as_json, quiet)
        seen: Sequence[Sight] = ()
        if servers:
            prefix = None
            if findings.has_ipv6_only(facts.routes):
                prefix = asking.nat64()
                _print(found, [findings.of_nat64(str(prefix or ""))], as_json, quiet)
            seen = sampling.sights(servers, rng, prefix, bind)
            _print(found, sights.of_sights(facts, seen), as_json, quiet)
            if facts.address4:
                _print(found, [findings.of_hops(facts.address4, asking.hops(servers[0], bind))], as_json, quiet)
        forwarded: list[str] = []
        if maps and forwarding.has_router(facts):
            news = forwarding.ask(bind)
            forwarded = forwarding.addresses(news)
            _print(found, forwarding.of_news(news), as_json, quiet)
        _print(found, [sights.of_addresses(facts, seen, forwarded)], as_json, quiet)
        verdict = findings.verdict(found, show.command(sights.addresses(facts, seen, forwarded)))
        _print(found, [verdict], as_json, quiet)
    except BrokenPipeError:
        return Exit.BROKEN_PIPE
    return Exit.LOST if verdict.level is Level.BAD else Exit.OK


def stun_places(servers: Sequence[str]) -> list[Place]:
    """Check what --stun names.

    Raises:
        UsageError: One is no HOST[:PORT].
    """
    return [parse_server("--stun", text, stun.DEFAULT_PORT) for text in servers]


def public_addresses(servers: Sequence[Place], bind: Bind = ANY) -> tuple[list[str], list[str]]:
    """Ask STUN servers at which public addresses they see this machine.

    Returns:
        The addresses, IPv4 first, and what came of each question, as a sentence.
    """
    prefix = asking.nat64() if findings.has_ipv6_only(survey.routes(bind)) else None
    seen = sampling.sights(servers, random.SystemRandom(), prefix, bind, own_ports=1)
    return sights.seen_addresses(seen), [one.sentence for one in sights.of_questions(seen)]


def _print(found: list[Finding], new: Sequence[Finding], as_json: bool, quiet: bool) -> None:
    found += new
    for finding in new:
        if quiet and finding.level is not Level.BAD:
            continue
        line = _json(finding) if as_json else "\n".join(_lines(finding))
        try:
            # Not through sys.stdout, which would repeat a failed write when the process ends.
            os.write(_STDOUT, f"{line}\n".encode())
        except BrokenPipeError:
            raise
        except OSError as error:
            raise PunchtunnelError(words.cannot(words.WRITE, error)) from error


def _json(finding: Finding) -> str:
    told = {"check": finding.check, "level": finding.level, "finding": finding.name, "sentence": finding.sentence}
    return json.dumps(told | {"remedy": finding.remedy, "fields": dict(finding.fields)})


def _lines(finding: Finding) -> Iterator[str]:
    line = f"{finding.check:<12} {finding.level:<8} {finding.sentence}"
    if finding.check == "verdict":
        # The last line holds everything.
        yield f"{line}; {finding.remedy}"
        return
    yield line
    if finding.remedy:
        yield f"{'':21} try: {finding.remedy}"
