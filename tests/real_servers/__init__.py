"""Runs against servers that other people wrote; see README.md."""
