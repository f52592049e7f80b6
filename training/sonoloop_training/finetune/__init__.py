"""Corrections make the model better: what is learned, from where, and in which folder."""
