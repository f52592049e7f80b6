"""A long job as others see it: what it is asked for, what it says, its folder and its process; no torch."""
