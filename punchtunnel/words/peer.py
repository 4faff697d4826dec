"""What a peer, or a stranger in its place, has done wrong, and why a peer was rejected.

Sentences with fields are filled in by `str.format`; they are Final as those of
words.usage are.
"""

from __future__ import annotations

from typing import Final

# ---- why a connection is not the hole: "the connection to HOST:PORT …"

STRANGER: Final = "did not speak our protocol"
MYSELF: Final = "was connected to this process itself"
OTHER_CHANNEL: Final = "belongs to another channel"
OTHER_SESSION: Final = "does not know the session that has lost its connection"
OTHER_SECRET: Final = "is with somebody who has another secret, or none"  # noqa: S105

NARROW: Final = "would take {window} bytes at a time"

HELLO_LENGTH: Final = "a hello has {size} bytes, not {length}"
NO_HELLO: Final = "no hello of version {version}"

# ---- frames

NOT_A_FRAME: Final = "not a frame: version {version}, type {kind}, flags {flags:#x}"
LONG_FRAME: Final = "a frame announces {length} bytes; {limit} are allowed"
ODD_STREAM: Final = "a frame of type {kind} names stream {stream}"

# ---- streams

NO_NUMBERS_LEFT: Final = "the link has no stream numbers left"
NOT_AN_OFFER: Final = (
    "what the peer says of its addresses is not understood: install the same punchtunnel on both sides"
)
NOT_A_SERVICE: Final = (
    "the peer opens a stream for a service whose name is none: install the same punchtunnel on both sides"
)
READS_NO_ANSWERS: Final = "the peer asks for answers and does not read them"
DATA_AFTER_END: Final = "data on stream {stream} after its end"
MORE_THAN_CREDIT: Final = "{length} bytes on stream {stream}, {allowed} were allowed"
TOO_MUCH_CREDIT: Final = "more credit on stream {stream} than a number can hold"
NOT_TO_BE_OPENED: Final = "stream {stream} cannot be opened by the peer, or not again"
SIZED_TWICE: Final = "the size of stream {stream} is told twice"

# ---- seals

MALFORMED: Final = "the peer's key agreement is malformed"
IMPOSSIBLE_RECORD: Final = "the link was tampered with: a record has an impossible header"
MALFORMED_RESUME: Final = "a RESUME has {length} bytes"
IMPOSSIBLE_POSITION: Final = "the peer has received what was not sent, or lost what it had acknowledged"
ACKNOWLEDGES_NOTHING: Final = "the peer acknowledges nothing"
CHANGED_RECORD: Final = "the link was tampered with: a record was changed, repeated, moved or lost"

# ---- names

NOT_POSSIBLE: Final = "{peer!r} is not a possible address"

# ---- why it was rejected, and what to change

OTHER_VERSION: Final = (
    "the peer speaks another protocol: version {theirs}, not {ours}; install the same punchtunnel on both sides"
)
PLAIN_HERE: Final = "--plain is given here but not on the other side: give it on both, or better on neither"
PLAIN_THERE: Final = "--plain is given on the other side but not here: give it on both, or better on neither"
BOTH_SEND_ONLY: Final = "both sides are --send-only, so nobody would receive anything: drop it on one side"
ROLES: Final = "roles do not fit: {mine} here, {theirs} there: {advice}"
BOTH_LISTEN: Final = "both sides listen; one side needs --to HOST:PORT, or no option for stdio"
BOTH_LEAD_ON: Final = "both sides wait to dial a target; one side needs -L PORT, or no option for stdio"
RAW_MEETS_RAW: Final = "punchtunnel.punch() meets only punchtunnel.punch(); use the same on both sides"
PAIR_ROLES: Final = "pair -L with --to, or give one of the two alone to meet stdio"


def goes_on(seconds: float | None) -> str:
    """Say that a punch goes on after a peer was rejected, and how to stop it; None: without an end."""
    if seconds is None:
        # A service may have no terminal.
        return "still waiting, without a limit; Ctrl-C or SIGTERM ends it"
    return f"still waiting, for another {max(seconds, 0):.0f} s (-w); Ctrl-C ends it"
