"""Everything that touches the world: model calls, tools, blobs, cache, queue settings."""
