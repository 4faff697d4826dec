"""Services on the command line: which name goes with which port, and what is no name."""

from __future__ import annotations

import pytest

from punchtunnel.address import AnyPlace, Place, UnixPlace
from punchtunnel.cli.options import Options
from punchtunnel.cli.values import listens_of, service_of, targets_of
from punchtunnel.errors import UsageError


@pytest.mark.parametrize(
    ("text", "place", "service"),
    [
        ("2222", Place("localhost", 2222), ""),
        ("2222=ssh", Place("localhost", 2222), "ssh"),
        ("127.0.0.1:2222=ssh", Place("127.0.0.1", 2222), "ssh"),
        (":8080=web", Place("*", 8080), "web"),
        ("unix:/run/a.sock=db", UnixPlace("/run/a.sock"), "db"),
        ("unix:/run/pg=15.sock=", UnixPlace("/run/pg=15.sock"), ""),
        # A path may have a sign of its own.
        ("unix:/run/a=b/sock", UnixPlace("/run/a=b/sock"), ""),
    ],
)
def test_a_port_leads_to_the_service_after_the_sign(text: str, place: AnyPlace, service: str) -> None:
    assert listens_of(Options(listen=[text])) == [(place, service)]


@pytest.mark.parametrize(
    ("to", "targets"),
    [
        (["22"], {"": Place("localhost", 22)}),
        (["ssh=22", "web=nas:8080"], {"ssh": Place("localhost", 22), "web": Place("nas", 8080)}),
        (["22", "web=[::1]:80"], {"": Place("localhost", 22), "web": Place("::1", 80)}),
        (["db=unix:/run/pg=15.sock"], {"db": UnixPlace("/run/pg=15.sock")}),
        (["unix:/run/pg=15.sock"], {"": UnixPlace("/run/pg=15.sock")}),
    ],
)
def test_a_target_has_the_name_before_the_sign(to: list[str], targets: dict[str, AnyPlace]) -> None:
    assert targets_of(Options(to=to)) == targets


@pytest.mark.parametrize(
    ("to", "why"),
    [
        (["22", "80"], "name the services"),
        (["ssh=22", "ssh=2222"], "twice for ssh"),
        (["=22"], "'' is no name of a service"),
        (["22=22"], "'22' is no name of a service"),
        (["a b=22"], "'a b' is no name of a service"),
        (["a" * 64 + "=22"], "up to 63 letters, digits, '.', _ and -, with at least one letter"),
        (["nas"], "--to 'nas' does not end in a port number, as in --to 22 or --to nas:22"),
        (["ssh="], "--to 'ssh=' does not end in a port number"),
        (["ssh=22=33"], "does not end in a port number"),
    ],
)
def test_targets_that_cannot_be_told_apart_are_told(to: list[str], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        targets_of(Options(to=to))


@pytest.mark.parametrize("text", ["2222=", "2222=22", "2222=nas:22", "2222=localhost:22"])
def test_a_port_of_the_far_side_cannot_be_chosen_here(text: str) -> None:
    with pytest.raises(UsageError, match=r"is no name of a service; -L 2222=ssh asks for what `--to ssh=22` names"):
        listens_of(Options(listen=[text]))


@pytest.mark.parametrize("text", ["0x10", "=ssh", "nas:"])
def test_a_listen_without_a_port_is_shown_as_it_was_typed_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match=f"-L '{text}' does not end in a port number, as in -L 2222"):
        listens_of(Options(listen=[text]))


@pytest.mark.parametrize("name", ["22", ""])
def test_stdio_of_nothing_is_a_mistake_as_a_variable_that_is_not_set_makes_it(name: str) -> None:
    with pytest.raises(UsageError, match=f"--stdio={name}: that is no name of a service"):
        service_of(Options(service=name))


def test_stdio_has_a_name_or_none() -> None:
    assert service_of(Options(stdio=True)) == ""
    assert service_of(Options(service="ssh")) == "ssh"
