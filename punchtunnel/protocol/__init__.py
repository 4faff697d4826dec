"""What both sides must agree on: bytes and values, as in docs/PROTOCOL.md.  Pure: no socket, clock or loop."""
