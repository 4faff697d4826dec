"""What to do instead: for fingers that know ssh, nc or a browser, and for whoever typed nothing but the name."""

from __future__ import annotations

from typing import Final

# Without an argument: what a person needs for the first try, on one screen of 80 columns.
NOTHING_GIVEN: Final = """\
usage: punchtunnel PEER [OPTION]...      one command on each of the two machines

  home$   punchtunnel 203.0.113.9 -k --to 22 --secret-file secret
  laptop$ punchtunnel 198.51.100.7 -L 2222 --secret-file secret
  laptop$ ssh -p 2222 me@localhost

PEER is the other machine's public address, and --new-secret prints a secret for
both; --pair NAME saves both under a name.  --doctor looks at this machine,
and --help has every option.
"""

# Of other programs, by the letter that was typed.
OPTIONS_OF_OTHERS: Final = {
    "-R": "-R is ssh's: here each side says its own half, -L PORT where clients connect and --to [HOST:]PORT where "
    "their target is; either side may be either",
    "-D": "-D is ssh's, and punchtunnel is no proxy: go through the hole to one, with --to 22 there, -L 2222 here and "
    "then `ssh -p 2222 -D 1080 me@localhost`",
    "-p": "-p is another program's: the port of a target is that of --to there, and of -L here; one that a router "
    "forwards to punchtunnel itself is --port",
    "-l": "-l is another program's: punchtunnel needs no listening side, both run `punchtunnel PEER`; a local port for "
    "clients is -L PORT, and a user's name belongs to ssh",
    "-e": "-e is nc's, and punchtunnel starts no program for the peer: --to PORT leads to one that listens, as "
    "`socat TCP-LISTEN:PORT,fork,bind=localhost EXEC:...` lets any program do",
    "-u": "-u is nc's: punchtunnel carries TCP only",
    "-J": "-J is ssh's: a way by another host is --via 'ssh HOST ...', and --relay HOST is one by a relay",
    "-o": "-o is ssh's: give it to the ssh that goes through the hole, as in `ssh -p 2222 -o ... me@localhost`",
}

PEER_HAS_USER: Final = (
    "{text!r} names a user: PEER is only the address, and the user belongs to the program that goes through the hole, "
    "as in `ssh -p 2222 me@localhost`"
)
PEER_IS_URL: Final = "{text!r} is a URL: PEER is only the host in it; its port, or {port}, is what --to there leads to"
PLACE_IS_URL: Final = "{option} {text!r} is a URL: give only its host and port, as in {example}"
PLACE_HAS_USER: Final = (
    "{option} {text!r} names a user: give only HOST:PORT; the user belongs to the program that goes through the hole"
)
