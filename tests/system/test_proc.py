"""Numbers from the files of /proc, and what stands for a file that is not there."""

from __future__ import annotations

import os

import pytest

from punchtunnel.system import proc

from .conftest import Write

TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:2800 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 0100007F:2800 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   2: 0100007F:7FFF 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   3: 0100007F:8000 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   4: 0100007F:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
"""


MOUNTS = """\
24 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
25 24 0:22 / /dev/shm rw,nosuid,nodev shared:3 master:7 - tmpfs tmpfs rw,size=10%
26 24 0:220 / /mnt rw - nfs4 server:/export rw
"""


@pytest.mark.parametrize(("minor", "name"), [(22, "tmpfs"), (220, "nfs4"), (2, None)])
def test_a_file_system_is_found_by_its_device(write_proc: Write, minor: int, name: str | None) -> None:
    write_proc("self/mountinfo", MOUNTS)
    assert proc.file_system(os.makedev(0, minor)) == name


def test_a_port_that_several_sockets_have_counts_once(write_proc: Write) -> None:
    write_proc("net/tcp", TCP)
    write_proc("net/tcp6", TCP)
    assert proc.taken_ports(10240, 32767) == 2


@pytest.mark.parametrize(
    ("range_text", "reserved", "ranges"),
    [
        ("32768\t60999\n", None, [(32768, 60999)]),
        ("32768\t60999\n", "\n", [(32768, 60999)]),
        ("10000\t60999\n", "10240-32767,40000\n", [(10000, 10239), (32768, 39999), (40001, 60999)]),
        ("10000\t20000\n", "1-9,19000-30000\n", [(10000, 18999)]),
        ("10000\t20000\n", "1-65535\n", []),
    ],
)
def test_reserved_ports_are_cut_out_of_the_range(
    write_proc: Write, range_text: str, reserved: str | None, ranges: list[tuple[int, int]]
) -> None:
    write_proc("sys/net/ipv4/ip_local_port_range", range_text)
    if reserved is not None:
        write_proc("sys/net/ipv4/ip_local_reserved_ports", reserved)
    assert proc.ephemeral_ports() == ranges


def test_nothing_is_known_where_there_is_no_proc(write_proc: Write) -> None:
    assert proc.read("net/tcp") is None
    assert proc.ephemeral_ports() is None
    assert proc.taken_ports(0, 65535) == 0


def test_bytes_that_are_no_text_are_as_good_as_no_file(write_proc: Write) -> None:
    write_proc("net/tcp", "")
    (proc.ROOT / "net/tcp").write_bytes(b"\xff")
    assert proc.read("net/tcp") is None


def test_a_file_of_another_form_is_an_error(write_proc: Write) -> None:
    write_proc("net/tcp", "what\nis this? it has words\n")
    with pytest.raises(ValueError, match="invalid literal"):
        proc.taken_ports(0, 65535)
    write_proc("sys/net/ipv4/ip_local_port_range", "what\n")
    with pytest.raises(ValueError, match="invalid literal"):
        proc.ephemeral_ports()
