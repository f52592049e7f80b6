"""A calibration on site: a model's numbers fitted on the frames that judge, and a new model with them."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from sonoloop.errors import BundleError, TrainingError
from sonoloop.jobs.events import Calibrated, Event, Notice, Progress, Unreadable
from sonoloop.jobs.request import CalibrateRequest
from sonoloop.models.archive import recard
from sonoloop.models.card import PARITY, Card, read_card, written_format
from sonoloop.models.library import Library
from sonoloop.models.manifest import SPLIT, Manifest, Member, bundle_manifest
from sonoloop.project import begin_with_shipped
from sonoloop.store import CorrectionStore
from sonoloop.store.database import read_existing
from sonoloop.store.file_index import Places
from sonoloop.store.model_registry import CALIBRATED, ModelRow, find_model, list_models, mark, register
from sonoloop.store.test_sets import TestFrame, TestSet, freeze_test_set
from sonoloop_training.evaluation.scores import Case
from sonoloop_training.fit.calibration import Answers, Numbers, ask
from sonoloop_training.gate.scoring import (
    groups_of,
    load_predictor,
    read_test_frame,
    score_models,
    short,
)
from sonoloop_training.leakage import find_fitted, find_trained
from sonoloop_training.recalibration.refit import Refit, refit

NAME = "cal"
CALIBRATION = "calibration"
_DIGITS = 16


def calibrate(request: CalibrateRequest, *, library: Library | None = None) -> Iterator[Event]:
    """Fit a model's numbers on today's test frames, and add the model with these numbers; nothing is used."""
    library = library or Library()
    read_existing(request.store)
    with CorrectionStore(request.store) as store:
        in_use = begin_with_shipped(store, library, who=request.who)
        row = find_model(store, request.model) if request.model else find_model(store, in_use.version)
        base = read_card(library.find(row.version))
        if "lesion" not in base.spec.heads:
            raise TrainingError(f"{row.model} predicts classes and no mask: it cannot be calibrated here")
        test_set = freeze_test_set(store)
        kept = yield from _choose(store, test_set, row, library)
        members, answers = yield from _ask(store, kept, row, library, request)
        found = refit(answers, Numbers.of(base))
        made: ModelRow | None = None
        if found.changes:
            card = _describe(base, found, answers, test_set)
            made = _find_same(store, library, card) or _add(
                store, library, card, members, base=row, who=request.who
            )
            # for the table of models; what cannot be read was told
            scoring = score_models(
                store,
                test_set,
                [made.version],
                device=request.device,
                engine=request.engine,
                library=library,
            )
            yield from (event for event in scoring if not isinstance(event, Unreadable))
        yield Calibrated(
            model=None if made is None else made.model,
            version=None if made is None else made.version,
            base=row.model,
            base_version=row.version,
            in_use=in_use.version,
            numbers=found.told,
            figures=found.figures,
            frames=len(answers),
            groups=len(set(answers.groups)),
            test_set=test_set.number,
        )


def _choose(
    store: CorrectionStore, test_set: TestSet, row: ModelRow, library: Library
) -> Generator[Event, None, list[TestFrame]]:
    """Leave out the frames that trained the model: it is surer of them than of any other."""
    if not test_set.members:
        raise TrainingError(
            "no frame judges yet: correct images that are drawn first, without having seen a prediction"
        )
    leaks = yield from find_trained(store, test_set, row.version, row.model, library)
    trained = groups_of(test_set, leaks)
    if trained:
        count = sum(frame.group_id in trained for frame in test_set.members)
        yield Notice(
            message=f"{count} frames are left out, since {row.model} learned from them or their like"
        )
    earlier = find_fitted(store, test_set, row.version, library)
    if count := sum(frame.group_id in earlier for frame in test_set.members):
        yield Notice(
            message=f"the numbers that {row.model} has were fitted on {count} of these frames already, which "
            "flatters them here"
        )
    return [frame for frame in test_set.members if frame.group_id not in trained]


def _ask(
    store: CorrectionStore,
    kept: Sequence[TestFrame],
    row: ModelRow,
    library: Library,
    request: CalibrateRequest,
) -> Generator[Event, None, tuple[list[Member], Answers]]:
    """Read the frames and ask the model, a few at a time; one that cannot be read is told."""
    notices: list[str] = []
    predictor = load_predictor(
        library, row.version, row.model, request.device, engine=request.engine, on_notice=notices.append
    )
    beside, places = Numbers.of(predictor.card), Places(store.url)
    members: list[Member] = []
    parts: list[Answers] = []
    for first in range(0, len(kept), predictor.batch):
        yield Progress(stage=f"Asking {row.model}", done=first, total=len(kept))
        cases: list[Case] = []
        for frame in kept[first : first + predictor.batch]:
            try:
                case = read_test_frame(store, places, frame)
            except TrainingError as error:
                yield Unreadable(image=short(frame.frame_id), error=str(error))
                continue
            cases.append(case)
            # not the id of the file at hand, which may be saved anew
            members.append(replace(case.listed(), name=frame.frame_id[:_DIGITS], id=frame.frame_id))
        if cases:
            parts.append(ask(predictor, cases, beside=beside))
    for text in notices:
        yield Notice(message=text)
    if not parts:
        raise TrainingError("none of the frames that judge can be used to fit anything on")
    return members, Answers.join(parts)


def _describe(base: Card, found: Refit, answers: Answers, test_set: TestSet) -> Card:
    """Write the new card: the weights of the old one, and what its numbers were fitted on."""
    leaked = bool(base.snapshot.get("leaked"))
    fitted = [one.name for one in found.told if one.before != one.after]
    told = {
        "frames": len(answers),
        "groups": len(set(answers.groups)),
        "test_set": test_set.number,
        "test_set_sha256": test_set.sha256,
        "fitted": fitted,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return replace(
        base,
        **asdict(found.numbers),
        name=f"{NAME}-leaked" if leaked else NAME,
        parent=base.version,
        snapshot={**base.snapshot, CALIBRATION: told},
        # the others of the model started from had other numbers; its graph is this one's
        metrics={CALIBRATION: found.metrics, **{k: v for k, v in base.metrics.items() if k == PARITY}},
        format=written_format(base),
    )


def _find_same(store: CorrectionStore, library: Library, card: Card) -> ModelRow | None:
    """Find a model that was made of the same frames with the same numbers before."""
    for row in list_models(store):
        if row.parent != card.parent or row.is_deleted or CALIBRATED not in row.standing:
            continue
        with suppress(BundleError):
            other = library.versions().get(row.version)
            if other is not None and _is_same(read_card(other), card):
                return row
    return None


def _is_same(one: Card, other: Card) -> bool:
    sets = [(card.snapshot.get(CALIBRATION) or {}).get("test_set_sha256") for card in (one, other)]
    return sets[0] == sets[1] and Numbers.of(one) == Numbers.of(other)


def _add(
    store: CorrectionStore,
    library: Library,
    card: Card,
    members: Sequence[Member],
    *,
    base: ModelRow,
    who: str,
) -> ModelRow:
    """Copy the old bundle with the new card, byte for byte but for that and the list of who is known."""
    folder = library.find(base.version)
    listed = bundle_manifest(folder) or Manifest()
    known = {member.id for member in listed.calibration}
    more = tuple(one for one in members if one.id not in known)
    listed = replace(listed, calibration=listed.calibration + more)
    with TemporaryDirectory(prefix="sonoloop-") as scratch:
        made = Path(scratch) / card.name
        recard(folder, made, card, {SPLIT: listed.to_json()})
        version = read_card(library.add(made)).version
    row = register(
        store,
        version=version,
        model=read_card(library.find(version)).model,
        origin="tuned",
        who=who,
        parent=base.version,
        snapshot=base.snapshot,
    )
    told = card.snapshot[CALIBRATION]
    mark(
        store,
        version,
        CALIBRATED,
        why=f"its numbers were fitted on {told['frames']} frames of test set {told['test_set']}: its own "
        "figures on them flatter",
        who=who,
    )
    return row
