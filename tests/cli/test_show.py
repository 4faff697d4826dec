"""The command for the other machine, and what two people compare: right, runnable, and without a packet."""

from __future__ import annotations

import re
import shlex
import socket
from dataclasses import replace

import pytest

from punchtunnel.address import parse_target
from punchtunnel.cli import show
from punchtunnel.cli.options import Options
from punchtunnel.cli.show import Side
from punchtunnel.errors import UsageError
from punchtunnel.protocol import schedule
from punchtunnel.protocol.secret import normal
from punchtunnel.words.show import THIS_MACHINE, WITH_NAME, WITH_SECRET

# 12:34:56 UTC of some day.
NOW = 1_789_000_000 // 86400 * 86400 + 45296.0
GLOBAL = {"1.2.3.4": "5.6.7.8", "2600::1": "2600::2"}


@pytest.fixture(autouse=True)
def routes(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return the routing table that the tests believe in: peer, own address."""
    table = GLOBAL | {"203.0.113.9": "192.168.1.7", "127.0.0.1": "127.0.0.1"}
    monkeypatch.setattr(show, "source_towards", lambda address, _: table.get(address.host))
    return table


@pytest.mark.parametrize(
    ("side", "line"),
    [
        (Side(["203.0.113.9"]), f"punchtunnel {THIS_MACHINE}"),
        (Side([]), f"punchtunnel {THIS_MACHINE}"),
        (Side(["home.example"]), f"punchtunnel {THIS_MACHINE}"),
        (Side(["203.0.113.9", "1.2.3.4"]), "punchtunnel 5.6.7.8"),
        (Side(["1.2.3.4", "2600::1"]), "punchtunnel 5.6.7.8 2600::2"),
        (Side(["1.2.3.4", "1.2.3.4"]), "punchtunnel 5.6.7.8"),
        (Side(["127.0.0.1"]), "punchtunnel 127.0.0.1"),
        (Side(["203.0.113.9"], bind="5.6.7.9"), "punchtunnel 5.6.7.9"),
        (Side(["203.0.113.9"], bind="10.0.0.1"), f"punchtunnel {THIS_MACHINE}"),
        # No route.
        (Side(["9.9.9.9"]), f"punchtunnel {THIS_MACHINE}"),
        (Side([], via=True), "punchtunnel --via COMMAND"),
        (Side(["1.2.3.4"], via=True), "punchtunnel 5.6.7.8 --via COMMAND"),
        (Side(["203.0.113.9"], via=True, wanted=[""]), f"punchtunnel {THIS_MACHINE} --to HOST:PORT --via COMMAND"),
        (Side(["1.2.3.4"], wanted=[""]), "punchtunnel 5.6.7.8 --to HOST:PORT"),
        (Side(["1.2.3.4"], targets={"": parse_target("22")}), "punchtunnel 5.6.7.8 -L 2222"),
        (Side(["1.2.3.4"], targets={"": parse_target("nas:8080")}), "punchtunnel 5.6.7.8 -L 8080"),
        (Side(["1.2.3.4"], targets={"": parse_target("unix:/x")}), "punchtunnel 5.6.7.8 -L 0"),
        (
            Side(["1.2.3.4"], wanted=[""], targets={"": parse_target("80")}),
            "punchtunnel 5.6.7.8 -L 2280 --to HOST:PORT",
        ),
        (
            Side(["1.2.3.4"], targets={"ssh": parse_target("22"), "web": parse_target("8080")}),
            "punchtunnel 5.6.7.8 -L 2222=ssh -L 8080=web",
        ),
        (Side(["1.2.3.4"], wanted=["ssh", ""]), "punchtunnel 5.6.7.8 --to ssh=HOST:PORT --to HOST:PORT"),
        (Side(["1.2.3.4"], channel="it's"), """punchtunnel 5.6.7.8 --channel 'it'"'"'s'"""),
        (Side(["1.2.3.4"], channel="a", flags=["-4", "--plain"]), "punchtunnel 5.6.7.8 --channel a -4 --plain"),
    ],
)
def test_the_other_machine_gets_the_role_that_fits_and_what_both_must_share(side: Side, line: str) -> None:
    assert show.command(side) == line


SEEN = ["198.51.100.7", "2001:db8::7"]


@pytest.mark.parametrize(
    ("side", "line"),
    [
        (Side([], seen=SEEN), "punchtunnel 198.51.100.7 2001:db8::7"),
        (Side(["home.example"], seen=SEEN), "punchtunnel 198.51.100.7 2001:db8::7"),
        (Side(["203.0.113.9"], seen=SEEN), "punchtunnel 198.51.100.7"),
        (Side(["203.0.113.9", "2600::1"], seen=SEEN), "punchtunnel 2600::2 198.51.100.7"),
        (Side(["1.2.3.4"], seen=SEEN), "punchtunnel 5.6.7.8"),
        (Side(["127.0.0.1"], seen=SEEN), "punchtunnel 127.0.0.1"),
        (Side([], flags=["-4"], seen=SEEN), "punchtunnel 198.51.100.7 -4"),
        (Side(["home.example"], flags=["-6"], seen=SEEN), "punchtunnel 2001:db8::7 -6"),
        (Side(["203.0.113.9"], seen=SEEN[1:]), f"punchtunnel {THIS_MACHINE}"),
        (Side([], seen=["198.51.100.7", "198.51.100.8"]), "punchtunnel 198.51.100.7 198.51.100.8"),
    ],
)
def test_what_servers_see_stands_for_what_this_machine_does_not_know(side: Side, line: str) -> None:
    assert show.command(side) == line


def test_a_channel_of_any_characters_survives_a_shell() -> None:
    channel = "a b'\"$(x)`\\\n*é"
    assert shlex.split(show.command(Side(["1.2.3.4"], channel=channel)))[3] == channel


def test_a_secret_is_hinted_at_and_never_shown() -> None:
    with_secret, without = Side(["1.2.3.4"], secret=True), Side(["1.2.3.4"])
    assert show.hint(with_secret) == "on the other machine: punchtunnel 5.6.7.8, with the same secret"
    assert show.hint(without) == "on the other machine: punchtunnel 5.6.7.8"
    assert WITH_SECRET in show.page(with_secret, NOW)
    assert WITH_SECRET not in show.page(without, NOW)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (Options(peers=["home"]), "punchtunnel NAME -L 2222"),
        (Options(peers=["home"], channel="two", ipv4=True), "punchtunnel NAME -L 2222 --channel two -4"),
    ],
)
def test_the_other_machine_calls_this_one_by_a_name_of_its_own(given: Options, line: str) -> None:
    """It was told this machine's address and the channel of the pair, without the secret of the pair."""
    saved = replace(given, peers=["1.2.3.4"], to=["22"], channel=given.channel or "pair-1", relay=["r.example"], port=9)
    side = replace(show.side_of(saved, SEEN, given), secret=True)
    assert show.hint(side) == f"on the other machine: {line}, where {WITH_NAME}"
    page = show.page(side, NOW).splitlines()
    assert page[:3] == ["on the other machine:", f"    {line}", f"    {WITH_NAME}"]
    assert WITH_SECRET not in "\n".join(page)


def test_without_a_secret_the_page_begins_with_a_fresh_one_that_no_command_has() -> None:
    """An argument could be read by every user of the machine."""
    pages = [show.page(Side(["1.2.3.4"], wanted=[""]), NOW).splitlines() for _ in range(2)]
    secrets = [page[1].strip() for page in pages]
    assert "a fresh secret" in pages[0][0]
    assert secrets[0] != secrets[1]
    assert [len(normal(secret)) for secret in secrets] == [26, 26]
    assert not any(secrets[0] in line for line in pages[0][2:])
    for side in (Side(["1.2.3.4"], secret=True), Side(["1.2.3.4"], wants_none=True)):
        assert "fresh" not in show.page(side, NOW)


def test_the_page_has_the_time_the_buckets_their_ports_and_the_next_change() -> None:
    page = show.page(Side(["1.2.3.4"], channel="backup"), NOW)
    assert "it is 12:34:56 UTC here" in page
    for bucket in schedule.current_buckets(NOW):
        name = "always" if bucket == schedule.CLOCK_FREE else f"bucket {bucket}"
        count = 4 if bucket == schedule.CLOCK_FREE else 8
        ports = " ".join(map(str, schedule.bucket_ports("backup", bucket, count)))
        assert f"{name}: ports {ports}\n" in page
    found = re.search(r"begins in (\d+) s, at (\d\d):(\d\d):(\d\d) UTC$", page)
    assert found
    hours, minutes, seconds = map(int, found.groups()[1:])
    change = NOW // 86400 * 86400 + hours * 3600 + minutes * 60 + seconds
    assert change - NOW == int(found[1])
    assert schedule.current_buckets(change) != schedule.current_buckets(change - 0.1)


def test_two_sides_see_the_same_page_but_for_the_command() -> None:
    one = show.page(Side(["1.2.3.4"], wanted=[""], secret=True), NOW).splitlines()
    other = show.page(Side(["2600::1"], targets={"": parse_target("22")}, secret=True), NOW).splitlines()
    assert one[1] != other[1]
    assert one[2:] == other[2:]


def test_a_channel_that_is_not_utf_8_is_a_mistake() -> None:
    with pytest.raises(UsageError, match="UTF-8"):
        show.page(Side(["1.2.3.4"], channel="\udcff"), NOW)


def test_no_name_is_looked_up_and_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("a packet would have been sent")

    kinds = []

    class Watched(socket.socket):
        def __init__(self, family: int, kind: int) -> None:
            kinds.append(kind)
            super().__init__(family, kind)

        send = sendto = sendall = sendmsg = forbidden  # type: ignore[assignment]

    monkeypatch.setattr(socket, "socket", Watched)
    monkeypatch.setattr(socket, "getaddrinfo", forbidden)
    assert show.command(Side(["127.0.0.1", "home.example"])) == "punchtunnel 127.0.0.1"
    # Connecting a datagram socket asks the routing table only.
    assert kinds == [socket.SOCK_DGRAM]
