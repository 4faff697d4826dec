"""Signals are taken where a loop can stop, and handlers are given back."""

from __future__ import annotations

import os
import select
import signal
import threading

import pytest

from punchtunnel.errors import SignalError
from punchtunnel.system import signals as signals_module
from punchtunnel.system.signals import Signals, Wake


def readable(signals: Signals) -> bool:
    return bool(select.select([signals], [], [], 0)[0])


def test_signal_makes_the_descriptor_readable_until_it_is_taken() -> None:
    with Signals() as signals:
        assert not readable(signals)
        os.kill(os.getpid(), signal.SIGTERM)
        assert readable(signals)
        assert signals.take() == signal.SIGTERM
        assert signals.take() is None
        assert not readable(signals)


def test_signals_are_taken_in_the_order_in_which_they_came() -> None:
    with Signals() as signals:
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGHUP):
            signal.raise_signal(number)
        assert [signals.take() for _ in range(4)] == [signal.SIGHUP, signal.SIGINT, signal.SIGHUP, None]


def test_check_raises_with_the_status_of_a_shell() -> None:
    with Signals() as signals:
        signals.check()
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(SignalError) as caught:
            signals.check()
    assert caught.value.status == 130


def test_sleep_ends_early_for_a_signal() -> None:
    with Signals() as signals:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(SignalError):
            signals.sleep(60)


def test_a_service_that_has_left_its_terminal_takes_a_hang_up_for_try_now(monkeypatch: pytest.MonkeyPatch) -> None:
    has_terminal = True
    monkeypatch.setattr(signals_module, "_has_terminal", lambda: has_terminal)
    with Signals(service=True) as signals:
        assert signals.means_try_now(signal.SIGHUP)
        has_terminal = False
        assert not signals.means_try_now(signal.SIGHUP), "its window was closed"
        signals.forget_terminal()
        assert signals.means_try_now(signal.SIGHUP)
        assert not signals.means_try_now(signal.SIGTERM)


def test_handlers_are_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Signals():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_signal_that_was_ignored_from_the_start_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals() as signals:
            signal.raise_signal(signal.SIGHUP)
            assert signals.take() is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_hang_up_asks_a_service_to_try_now_and_nothing_else_does() -> None:
    with Signals(service=True) as signals:
        signal.raise_signal(signal.SIGHUP)
        assert signals.check()
        assert not signals.check()
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(SignalError) as caught:
            signals.check()
    assert caught.value.status == 143


def test_hang_up_cuts_a_sleep_of_a_service_short() -> None:
    with Signals(service=True) as signals:
        signal.raise_signal(signal.SIGHUP)
        signals.sleep(60)


def test_another_thread_can_wake_a_loop() -> None:
    with Wake() as wake:
        thread = threading.Thread(target=wake.note, args=(signal.SIGINT,))
        thread.start()
        with pytest.raises(SignalError):
            wake.sleep(60)
        thread.join()
