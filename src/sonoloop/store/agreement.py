"""How readers of the same images agree, each judged by what they said before they saw the others' work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Row, Select, and_, func, not_, select

from sonoloop.store.database import Database
from sonoloop.store.metrics import Figure, dice, draw_groups, kappa, mean_figure, percentile_interval
from sonoloop.store.revisions import ADJUDICATION, is_withdrawn, read_masks
from sonoloop.store.tables import ASSIGNMENTS, FRAMES, HEADS, MEMBERS, REVISIONS
from sonoloop.values import Label

_BATCH = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one reader first said of an image that is read twice."""

    reader: str
    revision_id: str
    label: Label


@dataclass(frozen=True, slots=True, kw_only=True)
class DoubleReading:
    """An image that two readers or more have read, each on their own; `dice` is that of the worst pair."""

    frame_id: str
    group: str
    readings: tuple[Reading, ...]
    dice: float
    # whether somebody decided between readers of it
    adjudicated: bool

    @property
    def same_class(self) -> bool:
        """Whether all readers gave one class."""
        return len({reading.label for reading in self.readings}) == 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PairAgreement:
    """How two readers agree over the images that both read, with intervals over groups.

    `kappa` is Cohen's, of the class; None where both gave one class to every image.
    """

    readers: tuple[str, str]
    images: int
    dice: Figure | None
    same_class: Figure | None
    kappa: Figure | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How readers agree, by pair; `assigned` counts the images that are to be read twice."""

    assigned: int
    pairs: tuple[PairAgreement, ...]
    # in the order in which they were assigned
    readings: tuple[DoubleReading, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    """What two readers said of one image."""

    readers: tuple[str, str]
    group: str
    labels: tuple[str, str]
    dice: float


def read_agreement(
    database: Database, *, on_progress: Callable[[int, int], None] = lambda _done, _total: None
) -> Agreement:
    """Compare what the readers of each image said of it first; reads their masks."""
    with database.reading() as connection:
        assigned, by_image = _read_first(connection)
        decided = set(connection.scalars(_select_adjudicated_pixels()))
    twice = [rows for rows in by_image if len(rows) > 1]
    readings: list[DoubleReading] = []
    pairs: list[_Pair] = []
    for start in range(0, len(twice), _BATCH):
        some = twice[start : start + _BATCH]
        with database.reading() as connection:
            masks = read_masks(connection, REVISIONS, [row.id for rows in some for row in rows])
        for rows in some:
            if any(row.id not in masks for row in rows):
                continue  # withdrawn meanwhile
            own = [_pair(one, other, masks) for one, other in combinations(rows, 2)]
            pairs += own
            readings.append(
                DoubleReading(
                    frame_id=rows[0].asked,
                    group=_name_group(rows[0]),
                    readings=tuple(
                        Reading(reader=row.annotator, revision_id=row.id, label=row.label) for row in rows
                    ),
                    dice=min(pair.dice for pair in own),
                    adjudicated=rows[0].pixels_hash in decided,
                )
            )
        on_progress(min(start + _BATCH, len(twice)), len(twice))
    named = sorted({pair.readers for pair in pairs})
    return Agreement(
        assigned=assigned,
        pairs=tuple(_sum_up(one, [pair for pair in pairs if pair.readers == one]) for one in named),
        readings=tuple(readings),
    )


def _sum_up(readers: tuple[str, str], pairs: Sequence[_Pair]) -> PairAgreement:
    groups = np.array([pair.group for pair in pairs], np.str_)
    one, other = (np.array([pair.labels[side] for pair in pairs], np.str_) for side in (0, 1))
    draws = draw_groups(groups)
    return PairAgreement(
        readers=readers,
        images=len(pairs),
        dice=mean_figure([pair.dice for pair in pairs], groups, draws),
        same_class=mean_figure([float(same) for same in one == other], groups, draws),
        kappa=_find_kappa(one, other, groups, draws),
    )


def _find_kappa(
    one: NDArray[np.str_], other: NDArray[np.str_], groups: NDArray[np.str_], draws: NDArray[np.float32]
) -> Figure | None:
    plain = float(kappa(one, other, np.ones((1, len(one)), np.float32))[0])
    if not np.isfinite(plain):
        return None
    bounds = percentile_interval(kappa(one, other, draws)) if len(set(groups)) > 1 else None
    low, high = bounds or (None, None)
    return Figure(value=plain, low=low, high=high, frames=len(one))


def _pair(one: Row[Any], other: Row[Any], masks: dict[str, NDArray[np.uint8]]) -> _Pair:
    return _Pair(
        readers=(one.annotator, other.annotator),
        group=_name_group(one),
        labels=(one.label, other.label),
        dice=dice(masks[one.id], masks[other.id]),
    )


def _name_group(row: Row[Any]) -> str:
    return str(row.group_id or row.asked)


def _select_adjudicated_pixels() -> Select[Any]:
    own = HEADS.c.annotator == ADJUDICATION
    return select(FRAMES.c.pixels_hash).join(HEADS, HEADS.c.frame_id == FRAMES.c.id).where(own)


def _read_first(connection: Connection) -> tuple[int, list[list[Row[Any]]]]:
    """Count the assigned images, and read the first revision of each of their readers, by image."""
    asked, said = FRAMES.alias("asked"), REVISIONS.alias("said")
    first = (
        select(
            func.min(ASSIGNMENTS.c.number).label("place"),
            asked.c.id.label("asked"),
            func.min(said.c.number).label("number"),
        )
        .join(asked, asked.c.id == ASSIGNMENTS.c.frame_id)
        # in whichever file they opened it from
        .join(FRAMES, FRAMES.c.pixels_hash == asked.c.pixels_hash)
        .join(said, and_(said.c.frame_id == FRAMES.c.id, said.c.annotator == ASSIGNMENTS.c.reader))
        .where(not_(is_withdrawn(asked.c.id)))
        .group_by(asked.c.id, ASSIGNMENTS.c.reader)
        .subquery()
    )
    query: Select[Any] = (
        select(
            first.c.asked,
            first.c.place,
            FRAMES.c.pixels_hash,
            REVISIONS.c.id,
            REVISIONS.c.annotator,
            REVISIONS.c.label,
            MEMBERS.c.group_id,
        )
        .join(first, first.c.number == REVISIONS.c.number)
        .join(FRAMES, FRAMES.c.id == REVISIONS.c.frame_id)
        .outerjoin(MEMBERS, MEMBERS.c.frame_id == first.c.asked)
        .order_by(REVISIONS.c.annotator)
    )
    images: dict[str, list[Row[Any]]] = {}
    for row in connection.execute(query):
        images.setdefault(row.asked, []).append(row)
    every = select(func.count(ASSIGNMENTS.c.frame_id.distinct())).where(
        not_(is_withdrawn(ASSIGNMENTS.c.frame_id))
    )
    in_order = sorted(images.values(), key=lambda rows: min(row.place for row in rows))
    return connection.scalar(every) or 0, in_order
