"""All models of a project side by side, judged on the same frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sonoloop.store.locking import locked_version
from sonoloop.store.metrics import Figures, summarise_scores
from sonoloop.store.model_registry import ModelRow, list_models
from sonoloop.store.promotions import incumbent
from sonoloop.store.test_sets import TestSet, looks, newest_test_set, read_scores, true_labels

if TYPE_CHECKING:
    from sonoloop.store.corrections import CorrectionStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A model and how it does.

    Parameters
    ----------
    row : ModelRow
        The model.
    parent : str, optional
        What it was tuned from, as users call it; the version's first digits where the project does not know
        it.
    figures : Figures, optional
        On the frames of the newest test set that were scored and that the model does not know; None where
        there is none. They are fewer than the set has where others trained the model, or where nobody judged
        it since the set grew.
    in_use : bool
        Whether it is the model in use.
    """

    row: ModelRow
    parent: str | None
    figures: Figures | None
    in_use: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """The models table.

    Parameters
    ----------
    lines : tuple of Line
        The newest model first.
    test_set : TestSet, optional
        That they are judged on; None before the first was frozen.
    looks : int
        How often that set was looked at.
    locked : str, optional
        The version that the project is locked to.
    """

    lines: tuple[Line, ...]
    test_set: TestSet | None
    looks: int
    locked: str | None


def compare_models(store: CorrectionStore) -> Overview:
    """Put all models of a project side by side.

    Parameters
    ----------
    store : CorrectionStore
        Where.

    Returns
    -------
    Overview
        With the scores that are stored; nothing is predicted.

    Raises
    ------
    StoreError
        If the store cannot be read.
    """
    rows, used, test_set = list_models(store), incumbent(store), newest_test_set(store)
    labels = {} if test_set is None else true_labels(store, test_set)
    names = {row.version: row.model for row in rows}
    lines = [
        Line(
            row=row,
            parent=None if row.parent is None else names.get(row.parent, row.parent[:8]),
            figures=_judge(store, row.version, test_set, labels),
            in_use=used is not None and used.version == row.version,
        )
        for row in reversed(rows)
    ]
    return Overview(
        lines=tuple(lines),
        test_set=test_set,
        looks=0 if test_set is None else len(looks(store, test_set.number)),
        locked=locked_version(store),
    )


def _judge(
    store: CorrectionStore, version: str, test_set: TestSet | None, labels: Mapping[str, str]
) -> Figures | None:
    if test_set is None:
        return None
    scores = read_scores(store, version)
    judged = [
        # what is true is asked of the set: a score may be older than a histology or a patient's number
        {**score, "frame": judge.frame_id, "group": judge.group_id, "label": labels[judge.frame_id]}
        for judge in test_set.members
        if (score := scores.get(judge.revision_id)) is not None and not score.get("known")
    ]
    return summarise_scores(judged) if judged else None
