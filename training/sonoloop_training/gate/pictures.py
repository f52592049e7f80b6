"""What a change of model does, in pictures: every frame before and after, and those that change most."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sonoloop.atomic import find_obstacle, whole
from sonoloop.errors import SonoloopError
from sonoloop.formats.mask_png import MAKER, refuse_others
from sonoloop.jobs.events import Event, Notice, Progress
from sonoloop.models.library import Library
from sonoloop.store.corrections import CorrectionStore
from sonoloop.store.file_index import Places
from sonoloop.store.metrics import FrameScore
from sonoloop.store.test_sets import TestSet
from sonoloop.values import CLASSES
from sonoloop_training.evaluation.report import outlined
from sonoloop_training.evaluation.scores import Case
from sonoloop_training.gate.scoring import load_predictor, read_test_frame
from sonoloop_training.page import CLASS_COLOURS, new_figure

SCATTER, IMPROVED, HARMED = "scatter", "improved", "harmed"
_MADE_BY = "sonoloop gate"
_TITLES = {IMPROVED: "Most improved", HARMED: "Most harmed"}
COUNT = 5

_QUIET = "#767676"
_MARKERS = {"normal": "s", "benign": "o", "malignant": "^"}
# a change that nobody would see
_SEEN = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """How a frame was scored by the incumbent, and how by the candidate."""

    before: FrameScore
    after: FrameScore

    @property
    def amount(self) -> float:
        """Dice gained; a false alarm more or less counts 1."""
        return self.after.dice - self.before.dice


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shown:
    """A change with the frame, and the masks that both models predict, (H, W)."""

    change: Change
    case: Case
    before: NDArray[np.bool_]
    after: NDArray[np.bool_]


def draw_changes(
    store: CorrectionStore,
    test_set: TestSet,
    versions: Sequence[str],
    candidate: Sequence[FrameScore],
    incumbent: Sequence[FrameScore],
    *,
    names: tuple[str, str],
    device: str,
    library: Library,
    out: Path,
) -> Generator[Event, None, tuple[dict[str, str], dict[str, list[str]]]]:
    """Draw before against after, and the frames that change most; the verdict does not hang on it.

    Of versions and names the candidate's come first. Gives the files, and the ids of the frames that change
    most in the order in which they are drawn.
    """
    if not candidate:
        return {}, {}
    figures: dict[str, Figure] = {}
    drawn: dict[str, list[str]] = {}
    if any(one.lesion for one in candidate):
        figures[SCATTER] = scatter_figure(candidate, incumbent, names=names)
    chosen = dict(zip((IMPROVED, HARMED), most_changed(candidate, incumbent), strict=True))
    total, done = sum(map(len, chosen.values())), 0
    if total:
        try:
            predictors = [
                load_predictor(library, version, name, device)
                for version, name in zip(versions, names, strict=True)
            ]
        except SonoloopError as error:
            yield Notice(message=f"the frames that change most are not drawn: {error}")
            chosen = {}
    places, frames = Places(store.url), {frame.frame_id: frame for frame in test_set.members}
    for name, changes in chosen.items():
        shown = []
        for change in changes:
            yield Progress(stage="Drawing what changes", done=done, total=total)
            done += 1
            try:
                case = read_test_frame(store, places, frames[change.after.frame])
                after, before = (np.asarray(one.predict(case.frame).mask > 0) for one in predictors)
            except SonoloopError as error:
                yield Notice(message=f"{change.after.frame[:8]} is not drawn: {error}")
                continue
            shown.append(Shown(change=change, case=case, before=before, after=after))
        if shown:
            figures[name] = changes_figure(shown, title=_TITLES[name])
            drawn[name] = [one.change.after.frame for one in shown]
    try:
        return save_pictures(out, figures), drawn
    except OSError as error:
        yield Notice(message=f"no pictures: {out} cannot be written to ({error.strerror})")
        return {}, {}


def most_changed(
    candidate: Sequence[FrameScore], incumbent: Sequence[FrameScore], count: int = COUNT
) -> tuple[list[Change], list[Change]]:
    """Pick the frames that are most improved and most harmed, the most changed first."""
    changes = [Change(before=old, after=new) for new, old in zip(candidate, incumbent, strict=True)]
    ordered = sorted(changes, key=lambda change: -change.amount)
    improved = [change for change in ordered if change.amount > _SEEN]
    harmed = [change for change in reversed(ordered) if change.amount < -_SEEN]
    return improved[:count], harmed[:count]


def scatter_figure(
    candidate: Sequence[FrameScore], incumbent: Sequence[FrameScore], *, names: tuple[str, str]
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
        axes.set(xlabel=f"Dice before ({names[1]})", ylabel=f"Dice after ({names[0]})")
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
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


def check_pictures(out: Path) -> None:
    """Refuse a folder whose pictures of these names no earlier look drew."""
    if obstacle := find_obstacle(out):
        raise SonoloopError(f"{obstacle}; give a folder with --out")
    refuse_others((out / f"{name}.png" for name in (SCATTER, IMPROVED, HARMED)), _MADE_BY)


def save_pictures(out: Path, figures: Mapping[str, Figure]) -> dict[str, str]:
    """Write figures as PNG on white, each whole or not at all, and give their paths by name."""
    out.mkdir(parents=True, exist_ok=True)
    paths = {}
    for name, figure in figures.items():
        path = out / f"{name}.png"
        with whole(path) as partial:
            figure.savefig(partial, format="png", facecolor="white", dpi=110, metadata={MAKER: _MADE_BY})
        paths[name] = str(path)
    return paths


def _draw(axes: Axes, case: Case, predicted: NDArray[np.bool_], text: str) -> None:
    axes.imshow(outlined(case, predicted))
    axes.set_title(text, loc="left", fontsize=8)
    axes.axis("off")


def _say(one: FrameScore) -> str:
    if one.lesion:
        return f"Dice {one.dice:.2f}"
    return "false alarm" if one.claimed else "no lesion"
