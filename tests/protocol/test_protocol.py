"""docs/PROTOCOL.md is true: every literal in it is recomputed here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from punchtunnel.protocol import schedule
from punchtunnel.protocol.credit import (
    GROWTH_FACTOR,
    INITIAL_WINDOW,
    MAX_LINK_MEMORY,
    MAX_WINDOW,
    MAX_WINDOW_SUM,
    MIN_GROWTH,
)
from punchtunnel.protocol.election import ACCEPT, PICK
from punchtunnel.protocol.frames import MAX_PAYLOAD, Flag, Header, Kind, Reason
from punchtunnel.protocol.hello import HELLO_SIZE, MAGIC, VERSION, Hello, Role, decode_hello, roles_fit
from punchtunnel.protocol.offers import MAX_CANDIDATES, MAX_OFFER, Offer
from punchtunnel.protocol.offers import Flag as Flags
from punchtunnel.protocol.resume import Ticket
from punchtunnel.punching import guesses
from punchtunnel.session.arranging import OFFER_TIMEOUT, PAUSES
from punchtunnel.session.settling import HOLD
from punchtunnel.session.ways import TRY
from tests.protocol.test_agreement import VECTORS

TEXT = (Path(__file__).parents[2] / "docs" / "PROTOCOL.md").read_text()


def hex_of(data: bytes) -> str:
    return data.hex(" ")


@pytest.mark.parametrize(
    ("name", "channel", "bucket"),
    [
        ("(empty)", "", schedule.CLOCK_FREE),
        ("(empty)", "", 0),
        ("(empty)", "", 35999999),
        ("`backup`", "backup", 35999999),
    ],
)
def test_ports_of_the_document_are_those_of_the_schedule(name: str, channel: str, bucket: int) -> None:
    label = "clock-free" if bucket == schedule.CLOCK_FREE else str(bucket)
    count = 4 if bucket == schedule.CLOCK_FREE else 8
    ports = ", ".join(map(str, schedule.bucket_ports(channel, bucket, count)))
    assert f"| {name} | {label} | {ports} |" in TEXT


def test_hello_of_the_document_is_what_is_sent() -> None:
    hello = Hello(bytes(range(16)), schedule.channel_tag(""), Role.STDIO)
    raw = hello.encode()
    assert f"    {hex_of(raw[:20])}\n    {hex_of(raw[20:])}\n" in TEXT
    assert decode_hello(raw) == hello
    assert hex_of(MAGIC) in TEXT
    assert f"its hello, {HELLO_SIZE} bytes" in TEXT
    assert TEXT.startswith(f"# The punchtunnel protocol, version {VERSION}\n")
    assert f"  version      {VERSION:02x}\n" in TEXT
    assert f"({hex_of(PICK)})" in TEXT
    assert f"({hex_of(ACCEPT)})" in TEXT


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("open stream 1", Header(Kind.WINDOW, Flag.SYN, 1, 0).encode()),
        ("accept stream 1", Header(Kind.WINDOW, Flag.ACK, 1, 0).encode()),
        ('"hi" on stream 1', Header(Kind.DATA, Flag(0), 1, 2).encode() + b"hi"),
        ("128 KiB of credit for stream 1", Header(Kind.WINDOW, Flag(0), 1, 128 * 1024).encode()),
        ("end of stream 1", Header(Kind.WINDOW, Flag.FIN, 1, 0).encode()),
        ("reset stream 1, target refused", Header(Kind.WINDOW, Flag.RST, 1, Reason.REFUSED).encode()),
        ("5 GiB and one byte will be sent on stream 1", Header(Kind.SIZE, Flag(0), 1, 5 * 2**30 + 1).encode()),
        ("goodbye", Header(Kind.GO_AWAY, Flag(0), 0, 0).encode()),
    ],
)
def test_frames_of_the_document_are_those_on_the_wire(name: str, data: bytes) -> None:
    assert f"| {name} | `{hex_of(data)}` |" in TEXT


def test_offers_of_the_document_are_those_on_the_wire() -> None:
    assert f"| number 0, flag 1, after 2.5 s | `{hex_of(Offer(0, Flags.DIRECT_ONLY, 2.5).encode())}` |" in TEXT
    assert f"OFFER: bytes of the offer that follow, 1 to {MAX_OFFER}" in TEXT
    assert f"of candidates, at most {MAX_CANDIDATES}" in TEXT


def test_channel_of_a_session_s_direct_holes_is_that_of_the_document() -> None:
    ticket = Ticket(bytes.fromhex(VECTORS["session"]), bytes.fromhex(VECTORS["session secret"]))
    assert f"| channel of that session's direct holes | `{ticket.channel}` |" in TEXT


def test_tries_of_the_document_are_those_that_are_made() -> None:
    prose = " ".join(TEXT.split())
    assert "the leader waits 5 s, 15 s, 60 s, 300 s, and then an hour each time" in prose
    assert PAUSES == (5.0, 15.0, 60.0, 300.0, 3600.0)
    assert (OFFER_TIMEOUT, TRY, HOLD) == (10.0, 5.0, 2.0)
    assert "is not answered within 10 s" in prose
    assert "It lasts 5 s." in prose
    holds = guesses.SEQUENTIAL_HOLDS, guesses.WINDOW_HOLDS, guesses.WIDE_HOLDS, guesses.RANDOM_HOLDS
    assert holds == (64, 128, 256, 400)
    assert (guesses.BATCH, guesses.MOST_OUTSTANDING, guesses.NARROW_WINDOW) == (25, 64, 2048)
    assert list(guesses.DIALS.values()) == [16, 40, 128]
    assert "16, 40 or 128 times" in prose


def test_ping_and_its_answer_are_those_on_the_wire() -> None:
    ping = Header(Kind.PING, Flag.SYN, 0, 7).encode()
    answer = Header(Kind.PING, Flag.ACK, 0, 7).encode()
    assert f"`{hex_of(ping)}`, `{hex_of(answer)}`" in TEXT


def test_role_table_of_the_document_is_the_one_that_decides() -> None:
    roles = {"1": Role.STDIO, "2": Role.LISTEN, "4": Role.TO, "2+4": Role.LISTEN | Role.TO, "8": Role.RAW}
    rows = dict(re.findall(r"^\| \*\*([0-9+]+)\*\* [^|]*\|(.*)\|$", TEXT, re.MULTILINE))
    assert rows.keys() == roles.keys()
    for mine, row in rows.items():
        answers = [cell.strip() == "yes" for cell in row.split("|")]
        assert answers == [roles_fit(roles[mine], theirs) for theirs in roles.values()]


def test_limits_of_the_document_are_the_ones_in_force() -> None:
    prose = " ".join(TEXT.split())
    assert f"{INITIAL_WINDOW} bytes of credit" in prose
    assert MAX_WINDOW == 24 * 1024**2
    assert GROWTH_FACTOR == 4
    assert MAX_LINK_MEMORY == 64 * 1024**2
    assert MAX_WINDOW_SUM == MAX_LINK_MEMORY * 8 // 9 - 8 * 1024**2
    assert MIN_GROWTH == 32 * 1024**2
    assert MAX_PAYLOAD == 1024**2
    assert "fourfold, up to 24 MiB" in prose
    assert "8/9 of 64 MiB less 8 MiB" in prose
    assert "32 MiB for all growth" in prose
    assert "at most 1 MiB" in prose


def test_reasons_of_the_document_are_those_that_are_sent() -> None:
    rows = TEXT.splitlines()
    numbers = next(row for row in rows if row.startswith("| 0 | 1 | 2 |"))
    words = rows[rows.index(numbers) + 2]
    assert [int(cell) for cell in numbers.strip("| ").split("|")] == [int(reason) for reason in Reason]
    assert len(words.strip("| ").split("|")) == len(Reason)


@pytest.mark.parametrize("name", VECTORS)
def test_vectors_of_the_document_are_the_ones_that_are_recomputed(name: str) -> None:
    row = name.replace(", record 0, hello", " | 0, `hello`").replace(", record 1, empty", " | 1, empty")
    assert f"| {row} | `{VECTORS[name]}` |" in TEXT
