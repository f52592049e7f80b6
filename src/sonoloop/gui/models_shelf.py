"""What the Models panel asks of the store and the library, in its worker, without Qt."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sonoloop.errors import BundleError, ModelError, SonoloopError
from sonoloop.gui.llvm import load_triton_apart
from sonoloop.gui.work import OpenStore, StoreKeeper
from sonoloop.models.archive import verify_files
from sonoloop.models.card import Card, read_card, shipped_card
from sonoloop.models.library import Library
from sonoloop.store.corrections import CorrectionStore
from sonoloop.store.metrics import Figure
from sonoloop.store.model_registry import DELETED, list_models, mark, register
from sonoloop.store.promotions import (
    Promotion,
    ensure_incumbent,
    history,
    lock,
    promote,
    rollback,
    rollback_target,
    unlock,
)
from sonoloop.store.test_sets import ComparedModel, ModelComparison, compare_models

# on whatever it was tested on where it was made
_OWN = (
    ("lesion_dice", "Dice"),
    ("missed", "lesions missed"),
    ("false_alarms", "normals with a mask"),
    ("auc", "AUC"),
)
_ROLLBACK = "rolled back in the Models panel"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLine:
    """One model of the table.

    Parameters
    ----------
    version, model : str
        64 hex digits, and what users call it.
    made : datetime.datetime, optional
        None for the one that ships.
    dice, false_alarms : Figure, optional
        On the newest test set; None where the model was not scored.
    parent : str, optional
        What the model is called that it was tuned from.
    marks : tuple of str
        What became of it.
    in_use, here : bool
        Whether it is in use, and whether its bundle is on this machine.
    scored_on : int, optional
        How many frames of the newest test set its figures are from, where these are not all of them.
    """

    version: str
    model: str
    made: datetime | None
    dice: Figure | None
    false_alarms: Figure | None
    parent: str | None
    marks: tuple[str, ...]
    in_use: bool
    here: bool
    scored_on: int | None = None


@dataclass(frozen=True, slots=True)
class Shelf:
    """All models that were not deleted, the newest first, and what can be done."""

    lines: tuple[ModelLine, ...]
    locked: str | None
    back_to: str | None
    test_set: str


class ModelsDesk:
    """Asks the store and the library.

    Parameters
    ----------
    open_store : callable
        Gives the correction store for a URL.
    library : Library, optional
        Where models lie.
    """

    def __init__(self, open_store: OpenStore, library: Library | None = None) -> None:
        self._keeper = StoreKeeper(open_store)
        self._library = library or Library()

    def read(self, url: str | None) -> Shelf:
        """List the models with their figures on the newest test set."""
        store = self._keeper.at(url)
        overview, shipped = compare_models(store), shipped_card()
        here = set(self._library.versions())
        known = {line.row.version for line in overview.models}
        frames = 0 if overview.test_set is None else len(overview.test_set.members)
        lines = [_line(line, here, frames) for line in overview.models if not line.row.is_deleted]
        if shipped.version not in known:
            lines.append(_shipped_line(shipped, in_use=not any(line.in_use for line in lines)))
        back = rollback_target(store)
        return Shelf(
            tuple(lines), overview.locked, None if back is None else back.model, _describe_set(overview)
        )

    def use(self, url: str | None, version: str, *, expected: str, who: str, why: str) -> None:
        """Put a model into use, on the record; `expected` is the one that the user sees in use."""
        store = self._keeper.at(url)
        card = verify_files(self._library.find(version))
        if "lesion" not in card.spec.heads:
            raise ModelError(f"{card.model} predicts classes and no mask: it cannot be used here")
        self._begin(store, who)
        promote(store, version, kind="use", who=who, why=why, expected=expected)

    def roll_back(self, url: str | None, *, who: str) -> None:
        """Put the model back into use that was before."""
        store = self._keeper.at(url)
        target = rollback_target(store)
        if target is not None:
            verify_files(self._library.find(target.version))
        rollback(store, who=who, why=_ROLLBACK, to=None if target is None else target.version)

    def import_model(self, url: str | None, source: Path, *, who: str) -> None:
        """Add a model from a zip file or a card."""
        store = self._keeper.at(url)
        load_triton_apart()  # the bundle is checked with torch
        card = read_card(self._library.import_(source))
        self._begin(store, who)
        register(
            store, version=card.version, model=card.model, origin="imported", who=who, parent=card.parent
        )

    def export(self, version: str, target: Path) -> None:
        """Write a model to a zip file."""
        self._library.export(version, target)

    def delete(self, url: str | None, version: str, *, who: str) -> None:
        """Delete a model's bundle; what was said of it stays on record."""
        store = self._keeper.at(url)
        # the record first: it refuses the model in use
        mark(store, version, DELETED, why="deleted in the Models panel", who=who)
        self._library.delete(version)

    def set_locked(self, url: str | None, version: str, locked: bool, *, who: str, why: str) -> None:
        """Lock the project to the model in use, or let others in again."""
        store = self._keeper.at(url)
        self._begin(store, who)
        if locked:
            lock(store, version, who=who, why=why)
        else:
            unlock(store, who=who, why=why)

    def card(self, url: str | None, version: str) -> tuple[tuple[str, str], ...]:
        """Tell what is known of a model, name by name."""
        store = self._keeper.at(url)
        return _card_facts(self._library, version) + _store_facts(store, version)

    def close(self) -> None:
        """Close the store."""
        self._keeper.close()

    def _begin(self, store: CorrectionStore, who: str) -> None:
        try:
            shipped = self._library.keep_shipped()
        except BundleError:
            shipped = shipped_card()  # the copy is for the day of an upgrade
        ensure_incumbent(store, version=shipped.version, model=shipped.model, who=who)


def _describe_set(overview: ModelComparison) -> str:
    test_set = overview.test_set
    if test_set is None or not test_set.members:
        return "No test set yet: figures come with the first comparison"
    groups = f"{test_set.groups} group{'' if test_set.groups == 1 else 's'}"
    looks = f"{overview.evaluations} look{'' if overview.evaluations == 1 else 's'}"
    return f"Figures on test set {test_set.number}, {groups}, {looks}"


def _line(line: ComparedModel, here: Collection[str], frames: int) -> ModelLine:
    row, figures = line.row, line.figures
    return ModelLine(
        version=row.version,
        model=row.model,
        made=None if row.origin == "shipped" else row.created,
        dice=None if figures is None else figures.dice,
        false_alarms=None if figures is None else figures.false_alarms,
        parent=line.parent,
        marks=row.standing,
        in_use=line.in_use,
        here=row.version in here,
        scored_on=figures.frames if figures is not None and figures.frames < frames else None,
    )


def _shipped_line(card: Card, *, in_use: bool) -> ModelLine:
    return ModelLine(
        version=card.version,
        model=card.model,
        made=None,
        dice=None,
        false_alarms=None,
        parent=None,
        marks=(),
        in_use=in_use,
        here=True,
    )


def _card_facts(library: Library, version: str) -> tuple[tuple[str, str], ...]:
    try:
        card = read_card(library.find(version))
    except SonoloopError as error:
        return (("Bundle", str(error)),)
    spec = card.spec
    network = " ".join(filter(None, (spec.architecture, spec.encoder)))
    facts = [("Model", card.model), ("Version", card.version), ("Network", f"{network}, {spec.size} px")]
    datasets = card.snapshot.get("datasets")
    if isinstance(datasets, list):
        facts.append(("Learned from", ", ".join(map(str, datasets))))
    test = card.metrics.get("test")
    if isinstance(test, Mapping):
        facts += [(f"Own test: {name}", _figure(test[key])) for key, name in _OWN if test.get(key)]
    return tuple(facts)


def _figure(figure: Mapping[str, Any]) -> str:
    bounds = figure.get("ci95")
    interval = "" if bounds is None else f" [{bounds[0]:.3f}, {bounds[1]:.3f}]"
    return f"{figure['value']:.3f}{interval}"


def _store_facts(store: CorrectionStore, version: str) -> tuple[tuple[str, str], ...]:
    rows = {row.version: row for row in list_models(store)}
    if version not in rows:
        return (("In this project", "not used yet"),)
    row = rows[version]
    facts = [("Came", f"{_when(row.created)}, {row.origin}, by {row.who}")]
    if row.parent is not None:
        facts.append(("Tuned from", rows[row.parent].model if row.parent in rows else row.parent[:8]))
    if row.snapshot is not None:
        facts.append(("Snapshot", row.snapshot))
    moves: list[Promotion] = [move for move in history(store) if move.version == version]
    facts += [("Put into use", f"{_when(m.created)} by {m.who} ({m.kind}): {m.why}") for m in moves]
    facts += [(m.mark.capitalize(), f"{_when(m.created)} by {m.who}: {m.why}") for m in row.marks]
    return tuple(facts)


def _when(moment: datetime) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M}"
