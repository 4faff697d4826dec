"""Services by their names: --to ssh=22 on one side, -L 2222=ssh or --stdio=ssh on the other."""

from __future__ import annotations

import socket

import pytest

from punchtunnel import words
from punchtunnel.errors import Exit
from punchtunnel.protocol.frames import Reason
from punchtunnel.words import services

from .ends import Lab
from .flows import echo, receive
from .test_forward import ask


def shout(sock: socket.socket) -> None:
    sock.sendall(receive(sock).upper())


def ports_of(lab: Lab, *asked: str) -> tuple[list[int], list[str]]:
    """Start both sides with two services and one target without a name; return the ports of -L in their order."""
    targets = ["--to", f"plain={lab.serve(echo)}", "--to", f"loud={lab.serve(shout)}"]
    listens = [word for one in asked for word in ("-L", one)]
    left, _ = lab.pair(listens, targets)
    # Each -L listens on the loopback of both families.
    left.wait_for("listening", 2 * len(asked))
    places = [event["place"] for event in left.find("listening")][::2]
    return [int(place.rpartition(":")[2]) for place in places], targets


def test_each_port_leads_to_the_service_that_it_names(lab: Lab) -> None:
    (loud, plain), _ = ports_of(lab, "0=loud", "0=plain")
    assert ask(loud, b"which?") == b"WHICH?"
    assert ask(plain, b"which?") == b"which?"


def test_what_has_no_name_leads_to_the_target_without_one_beside_others(lab: Lab) -> None:
    targets = ["--to", str(lab.serve(echo)), "--to", f"loud={lab.serve(shout)}"]
    left, right = lab.pair(["-L", "0", "-L", "0=loud"], targets)
    left.wait_for("listening", 4)
    nameless, named = [int(one["place"].rpartition(":")[2]) for one in left.find("listening")][::2]
    assert ask(nameless, b"which?") == b"which?"
    assert ask(named, b"which?") == b"WHICH?"
    assert "for loud" in right.wait_for("stream_opened", 2)["what"]
    assert "a local client, for loud" in left.wait_for("stream_opened", 2)["what"]


@pytest.mark.parametrize(
    ("asked", "named", "there", "here"),
    [
        ("0=web", "ssh=", services.no_such_there("web"), services.no_such_here("web")),
        ("0", "ssh=", words.reset_reason(Reason.NO_SUCH_SERVICE), services.no_such_here("")),
        ("0=ssh", "", services.no_such_there("ssh"), services.no_such_here("ssh")),
    ],
)
def test_what_no_to_names_is_refused_by_name_on_both_sides_and_the_link_lives_on(
    lab: Lab, asked: str, named: str, there: str, here: str
) -> None:
    left, right = lab.pair(["-L", asked], ["--to", f"{named}{lab.serve(echo)}"])
    for count in (1, 2):
        client = lab.connect(left.port)
        with pytest.raises(ConnectionResetError):
            receive(client)
        assert left.wait_for("target_refused", count)["reason"] == there
        assert right.wait_for("target_refused", count)["reason"] == here


def test_stdio_asks_for_a_service_as_sshs_proxycommand_does(lab: Lab) -> None:
    targets = ["--to", f"plain={lab.serve(echo)}", "--to", f"loud={lab.serve(shout)}"]
    left, right = lab.pair(["--stdio=loud"], targets)
    left.send(b"through a pipe")
    left.send_eof()
    assert left.receive() == b"THROUGH A PIPE"
    assert (left.status(), right.status()) == (0, 0)


def test_stdio_that_asks_for_what_is_not_there_ends_with_the_status_of_a_refused_target(lab: Lab) -> None:
    left, right = lab.pair(["--stdio=web"], ["--to", f"ssh={lab.serve(echo)}"])
    assert (left.status(), right.status()) == (Exit.TARGET, Exit.TARGET)
    assert left.reason == services.no_such_there("web")
    assert right.reason == services.no_such_here("web")


@pytest.mark.parametrize("other", [["--stdio"], ["-L", "0"]])
def test_a_peer_without_to_has_no_services(lab: Lab, other: list[str]) -> None:
    """The leader of two stdios would have got a pipe to the peer's terminal in place of ssh."""
    left, right = lab.pair(["--stdio=ssh"], other)
    assert left.status() == Exit.TARGET
    assert left.reason == services.PEER_HAS_NONE.format(name="ssh")
    assert right.status() != 0
