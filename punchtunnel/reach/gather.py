"""What helps every punch of a run: it is made when it is first wanted, and ends with the run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from punchtunnel.punching.settings import Settings

if TYPE_CHECKING:
    from punchtunnel.punching.helper import PortMapper

# Bytes from which the mapper makes its nonces.
KEY_SIZE = 32


class Gatherer:
    """Has the mapper of a run (punching.helper.Gathering).

    Args:
        settings: What to bind.

    Attributes:
        told: What was reported, so that the next punch does not repeat it.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._mapper: PortMapper | None = None
        self.told: set[str] = set()

    def __enter__(self) -> Gatherer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def mapper(self) -> PortMapper:
        """Return the one mapper."""
        if self._mapper is None:
            # Imported late: most holes open before it is wanted.
            from punchtunnel.reach.mapping import Mapper

            self._mapper = Mapper(os.urandom(KEY_SIZE), self._settings.interface, self._settings.bind)
        return self._mapper

    def release(self) -> None:
        """Let the routers forward nothing any more; waits for nothing."""
        if self._mapper is not None:
            self._mapper.release()

    def close(self) -> None:
        """End everything, and wait for it for a moment."""
        if self._mapper is not None:
            self._mapper.close()
            self._mapper = None
