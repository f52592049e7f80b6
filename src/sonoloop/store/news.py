"""What the model in use has not learned from yet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from sonoloop.store.heads import can_judge, select_newest
from sonoloop.store.tables import GROUPS, MEMBERS, MODELS, PROMOTIONS, REVISIONS, SNAPSHOT_MEMBERS

if TYPE_CHECKING:
    from sonoloop.store.corrections import CorrectionStore


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """How many corrections wait for the next training, and how many can judge it.

    Parameters
    ----------
    version, model : str, optional
        The model in use and what users call it; None for the shipped one that nobody promoted.
    by_class, by_annotator : mapping
        Of the frames that train, the newest correction each, unless the model in use learned from it: how
        many by their class, and by who made them.
    judge : int
        Frames that judge models: kept for testing, and drawn before the prediction was seen, once.
    """

    version: str | None
    model: str | None
    by_class: Mapping[str, int]
    by_annotator: Mapping[str, int]
    judge: int

    @property
    def learn(self) -> int:
        """How many corrections there are to learn from."""
        return sum(self.by_class.values())


def count_news(store: CorrectionStore) -> News:
    """Count what is new since the model in use.

    Parameters
    ----------
    store : CorrectionStore
        Open.

    Returns
    -------
    News
        Withdrawn frames and those that bridge two parts are in none of the counts.

    Raises
    ------
    StoreError
        If the store cannot be read.
    """
    with store.reading() as connection:
        in_use = connection.execute(
            select(MODELS.c.version, MODELS.c.model, MODELS.c.snapshot)
            .join(PROMOTIONS, PROMOTIONS.c.version == MODELS.c.version)
            .order_by(PROMOTIONS.c.number.desc())
            .limit(1)
        ).one_or_none()
        learned = select(SNAPSHOT_MEMBERS.c.revision_id).where(
            SNAPSHOT_MEMBERS.c.snapshot == (None if in_use is None else in_use.snapshot)
        )
        known = set(connection.scalars(learned)) if in_use is not None else set()
        query = select_newest(
            REVISIONS.c.id,
            REVISIONS.c.label,
            REVISIONS.c.annotator,
            GROUPS.c.role,
            can_judge().label("judges"),
        )
        rows = connection.execute(query.where(func.coalesce(MEMBERS.c.bridges, False).is_(False))).all()
    new = [row for row in rows if row.role != "test" and row.id not in known]
    return News(
        version=None if in_use is None else in_use.version,
        model=None if in_use is None else in_use.model,
        by_class=_count(row.label for row in new),
        by_annotator=_count(row.annotator for row in new),
        judge=sum(row.judges for row in rows),
    )


def _count(names: Iterable[str]) -> dict[str, int]:
    return dict(Counter(names).most_common())
