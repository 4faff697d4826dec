"""Show the main job on one machine: a file across a hole with its hash, and HTTP through -L and --to.

Two ends run as two commands would on two machines; the hole between them is
punched over loopback.  Everything this starts is ended and removed again.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

SIZE = 64 * 1024 * 1024
TOOL = [sys.executable, "-m", "punchtunnel"]
HOME = ["127.0.0.2", "--bind", "127.0.0.1"]
LAPTOP = ["127.0.0.1", "--bind", "127.0.0.2"]
# So that a demo meets neither a real tunnel of this machine nor another demo.
CHANNEL = ["--channel", f"demo {os.getpid()}"]


def main() -> None:
    """Run both parts; a failure shows and exits with 1."""
    with tempfile.TemporaryDirectory(prefix="punchtunnel-demo-") as folder:
        send_file(Path(folder))
        fetch_page(Path(folder))


def send_file(folder: Path) -> None:
    """Send a file from one end to the other and compare the hashes."""
    source, copy = folder / "dump.sql", folder / "copy.sql"
    source.write_bytes(os.urandom(SIZE))
    print("1. a file, as between two machines")
    print(f"   home$   punchtunnel {HOME[0]} < dump.sql        ({SIZE >> 20} MiB of random bytes)")
    print(f"   laptop$ punchtunnel {LAPTOP[0]} > copy.sql")
    began = time.monotonic()
    with source.open("rb") as given, copy.open("wb") as taken:
        home = subprocess.Popen([*TOOL, *HOME, *CHANNEL], stdin=given, stdout=subprocess.DEVNULL)
        laptop = subprocess.Popen([*TOOL, *LAPTOP, *CHANNEL], stdin=subprocess.DEVNULL, stdout=taken)
        codes = home.wait(60), laptop.wait(60)
    seconds = time.monotonic() - began
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (source, copy)]
    print(f"   sha256 home   {hashes[0]}\n   sha256 laptop {hashes[1]}")
    print(f"   exit statuses {codes[0]} and {codes[1]}, {seconds:.1f} s with start-up\n")
    if codes != (0, 0) or hashes[0] != hashes[1]:
        sys.exit("the file did not arrive")


def fetch_page(folder: Path) -> None:
    """Fetch a page from a web server on one end through a port on the other."""
    (folder / "index.html").write_text("hello from the machine behind the other router\n")
    with web_server(folder) as port:
        print("2. any TCP program, through a port")
        print(f"   home$   punchtunnel {HOME[0]} --to {port}          (a web server)")
        print(f"   laptop$ punchtunnel {LAPTOP[0]} -L 0")
        home = subprocess.Popen([*TOOL, *HOME, *CHANNEL, "-q", "--to", str(port)])
        laptop = subprocess.Popen([*TOOL, *LAPTOP, *CHANNEL, "--json", "-L", "0"], stderr=subprocess.PIPE, text=True)
        try:
            place = next(place for event in events(laptop) if (place := event.get("place")))
            print(f"   laptop$ curl http://{place}/")
            with urllib.request.urlopen(f"http://{place}/", timeout=60) as answer:
                print(f"   {answer.status} {answer.read().decode().strip()}")
        finally:
            laptop.terminate()
            codes = laptop.wait(30), home.wait(30)
    print(f"   laptop ended with SIGTERM: exit statuses {codes[1]} (home) and {codes[0]} (laptop)")


def events(process: subprocess.Popen[str]) -> Iterator[dict[str, object]]:
    """Yield the JSON events that a process prints on stderr."""
    assert process.stderr is not None
    for line in process.stderr:
        yield json.loads(line)


@contextlib.contextmanager
def web_server(folder: Path) -> Iterator[int]:
    """Serve a folder on a free port of loopback."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, directory=str(folder), **kwargs)  # type: ignore[arg-type]

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: the output is the demo's."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


if __name__ == "__main__":
    main()
