"""Near-duplicates: from a list beside the images, or computed."""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sonoloop.errors import TrainingError
from sonoloop_training.datasets.layout import file_in
from sonoloop_training.datasets.sample import Sample

logger = logging.getLogger(__name__)

FindGroups = Callable[[Sequence[Sample]], Mapping[str, str]]

BUSI_LIST = "busi_groups.json"
LISTS = (BUSI_LIST, "groups.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupList:
    """What a list of near-duplicates says, by image name in lower case.

    Parameters
    ----------
    group : mapping
        The group's first image; an image that is not listed is alone.
    conflicting : frozenset of str
        Images of groups whose members contradict each other in class.
    overlays, objections : mapping
        What is burned in, and what speaks against the group.
    flags : bool
        Whether the list says of overlays at all: then an image without one is clean.
    """

    group: Mapping[str, str]
    conflicting: frozenset[str]
    overlays: Mapping[str, tuple[str, ...]]
    objections: Mapping[str, str]
    flags: bool


def group_samples(
    samples: Sequence[Sample], root: Path, *, groups: Path | None, find_groups: FindGroups | None
) -> list[Sample]:
    """Put near-duplicates into one group, and leave out the groups that contradict themselves in class.

    Parameters
    ----------
    samples : sequence of Sample
        All of one dataset.
    root : pathlib.Path
        Its folder. A list is looked for in it and beside it; see `find_group_list`.
    groups : pathlib.Path, optional
        The list, if it lies elsewhere.
    find_groups : callable, optional
        Samples to a group name for each sample name; used where there is no list. By default
        `sonoloop_training.datasets.groups.near_duplicate_groups`.

    Raises
    ------
    TrainingError
        If the list cannot be read.
    """
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
    found = (find_groups or _compute_groups)(samples)
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

    Parameters
    ----------
    samples : sequence of Sample
        All of one dataset.
    root : pathlib.Path
        Its folder.

    Raises
    ------
    TrainingError
        If a list beside the folder cannot be read, so that nobody knows whose it is.
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

    Raises
    ------
    TrainingError
        If the file is not there or has another form.
    """
    if not path.is_file():
        raise TrainingError(f"there is no list of near-duplicates {path}; check the path")
    group: dict[str, str] = {}
    conflicting: set[str] = set()
    overlays: dict[str, tuple[str, ...]] = {}
    objections: dict[str, str] = {}
    try:
        entries: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["groups"]
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
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise TrainingError(
            f'{path} is no list of near-duplicates; it should be {{"groups": [{{"images": [...]}}]}}'
        ) from error
    return GroupList(
        group=group,
        conflicting=frozenset(conflicting),
        overlays=overlays,
        objections=objections,
        flags=bool(overlays),
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
        overlay=name in listed.overlays if listed.flags else sample.overlay,
        facts=facts,
    )


def _compute_groups(samples: Sequence[Sample]) -> Mapping[str, str]:
    from sonoloop_training.datasets.groups import near_duplicate_groups  # noqa: PLC0415 - it imports Sample

    return near_duplicate_groups(samples)


def _drop_contradictions(samples: Sequence[Sample], conflicting: frozenset[str]) -> list[Sample]:
    labels: dict[str, set[str]] = defaultdict(set)
    for sample in samples:
        labels[sample.group].add(sample.label)
    return [s for s in samples if s.name.casefold() not in conflicting and len(labels[s.group]) == 1]
