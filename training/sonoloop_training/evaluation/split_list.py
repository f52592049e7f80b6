"""Who trained a model and who judges it, as its ``split.json`` says."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sonoloop.errors import TrainingError
from sonoloop.imaging.fingerprints import BITS
from sonoloop.values import Frame
from sonoloop_training.datasets import Sample
from sonoloop_training.membership import SPLIT
from sonoloop_training.splits import PARTS, Part


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """An image of a split; what an older list does not tell is empty.

    Parameters
    ----------
    name : str
        "dataset/name".
    group : str
        See `sonoloop_training.datasets.Sample`.
    id, pixels_hash : str
        See `sonoloop.values.Frame`.
    fingerprint : str
        See `sonoloop_training.datasets.groups.fingerprint`.
    """

    name: str
    group: str = ""
    id: str = ""
    pixels_hash: str = ""
    fingerprint: str = ""


_FINGERPRINT = re.compile(rf"[0-9a-f]{{{BITS // 4}}}")

SplitList = Mapping[Part, tuple[Listed, ...]]


def read_split_list(path: Path) -> SplitList:
    """Read a split: a list for each of "train", "validation" and "test".

    An entry is ``{"name", "group", "id", "pixels_hash", "fingerprint"}``, of which only the name has to be
    there, or the name alone.
    """
    try:
        parts = json.loads(path.read_text(encoding="utf-8"))
        return {part: tuple(_entry(entry) for entry in parts.get(part, [])) for part in PARTS}
    except OSError as error:
        raise TrainingError(f"cannot read the split {path} ({error.strerror}); check the path") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise TrainingError(
            f'{path} is no split; it should be {{"train": [...], "validation": [...], "test": [...]}} '
            'with entries such as {"name": "busi/benign (1)"}'
        ) from error


def list_part(part: Part, split: SplitList | None) -> dict[str, Listed]:
    """List by name the images that a split calls `part`."""
    if split is None:
        raise TrainingError(
            f"the model does not say which images are its {part} part; give the training's {SPLIT} "
            "with --split"
        )
    if not split[part]:
        raise TrainingError(
            f"the split lists no image for {part}, as where all trained in the end; give the split of the "
            "training's first stage with --split, or other images with --part all"
        )
    return {listed.name: listed for listed in split[part]}


def choose_part(samples: Sequence[Sample], part: Part, listed: Mapping[str, Listed]) -> list[Sample]:
    """Keep the samples of the names that `list_part` gave."""
    chosen = [sample for sample in samples if f"{sample.dataset}/{sample.name}" in listed]
    if not chosen:
        raise TrainingError(
            f"none of the {len(samples)} images in the data is in the {part} part of the split, which has "
            f"{len(listed)}; give the data that the model was trained on, or --part all"
        )
    return chosen


def is_other(frame: Frame, listed: Listed | None) -> bool:
    """Whether a frame is another image than the one listed by its name: neither bytes nor pixels agree.

    False where no hash is listed, and for a re-saved copy of the same pixels.
    """
    if listed is None or not (listed.id or listed.pixels_hash):
        return False
    return frame.id != listed.id and frame.pixels_hash != listed.pixels_hash


def _entry(entry: Any) -> Listed:  # noqa: ANN401 - whatever JSON holds
    if isinstance(entry, str):
        return Listed(name=entry)
    known = {key: entry.get(key) or "" for key in ("group", "id", "pixels_hash", "fingerprint")}
    if not all(isinstance(value, str) for value in (entry["name"], *known.values())):
        raise TypeError("an image of a split is described by text")
    if known["fingerprint"] and not _FINGERPRINT.fullmatch(known["fingerprint"]):
        raise ValueError(f"{known['fingerprint']!r} is no fingerprint")
    return Listed(name=entry["name"], **known)
