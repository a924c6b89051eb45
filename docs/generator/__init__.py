"""What `make docs` writes: reference pages from the code, and the hook of the site."""
