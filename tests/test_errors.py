"""The error tree and its exit statuses are what --help promises."""

from __future__ import annotations

import signal

import pytest

from punchtunnel import errors
from punchtunnel.errors import Exit, PunchtunnelError, SignalError

STATUSES: dict[type[PunchtunnelError], int] = {
    errors.PunchtunnelError: 1,
    errors.LinkError: 1,
    errors.LostError: 1,
    errors.PeerError: 1,
    errors.RecordError: 1,
    errors.UsageError: 2,
    errors.NoHoleError: 3,
    errors.RejectedError: 4,
    errors.LocalError: 5,
    errors.TargetError: 6,
}


@pytest.mark.parametrize(("error", "status"), STATUSES.items())
def test_every_error_stands_for_one_exit_status(error: type[PunchtunnelError], status: int) -> None:
    assert error("why").status == status
    assert str(error("why")) == "why"


def test_the_table_above_names_every_error_of_the_tree() -> None:
    found = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)}
    assert found == {*STATUSES, SignalError}


def test_success_is_zero_and_no_error_stands_for_it() -> None:
    assert int(Exit.OK) == 0
    assert 0 not in STATUSES.values()


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGHUP, Exit.HANGUP), (signal.SIGINT, Exit.INTERRUPTED), (signal.SIGTERM, Exit.TERMINATED)],
)
def test_a_signal_ends_with_the_status_that_a_shell_would_report(number: int, status: Exit) -> None:
    assert SignalError(number).status == status == 128 + number


def test_a_closed_output_ends_as_sigpipe_would() -> None:
    assert Exit.BROKEN_PIPE == 128 + signal.SIGPIPE


def test_errors_of_the_peer_are_errors_of_the_link() -> None:
    assert issubclass(errors.PeerError, errors.LinkError)


def test_a_usage_error_of_the_library_is_a_value_error() -> None:
    assert issubclass(errors.UsageError, ValueError)
