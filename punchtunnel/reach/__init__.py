"""Helpers that bring more ways to a peer."""
