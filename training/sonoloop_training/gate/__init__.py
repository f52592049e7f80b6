"""Whether a candidate may take the place of the model in use: see ``docs/gate.md``."""
