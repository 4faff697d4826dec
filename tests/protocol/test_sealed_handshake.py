"""Two elections with key agreement, joined in memory, with and without somebody in the middle."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from punchtunnel.protocol.agreement import MESSAGE_SIZE, TAG_SIZE, Agreement, Keys
from punchtunnel.protocol.election import ACCEPT, PICK, Election, Limits
from punchtunnel.protocol.hello import HELLO_SIZE, MAGIC, VERSION, Hello, Role, Trait
from punchtunnel.protocol.verdicts import Action, Drop, Reject, Send, Why, Won

TAG = bytes.fromhex("fcc196b49cd34045")
LEADER = Hello(bytes(range(16, 32)), TAG, Role.STDIO, Trait.FAST_AES)
FOLLOWER = Hello(bytes(range(16)), TAG, Role.STDIO, Trait.FAST_AES)
# Of each direction: hello, PICK or ACCEPT, message, tag.
HANDSHAKE_SIZE = HELLO_SIZE + len(PICK) + MESSAGE_SIZE + TAG_SIZE
# What the tags prove; the tags themselves cannot prove their own arrival.
COVERED_SIZE = HANDSHAKE_SIZE - TAG_SIZE

MakeAgreement = Callable[[], Agreement]


class CheapGroup:
    """In the place of SPAKE2: the same for both who know the secret and saw the same two messages.

    Whoever computes nothing, as the man in these tests, cannot tell the difference.
    """

    def __init__(self, secret: bytes, message: bytes) -> None:
        self.secret, self.message = secret, message

    def finish(self, message: bytes) -> bytes:
        if message[:1] != b"S" or message == self.message:
            raise ValueError("malformed or reflected")
        return sha256(self.secret + b"".join(sorted((self.message, message)))).digest()


def cheap(secret: bytes, seed: bytes = b"") -> MakeAgreement:
    def make() -> Agreement:
        agreement = Agreement.__new__(Agreement)
        agreement.message = b"S" + (sha256(seed).digest() if seed else os.urandom(32))
        agreement._spake = CheapGroup(secret, agreement.message)
        return agreement

    return make


def real(secret: bytes) -> MakeAgreement:
    return lambda: Agreement(secret, TAG, os.urandom)


GROUPS = pytest.mark.parametrize("group", [cheap, real])
STRICT = pytest.mark.parametrize("strict", [True, False], ids=["secret", "no secret"])

Change = Callable[[bytes], bytes]


def unchanged(stream: bytes) -> bytes:
    return stream


class Side:
    """One election with one connection, number 1."""

    def __init__(self, hello: Hello, agree: MakeAgreement | None, strict: bool = True) -> None:
        self.election = Election(hello, agree, strict)
        # All bytes that it sent, and how many of those that arrive were given to it.
        self.said = b""
        self.heard = b""
        self.actions: list[Action] = []
        self.perform(self.election.opened(1))

    def perform(self, actions: Sequence[Action]) -> None:
        for action in actions:
            if isinstance(action, Send):
                self.said += action.data
            else:
                self.actions.append(action)

    def hear(self, stream: bytes) -> bool:
        """Take in what is new of the stream so far; False if there was nothing new."""
        new = stream[len(self.heard) :]
        if not new or self.closed:
            return False
        self.heard += new
        if self.won is not None:
            return False
        self.perform(self.election.received(1, new))
        return True

    @property
    def closed(self) -> bool:
        return any(isinstance(action, Drop | Reject) for action in self.actions)

    @property
    def won(self) -> Won | None:
        return next((action for action in self.actions if isinstance(action, Won)), None)

    @property
    def keys(self) -> Keys:
        assert self.won is not None
        assert self.won.keys is not None
        return self.won.keys

    @property
    def why(self) -> list[Why]:
        return [action.why for action in self.actions if isinstance(action, Drop)]


def join(one: Side, other: Side, to_other: Change = unchanged, to_one: Change = unchanged) -> None:
    """Carry bytes until nobody says anything more; then the connection ends."""
    while other.hear(to_other(one.said)) | one.hear(to_one(other.said)):
        pass
    for side in (one, other):
        if side.won is None:
            side.perform(side.election.lost(1))


def pair(
    secrets: tuple[bytes, bytes] = (b"x", b"x"), group: Callable[[bytes], MakeAgreement] = cheap, strict: bool = True
) -> tuple[Side, Side]:
    return Side(LEADER, group(secrets[0]), strict), Side(FOLLOWER, group(secrets[1]), strict)


def assert_mirrored(leader: Side, follower: Side) -> None:
    assert (leader.keys.send, leader.keys.receive) == (follower.keys.receive, follower.keys.send)
    assert leader.keys.verifier == follower.keys.verifier


# ---- without anybody in the middle


@GROUPS
@STRICT
def test_same_secret_wins_on_both_sides_with_keys_that_match(
    group: Callable[[bytes], MakeAgreement], strict: bool
) -> None:
    leader, follower = pair(group=group, strict=strict)
    join(leader, follower)
    assert_mirrored(leader, follower)
    assert leader.won == Won(1, b"", True, FOLLOWER, leader.keys)
    assert follower.won == Won(1, b"", False, LEADER, follower.keys)
    assert len(leader.said) == len(follower.said) == HANDSHAKE_SIZE
    assert leader.said[HELLO_SIZE : HELLO_SIZE + 4] == PICK
    assert follower.said[HELLO_SIZE : HELLO_SIZE + 4] == ACCEPT


@GROUPS
@pytest.mark.parametrize("secrets", [(b"x", b"y"), (b"", b"x"), (b"x", b"")])
def test_different_secrets_drop_on_both_sides_and_nobody_wins(
    group: Callable[[bytes], MakeAgreement], secrets: tuple[bytes, bytes]
) -> None:
    leader, follower = Side(LEADER, group(secrets[0]), bool(secrets[0])), Side(FOLLOWER, group(secrets[1]), False)
    join(leader, follower)
    assert leader.why == follower.why == [Why.NOT_PROVED]
    assert leader.won is None
    assert follower.won is None


def test_no_key_leaves_before_the_agreement_and_none_is_sent() -> None:
    leader, follower = pair()
    join(leader, follower)
    for part in (leader.keys.send, leader.keys.receive, leader.keys.verifier):
        assert part not in leader.said + follower.said


def test_the_hello_says_nothing_about_the_secret() -> None:
    one, other = pair((b"x", b"y")), pair((b"", b""))
    assert one[0].said == other[0].said == LEADER.encode()


def test_bytes_behind_the_last_tag_belong_to_the_link() -> None:
    leader, follower = pair()
    while leader.hear(follower.said) | follower.hear(leader.said[: HANDSHAKE_SIZE - 1]):
        pass
    follower.perform(follower.election.received(1, leader.said[HANDSHAKE_SIZE - 1 :] + b"record"))
    assert follower.won is not None
    assert follower.won.unread == b"record"


def test_a_plain_side_says_neither_message_nor_tag() -> None:
    plain = [hello._replace(traits=Trait.PLAIN) for hello in (LEADER, FOLLOWER)]
    leader, follower = Side(plain[0], None, False), Side(plain[1], None, False)
    join(leader, follower)
    assert leader.won == Won(1, b"", True, plain[1])
    assert follower.won == Won(1, b"", False, plain[0])
    assert leader.said == plain[0].encode() + PICK


# ---- whoever does not fit


@STRICT
@pytest.mark.parametrize("plain_leads", [True, False])
def test_a_plain_side_and_a_sealed_one_reject_each_other_at_the_hello(strict: bool, plain_leads: bool) -> None:
    hellos = (LEADER, FOLLOWER) if plain_leads else (FOLLOWER, LEADER)
    mine = hellos[0]._replace(traits=Trait.PLAIN)
    plain, tight = Side(mine, None, False), Side(hellos[1], cheap(b"x"), strict)
    join(plain, tight)
    assert plain.actions == [Reject(1, VERSION, hellos[1])]
    assert tight.actions == [Reject(1, VERSION, mine)]
    assert len(plain.said) == len(tight.said) == HELLO_SIZE


@pytest.mark.parametrize("strict_leads", [True, False])
def test_a_misfit_that_proves_the_secret_is_rejected_on_both_sides_as_proved(strict_leads: bool) -> None:
    hellos = LEADER._replace(role=Role.TO), FOLLOWER._replace(role=Role.TO)
    leader, follower = (Side(hello, cheap(b"x")) for hello in hellos)
    join(leader, follower)
    assert leader.actions == [Reject(1, VERSION, hellos[1], proved=True)]
    assert follower.actions == [Reject(1, VERSION, hellos[0], proved=True)]


def test_a_misfit_that_does_not_know_the_secret_ends_nothing() -> None:
    """A stranger's hello with a role that does not fit ended a punch without a secret."""
    listener = Election(LEADER._replace(role=Role.LISTEN), cheap(b"x"), strict=True)
    stranger = FOLLOWER._replace(role=Role.LISTEN)
    listener.opened(1)
    (pick,) = listener.received(1, stranger.encode())
    assert isinstance(pick, Send)
    answer = ACCEPT + b"S" + bytes(MESSAGE_SIZE - 1) + bytes(TAG_SIZE)
    tag, drop = listener.received(1, answer)
    assert isinstance(tag, Send)
    assert drop == Drop(1, Why.NOT_PROVED)
    assert_still_wins(listener, Side(FOLLOWER._replace(role=Role.TO, nonce=bytes(16)), cheap(b"x")))


def test_without_a_secret_a_misfit_is_rejected_at_its_hello() -> None:
    election = Election(LEADER._replace(role=Role.LISTEN), cheap(b""))
    misfit = FOLLOWER._replace(role=Role.LISTEN)
    election.opened(1)
    assert election.received(1, misfit.encode()) == [Reject(1, VERSION, misfit)]


def assert_still_wins(election: Election, peer: Side, conn: int = 2) -> None:
    """Check that an election that something happened to still links with the right peer."""
    mine = b"".join(action.data for action in election.opened(conn) if isinstance(action, Send))
    won = None
    for _ in range(6):
        peer.hear(mine)
        for action in election.received(conn, peer.said):
            if isinstance(action, Send) and action.conn == conn:
                mine += action.data
            elif isinstance(action, Won):
                won = action
        peer.said = b""
        if won is not None:
            break
    peer.hear(mine)
    assert won is not None
    assert won.conn == conn
    assert peer.won is not None
    assert won.keys is not None
    assert won.keys.send == peer.keys.receive


@pytest.mark.parametrize("stranger_leads", [True, False])
def test_a_wrong_secret_does_not_stop_the_right_peer(stranger_leads: bool) -> None:
    mine, theirs = (FOLLOWER, LEADER) if stranger_leads else (LEADER, FOLLOWER)
    one, stranger = Side(mine, cheap(b"right")), Side(theirs, cheap(b"wrong"))
    join(one, stranger)
    assert one.why == [Why.NOT_PROVED]
    assert_still_wins(one.election, Side(theirs._replace(nonce=theirs.nonce[::-1]), cheap(b"right")))


# ---- how often somebody may try


class Only(Limits):
    """Lets some connections try, and remembers who did."""

    def __init__(self, *allowed: int) -> None:
        self.allowed = set(allowed)
        self.began_on: list[int] = []
        self.gave_back: list[int] = []
        self.endings: list[tuple[int, bool]] = []

    def choose(self, waiting: Mapping[int, bytes]) -> int | None:
        return next((conn for conn in waiting if conn in self.allowed), None)

    def began(self, conn: int, nonce: bytes) -> None:
        self.began_on.append(conn)

    def showed_nothing(self, conn: int) -> None:
        self.gave_back.append(conn)

    def ended(self, conn: int, proved: bool) -> None:
        self.endings.append((conn, proved))


def test_a_leader_begins_no_agreement_where_it_may_not_and_does_later() -> None:
    limits = Only()
    leader = Election(LEADER, cheap(b"x"), True, limits)
    leader.opened(1)
    assert leader.received(1, FOLLOWER.encode()) == []
    assert leader.retry() == []
    limits.allowed.add(1)
    (pick,) = leader.retry()
    assert isinstance(pick, Send)
    assert pick.data.startswith(PICK)
    assert leader.retry() == [], "one PICK at a time"
    assert limits.began_on == [1]


def test_a_follower_lets_a_pick_wait_where_it_may_not_answer_and_answers_it_later() -> None:
    limits = Only()
    made: list[int] = []

    def agree() -> Agreement:
        made.append(1)
        return cheap(b"x")()

    follower = Election(FOLLOWER, agree, True, limits)
    leader = Side(LEADER, cheap(b"x"))
    leader.hear(FOLLOWER.encode())
    follower.opened(1)
    assert follower.received(1, leader.said) == []
    assert not made, "whoever may not try costs no computing"
    assert follower.retry() == []
    assert limits.began_on == []
    limits.allowed.add(1)
    (accept,) = follower.retry()
    assert limits.began_on == [1], "a try counts from its begin: whoever leaves without a tag has guessed too"
    assert isinstance(accept, Send)
    leader.perform(leader.election.received(1, accept.data))
    assert leader.won is not None
    (won,) = follower.received(1, leader.said[-TAG_SIZE:])
    assert isinstance(won, Won)


@pytest.mark.parametrize("leads", [True, False])
@pytest.mark.parametrize(("secret", "role"), [(b"x", Role.STDIO), (b"x", Role.RAW), (b"y", Role.STDIO)])
def test_what_came_of_each_try_is_told(leads: bool, secret: bytes, role: Role) -> None:
    """Also of a peer that fits only by its secret: it must not use up what it needs for the next time."""
    mine, theirs = (LEADER, FOLLOWER) if leads else (FOLLOWER, LEADER)
    limits = Only(1)
    side, other = Side(mine, cheap(b"x")), Side(theirs._replace(role=role), cheap(secret))
    side.election._limits = limits
    join(side, other)
    side.election.end()
    assert limits.endings[0] == (1, secret == b"x")
    assert not limits.gave_back


def test_a_pick_that_nobody_answered_before_the_end_showed_nothing() -> None:
    """A stranger that said hello cost the peer's next session a try each time."""
    limits = Only(1)
    leader = Election(LEADER, cheap(b"x"), True, limits)
    leader.opened(1)
    assert leader.received(1, FOLLOWER.encode())
    leader.end()
    assert (limits.began_on, limits.gave_back) == ([1], [1])


def test_a_pick_that_has_to_wait_may_not_be_followed_by_anything() -> None:
    leader = Side(LEADER, cheap(b"x"))
    leader.hear(FOLLOWER.encode())
    for extra in (b"\0", bytes(100_000)):
        follower = Election(FOLLOWER, cheap(b"x"), True, Only())
        follower.opened(1)
        assert follower.received(1, leader.said + extra) == [Drop(1, Why.STRANGER)]


def test_whoever_may_not_try_does_not_keep_another_from_it() -> None:
    election = Election(LEADER, cheap(b"x"), True, Only(2))
    for conn in (1, 2):
        election.opened(conn)
    assert election.received(1, FOLLOWER.encode()) == []
    (pick,) = election.received(2, FOLLOWER._replace(nonce=bytes(16)).encode())
    assert isinstance(pick, Send)
    assert pick.conn == 2


# ---- a man in the middle


def flip(place: int, mask: int) -> Change:
    return lambda stream: (
        stream[:place] + bytes(byte ^ mask for byte in stream[place : place + 1]) + stream[place + 1 :]
    )


def drop(place: int) -> Change:
    return lambda stream: stream[:place] + stream[place + 1 :]


def repeat(place: int) -> Change:
    return lambda stream: stream[: place + 1] + stream[place:]


def reorder(place: int) -> Change:
    def change(stream: bytes) -> bytes:
        # The first one is held back until there is a second one to send before it.
        if len(stream) == place + 1:
            return stream[:place]
        return stream[:place] + stream[place : place + 2][::-1] + stream[place + 2 :]

    return change


def cut(place: int) -> Change:
    return lambda stream: stream[:place]


def insert(place: int) -> Change:
    return lambda stream: stream if len(stream) < place else stream[:place] + b"\x5a" + stream[place:]


CHANGES: dict[str, Callable[[int], Change]] = {
    **{f"flip {mask:#04x}": lambda place, mask=mask: flip(place, mask) for mask in (1, 2, 4, 8, 16, 32, 64, 128, 255)},  # type: ignore[misc]
    "drop": drop,
    "repeat": repeat,
    "reorder": reorder,
    "cut": cut,
    "insert": insert,
}


def assert_man_in_the_middle_wins_nothing(towards_follower: bool, change: Change, strict: bool) -> None:
    leader, follower = pair(strict=strict)
    if towards_follower:
        join(leader, follower, to_other=change)
        victim, other, said = follower, leader, leader.said
    else:
        join(leader, follower, to_one=change)
        victim, other, said = leader, follower, follower.said
    if leader.won and follower.won:
        assert_mirrored(leader, follower)
    sent, heard = said[:HANDSHAKE_SIZE], victim.heard[:HANDSHAKE_SIZE]
    if len(sent) == HANDSHAKE_SIZE and heard == sent:
        # Equal neighbours exchanged, or something behind the handshake.
        assert victim.won
        assert other.won
        return
    assert victim.won is None
    if heard[:COVERED_SIZE] != sent[:COVERED_SIZE] or len(sent) < COVERED_SIZE:
        assert other.won is None


@STRICT
@pytest.mark.parametrize("towards_follower", [True, False], ids=["leader to follower", "follower to leader"])
@pytest.mark.parametrize("kind", CHANGES)
def test_every_byte_of_the_handshake_is_guarded(kind: str, towards_follower: bool, strict: bool) -> None:
    for place in range(HANDSHAKE_SIZE):
        assert_man_in_the_middle_wins_nothing(towards_follower, CHANGES[kind](place), strict)


@settings(max_examples=300)
@given(
    changes=st.lists(st.tuples(st.sampled_from(sorted(CHANGES)), st.integers(0, HANDSHAKE_SIZE - 1)), max_size=4),
    towards_follower=st.booleans(),
)
def test_several_changes_win_nothing_either(changes: list[tuple[str, int]], towards_follower: bool) -> None:
    def change(stream: bytes) -> bytes:
        for kind, place in changes:
            stream = CHANGES[kind](place)(stream)
        return stream

    seen = [b""]

    def growing(stream: bytes) -> bytes:
        # What has passed has passed: a change of what came earlier comes too late.
        changed = change(stream)
        if not changed.startswith(seen[0]):
            changed = seen[0]
        seen[0] = changed
        return changed

    assert_man_in_the_middle_wins_nothing(towards_follower, growing, strict=True)


@pytest.mark.parametrize("part", range(4))
@pytest.mark.parametrize("towards_follower", [True, False])
def test_a_message_of_an_earlier_session_does_not_pass(part: int, towards_follower: bool) -> None:
    old = pair()
    join(*old)
    source = (old[0] if towards_follower else old[1]).said
    borders = [0, HELLO_SIZE, HELLO_SIZE + 4, COVERED_SIZE, HANDSHAKE_SIZE]
    start, end = borders[part], borders[part + 1]

    def replay(stream: bytes) -> bytes:
        return stream if len(stream) < end else stream[:start] + source[start:end] + stream[end:]

    assert_man_in_the_middle_wins_nothing(towards_follower, replay, strict=True)


def test_a_mirror_wins_nothing() -> None:
    """Everything that it says comes back; then with a nonce that makes it lead, or follow."""
    for change in (unchanged, *(flip(20, mask) for mask in (1, 0x10, 0xFF))):
        side = Side(LEADER, cheap(b"x"))
        while side.hear(change(side.said)):
            pass
        assert side.won is None


def test_real_agreements_are_guarded_too() -> None:
    places = [10, HELLO_SIZE + 4, HELLO_SIZE + 5, COVERED_SIZE - 1, COVERED_SIZE, HANDSHAKE_SIZE - 1]
    for place in places:
        for towards_follower in (True, False):
            leader, follower = pair(group=real)
            change = flip(place, 1)
            if towards_follower:
                join(leader, follower, to_other=change)
            else:
                join(leader, follower, to_one=change)
            assert (follower if towards_follower else leader).won is None


# ---- any split, any garbage


def outcome(agree: MakeAgreement, mine: Hello, pieces: Sequence[bytes], strict: bool) -> list[object]:
    """Return everything that was said and decided; what follows the win is part of what it hands over."""
    election = Election(mine, agree, strict)
    election.opened(1)
    said, unread = b"", b""
    decided: list[Action] = []
    for piece in pieces:
        if decided and isinstance(decided[-1], Won):
            unread += piece
            continue
        for action in election.received(1, piece):
            if isinstance(action, Send):
                said += action.data
            else:
                decided.append(action)
    result: list[object] = [said]
    for action in decided:
        if isinstance(action, Won):
            assert action.keys is not None
            result += [action.unread + unread, action.keys.send, action.keys.receive]
        else:
            result.append(action)
    return result


def whole_stream(towards_follower: bool) -> bytes:
    leader, follower = Side(LEADER, cheap(b"x", b"leader")), Side(FOLLOWER, cheap(b"x", b"follower"))
    join(leader, follower)
    return leader.said if towards_follower else follower.said


STREAMS = {True: whole_stream(True), False: whole_stream(False)}
SEEDS = {True: b"follower", False: b"leader"}


@settings(max_examples=300)
@example(to_follower=True, cuts=list(range(1, HANDSHAKE_SIZE + 6)), flipped=None, strict=True)
@example(to_follower=False, cuts=list(range(1, HANDSHAKE_SIZE + 6)), flipped=None, strict=True)
@given(
    to_follower=st.booleans(),
    cuts=st.lists(st.integers(1, HANDSHAKE_SIZE + 5), max_size=8),
    flipped=st.none() | st.integers(0, HANDSHAKE_SIZE - 1),
    strict=st.booleans(),
)
def test_any_split_of_the_stream_gives_the_same_result(
    to_follower: bool, cuts: list[int], flipped: int | None, strict: bool
) -> None:
    data = STREAMS[to_follower] + b"record"
    if flipped is not None:
        data = flip(flipped, 1)(data)
    # The leader's tag is an answer: it never comes together with what it answers.
    always = {0, COVERED_SIZE, len(data)} if to_follower else {0, len(data)}
    borders = sorted({*always, *cuts})
    mine = FOLLOWER if to_follower else LEADER
    agree = cheap(b"x", SEEDS[to_follower])
    few, many = ([data[start:end] for start, end in pairwise(each)] for each in (sorted(always), borders))
    assert outcome(agree, mine, few, strict) == outcome(agree, mine, many, strict)


TALK = st.sampled_from(
    [PICK, ACCEPT, MAGIC, LEADER.encode(), FOLLOWER.encode(), b"S", bytes(32), STREAMS[True], STREAMS[False], b"\xf0"]
)


@settings(max_examples=300)
@given(
    pieces=st.lists(st.binary(max_size=80) | TALK, max_size=8),
    hello=st.sampled_from([b"", LEADER.encode(), FOLLOWER.encode(), LEADER._replace(role=Role.TO).encode()]),
    leads=st.booleans(),
    strict=st.booleans(),
)
def test_garbage_gives_drop_or_reject_and_never_a_win(
    pieces: list[bytes], hello: bytes, leads: bool, strict: bool
) -> None:
    election = Election(LEADER if leads else FOLLOWER, cheap(b"nobody knows it"), strict)
    election.opened(1)
    decided: list[Action] = []
    for piece in [hello, *pieces]:
        decided += [action for action in election.received(1, piece) if not isinstance(action, Send)]
    assert len(decided) <= 1
    assert all(isinstance(action, Drop | Reject) for action in decided)


@settings(max_examples=40)
@given(message=st.binary(min_size=MESSAGE_SIZE, max_size=MESSAGE_SIZE), leads=st.booleans())
def test_a_garbled_message_of_the_real_agreement_costs_only_its_connection(message: bytes, leads: bool) -> None:
    mine, theirs = (LEADER, FOLLOWER) if leads else (FOLLOWER, LEADER)
    election = Election(mine, real(b"x"), True)
    election.opened(1)
    election.received(1, theirs.encode())
    word = ACCEPT if leads else PICK
    actions = election.received(1, word + message + bytes(TAG_SIZE))
    actions += election.received(1, bytes(TAG_SIZE))
    decided = [action for action in actions if not isinstance(action, Send)]
    assert decided in ([Drop(1, Why.STRANGER)], [Drop(1, Why.NOT_PROVED)])


def test_what_is_held_for_a_stranger_is_what_it_may_say() -> None:
    """One receive of the owner, no more: whatever is unexpected drops the connection."""
    for agreed in (b"", FOLLOWER.encode()):
        election = Election(LEADER, cheap(b"x"), True)
        election.opened(1)
        election.received(1, agreed)
        assert election.received(1, b"A" * 4096) == [Drop(1, Why.STRANGER)]
