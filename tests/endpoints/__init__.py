"""Recorded exchanges with model endpoints, replayed as real runs; see README.md."""
