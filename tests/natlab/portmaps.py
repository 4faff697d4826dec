"""Asks a router for a mapped TCP port by NAT-PMP, PCP and UPnP: a client as small as can be, independent of the tool's.

An answer is (result, outside address, outside port); result 0 is success.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import struct

from . import daemon

Answer = tuple[int, str, int]
UPNP_SERVICE = "urn:schemas-upnp-org:service:WANIPConnection:1"
TCP = 6
# Seconds that a mapping lasts, and that an answer by UPnP may take.
LIFETIME = 600
PATIENCE = 20.0
# RFC 6887 §7: no message is longer.
LONGEST = 1100


def natpmp_map(asking: socket.socket, port: int) -> Answer:
    """Return (result, outside address, outside port) of a NAT-PMP mapping (RFC 6886 §3.2 and §3.3)."""
    asking.send(bytes(2))
    _version, _kind, result, _epoch, outside4 = struct.unpack("!BBHI4s", asking.recv(LONGEST))
    asking.send(struct.pack("!BBHHHI", 0, 2, 0, port, port, LIFETIME))
    _version, _kind, map_result, _epoch, _inside, outside, _life = struct.unpack("!BBHIHHI", asking.recv(LONGEST))
    return result or map_result, socket.inet_ntoa(outside4), outside


def pcp_map(asking: socket.socket, port: int) -> Answer:
    """Return the same of a PCP mapping, or of a pinhole (RFC 6887 §7 and §11.1)."""
    own = _sixteen(asking.getsockname()[0])
    anything = _sixteen("::" if asking.family is socket.AF_INET6 else "0.0.0.0")
    head = struct.pack("!BBHI16s", 2, 1, 0, LIFETIME, own)
    asking.send(head + struct.pack("!12sB3xHH16s", b"n" * 12, TCP, port, port, anything))
    answer = asking.recv(LONGEST)
    outside, outside16 = struct.unpack_from("!H16s", answer, 42)
    address = ipaddress.IPv6Address(outside16)
    return answer[3], str(address.ipv4_mapped or address), outside


def _sixteen(address: str) -> bytes:
    """Return the 16 bytes by which PCP names an address (RFC 6887 §5)."""
    return ipaddress.IPv6Address(address if ":" in address else f"::ffff:{address}").packed


def upnp_call(gateway: str, action: str, **fields: object) -> tuple[int, str]:
    """Call an action of WANIPConnection:1, and return the HTTP status and what was answered."""
    web = http.client.HTTPConnection(gateway, daemon.HTTP_PORT, timeout=PATIENCE)
    with contextlib.closing(web):
        web.connect()
        own = {"NewInternalClient": web.sock.getsockname()[0]} if "NewInternalPort" in fields else {}
        values = "".join(f"<{name}>{value}</{name}>" for name, value in {**fields, **own}.items())
        call = f'<u:{action} xmlns:u="{UPNP_SERVICE}">{values}</u:{action}>'
        body = f'<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>{call}</s:Body></s:Envelope>'
        web.request("POST", "/ctl/IPConn", body, {"SOAPAction": f'"{UPNP_SERVICE}#{action}"'})
        answer = web.getresponse()
        return answer.status, answer.read().decode()


def upnp_map(gateway: str, port: int) -> Answer:
    """Return (0 or the error's number, outside address, outside port) of a UPnP mapping to this host."""
    _status, said = upnp_call(gateway, "GetExternalIPAddress")
    address = said.partition("<NewExternalIPAddress>")[2].partition("<")[0]
    status, said = upnp_call(
        gateway, "AddPortMapping", NewRemoteHost="", NewExternalPort=port, NewProtocol="TCP", NewInternalPort=port,
        NewEnabled=1, NewPortMappingDescription="natlab", NewLeaseDuration=LIFETIME,
    )  # fmt: skip
    error = said.partition("<errorCode>")[2].partition("<")[0]
    return 0 if status == http.HTTPStatus.OK else int(error), address, port
