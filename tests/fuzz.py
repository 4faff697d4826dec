"""Feed every decoder with bytes that nobody has thought of: python -m tests.fuzz --seconds 600

Whatever comes from a peer, a stranger or a command line gives a result or the
one error that the decoder's docstring names: PeerError, or UsageError for
addresses and secrets.  So does a file that this program has written and
something has damaged.  Anything else is a finding, printed with the smallest
input that shows it and kept in the corpus, from which the next run begins.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.database import DirectoryBasedExampleDatabase

from punchtunnel.address import is_literal, parse_bind, parse_listen, parse_peer, parse_target
from punchtunnel.doctor import sntp
from punchtunnel.doctor.firewall import Packet, fate
from punchtunnel.doctor.rulesets import parse_iptables, parse_nft
from punchtunnel.errors import PeerError, UsageError
from punchtunnel.link.incoming import SHORT_RECORDS, Incoming
from punchtunnel.protocol import secret
from punchtunnel.protocol.agreement import Agreement
from punchtunnel.protocol.election import ACCEPT, PICK, Election
from punchtunnel.protocol.events import StreamState
from punchtunnel.protocol.frames import Decoder, Flag, Header, Kind
from punchtunnel.protocol.hello import MAGIC, Trait, decode_hello
from punchtunnel.protocol.mux import Mux
from punchtunnel.protocol.records import HEADER, OVERHEAD, Opener, Sealer
from punchtunnel.protocol.verdicts import Drop, Reject, Send, Won
from punchtunnel.reach import natpmp, pcp, remembered, stun, transit, upnp

from .protocol.test_sealed_handshake import FOLLOWER, LEADER, STREAMS, cheap

CORPUS = Path(__file__).resolve().parent.parent / ".hypothesis" / "fuzz"
# Examples between two looks at the clock.
ROUND = 50

# ---- what to feed: pieces of the real thing, changed, and noise

PIECE = st.sampled_from([PICK, ACCEPT, MAGIC, LEADER.encode(), FOLLOWER.encode(), *STREAMS.values(), bytes(32), b"S"])
FRAME = st.builds(
    lambda kind, flags, stream, length, payload: Header(Kind(kind), Flag(flags), stream, length).encode() + payload,
    st.integers(0, 4),
    st.integers(0, 15),
    st.integers(0, 6) | st.integers(0, 2**32 - 1),
    st.integers(0, 40) | st.integers(0, 2**32 - 1),
    st.binary(max_size=40),
)
STUN_TRANSACTION = bytes(range(12))
STUN_HEADER = stun.request(STUN_TRANSACTION)[4:]
STUN_PIECE = st.sampled_from(
    [
        *(b"\x01\x01" + bytes([0, size]) + STUN_HEADER for size in (0, 12, 24, 255)),
        *(bytes([0, kind, 0, size, 0, family]) for kind in (1, 9, 32) for size in (8, 20) for family in (1, 2, 3)),
    ]
)
MAPPING_PIECE = st.sampled_from(
    [
        *(bytes([0, 128 + opcode, 0, result]) + bytes(4) for opcode in (0, 1, 2) for result in (0, 1)),
        *(bytes([2, 128 + opcode, 0, result]) + bytes(20) for opcode in (0, 1, 2) for result in (0, 2)),
        *(bytes(12), b"\6\0\0\0\1\0\1\0", bytes(10) + b"\xff\xff\1\2\3\4", b"\1\0\1\0\0\0\1\0"),
    ]
)
RELAY_PIECE = st.sampled_from([b"ok\n", b"ok", b"\n", b"bad handshake\n", b"impatient", b"hello"])
SSDP_PIECE = st.sampled_from([b"HTTP/1.1 200 OK\r\n", b"LOCATION: ", b"http://192.0.2.1", b":80", b"/", b"\r\n", b"@"])
RULE_PIECE = st.sampled_from(
    [
        *("*filter\n", ":INPUT DROP [0:0]\n", ":x - [0:0]\n", "-A INPUT ", "-A x ", "-j x\n", "-j ACCEPT\n", "-g x\n"),
        *(
            "-p tcp ",
            "-i lo ",
            "! ",
            "--dport 1:2 ",
            "--dport x ",
            "-s 10.0.0.0/8 ",
            "--tcp-flags SYN SYN ",
            "COMMIT\n",
        ),
        *("--ctstate NEW ", "-m x ", "--comment 'a b' ", "--dst-type LOCAL ", "-x y ", '"', "# "),
    ]
)


# With a place for each value of a file of the memory: most are right, so that some get far.
MEMORY_FILE = (
    b'{"version":1,"time":%b,"addresses":{"a.example":{"time":%b,"hosts":[%b,%b]}},'
    b'"way":{"time":%b,"kind":%b,"host":%b,"far_port":%b,"own_port":%b,"failures":%b}}'
)
MEMORY_RIGHT = [b"5", b"5", b'"192.0.2.1"', b'"2001:db8::7"', b"4", b'"fixed"', b'"192.0.2.1"', b"1", b"65535", b"1"]
MEMORY_VALUE = st.sampled_from(
    [
        *(b"0", b"-1", b"6", b"65536", b"9" * 4000, b"1.5", b"1e999", b"NaN", b"true", b"null", b"[]", b"{}", b'""'),
        *(
            b"[" * 1000,
            b'{"a":' * 700,
            b'"\\ud800"',
            b'"127.0.0.1"',
            b'"fe80::1%x"',
            b'"\\u0000"',
            b'"::"',
            b'5,"a":{}',
        ),
    ]
)


@st.composite
def memory_content(draw: st.DrawFn) -> bytes:
    """Fill the places."""
    values = [draw(MEMORY_VALUE) if draw(st.integers(0, 9)) == 9 else right for right in MEMORY_RIGHT]
    return MEMORY_FILE % tuple(values)


@st.composite
def damaged(draw: st.DrawFn, parts: st.SearchStrategy[bytes]) -> bytes:
    """Join some parts, and change a few bytes of the whole."""
    data = bytearray(b"".join(draw(st.lists(parts | st.binary(max_size=30), max_size=8))))
    for _ in range(draw(st.integers(0, 3))):
        if data:
            data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data)


def pieces(draw: st.DataObject, data: bytes) -> list[bytes]:
    """Split a stream anywhere."""
    borders = sorted({0, len(data), *draw.draw(st.lists(st.integers(0, len(data)), max_size=5))})
    return [data[start:end] for start, end in pairwise(borders)]


# ---- targets: each raises whatever is a finding


def decoder(draw: st.DataObject) -> None:
    """frames.Decoder: headers and payloads, or PeerError."""
    data = draw.draw(damaged(FRAME))
    machine = Decoder()
    with contextlib.suppress(PeerError):
        for piece in pieces(draw, data):
            for _ in machine.feed(memoryview(piece)):
                pass


def mux(draw: st.DataObject) -> None:
    """mux.Mux: events, or PeerError; what it has to say stays bounded."""
    data = draw.draw(damaged(FRAME))
    machine = Mux(draw.draw(st.booleans()), StreamState)
    with contextlib.suppress(PeerError):
        for number, piece in enumerate(pieces(draw, data)):
            for _ in machine.receive(memoryview(piece), float(number)):
                pass
            assert len(machine.take_control(1000)) <= 1000


def hello(draw: st.DataObject) -> None:
    """hello.decode_hello: a hello, or PeerError."""
    with contextlib.suppress(PeerError):
        decode_hello(draw.draw(damaged(PIECE)))


def election(draw: st.DataObject) -> None:
    """election.Election: nobody wins without the secret, and nothing is raised."""
    plain = draw.draw(st.booleans())
    mine = draw.draw(st.sampled_from([LEADER, FOLLOWER]))
    if plain:
        mine = type(mine)(mine.nonce, mine.channel_tag, mine.role, Trait.PLAIN)
    machine = Election(mine, None if plain else cheap(b"unknown"), draw.draw(st.booleans()))
    actions = machine.opened(1) + machine.opened(2)
    for conn in (1, 2):
        for piece in pieces(draw, draw.draw(damaged(PIECE))):
            actions += machine.received(conn, piece)
    actions += machine.retry() + machine.lost(1) + machine.lost(2)
    assert all(isinstance(action, Send | Drop | Reject | Won) for action in actions)
    assert plain or not any(isinstance(action, Won) for action in actions)


def records(draw: st.DataObject, texts: st.SearchStrategy[bytes]) -> tuple[Opener, list[bytes], list[bytes]]:
    """Return plaintexts, their records, and what opens them."""
    hardware_aes = draw.draw(st.booleans())
    key = bytes(32)
    sealer = Sealer(key, hardware_aes)
    plaintexts = draw.draw(st.lists(texts, max_size=5))
    sealed = []
    for plaintext in plaintexts:
        record = memoryview(bytearray(len(plaintext) + OVERHEAD))
        sealer.seal_into(memoryview(plaintext), record)
        sealed.append(bytes(record))
    return Opener(key, hardware_aes), plaintexts, sealed


def opener(draw: st.DataObject) -> None:
    """records.Opener: a prefix of what was sealed, or PeerError."""
    machine, plaintexts, sealed = records(draw, st.binary(max_size=20))
    view = memoryview(draw.draw(damaged(st.sampled_from(sealed or [b"\x01\0\0\0"]))))
    delivered = []
    with contextlib.suppress(PeerError):
        while len(view) >= OVERHEAD and len(view) >= (size := machine.record_size(view[: HEADER.size])):
            delivered.append(bytes(machine.open(view[:size])))
            view = view[size:]
    assert delivered == plaintexts[: len(delivered)]


def incoming(draw: st.DataObject) -> None:
    """incoming.Incoming: a prefix of what was sealed, whole in any pieces, or PeerError; plain, all bytes."""
    long = st.sampled_from([SHORT_RECORDS - OVERHEAD, SHORT_RECORDS, 100_000]).map(bytes)
    opener, plaintexts, sealed = records(draw, st.binary(max_size=20) | long)
    whole = b"".join(sealed)
    data = draw.draw(st.just(whole) | damaged(st.sampled_from(sealed or [b"\x01\0\0\0"])))
    plain = draw.draw(st.booleans())
    delivered: list[bytes] = []
    near, far = socket.socketpair()
    with near, far:
        for sock in (near, far):
            sock.setblocking(False)
        machine = Incoming(near, None if plain else opener)
        early = draw.draw(st.integers(0, 1000))
        rest = memoryview(data)[early:]
        with contextlib.suppress(PeerError):
            delivered += map(bytes, machine.begin(data[:early]))
            while rest:
                with contextlib.suppress(BlockingIOError):
                    rest = rest[far.send(rest[: draw.draw(st.integers(1, 200_000))]) :]
                machine.readable = True
                while machine.readable:
                    delivered += map(bytes, machine.receive() or ())
    if plain:
        assert b"".join(delivered) == data
    else:
        assert delivered == plaintexts[: len(delivered)]
        assert data != whole or (len(delivered) == len(plaintexts) and machine.between_records)


def agreement(draw: st.DataObject) -> None:
    """agreement.Agreement: keys, or PeerError."""
    message = draw.draw(st.binary(max_size=40) | st.binary(min_size=32, max_size=32).map(b"S".__add__))
    with contextlib.suppress(PeerError):
        Agreement(b"x", b"", os.urandom).finish(message, draw.draw(st.booleans()), b"", b"")


TEXT = st.text(max_size=40) | st.lists(
    st.sampled_from(
        [":", "[", "]", "%", "::", ".", "unix:", "1", "65536", "/", "localhost", "0x7f", "-", " ", "@", "\0"]
    ),
    max_size=8,
).map("".join)


def address(draw: st.DataObject) -> None:
    """address.parse_*: a value, or UsageError."""
    text = draw.draw(TEXT)
    for parse in (parse_peer, parse_bind, parse_listen, parse_target):
        with contextlib.suppress(UsageError):
            parse(text)


def typed_secret(draw: st.DataObject) -> None:
    """secret.normal: bytes that are a secret too and mean themselves, or UsageError."""
    with contextlib.suppress(UsageError):
        data = secret.normal(draw.draw(TEXT))
        assert secret.normal(data.decode()) == data


def stun_answer(draw: st.DataObject) -> None:
    """stun.read_answer: an answer, nothing yet, or PeerError."""
    with contextlib.suppress(PeerError):
        stun.read_answer(draw.draw(damaged(STUN_PIECE)), STUN_TRANSACTION)


def memory_file(draw: st.DataObject) -> None:
    """remembered.decode: what means the same when it is written again, and nothing is raised."""
    names = {"a.example"}
    known = remembered.decode(draw.draw(memory_content() | damaged(memory_content())), 5.0, names)
    assert remembered.decode(remembered.encode(known), 5.0, names) == known


def natpmp_answer(draw: st.DataObject) -> None:
    """natpmp.read_answer: an answer with ports and seconds as the wire has them, or PeerError."""
    with contextlib.suppress(PeerError):
        answer = natpmp.read_answer(draw.draw(damaged(MAPPING_PIECE)))
        assert isinstance(answer, natpmp.Seen | natpmp.Mapped) or answer.result


def pcp_answer(draw: st.DataObject) -> None:
    """pcp.read_answer: an answer whose external host is a literal, or PeerError."""
    with contextlib.suppress(PeerError):
        answer = pcp.read_answer(draw.draw(damaged(MAPPING_PIECE)))
        assert not isinstance(answer, pcp.Granted) or is_literal(answer.external.host)
        assert not isinstance(answer, pcp.Refusal) or answer.result


def ssdp_answer(draw: st.DataObject) -> None:
    """upnp.read_location: a URL on the router, or PeerError."""
    with contextlib.suppress(PeerError):
        url = upnp.read_location(draw.draw(damaged(SSDP_PIECE)), "192.0.2.1")
        assert urlsplit(url).hostname == "192.0.2.1"


def relay_answer(draw: st.DataObject) -> None:
    """transit.Answer: what follows the ok, nothing yet, or PeerError; the same in any pieces."""
    data = draw.draw(damaged(RELAY_PIECE))
    machine = transit.Answer()
    unread: bytes | None = None
    taken = 0
    with contextlib.suppress(PeerError):
        for piece in pieces(draw, data):
            if unread is None:
                unread = machine.feed(piece)
                taken += len(piece)
    assert (unread is not None) == data.startswith(b"ok\n")
    assert unread is None or b"ok\n" + unread == data[:taken]


def ntp_answer(draw: st.DataObject) -> None:
    """sntp.read_answer: a sample, or PeerError."""
    cookie = bytes(8)
    question = sntp.request(cookie)
    data = draw.draw(damaged(st.sampled_from([question, b"\x24\x02" + bytes(22) + cookie + question[:16]])))
    with contextlib.suppress(PeerError):
        sntp.read_answer(data, cookie, 0.0, 1.0)


def firewall_rules(draw: st.DataObject) -> None:
    """rulesets.parse_nft and parse_iptables: tables of which every fate is one or both of two, or ValueError."""
    for parse in (parse_nft, lambda text: parse_iptables(text, 4)):
        with contextlib.suppress(ValueError):
            tables = parse("".join(draw.draw(st.lists(RULE_PIECE | st.text(max_size=8), max_size=30))))
            assert fate(tables, Packet("input", 4, "eth0", (1, 2))) <= {"accept", "drop"}


Target = Callable[[st.DataObject], None]
TARGETS: list[Target] = [decoder, mux, hello, election, opener, incoming, agreement, address, typed_secret]
TARGETS += [stun_answer, memory_file, natpmp_answer, pcp_answer, ssdp_answer, relay_answer, ntp_answer, firewall_rules]

# ---- the run


def fuzz(seconds: float, corpus: Path, targets: Sequence[Target] = TARGETS) -> tuple[int, int]:
    """Try all targets by turns until the time is over; return how many examples passed, and findings."""
    deadline = time.monotonic() + seconds
    passed, failed = 0, set[str]()
    database = DirectoryBasedExampleDatabase(corpus)
    corpus.mkdir(parents=True, exist_ok=True)
    while time.monotonic() < deadline and len(failed) < len(targets):
        for target in targets:
            if target.__name__ in failed or time.monotonic() >= deadline:
                continue
            count, finding = _round(target, database)
            passed += count
            if finding:
                failed.add(target.__name__)
                print(f"{target.__name__}: {target.__doc__}\n{finding}", file=sys.stderr)
    return passed, len(failed)


def _round(target: Target, database: DirectoryBasedExampleDatabase) -> tuple[int, str]:
    """Try one target ROUND times; return how many passed, and the traceback of the smallest failure."""
    passed = 0

    def example(data: st.DataObject) -> None:
        nonlocal passed
        target(data)
        passed += 1

    # By its name its failures are found in the corpus again.
    example.__name__ = example.__qualname__ = target.__name__
    run = settings(
        max_examples=ROUND,
        database=database,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.reuse, Phase.generate, Phase.target, Phase.shrink),
        print_blob=True,
    )(given(st.data())(example))
    try:
        run()
    except Exception as error:
        return passed, "".join(traceback.format_exception(error))
    return passed, ""


def main() -> int:
    """Run from the command line; 1 if there was a finding."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Feed every decoder with noise.")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="failures are kept here and tried first")
    options = parser.parse_args()
    passed, failed = fuzz(options.seconds, options.corpus)
    print(f"{passed} passed, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
