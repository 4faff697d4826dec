"""`python -m punchtunnel`."""

from punchtunnel.cli import main

if __name__ == "__main__":
    main()
