"""The entry point of `punchtunnel` and `python -m punchtunnel`."""

import signal
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line."""
    # Until the command line is loaded Ctrl-C ends us as it ends any program,
    # without a traceback.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from punchtunnel.cli.command import main as run

    run()


if __name__ == "__main__":
    main()
