"""What this machine's kernel knows and does."""
