"""What the Models panel tells of the models: of one all that is known, and on what they were tested."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sonoloop.errors import SonoloopError

if TYPE_CHECKING:
    from sonoloop.models.library import Library
    from sonoloop.project import Project
    from sonoloop.store.corrections import CorrectionStore
    from sonoloop.store.test_sets import ModelComparison

Facts = tuple[tuple[str, str], ...]

# on whatever it was tested on where it was made
_OWN = (
    ("lesion_dice", "Dice"),
    ("missed", "lesions missed"),
    ("false_alarms", "normals with a mask"),
    ("auc", "AUC"),
)


def describe_list(overview: ModelComparison) -> str:
    """Say on what the models were tested."""
    test_set = overview.test_set
    if test_set is None or not test_set.members:
        return "No test set yet: figures come with the first comparison"
    groups = f"{test_set.groups} group{'' if test_set.groups == 1 else 's'}"
    looks = f"{overview.evaluations} look{'' if overview.evaluations == 1 else 's'}"
    return f"Figures on test set {test_set.number}, {groups}, {looks}"


def describe_model(project: Project, version: str) -> Facts:
    """Tell what is known of a model, name by name; asked in a worker."""
    return _card_facts(project.library, version) + _store_facts(project.store, version)


def _card_facts(library: Library, version: str) -> Facts:
    from sonoloop.models.card import read_card  # noqa: PLC0415

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


def _store_facts(store: CorrectionStore, version: str) -> Facts:
    from sonoloop.store.model_registry import list_models  # noqa: PLC0415
    from sonoloop.store.promotions import history  # noqa: PLC0415 - the store loads slowly

    rows = {row.version: row for row in list_models(store)}
    if version not in rows:
        return (("In this project", "not used yet"),)
    row = rows[version]
    facts = [("Came", f"{_when(row.created)}, {row.origin}, by {row.who}")]
    if row.parent is not None:
        facts.append(("Tuned from", rows[row.parent].model if row.parent in rows else row.parent[:8]))
    if row.snapshot is not None:
        facts.append(("Snapshot", row.snapshot))
    moves = [move for move in history(store) if move.version == version]
    facts += [("Put into use", f"{_when(m.created)} by {m.who} ({m.kind}): {m.why}") for m in moves]
    facts += [(m.mark.capitalize(), f"{_when(m.created)} by {m.who}: {m.why}") for m in row.marks]
    return tuple(facts)


def _when(moment: datetime) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M}"
