"""Tools: the decorator, the registry, the runner, and the built-in tools."""
