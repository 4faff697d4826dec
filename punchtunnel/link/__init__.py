"""Streams over one hole: who sends when, and what waits where."""
