"""The two ends of a pipe, each a process of its own.

    python -m bench.pour pour SECONDS     for so long, as fast as it goes
    python -m bench.pour pour 0 BYTES     so many random bytes
    python -m bench.pour drain            without a look
    python -m bench.pour drain hashed

What they found is one line of JSON: of pour on stderr, of drain on stdout.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time

BLOCK = 1 << 20


def pour(seconds: float, size: int) -> None:
    """Write one byte to stdout, wait for a line on stdin, then write for some time, or `size` random bytes."""
    out = sys.stdout.fileno()
    os.write(out, b".")
    sys.stdin.readline()
    source, total = os.memfd_create("block"), 0
    data = os.urandom(size or BLOCK)
    os.write(source, data)
    began = time.monotonic()
    while total < size or (not size and time.monotonic() < began + seconds):
        # A file in memory is spliced without a copy.
        total += os.splice(source, out, BLOCK, offset_src=total % len(data))
    os.close(out)
    result = {"began": began, "bytes": total, "sha256": hashlib.sha256(data).hexdigest() if size else ""}
    print(json.dumps(result), file=sys.stderr, flush=True)


def drain(hashed: bool) -> None:
    """Say "ready" at the first byte on stdin, and what else there was at its end."""
    source = sys.stdin.fileno()
    os.read(source, 1)
    print("ready", flush=True)
    digest = hashlib.sha256()
    buffer = bytearray(BLOCK)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    total = 0
    while True:
        try:
            if hashed:
                received = os.readv(source, [buffer])
                digest.update(memoryview(buffer)[:received])
            else:
                received = os.splice(source, nowhere, BLOCK)
        except OSError:
            # sshd gives its command a socket, which cannot be spliced to there.
            received = os.readv(source, [buffer])
        if not received:
            break
        total += received
    sha256 = digest.hexdigest() if hashed else ""
    print(json.dumps({"ended": time.monotonic(), "bytes": total, "sha256": sha256}), flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["pour", seconds]:
            pour(float(seconds), 0)
        case ["pour", "0", size]:
            pour(0.0, int(size))
        case ["drain", *hashed]:
            drain(bool(hashed))
        case _:
            sys.exit(__doc__)
