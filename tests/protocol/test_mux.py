"""One side of a link: what it says, what it understands, and what it puts up with."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from punchtunnel.errors import LinkError, PeerError
from punchtunnel.protocol.control import MAX_ANSWERS
from punchtunnel.protocol.credit import INITIAL_WINDOW
from punchtunnel.protocol.events import (
    Credited,
    Data,
    Event,
    Finished,
    Gone,
    GoneAway,
    Opened,
    Pong,
    Reset,
    Sized,
    StreamState,
)
from punchtunnel.protocol.frames import HEADER, MAX_SIZE, Flag, Goodbye, Header, Kind, Reason
from punchtunnel.protocol.mux import MAX_STREAMS, Mux


def data(stream: int, payload: bytes = b"", flags: Flag = Flag(0)) -> bytes:  # noqa: B008
    return Header(Kind.DATA, flags, stream, len(payload)).encode() + payload


def window(stream: int, length: int = 0, flags: Flag = Flag(0)) -> bytes:  # noqa: B008
    return Header(Kind.WINDOW, flags, stream, length).encode()


def size(stream: int, total: int) -> bytes:
    return Header(Kind.SIZE, Flag(0), stream, total).encode()


def service(stream: int, name: bytes = b"ssh") -> bytes:
    return Header(Kind.OPEN, Flag(0), stream, len(name)).encode() + name


def receive(mux: Mux[StreamState], *pieces: bytes, now: float = 0.0) -> list[Event[int]]:
    """Return the events, with a stream's number in place of its record."""
    return [by_number(event) for piece in pieces for event in mux.receive(memoryview(piece), now)]


def by_number(event: Event[StreamState]) -> Event[int]:
    match event:
        case Data(stream, payload):
            return Data(stream.number, payload)
        case Gone(stream, reset):
            return Gone(stream.number, reset)
        case Sized(stream, total):
            return Sized(stream.number, total)
        case Opened(stream):
            return Opened(stream.number)
        case Finished(stream):
            return Finished(stream.number)
        case Credited(stream):
            return Credited(stream.number)
        case _:
            return event


def got(stream: int, payload: bytes) -> Data[int]:
    return Data(stream, memoryview(payload))


def follower_with(*streams: int) -> Mux[StreamState]:
    """Return a follower whose peer has opened these streams."""
    mux = Mux(False, StreamState)
    for stream in streams:
        assert receive(mux, window(stream, flags=Flag.SYN)) == [Opened(stream)]
    return mux


# ---- literal bytes


def test_what_a_side_says_has_the_bytes_of_the_protocol_document() -> None:
    leader, follower = Mux(True, StreamState), follower_with(1)
    assert (leader.open(0.0).number, leader.take_control().hex()) == (1, "000100010000000100000000")
    assert leader.data_header(leader.streams[1], 5).hex() == "000000000000000100000005"
    assert (follower.open(0.0).number, follower.take_control().hex()) == (2, "000100010000000200000000")
    stream = follower.streams[1]
    follower.accept(stream)
    follower.finish(stream)
    follower.reset(stream, Reason.REFUSED)
    assert follower.take_control().hex(" ", 12).split() == [
        "000100020000000100000000",
        "000100040000000100000000",
        "000100080000000100000001",
    ]
    leader.ping(0.0)
    leader.go_away(Goodbye.PROTOCOL_ERROR)
    assert leader.take_control().hex(" ", 12).split() == ["000200010000000000000001", "000300000000000000000001"]
    assert receive(follower, bytes.fromhex("0002000100000000deadbeef")) == []
    assert follower.take_control().hex() == "0002000200000000deadbeef"
    assert follower.take_control() == b""


def test_reasons_and_codes_are_numbered_as_in_the_protocol_document() -> None:
    names = (
        "RESET REFUSED TIMED_OUT UNREACHABLE NO_SUCH_NAME NO_RESOURCES NOT_EXPECTED MEMORY CLOSING "
        "DISK_FULL NOT_TAKEN NOT_WRITTEN NOT_READ NO_SUCH_SERVICE"
    )
    assert " ".join(reason.name for reason in Reason) == names
    assert [int(reason) for reason in Reason] == list(range(14))
    assert {code.name: code.value for code in Goodbye} == {
        "NORMAL": 0,
        "PROTOCOL_ERROR": 1,
        "INTERNAL_ERROR": 2,
        "CUT": 3,
        "FULL": 4,
    }


# ---- streams


def test_a_stream_is_opened_for_a_service_by_its_name() -> None:
    leader, follower = Mux(True, StreamState), Mux(False, StreamState)
    assert leader.open(0.0, "ssh").service == "ssh"
    said = leader.take_control()
    assert said.hex() == "000700000000000100000003" + b"ssh".hex()
    assert receive(follower, *(said[at : at + 1] for at in range(len(said)))) == [Opened(1)]
    stream = follower.streams[1]
    assert (stream.service, stream.accepted) == ("ssh", False)
    follower.reset(stream, Reason.NO_SUCH_SERVICE)
    assert receive(leader, follower.take_control()) == [Gone(1, Reset(13, False, service="ssh"))]


def test_a_service_is_named_in_one_piece_with_what_the_opener_sends_at_once() -> None:
    leader, follower = Mux(True, StreamState), Mux(False, StreamState)
    stream = leader.open(0.0, "web")
    said = leader.take_control() + leader.data_header(stream, 2, last=True) + b"hi"
    assert receive(follower, said) == [Opened(1), got(1, b"hi"), Finished(1)]


@pytest.mark.parametrize("name", [b"22", b"-x", b"a b", b"\x1b[2J", b"caf\xc3\xa9", b"a/b", b".", b"x\n"])
def test_a_name_that_would_be_harmful_where_it_is_shown_is_an_error(name: bytes) -> None:
    with pytest.raises(PeerError, match="whose name is none"):
        receive(Mux(False, StreamState), service(1, name))


def test_leader_and_follower_never_open_the_same_stream() -> None:
    leader, follower = Mux(True, StreamState), Mux(False, StreamState)
    assert [leader.open(0.0).number for _ in range(3)] == [1, 3, 5]
    assert [follower.open(0.0).number for _ in range(3)] == [2, 4, 6]


def test_the_opener_may_send_before_it_is_accepted() -> None:
    follower = Mux(False, StreamState)
    assert receive(follower, window(1, flags=Flag.SYN), data(1, b"early")) == [Opened(1), got(1, b"early")]
    assert receive(Mux(False, StreamState), data(1, b"at once", Flag.SYN)) == [Opened(1), got(1, b"at once")]


def test_the_first_payload_opens_and_accepts_a_stream_if_nothing_is_said_in_between() -> None:
    leader, follower = Mux(True, StreamState), Mux(False, StreamState)
    stream = leader.open(0.0)
    said = leader.data_header(stream, 2)
    assert (said.hex(), leader.take_control(), leader.is_urgent) == ("000000010000000100000002", b"", False)
    assert receive(follower, said + b"hi") == [Opened(1), got(1, b"hi")]
    follower.accept(follower.streams[1])
    said = follower.data_header(follower.streams[1], 2, last=True)
    assert (said.hex(), follower.take_control()) == ("000000060000000100000002", b"")
    assert receive(leader, said + b"ho") == [got(1, b"ho"), Finished(1)]
    assert stream.accepted


def test_streams_are_opened_in_the_order_of_their_numbers_whoever_speaks_first() -> None:
    leader, follower = Mux(True, StreamState), Mux(False, StreamState)
    first, second = leader.open(0.0), leader.open(0.0)
    frames = leader.data_header(first, 1) + b"1" + leader.data_header(second, 1) + b"2"
    assert receive(follower, leader.take_control() + frames) == [Opened(1), got(1, b"1"), Opened(3), got(3, b"2")]
    third = leader.open(0.0)
    leader.ping(0.0)
    assert leader.data_header(third, 1)[3] == 0, "the SYN goes before the ping"
    assert leader.take_control().hex(" ", 12).split()[0] == "000100010000000500000000"


def test_a_payload_that_an_end_follows_is_told_from_others() -> None:
    mux, raw = follower_with(1, 3), data(1, b"ab", Flag.FIN) + data(3, b"cd")
    endings = list[bool]()
    for split in (raw[:13], raw[13:]):
        for event in mux.receive(memoryview(split), 0.0):
            if isinstance(event, Data):
                endings.append(mux.is_ending)
    assert endings == [False, True, False]


def test_a_stream_is_accepted_once() -> None:
    follower = follower_with(1)
    follower.accept(follower.streams[1])
    follower.accept(follower.streams[1])
    assert len(follower.take_control()) == HEADER.size


@pytest.mark.parametrize("first", ["here", "there"])
def test_each_direction_ends_by_itself_in_both_orders(first: str) -> None:
    mux = follower_with(1)
    stream = mux.streams[1]
    if first == "here":
        mux.finish(stream)
        assert stream.finished_here
        assert receive(mux, data(1, b"reply")) == [got(1, b"reply")]
        assert receive(mux, window(1, flags=Flag.FIN)) == [Finished(1)]
    else:
        assert receive(mux, data(1, b"all"), window(1, flags=Flag.FIN)) == [got(1, b"all"), Finished(1)]
        assert (stream.finished_here, stream.credit) == (False, INITIAL_WINDOW)
        mux.finish(stream)
    gone = Gone(1, Reset(Reason.RESET, False, given_up=True))
    assert receive(mux, window(1, 0, Flag.RST)) == [gone], "not over before it is read"


def test_a_stream_is_over_when_both_directions_ended_and_everything_is_read() -> None:
    for unread in (0, 1):
        mux = follower_with(1)
        mux.finish(mux.streams[1])
        receive(mux, data(1, b"all"), window(1, flags=Flag.FIN))
        mux.consumed(mux.streams[1], 3 - unread, 0.0)
        assert len(receive(mux, window(1, 0, Flag.RST))) == unread


def test_fin_on_a_data_frame_counts_when_its_payload_is_complete() -> None:
    mux = follower_with(1)
    raw = data(1, b"abcd", Flag.FIN)
    assert receive(mux, raw[:13]) == [got(1, b"a")]
    assert receive(mux, raw[13:15]) == [got(1, b"bc")]
    assert receive(mux, raw[15:]) == [got(1, b"d"), Finished(1)]
    assert receive(follower_with(1), data(1, b"", Flag.FIN)) == [Finished(1)]


def test_eof_is_told_once() -> None:
    mux = follower_with(1)
    stream = mux.streams[1]
    assert receive(mux, window(1, flags=Flag.FIN), window(1, flags=Flag.FIN)) == [Finished(1)]
    mux.finish(stream)
    mux.finish(stream)
    assert len(mux.take_control()) == HEADER.size


def test_eof_can_go_with_the_last_payload() -> None:
    mux = Mux(True, StreamState)
    stream = mux.open(0.0)
    mux.take_control()
    assert mux.data_header(stream, 5, last=True) == data(1, b"", Flag.FIN)[:8] + bytes([0, 0, 0, 5])
    mux.finish(stream)
    assert (stream.finished_here, mux.take_control()) == (True, b"")
    assert receive(mux, window(1, flags=Flag.FIN)) == [Finished(1)]
    assert receive(mux, window(1, 0, Flag.RST)) == [], "it was over"


def test_an_ack_can_wait_for_company_and_nothing_else_does() -> None:
    mux = follower_with(1)
    mux.accept(mux.streams[1])
    assert (bool(mux.control), mux.is_urgent) == (True, False)
    mux.ping(0.0)
    assert mux.is_urgent
    assert mux.take_control() == window(1, 0, Flag.ACK) + bytes.fromhex("000200010000000000000001")
    assert (bool(mux.control), mux.is_urgent) == (False, False)
    mux.hurry()
    assert not mux.is_urgent


@pytest.mark.parametrize("reason", [*Reason, 4294967295])
@pytest.mark.parametrize("accepted", [True, False])
def test_rst_carries_its_reason_and_whether_the_stream_was_ever_joined(reason: int, accepted: bool) -> None:
    mux = Mux(True, StreamState)
    mux.open(0.0)
    if accepted:
        receive(mux, window(1, flags=Flag.ACK))
    assert receive(mux, window(1, reason, Flag.RST)) == [Gone(1, Reset(reason, accepted))]
    assert not mux.streams


def test_rst_on_a_data_frame_of_a_foreign_yamux_is_understood() -> None:
    assert receive(follower_with(1), data(1, b"", Flag.RST)) == [Gone(1, Reset(Reason.RESET, False, given_up=True))]


def test_a_reset_stream_is_never_spoken_of_again() -> None:
    mux = follower_with(1)
    stream = mux.streams[1]
    mux.reset(stream)
    assert len(mux.take_control()) == HEADER.size
    late = [data(1, b"late"), data(1, b"x", Flag.FIN), window(1, 9), window(1, 0, Flag.RST), window(1, 0, Flag.FIN)]
    assert receive(mux, *late) == []
    mux.accept(stream)
    mux.finish(stream)
    mux.reset(stream)
    mux.consumed(stream, 5, 0.0)
    assert (mux.streams, mux.take_control()) == ({}, b"")


def test_a_reset_in_the_middle_of_a_payload_skips_the_rest() -> None:
    mux = follower_with(1)
    raw = data(1, b"abcd", Flag.FIN)
    assert receive(mux, raw[:14]) == [got(1, b"ab")]
    mux.reset(mux.streams[1])
    assert receive(mux, raw[14:] + window(3, flags=Flag.SYN)) == [Opened(3)]


def test_payload_that_began_before_its_stream_was_opened_is_skipped() -> None:
    """It was delivered to the stream that we opened meanwhile, without being counted."""
    leader = Mux(True, StreamState)
    raw = data(1, b"abcd", Flag.FIN)
    assert receive(leader, raw[:14]) == []
    assert leader.open(0.0).number == 1
    assert receive(leader, raw[14:]) == []


def test_frames_to_unknown_streams_are_skipped() -> None:
    mux = Mux(False, StreamState)
    frames = [data(9, b"who?"), window(9, 100), window(9, 0, Flag.FIN), window(9, 1, Flag.RST), window(9, 0, Flag.ACK)]
    assert receive(mux, *frames, window(1, flags=Flag.SYN)) == [Opened(1)]
    assert mux.take_control() == b""


@pytest.mark.parametrize(
    ("mistake", "frames"),
    [
        ("one of our numbers", [window(2, flags=Flag.SYN)]),
        ("a stream that exists", [window(1, flags=Flag.SYN)]),
        ("a stream that has been", [window(1, flags=Flag.RST), window(1, flags=Flag.SYN)]),
        ("a stream that exists, for a service", [service(1)]),
        ("one of our numbers, for a service", [service(2)]),
        ("an older stream", [window(5, flags=Flag.SYN), window(3, flags=Flag.SYN)]),
        ("a stream that exists, with data", [data(1, b"x", Flag.SYN)]),
        ("data after the end", [window(1, flags=Flag.FIN), data(1, b"x")]),
        ("more than was allowed", [data(1, bytes(INITIAL_WINDOW)), data(1, b"x")]),
        ("more than was allowed at once", [data(1, bytes(INITIAL_WINDOW + 1))]),
        ("credit that no number can hold", [window(1, 2**32 - 1)]),
    ],
)
def test_a_peer_that_breaks_the_protocol_loses_the_link(mistake: str, frames: list[bytes]) -> None:
    mux = follower_with(1)
    receive(mux, *frames[:-1])
    with pytest.raises(PeerError):
        receive(mux, frames[-1])


def test_more_streams_than_allowed_are_refused_and_the_others_live_on() -> None:
    mux = Mux(False, StreamState)
    numbers = range(1, 2 * MAX_STREAMS, 2)
    assert receive(mux, *(window(number, flags=Flag.SYN) for number in numbers)) == list(map(Opened, numbers))
    extra = 2 * MAX_STREAMS + 1
    assert receive(mux, data(extra, b"refused", Flag.SYN | Flag.FIN), data(1, b"served")) == [got(1, b"served")]
    assert mux.take_control() == window(extra, Reason.NO_RESOURCES, Flag.RST)
    mux.reset(mux.streams[3])
    assert receive(mux, window(extra + 2, flags=Flag.SYN)) == [Opened(extra + 2)]


# ---- pings, goodbyes, floods


def test_rtt_is_the_smallest_round_trip_of_all_pings() -> None:
    mux = Mux(True, StreamState)
    assert mux.rtt is None
    for asked, answered in ((1.0, 1.5), (2.0, 2.25), (3.0, 4.0)):
        number = mux.ping(asked)
        value = number.to_bytes(4, "big")
        assert receive(mux, b"\0\2\0\2\0\0\0\0" + value, now=answered) == [Pong(number, answered - asked)]
        assert receive(mux, b"\0\2\0\2\0\0\0\0" + value, now=answered) == [], "answered already"
    assert mux.rtt == 0.25


def test_an_answer_to_no_ping_of_ours_is_ignored() -> None:
    assert receive(Mux(True, StreamState), bytes.fromhex("000200020000000000000007")) == []


def test_a_ping_after_a_full_packet_is_answered_after_a_full_packet() -> None:
    """-z exchanged 12 bytes, and said that all is well where longer packets vanish."""
    leader, follower = Mux(True, StreamState), Mux(False, StreamState)
    number = leader.ping(0.0, 1400)
    asked = leader.take_control(4096)
    assert list(follower.receive(memoryview(asked), 0.0)) == []
    answer = follower.take_control(4096)
    assert 1400 <= len(asked) == len(answer)
    assert list(leader.receive(memoryview(answer), 1.0)) == [Pong(number, 1.0)]


def test_only_the_last_four_unanswered_pings_are_remembered() -> None:
    mux = Mux(True, StreamState)
    for now in range(6):
        mux.ping(float(now))
    answers = [bytes.fromhex(f"0002000200000000{number:08x}") for number in range(1, 7)]
    assert receive(mux, *answers, now=6.0) == [Pong(3, 4.0), Pong(4, 3.0), Pong(5, 2.0), Pong(6, 1.0)]


@pytest.mark.parametrize("code", [*Goodbye, 99])
def test_a_goodbye_is_told_with_its_code(code: int) -> None:
    assert receive(Mux(True, StreamState), Header(Kind.GO_AWAY, Flag(0), 0, code).encode()) == [GoneAway(code)]


QUESTION = Header(Kind.PING, Flag.SYN, 0, 1).encode()
TOO_MANY = MAX_ANSWERS // HEADER.size + 2


def flooded() -> Mux[StreamState]:
    mux = Mux(True, StreamState)
    with pytest.raises(PeerError, match="does not read"):
        receive(mux, *[QUESTION] * TOO_MANY)
    return mux


def test_a_peer_that_reads_the_answers_may_ask_for_ever() -> None:
    mux = Mux(True, StreamState)
    for _ in range(3):
        assert receive(mux, *[QUESTION] * (TOO_MANY // 2)) == []
        assert len(mux.take_control()) == TOO_MANY // 2 * HEADER.size


def test_a_flood_of_questions_without_reading_ends_the_link_at_a_bound() -> None:
    assert MAX_ANSWERS < len(flooded().take_control()) <= MAX_ANSWERS + HEADER.size


@pytest.mark.parametrize("end", ["reset", "finish"])
def test_a_flood_of_streams_without_reading_ends_the_link_at_a_bound(end: str) -> None:
    """Each is accepted and then ended: what we say of it was not counted as an answer."""
    mux = Mux(True, StreamState)

    def come_and_go(number: int) -> None:
        receive(mux, Header(Kind.WINDOW, Flag.SYN, number, 0).encode())
        mux.accept(mux.streams[number])
        if end == "reset":
            mux.reset(mux.streams[number])
        else:
            mux.finish(mux.streams[number])
            receive(mux, Header(Kind.WINDOW, Flag.FIN, number, 0).encode())

    def for_ever() -> None:
        for number in range(2, 4 * TOO_MANY, 2):
            come_and_go(number)

    with pytest.raises(PeerError, match="does not read"):
        for_ever()
    assert MAX_ANSWERS < len(mux.control) <= MAX_ANSWERS + 3 * HEADER.size


def test_a_goodbye_can_be_said_behind_a_flood() -> None:
    """It raised again, inside the handling of the flood, and the link never ended."""
    mux = flooded()
    mux.go_away(Goodbye.PROTOCOL_ERROR)
    assert mux.take_control().endswith(bytes.fromhex("000300000000000000000001"))


# ---- sizes


def test_a_size_is_told_before_the_data_and_heard_on_the_other_side() -> None:
    leader = Mux(True, StreamState)
    leader.announce(leader.open(0.0), 2**40 + 5)
    said = leader.take_control()
    assert said.hex(" ", 12).split() == ["000100010000000100000000", "000401000000000100000005"]
    assert receive(Mux(False, StreamState), said) == [Opened(1), Sized(1, 2**40 + 5)]


def test_a_size_that_is_told_twice_is_an_error() -> None:
    """Each one is an event for whoever listens: a peer could make any number of them."""
    mux = follower_with(1, 3)
    assert receive(mux, size(1, 7), size(3, 7)) == [Sized(1, 7), Sized(3, 7)]
    with pytest.raises(PeerError):
        receive(mux, size(1, 7))


def test_the_size_of_a_stream_that_is_gone_is_skipped_and_of_no_stream_never_told() -> None:
    mux = follower_with(1)
    stream = mux.streams[1]
    mux.reset(stream)
    mux.take_control()
    assert receive(mux, size(1, 7), size(99, 7)) == []
    mux.announce(stream, 7)
    assert mux.take_control() == b""


def test_stream_numbers_run_out_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("punchtunnel.protocol.mux.LAST_STREAM", 3)
    mux = Mux(True, StreamState)
    assert [mux.open(0.0).number, mux.open(0.0).number] == [1, 3]
    with pytest.raises(LinkError):
        mux.open(0.0)


# ---- any split, any garbage

NUMBERS = st.integers(1, 4)
FLAGS = st.integers(0, 15).map(Flag)
FRAMES = (
    st.builds(data, NUMBERS, st.binary(max_size=30), FLAGS)
    | st.builds(window, NUMBERS, st.sampled_from([0, 1, 7, 2**32 - 1]), FLAGS)
    | NUMBERS.map(lambda number: window(number, flags=Flag.SYN))
    | NUMBERS.map(service)
    | st.integers(0, 3).map(lambda value: Header(Kind.PING, Flag(value), 0, value).encode())
    | st.integers(0, 3).map(lambda value: Header(Kind.GO_AWAY, Flag(0), 0, value).encode())
    | st.builds(lambda number, total: size(number, total), NUMBERS, st.sampled_from([0, 7, MAX_SIZE]))
)


def talk(pieces: Iterable[bytes]) -> tuple[list[Event[int] | bytes], str, bytes]:
    """Return the events, with pieces of payload joined, the error, and what is answered."""
    mux = Mux(False, StreamState)
    mux.open(0.0)
    mux.ping(0.0)
    events: list[Event[int] | bytes] = []
    error = ""
    try:
        for piece in pieces:
            for event in map(by_number, mux.receive(memoryview(piece), 1.0)):
                if not isinstance(event, Data):
                    events.append(event)
                elif events and isinstance(last := events[-1], bytes):
                    events[-1] = last + bytes(event.data)
                else:
                    events.append(b"%d:" % event.stream + bytes(event.data))
    except PeerError as caught:
        error = str(caught)
    return events, error, mux.take_control()


@settings(max_examples=200)
@given(frames=st.lists(FRAMES, max_size=12), cuts=st.lists(st.integers(0, 300), max_size=12))
def test_any_split_of_the_stream_gives_the_same_events(frames: list[bytes], cuts: list[int]) -> None:
    raw = b"".join(frames)
    borders = sorted({0, len(raw), *(cut for cut in cuts if cut < len(raw))})
    assert talk(raw[start:end] for start, end in pairwise(borders)) == talk([raw])


@settings(max_examples=200)
@given(st.lists(FRAMES | st.binary(max_size=40), max_size=20))
def test_garbage_gives_events_or_peer_error_and_nothing_else(garbage: list[bytes]) -> None:
    talk(garbage)
