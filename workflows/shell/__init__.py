"""Temporal code that feeds events to a machine and carries out its commands. Decides nothing."""
