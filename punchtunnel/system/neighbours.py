"""Who has answered in this machine's own networks: the kernel's table of neighbours (rtnetlink(7))."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
import sys
from collections.abc import Iterator

from punchtunnel.system.addresses import Address

# linux/rtnetlink.h, linux/netlink.h and linux/neighbour.h
_RTM_NEWNEIGH, _RTM_GETNEIGH = 28, 30
_NLM_F_REQUEST, _NLM_F_DUMP = 0x001, 0x300
_NLMSG_DONE, _NLMSG_ERROR = 3, 2
_NDA_DST = 1
_NUD_INCOMPLETE, _NUD_FAILED = 0x01, 0x20
# Length, type, flags, sequence, port.
_HEADER = struct.Struct("=IHHII")
# Family, two bytes and two of padding, interface, state, flags, type.
_NEIGHBOUR = struct.Struct("=BBHiHBB")
_ATTRIBUTE = struct.Struct("=HH")
_LONGEST = 1 << 16


def nobody_has(address: Address) -> bool:
    """Tell whether this machine has asked its own network for an address, by ARP or by its like, and got no answer.

    False if the address is elsewhere, and where the table cannot be read.
    """
    with contextlib.suppress(OSError, struct.error):
        packed = ipaddress.ip_address(address.host.partition("%")[0]).packed
        unanswered = _NUD_INCOMPLETE | _NUD_FAILED
        return any(found == packed and state & unanswered for found, state in _neighbours(address.family))
    return False


def _neighbours(family: int) -> Iterator[tuple[bytes, int]]:
    """Yield the address and the state of each neighbour; none on other systems than Linux."""
    if sys.platform != "linux":
        return
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        question = _NEIGHBOUR.pack(family, 0, 0, 0, 0, 0, 0)
        flags = _NLM_F_REQUEST | _NLM_F_DUMP
        kernel.send(_HEADER.pack(_HEADER.size + len(question), _RTM_GETNEIGH, flags, 1, 0) + question)
        while True:
            answer = kernel.recv(_LONGEST)
            while answer:
                length, kind, *_ = _HEADER.unpack_from(answer)
                if kind in (_NLMSG_DONE, _NLMSG_ERROR):
                    return
                if kind == _RTM_NEWNEIGH:
                    yield _neighbour(answer[_HEADER.size : length])
                answer = answer[_padded(length) :]


def _neighbour(message: bytes) -> tuple[bytes, int]:
    _, _, _, _, state, _, _ = _NEIGHBOUR.unpack_from(message)
    attributes = message[_NEIGHBOUR.size :]
    while len(attributes) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(attributes)
        if kind == _NDA_DST:
            return attributes[_ATTRIBUTE.size : length], state
        attributes = attributes[_padded(length) :]
    return b"", state


def _padded(length: int) -> int:
    return max(length + 3 & ~3, _ATTRIBUTE.size)
