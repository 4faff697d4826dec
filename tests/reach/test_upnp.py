"""UPnP: the search, what is believed of a router, and miniupnpc itself with a router on the loopback."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchtunnel.address import Place
from punchtunnel.errors import PeerError
from punchtunnel.punching.helper import PortMapping
from punchtunnel.reach import upnp
from punchtunnel.reach.igd import installed
from punchtunnel.reach.leases import Standing
from punchtunnel.reach.upnp import Portal

from .fakes import FakeIgd

ROUTER, OWN = "127.0.0.2", "127.0.0.1"
PORTS = [16049, 16050, 16051]
HERE = (OWN, 16049, "punchtunnel", True, 600)


def portal_of(igd: FakeIgd, url: str | None = f"http://{ROUTER}:5000/desc.xml") -> Portal:
    return Portal(ROUTER, OWN, lambda: igd, lambda: url)


def mapped(port: int = 16049, host: str = "203.0.113.5") -> Standing:
    return Standing((PortMapping(socket.AF_INET, port, Place(host, port), "UPnP"),))


# ---- the search


def answer(location: str) -> bytes:
    return f"HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\nST: x\r\nLocation: {location}\r\nEXT:\r\n\r\n".encode()


def test_a_search_is_what_the_architecture_says() -> None:
    assert upnp.search("239.255.255.250", "urn:x") == (
        b'M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: "ssdp:discover"\r\nMX: 1\r\nST: urn:x\r\n\r\n'
    )


@pytest.mark.parametrize("url", ["http://127.0.0.2:5000/rootDesc.xml", "http://127.0.0.2/"])
def test_a_location_on_the_router_is_taken(url: str) -> None:
    assert upnp.read_location(answer(url), ROUTER) == url


@pytest.mark.parametrize(
    "url",
    [
        *("http://127.0.0.3:5000/desc.xml", "http://127.0.0.2.evil.example/", "http://127.0.0.2@10.0.0.1/"),
        *("http://10.0.0.1/?127.0.0.2/", "https://127.0.0.2/", "file:///etc/passwd", "http://127.0.0.2:80:80/"),
        *("http://localhost/", "http://127.0.0.2", "http://[::1]/", "http://127.0.0.2:123456/", "http://127.0.0.2/ü"),
    ],
)
def test_a_location_elsewhere_is_refused(url: str) -> None:
    with pytest.raises(PeerError):
        upnp.read_location(answer(url), ROUTER)


@given(st.binary(max_size=200) | st.binary(max_size=200).map(answer("http://127.0.0.2/").__add__))
def test_garbage_is_a_url_on_the_router_or_a_peer_error(garbage: bytes) -> None:
    try:
        assert upnp.read_location(garbage, ROUTER).startswith("http://127.0.0.2")
    except PeerError:
        return


def test_an_answer_that_is_cut_is_none() -> None:
    whole = answer("http://127.0.0.2/d")
    for size in range(whole.index(b"/d")):
        with pytest.raises(PeerError):
            upnp.read_location(whole[:size], ROUTER)


def test_only_the_routers_own_answers_are_taken() -> None:
    """A television, or whoever else is in the network, answers first."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as router,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as tv,
    ):
        router.bind((ROUTER, 0))
        tv.bind(("127.0.0.3", 0))

        def reply() -> None:
            _, client = router.recvfrom(2048)
            tv.sendto(answer("http://127.0.0.2/tv"), client)
            router.sendto(b"garbage", client)
            router.sendto(answer("http://10.0.0.1/elsewhere"), client)
            router.sendto(answer("http://127.0.0.2/router"), client)

        thread = threading.Thread(target=reply)
        thread.start()
        found = upnp.find(ROUTER, OWN, "lo", router.getsockname()[1])
        thread.join()
    assert found == "http://127.0.0.2/router"


# ---- what is mapped


def test_the_first_port_that_is_free_is_mapped_renewed_and_taken_back() -> None:
    igd = FakeIgd()
    igd.table[16049] = ("10.0.0.7", 16049, "somebody", True, 100)
    portal = portal_of(igd)
    for _ in range(2):
        assert portal.refresh(PORTS) == mapped(16050)
    assert igd.asked == [16050, 16050]
    assert portal.refresh([]) == Standing()
    assert set(igd.table) == {16049}


def test_a_router_that_has_forgotten_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upnp, "LOOK", 0.01)
    igd, again = FakeIgd(), threading.Event()
    worker = upnp.Worker(portal_of(igd), Random(1), lambda: again.set() if len(igd.asked) > 1 else None)
    worker.want([16049])
    worker.start()
    while not igd.asked:
        again.wait(0.01)
    igd.table.clear()
    assert again.wait(60)
    assert igd.asked == [16049, 16049]
    assert worker.standing == mapped()
    worker.end()
    worker.join(60)
    assert igd.table == {}


def test_a_router_that_is_away_for_a_while_is_asked_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upnp, "LOOK", 0.01)
    igd, told = FakeIgd(), threading.Event()
    portal, standings = portal_of(igd), list[Standing]()
    worker = upnp.Worker(portal, Random(1), lambda: told.set() if worker.standing is not None else None)
    refresh = portal.refresh

    def note(ports: Sequence[int]) -> Standing:
        # Forgotten, and then away twice.
        standing = refresh(ports) if len(standings) not in (1, 2) else Standing(refusal="away")
        standings.append(standing)
        igd.table.clear()
        return standing

    monkeypatch.setattr(portal, "refresh", note)
    worker.want([16049])
    worker.start()
    while len(standings) < 4:
        told.wait(0.01)
    worker.end()
    worker.join(60)
    assert [bool(standing.mappings) for standing in standings[:4]] == [True, False, False, True]


def test_a_mapping_that_is_not_wanted_any_more_makes_way_for_another_one() -> None:
    igd = FakeIgd()
    portal = portal_of(igd)
    portal.refresh([16049])
    assert portal.refresh([16050]) == mapped(16050)
    assert set(igd.table) == {16050}


def test_what_a_run_that_was_killed_has_left_is_taken_over_and_what_was_made_by_hand_is_not() -> None:
    igd = FakeIgd()
    igd.table[16049] = HERE
    assert portal_of(igd).refresh([16049]) == mapped()
    igd.table[16049] = (OWN, 16049, "by hand", True, 0)
    assert "somebody else" in portal_of(igd).refresh([16049]).refusal
    assert igd.table[16049][2] == "by hand"


@pytest.mark.parametrize(
    ("error", "why"),
    [
        ("OnlyPermanentLeasesSupported", "only for ever"),
        ("Invalid Args", "only for ever"),
        ("Action not authorized", "does not allow it (UPnP)"),
        ("ConflictInMappingEntry", "somebody else"),
        ("NoPortMapsAvailable", "no room"),
        ("Miniupnpc HTTP \x1b[2J", "fails to map a port (UPnP): Miniupnpc HTTP [2J"),
    ],
)
def test_an_error_is_a_sentence_and_no_permanent_mapping_is_made(error: str, why: str) -> None:
    igd = FakeIgd()
    igd.errors = dict.fromkeys(PORTS, error)
    standing = portal_of(igd).refresh(PORTS)
    assert standing.mappings == ()
    assert why in standing.refusal
    assert ROUTER in standing.refusal
    assert igd.table == {}


def test_a_conflict_of_one_port_leads_to_the_next_one() -> None:
    igd = FakeIgd()
    igd.errors = {16049: "ConflictInMappingEntry"}
    assert portal_of(igd).refresh(PORTS) == mapped(16050)


def test_a_router_that_maps_and_says_that_it_failed_is_believed_by_its_table() -> None:
    igd = FakeIgd()
    igd.errors, igd.maps_though_it_fails = {16049: "Action Failed"}, True
    portal = portal_of(igd)
    assert portal.refresh([16049]) == mapped()
    portal.refresh([])
    assert igd.table == {}


def test_a_lease_that_became_permanent_is_taken_back() -> None:
    igd = FakeIgd()
    igd.makes_permanent = True
    assert "only for ever" in portal_of(igd).refresh([16049]).refusal
    assert igd.table == {}


@pytest.mark.parametrize("outside", ["192.168.0.9", "100.64.1.1"])
def test_a_second_nat_is_told(outside: str) -> None:
    igd = FakeIgd(outside)
    assert portal_of(igd).refresh(PORTS) == Standing(behind=outside)
    assert igd.asked == []


def test_a_router_that_is_not_connected_or_tells_no_address_maps_nothing() -> None:
    assert "no address in the Internet" in portal_of(FakeIgd("0.0.0.0")).refresh(PORTS).refusal
    for outside in ("", "fe80::1", "a.example"):
        assert "no UPnP router" in portal_of(FakeIgd(outside)).refresh(PORTS).refusal


def test_no_device_is_silence() -> None:
    assert portal_of(FakeIgd(), None).refresh(PORTS) == Standing(silent=True)


def test_a_device_that_is_controlled_elsewhere_is_not_asked() -> None:
    igd = FakeIgd()
    igd.control = "http://127.0.0.3:5000/ctl"
    assert "elsewhere" in portal_of(igd).refresh(PORTS).refusal
    other = FakeIgd(own="127.0.0.9")
    assert "elsewhere" in portal_of(other).refresh(PORTS).refusal
    assert igd.asked == other.asked == []


def test_a_router_that_was_started_anew_is_searched_again() -> None:
    before, after = FakeIgd(), FakeIgd()
    made = [after, before]
    portal = Portal(ROUTER, OWN, lambda: made.pop(), lambda: f"http://{ROUTER}/desc.xml")
    portal.refresh([16049])
    before.outside = "gone"
    assert portal.refresh([16049]) == mapped()
    assert set(after.table) == {16049}


# ---- miniupnpc itself

SERVICE = "urn:schemas-upnp-org:service:WANIPConnection:1"
DESCRIPTION = """<?xml version="1.0"?><root xmlns="urn:schemas-upnp-org:device-1-0">{base}<device>
<deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType><deviceList><device>
<deviceType>urn:schemas-upnp-org:device:WANDevice:1</deviceType><serviceList><service>
<serviceType>urn:schemas-upnp-org:service:WANCommonInterfaceConfig:1</serviceType>
<controlURL>/common</controlURL></service></serviceList><deviceList><device>
<deviceType>urn:schemas-upnp-org:device:WANConnectionDevice:1</deviceType><serviceList><service>
<serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType><controlURL>/ctl</controlURL>
</service></serviceList></device></deviceList></device></deviceList></device></root>"""


class HttpIgd:
    """A router that speaks UPnP over HTTP on the loopback; what it answers is from a FakeIgd."""

    def __init__(self) -> None:
        self.igd = FakeIgd()
        self.description = DESCRIPTION.format(base="").encode()
        # Whether only the first byte of the description is sent until it may go on.
        self.drips = False
        self.dripping, self.go_on = threading.Event(), threading.Event()

    def soap(self, action: str, body: str) -> str:
        """Return the elements of an answer, or raise as a FakeIgd does."""
        fields = dict(re.findall(r"<(New\w+)>([^<]*)</", body))
        port = int(fields.get("NewExternalPort") or 0)
        if action == "GetExternalIPAddress":
            return f"<NewExternalIPAddress>{self.igd.outside}</NewExternalIPAddress>"
        if action == "AddPortMapping":
            self.igd.addportmapping(
                port,
                fields["NewProtocol"],
                fields["NewInternalClient"],
                int(fields["NewInternalPort"]),
                fields["NewPortMappingDescription"],
                fields.get("NewRemoteHost", ""),
                int(fields["NewLeaseDuration"]),
            )
            return ""
        if action == "DeletePortMapping":
            self.igd.deleteportmapping(port, fields["NewProtocol"])
            return ""
        entry = self.igd.getspecificportmapping(port, fields["NewProtocol"])
        if entry is None:
            raise Exception("714")
        names = ("NewInternalClient", "NewInternalPort", "NewPortMappingDescription", "NewEnabled", "NewLeaseDuration")
        values = (*entry[:3], int(entry[3]), entry[4])
        return "".join(f"<{name}>{value}</{name}>" for name, value in zip(names, values, strict=True))


@contextmanager
def served(router: HttpIgd) -> Iterator[str]:
    """Serve it, and yield the URL of its description."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(router.description)))
            self.end_headers()
            self.wfile.write(router.description[:1])
            if router.drips:
                router.dripping.set()
                router.go_on.wait(60)
            self.wfile.write(router.description[1:])

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            action = self.headers["SOAPAction"].strip('"').partition("#")[2]
            try:
                inner, status = (
                    f'<u:{action}Response xmlns:u="{SERVICE}">{router.soap(action, body)}</u:{action}Response>',
                    200,
                )
            except Exception as error:
                inner = f"<s:Fault><detail><UPnPError><errorCode>{error}</errorCode></UPnPError></detail></s:Fault>"
                status = 500
            data = f"<s:Envelope><s:Body>{inner}</s:Body></s:Envelope>".encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer((ROUTER, 0), Handler)
    # Joined by server_close.
    server.daemon_threads = False
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://{ROUTER}:{server.server_port}/desc.xml"
    finally:
        router.go_on.set()
        server.shutdown()
        thread.join()
        server.server_close()


def real(url: str) -> Portal:
    make = installed()
    assert make is not None, "requirements-dev.txt has it"
    return Portal(ROUTER, OWN, make, lambda: url)


def test_miniupnpc_maps_renews_and_takes_back() -> None:
    router = HttpIgd()
    router.igd.table[16049] = ("10.0.0.7", 16049, "somebody", True, 100)
    with served(router) as url:
        portal = real(url)
        assert portal.refresh(PORTS) == mapped(16050)
        assert router.igd.table[16050] == (OWN, 16050, "punchtunnel", True, 600)
        assert portal.refresh(PORTS) == mapped(16050)
        portal.refresh([])
    assert set(router.igd.table) == {16049}


@pytest.mark.parametrize(
    ("code", "why"), [("725", "only for ever"), ("402", "only for ever"), ("606", "does not allow"), ("728", "no room")]
)
def test_miniupnpc_tells_errors_in_the_words_that_are_known(code: str, why: str) -> None:
    router = HttpIgd()
    router.igd.errors = dict.fromkeys(PORTS, code)
    with served(router) as url:
        assert why in real(url).refresh(PORTS).refusal


def test_miniupnpc_writes_nothing_where_nobody_listens_any_more(capfd: pytest.CaptureFixture[str]) -> None:
    """It told stderr of each connection that a router, or one that was gone, had refused."""
    with served(HttpIgd()) as url:
        portal = real(url)
        assert portal.refresh(PORTS).mappings
    assert portal.refresh(PORTS).refusal.endswith(": Connection refused")
    portal.refresh(())
    assert capfd.readouterr().err == ""


def test_miniupnpc_is_not_led_elsewhere_by_a_description() -> None:
    router, other = HttpIgd(), HttpIgd()
    router.description = DESCRIPTION.format(base="<URLBase>http://127.0.0.3:9/</URLBase>").encode()
    with served(router) as url:
        assert "elsewhere" in real(url).refresh(PORTS).refusal
    assert other.igd.asked == router.igd.asked == []


@pytest.mark.parametrize("junk", [b"", b"<a>" * 20_000, b"\xff" * 65_536, DESCRIPTION.encode() * 60])
def test_a_hostile_description_is_a_refusal(junk: bytes) -> None:
    router = HttpIgd()
    router.description = junk.replace(b"/ctl", b"/%s")
    with served(router) as url:
        standing = real(url).refresh(PORTS)
    assert standing.mappings == () or standing == mapped()


def test_a_description_that_drips_costs_a_thread_that_nobody_waits_for() -> None:
    router = HttpIgd()
    router.drips = True
    with served(router) as url:
        told = threading.Event()
        worker = upnp.Worker(real(url), Random(1), told.set)
        worker.want(PORTS)
        worker.start()
        assert router.dripping.wait(30)
        worker.end()
        worker.join(0.0)
        assert not told.is_set()
        router.go_on.set()
        worker.join(30)
        assert told.is_set()
    assert router.igd.table == {}
