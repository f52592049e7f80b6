"""The store of corrections: every revision that was ever accepted, and which one stands.

Nothing is edited. `revisions` and `predictions` refuse UPDATE, DELETE and REPLACE by triggers in the database
itself, so that neither a slip in this package nor a shell on the file changes history unnoticed.

One change passes: where a tombstone names the frame, a mask (or a prediction's two maps) may become empty
bytes while every other column stays. The fact, its reason and the hash remain; such a revision reads as
withdrawn, counts as nobody's head, and `sonoloop.store.withdrawal` is the only one to make it so.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, func, insert, not_, or_, select, update

from sonoloop.errors import StoreError
from sonoloop.store.adjudication import add_adjudication, check_annotator, check_originals
from sonoloop.store.database import Database, Tell, add_if_new, check_who, tell_nobody
from sonoloop.store.integrity import find_problems
from sonoloop.store.marks import take_back
from sonoloop.store.revisions import (
    HeadMovedError,
    Revision,
    check_not_withdrawn,
    is_withdrawn,
    join_rows,
    read_revision,
    select_revisions,
    write_effort,
    write_prediction,
    write_revision,
)
from sonoloop.store.settings import settings_in
from sonoloop.store.tables import FRAMES, HEADS, PREDICTIONS, REVISIONS
from sonoloop.values import Correction, Effort

# as a parent: whatever the annotator said last
HEAD = "head"
# what a correction says; the rest is how it came about
_SAID = ("mask_sha256", "label", "lesions")

_log = logging.getLogger(__name__)


class CorrectionStore(Database):
    """The corrections of a project, in one SQLite file or in a PostgreSQL database.

    See `sonoloop.store.database.Database` for how it is opened.
    """

    def __init__(self, url: str | os.PathLike[str] | None = None) -> None:
        super().__init__(url)
        # the pixels of new frames of withdrawn patients, with the date: nothing of them is in the store
        self.turned_away: dict[str, str] = {}

    def check(self, correction: Correction, *, parent: str | None) -> None:
        """Refuse what `accept` would refuse of a frame that is not stored yet, and store nothing."""
        row, _ = _write_rows(correction, parent)
        with self.reading() as connection:
            _check_parent(connection, row)

    def accept(self, correction: Correction, *, parent: str | None) -> Revision:
        """Store a correction as its annotator's head on its frame; once this returns it is on disk.

        With ``parent=HEAD`` it builds on whatever that head is by now, which is never a conflict.
        One with the mask and the classes of that head says nothing new while that is also what was last said
        of these pixels: the head is returned, and stays as it was made, with the prediction that was seen
        then or was not.
        """
        row, prediction = _write_rows(correction, parent)
        with self.writing() as connection:
            mine, theirs = self._accept(connection, correction, row, prediction)
        if theirs is None:
            _log.debug("accepted revision %s", mine.id)
            return mine
        _log.info("kept revision %s beside head %s", mine.id, theirs.id)
        raise HeadMovedError(
            f"{row['annotator']} accepted another correction of this image since this one was opened: "
            "both are kept; look at the other one, then accept the one that is right",
            theirs=theirs,
            mine=mine,
        )

    def check_originals(self, of: Sequence[str], pixels_hash: str) -> bool:
        """Refuse what `adjudicate` would refuse; tell whether who drew one of them had seen a prediction."""
        with self.reading() as connection:
            return check_originals(connection, of, pixels_hash)

    def adjudicate(self, correction: Correction, *, of: Sequence[str], who: str) -> Revision:
        """Store what was decided between revisions of a frame as its adjudicated head; they stay as they are.

        The correction's annotator is `ADJUDICATION`; `who` decided.
        """
        who = check_who(who)
        row, prediction = _write_rows(correction, HEAD, adjudicated=True)
        with self.writing() as connection:
            check_originals(connection, of, correction.pixels_hash)
            mine, _ = self._accept(connection, correction, row, prediction)
            add_adjudication(connection, mine.id, of, who=who)
        return mine

    def _accept(
        self,
        connection: Connection,
        correction: Correction,
        row: dict[str, Any],
        prediction: dict[str, Any] | None,
    ) -> tuple[Revision, Revision | None]:
        """Add a revision, and give it with the head that it lost against."""
        frame = _enter_frame(connection, correction)
        check_not_withdrawn(connection, frame, self.turned_away)
        _drop_times(connection, row, correction.effort)
        head = _select_head(connection, row)
        if row["parent"] == HEAD:
            row["parent"] = None if head is None else head["id"]
        _check_parent(connection, row)
        if head is not None and all(head[name] == row[name] for name in _SAID):
            if _is_newest(connection, head):
                take_back(connection, row["frame_id"], row["annotator"])
                return read_revision(head), None
            # somebody else spoke since: it is said again, which is no conflict with oneself
            row["parent"] = head["id"]
        if prediction is not None:
            _add_prediction(connection, prediction)
        # Read before it is committed: what was accepted is known to come back.
        mine = read_revision(join_rows(row, frame, prediction))
        connection.execute(insert(REVISIONS).values(row))
        if head is not None and head["id"] != row["parent"]:
            return mine, read_revision(head)
        _move_head(connection, row)
        take_back(connection, row["frame_id"], row["annotator"])
        return mine, None

    def accept_first(self, correction: Correction) -> tuple[Revision, bool]:
        """Store a correction where nobody said anything of these pixels yet; else give what was said.

        The second value tells whether it was stored. Whoever accepts meanwhile is before or after, never
        between.
        """
        row, prediction = _write_rows(correction, None)
        with self.writing() as connection:
            frame = _enter_frame(connection, correction)
            check_not_withdrawn(connection, frame, self.turned_away)
            _drop_times(connection, row, correction.effort)
            same = FRAMES.c.pixels_hash == frame["pixels_hash"]
            said = _select_head(connection, row) or _select_newest(connection, same)
            if said is not None:
                return read_revision(said), False
            if prediction is not None:
                _add_prediction(connection, prediction)
            mine = read_revision(join_rows(row, frame, prediction))
            connection.execute(insert(REVISIONS).values(row))
            _move_head(connection, row)
        return mine, True

    def head(self, frame_id: str, annotator: str) -> Revision | None:
        """Give what one annotator last said of a frame."""
        own = check_who(annotator)
        heads = _select_heads().where(HEADS.c.frame_id == frame_id, HEADS.c.annotator == own)
        return self._read_last(heads)

    def newest(self, frame_id: str, *, pixels_hash: str | None = None) -> Revision | None:
        """Give what was last said of a frame by anyone; sides that lost a conflict do not count."""
        same = FRAMES.c.id == frame_id
        if pixels_hash is not None:
            same = or_(same, FRAMES.c.pixels_hash == pixels_hash)
        return self._read_last(_select_heads().where(same))

    def history(self, frame_id: str) -> list[Revision]:
        """Give everything that was ever said of a frame."""
        with self.reading() as connection:
            rows = connection.execute(select_revisions().where(REVISIONS.c.frame_id == frame_id)).all()
        return [read_revision(row) for row in rows]

    def count(self) -> int:
        """Count the revisions."""
        with self.reading() as connection:
            return connection.scalar(select(func.count()).select_from(REVISIONS)) or 0

    def verify(self, *, tell: Tell = tell_nobody) -> list[str]:
        """Check the database, its guards, and that every mask is still what was accepted."""
        self._open()
        return find_problems(self, tell=tell)

    def _read_last(self, query: Select[Any]) -> Revision | None:
        with self.reading() as connection:
            row = connection.execute(_last_of(query)).one_or_none()
        return None if row is None else read_revision(row)


def _write_rows(
    correction: Correction, parent: str | None, *, adjudicated: bool = False
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Write a new revision's row, and its prediction's."""
    if not adjudicated:
        check_annotator(correction.annotator)
    prediction = None if correction.prediction is None else write_prediction(correction.prediction)
    prediction_id = None if prediction is None else prediction["id"]
    return write_revision(correction, parent=parent, prediction_id=prediction_id), prediction


def _drop_times(connection: Connection, row: dict[str, Any], effort: Effort | None) -> None:
    """Leave out of a new revision's row how long it took, unless the project records that."""
    if not settings_in(connection).record_time:
        row["seconds"] = None
        row["effort"] = None if effort is None else write_effort(effort.without_times())


def _select_heads() -> Select[Any]:
    return (
        select_revisions()
        .join(HEADS, HEADS.c.revision_id == REVISIONS.c.id)
        .where(not_(is_withdrawn(REVISIONS.c.frame_id)))
    )


def _last_of(query: Select[Any]) -> Select[Any]:
    return query.order_by(None).order_by(REVISIONS.c.number.desc()).limit(1)


def _select_newest(connection: Connection, same: ColumnElement[bool]) -> dict[str, Any] | None:
    """Read what was last said of some frames, as `read_revision` takes it."""
    found = connection.execute(_last_of(_select_heads().where(same))).one_or_none()
    return None if found is None else dict(found._mapping)


def _enter_frame(connection: Connection, correction: Correction) -> dict[str, Any]:
    """Add the frame if it is new, and lock its row, so that whoever else accepts on it waits."""
    height, width = correction.mask.shape
    values = {
        "id": correction.frame_id,
        "pixels_hash": correction.pixels_hash,
        "height": height,
        "width": width,
    }
    frame = add_frame(connection, values)
    if (frame["height"], frame["width"]) != (height, width):
        raise StoreError(
            f"the mask has {height} x {width} pixels, its image was stored with {frame['height']} x "
            f"{frame['width']}: open the image again and correct it on its own grid"
        )
    return frame


def add_frame(connection: Connection, row: dict[str, Any]) -> dict[str, Any]:
    """Add a frame's row if it is new, and lock it."""
    add_if_new(connection, FRAMES, row)
    query = select(FRAMES).where(FRAMES.c.id == row["id"]).with_for_update()
    return dict(connection.execute(query).one()._mapping)


def _check_parent(connection: Connection, row: dict[str, Any]) -> None:
    """Refuse a parent that could never have been this annotator's head on this frame."""
    if row["parent"] in (None, HEAD):
        return
    same = [REVISIONS.c[name] == row[name] for name in ("frame_id", "annotator")]
    if connection.scalar(select(REVISIONS.c.id).where(REVISIONS.c.id == row["parent"], *same)) is None:
        raise StoreError(
            f"revision {row['parent']} is none of this annotator's on this image: open the image again"
        )


def _select_head(connection: Connection, row: dict[str, Any]) -> dict[str, Any] | None:
    """Read the annotator's head on the frame, as `read_revision` takes it."""
    own = (HEADS.c.frame_id == row["frame_id"], HEADS.c.annotator == row["annotator"])
    query = select_revisions().join(HEADS, HEADS.c.revision_id == REVISIONS.c.id).where(*own)
    found = connection.execute(query).one_or_none()
    return None if found is None else dict(found._mapping)


def _is_newest(connection: Connection, head: dict[str, Any]) -> bool:
    """Tell whether nobody said anything of a head's pixels after it."""
    later = _select_heads().where(
        FRAMES.c.pixels_hash == head["pixels_hash"], REVISIONS.c.number > head["number"]
    )
    return connection.execute(later.limit(1)).one_or_none() is None


def _add_prediction(connection: Connection, row: dict[str, Any]) -> None:
    """Store a prediction, unless its like is there already."""
    if connection.scalar(select(PREDICTIONS.c.id).where(PREDICTIONS.c.id == row["id"])) is None:
        connection.execute(insert(PREDICTIONS).values(row))


def _move_head(connection: Connection, row: dict[str, Any]) -> None:
    """Make a revision the annotator's head on the frame."""
    own = {name: row[name] for name in ("frame_id", "annotator")}
    if add_if_new(connection, HEADS, {**own, "revision_id": row["id"]}):
        return
    at = [HEADS.c[name] == value for name, value in own.items()]
    connection.execute(update(HEADS).where(*at).values(revision_id=row["id"]))
