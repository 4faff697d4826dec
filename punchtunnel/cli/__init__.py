"""The command line: options become values, and a run becomes an exit status."""
