"""The tool under cProfile, which tells at any time what has been called how often.

    python bench/profiled.py SOCKET ARGUMENT ...      the tool with these arguments

It connects to SOCKET and says its process number on a line.  Each byte that it
receives there is answered with a line of JSON: calls so far by name, C and
Python.  Only the thread of the tool is counted, so asking costs no call.
"""

from __future__ import annotations

import cProfile
import json
import os
import re
import socket
import sys
import threading
from collections import Counter
from types import CodeType

# Not the folder of this file: modules of the bench must not hide others.
del sys.path[0]

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def answer(place: str, profile: cProfile.Profile) -> None:
    """Tell the counts whenever they are asked for."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(place)
        sock.sendall(b"%d\n" % os.getpid())
        while sock.recv(1):
            sock.sendall(json.dumps(counts(profile)).encode() + b"\n")


def counts(profile: cProfile.Profile) -> Counter[str]:
    """Return calls so far by name: "link/outgoing.py Outgoing.send", "socket.py socket.accept", "<method ...>"."""
    found: Counter[str] = Counter()
    for entry in profile.getstats():
        found[_name(entry.code)] += entry.callcount
    return found


def _name(code: CodeType | str) -> str:
    """Return the same name for the same function in any process: no addresses, no folders of this machine."""
    if isinstance(code, str):
        return _ADDRESS.sub("", code)
    file = code.co_filename
    return f"{file.rpartition('/punchtunnel/' if '/punchtunnel/' in file else '/')[2]} {code.co_qualname}"


def main() -> None:
    """Be the tool."""
    place = sys.argv.pop(1)
    profile = cProfile.Profile()
    threading.Thread(target=answer, args=(place, profile), daemon=True).start()
    from punchtunnel.__main__ import main as run

    profile.enable()
    run()


if __name__ == "__main__":
    main()
