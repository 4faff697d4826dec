"""Changes of addresses and routes are told as they happen, in a network namespace of the test's own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# In a namespace without a way out: nothing of this machine is changed.
PLAY = """
import select, subprocess
from punchtunnel.system.changes import Changes

def is_told():
    return bool(select.select([changes], [], [], 10)[0])

changes = Changes()
for change in ("link set lo up", "address add 192.0.2.1/32 dev lo", "route add 198.51.100.0/24 dev lo",
               "address del 192.0.2.1/32 dev lo"):
    changes.drain()
    assert not select.select([changes], [], [], 0)[0]
    subprocess.run(["ip", *change.split()], check=True)
    assert is_told(), change
changes.close()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace needs root")
def test_every_change_is_told() -> None:
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", PLAY], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
