"""The calls and streams of a Python program."""
