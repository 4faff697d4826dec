"""What is wrong with a command line, or with the arguments of the library.

Sentences with fields are filled in by `str.format`.  Each is Final, so that
mypy knows its text and checks the fields that are given to it.
"""
# ruff: noqa: S105 -- sentences about secrets, none of them one

from __future__ import annotations

from typing import Final

# ---- PEER and places

NO_PEER: Final = "no peer: give the address of the other machine"
NOT_ONE_MACHINE: Final = "{text!r} is not the address of one machine"
BROADCAST: Final = "{text!r} is a broadcast address, not a machine"
PEER_PORT_OUTSIDE: Final = "{text!r}: port {port} is outside 1–65535"
PEER_OF_SSH: Final = (
    "{text!r}: port 22 is that of a program, which --to 22 there and -L 2222 here lead to; "
    "a port after PEER is one that --port there listens on"
)
LISTEN_PORT_OF_SSH: Final = (
    "--port 22 is ssh's: give --to 22 here and -L 2222 there; --port is one that punchtunnel itself listens on"
)
LISTEN_PORT_OUTSIDE: Final = "--port {port} is outside 1–65535"
PEER_IS_PORT: Final = "{text!r} is no PEER: a port belongs to -L here, or to --to there"
NO_INTERFACE: Final = "{text!r} needs its interface, as in fe80::1%eth0"
NOT_A_PEER: Final = "{text!r} is neither an address nor a host name"
NOT_A_BIND: Final = "--bind {text!r} is neither an IPv4 or IPv6 address nor an interface of this machine"
NOT_OURS: Final = "--bind {text!r} is not the address of one machine: leave it out to use any"
NOT_LOCAL: Final = "-L {text!r} names more than a port here: --to on the other side says where it leads"
NO_PATH: Final = "{option} {text!r} names no path after unix:"
LONG_PATH: Final = "{option}: the path of a Unix socket has at most {limit} bytes"
NO_BRACKETS: Final = "{option} {text!r}: put an IPv6 address in brackets, as in [::1]:{port}"
NO_SERVICE: Final = "{text!r}: this machine knows no service {name!r}: give the port's number"
NOT_A_PORT: Final = "{text!r} is neither a port number nor a service that this machine knows"
PORT_OUTSIDE: Final = "{option} {text!r}: port {port} is outside {lowest}–65535"
NOT_A_HOST: Final = "{option} {text!r}: {host!r} is neither an address nor a host name"
NOT_A_SERVER: Final = "{option} {text!r} is no HOST[:PORT]"
NOT_A_CHANNEL: Final = "the name of the channel is not valid UTF-8"

# ---- options that contradict each other

BOTH_FAMILIES: Final = "-4 and -6 contradict each other; without them both are tried"
OTHER_FAMILY: Final = "--bind {bind} is not of the family that -4 or -6 asks for"
QUIET_AND_VERBOSE: Final = "-q and -v contradict each other"
NOTHING_TO_DO: Final = "--send-only together with --recv-only or -n leaves nothing to do"
STDIO_AND_PORTS: Final = "--stdio contradicts -L and --to: a side has stdio, or connections, not both"
STDIO_OPTIONS: Final = "-n, --send-only and --recv-only are for stdio; -L and --to carry both directions"
KEEP_WITH_STDIN: Final = "-k with stdin would lose what was read when a hole is lost: add --recv-only"
CHECK_ALONE: Final = "-z only checks the path, once: leave out -k and --progress"
BACKGROUND_OF_STDIO: Final = "-f is for -L and --to: a pipe (stdio) and -z stay where they were started"
PID_FILE_ALONE: Final = "--pid-file is for -f: a shell knows the process that it has started by $!"
PROGRESS_OF_PORTS: Final = "--progress is for stdio; with -L and --to a terminal shows the traffic by itself"
PROGRESS_AND_JSON: Final = "--progress and --json cannot share stderr: give the events a --status-fd"
DOCTOR_ALONE: Final = (
    "--doctor looks at this machine as a whole: only --stun, --ntp, --bind, --no-map, --json, --status-fd, -v and -q "
    "go with it"
)
FORGET_ALONE: Final = "--forget deletes what is remembered of all peers: only --doctor, --json, -v and -q go with it"
FOR_DOCTOR: Final = "--stun is for --doctor, --show, --meet and --relay, and --ntp for --doctor"

VIA_PLAIN: Final = "--plain contradicts --via: whoever is on the way of the command could read and change everything"
VIA_ANYONE: Final = (
    "--via without a secret would let in whoever is at the other end of the command: run `punchtunnel --new-secret`, "
    "and give both sides what it prints by {variable}, --secret-file or --ask-secret"
)

# ---- numbers

WRONG_TYPE: Final = "{name} cannot be of type {kind}"

SESSIONS_OF_A_SERVICE: Final = "--sessions is for a side with -k and --to, and without -L: it serves many"
NO_SESSIONS: Final = "--sessions needs a number from 1 on"
NOT_A_TIME: Final = "{text!r} is no time: give seconds, or a number with its unit, as in 90s, 10m, 1.5h or 1d"
NOT_SECONDS: Final = "{option} needs a time, such as 600, 90s, 10m, 1.5h or 1d, not {seconds:g}"
NOT_A_FAMILY: Final = "family is 0, 4 or 6, not {family}"
CANNOT_WAIT: Final = "cannot wait for {seconds} seconds"

# ---- secrets

PLAIN_WITH_SECRET: Final = "plain contradicts a secret: a link that is not sealed proves nothing"
PLAIN_AND_SECRET: Final = "--plain contradicts a secret (also in {variable}): a link that is not sealed proves nothing"
SERVES_ANYONE: Final = (
    "--to without a secret would let in whoever answers at the peer's address: run `punchtunnel --new-secret`, and "
    "give both sides what it prints by {variable}, --secret-file or --ask-secret; --no-secret lets anybody there in"
)
PROGRAM_SERVES_ANYONE: Final = (
    "a tunnel without a secret would let in whoever answers at the peer's address: give both sides the same secret "
    "(`punchtunnel --new-secret` prints one); no_secret=True lets anybody there in"
)
NO_SECRET_AND_SECRET: Final = "--no-secret contradicts a secret (also in {variable}), and --require-secret"
NO_SECRET_WITH_SECRET: Final = "no_secret=True contradicts a secret"
NO_SECRET: Final = "--require-secret, but there is none: give --secret-file, --ask-secret or {variable}"
NOTHING_TYPED: Final = "no secret was typed"
NOBODY_TO_ASK: Final = "--ask-secret needs a terminal: give --secret-file FILE"
SECRET_NOT_TEXT: Final = "what was typed is not text in this terminal's encoding: give --secret-file FILE"
EMPTY_VARIABLE: Final = "{variable} is set and empty: `punchtunnel --new-secret` prints a secret; or unset it"
EMPTY_SECRET: Final = "the secret is empty: `punchtunnel --new-secret` prints one"
LONG_SECRET: Final = "the secret must be one line of at most {limit} bytes"
FILE_AND_ASK: Final = "--secret-file and --ask-secret contradict each other"
LONG_SECRET_FILE: Final = "the secret in {path} has more than {limit} bytes"

# ---- meeting at a relay

MEETING_IN_PLAIN: Final = "a link that is not sealed has no secret to meet with at a relay: leave out --plain"
BIRTHDAY_WITHOUT_MEETING: Final = "--birthday is for --meet and --relay: ports are guessed by appointment alone"
BIRTHDAY_OUTSIDE: Final = "--birthday {number} is outside 0–{most}"
MEETING_WITHOUT_RESUME: Final = (
    "--meet and --relay contradict --resume 0: a session moves from the relay to a direct hole as it comes back after "
    "a loss"
)
MEETING_WITHOUT_SECRET: Final = (
    "there is no secret to meet with at a relay: run `punchtunnel --new-secret`, and give both sides what it prints"
)
MEETING_WITH_WEAK_SECRET: Final = (
    "this secret is too weak to meet with: the relay could find it by trying; run `punchtunnel --new-secret`, and "
    "give both sides what it prints"
)

# ---- what is told, and where to

NOT_OPEN: Final = "--status-fd {fd} is not open: the caller must open it, as in 3>events"
NOT_FOR_WRITING: Final = "--status-fd {fd} is open for reading only"
STATUS_FD_IS_STDOUT: Final = "--status-fd 1 would mix events with what the peer sends: give another one, as in 3>events"

# ---- saved peers, and pairing

LONG_PEERS: Final = "{path} is longer than saved peers can be: it is another file"
PEERS_NOT_TOML: Final = "{path} cannot be read: it is wrong at {place}{why}"
TOML_TWICE: Final = "a key, or a name in brackets, that stands twice"
TOML_NAME: Final = "a name in brackets has letters, digits, - and _, and a ] behind it"
PEERS_NOT_UTF8: Final = "{path} cannot be read: it is no text in UTF-8"
NOT_A_SAVED_PEER: Final = '{path}: [{name}] is no saved peer: a name, peers = ["ADDRESS"], secret = "…", and options'
NOT_A_SAVED_OPTION: Final = "{path}: [{name}] has {key}, which is no option of a saved peer"
NOT_A_SAVED_VALUE: Final = "{path}: [{name}] {key}: {reason}"
NEEDS: Final = "needs {kind}"
A_FLAG: Final = "true or false"
A_FLAG_OR_SERVICE: Final = "true, or the name of a service in quotes"
A_COUNT: Final = "a number from 0 on, without quotes"
A_NUMBER: Final = "a whole number, without quotes"
A_TEXT: Final = "a text in quotes"
A_LIST: Final = 'a text in quotes, or a list of them, as in ["2222", "8080"]'
A_NUMBER_OR_TEXT: Final = "a number, or a text in quotes"
NO_VALUE: Final = "needs a text in quotes, a number, true or false, or a list of texts"
ONE_SAVED_PEER: Final = (
    "{name} is a saved peer, with a secret and options of its own, and one run meets one saved peer: start one run "
    "for each"
)
PAIR_WITH_SAVED: Final = "{peer} is a saved peer and no address: leave it out, or give the other machine's address"
PEER_IS_SAVED: Final = "there is a peer {name} already: delete its lines in {path}, or pair by another name"
SAVED_SECRET: Final = "a secret is saved for this peer, and --plain and --no-secret are for those without one"
NOT_A_NAME: Final = (
    "{name!r} is no name for a peer: up to 63 letters, digits, - and _, beginning with a letter or a digit"
)
NOT_PAIRED: Final = "nothing was typed: no peer is saved"
PAIR_ALONE: Final = (
    "--pair takes PEERs, if the other machine's address is known, and only --stun, --relay, --meet, --bind, -4, -6, "
    "-q and -v beside them"
)
PEERS_ALONE: Final = "--peers lists what is saved, and takes no PEER and no other option but --json"
NO_SAVED_PEERS: Final = "no peer is saved in {path}: punchtunnel --pair NAME makes one"
ASK_FOR_CODE: Final = "code of the other machine (Enter if it has none yet): "
ASK_FOR_ANSWER: Final = "answer of the other machine (Enter if there is none): "
TELL_CODE: Final = "on the other machine run punchtunnel --pair NAME, and give it this code, which is a secret:"
TELL_ANSWER: Final = "give the other machine this answer:"
NOT_A_CODE: Final = "that is no code of --pair: it has letters and digits in groups of four"
MISTYPED_CODE: Final = "that code was mistyped, or is one of another version: copy it again"
ANSWER_WITHOUT_CODE: Final = "that is an answer, and the machine that has printed the code waits for it: type it there"
TWO_CODES: Final = (
    "that is a code and no answer: on one machine press Enter at the first question, and give its code to the other"
)
NO_ADDRESS_KNOWN: Final = (
    "no public address of this machine is known: give it on the other machine (--pair NAME ADDRESS), or name a STUN "
    "server (--stun HOST) or a relay (--relay HOST)"
)


def paired(name: str, path: object, known: bool, answered: bool) -> str:
    """Say that a peer is saved.

    Args:
        name: As it is given for PEER.
        path: Of the file.
        known: How the other machine can be met is known.
        answered: Its answer was given, where there is one.
    """
    told = f"{name} is saved in {path}" + ("" if answered else ", without an answer of the other machine")
    use = f"punchtunnel {name} --to 22 here and -L 2222 there, or the other way round"
    missing = "" if known else f'; its address is not known yet: write peers = ["ADDRESS"] below [{name}] there'
    return f"{told}: use it as in {use}{missing}"


def no_port(option: str, text: str) -> str:
    """Say that what was given has no port, and how one is given."""
    example = {"-L": "-L 2222", "--to": "--to 22 or --to nas:22"}.get(option, f"{option} 192.0.2.1:3478")
    return f"{option} {text!r} does not end in a port number, as in {example}"
