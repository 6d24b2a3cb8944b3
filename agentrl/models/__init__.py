"""Small policies that are built and trained on the spot."""
