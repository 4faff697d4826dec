"""What a peer, or a stranger in its place, has done wrong, and what a name has not led to.

Sentences with fields are filled in by `str.format`, as those of words.usage.
"""

from __future__ import annotations

# ---- election: the connection …

STRANGER = "did not speak our protocol"
MYSELF = "was connected to this process itself"
OTHER_CHANNEL = "belongs to another channel"
OTHER_SECRET = "is with somebody who has another secret, or none"  # noqa: S105

HELLO_LENGTH = "a hello has {size} bytes, not {length}"
NO_HELLO = "no hello of version {version}"

# ---- frames

NOT_A_FRAME = "not a frame: version {version}, type {kind}, flags {flags:#x}"
LONG_FRAME = "a frame announces {length} bytes; {limit} are allowed"
ODD_STREAM = "a frame of type {kind} names stream {stream}"

# ---- streams

NO_NUMBERS_LEFT = "the link has no stream numbers left"
READS_NO_ANSWERS = "the peer asks for answers and does not read them"
DATA_BEHIND_END = "data on stream {stream} behind its end"
MORE_THAN_CREDIT = "{length} bytes on stream {stream}, {allowed} were allowed"
TOO_MUCH_CREDIT = "more credit on stream {stream} than a number can hold"
NOT_TO_BE_OPENED = "stream {stream} cannot be opened by the peer, or not again"
SIZED_TWICE = "the size of stream {stream} is told twice"

# ---- seals

MALFORMED = "the peer's key agreement is malformed"
IMPOSSIBLE_RECORD = "the link was tampered with: a record has an impossible header"
CHANGED_RECORD = "the link was tampered with: a record was changed, repeated, moved or lost"

# ---- names

NOT_POSSIBLE = "{peer!r} is not a possible address"

# ---- why it was rejected, and what to change

OTHER_VERSION = (
    "the peer speaks another protocol: version {theirs}, not {ours}; install the same punchtunnel on both sides"
)
PLAIN_HERE = "--plain is given here but not on the other side: give it on both, or better on neither"
PLAIN_THERE = "--plain is given there but not on the other side: give it on both, or better on neither"
BOTH_SEND_ONLY = "both sides are --send-only, so nobody would receive anything: drop it on one side"
ROLES = "roles do not fit: {mine} here, {theirs} there: {advice}"
BOTH_LISTEN = "both sides listen; one side needs --to HOST:PORT, or no option for stdio"
BOTH_LEAD_ON = "both sides wait to dial a target; one side needs -L PORT, or no option for stdio"
RAW_MEETS_RAW = "punchtunnel.punch() meets only punchtunnel.punch(); use the same on both sides"
PAIR_ROLES = "pair -L with --to, or give one of the two alone to meet stdio"
