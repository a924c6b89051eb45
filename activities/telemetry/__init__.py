"""Traces, metrics and logs of activities."""
