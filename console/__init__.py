"""What the command line shows and starts: views, and the local development server."""
