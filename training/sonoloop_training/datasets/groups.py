"""Near-duplicates: which images of a dataset show one scene.

Two hashes propose (see `sonoloop.imaging.fingerprints`), the correlation of the registered images decides.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from sonoloop.errors import ImageError
from sonoloop.imaging.fingerprints import (
    ALIKE,
    BITS,
    CANDIDATE,
    CANDIDATES_AN_IMAGE,
    MEMBERS_ASKED,
    NEAR,
    RELATED,
    SURE,
    Sketch,
    correlate,
    distance,
    fingerprint,
    sketch,
)
from sonoloop.imaging.grey import check_frame
from sonoloop.imaging.io import read_study
from sonoloop.jobs.events import Progress, drain
from sonoloop_training.datasets.sample import Sample

__all__ = [
    "NEAR",
    "Pair",
    "distance",
    "find_pairs",
    "fingerprint",
    "group_pairs",
    "match_sketches",
    "near_duplicate_groups",
]

_BLOCK = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two near-duplicates, by their places in the sequence that was searched.

    Parameters
    ----------
    one, other : int
        Places, the lower first.
    correlation : float
        Normalised correlation of the flattened images once registered, at most 1.
    mirrored : bool
        Whether one is the mirror image of the other.
    """

    one: int
    other: int
    correlation: float
    mirrored: bool


def match_sketches(
    sketches: Sequence[Sketch], homes: Sequence[int] | None = None
) -> Generator[Progress, None, list[Pair]]:
    """Find the near-duplicates among sketches.

    Hashes are compared all with all, as matrix products; images only where hashes are near, and each with its
    forty nearest.

    Parameters
    ----------
    sketches : sequence of Sketch
        Of all images.
    homes : sequence of int, optional
        Where each is from: then only images from two places are compared.

    Yields
    ------
    Progress
        While pairs are compared.

    Returns
    -------
    list of Pair
        In order of places.
    """
    stage = "Comparing images"
    yield Progress(stage=stage, done=0, total=1)
    candidates = _candidates(sketches, homes)
    found = []
    for done, (one, other) in enumerate(candidates):
        if done % 200 == 0:
            yield Progress(stage=stage, done=done, total=len(candidates))
        correlation, mirrored = correlate(sketches[one], sketches[other])
        if correlation >= ALIKE:
            found.append(Pair(one=one, other=other, correlation=correlation, mirrored=mirrored))
    yield Progress(stage=stage, done=max(len(candidates), 1), total=max(len(candidates), 1))
    return sorted(found, key=lambda pair: (pair.one, pair.other))


def find_pairs(samples: Sequence[Sample]) -> list[Pair]:
    """Find the near-duplicates among samples, by their places; an image that cannot be read has none."""
    places, sketches = _sketch_samples(samples)
    return [
        Pair(
            one=places[pair.one],
            other=places[pair.other],
            correlation=pair.correlation,
            mirrored=pair.mirrored,
        )
        for pair in drain(match_sketches(sketches))
    ]


def near_duplicate_groups(samples: Sequence[Sample]) -> dict[str, str]:
    """Group samples that show one scene.

    Parameters
    ----------
    samples : sequence of Sample
        Of one dataset; names are unique in it. An image that cannot be read is alone in its group.

    Returns
    -------
    dict
        The group of each name: the name of its first member.
    """
    places, sketches = _sketch_samples(samples)
    group_of = {sample.name: sample.name for sample in samples}
    for members in group_pairs(drain(match_sketches(sketches)), sketches):
        names = [samples[places[member]].name for member in members]
        group_of.update(dict.fromkeys(names, names[0]))
    return group_of


def group_pairs(pairs: Iterable[Pair], sketches: Sequence[Sketch]) -> list[list[int]]:
    """Join pairs to groups of two and more, by their places.

    The best pairs are joined first. A pair that is not sure joins two groups only where their other members
    are alike too: else a chain of small likenesses would end in one group of unlike images.

    Returns
    -------
    list of list of int
        Members in order, groups by their first member.
    """
    home: dict[int, list[int]] = {}
    for pair in sorted(pairs, key=lambda pair: (-pair.correlation, pair.one, pair.other)):
        one, other = home.get(pair.one, [pair.one]), home.get(pair.other, [pair.other])
        if one is other:
            continue
        if pair.correlation < SURE and len(one) * len(other) > 1 and not _related(one, other, sketches):
            continue
        joined = sorted(one + other)
        home.update(dict.fromkeys(joined, joined))
    return sorted({id(members): members for members in home.values()}.values())


def _related(one: list[int], other: list[int], sketches: Sequence[Sketch]) -> bool:
    asked = product(one[:MEMBERS_ASKED], other[:MEMBERS_ASKED])
    return bool(np.mean([correlate(sketches[a], sketches[b])[0] for a, b in asked]) >= RELATED)


def _sketch_samples(samples: Sequence[Sample]) -> tuple[list[int], list[Sketch]]:
    places, sketches = [], []
    for place, sample in enumerate(samples):
        try:
            frame = check_frame(read_study(sample.image).frames[0])
        except ImageError:
            # whoever reads the sample itself is told
            continue
        places.append(place)
        sketches.append(sketch(frame.pixels))
    return places, sketches


def _candidates(sketches: Sequence[Sketch], homes: Sequence[int] | None) -> list[tuple[int, int]]:
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
        apart = (BITS - (even + np.abs(odd))) / 2
        for row, column in np.argwhere(apart <= CANDIDATE):
            one, other = sorted((int(row) + start, int(column)))
            if one != other if homes is None else homes[one] != homes[other]:
                bits = int(apart[row, column])
                nearest[one, other] = min(bits, nearest.get((one, other), bits))
    used: Counter[int] = Counter()
    kept = []
    for pair in sorted(nearest, key=lambda pair: (nearest[pair], pair)):
        if min(used[pair[0]], used[pair[1]]) < CANDIDATES_AN_IMAGE:
            kept.append(pair)
            used.update(pair)
    return kept
