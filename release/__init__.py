"""What is taken away: the packages, and one file that needs only Python.  `make dist`; docs/PACKAGES.md."""
