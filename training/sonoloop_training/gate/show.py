"""The pictures of a comparison, from the store's frames and both models."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from sonoloop.errors import SonoloopError
from sonoloop.jobs.events import Event, Notice, Progress
from sonoloop.models.library import Library
from sonoloop.models.predictor import Predictor
from sonoloop.store.corrections import CorrectionStore
from sonoloop.store.file_index import Places
from sonoloop.store.test_sets import TestSet
from sonoloop_training.evaluation.cases_ import Case
from sonoloop_training.gate.judges import Judged, read_judged
from sonoloop_training.gate.outcomes import Outcome
from sonoloop_training.gate.pictures import (
    HARMED,
    IMPROVED,
    SCATTER,
    Change,
    Shown,
    changes_figure,
    most_changed,
    save_pictures,
    scatter_figure,
)
from sonoloop_training.gate.scoring import load_predictor

_TITLES = {IMPROVED: "Most improved", HARMED: "Most harmed"}


class Show:
    """Draws what changes from one model to another.

    Parameters
    ----------
    store : CorrectionStore
        Where the corrections are.
    test_set : TestSet
        Who judged.
    versions, names : sequence of str
        Versions and ids of the candidate and the incumbent.
    device : str
        See `sonoloop.models.devices.choose_device`.
    library : Library
        Where the models are.
    """

    def __init__(
        self,
        store: CorrectionStore,
        test_set: TestSet,
        versions: Sequence[str],
        names: tuple[str, str],
        *,
        device: str,
        library: Library,
    ) -> None:
        self._store = store
        self._places = Places(store.url)
        self._judges = {judge.frame_id: judge for judge in test_set.members}
        self._versions, self._names = versions, names
        self._device, self._library = device, library

    def draw(
        self, candidate: Sequence[Outcome], incumbent: Sequence[Outcome], *, out: Path
    ) -> Generator[Event, None, dict[str, str]]:
        """Draw before against after, and the frames that change most; the verdict does not hang on it.

        Parameters
        ----------
        candidate, incumbent : sequence of Outcome
            Of the same frames, in the same order.
        out : pathlib.Path
            Folder for the files.

        Yields
        ------
        Event
            `Progress`, and a `Notice` for each picture that cannot be made.

        Returns
        -------
        dict
            Paths by "scatter", "improved" and "harmed".
        """
        if not candidate:
            return {}
        figures: dict[str, Figure] = {}
        if any(one.lesion for one in candidate):
            figures[SCATTER] = scatter_figure(candidate, incumbent, names=self._names)
        chosen = dict(zip((IMPROVED, HARMED), most_changed(candidate, incumbent), strict=True))
        total, done = sum(map(len, chosen.values())), 0
        if total:
            try:
                predictors = [
                    load_predictor(self._library, version, name, self._device)
                    for version, name in zip(self._versions, self._names, strict=True)
                ]
            except SonoloopError as error:
                yield Notice(message=f"the frames that change most are not drawn: {error}")
                chosen = {}
        for name, changes in chosen.items():
            shown = []
            for change in changes:
                yield Progress(stage="Drawing what changes", done=done, total=total)
                done += 1
                try:
                    shown.append(self._predict(change, predictors))
                except SonoloopError as error:
                    yield Notice(message=f"{change.after.frame[:8]} is not drawn: {error}")
            if shown:
                figures[name] = changes_figure(shown, title=_TITLES[name])
        try:
            return save_pictures(out, figures)
        except OSError as error:
            yield Notice(message=f"no pictures: {out} cannot be written to ({error.strerror})")
            return {}

    def _predict(self, change: Change, predictors: Sequence[Predictor]) -> Shown:
        judged = read_judged(self._store, self._places, self._judges[change.after.frame])
        after, before = (np.asarray(one.predict(judged.frame).mask > 0) for one in predictors)
        return Shown(change=change, case=_as_case(judged), before=before, after=after)


def _as_case(judged: Judged) -> Case:
    return Case(
        frame=judged.frame,
        mask=judged.mask,
        label=judged.label,
        dataset="",
        group=judged.judge.group_id,
    )
