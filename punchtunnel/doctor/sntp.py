"""Ask an NTP server for the time, once (RFC 4330, RFC 5905 §14): bytes only.

T1 our clock when we ask           ──────>   T2 its clock when that arrives
T4 our clock when that arrives     <──────   T3 its clock when it answers

offset = ((T2 - T1) + (T3 - T4)) / 2      exact if both ways take equally long
delay  =  (T4 - T1) - (T3 - T2)           the offset is wrong by at most half of it
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from punchtunnel.errors import PeerError
from punchtunnel.words import doctor as words

DEFAULT_PORT = 123
# Eight random bytes take the place of T1.  The server repeats them, so only a
# machine that has seen the question can answer, and our clock stays private.
COOKIE_SIZE = 8
PACKET_SIZE = 48
_PACKET = struct.Struct("!BBbb11I")
# No leap second announced, version 4, mode 3: a client.
_CLIENT = 0x23
_SERVER_MODE = 4
_UNSYNCHRONISED = 3
_WORST_STRATUM = 15
# Seconds from 1900, when the first era of NTP begins, to 1970; and in an era.
_TO_UNIX = 2208988800
_ERA = 2**32


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer: seconds to add to our clock, seconds on the way, servers up to a reference clock."""

    offset_s: float
    delay_s: float
    stratum: int


def request(cookie: bytes) -> bytes:
    """Return a question; `cookie` is COOKIE_SIZE random bytes."""
    return bytes([_CLIENT]) + bytes(PACKET_SIZE - 1 - COOKIE_SIZE) + cookie


def read_answer(data: bytes, cookie: bytes, sent: float, received: float) -> Sample:
    """Read the answer to the question with this cookie.

    Args:
        data: One datagram.
        cookie: The one of the question.
        sent: Our Unix time when the question was sent.
        received: Our Unix time when the answer arrived.

    Raises:
        PeerError: It does not answer this question, or the server does not know the time.
    """
    if len(data) < PACKET_SIZE or data[0] & 7 != _SERVER_MODE or data[24:32] != cookie:
        raise PeerError(words.NO_NTP_SERVER)
    first, stratum, *_, seconds2, fraction2, seconds3, fraction3 = _PACKET.unpack_from(data)
    if first >> 6 == _UNSYNCHRONISED or not 1 <= stratum <= _WORST_STRATUM or not seconds3:
        raise PeerError(words.NO_TIME)
    t2, t3 = _unix(seconds2, fraction2, sent), _unix(seconds3, fraction3, sent)
    return Sample(((t2 - sent) + (t3 - received)) / 2, max(0.0, (received - sent) - (t3 - t2)), stratum)


def _unix(seconds: int, fraction: int, near: float) -> float:
    """Return a timestamp as Unix time, in the era that is nearest to `near` (RFC 5905 §6)."""
    time = seconds + fraction / _ERA - _TO_UNIX
    return time + round((near - time) / _ERA) * _ERA
