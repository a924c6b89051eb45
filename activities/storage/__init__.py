"""What is kept outside history: blobs, cached results, claims of side effects."""
