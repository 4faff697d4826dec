"""What works beside a punch and brings it something: today the resolver.

A mapper of ports, a meeting place and a memory of earlier holes are to be more of the kind.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

News = TypeVar("News", covariant=True)


class Helper(Protocol[News]):
    """Works in a thread, or with a socket that never blocks, and never holds up the loop of the punch."""

    def fileno(self) -> int:
        """Return the descriptor that turns readable when there is something to take."""

    def start(self) -> None:
        """Begin to work, unless it does already."""

    def take(self) -> News:
        """Return what made `fileno` readable."""

    def close(self) -> None:
        """Close the descriptors, and wait for nothing."""
