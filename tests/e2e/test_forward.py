"""Local ports: -L on one side, --to on the other, and many connections through one hole."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from punchtunnel.system.tcp import close_with_reset

from .conftest import on_every_path, on_one_path
from .ends import Lab
from .flows import MIB, discard, echo, free_port, noise, receive, sockets


async def talk(port: int, size: int, seed: int) -> None:
    """Send random bytes to an echo server and compare every byte that comes back."""
    data = noise(size, seed)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def send() -> None:
        writer.write(data)
        await writer.drain()
        writer.write_eof()

    _, back = await asyncio.gather(send(), reader.read(-1))
    writer.close()
    await writer.wait_closed()
    assert back == data


def talk_at_once(port: int, count: int, size: int) -> None:
    async def talks() -> None:
        await asyncio.gather(*(talk(port, size, seed) for seed in range(count)))

    asyncio.run(asyncio.wait_for(talks(), 90))


def ask(port: int, question: bytes) -> bytes:
    """Connect, send, half-close, and return everything that comes back."""
    with socket.create_connection(("127.0.0.1", port), 30) as sock:
        sock.sendall(question)
        sock.shutdown(socket.SHUT_WR)
        return receive(sock)


@on_every_path
def test_200_connections_through_one_port_at_once_return_every_byte(lab: Lab) -> None:
    left, right = lab.tunnel(lab.serve(echo))
    talk_at_once(left.port, 200, 100_000)
    # And nothing of them is left: no stream, no descriptor.
    left.wait_for("stream_closed", 200)
    right.wait_for("stream_closed", 200)
    for end, name in ((left, "listener and hole"), (right, "hole")):
        held = [target for target in end.descriptors() if target.startswith("socket:")]
        # Sockets of the loop itself (its wake-up pair) do not count twice.
        # A side that can resume has one by which it hears of changed addresses.
        assert len(held) <= 5 + ("--plain" not in lab.options), f"{name}: {held}"


def test_one_large_transfer_through_a_port_does_not_starve_a_small_one(lab: Lab) -> None:
    left, _ = lab.tunnel(lab.serve(echo))

    async def both() -> None:
        large = asyncio.create_task(talk(left.port, 100 * MIB, 1))
        for seed in range(20):
            await talk(left.port, 1000, seed)
        await large

    asyncio.run(asyncio.wait_for(both(), 90))


def test_both_sides_listen_and_dial_at_the_same_time(lab: Lab) -> None:
    def shout(sock: socket.socket) -> None:
        sock.sendall(receive(sock).upper())

    left, right = lab.pair(["-L", "0", "--to", str(lab.serve(echo))], ["-L", "0", "--to", str(lab.serve(shout))])
    assert ask(left.port, b"to the right") == b"TO THE RIGHT"
    assert ask(right.port, b"to the left") == b"to the left"
    talk_at_once(right.port, 20, MIB)


def test_listening_twice_leads_both_ports_to_the_target(lab: Lab) -> None:
    left, _ = lab.tunnel(lab.serve(echo), "0", "0")
    left.wait_for("listening", 4)
    ports = {int(event["place"].rpartition(":")[2]) for event in left.find("listening")}
    assert len(ports) == 2
    assert [ask(port, b"%d" % port) for port in ports] == [b"%d" % port for port in ports]


def test_clients_that_come_before_the_hole_are_served_by_it(lab: Lab) -> None:
    left = lab.start_left("-L", "0")
    client = lab.connect(left.port)
    client.sendall(b"early bird")
    client.shutdown(socket.SHUT_WR)
    lab.start_right("--to", str(lab.serve(echo)))
    assert receive(client) == b"early bird"


def test_target_may_be_named_by_host_and_by_ipv6_address(lab: Lab) -> None:
    listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    lab.serve_on(listener, echo)
    left, _ = lab.tunnel(f"[::1]:{listener.getsockname()[1]}")
    assert ask(left.port, b"six") == b"six"


def test_name_with_two_addresses_is_tried_at_each(lab: Lab) -> None:
    """`localhost` may be ::1 first, where this server does not listen."""
    left, _ = lab.tunnel(f"localhost:{lab.serve(echo)}")
    assert ask(left.port, b"by name") == b"by name"


# ---- where the port is


def test_unix_sockets_may_stand_for_both_ports(lab: Lab) -> None:
    inside, outside = lab.folder / "inside", lab.folder / "outside"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(inside))
    listener.listen()
    lab.serve_on(listener, echo)
    left, right = lab.tunnel(f"unix:{inside}", f"unix:{outside}")
    assert left.wait_for("listening")["place"] == f"unix:{outside}"
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(outside))
        client.sendall(b"by path")
        client.shutdown(socket.SHUT_WR)
        assert receive(client) == b"by path"
    for end in (left, right):
        end.wait_for("stream_closed")
    left.process.terminate()
    assert (left.status(), right.status()) == (143, 0)
    assert not outside.exists()


def test_unix_path_that_nobody_listens_on_any_more_is_taken_over(lab: Lab) -> None:
    path = lab.folder / "stale"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert path.exists()
    lab.tunnel(lab.serve(echo), f"unix:{path}")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(b"mine now")
        client.shutdown(socket.SHUT_WR)
        assert receive(client) == b"mine now"


def test_what_has_taken_the_place_of_our_unix_socket_is_left_alone(lab: Lab) -> None:
    path = lab.folder / "ours"
    left = lab.start_left("-L", f"unix:{path}")
    left.wait_for("listening")
    path.unlink()
    path.write_text("somebody else's")
    left.process.terminate()
    assert left.status() == 143
    assert path.read_text() == "somebody else's"


def test_unix_path_of_a_living_program_is_left_alone(lab: Lab) -> None:
    path = lab.folder / "living"
    with socket.socket(socket.AF_UNIX) as alive:
        alive.bind(str(path))
        alive.listen()
        left = lab.start_left("-L", f"unix:{path}")
        assert left.status() == 5
        assert str(path) in left.reason
    assert path.exists()


def test_unix_path_of_an_ordinary_file_is_left_alone(lab: Lab) -> None:
    path = lab.folder / "file"
    path.write_bytes(b"precious")
    left = lab.start_left("-L", f"unix:{path}")
    assert left.status() == 5
    assert path.read_bytes() == b"precious"


def test_port_in_use_is_exit_5_with_one_sentence_before_anything_is_punched(lab: Lab) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        left = lab.start_left("-L", str(port))
        assert left.status() == 5
    assert left.reason == f"cannot listen on 127.0.0.1:{port}: Address already in use"
    assert not left.find("punching")


def test_port_listens_on_loopback_unless_told_otherwise(lab: Lab) -> None:
    left = lab.start_left("-L", "0", "-L", f"{lab.left}:0")
    left.wait_for("listening", 3)
    places = [event["place"].rpartition(":") for event in left.find("listening")]
    assert [host for host, _, _ in places] == ["127.0.0.1", "[::1]", lab.left]
    listening = [line.split()[0] for line in sockets("0A")]
    assert all(f"{host}:{port}" in listening for host, _, port in places if ":" not in host)


# ---- one connection: -L or --to against stdio


def test_first_client_of_a_port_talks_to_the_far_sides_stdio(lab: Lab) -> None:
    left, right = lab.pair(["-L", "0"])
    with socket.create_connection(("127.0.0.1", left.port), 30) as client:
        client.sendall(b"hello stdio")
        assert right.receive(11) == b"hello stdio"
        right.send(b"hello client")
        right.send_eof()
        assert receive(client) == b"hello client"
        client.sendall(b"the end")
        client.shutdown(socket.SHUT_WR)
        assert right.receive() == b"the end"
    assert (left.status(), right.status()) == (0, 0)


def test_second_client_of_a_port_that_leads_to_stdio_gets_nothing(lab: Lab) -> None:
    left, right = lab.pair(["-L", "0"])
    first, second = lab.connect(left.port), lab.connect(left.port)
    first.sendall(b"first")
    assert right.receive(5) == b"first"
    with contextlib.suppress(OSError):
        second.sendall(b"second")
    first.shutdown(socket.SHUT_WR)
    assert right.receive() == b""
    right.send_eof()
    assert (left.status(), right.status()) == (0, 0)
    with contextlib.suppress(ConnectionResetError):
        assert receive(second) == b""


def test_stdio_is_joined_to_the_target_of_the_far_side(lab: Lab) -> None:
    left, right = lab.pair([], ["--to", str(lab.serve(echo))])
    left.feed([noise(MIB)])
    assert left.receive() == noise(MIB)
    assert (left.status(), right.status()) == (0, 0)


def test_stdio_without_input_receives_all_that_a_target_says(lab: Lab) -> None:
    def greet(sock: socket.socket) -> None:
        assert receive(sock) == b""
        sock.sendall(noise(MIB))

    left, right = lab.pair(["-n"], ["--to", str(lab.serve(greet))])
    assert left.receive() == noise(MIB)
    assert (left.status(), right.status()) == (0, 0)


# ---- a target that is not there


def test_refused_target_resets_only_that_client_and_both_sides_say_why(lab: Lab) -> None:
    port = free_port()
    left, right = lab.tunnel(port)
    for number in (1, 2):
        with pytest.raises(ConnectionResetError):
            ask(left.port, b"anybody there?")
        for end in (left, right):
            event = end.wait_for("target_refused", number)
            assert "refused" in event["reason"]
        assert f"localhost:{port}" in event["reason"]
    # The tunnel stays up, and works as soon as the target does.
    lab.serve_on(socket.create_server(("127.0.0.1", port)), echo)
    assert ask(left.port, b"now?") == b"now?"


def test_refused_target_leaves_the_other_clients_alone(lab: Lab) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    left, _ = lab.tunnel(listener.getsockname()[1])
    with socket.create_connection(("127.0.0.1", left.port), 30) as client:
        client.sendall(b"one")
        server, _ = listener.accept()
        with server:
            assert receive(server, 3) == b"one"
            listener.close()
            with pytest.raises(ConnectionResetError):
                ask(left.port, b"late")
            server.sendall(b"two")
            assert receive(client, 3) == b"two"


def test_clients_that_abort_while_the_target_is_being_reached_end_nothing_but_themselves(lab: Lab) -> None:
    """A RST in the turn in which connect() had ended used to end the whole service with a KeyError."""
    left, right = lab.tunnel(lab.serve(echo))
    for _ in range(300):
        close_with_reset(socket.create_connection(("127.0.0.1", left.port), 30))
    assert ask(left.port, b"still there?") == b"still there?"
    assert right.process.poll() is None


@pytest.mark.parametrize(
    ("target", "why"), [("127.0.0.1:{port}", "refused"), ("unix:{folder}/missing", ""), ("no-such-host.invalid:22", "")]
)
def test_refused_target_of_stdio_is_exit_6_with_one_sentence(lab: Lab, target: str, why: str) -> None:
    target = target.format(port=free_port(), folder=lab.folder)
    left, right = lab.pair([], ["--to", target])
    left.send(b"anybody there?")
    assert left.status() == 6
    assert "target" in left.reason
    assert why in left.reason
    assert right.status() in (1, 6)
    assert target in right.reason
    assert "\n" not in left.reason + right.reason


def test_data_that_comes_before_the_target_has_accepted_waits_for_it(lab: Lab) -> None:
    """A listener with a full queue: connect() hangs until somebody accepts."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        with contextlib.ExitStack() as stack:
            # The queue of 0 takes one; a second SYN is dropped until it is accepted.
            stack.enter_context(socket.create_connection(address, 30))
            left, right = lab.tunnel(address[1])
            client = lab.connect(left.port)
            client.sendall(noise(300_000))
            client.shutdown(socket.SHUT_WR)
            left.wait_for("stream_opened")
            listener.accept()[0].close()
            server, _ = listener.accept()
            with server:
                assert receive(server) == noise(300_000)
                server.sendall(b"thanks")
            assert receive(client) == b"thanks"
            right.wait_for("stream_opened")


def test_discarding_target_ends_with_eof_both_ways(lab: Lab) -> None:
    left, right = lab.tunnel(lab.serve(discard))
    assert ask(left.port, noise(MIB)) == b""
    left.wait_for("stream_closed")
    right.wait_for("stream_closed")


def test_unix_path_that_is_too_long_is_one_sentence(lab: Lab) -> None:
    left = lab.start_left("-L", "unix:/tmp/" + "x" * 200)
    assert left.status() == 2
    assert "path" in left.reason
    assert "\n" not in left.reason


@on_one_path
def test_ports_that_others_can_reach_are_said_once_and_ports_of_services_are_found(lab: Lab) -> None:
    """`-L :8080`, as ssh takes it, was no address."""
    left = lab.start_left("-L", ":0", "-L", "*:0", "-L", "0")
    warning = left.wait_for("warning")["reason"]
    for listening in left.find("listening"):
        assert (listening["place"] in warning) is not listening["place"].startswith(("127.", "[::1]"))
    lab.start_right("--to", "ssh").wait_for("link_up")
    left.wait_for("link_up")
    assert len(left.find("warning")) == 1
