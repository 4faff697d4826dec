"""Let a router forward ports by UPnP, with the package miniupnpc: an extra, `punchtunnel[upnp]`.

    this thread                                    router
      |  M-SEARCH, to it and to everybody  ------>   |   UDP port 1900
      |  <------------------------- LOCATION: URL    |   only from it, and only on it
      |  GET the description, by miniupnpc ------>   |
      |  <-------------------------- control URL     |   only on it
      |  AddPortMapping, for 600 s         ------>   |

miniupnpc's own search asks whatever device answers for its description, and
tells afterwards; an answer could thus name any URL of the network.  So the
search is made here, and the package gets the one URL that was checked.

It blocks, is written in C, and limits neither the time nor the size of what
it reads.  So all of it runs in a daemon thread that nobody waits for: a router
that answers slowly costs this thread, and no more.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable, Sequence
from ipaddress import AddressValueError, IPv4Address
from random import Random

from punchtunnel.address import NOBODY, Place, is_public
from punchtunnel.errors import PeerError
from punchtunnel.punching.helper import PortMapping
from punchtunnel.reach.igd import Igd
from punchtunnel.reach.lease import LEASE
from punchtunnel.reach.leases import MOST_TRIED, PAUSE, Standing
from punchtunnel.system import tcp
from punchtunnel.words import reach as words

UPNP = "UPnP"
# What the router's list of mappings calls ours.
_DESCRIPTION = "punchtunnel"
# A mapping of a port that is its own costs a table entry that others lack, and the peer needs one.
_MOST_MAPPED = 1
# Seconds between two looks at what is mapped: a router that was started anew has forgotten it.
LOOK = 30.0
# UPnP Device Architecture 1.1 §1.3.2; a router may be asked directly, too (§1.3.3).
_GROUP, _SSDP_PORT = "239.255.255.250", 1900
_KINDS = [f"urn:schemas-upnp-org:device:InternetGatewayDevice:{version}" for version in (1, 2)]
# Seconds to listen after each search; devices spread their answers over one second (MX).
_SEARCHES = (0.25, 1.25)
_MOST_ANSWERS = 64
_LOCATION = re.compile(rb"^location:[ \t]*([\x21-\x7e]{1,256})[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_URL = re.compile(r"http://([0-9.]{7,15})(?::[0-9]{1,5})?/[\x21-\x7e]*")
# The errors of UPnP that mean something of their own, as miniupnpc calls them: 725 and 402, 606, 718 and 729, 728.
_PERMANENT = ("OnlyPermanentLeasesSupported", "Invalid Args")
_NOT_ALLOWED = ("Action not authorized",)
_TAKEN = ("ConflictInMappingEntry", "ConflictWithOtherMechanisms")
_NO_ROOM = ("NoPortMapsAvailable",)


# ---- SSDP


def search(host: str, kind: str) -> bytes:
    """Return the datagram that asks for a device of that kind."""
    lines = [
        "M-SEARCH * HTTP/1.1",
        f"HOST: {host}:{_SSDP_PORT}",
        'MAN: "ssdp:discover"',
        "MX: 1",
        f"ST: {kind}",
        "",
        "",
    ]
    return "\r\n".join(lines).encode()


def read_location(answer: bytes, router: str) -> str:
    """Return the URL of the description that an answer names.

    Raises:
        PeerError: It is no answer of a router, or names a URL elsewhere.
    """
    found = _LOCATION.search(answer)
    if not answer.startswith(b"HTTP/1.1 200") or found is None:
        raise PeerError(words.NO_IGD)
    return check_url(found[1].decode("ascii"), router)


def check_url(url: str, router: str) -> str:
    """Return a URL that is on the router itself.

    Raises:
        PeerError: It is elsewhere: this machine must not be made to ask others.
    """
    found = _URL.fullmatch(url)
    if found is None or found[1] != router:
        raise PeerError(words.ELSEWHERE)
    return url


def find(router: str, own: str, interface: str, port: int = _SSDP_PORT) -> str | None:
    """Search for a router's description, for at most a second and a half; return its URL, or None.

    Args:
        router: Only it is listened to.
        own: The address to search from.
        interface: To leave by, where the system lets one choose.
        port: Of the router's SSDP.
    """
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        with contextlib.suppress(OSError):
            tcp.use_interface(sock, interface)
        sock.bind((own, 0))
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(own))
        for seconds in _SEARCHES:
            for host in (router, _GROUP):
                for kind in _KINDS:
                    # A network may know no way to the group.
                    with contextlib.suppress(OSError):
                        sock.sendto(search(host, kind), (host, port))
            if (url := _listen(sock, router, time.monotonic() + seconds)) is not None:
                return url
    return None


def _listen(sock: socket.socket, router: str, until: float) -> str | None:
    for _ in range(_MOST_ANSWERS):
        if (rest := until - time.monotonic()) <= 0:
            break
        sock.settimeout(rest)
        # A refusal by ICMP is no answer, and ends nothing.
        with contextlib.suppress(OSError, PeerError):
            answer, (host, _) = sock.recvfrom(2048)
            if host == router:
                return read_location(answer, router)
    return None


# ---- one router


class Portal:
    """What one router maps by UPnP.  Every call blocks, and may do so for long.

    Args:
        router: Its address, also in sentences.
        own: The address that ports are mapped to.
        make: Returns an Igd.
        locate: Returns the URL of the router's description, or None.

    Attributes:
        has_asked: The router may have a mapping, also one that it has not told yet.
    """

    def __init__(self, router: str, own: str, make: Callable[[], Igd], locate: Callable[[], str | None]) -> None:
        self._router, self._own, self._make, self._locate = router, own, make, locate
        self._igd: Igd | None = None
        self._mapped: list[int] = []
        self.has_asked = False

    def refresh(self, ports: Sequence[int]) -> Standing:
        """Map the first of these ports that is free, or renew what is mapped, and take back the rest."""
        for port in [one for one in self._mapped if one not in ports]:
            self._take_back(port)
        if not ports:
            self.has_asked = False
            return Standing()
        known = self._igd is not None
        standing = self._try(ports)
        if known and not standing.mappings:
            # Its URL may be another one since it was started anew.
            self._igd = None
            standing = self._try(ports)
        return standing

    def stands(self) -> bool:
        """Tell whether the router still has all that it has mapped; it forgets when it is started anew."""
        entries = [self._entry(self._igd, port) for port in self._mapped if self._igd is not None]
        return all(entry is not None and entry[0] == self._own for entry in entries)

    def _try(self, ports: Sequence[int]) -> Standing:
        try:
            return self._map_first(ports)
        except PeerError as error:
            return Standing(refusal=self._says(words.FAILED, str(error)))
        except Exception as error:
            # miniupnpc raises nothing more special.
            return Standing(refusal=self._says(words.FAILED, _printable(error)))

    def _map_first(self, ports: Sequence[int]) -> Standing:
        if self._igd is None and not self._open():
            return Standing(silent=True)
        assert self._igd is not None
        host = self._igd.externalipaddress()
        try:
            IPv4Address(host)
        except AddressValueError:
            raise PeerError(words.NO_IGD) from None
        if not is_public(host):
            for port in list(self._mapped):
                self._take_back(port)
            return Standing(refusal=self._says(words.NO_NETWORK)) if host == NOBODY else Standing(behind=host)
        refusal = ""
        for port in list(dict.fromkeys([*self._mapped, *ports]))[:MOST_TRIED]:
            if len(self._mapped) >= _MOST_MAPPED and port not in self._mapped:
                break
            if refusal := self._map(self._igd, port):
                self._mapped = [one for one in self._mapped if one != port]
            elif port not in self._mapped:
                self._mapped.append(port)
        mappings = tuple(PortMapping(socket.AF_INET, port, Place(host, port), UPNP) for port in self._mapped)
        return Standing(mappings, refusal="" if mappings else refusal)

    def _open(self) -> bool:
        url = self._locate()
        if url is None:
            return False
        igd = self._make()
        # The description is fetched from the router, and nothing yet from where it points.
        check_url(igd.selectigd(url), self._router)
        if igd.lanaddr != self._own:
            raise PeerError(words.ELSEWHERE)
        self._igd = igd
        return True

    def _map(self, igd: Igd, port: int) -> str:
        """Map or renew one port, to the same external port; return why not, or ""."""
        before = self._entry(igd, port)
        # Somebody else's, or one that this machine's owner has made for ever: AddPortMapping would overwrite it.
        if before is not None and (before[:2] != (self._own, port) or (port not in self._mapped and before[4] == 0)):
            return self._says(words.ALL_TAKEN)
        self.has_asked = True
        try:
            igd.addportmapping(port, "TCP", self._own, port, _DESCRIPTION, "", LEASE)
        except Exception as error:
            after = self._entry(igd, port)
            # Some routers map, and say that they failed.
            if after is None or after[:2] != (self._own, port) or after[4] < LEASE * 3 / 4:
                return self._why(_printable(error))
        else:
            after = self._entry(igd, port)
            if after is not None and after[:2] != (self._own, port):
                return self._says(words.ALL_TAKEN)
            if after is not None and after[4] == 0:
                self._take_back(port)
                return self._says(words.ONLY_PERMANENT)
        return ""

    def _entry(self, igd: Igd, port: int) -> tuple[str, int, str, bool, int] | None:
        """Return what the router has for an external port; None if nothing, or if it does not tell."""
        try:
            return igd.getspecificportmapping(port, "TCP")
        except Exception:
            return None

    def _take_back(self, port: int) -> None:
        self._mapped = [one for one in self._mapped if one != port]
        if self._igd is not None:
            with contextlib.suppress(Exception):
                self._igd.deleteportmapping(port, "TCP")

    def _why(self, text: str) -> str:
        for texts, sentence in (
            (_PERMANENT, words.ONLY_PERMANENT),
            (_NOT_ALLOWED, words.NOT_ALLOWED),
            (_TAKEN, words.ALL_TAKEN),
            (_NO_ROOM, words.NO_ROOM),
        ):
            if text in texts:
                return self._says(sentence)
        return self._says(words.FAILED, text)

    def _says(self, sentence: str, reason: str = "") -> str:
        return sentence.format(router=self._router, by=UPNP, reason=reason)


def _printable(error: Exception) -> str:
    return "".join(letter for letter in str(error)[:100] if letter.isascii() and letter.isprintable()) or "no reason"


class Worker:
    """Lets a portal work in a thread of its own.

    Args:
        portal: Of one router.
        rng: For the times of renewals.
        tell: Called in the thread when `standing` is another one.
    """

    def __init__(self, portal: Portal, rng: Random, tell: Callable[[], None]) -> None:
        self._portal, self._rng, self._tell = portal, rng, tell
        self._changed = threading.Condition()
        self._ports: tuple[int, ...] = ()
        self._news = self._ended = self._has_mapped = False
        self._thread = threading.Thread(target=self._run, name="upnp", daemon=True)
        # None while it has not been found out.
        self.standing: Standing | None = None
        # How often what may have been mapped was taken back.
        self.taken_back = 0

    def start(self) -> None:
        """Begin to work.

        Raises:
            RuntimeError: The system refuses another thread.
        """
        self._thread.start()

    def want(self, ports: Sequence[int]) -> None:
        """Map one of these, or take everything back; also asks again at once."""
        with self._changed:
            self._ports, self._news = tuple(ports), True
            self._changed.notify()

    def end(self) -> None:
        """Take everything back, and end."""
        with self._changed:
            self._ports, self._ended = (), True
            self._changed.notify()

    def may_hold(self) -> bool:
        """Tell whether there may be a mapping to take back."""
        return self._portal.has_asked

    def join(self, seconds: float) -> None:
        """Wait for the end, at most so long; a thread that hangs is left to itself."""
        self._thread.join(seconds)

    def _run(self) -> None:
        while True:
            with self._changed:
                ports, ended, self._news = self._ports, self._ended, False
            held = self._portal.has_asked
            self.standing = self._portal.refresh(ports)
            if held and not ports:
                self.taken_back += 1
            self._tell()
            if ended:
                return
            self._wait(self._pause(ports, self.standing), bool(self.standing.mappings))

    def _wait(self, pause: float | None, mapped: bool) -> None:
        """Wait for news, so many seconds at most, or until the router has forgotten what it has mapped."""
        for _ in range(int((pause or 0) / LOOK) if mapped else 0):
            with self._changed:
                if self._changed.wait_for(lambda: self._news or self._ended, LOOK):
                    return
            if not self._portal.stands():
                return
        with self._changed:
            self._changed.wait_for(lambda: self._news or self._ended, LOOK if mapped else pause)

    def _pause(self, ports: Sequence[int], standing: Standing) -> float | None:
        """Return the seconds until the router is to be asked again."""
        if standing.mappings:
            self._has_mapped = True
            return LEASE * (1 / 2 + self._rng.random() / 8)
        if not ports:
            return None
        # What has mapped before is being started anew.
        return LOOK if self._has_mapped else PAUSE
