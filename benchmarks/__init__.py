"""Benchmarks that anyone can run: ratios from interleaved rounds, never timed tests."""
