"""A split that a file decides: folds, or who is in which part."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from sonoloop.errors import TrainingError
from sonoloop.imaging.files import SUFFIXES
from sonoloop_training.datasets import Sample
from sonoloop_training.datasets.tables import read_table
from sonoloop_training.splits.folds import place_folds
from sonoloop_training.splits.parts import PARTS, Part, check_filled_and_apart

_WHO = ("group", "name", "image", "id")
_FOLD = ("fold", "kfold")
# in `split.json` beside the parts: who has none, such as copies of images that judge
LEFT_OUT = "left_out"


def read_folds(path: Path, samples: Sequence[Sample]) -> dict[str, int]:
    """Read each group's fold.

    Parameters
    ----------
    path : pathlib.Path
        JSON as `sonoloop_training.splits.write_folds` writes it; or CSV with a column group, name, image or
        ID, and a column fold or kFold, as BUS-BRA's own. A name is an image's, with or without its dataset
        ("busi/benign (1)") and its suffix.
    samples : sequence of Sample
        Whose folds; rows about others are passed over.

    Raises
    ------
    TrainingError
        If the file cannot be read, a sample is not in it, or a group is in two folds.
    """
    if path.suffix.lower() == ".json":
        listed = _read_json(path).get("folds")
        if not isinstance(listed, dict):
            raise TrainingError(f'{path} has no folds; it should be {{"folds": {{group: fold}}}}')
        folds = {s.group: str(listed[s.group]) for s in samples if s.group in listed}
        return place_folds(samples, _by_name(samples, folds), path.name)
    return place_folds(samples, _read_column(path, samples, _FOLD), path.name)


def read_parts(path: Path, samples: Sequence[Sample]) -> dict[Part, list[Sample]]:
    """Read who trains, validates and tests.

    Parameters
    ----------
    path : pathlib.Path
        ``split.json`` of a training (under train, validation and test each a list of "dataset/name", or of
        objects with that as their "name"; under left_out those that had no part); or CSV with a column part
        and one of those that `read_folds` takes.
    samples : sequence of Sample
        All of them; each must be listed.

    Raises
    ------
    TrainingError
        If the file cannot be read, a sample is not in it, a part is unknown or empty, or a group is in two.
    """
    is_json = path.suffix.lower() == ".json"
    listed = _read_lists(path) if is_json else _read_column(path, samples, ("part",))
    parts: dict[Part, list[Sample]] = {part: [] for part in PARTS}
    for sample in samples:
        name = f"{sample.dataset}/{sample.name}"
        word = listed.get(name)
        if word is None:
            raise TrainingError(f"{name} is not in {path.name}; say whether it is for {', '.join(PARTS)}")
        if word == LEFT_OUT and is_json:
            continue
        if word not in PARTS:
            raise TrainingError(f"{name} is for {word!r} in {path.name}; use one of {', '.join(PARTS)}")
        parts[PARTS[PARTS.index(word)]].append(sample)
    return check_filled_and_apart(parts)


def read_earlier(path: Path, samples: Sequence[Sample]) -> dict[str, Part]:
    """Read who was in which part, by "dataset/name"; a sample may be missing.

    Parameters
    ----------
    path : pathlib.Path
        Parts, as `read_parts` takes them.
    samples : sequence of Sample
        All of them, whose names those of a CSV are completed by.

    Raises
    ------
    TrainingError
        If the file cannot be read.
    """
    is_json = path.suffix.lower() == ".json"
    listed = _read_lists(path) if is_json else _read_column(path, samples, ("part",))
    return {name: PARTS[PARTS.index(word)] for name, word in listed.items() if word in PARTS}


def has_folds(path: Path) -> bool:
    """Whether the file lists folds; else it lists parts."""
    if path.suffix.lower() == ".json":
        return "folds" in _read_json(path)
    return any(name in read_table(path)[0] for name in _FOLD)


def _read_json(path: Path) -> Mapping[str, object]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path} cannot be read as JSON ({error}); check the path") from error
    if not isinstance(content, dict):
        raise TrainingError(f"{path} lists no folds and no parts; see docs/datasets.md")
    return content


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
