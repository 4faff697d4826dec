"""One connection that may win an election, and its states as a table.

    leads      OPENED ──hello──> GREETED ──pick──> PICKED ──keys──> PROVING ──proof──> WON
    follows    OPENED ──hello──> GREETED ──asked─> ASKED ───keys──> PROVING ──proof──> WON

    on a plain link                                PICKED, ASKED ──agree──────────────> WON
    with a stranger  LISTENING ──hello──> GREETED, and on as above

A connection that is closed, or breaks the order, is forgotten in any state.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from punchtunnel.protocol.agreement import Agreement, Keys
    from punchtunnel.protocol.hello import Hello


# What makes a PICK or an ACCEPT fill a packet: it cannot be read where the way swallows full ones.  All segments
# of a hole are shorter than this (punching/ports.py).  A receiver looks at the first four bytes alone.
PADDING = b"PADD" + bytes(1216)
_PADDING_MARK = PADDING[:4]


class State(Enum):
    """How far a connection has come."""

    # Our hello is sent; the peer's is not whole yet.
    OPENED = auto()
    # Nothing is sent: the other side is a stranger until its hello is whole.
    LISTENING = auto()
    # Both are said.  The leader may pick it; the follower waits for that.
    GREETED = auto()
    # Our PICK is sent.
    PICKED = auto()
    # The peer's PICK has come, and is not answered yet.
    ASKED = auto()
    # There are keys; the peer's proof that it knows the secret is missing.
    PROVING = auto()
    WON = auto()


class Input(Enum):
    """What brings it further."""

    HELLO = auto()
    PICK = auto()
    ASK = auto()
    KEYS = auto()
    PROOF = auto()
    # PICK and ACCEPT of a plain link, which has nothing to prove.
    AGREE = auto()


# What is not here is a bug: what a peer says at the wrong time never gets so far.
TRANSITIONS = {
    (State.OPENED, Input.HELLO): State.GREETED,
    (State.LISTENING, Input.HELLO): State.GREETED,
    (State.GREETED, Input.PICK): State.PICKED,
    (State.GREETED, Input.ASK): State.ASKED,
    (State.PICKED, Input.KEYS): State.PROVING,
    (State.ASKED, Input.KEYS): State.PROVING,
    (State.PROVING, Input.PROOF): State.WON,
    (State.PICKED, Input.AGREE): State.WON,
    (State.ASKED, Input.AGREE): State.WON,
}


@dataclass(slots=True, eq=False, repr=False)
class Contender:
    """What the election knows of one connection.

    Attributes:
        buffer: What has come and is not read yet.
        raw_hello: The peer's hello as it came, with bits that only a later version knows.
        pads: This side has padding in front of its PICK, or will have it in front of its ACCEPT.
        padded: That of the other side has come.
    """

    state: State = State.OPENED
    buffer: bytearray = field(default_factory=bytearray)
    hello: Hello | None = None
    raw_hello: bytes = b""
    agreement: Agreement | None = None
    keys: Keys | None = None
    pads: bool = False
    padded: bool = False

    def skip_padding(self, leads: bool) -> bool:
        """Take padding from the front of the buffer if it may be there now; return False while it is not whole."""
        state = State.PICKED if leads else State.GREETED
        if self.padded or not self.buffer or self.state is not state or (leads and not self.pads):
            return True
        mark = self.buffer[: len(_PADDING_MARK)]
        if not _PADDING_MARK.startswith(mark):
            return True
        if len(self.buffer) < len(PADDING):
            return False
        del self.buffer[: len(PADDING)]
        self.pads = self.padded = True
        return True

    def move(self, word: Input) -> None:
        """Go on to the next state."""
        self.state = TRANSITIONS[self.state, word]
