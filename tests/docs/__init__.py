"""What the documents say is true: words, links, and every code block."""
