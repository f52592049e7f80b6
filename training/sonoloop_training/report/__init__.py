"""Reports a person reads: one HTML file, pictures inside, no network needed."""
