"""What is different where we are behind: phrases for docs/PERFORMANCE.md, by peer where peers differ.

Each is about a cost that the same document counts or measures: calls for a
MiB, a connection and a message, processor time, the bare loop.
"""

from __future__ import annotations

from .subjects import HAPROXY, HAPROXY_SPLICE, HAPROXY_TUNED, SOCAT, SSH

_IN_C = "written in C: more system calls, and less processor time; both are counted below"
_NO_LINK = f"no link to share, and {_IN_C}"

SPLICED = {
    HAPROXY_SPLICE: "no headers of frames, and no link that all streams share",
    HAPROXY_TUNED: "no headers of frames, so fewer system calls for a MiB; counted below",
}
SEALED = dict.fromkeys((SOCAT, HAPROXY), "in clear; what sealing allows at most is the bare loop below")
MESSAGES = {SSH: _IN_C, SOCAT: _NO_LINK, HAPROXY: _NO_LINK}
_AT_LEAST = "what Python needs at least are the bare streams of the same row"
CONNECTIONS = {peer: f"{why}; {_AT_LEAST}" for peer, why in MESSAGES.items()}
MANY_STREAMS = (
    "more turns for as many bytes: windows are bounded, so frames are shorter, and in clear more is copied; "
    "bare streams lose a tenth or more, in the same row"
)
PACED = "sent a little slower than the line takes it, so that the queue of the same row is short: see its times"
RESUMING = "what is sent is kept until the peer has acknowledged it"
LOSSES = "a slow start where the first estimates of the round trip are too small; see far holes below"
STARTS = "Python and its modules are loaded first, and then SYNs have to cross"
PYTHONS = "another interpreter"
