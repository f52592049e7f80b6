"""Whether an annotator may have seen what a model says of a frame; asked of the store, in a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import or_, select

from sonoloop.store.groups import placement
from sonoloop.store.tables import FRAMES, REVISIONS

if TYPE_CHECKING:
    from sonoloop.store.corrections import CorrectionStore
    from sonoloop.values import Frame


def may_have_seen(store: CorrectionStore, frame: Frame, annotator: str) -> bool:
    """Tell whether an annotator's earlier corrections of a frame give away that a prediction was shown.

    Where a frame is drawn first the proposal is shown after Accept, whether or not it was stored: whoever
    accepted it once, or the same pixels in another file, may have seen it.
    """
    query = (
        select(REVISIONS.c.prediction_seen)
        .join(FRAMES, FRAMES.c.id == REVISIONS.c.frame_id)
        .where(
            REVISIONS.c.annotator == annotator,
            or_(FRAMES.c.id == frame.id, FRAMES.c.pixels_hash == frame.pixels_hash),
        )
    )
    with store.reading() as connection:
        earlier = connection.scalars(query).all()
    if not earlier:
        return False
    placed = placement(store, frame.id)
    return any(earlier) or (placed is not None and placed.draw_first)
