"""--pair and --peers: what is saved is made, and listed."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

from punchtunnel import words
from punchtunnel.address import is_public, parse_peer
from punchtunnel.cli import pairing, peers
from punchtunnel.cli.options import Options
from punchtunnel.errors import LocalError, SignalError, UsageError
from punchtunnel.words import usage

_FOR_PAIRING = {"pair", "peers", "stun", "relay", "meet", "bind", "ipv4", "ipv6", "quiet", "verbose"}
_FOR_LISTING = {"list_peers", "as_json", "meet", "relay"}

# Characters: those of a terminal, with its end (termios(3)).
_LONGEST_LINE = 4096


def perform(options: Options, show: Callable[[str], None]) -> None:
    """Pair, or list what is saved.

    Args:
        options: Of the command line.
        show: Prints a line to stdout.

    Raises:
        UsageError: An option does not go with it, or what was typed is wrong.
        LocalError: The file cannot be read or written, or others can read it.
    """
    path = peers.path_of(os.environ)
    wanted, sentence = (
        (_FOR_PAIRING, usage.PAIR_ALONE) if options.pair is not None else (_FOR_LISTING, usage.PEERS_ALONE)
    )
    if any(getattr(options, one.name) for one in fields(options) if one.name not in wanted):
        raise UsageError(sentence)
    if options.pair is not None:
        _pair(options, options.pair, path, show)
    else:
        _list(peers.read(path), path, show, as_json=options.as_json)


def _list(saved: dict[str, peers.Saved], path: Path, show: Callable[[str], None], *, as_json: bool) -> None:
    """Show every saved peer, without its secret."""
    if not saved and not as_json:
        show(usage.NO_SAVED_PEERS.format(path=path))
    for one in saved.values():
        if as_json:
            show(json.dumps({"name": one.name, "peers": one.peers, "secret": bool(one.secret), "options": one.options}))
            continue
        options = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in one.options.items()]
        show("  ".join([one.name, *one.peers, *options]))


def _pair(options: Options, name: str, path: Path, show: Callable[[str], None]) -> None:
    if not peers.is_name(name):
        raise UsageError(usage.NOT_A_NAME.format(name=name))
    saved = peers.read(path)
    if name in saved:
        raise UsageError(usage.PEER_IS_SAVED.format(path=path, name=name))
    for peer in saved.keys() & set(options.peers or ()):
        raise UsageError(usage.PAIR_WITH_SAVED.format(peer=peer))
    relay = next(iter(options.relay or options.meet or ()), "")
    given = [str(parse_peer(text)) for text in options.peers or ()]
    # Before the other machine saves what this one cannot.
    peers.prepare(path)
    addresses = _own_addresses(options)
    # The other machine may be told this one's address there, as this one has been.
    if not (addresses or relay or given):
        _say(usage.NO_ADDRESS_KNOWN)

    def tell(sentence: str, code: str) -> None:
        _say(sentence)
        show(code)
        _draw(code)

    found = pairing.pair(addresses, relay, os.urandom, _ask, tell)
    extra: dict[str, peers.Value] = {"channel": found.channel}
    if found.relay:
        extra["meet" if options.meet and not options.relay else "relay"] = [found.relay]
    known = tuple(dict.fromkeys([*given, *found.addresses]))
    peers.add(path, peers.Saved(name, known, options=extra), found.secret)
    _say(usage.paired(name, path, bool(known or found.relay), found.is_answered))


def _own_addresses(options: Options) -> list[str]:
    """Return the addresses by which others reach this machine: as STUN servers see it, and its own public ones."""
    # Imported late: no other run needs it.
    from punchtunnel.cli.values import bind_of
    from punchtunnel.doctor import public_addresses, stun_places
    from punchtunnel.system.addresses import own_addresses

    seen: list[str] = []
    if options.stun:
        seen, sentences = public_addresses(stun_places(options.stun), bind_of(options))
        for sentence in [] if seen else sentences:
            _say(sentence)
    own = [one for one in own_addresses() if "%" not in one and is_public(one)]
    found = list(dict.fromkeys([*seen, *own]))
    return [one for one in found if not (options.ipv4 and ":" in one) and not (options.ipv6 and ":" not in one)]


def _ask(prompt: str, read: Callable[[str], pairing.Code]) -> pairing.Code | None:
    """Return what `read` makes of a line of stdin, or None if that is empty.

    A person at a terminal is asked, and asked again after a mistake.

    Raises:
        UsageError: What was typed is wrong, and no person is there; or Ctrl-D was typed.
        SignalError: Ctrl-C was typed.
        LocalError: stdin cannot be read.
    """
    if sys.stdin is None:
        return None
    is_person = sys.stdin.isatty()
    while True:
        try:
            text = _line(prompt if is_person else "")
            return read(text) if text else None
        except EOFError:
            raise UsageError(usage.NOT_PAIRED) from None
        except UsageError as error:
            if not is_person:
                raise
            _say(str(error))


def _line(prompt: str) -> str:
    """Return a line of stdin without spaces around it; with a prompt, which is for a terminal, EOF is an error.

    Raises:
        EOFError: Ctrl-D was typed at the prompt.
        UsageError: It is no text.
        SignalError, LocalError: See `_ask`.
    """
    # Ctrl-C raises an exception, from the prompt on.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        _show(prompt)
        line = sys.stdin.readline(_LONGEST_LINE)
    except OSError as error:
        raise LocalError(words.cannot(words.READ_STDIN, error)) from error
    except UnicodeDecodeError:
        # `from None`: the cause would show bytes of a code.
        raise UsageError(usage.NOT_A_CODE) from None
    except KeyboardInterrupt as error:
        _end_line(prompt)
        raise SignalError(signal.SIGINT) from error
    finally:
        signal.signal(signal.SIGINT, before)
    if prompt and not line.endswith("\n"):
        _end_line(prompt)
        raise EOFError
    return line.strip()


def _end_line(prompt: str) -> None:
    """End the line of a prompt, so that what comes next has one of its own."""
    if prompt:
        _show("\n")


def _show(text: str) -> None:
    if sys.stderr is not None:
        print(text, end="", file=sys.stderr, flush=True)


def _say(sentence: str) -> None:
    if sys.stderr is not None:
        print(f"punchtunnel: {sentence}", file=sys.stderr, flush=True)


def _draw(code: str) -> None:
    """Draw a code as a QR code on a terminal, if the extra is installed."""
    if sys.stdout is None or not sys.stdout.isatty():
        return
    try:
        import segno
    except ImportError:
        return
    segno.make(code).terminal(compact=True)
