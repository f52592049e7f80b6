"""Near-duplicates: which images of a dataset show one scene.

Two hashes propose (see `sonoloop.imaging.fingerprints`), the correlation of the registered images decides.
"""

from __future__ import annotations

import json
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from sonoloop.errors import ImageError, TrainingError
from sonoloop.imaging.fingerprints import (
    ALIKE,
    BITS,
    CANDIDATE,
    CANDIDATES_AN_IMAGE,
    MEMBERS_ASKED,
    RELATED,
    SURE,
    Sketch,
    correlate,
    sketch,
)
from sonoloop.imaging.grey import check_frame
from sonoloop.jobs.events import Progress, drain
from sonoloop.regular_files import read_regular
from sonoloop_training.datasets.sample import MAX_BYTES, Sample, file_in

logger = logging.getLogger(__name__)

FindGroups = Callable[[Sequence[Sample]], Mapping[str, str]]

BUSI_LIST = "busi_groups.json"
LISTS = (BUSI_LIST, "groups.json")
_BLOCK = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two near-duplicates, by their places in the sequence that was searched, the lower first."""

    one: int
    other: int
    # normalised, of the flattened images once registered; at most 1
    correlation: float
    # whether one is the mirror image of the other
    mirrored: bool


def match_sketches(
    sketches: Sequence[Sketch | None], apart: Sequence[int] | None = None
) -> Generator[Progress, None, list[Pair]]:
    """Find the near-duplicates among sketches; with `apart` only between images of which it differs.

    Hashes are compared all with all, as matrix products; images only where hashes are near, and each with its
    forty nearest. What has no sketch has no near-duplicate.
    """
    stage = "Comparing images"
    yield Progress(stage=stage, done=0, total=1)
    places = [place for place, item in enumerate(sketches) if item]
    known = [item for item in sketches if item]
    candidates = _candidates(known, None if apart is None else [apart[place] for place in places])
    found = []
    for done, (one, other) in enumerate(candidates):
        if done % 200 == 0:
            yield Progress(stage=stage, done=done, total=len(candidates))
        correlation, mirrored = correlate(known[one], known[other])
        if correlation >= ALIKE:
            found.append(
                Pair(one=places[one], other=places[other], correlation=correlation, mirrored=mirrored)
            )
    yield Progress(stage=stage, done=max(len(candidates), 1), total=max(len(candidates), 1))
    return sorted(found, key=lambda pair: (pair.one, pair.other))


def _candidates(sketches: Sequence[Sketch], apart: Sequence[int] | None) -> list[tuple[int, int]]:
    """Return the pairs whose hashes are near, the nearest first; none more than forty times."""
    if len(sketches) < 2:
        return []
    half = BITS // 2
    signs = np.stack([item.bits for item in sketches], axis=1).astype(np.int8) * np.int8(2) - np.int8(1)
    frames = signs[0].astype(np.float32)
    nearest: dict[tuple[int, int], int] = {}
    for window, start in product(signs, range(0, len(sketches), _BLOCK)):
        rows = window[start : start + _BLOCK].astype(np.float32)
        even, odd = rows[:, :half] @ frames[:, :half].T, rows[:, half:] @ frames[:, half:].T
        # equal signs less unequal ones; a mirror image turns all the odd ones round
        distances = (BITS - (even + np.abs(odd))) / 2
        for row, column in np.argwhere(distances <= CANDIDATE):
            one, other = sorted((int(row) + start, int(column)))
            if one != other if apart is None else apart[one] != apart[other]:
                bits = int(distances[row, column])
                nearest[one, other] = min(bits, nearest.get((one, other), bits))
    used: Counter[int] = Counter()
    kept = []
    for pair in sorted(nearest, key=lambda pair: (nearest[pair], pair)):
        if min(used[pair[0]], used[pair[1]]) < CANDIDATES_AN_IMAGE:
            kept.append(pair)
            used.update(pair)
    return kept


def group_pairs(pairs: Iterable[Pair], sketches: Sequence[Sketch | None]) -> list[list[int]]:
    """Join pairs to groups of two and more, by their places.

    The best pairs are joined first. A pair that is not sure joins two groups only where their other members
    are alike too: else a chain of small likenesses would end in one group of unlike images.
    """
    group_of: dict[int, list[int]] = {}
    for pair in sorted(pairs, key=lambda pair: (-pair.correlation, pair.one, pair.other)):
        one, other = group_of.get(pair.one, [pair.one]), group_of.get(pair.other, [pair.other])
        if one is other:
            continue
        if pair.correlation < SURE and len(one) * len(other) > 1 and not _related(one, other, sketches):
            continue
        joined = sorted(one + other)
        group_of.update(dict.fromkeys(joined, joined))
    return sorted({id(members): members for members in group_of.values()}.values())


def _related(one: list[int], other: list[int], sketches: Sequence[Sketch | None]) -> bool:
    asked = product(one[:MEMBERS_ASKED], other[:MEMBERS_ASKED])
    pairs = ((sketches[a], sketches[b]) for a, b in asked)
    return bool(np.mean([correlate(a, b)[0] for a, b in pairs if a and b]) >= RELATED)


def sketch_sample(sample: Sample) -> Sketch | None:
    """Sketch a sample's image; None where it cannot be read: whoever reads the sample itself is told."""
    try:
        return sketch(check_frame(sample.study().frames[0]).pixels)
    except ImageError:
        return None


def near_duplicate_groups(samples: Sequence[Sample]) -> dict[str, str]:
    """Group samples that show one scene."""
    sketches = [sketch_sample(sample) for sample in samples]
    group_of = {sample.name: sample.name for sample in samples}
    for members in group_pairs(drain(match_sketches(sketches)), sketches):
        names = [samples[member].name for member in members]
        group_of.update(dict.fromkeys(names, names[0]))
    return group_of


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupList:
    """What a list of near-duplicates says, by image name in lower case."""

    # the group's first image; an image that is not listed is alone
    group: Mapping[str, str]
    # images of groups whose members contradict each other in class
    conflicting: frozenset[str]
    # what is burned in; where nothing is, the list says nothing of it
    overlays: Mapping[str, tuple[str, ...]]
    # what speaks against the group
    objections: Mapping[str, str]


def group_samples(
    samples: Sequence[Sample], root: Path, *, groups: Path | None, find_groups: FindGroups | None
) -> list[Sample]:
    """Put near-duplicates into one group, and leave out the groups that contradict themselves in class."""
    path = groups or find_group_list(samples, root)
    if path is not None:
        listed = read_groups(path)
        placed = [_apply(sample, listed) for sample in samples]
        return _drop_contradictions(placed, listed.conflicting)
    if find_groups is None:
        # loading is no job with events of its own, and this takes a while
        logger.warning(
            "%s has no list of near-duplicates: its %d images are compared with each other",
            root.name,
            len(samples),
        )
    found = (find_groups or near_duplicate_groups)(samples)
    placed = [replace(s, group=f"{s.dataset}/{found.get(s.name, s.name)}", computed=True) for s in samples]
    kept = _drop_contradictions(placed, frozenset())
    if find_groups is None:
        logger.warning(
            "%s has no list of near-duplicates: %d groups were computed, and %d images left out whose near-"
            "duplicate has another class; `sonoloop data check` shows them and writes a list",
            root.name,
            len({s.group for s in placed}),
            len(placed) - len(kept),
        )
    return kept


def find_group_list(samples: Sequence[Sample], root: Path) -> Path | None:
    """Return the list of near-duplicates in a dataset's folder, else its own among those beside it.

    Beside it, `busi_groups.json` is for BUSI only, and any list must name at least one of the images.
    """
    for name in LISTS:
        path = file_in(root, name)
        if path is not None:
            return path
    names = {sample.name.casefold() for sample in samples}
    for name in LISTS:
        path = file_in(root.absolute().parent, name)
        # a neighbour's list would make every twin of this dataset a group of its own
        if path is None or (name == BUSI_LIST and any(sample.dataset != "busi" for sample in samples)):
            continue
        if not names.isdisjoint(read_groups(path).group):
            return path
    return None


def read_groups(path: Path) -> GroupList:
    """Read ``{"groups": [{"images": [...], ...}, ...]}``.

    A group may have "conflicting_classes" (bool), "overlay" (list of str) and "objection" (str).
    """
    try:
        data = read_regular(path, most=MAX_BYTES)
    except FileNotFoundError as error:
        raise TrainingError(f"there is no list of near-duplicates {path}; check the path") from error
    except OSError as error:
        raise TrainingError(
            f"{path} cannot be read as a list of near-duplicates ({error.strerror})"
        ) from error
    group: dict[str, str] = {}
    conflicting: set[str] = set()
    overlays: dict[str, tuple[str, ...]] = {}
    objections: dict[str, str] = {}
    try:
        entries: list[dict[str, Any]] = json.loads(data)["groups"]
        for entry in entries:
            images = [str(name) for name in entry["images"]]
            for name in (image.casefold() for image in images):
                if group.setdefault(name, images[0]) != images[0]:
                    raise TrainingError(f"{path} lists {name} in two groups; mend the list")
                if entry.get("conflicting_classes"):
                    conflicting.add(name)
                if entry.get("overlay"):
                    overlays[name] = tuple(str(kind) for kind in entry["overlay"])
                if entry.get("objection"):
                    objections[name] = str(entry["objection"])
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise TrainingError(
            f'{path} is no list of near-duplicates; it should be {{"groups": [{{"images": [...]}}]}}'
        ) from error
    return GroupList(
        group=group,
        conflicting=frozenset(conflicting),
        overlays=overlays,
        objections=objections,
    )


def _apply(sample: Sample, listed: GroupList) -> Sample:
    name = sample.name.casefold()
    facts = dict(sample.facts)
    if name in listed.objections:
        facts["objection"] = listed.objections[name]
    if name in listed.overlays:
        facts["overlay"] = ", ".join(listed.overlays[name])
    return replace(
        sample,
        group=f"{sample.dataset}/{listed.group.get(name, sample.name)}",
        overlay=name in listed.overlays if listed.overlays else sample.overlay,
        facts=facts,
    )


def _drop_contradictions(samples: Sequence[Sample], conflicting: frozenset[str]) -> list[Sample]:
    labels: dict[str, set[str]] = defaultdict(set)
    for sample in samples:
        labels[sample.group].add(sample.label)
    return [s for s in samples if s.name.casefold() not in conflicting and len(labels[s.group]) == 1]
