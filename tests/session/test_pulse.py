"""By the clock of a session: when the other side must have noticed what this one knows."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from punchtunnel import words
from punchtunnel.errors import LinkError
from punchtunnel.session import pulse as module
from punchtunnel.session.pulse import Pulse
from punchtunnel.session.silence import HEARTBEAT, LOST_AFTER
from punchtunnel.system.loop import Timers


@dataclass
class Host:
    """A session whose hole was of an address that this machine may have given up."""

    timers: Timers
    link: Any
    died: list[str] = field(default_factory=list)

    def die(self, error: LinkError) -> None:
        self.died.append(str(error))

    def cut_rest(self, error: LinkError) -> None: ...

    def end_idle(self, error: LinkError) -> None: ...


@pytest.mark.parametrize("silent_s", [0.0, 20.0, 300.0])
def test_a_side_that_knows_first_leaves_the_other_the_time_to_notice(
    monkeypatch: pytest.MonkeyPatch, silent_s: float
) -> None:
    """A hole that was given up 5 s after a change was sought until 65 s, and the path came back after 70."""
    monkeypatch.setattr(module, "is_own_literal", lambda _: False)

    async def case() -> None:
        carrier = SimpleNamespace(local_host="192.0.2.1", heard_at=time.monotonic() - silent_s)
        host = Host(Timers(asyncio.get_running_loop()), SimpleNamespace(carrier=carrier, ping=lambda: 1))
        pulse = Pulse(host, 0.0, patient=True, resumes=True)
        pulse.start(cast("Any", carrier))
        # What the kernel tells, it tells both.
        assert pulse.until_noticed == 0
        pulse.ask_now(path_only=True)
        assert host.died == [words.ADDRESS_GONE]
        assert pulse.until_noticed == pytest.approx(max(HEARTBEAT + LOST_AFTER - silent_s, 0), abs=5)
        host.timers.cancel()

    asyncio.run(case())
