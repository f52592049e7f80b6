"""What corrections took, and how the proposals they began from fared: by model, class and annotator."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import Connection, Row, Select, and_, not_, select

from sonoloop.store.database import Database
from sonoloop.store.metrics import Figure, dice, draw_groups, mean_figure
from sonoloop.store.revisions import ADJUDICATION, is_withdrawn, read_effort, read_masks
from sonoloop.store.tables import HEADS, MEMBERS, PREDICTIONS, REVISIONS

_BATCH = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEffort:
    """How the proposals of one model are taken, over the images whose proposal was shown first.

    `unedited` is the share that was accepted with the mask as it was proposed, `seconds` the mean time an
    image over the `timed` ones: None where the project records no time.
    """

    model: str
    images: int
    unedited: float
    seconds: float | None
    timed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EffortRow:
    """Figures over the images that have something in common, with intervals over groups.

    `unedited` counts where the proposal was shown first. `dice` is that of the proposed and the final mask;
    strokes, clicks and undos are means an image, over those of which they are known.
    """

    name: str
    images: int
    unedited: Figure | None
    class_changed: Figure | None
    dice: Figure | None
    seconds: Figure | None
    strokes: float | None
    clicks: float | None
    undos: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EffortStats:
    """Effort and agreement over all images that have a proposal, and by what they have in common."""

    all: EffortRow
    by_model: tuple[EffortRow, ...]
    by_class: tuple[EffortRow, ...]
    by_annotator: tuple[EffortRow, ...]
    # "shown first" and "drawn first": who sees a proposal draws towards it
    by_proposal: tuple[EffortRow, ...]


@dataclass(slots=True, kw_only=True)
class _Image:
    """A frame that one annotator corrected, from their first correction of it to the last."""

    first: Row[Any]
    last: Row[Any]
    seconds: float | None = None
    # strokes, clicks, undos
    counts: list[int] | None = None
    dice: float | None = None

    @property
    def unedited(self) -> bool:
        return self.first.mask_decision == "kept" or bool(self.first.empty_kept)


def model_effort(database: Database) -> tuple[ModelEffort, ...]:
    """Tell how the proposals of each model are taken, the model that was used last first; no mask is read."""
    by_model: dict[str, list[_Image]] = {}
    with database.reading() as connection:
        for image in _read_images(connection):
            if image.first.prediction_seen:
                by_model.setdefault(image.first.model, []).append(image)
    rows = []
    for model, images in by_model.items():
        times = [image.seconds for image in images if image.seconds is not None]
        rows.append(
            ModelEffort(
                model=model,
                images=len(images),
                unedited=sum(image.unedited for image in images) / len(images),
                seconds=sum(times) / len(times) if times else None,
                timed=len(times),
            )
        )
    return tuple(sorted(rows, key=lambda row: -by_model[row.model][-1].first.number))


def read_stats(
    database: Database, *, on_progress: Callable[[int, int], None] = lambda _done, _total: None
) -> EffortStats:
    """Compare every proposal with what became of it; reads the masks that were edited."""
    with database.reading() as connection:
        images = _read_images(connection)
    for start in range(0, len(images), _BATCH):
        with database.reading() as connection:
            _compare(connection, images[start : start + _BATCH])
        on_progress(min(start + _BATCH, len(images)), len(images))

    def split(key: Callable[[_Image], str]) -> tuple[EffortRow, ...]:
        parts: dict[str, list[_Image]] = {}
        for image in images:
            parts.setdefault(key(image), []).append(image)
        return tuple(_sum_up(name, parts[name]) for name in sorted(parts))

    return EffortStats(
        all=_sum_up("all", images),
        by_model=split(lambda image: image.first.model),
        by_class=split(lambda image: image.last.label),
        by_annotator=split(lambda image: image.last.annotator),
        by_proposal=split(lambda image: "shown first" if image.first.prediction_seen else "drawn first"),
    )


def _read_images(connection: Connection) -> list[_Image]:
    """Read the images that have a proposal and were not withdrawn, without their masks, in their order."""
    # the whole mask is looked at only where both may be empty
    empty = and_(PREDICTIONS.c.id == REVISIONS.c.prediction_id, REVISIONS.c.mask_decision == "none")
    columns = ("number", "id", "frame_id", "annotator", "label", "mask_decision", "class_decision")
    more = ("prediction_id", "prediction_seen", "model", "seconds", "effort")
    query: Select[Any] = (
        select(
            *(REVISIONS.c[name] for name in (*columns, *more)),
            (PREDICTIONS.c.mask == REVISIONS.c.mask).label("empty_kept"),
            HEADS.c.revision_id.is_not(None).label("is_head"),
            MEMBERS.c.group_id,
        )
        .outerjoin(PREDICTIONS, empty)
        .outerjoin(HEADS, HEADS.c.revision_id == REVISIONS.c.id)
        .outerjoin(MEMBERS, MEMBERS.c.frame_id == REVISIONS.c.frame_id)
        .where(not_(is_withdrawn(REVISIONS.c.frame_id)), REVISIONS.c.annotator != ADJUDICATION)
        .order_by(REVISIONS.c.number)
    )
    images: dict[tuple[str, str], _Image] = {}
    for row in connection.execute(query):
        image = images.setdefault((row.frame_id, row.annotator), _Image(first=row, last=row))
        if row.is_head:
            image.last = row
        effort = read_effort(row.id, row.effort)
        if effort is not None:
            made = (effort.strokes, effort.clicks, effort.undos)
            image.counts = [one + before for one, before in zip(made, image.counts or (0, 0, 0), strict=True)]
        seconds = row.seconds if effort is None or effort.active_seconds is None else effort.active_seconds
        if seconds is not None:
            image.seconds = seconds + (image.seconds or 0.0)
    return [image for image in images.values() if image.first.prediction_id is not None]


def _sum_up(name: str, images: Sequence[_Image]) -> EffortRow:
    groups = np.array([image.last.group_id or image.last.frame_id for image in images], np.str_)
    # the interval of every figure comes from the same draws
    draws = draw_groups(groups) if images else np.zeros((0, 0), np.float32)
    counts = [image.counts for image in images if image.counts is not None]
    strokes, clicks, undos = (
        (sum(made) / len(counts) for made in zip(*counts, strict=True)) if counts else (None, None, None)
    )

    def figure(value: Callable[[_Image], float | None]) -> Figure | None:
        values = [value(image) for image in images]
        return mean_figure([math.nan if one is None else one for one in values], groups, draws)

    return EffortRow(
        name=name,
        images=len(images),
        unedited=figure(lambda image: float(image.unedited) if image.first.prediction_seen else None),
        class_changed=figure(lambda image: float(image.last.class_decision == "changed")),
        dice=figure(lambda image: image.dice),
        seconds=figure(lambda image: image.seconds),
        strokes=strokes,
        clicks=clicks,
        undos=undos,
    )


def _compare(connection: Connection, images: Sequence[_Image]) -> None:
    """Compute the Dice of proposed and final masks."""
    edited = []
    for image in images:
        if image.first is image.last and image.unedited:
            image.dice = 1.0
        else:
            edited.append(image)
    finals = read_masks(connection, REVISIONS, {image.last.id for image in edited})
    proposed = read_masks(connection, PREDICTIONS, {image.first.prediction_id for image in edited})
    for image in edited:
        # one that was withdrawn meanwhile has none
        final, proposal = finals.get(image.last.id), proposed.get(image.first.prediction_id)
        if final is not None and proposal is not None:
            image.dice = dice(final, proposal)
