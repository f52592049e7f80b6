"""Corrected masks in, a better model out; runs in a process of its own."""
