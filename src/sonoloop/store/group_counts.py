"""How many groups and frames of a store are for what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import func, not_, select

from sonoloop.store.drawing import count_lesion_tests
from sonoloop.store.revisions import is_withdrawn
from sonoloop.store.tables import FRAMES, GROUPS, MEMBERS

if TYPE_CHECKING:
    from sonoloop.store.corrections import CorrectionStore


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupCounts:
    """How the frames of a store are divided.

    Parameters
    ----------
    train_groups, test_groups : int
        Groups by role.
    test_groups_with_lesion : int
        Those kept for testing in which somebody marked a lesion.
    train_frames, test_frames, neither_frames : int
        Frames by role, without those that were withdrawn.
    withdrawn_frames : int
        Those.
    unplaced_frames : int
        Frames that an earlier Sonoloop stored; the next snapshot places them.
    """

    train_groups: int
    test_groups: int
    test_groups_with_lesion: int
    train_frames: int
    test_frames: int
    neither_frames: int
    withdrawn_frames: int
    unplaced_frames: int


def count_groups(store: CorrectionStore) -> GroupCounts:
    """Count groups and frames by what they are for.

    Raises
    ------
    StoreError
        If the store cannot be read.
    """
    with store.reading() as connection:
        by_role = select(GROUPS.c.role, func.count().label("number")).group_by(GROUPS.c.role)
        groups = {row.role: row.number for row in connection.execute(by_role)}
        withdrawn = is_withdrawn(MEMBERS.c.frame_id)
        frames = {
            (row.role, row.bridges): row.number
            for row in connection.execute(
                select(GROUPS.c.role, MEMBERS.c.bridges, func.count().label("number"))
                .join(MEMBERS, MEMBERS.c.group_id == GROUPS.c.id)
                .where(not_(withdrawn))
                .group_by(GROUPS.c.role, MEMBERS.c.bridges)
            )
        }
        unplaced = FRAMES.outerjoin(MEMBERS, MEMBERS.c.frame_id == FRAMES.c.id)
        counts = {
            "withdrawn_frames": select(func.count()).select_from(FRAMES).where(is_withdrawn(FRAMES.c.id)),
            "unplaced_frames": select(func.count())
            .select_from(unplaced)
            .where(MEMBERS.c.frame_id.is_(None), not_(is_withdrawn(FRAMES.c.id))),
        }
        return GroupCounts(
            train_groups=groups.get("train", 0),
            test_groups=groups.get("test", 0),
            test_groups_with_lesion=count_lesion_tests(connection),
            train_frames=frames.get(("train", False), 0),
            test_frames=frames.get(("test", False), 0),
            neither_frames=frames.get(("train", True), 0) + frames.get(("test", True), 0),
            **{name: connection.scalar(query) or 0 for name, query in counts.items()},
        )
