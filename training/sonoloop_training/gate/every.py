"""All models of a store on one test set, so that the rows of their table can be compared."""

from __future__ import annotations

from collections.abc import Collection, Generator

from sonoloop.errors import ModelError, TrainingError
from sonoloop.jobs.events import Event, Notice, Unreadable
from sonoloop.models.library import Library
from sonoloop.store.corrections import CorrectionStore
from sonoloop.store.model_registry import list_models
from sonoloop.store.test_sets import TestSet
from sonoloop_training.gate.scoring import score_models


def score_every(
    store: CorrectionStore,
    test_set: TestSet,
    *,
    device: str,
    library: Library,
    judged: Collection[str] = (),
) -> Generator[Event, None, int]:
    """Score every model that was not deleted; what was scored before is read, and nothing is a look.

    Parameters
    ----------
    store : CorrectionStore
        Where the corrections are.
    test_set : TestSet
        Who judges.
    device : str
        See `sonoloop.models.devices.choose_device`.
    library : Library
        Where the models are.
    judged : collection of str
        Versions that a verdict on this set was just about: they are scored, and it told which frames cannot
        be read. Models that are not on this machine are passed over then too.

    Yields
    ------
    Event
        Those of `score_models`, and a `Notice` for each model that cannot be scored.

    Returns
    -------
    int
        How many models are scored.

    Raises
    ------
    StoreError
        If the store cannot be read or written.
    """
    scored = 0
    here, told = library.versions(), set[str]()
    for row in list_models(store):
        if row.is_deleted or row.version in judged or (judged and row.version not in here):
            continue
        try:
            for event in score_models(store, test_set, [row.version], device=device, library=library):
                if isinstance(event, Unreadable):
                    if judged or event.image in told:
                        continue
                    told.add(event.image)
                yield event
            scored += 1
        except (ModelError, TrainingError) as error:
            yield Notice(message=f"{row.model} is not scored: {error}")
    return scored
