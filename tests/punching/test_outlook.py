"""What is told while a punch waits: what the dials meet, and at once what is wrong on this machine itself."""

from __future__ import annotations

import socket
from dataclasses import replace
from typing import Any

import pytest

from punchtunnel.punching import outlook
from punchtunnel.punching.candidates import Candidate, Fate, Kind
from punchtunnel.punching.hole import Counts
from punchtunnel.punching.outlook import Outlook
from punchtunnel.punching.settings import Settings
from punchtunnel.reporting.events import Event, Waiting, Warned
from punchtunnel.system.addresses import Address

PEER = Address(socket.AF_INET, "203.0.113.9")


class Punch:
    """A punch whose dials have met these fates, and what it has told."""

    def __init__(
        self, *fates: Fate, settings: Settings | None = None, addresses: tuple[Address, ...] = (PEER,)
    ) -> None:
        self.told: list[Event] = []
        self.failed: tuple[str, ...] = ()
        self.counts = Counts(dials=len(fates))
        self.counts.failed.update(fate for fate in fates if fate is not Fate.PENDING)
        self.evidences = 0
        self._fates = fates
        self.addresses, self.no_nat64 = addresses, False
        itself: Any = self
        self.outlook = Outlook(
            settings or Settings([PEER.host]), self.counts, itself, itself, itself, None, self.told.append
        )

    # ---- of the dialler

    def evidence(self) -> dict[Candidate, Fate]:
        self.evidences += 1
        return {Candidate(Kind.SAME_PORT, PEER, port, port): fate for port, fate in enumerate(self._fates, 20000)}

    def refusing(self) -> dict[Address, int]:
        return {}

    def tell(self, waited: float = 5.0, *, rejected: bool = False) -> str:
        """Return what is met after so many seconds."""
        self.outlook.tell(waited, early=waited < 1, rejected=rejected)
        last = self.told[-1]
        assert isinstance(last, Waiting)
        return last.met

    @property
    def warnings(self) -> list[str]:
        return [one.reason for one in self.told if isinstance(one, Warned)]


@pytest.fixture(autouse=True)
def addresses(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses of this machine, which a test may change."""
    own = ["127.0.0.1", "192.0.2.7"]
    monkeypatch.setattr(outlook, "own_addresses", lambda: own)
    return own


@pytest.mark.parametrize(
    ("fates", "met"),
    [
        ([Fate.REFUSED, Fate.REFUSED, Fate.UNTRIED], "refused"),
        ([Fate.REFUSED, Fate.PENDING], "partly_refused"),
        ([Fate.PENDING, Fate.SILENT], "silent"),
        ([Fate.FORBIDDEN] * 2, "forbidden"),
        ([Fate.CAPTURED] * 2, "mute"),
    ],
)
def test_what_is_met_is_the_cause_that_the_end_would_have(fates: list[Fate], met: str) -> None:
    punch = Punch(*fates)
    assert punch.tell() == met
    assert not punch.warnings


def test_the_first_dials_wait_for_no_look_at_them() -> None:
    punch = Punch(Fate.PENDING, Fate.PENDING)
    assert punch.tell(0.0) == ""
    assert not punch.evidences
    assert Punch(Fate.REFUSED).tell(0.0) == "refused"


def test_a_peer_that_was_met_and_rejected_is_what_is_met() -> None:
    """It read "all refused" below the news that the peer has another secret."""
    assert Punch(Fate.REFUSED).tell(rejected=True) == "rejected"


def test_no_route_is_said_in_the_first_second_and_once() -> None:
    """Two minutes passed before a word about it."""
    punch = Punch(Fate.UNREACHABLE, Fate.UNREACHABLE)
    assert [punch.tell(waited) for waited in (0.0, 1.0, 2.0)] == ["unreachable"] * 3
    (warning,) = punch.warnings
    assert warning.startswith("there is no route to 203.0.113.9 from here: ")
    assert isinstance(punch.told[0], Warned)


@pytest.mark.parametrize("own", [[], ["127.0.0.1", "::1"]])
def test_no_network_at_all_is_told_as_such(own: list[str], addresses: list[str]) -> None:
    addresses[:] = own
    punch = Punch(Fate.UNREACHABLE)
    assert punch.tell(0.0) == "unreachable"
    (warning,) = punch.warnings
    assert warning.startswith("this machine is in no network: ")


def test_a_name_that_cannot_be_looked_up_without_a_network_is_told_why(addresses: list[str]) -> None:
    punch = Punch(addresses=())
    assert punch.tell() == ""
    assert not punch.warnings
    punch.failed = ("'home' cannot be resolved",)
    assert punch.tell() == ""
    assert not punch.warnings
    addresses[:] = ["127.0.0.1", "fe80::1%eth0"]
    assert punch.tell() == ""
    assert not punch.warnings
    addresses[:] = ["127.0.0.1"]
    assert punch.tell() == ""
    assert len(punch.warnings) == 1


def test_a_session_that_seeks_another_hole_warns_of_nothing() -> None:
    settings = replace(Settings([PEER.host]), resumed=b"session")
    punch = Punch(Fate.UNREACHABLE, settings=settings)
    assert punch.tell() == "unreachable"
    assert not punch.warnings
