"""Double reading: which annotators read a frame without seeing what others said of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, cycle
from typing import Any

from sqlalchemy import Connection, Row, Select, func, insert, not_, select

from sonoloop.errors import StoreError
from sonoloop.store.adjudication import check_annotator
from sonoloop.store.database import Database, check_who, hold, now
from sonoloop.store.groups import fraction
from sonoloop.store.revisions import has_withdrawn_pixels, is_withdrawn
from sonoloop.store.settings import store_secret
from sonoloop.store.tables import ASSIGNMENTS, FRAMES, MEMBERS, REVISIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class Assigned:
    """What a round of assigning came to.

    `frames` gives the ids of those that each reader got; `before` counts the images that were assigned in
    earlier rounds, `images` all that may be.
    """

    round: int
    frames: Mapping[str, tuple[str, ...]]
    before: int
    images: int


def assign(database: Database, readers: Sequence[str], *, share: float, each: int | None = None) -> Assigned:
    """Assign a share of the images to several readers each, who do not see each other's work on them.

    Of the images of the store that at most one person corrected yet, drawn by a keyed hash; images that were
    assigned before count towards the share, so that it can be asked again as images come in. Each image goes
    to `each` of the readers, to all of them unless given, every pair of readers as often as any other.
    """
    given = [readers] if isinstance(readers, str) else readers
    names = list(dict.fromkeys(check_annotator(name) for name in given))
    each = len(names) if each is None else each
    if not 0 < share <= 1:
        raise StoreError(
            f"the share of the images that are read twice is above 0 and at most 1, not {share:g}"
        )
    if not 2 <= each <= len(names):
        raise StoreError(
            f"an image is read by 2 of the readers or more, and by {len(names)} at most, who are given here: "
            f"not by {each}"
        )
    secret = store_secret(database)
    with database.writing() as connection:
        hold(connection, ASSIGNMENTS)
        before, candidates = _read_candidates(connection)
        images = before + len(candidates)
        if not images:
            raise StoreError("the store has no image that could be read twice: open or import some first")
        candidates.sort(key=lambda row: fraction(secret, "double reading", row.id))
        chosen = candidates[: max(0, max(1, round(share * images)) - before)]
        number = 1 + (connection.scalar(select(func.max(ASSIGNMENTS.c.round))) or 0)
        parties = cycle(combinations(names, each))
        frames: dict[str, list[str]] = {name: [] for name in names}
        for row in chosen:
            # whoever corrected it already is one of its readers
            party = next(some for some in parties if row.said not in names or row.said in some)
            for name in party:
                frames[name].append(row.id)
        rows = [
            {"frame_id": frame_id, "reader": name, "round": number, "created": now()}
            for name, own in frames.items()
            for frame_id in own
        ]
        if rows:
            connection.execute(insert(ASSIGNMENTS), rows)
    return Assigned(
        round=number,
        frames={name: tuple(own) for name, own in frames.items()},
        before=before,
        images=images,
    )


def _read_candidates(connection: Connection) -> tuple[int, list[Row[Any]]]:
    """Count the images that are assigned, and read the others that may be, with who corrected them."""
    twin = FRAMES.alias("twin")
    said = (
        select(
            twin.c.pixels_hash,
            func.count(REVISIONS.c.annotator.distinct()).label("persons"),
            func.min(REVISIONS.c.annotator).label("said"),
        )
        .join(twin, twin.c.id == REVISIONS.c.frame_id)
        .group_by(twin.c.pixels_hash)
        .subquery()
    )
    # of the files of one image the first
    first = select(func.min(twin.c.id)).where(twin.c.pixels_hash == FRAMES.c.pixels_hash).scalar_subquery()
    query: Select[Any] = (
        select(
            FRAMES.c.id, FRAMES.c.pixels_hash, said.c.said, func.coalesce(said.c.persons, 0).label("persons")
        )
        .join(MEMBERS, MEMBERS.c.frame_id == FRAMES.c.id)
        .outerjoin(said, said.c.pixels_hash == FRAMES.c.pixels_hash)
        .where(MEMBERS.c.bridges.is_(False), not_(has_withdrawn_pixels(FRAMES.c.pixels_hash)))
        .where(FRAMES.c.id == first)
    )
    assigned = select(FRAMES.c.pixels_hash).join(ASSIGNMENTS, ASSIGNMENTS.c.frame_id == FRAMES.c.id)
    before = set(connection.scalars(assigned.where(not_(is_withdrawn(FRAMES.c.id)))))
    rows = connection.execute(query).all()
    return len(before), [row for row in rows if row.persons < 2 and row.pixels_hash not in before]


def select_assigned_pixels(reader: str) -> Select[Any]:
    """Select the hashes of the pixels that a reader is assigned, whichever file they are opened from."""
    assigned = FRAMES.join(ASSIGNMENTS, ASSIGNMENTS.c.frame_id == FRAMES.c.id)
    return select(FRAMES.c.pixels_hash).select_from(assigned).where(ASSIGNMENTS.c.reader == reader)


def hides_others(database: Database, frame_id: str, reader: str) -> bool:
    """Tell whether others' work on a frame is hidden: the reader is assigned it and has said nothing yet."""
    reader = check_who(reader)
    own = select(FRAMES.c.pixels_hash).where(FRAMES.c.id == frame_id).scalar_subquery()
    assigned = select_assigned_pixels(reader).where(FRAMES.c.pixels_hash == own).limit(1)
    said = (
        select(REVISIONS.c.number)
        .join(FRAMES, FRAMES.c.id == REVISIONS.c.frame_id)
        .where(FRAMES.c.pixels_hash == own, REVISIONS.c.annotator == reader)
        .limit(1)
    )
    with database.reading() as connection:
        return connection.scalar(assigned) is not None and connection.scalar(said) is None
