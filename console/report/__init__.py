"""A run as one HTML page: a report in a file, or a live page on loopback."""
