"""One scanner or one dataset is for testing, the others for training."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from sonoloop.errors import TrainingError
from sonoloop_training.datasets import Sample
from sonoloop_training.splits.hashed import split
from sonoloop_training.splits.parts import Part, check_filled_and_apart, expected_parts

logger = logging.getLogger(__name__)


def leave_out(
    samples: Sequence[Sample],
    *,
    scanner: str | None = None,
    dataset: str | None = None,
    validation: float,
    key: str = "sonoloop",
) -> dict[Part, list[Sample]]:
    """Test on one scanner or one dataset, train and validate on the others.

    Groups with images on both sides are named in the log, and their images dropped from training.
    """
    if (scanner is None) == (dataset is None):
        raise ValueError("give either a scanner or a dataset to leave out")
    tested = [s for s in samples if (s.dataset == dataset if scanner is None else s.scanner == scanner)]
    if not tested:
        kind, wanted = ("dataset", dataset) if scanner is None else ("scanner", scanner)
        known = sorted({getattr(s, kind) for s in samples} - {""})
        raise TrainingError(
            f"no image is of the {kind} {wanted!r}; there are: {', '.join(known) or 'none that is known'}"
        )
    both = _groups_on_both_sides(samples, tested)
    if both:
        logger.warning(
            "dropped from training, for they are in the test too: %s%s",
            ", ".join(both[:10]),
            f" and {len(both) - 10} more" if len(both) > 10 else "",
        )
    out = {s.group for s in tested}
    parts = split([s for s in samples if s.group not in out], validation=validation, test=0, key=key)
    parts["test"] = tested
    return check_filled_and_apart(parts, expected=[*expected_parts(validation, 0), "test"])


def _groups_on_both_sides(samples: Sequence[Sample], tested: Sequence[Sample]) -> list[str]:
    """Return the groups that have images among the tested and among the others, sorted."""
    names = {(s.dataset, s.name) for s in tested}
    others = {s.group for s in samples if (s.dataset, s.name) not in names}
    return sorted(others & {s.group for s in tested})
