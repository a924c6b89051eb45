"""Whole runs against the machines, without Temporal: a world that can be repeated from a seed."""
