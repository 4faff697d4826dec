"""What helps the punches of a run: made late, kept for all of them, and gone at its end."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from punchtunnel.protocol.hello import Role, Trait
from punchtunnel.punching.helper import RouterNews, Way
from punchtunnel.punching.settings import Settings
from punchtunnel.reach import gather
from punchtunnel.reach.gather import Gatherer
from punchtunnel.reach.memory import Memory

HOSTS = ("203.0.113.9", "2001:db8::7")
WAY = Way("same port", HOSTS[1], 16049, 16049)
SETTINGS = Settings(["home.example"], "büro", secret=b"tiger", maps=True, remembers=True)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    return tmp_path / "state"


def remember(settings: Settings) -> None:
    with Gatherer(settings, lambda: 1000.0) as gatherer:
        gatherer.remember({"home.example": HOSTS}, WAY)


def recalled(settings: Settings, now: float = 2000.0) -> dict[str, list[str]]:
    with Gatherer(settings, lambda: now) as gatherer:
        return {name: list(hosts) for name, hosts in gatherer.recall().items()}


def test_what_worked_is_known_to_the_next_run_the_way_that_worked_first() -> None:
    remember(SETTINGS)
    assert recalled(SETTINGS) == {"home.example": [HOSTS[1], HOSTS[0]]}
    assert recalled(replace(SETTINGS, channel="another")) == {}
    assert recalled(SETTINGS, now=1e9) == {}, "it is too old"


def test_a_way_that_fails_twice_is_no_better_than_the_others() -> None:
    remember(SETTINGS)
    for _ in range(2):
        with Gatherer(SETTINGS, lambda: 1500.0) as gatherer:
            gatherer.failed()
    assert recalled(SETTINGS) == {"home.example": list(HOSTS)}


@pytest.mark.parametrize(
    "changes",
    [
        {"remembers": False},
        # Whoever has the address now would be taken for the peer.
        {"secret": b""},
        {"traits": Trait.PLAIN},
        # There is nothing to look up.
        {"peers": ["203.0.113.9", "2001:db8::7"]},
    ],
    ids=str,
)
def test_what_may_not_be_used_is_neither_read_nor_written(changes: dict[str, object], folder: Path) -> None:
    settings = replace(SETTINGS, **changes)  # type: ignore[arg-type]
    remember(settings)
    with Gatherer(settings) as gatherer:
        gatherer.failed()
    assert not folder.exists()
    remember(SETTINGS)
    assert recalled(settings) == {}


def test_the_mapper_is_one_for_the_run_and_has_a_key_that_outlives_it(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = []

    class Mapper:
        def __init__(self, key: bytes, interface: str, bind: str | None) -> None:
            keys.append(key)
            assert (interface, bind) == ("eth0", None)
            self.closed = False

        def heard(self) -> RouterNews:
            return RouterNews(silent=True)

        def close(self) -> None:
            self.closed = True

    monkeypatch.setattr("punchtunnel.reach.mapping.Mapper", Mapper)
    settings = replace(SETTINGS, interface="eth0")
    with Gatherer(settings) as gatherer:
        assert gatherer.heard() is None
        mapper = gatherer.mapper()
        assert gatherer.mapper() is mapper
        assert gatherer.heard() == RouterNews(silent=True)
    assert isinstance(mapper, Mapper)
    assert mapper.closed
    with Gatherer(settings) as gatherer:
        gatherer.mapper()
    with Gatherer(replace(settings, remembers=False)) as gatherer:
        gatherer.mapper()
    assert keys[0] == keys[1] != keys[2]


def test_processes_of_one_user_have_names_of_their_own_at_a_relay_and_keep_them_when_started_again() -> None:
    """Two terminals of one user with one role never met."""
    settings = replace(SETTINGS, channel=f"of test {os.getpid()}")
    with Gatherer(settings) as one:
        first = one._relay_key()
        assert one._relay_key() == first
        with Gatherer(settings) as other:
            second = other._relay_key()
        with Gatherer(settings) as other:
            assert other._relay_key() == second != first
        with Gatherer(replace(settings, role=Role.TO)) as other:
            assert other._relay_key() == first
    with Gatherer(settings) as one:
        assert one._relay_key() == first


def test_storage_that_stands_still_has_nothing_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    remember(SETTINGS)
    goes_on = threading.Event()
    with monkeypatch.context() as patched:
        patched.setattr(gather, "READING", 0.0)
        patched.setattr(Memory, "recall", lambda *_: goes_on.wait(60))
        assert recalled(SETTINGS) == {}
        goes_on.set()
    assert recalled(SETTINGS)


def test_storage_that_stands_still_holds_nothing_up_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "WRITING", 0.0)
    goes_on = threading.Event()
    monkeypatch.setattr(Memory, "remember", lambda *_: goes_on.wait(60))
    gatherer = Gatherer(SETTINGS)
    for _ in range(3):
        gatherer.remember({"home.example": HOSTS}, WAY)
    gatherer.close()
    assert [thread.name for thread in threading.enumerate()].count("memory") == 1, "a service has many holes"
    goes_on.set()
