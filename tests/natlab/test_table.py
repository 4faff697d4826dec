"""cells.py, topology.py, build.py, judge.py, report.py, heatmap.py: the pure parts of the matrix."""

from __future__ import annotations

import ipaddress
from collections import Counter
from dataclasses import replace
from math import inf
from pathlib import Path as FilePath
from xml.etree import ElementTree

import pytest

from . import build, daemon, heatmap, report
from .__main__ import chosen
from .cells import DATAGRAMS, DIRECT, NO_HOLE, PAIRS, RELAYED, Cell, Fails, Limit
from .ends import ROOT, Look, Outcome
from .incidents import Incident, Kind
from .judge import LATE, Result, judge
from .packetlog import PacketLog, record
from .relay import RELAY4, RELAY6
from .subjects import BASELINE, TOOL, Call
from .table import CELLS
from .test_packets import parsed, segment
from .topology import BEHAVIOURS, OTHER_ROWS, PAIR_ROWS, Daemon, can_meet

CALL = Call("198.51.100.10", ("198.51.100.20",), "lab", 1.5, 20.0)


def test_every_cell_has_a_title_of_its_own_and_known_routers() -> None:
    titles = [cell.title for cell in CELLS]
    assert len(titles) == len(set(titles))
    assert {name for cell in CELLS for name in (cell.left, cell.right)} <= BEHAVIOURS.keys()


def test_every_router_behaviour_is_in_some_cell() -> None:
    used = {name for cell in CELLS for name in (cell.left, cell.right)}
    assert {row.name for row in (*PAIR_ROWS, *OTHER_ROWS)} == used


def test_the_pair_block_is_a_full_triangle() -> None:
    assert sum(cell.block == PAIRS for cell in CELLS) == len(PAIR_ROWS) * (len(PAIR_ROWS) + 1) // 2


@pytest.mark.parametrize(
    ("left", "right", "meets"),
    [
        ("drop", "reset", True),
        ("random", "public", True),
        ("random", "mapped", True),
        ("random", "drop", False),
        ("random", "random", False),
        ("bare SYN dropped", "drop", True),
        ("bare SYN dropped", "bare SYN dropped", False),
    ],
)
def test_which_pairs_can_meet_at_all(left: str, right: str, meets: bool) -> None:
    assert can_meet(BEHAVIOURS[left], BEHAVIOURS[right]) is meets
    assert can_meet(BEHAVIOURS[right], BEHAVIOURS[left]) is meets


def test_starts_come_in_both_orders_and_fill_the_spread() -> None:
    gaps = [Cell("", "").gap(run) for run in range(20)]
    assert min(gaps) < -1
    assert max(gaps) > 1
    assert Cell("", "", gap_s=3).gap(1) == -3
    assert Cell("", "", gap_s=3, left_first=True).gap(1) == 3


def test_the_clock_offset_puts_a_border_where_it_is_wanted() -> None:
    for subject in (TOOL, BASELINE):
        offset = subject.offset_to_border(1234.5, 2)
        assert (1234.5 + 2 + offset - subject.border_s) % subject.window_s == pytest.approx(0)


def test_both_subjects_get_the_command_line_they_understand() -> None:
    tool, baseline = TOOL.command(CALL), BASELINE.command(CALL)
    assert tool[1:] == [
        "-m", "punchtunnel", "198.51.100.20", "--stdio", "--json", "--channel", "lab",
        "--clock-offset=1.5", "-w", "20.0",
    ]  # fmt: skip
    assert baseline[baseline.index("--own") + 1] == "198.51.100.10"


def test_a_double_nat_is_two_boxes_behind_each_other() -> None:
    scene = build.internet_scene("t", BEHAVIOURS["double nat"], BEHAVIOURS["public"], stranger=False, neighbours=False)
    assert scene.namespaces == ["t-left-host", "t-left-box0", "t-left-box1", "t-right-host"]
    assert [site.namespace for site in scene.sites] == ["t-left-box0", "t-right-host"]
    assert "reject with tcp reset" in scene.scripts["t-left-box0"]
    assert "reject" not in scene.scripts["t-left-box1"]


def test_a_router_that_maps_ports_has_an_address_that_its_daemon_takes_for_public() -> None:
    scene = build.internet_scene("t", BEHAVIOURS["mapper"], BEHAVIOURS["drop"], stranger=False, neighbours=False)
    assert [ipaddress.ip_address(scene.hosts[side].dial4).is_global for side in ("left", "right")] == [True, False]
    assert scene.daemons == [("t-left-box0", Daemon.ALL)]
    assert f"jump {daemon.FORWARD}" in scene.scripts["t-left-box0"]
    assert daemon.FORWARD not in scene.scripts["t-right-box0"]


def test_datagrams_are_counted_in_the_whole_run() -> None:
    cell = Cell("", "x", absent=True, fails=Fails(NO_HOLE, ""), limits=(Limit(DATAGRAMS, 0, inf, 2),))
    result = judge(cell, TOOL, 0, [[outcome(NO_HOLE)]], PacketLog(), (0, 0), (3, 0))
    assert result.measured == {"datagrams in all": 3}
    assert result.why == "datagrams in all: 3, more than 2"


def test_bytes_by_the_relay_and_between_the_two_are_counted_apart() -> None:
    limits = (Limit(RELAYED, 0, inf, 20), Limit(DIRECT, 0, inf, inf, 40))
    cell = Cell("", "x", absent=True, fails=Fails(NO_HOLE, ""), limits=limits)
    data = replace(parsed(segment()), length=15)
    ways = (("left", "relay"), ("right", "relay"), ("relay", "left"), ("left", "right"), ("right", "left"))
    log = PacketLog(record(1.0, origin, towards, data, "delivered") for origin, towards in ways)
    result = judge(cell, TOOL, 0, [[outcome(NO_HOLE)]], log, (0, 0))
    assert result.measured == {"relayed bytes in all": 30, "direct bytes in all": 30}
    assert result.why == "relayed bytes in all: 30, more than 20; direct bytes in all: 30, less than 40"


def test_a_relay_is_named_where_no_peer_is_and_is_nothing_for_the_published_algorithm() -> None:
    known = [cell for cell in CELLS if cell.relay]
    assert {cell.block for cell in known} == {"relay"}
    assert not set(known) & set(chosen(False, "", BASELINE))
    assert set(known) <= set(chosen(False, "", TOOL))
    scene = build.internet_scene("t", BEHAVIOURS["drop"], BEHAVIOURS["drop"], stranger=False, neighbours=False)
    build.add_relay(scene)
    assert (scene.relay, scene.hosts["relay"].dial4, scene.hosts["relay"].dial6) == ("t-relay-host", RELAY4, RELAY6)


def test_only_rows_that_ask_for_it_get_a_second_host_or_a_service() -> None:
    plain = build.internet_scene("t", BEHAVIOURS["drop"], BEHAVIOURS["reset"], stranger=False, neighbours=False)
    dmz = build.internet_scene("t", BEHAVIOURS["stranger accepts"], BEHAVIOURS["drop"], stranger=True, neighbours=False)
    assert "left neighbour" not in plain.hosts
    assert dmz.services == ["t-left-neighbour"]
    assert "stranger" in dmz.hosts


def outcome(status: int | None = 0, sent: bytes = b"a", received: bytes = b"b", **times: float) -> Outcome:
    """Return an end that ended at 30 s."""
    events: list[dict[str, object]] = [{"event": name, "time_s": time} for name, time in times.items()]
    events.append({"event": "exit", "status": status, "reason": "no answer at all" if status else ""})
    return Outcome(status, sent, received, events, [], [Look(1.0, 22, 0.1), Look(9.0, 41, 0.2)], ended_s=30.0)


def test_a_hole_counts_from_the_later_start_to_the_later_hole() -> None:
    left, right = outcome(punching=1.0, hole=5.25), outcome(sent=b"b", received=b"a", punching=5.0, hole=5.5)
    result = judge(Cell("", "x"), TOOL, 0, [[left, right]], PacketLog(), (1, 2))
    assert (result.passed, result.seconds, result.sockets, result.syns) == (True, 0.5, (41, 41), (1, 2))


def test_a_wrong_byte_or_a_wrong_exit_status_is_a_failure() -> None:
    right = outcome(sent=b"b", received=b"a")
    wrong = [outcome(received=b"c"), outcome(status=1), outcome(status=None)]
    results = [judge(Cell("", "x"), TOOL, 0, [[left, right]], PacketLog(), (0, 0)) for left in wrong]
    assert [result.passed for result in results] == [False, False, False]
    assert results[0].why == "left got 1 of 1 bytes, or others"


def test_a_failure_must_have_its_status_name_its_cause_and_come_in_time() -> None:
    cell = Cell("", "x", absent=True, wait_s=20.0, fails=Fails(NO_HOLE, "no answer"))
    good = outcome(NO_HOLE, punching=30.0 - 20.0)
    assert judge(cell, TOOL, 0, [[good]], PacketLog(), (0, 0)).passed
    assert not judge(cell, TOOL, 0, [[outcome(4)]], PacketLog(), (0, 0)).passed
    late = outcome(NO_HOLE, punching=30.0 - 20.0 - LATE - 1)
    assert not judge(cell, TOOL, 0, [[late]], PacketLog(), (0, 0)).passed
    other = replace(cell, fails=Fails(NO_HOLE, "refused"))
    assert not judge(other, TOOL, 0, [[good]], PacketLog(), (0, 0)).passed
    assert judge(other, BASELINE, 0, [[good]], PacketLog(), (0, 0)).passed


def test_limits_are_measured_in_their_window_after_the_first_dial() -> None:
    limits = (Limit("syns", 0, 10, 2), Limit("cpu percent", 0, 10, 2))
    cell = Cell("", "x", absent=True, wait_s=30.0, fails=Fails(NO_HOLE, ""), limits=limits)
    syn = parsed(segment())
    log = PacketLog(record(time, "left", "right", syn, "delivered") for time in (0.5, 1.0, 5.0, 10.9, 11.5))
    result = judge(cell, TOOL, 0, [[outcome(NO_HOLE, punching=1.0)]], log, (5, 0))
    assert result.measured == {"syns in 0-10 s": 3, "cpu percent in 0-10 s": pytest.approx(1.25)}
    assert result.why == "syns in 0-10 s: 3, more than 2"


def test_a_session_that_something_happened_to_must_have_gone_on_by_other_holes_and_soon() -> None:
    cell = Cell("", "x", happens=(Incident(Kind.CUT),), resumes=1, back_s=10)

    def why(resumed: int, back_s: float | None) -> str:
        pair = outcome(sent=b"b", received=b"a"), outcome()
        for one in pair:
            one.back_s = back_s
            one.events += [{"event": "resumed"}] * resumed
        return judge(cell, TOOL, 0, [list(pair)], PacketLog(), (0, 0)).why

    assert not why(1, 1.0)
    assert "0 holes after the first one instead of 1" in why(0, 1.0)
    assert "no bytes came" in why(1, None)
    assert "went on 11.0 s after" in why(1, 11.0)


def test_of_an_end_that_is_killed_nothing_is_expected() -> None:
    cell = Cell("", "x", happens=(Incident(Kind.KILL),), fails=Fails(NO_HOLE, "no answer"), lasts_s=60)
    assert judge(cell, TOOL, 0, [[outcome(NO_HOLE), outcome(-9)]], PacketLog(), (0, 0)).passed


def results() -> list[Result]:
    """Return one result for every cell and subject, every third a failure."""
    return [
        Result(cell.title, subject.name, 0, number % 3 > 0, "" if number % 3 else "why <&>", 0.05, (20, 30), (40, 41))
        for subject in (TOOL, BASELINE)
        for number, cell in enumerate(CELLS)
    ]


def test_the_report_has_every_cell_and_every_complaint() -> None:
    text = report.text(results())
    assert all(cell.title in text for cell in CELLS if cell.block != PAIRS)
    assert text.count("router pairs") == 2
    assert "1/1 50 ms" in text
    assert "50 ms 20+30" in text
    assert "why <&>" in text


def test_results_survive_their_way_through_a_file(tmp_path: FilePath) -> None:
    report.save(results(), tmp_path / "lab.json")
    assert report.load(tmp_path / "lab.json") == results()


def test_the_packet_log_survives_its_way_through_a_file(tmp_path: FilePath) -> None:
    log = PacketLog([record(1.5, "left", "right", parsed(segment()), "lost")])
    log.save(tmp_path / "log")
    assert PacketLog.load(tmp_path / "log").records == log.records
    assert "198.51.100.10:1111 > 198.51.100.20:2222  S" in log.text()


def test_a_report_gives_back_the_rates_of_all_cells() -> None:
    """A few titles are longer than their column."""
    summaries = report.summarise(results())
    assert report.rates(report.text(results())) == {key: (one.passed, one.runs) for key, one in summaries.items()}


def test_the_picture_has_a_square_for_every_pair_and_subject_and_bars_for_the_rest() -> None:
    root = ElementTree.fromstring(heatmap.svg(report.rates(report.text(results()))))
    kinds = Counter(one.get("class") for one in root if one.tag.endswith("rect"))
    # Each kind is in the legend, too.
    squares = sum(kinds[kind] - 1 for kind in ("always", "never", "cannot"))
    assert squares == 2 * len([cell for cell in CELLS if cell.block == PAIRS])
    assert kinds["ours"] == kinds["theirs"] == 1 + len(heatmap.BLOCKS)


def test_the_picture_of_the_documents_is_that_of_the_text_beside_it() -> None:
    text = (ROOT / "docs" / "natlab.txt").read_text()
    assert (ROOT / "docs" / "natlab.svg").read_text() == heatmap.svg(report.rates(text))
