"""What one process has claimed, no other gets before it has ended."""

from __future__ import annotations

import errno
import os
import uuid

import pytest

from punchtunnel.system.claim import claim, holder


def test_a_claim_is_for_one_and_ends_with_its_socket() -> None:
    what = str(uuid.uuid4())
    assert holder(what) is None
    first = claim(what)
    assert first is not None
    with first:
        with pytest.raises(OSError, match="Address already in use") as caught:
            claim(what)
        assert caught.value.errno == errno.EADDRINUSE
        assert holder(what) == os.getpid()
    again = claim(what)
    assert again is not None
    again.close()
