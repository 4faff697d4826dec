"""What is wrong with a command line, or with the arguments of the library.

Sentences with fields are filled in by `str.format`; a test compares the fields
with those that each raise gives.
"""
# ruff: noqa: S105 -- sentences about secrets, none of them one

from __future__ import annotations

# ---- PEER and places

NO_PEER = "no peer: give the address of the other machine"
NOT_ONE_MACHINE = "{text!r} is not the address of one machine"
BROADCAST = "{text!r} is a broadcast address, not a machine"
PEER_WITH_PORT = "{text!r} has a port, but PEER is an address only: both sides derive the ports"
PEER_IS_PORT = "{text!r} is no PEER: a port belongs to -L here, or to --to there"
NO_INTERFACE = "{text!r} needs its interface, as in fe80::1%eth0"
NOT_A_PEER = "{text!r} is neither an address nor a host name"
NOT_A_BIND = "--bind {text!r} is not an IPv4 or IPv6 address"
NOT_OURS = "--bind {text!r} is not the address of one machine: leave it out to use any"
NOT_LOCAL = "-L {text!r} is more than the port here: where it leads is said by --to on the other side"
NO_PATH = "{option} {text!r} names no path behind unix:"
LONG_PATH = "{option}: the path of a Unix socket has at most {limit} bytes"
NO_BRACKETS = "{option} {text!r}: put an IPv6 address in brackets, as in [::1]:{port}"
NO_PORT = "{option} {text!r} does not end in a port number"
PORT_OUTSIDE = "{option} {text!r}: port {port} is outside {lowest}–65535"
NOT_A_HOST = "{option} {text!r}: {host!r} is neither an address nor a host name"
NOT_A_SERVER = "{option} {text!r} is no HOST[:PORT]"
NOT_A_CHANNEL = "the name of the channel is not valid UTF-8"

# ---- options that contradict each other

BOTH_FAMILIES = "-4 and -6 contradict each other; without them both are tried"
OTHER_FAMILY = "--bind {bind} is of the other family than -4 or -6 asks for"
QUIET_AND_VERBOSE = "-q and -v contradict each other"
NOTHING_TO_DO = "--send-only together with --recv-only or -n leaves nothing to do"
STDIO_AND_PORTS = "--stdio contradicts -L and --to: a side has stdio, or connections, not both"
STDIO_OPTIONS = "-n, --send-only and --recv-only are for stdio; -L and --to carry both directions"
KEEP_WITH_STDIN = "-k with stdin would lose what was read when a hole is lost: add --recv-only"
CHECK_ALONE = "-z only checks the path, once: leave -k and --progress away"
PROGRESS_OF_PORTS = "--progress is for stdio; with -L and --to a terminal shows the traffic by itself"
PROGRESS_AND_JSON = "--progress and --json cannot share stderr: give the events a --status-fd"
DOCTOR_ALONE = (
    "--doctor looks at this machine, and all of it: only --stun, --ntp, --json, --status-fd, -v and -q go with it"
)
FOR_DOCTOR = "--stun and --ntp are for --doctor"

# ---- numbers

NOT_SECONDS = "{option} needs a number of seconds, not {seconds:g}"
NOT_A_FAMILY = "family is 0, 4 or 6, not {family}"
CANNOT_WAIT = "cannot wait for {seconds} seconds"

# ---- secrets

PLAIN_WITH_SECRET = "plain contradicts a secret: a link that is not sealed proves nothing"
PLAIN_AND_SECRET = "--plain contradicts a secret (also in {variable}): a link that is not sealed proves nothing"
NO_SECRET = "--require-secret, but there is none: give --secret-file, --ask-secret or {variable}"
NOTHING_TYPED = "no secret was typed"
NOBODY_TO_ASK = "--ask-secret needs a terminal: give --secret-file FILE"
SECRET_NOT_TEXT = "what was typed is not text in this terminal's encoding: give --secret-file FILE"
EMPTY_SECRET = "the secret is empty: `punchtunnel --new-secret` prints one"
LONG_SECRET = "the secret must be one line of at most {limit} bytes"
FILE_AND_ASK = "--secret-file and --ask-secret contradict each other"
LONG_SECRET_FILE = "the secret in {path} has more than {limit} bytes"

# ---- what is told, and where to

NOT_OPEN = "--status-fd {fd} is not open: the caller must open it, as in 3>events"
NOT_FOR_WRITING = "--status-fd {fd} is open for reading only"
STATUS_FD_IS_STDOUT = "--status-fd 1 would mix events with what the peer sends: give another one, as in 3>events"
