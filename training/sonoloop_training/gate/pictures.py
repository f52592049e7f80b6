"""What a change of model does, in pictures: every frame before and after, and those that change most."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sonoloop.atomic import whole
from sonoloop.errors import SonoloopError
from sonoloop.jobs.events import Event, Notice, Progress
from sonoloop.models.library import Library
from sonoloop.models.predictor import Predictor
from sonoloop.store.corrections import CorrectionStore
from sonoloop.store.file_index import Places
from sonoloop.store.test_sets import TestSet
from sonoloop.values import CLASSES
from sonoloop_training.evaluation.report import outlined
from sonoloop_training.evaluation.scores import Case
from sonoloop_training.gate.decision import Outcome
from sonoloop_training.gate.scoring import Judged, load_predictor, read_judged
from sonoloop_training.page import CLASS_COLOURS, new_figure

SCATTER, IMPROVED, HARMED = "scatter", "improved", "harmed"
COUNT = 5

_QUIET = "#767676"
_MARKERS = {"normal": "s", "benign": "o", "malignant": "^"}
# a change that nobody would see
_SEEN = 0.005
_NO_LESION = "no lesion"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A frame that a change of model makes better or worse.

    Parameters
    ----------
    before, after : Outcome
        By the incumbent and by the candidate.
    """

    before: Outcome
    after: Outcome

    @property
    def amount(self) -> float:
        """Dice gained; a false alarm more or less counts 1."""
        return self.after.dice - self.before.dice


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shown:
    """A change with what there is to see.

    Parameters
    ----------
    change : Change
        Which frame.
    case : Case
        The frame with its truth.
    before, after : numpy.ndarray
        Masks predicted by the incumbent and by the candidate, bool (H, W).
    """

    change: Change
    case: Case
    before: NDArray[np.bool_]
    after: NDArray[np.bool_]


def most_changed(
    candidate: Sequence[Outcome], incumbent: Sequence[Outcome], count: int = COUNT
) -> tuple[list[Change], list[Change]]:
    """Pick the frames that are most improved and most harmed, the most changed first."""
    changes = [Change(before=old, after=new) for new, old in zip(candidate, incumbent, strict=True)]
    ordered = sorted(changes, key=lambda change: -change.amount)
    improved = [change for change in ordered if change.amount > _SEEN]
    harmed = [change for change in reversed(ordered) if change.amount < -_SEEN]
    return improved[:count], harmed[:count]


def scatter_figure(
    candidate: Sequence[Outcome], incumbent: Sequence[Outcome], *, names: tuple[str, str]
) -> Figure:
    """Draw each frame's Dice by the incumbent (across) and by the candidate (up)."""
    pairs = [
        (old.dice, new.dice, new.label) for new, old in zip(candidate, incumbent, strict=True) if new.lesion
    ]
    with new_figure(4.6, 4.8) as figure:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], ":", color=_QUIET, label="the same")
        for label in (*CLASSES, "unsure"):
            own = [(old, new) for old, new, name in pairs if name == label]
            if own:
                across, up = zip(*own, strict=True)
                axes.plot(
                    across,
                    up,
                    _MARKERS.get(label, "D"),
                    color=CLASS_COLOURS.get(label, _QUIET),
                    ms=4.5,
                    alpha=0.6,
                    mec="none",
                    label=label,
                )
        better = sum(new > old for old, new, _ in pairs)
        worse = sum(new < old for old, new, _ in pairs)
        axes.set_title(f"{len(pairs)} frames with a lesion: {better} better, {worse} worse", loc="left")
        axes.set_xlabel(f"Dice before ({names[1]})")
        axes.set_ylabel(f"Dice after ({names[0]})")
        axes.set_xlim(-0.03, 1.03)
        axes.set_ylim(-0.03, 1.03)
        axes.set_aspect("equal")
        figure.legend(loc="outside lower center", ncols=4)
    return figure


def changes_figure(shown: Sequence[Shown], *, title: str) -> Figure:
    """Draw frames by pairs, before on the left and after on the right, with the truth in both."""
    with new_figure(6.4, 0.7 + 2.5 * len(shown)) as figure:
        figure.suptitle(
            f"{title}\ntruth: cyan, solid; predicted: orange, dashed", x=0.01, ha="left", fontsize=10
        )
        for (left, right), one in zip(figure.subplots(len(shown), 2, squeeze=False), shown, strict=True):
            before, after = one.change.before, one.change.after
            _draw(left, one.case, one.before, f"{before.frame[:8]}, {before.label}; before: {_say(before)}")
            _draw(right, one.case, one.after, f"after: {_say(after)}")
    return figure


def save_pictures(out: Path, figures: Mapping[str, Figure]) -> dict[str, str]:
    """Write figures as PNG on white, each whole or not at all, and give their paths by name."""
    out.mkdir(parents=True, exist_ok=True)
    paths = {}
    for name, figure in figures.items():
        path = out / f"{name}.png"
        with whole(path) as partial:
            figure.savefig(partial, format="png", facecolor="white", dpi=110, metadata={"Software": None})
        paths[name] = str(path)
    return paths


def _draw(axes: Axes, case: Case, predicted: NDArray[np.bool_], text: str) -> None:
    axes.imshow(outlined(case, predicted))
    axes.set_title(text, loc="left", fontsize=8)
    axes.axis("off")


def _say(one: Outcome) -> str:
    if one.lesion:
        return f"Dice {one.dice:.2f}"
    return "false alarm" if one.claimed else _NO_LESION


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
        """Draw before against after, and the frames that change most; the verdict does not hang on it."""
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
