"""The machine of an agent: turns and tool calls from its task to its answer."""
