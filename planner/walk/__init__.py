"""How a graph of tasks is walked: which task may start, and a part of it that runs as one. Pure."""
