"""The end of what helps the punches of a call: it does not hold up the program's loop."""

from __future__ import annotations

import asyncio

from punchtunnel.reach.gather import Gatherer


async def let_go(gathering: Gatherer) -> None:
    """End it in a thread: it waits for the routers for a moment."""
    try:
        await asyncio.to_thread(gathering.close)
    except RuntimeError:
        # No thread is to be had.
        gathering.close()
