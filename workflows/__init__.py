"""Deterministic orchestration: pure state machines, and the thin Temporal workflows around them."""
