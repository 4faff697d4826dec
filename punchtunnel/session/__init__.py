"""Policy: what streams are for, and how a session ends."""
