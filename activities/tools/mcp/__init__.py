"""Tools of MCP servers: connections, and each tool as one of ours."""
