"""Serve a directory over HTTP from behind a router, to one other machine.

    home$    export PUNCHTUNNEL_SECRET=...      what `punchtunnel --new-secret` prints, and the same there
    home$    python http_server.py 203.0.113.9 public
    laptop$  punchtunnel 198.51.100.7 -L 8080        and open http://localhost:8080/

Every connection of the browser is a stream of the one hole.  The server listens
on no port, the laptop only on its own loopback address, and no other machine
can reach the server, or pretend to be the laptop: without a secret, another
machine is not served.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import mimetypes
import os
import sys
from http import HTTPStatus
from pathlib import Path
from urllib.parse import unquote, urlsplit

import punchtunnel


def find(root: Path, target: str) -> Path | None:
    """Return the file that a request asks for; None if there is none below `root`."""
    try:
        path = (root / unquote(urlsplit(target).path).lstrip("/")).resolve()
    except RuntimeError:
        # A symbolic link that leads to itself.
        return None
    if path.is_dir():
        path /= "index.html"
    return path if path.is_relative_to(root) and path.is_file() else None


async def answer(root: Path, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the one request of a stream.  A client that goes away ends its own stream only."""
    try:
        request = await reader.readuntil(b"\r\n\r\n")
        method, target, _ = request.split(b"\r\n")[0].decode("latin-1").split(" ", 2)
        file = find(root, target) if method == "GET" else None
        status = HTTPStatus.OK if file else HTTPStatus.NOT_FOUND
        body = file.read_bytes() if file else b"not found\n"
        kind = (mimetypes.guess_type(file)[0] if file else None) or "text/plain"
        head = f"HTTP/1.1 {status} {status.phrase}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        writer.write(f"{head}Connection: close\r\n\r\n".encode() + body)
        writer.write_eof()
        await reader.read()
        writer.close()
        await writer.wait_closed()
    except (punchtunnel.LinkError, OSError, EOFError, ValueError, asyncio.LimitOverrunError):
        writer.close()


async def main() -> None:
    """Punch, serve until the peer ends the tunnel, and punch again."""
    parser = argparse.ArgumentParser(description="Serve a directory through a hole.")
    parser.add_argument("peer")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bind")
    parser.add_argument("--channel", default="")
    parser.add_argument("--once", action="store_true", help="end with the first tunnel")
    given = parser.parse_args()
    root = given.folder.resolve()
    options = {"channel": given.channel, "bind": given.bind, "secret": os.environ.pop("PUNCHTUNNEL_SECRET", "")}
    async with contextlib.aclosing(punchtunnel.open_tunnels(given.peer, **options)) as tunnels:
        async for tunnel in tunnels:
            print(f"serving {root} to {tunnel.remote}", flush=True)
            try:
                async with asyncio.TaskGroup() as streams:
                    async for reader, writer in tunnel:
                        streams.create_task(answer(root, reader, writer))
            except* punchtunnel.LinkError as group:
                print(f"punching again: {group.exceptions[0]}", flush=True)
            if given.once:
                return


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except* punchtunnel.PunchtunnelError as errors:
        sys.exit(f"not served: {errors.exceptions[0]}")
    except* KeyboardInterrupt:
        pass
