"""Which images trained a model: what a benchmark on a hospital that was left out asks first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sonoloop.models.manifest import bundle_manifest
from sonoloop_training.datasets import Sample


def find_trained(folder: Path, images: Sequence[Sample]) -> list[Sample] | None:
    """Find the images that a model in a folder knows, or of whose group; None where nobody knows."""
    listed = bundle_manifest(folder)
    if listed is None:
        return None
    known = {key for member in listed.known for key in (member.name, member.group)}
    return [sample for sample in images if known & {sample.key, sample.group}]


def check_left_out(folder: Path, images: Sequence[Sample]) -> None:
    """Stop where one of the images trained the model, or nobody knows."""
    trained = find_trained(folder, images)
    if not images or trained is None:
        raise SystemExit("there are no such images, or the model does not say who trained it")
    if trained:
        raise SystemExit(f"{len(trained)} of the images trained {folder}, as {trained[0].key}")
