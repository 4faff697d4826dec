"""What a stream is joined to: a socket, stdin and stdout, a listener, a target."""
