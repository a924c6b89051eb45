"""Real runs on a real server, while everything around them is broken: see docs/how-to/chaos.md."""
