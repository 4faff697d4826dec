"""The whole tool as real processes on real sockets, and with programs that nobody here wrote.

ends.py starts processes and waits on the events they print; the tests read as
sentences.  Every test has two loopback addresses and a channel of its own, so
that any number of tests can run at the same time.
"""
