"""Folds of a closed dataset: made, written, read, and one of them left out."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from sonoloop.atomic import write_whole
from sonoloop.errors import TrainingError
from sonoloop.imaging.io import SUFFIXES
from sonoloop.regular_files import read_regular
from sonoloop_training.datasets import Sample
from sonoloop_training.datasets.sample import MAX_BYTES, read_table
from sonoloop_training.splits.parts import (
    PARTS,
    Part,
    by_group,
    by_stratum,
    check_apart,
    digest,
    split_others,
)

_WHO = ("group", "name", "image", "id")
_FOLD = ("fold", "kfold")
# in `split.json` beside the parts: who has none, such as copies of test images
LEFT_OUT = "left_out"


def make_folds(samples: Sequence[Sample], *, folds: int = 5, key: str = "sonoloop") -> dict[str, int]:
    """Deal the groups of each dataset and class to folds, so that each fold gets as many of its images.

    The largest groups go first, each to the fold that has the fewest images of the class so far. For the
    same samples, in any order, the same key gives the same folds.
    """
    if folds < 2:
        raise ValueError(f"folds must be at least 2, got {folds}")
    members = by_group(samples)
    strata = by_stratum(members)
    groups_of: Counter[str] = Counter()
    for (_, label), groups in strata.items():
        groups_of[label] += len(groups)
    for label, count in groups_of.items():
        if count < folds:
            raise TrainingError(f"{count} groups are {label}, too few for {folds} folds; ask for fewer folds")
    images_of: dict[str, list[int]] = defaultdict(lambda: [0] * folds)
    placed: dict[str, int] = {}
    total = [0] * folds
    for (_, label), groups in strata.items():
        inside = [0] * folds
        for group in sorted(groups, key=lambda group: (-len(members[group]), digest(key, group))):
            fold = min(range(folds), key=lambda k: (inside[k], images_of[label][k], total[k], k))
            for counts in (inside, images_of[label], total):
                counts[fold] += len(members[group])
            placed[group] = fold + 1
    return placed


def published_folds(samples: Sequence[Sample], *, folds: int = 5) -> dict[str, int]:
    """Return the folds that a dataset was published with; BUS-BRA has 5 and 10, from 1 on."""
    name = f"{folds}-fold"
    found = {f"{s.dataset}/{s.name}": s.facts[name] for s in samples if name in s.facts}
    return place_folds(samples, found, f"the published {name} list; only BUS-BRA has one, {name}-cv.csv")


def write_folds(path: Path, folds: Mapping[str, int]) -> None:
    """Write folds as ``{"folds": {group: fold}}``; whole or not at all."""
    try:
        write_whole(path, json.dumps({"folds": dict(sorted(folds.items()))}, indent=1))
    except OSError as error:
        raise TrainingError(f"{path} cannot be written ({error.strerror}); give another place") from error


def split_by_fold(
    samples: Sequence[Sample],
    folds: Mapping[str, int],
    *,
    test: int,
    validation: float,
    key: str = "sonoloop",
) -> dict[Part, list[Sample]]:
    """Test on one fold; validate on a share of the rest, as `sonoloop_training.splits.split` takes it."""
    known = sorted({folds[s.group] for s in samples if s.group in folds})
    for sample in samples:
        if sample.group not in folds:
            raise TrainingError(f"group {sample.group} has no fold; make the folds again with these data")
    if test not in known:
        raise TrainingError(f"there is no fold {test}; there are {', '.join(map(str, known))}")
    rest = [sample for sample in samples if folds[sample.group] != test]
    tested = [sample for sample in samples if folds[sample.group] == test]
    return split_others(tested, rest, validation=validation, key=key)


def place_folds(samples: Sequence[Sample], listed: Mapping[str, str], source: str) -> dict[str, int]:
    """Turn a list of folds into each group's fold."""
    placed: dict[str, int] = {}
    for sample in samples:
        name = f"{sample.dataset}/{sample.name}"
        text = listed.get(name)
        if text is None:
            raise TrainingError(f"{name} is not in {source}")
        if not text.isdecimal():
            raise TrainingError(f"{name} has the fold {text!r} in {source}; a fold is a whole number")
        if placed.setdefault(sample.group, int(text)) != int(text):
            raise TrainingError(
                f"group {sample.group} is in the folds {placed[sample.group]} and {text} of {source}; "
                "keep a patient and its near-duplicates in one"
            )
    return placed


def read_folds(path: Path, samples: Sequence[Sample]) -> dict[str, int]:
    """Read each group's fold."""
    if _is_json(path):
        listed = _read_json(path).get("folds")
        if not isinstance(listed, dict):
            raise TrainingError(f'{path} has no folds; it should be {{"folds": {{group: fold}}}}')
        folds = {s.group: str(listed[s.group]) for s in samples if s.group in listed}
        return place_folds(samples, _by_name(samples, folds), path.name)
    return place_folds(samples, _read_column(path, samples, _FOLD), path.name)


def read_parts(path: Path, samples: Sequence[Sample]) -> dict[Part, list[Sample]]:
    """Read who trains, validates and tests."""
    listed = _read_words(path, samples)
    parts: dict[Part, list[Sample]] = {part: [] for part in PARTS}
    for sample in samples:
        name = f"{sample.dataset}/{sample.name}"
        word = listed.get(name)
        if word is None:
            raise TrainingError(f"{name} is not in {path.name}; say whether it is for {', '.join(PARTS)}")
        if word == LEFT_OUT and _is_json(path):
            continue
        if word not in PARTS:
            raise TrainingError(f"{name} is for {word!r} in {path.name}; use one of {', '.join(PARTS)}")
        parts[PARTS[PARTS.index(word)]].append(sample)
    return check_apart(parts)


def read_earlier(path: Path, samples: Sequence[Sample]) -> dict[str, Part]:
    """Read who was in which part, by "dataset/name"; a sample may be missing."""
    words = _read_words(path, samples)
    return {name: PARTS[PARTS.index(word)] for name, word in words.items() if word in PARTS}


def has_folds(path: Path) -> bool:
    """Whether the file lists folds; else it lists parts."""
    if _is_json(path):
        return "folds" in _read_json(path)
    return any(name in read_table(path)[0] for name in _FOLD)


def _read_json(path: Path) -> Mapping[str, object]:
    try:
        content = json.loads(read_regular(path, most=MAX_BYTES))
    except OSError as error:
        raise TrainingError(f"{path} cannot be read as JSON ({error.strerror}); check the path") from error
    except (ValueError, RecursionError) as error:
        raise TrainingError(f"{path} cannot be read as JSON ({error}); check the path") from error
    if not isinstance(content, dict):
        raise TrainingError(f"{path} lists no folds and no parts; see docs/datasets.md")
    return content


def _read_words(path: Path, samples: Sequence[Sample]) -> dict[str, str]:
    return _read_lists(path) if _is_json(path) else _read_column(path, samples, ("part",))


def _is_json(path: Path) -> bool:
    return path.suffix.lower() == ".json"


def _read_lists(path: Path) -> dict[str, str]:
    content = _read_json(path)
    listed: dict[str, str] = {}
    for part in (*PARTS, LEFT_OUT):
        names = content.get(part, [] if part == LEFT_OUT else None)
        if not isinstance(names, list):
            raise TrainingError(f"{path} has no list {part!r}; it should list {', '.join(PARTS)}")
        for entry in names:
            name = str(entry.get("name") if isinstance(entry, dict) else entry)
            if listed.setdefault(name, part) != part:
                raise TrainingError(f"{path.name} has {name} in {listed[name]} and in {part}; keep one")
    return listed


def _read_column(path: Path, samples: Sequence[Sample], columns: Sequence[str]) -> dict[str, str]:
    """Return a column by "dataset/name"."""
    rows = read_table(path)
    who = next((name for name in _WHO if name in rows[0]), None)
    what = next((name for name in columns if name in rows[0]), None)
    if who is None or what is None:
        raise TrainingError(
            f"{path} needs a column {' or '.join(_WHO)} and a column {' or '.join(columns)}; "
            f"it has {', '.join(rows[0])}"
        )
    known = {s.group if who == "group" else f"{s.dataset}/{s.name}" for s in samples}
    shorter: dict[str, list[str]] = defaultdict(list)
    for full in sorted(known):
        shorter[full.partition("/")[2]].append(full)
    listed: dict[str, str] = {}
    for row in rows:
        name = row[who]
        file = PurePosixPath(name)
        if name not in known and name not in shorter and file.suffix.lower() in SUFFIXES:
            name = str(file.with_suffix(""))
        if name not in known:
            if len(shorter[name]) > 1:
                raise TrainingError(f"{path.name} has {name}, which is in two datasets; write dataset/{name}")
            name = next(iter(shorter[name]), name)
        if listed.setdefault(name, row[what]) != row[what]:
            raise TrainingError(f"{path.name} has {listed[name]} and {row[what]} for {name}; keep one")
    return _by_name(samples, listed) if who == "group" else listed


def _by_name(samples: Sequence[Sample], by_group: Mapping[str, str]) -> dict[str, str]:
    return {f"{s.dataset}/{s.name}": by_group[s.group] for s in samples if s.group in by_group}
