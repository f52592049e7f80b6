"""Whether a candidate may take the place of the model in use: see ``docs/gate.md``."""

from sonoloop_training.gate.decision import (
    FEWEST_GROUPS,
    Margins,
    Outcome,
    Verdict,
    VerdictName,
    decide,
    to_outcome,
)

__all__ = ["FEWEST_GROUPS", "Margins", "Outcome", "Verdict", "VerdictName", "decide", "to_outcome"]
