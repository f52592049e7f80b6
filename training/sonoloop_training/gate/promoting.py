"""The model that a look found better comes into use."""

from __future__ import annotations

from sonoloop.errors import StoreError
from sonoloop.jobs.events import Event, Notice, Promoted
from sonoloop.models.library import Library
from sonoloop.store.corrections import CorrectionStore
from sonoloop.store.looks import Look
from sonoloop.store.promotions import promote


def promote_found(store: CorrectionStore, library: Library, look: Look, *, who: str) -> Promoted:
    """Put the candidate of a look into use, its bundle verified.

    Raises
    ------
    StoreError
        If the look did not say so or is not the last one at the two, another model is in use by now, or the
        project is locked; the model in use stays.
    ModelError
        If the model is not on this machine, or damaged.
    """
    bundle = library.load(look.candidate)
    promote(
        store,
        bundle.version,
        kind="gate",
        who=who,
        why=look.reason,
        look=look.number,
        expected=look.incumbent,
    )
    return Promoted(model=bundle.model, version=bundle.version)


def promote_if_free(store: CorrectionStore, library: Library, look: Look, *, who: str, called: str) -> Event:
    """Do what `promote_found` does; where the project keeps its model, tell why, calling the new one so."""
    try:
        return promote_found(store, library, look, who=who)
    except StoreError as error:
        return Notice(message=f"{called} passed and is not in use: {error}")
