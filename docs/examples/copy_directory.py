"""Copy a directory to a machine behind another router, with tar at both ends.

    home$    export PUNCHTUNNEL_SECRET=...      what `punchtunnel --new-secret` prints
    home$    python copy_directory.py send 203.0.113.9 photos
    laptop$  python copy_directory.py receive 198.51.100.7 photos        with the same secret

Without a secret it warns: the far end is whoever answers there.  The exit status is 0
only if tar succeeded at both ends: a copy that was cut has failed.

To try it on one machine: --bind 127.0.0.1 with peer 127.0.0.2, and the other
way round.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import subprocess
import sys

import punchtunnel

PIECE = 1 << 18


async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Pass bytes on until the source ends; a slow sink slows the source down."""
    while piece := await source.read(PIECE):
        sink.write(piece)
        await sink.drain()


async def send(folder: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send what tar packs, and wait for the other side's EOF, which comes when it has unpacked."""
    tar = await asyncio.create_subprocess_exec("tar", "-C", folder, "-c", ".", stdout=subprocess.PIPE)
    assert tar.stdout is not None
    await pump(tar.stdout, writer)
    if await tar.wait():
        sys.exit("tar could not pack everything")
    writer.write_eof()
    await reader.read()


async def receive(folder: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Unpack what comes.  Where the link is cut, `reader` raises instead of ending."""
    os.makedirs(folder, exist_ok=True)
    tar = await asyncio.create_subprocess_exec("tar", "-C", folder, "-x", stdin=subprocess.PIPE)
    assert tar.stdin is not None
    # A tar that has ended has said why on stderr.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        await pump(reader, tar.stdin)
    tar.stdin.close()
    if await tar.wait():
        sys.exit("tar could not unpack everything")


async def main() -> None:
    """Run one of the two sides."""
    parser = argparse.ArgumentParser(description="Copy a directory through a hole.")
    parser.add_argument("action", choices=["send", "receive"])
    parser.add_argument("peer")
    parser.add_argument("folder")
    parser.add_argument("--bind")
    parser.add_argument("--channel", default="copy")
    given = parser.parse_args()
    secret = os.environ.pop("PUNCHTUNNEL_SECRET", "")
    reader, writer = await punchtunnel.connect(given.peer, channel=given.channel, secret=secret, bind=given.bind)
    action = send if given.action == "send" else receive
    await action(given.folder, reader, writer)
    writer.close()
    # Returns when the other side has taken everything.
    await writer.wait_closed()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except punchtunnel.PunchtunnelError as error:
        sys.exit(f"not copied: {error}")
