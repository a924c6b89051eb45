"""Tools of MCP servers: connections, and each tool as a Planloom tool."""
