"""Talk to one other person, without a server.

    home$    export PUNCHTUNNEL_SECRET=...      what `punchtunnel --new-secret` prints
    home$    python chat.py 203.0.113.9
    laptop$  python chat.py 198.51.100.7        with the same secret

With the same secret on both sides, you know that it is that person.  Without
one, read the verifier to each other over the phone.  Ctrl-D ends the chat.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys

import punchtunnel


async def send_lines(writer: asyncio.StreamWriter) -> None:
    """Send what is typed, line by line, until Ctrl-D."""
    typed = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    stdin, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(typed), sys.stdin)
    with contextlib.closing(stdin):
        async for line in typed:
            writer.write(line)
            await writer.drain()
        writer.write_eof()


async def main() -> None:
    """Punch a hole, and pass lines in both directions."""
    parser = argparse.ArgumentParser(description="Chat through a hole.")
    parser.add_argument("peer")
    parser.add_argument("--bind")
    parser.add_argument("--channel", default="chat")
    given = parser.parse_args()
    secret = os.environ.pop("PUNCHTUNNEL_SECRET", "")
    print(f"punching towards {given.peer} …", flush=True)
    reader, writer = await punchtunnel.connect(
        # The verifier below is what two people compare where there is no secret.
        given.peer,
        channel=given.channel,
        secret=secret,
        no_secret=not secret,
        bind=given.bind,
    )
    print(f"connected with {writer.get_extra_info('peername')}", flush=True)
    if not secret:
        print(f"verifier: {writer.get_extra_info('verifier')}", flush=True)
    typing = asyncio.create_task(send_lines(writer))
    async for line in reader:
        # Control characters of a stranger must not reach this terminal.
        text = "".join(filter(str.isprintable, line.decode(errors="replace")))
        print(f"> {text}", flush=True)
    # The other side has left, so nobody would read what is typed.
    typing.cancel()
    await asyncio.wait([typing])
    writer.close()
    await writer.wait_closed()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        # As a shell reports it.
        sys.exit(130)
    # ValueError: a line that is longer than a StreamReader's limit.
    except (punchtunnel.PunchtunnelError, ValueError) as error:
        sys.exit(f"no chat: {error}")
