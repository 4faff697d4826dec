"""The entry point of `punchtunnel` and `python -m punchtunnel`."""

import signal

# Before anything else is loaded: until the command line has its own handlers,
# Ctrl-C ends this process as it ends any program, without a traceback.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def main() -> None:
    """Run the command line, and exit."""
    import gc

    # Loading makes no garbage worth looking for, and looking is a twentieth of its time; cli/run.py switches it on.
    gc.disable()
    from punchtunnel.cli.command import main as run

    run()


if __name__ == "__main__":
    main()
