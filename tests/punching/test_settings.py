"""What a punch is told is checked once, for the command line and for programs."""

from __future__ import annotations

import socket
import sys
from typing import Any

import pytest

from punchtunnel.errors import UsageError
from punchtunnel.protocol.hello import NO_TRAITS, Role, Trait
from punchtunnel.punching import settings as settings_module
from punchtunnel.punching.settings import LAST_WAIT, LONGEST_EXTENSION, SHORTEST_WAIT, Settings, settings_from

GIVEN: dict[str, Any] = {
    "peers": ["[2001:db8::7]", "home"],
    "channel": "büro",
    "wait": 5.0,
    "bind": None,
    "family": 0,
    "clock_offset": 1.0,
    "role": Role.STDIO,
    "traits": NO_TRAITS,
    "secret": b"tiger",
}


def test_what_is_right_is_kept_in_its_shortest_form() -> None:
    settings = settings_from(**GIVEN)
    assert settings == Settings(
        ["2001:db8::7", "home"], "büro", 5.0, role=Role.STDIO, clock_offset=1.0, secret=b"tiger"
    )
    assert (settings.sealed, settings.proves) == (True, True)


@pytest.mark.parametrize(
    ("changes", "trusts", "serves"),
    [
        ({}, True, False),
        ({"role": Role.TO}, True, True),
        ({"role": Role.LISTEN | Role.TO}, True, True),
        ({"role": Role.TO, "traits": Trait.PLAIN}, True, True),
        ({"role": Role.TO, "traits": Trait.CHECK}, True, False),
        ({"role": Role.TO, "secret": b"tiger"}, False, False),
        ({"role": Role.LISTEN}, True, False),
        ({"role": Role.TO, "peers": ["127.0.0.1"]}, False, False),
        ({"role": Role.TO, "peers": ["127.3.2.1", "127.0.0.2"], "bind": "127.0.0.9"}, False, False),
        ({"role": Role.TO, "peers": ["127.0.0.1", "198.51.100.7"]}, True, True),
        ({"role": Role.TO, "peers": ["localhost"]}, True, True),
    ],
)
def test_without_a_secret_anyone_at_the_peers_address_is_trusted_unless_it_is_this_machine(
    changes: dict[str, Any], trusts: bool, serves: bool
) -> None:
    settings = settings_from(**(GIVEN | {"secret": b"", "peers": ["198.51.100.7"]} | changes))
    assert (settings.trusts_anyone, settings.serves_anyone) == (trusts, serves)


@pytest.mark.parametrize(
    ("changes", "family"),
    [
        ({}, socket.AF_UNSPEC),
        ({"family": 6}, socket.AF_INET6),
        ({"family": 4}, socket.AF_INET),
        ({"bind": "198.51.100.1"}, socket.AF_INET),
        ({"bind": "[::1]"}, socket.AF_INET6),
        ({"bind": "::1", "family": 6}, socket.AF_INET6),
        ({"peers": []}, socket.AF_UNSPEC),
    ],
)
def test_the_family_is_what_is_asked_for_or_what_is_bound(
    changes: dict[str, Any], family: socket.AddressFamily
) -> None:
    assert settings_from(**GIVEN | changes).family == family


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        *(("a peer", {"peers": ["home", peer]}) for peer in (None, ["x"], 5)),
        *((name, {name: [5]}) for name in ("channel", "wait", "bind", "family", "clock_offset", "secret")),
        *((name, {name: None}) for name in ("channel", "wait", "family", "clock_offset")),
        ("wait", {"wait": "5"}),
    ],
)
def test_a_wrong_type_is_a_usage_error_that_names_no_value(name: str, changes: dict[str, Any]) -> None:
    """They raised AttributeError and TypeError; a value may be a secret."""
    with pytest.raises(UsageError, match=f"^{name} cannot be of type (NoneType|list|int|str)$"):
        settings_from(**GIVEN | changes)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"family": 5}, "family is 0, 4 or 6"),
        ({"bind": "nosuch0"}, "neither an IPv4 or IPv6 address nor an interface"),
        ({"bind": "::1", "family": 4}, "not of the family"),
        ({"bind": "198.51.100.1", "family": 6}, "not of the family"),
        ({"peers": ["home", "256.1.1.1"]}, "neither an address nor a host name"),
        ({"peers": ["::1"], "family": 4}, "no PEER has an address"),
        ({"peers": ["198.51.100.7"], "family": 6}, "no PEER has an address"),
        ({"peers": ["198.51.100.7"], "bind": "::1"}, "no PEER has an address"),
        ({"wait": -1.0}, "cannot wait"),
        ({"wait": float("inf")}, "cannot wait"),
        ({"wait": float("nan")}, "cannot wait"),
        ({"channel": "\udcff"}, "not valid UTF-8"),
        ({"traits": Trait.PLAIN}, "plain contradicts a secret"),
    ],
)
def test_a_mistake_is_told(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        settings_from(**GIVEN | changes)


def test_a_plain_link_is_not_sealed_and_without_a_secret_nothing_is_proved() -> None:
    plain = settings_from(**GIVEN | {"traits": Trait.PLAIN, "secret": b""})
    assert (plain.sealed, plain.proves) == (False, False)
    assert (settings_from(**GIVEN | {"secret": b""}).sealed, settings_from(**GIVEN | {"secret": b""}).proves) == (
        True,
        False,
    )


@pytest.mark.parametrize(
    ("wait", "spent", "left"),
    [
        (120.0, 20.04, 100.0),
        (3.0, 2.5, SHORTEST_WAIT),
        (3.0, 12.0, SHORTEST_WAIT),
        (3.0, 3.0 + LONGEST_EXTENSION, LAST_WAIT),
        (0.0, 1e6, 0.0),
    ],
    ids=["most of it", "a second at least", "also a little later", "but not for ever", "for ever"],
)
def test_a_check_takes_nothing_from_the_wait_but_time(wait: float, spent: float, left: float) -> None:
    """A peer that came with -z again and again kept a side punching beyond its -w."""
    assert Settings(["home"], wait=wait).after(spent).wait == left


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux binds to interfaces")
def test_bind_takes_an_interface_of_which_any_address_may_be_used() -> None:
    settings = settings_from(**GIVEN | {"bind": "lo"})
    assert (settings.interface, settings.bind, settings.family) == ("lo", None, socket.AF_UNSPEC)


@pytest.mark.parametrize(("leads", "interface"), [(True, "eth7"), (False, "")])
def test_an_address_is_bound_with_its_interface_if_that_leads_anywhere(
    leads: bool, interface: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a VPN that had the default route, SYNs left by the VPN with the other address."""
    monkeypatch.setattr(settings_module, "interface_of", {"192.0.2.7": "eth7"}.get)
    monkeypatch.setattr(settings_module, "source_towards", lambda *_: "192.0.2.7" if leads else None)
    settings = settings_from(**GIVEN | {"bind": "192.0.2.7"})
    assert (settings.interface, settings.bind, settings.family) == (interface, "192.0.2.7", socket.AF_INET)
