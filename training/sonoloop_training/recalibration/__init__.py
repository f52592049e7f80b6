"""A model's numbers, fitted on the frames of a project that judge."""
