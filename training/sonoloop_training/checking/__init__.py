"""What a dataset holds, and what must be mended, before anything is trained on it."""
