"""Test sets: the frames that models are compared on, frozen; how models did on them, and what was decided."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, ClassVar, Literal, get_args

from sqlalchemy import Connection, Row, func, insert, select, update

from sonoloop.errors import StoreError
from sonoloop.store.database import Database, check_who, hold, in_batches, now, values_of
from sonoloop.store.metrics import Figures, FrameScore, summarise_scores
from sonoloop.store.model_registry import PASSED, REFUSED, ModelRow, add_mark, known_model, list_models
from sonoloop.store.promotions import incumbent, locked_version
from sonoloop.store.references import references_in
from sonoloop.store.revisions import select_judging
from sonoloop.store.tables import LOOKS, MEMBERS, REVISIONS, SCORES, TEST_SET_MEMBERS, TEST_SETS, TOMBSTONES
from sonoloop.values import ClassName

VerdictName = Literal["promote", "refuse", "inconclusive"]
VERDICTS: tuple[VerdictName, ...] = get_args(VerdictName)


@dataclass(frozen=True, slots=True, kw_only=True)
class TestFrame:
    """A frame of a test set, as it was corrected when the set was frozen."""

    # pytest would take the name for tests
    __test__: ClassVar[bool] = False

    frame_id: str
    # the correction that counts as true
    revision_id: str
    # frames of one group are drawn together when intervals are computed
    group_id: str
    # the class known from elsewhere, such as histology
    reference: ClassName | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TestSet:
    """Test frames, frozen: the set's number, the hash of its members, and when (UTC); it never changes."""

    __test__: ClassVar[bool] = False

    number: int
    sha256: str
    created: datetime
    members: tuple[TestFrame, ...]

    @property
    def groups(self) -> int:
        """How many groups its frames are of."""
        return len({member.group_id for member in self.members})


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One comparison of two models on a test set; counted, since who looks often will find something."""

    number: int
    test_set: int
    # versions of the two models
    candidate: str
    incumbent: str
    verdict: VerdictName
    reason: str
    # what was measured, as JSON holds it
    figures: Mapping[str, Any]
    who: str
    created: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedModel:
    """A model and how it does."""

    row: ModelRow
    # what it was tuned from, as users call it; the version's first digits where the project knows it not
    parent: str | None
    # on the frames of the newest test set that were scored and that the model does not know: fewer than the
    # set has where others trained the model, or where nobody scored it since the set grew
    figures: Figures | None
    in_use: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelComparison:
    """All models side by side, the newest first, on the newest test set if there is one."""

    models: tuple[ComparedModel, ...]
    test_set: TestSet | None
    # how often two models were compared on that set
    evaluations: int
    # the version that the project is locked to
    locked: str | None


def freeze_test_set(store: Database) -> TestSet:
    """Freeze the frames that can test today; the same frames with the same corrections are the same set.

    These are the frames of test groups that somebody drew without having seen a prediction: by their first
    correction of it, since what a model says is shown after that. One that has near copies on the training
    side is not among them, nor is one that was withdrawn.
    """
    with store.writing() as connection:
        hold(connection, TEST_SETS)
        members = _select_test_frames(connection)
        sha256 = _hash(members)
        number = _find_set(connection, sha256)
        if number is None:
            row = {"sha256": sha256, "created": now()}
            number = connection.scalars(insert(TEST_SETS).values(row).returning(TEST_SETS.c.number)).one()
            if members:
                rows = [{"test_set": number, **asdict(member)} for member in members]
                connection.execute(insert(TEST_SET_MEMBERS), rows)
        return _read_set(connection, number)


def read_test_set(store: Database, number: int) -> TestSet:
    """Read a test set."""
    with store.reading() as connection:
        return _read_set(connection, number)


def newest_test_set(store: Database) -> TestSet | None:
    """Read the test set that models are compared on today; None before the first.

    It is the set of the frames that can test today, where that was frozen, else the one that was evaluated
    on or frozen last.
    """
    with store.reading() as connection:
        number = _find_set(connection, _hash(_select_test_frames(connection)))
        if number is None:
            last = select(LOOKS.c.test_set).order_by(LOOKS.c.number.desc()).limit(1)
            newest = select(func.max(TEST_SETS.c.number))
            number = connection.scalar(last) or connection.scalar(newest)
        if number is None:
            return None
        found = _read_set(connection, number)
        gone = set(connection.scalars(select(TOMBSTONES.c.frame_id)))
        return replace(found, members=tuple(one for one in found.members if one.frame_id not in gone))


def _select_test_frames(connection: Connection) -> tuple[TestFrame, ...]:
    columns = (REVISIONS.c.frame_id, REVISIONS.c.id.label("revision_id"), MEMBERS.c.group_id)
    query = select_judging(*columns).order_by(None).order_by(REVISIONS.c.frame_id)
    rows = connection.execute(query).all()
    references = references_in(connection, [row.frame_id for row in rows])
    return tuple(TestFrame(**row._mapping, reference=references.get(row.frame_id)) for row in rows)


def _find_set(connection: Connection, sha256: str) -> int | None:
    number: int | None = connection.scalar(select(TEST_SETS.c.number).where(TEST_SETS.c.sha256 == sha256))
    return number


def _read_set(connection: Connection, number: int) -> TestSet:
    row = connection.execute(select(TEST_SETS).where(TEST_SETS.c.number == number)).one_or_none()
    if row is None:
        raise StoreError(f"there is no test set {number}: freeze one by judging a model")
    columns = [TEST_SET_MEMBERS.c[name] for name in TestFrame.__slots__]
    query = (
        select(*columns).where(TEST_SET_MEMBERS.c.test_set == number).order_by(TEST_SET_MEMBERS.c.frame_id)
    )
    members = tuple(TestFrame(**member._mapping) for member in connection.execute(query))
    if _hash(members) != row.sha256:
        raise StoreError(f"test set {number} is not what it was when it was frozen: restore a backup")
    return TestSet(**values_of(row), members=members)


def _hash(members: tuple[TestFrame, ...]) -> str:
    # sorted here: databases differ in how they order text
    by_frame = sorted(members, key=lambda member: member.frame_id)
    content = json.dumps([asdict(member) for member in by_frame], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def read_scores(store: Database, version: str) -> dict[str, FrameScore]:
    """Read how a model did, by the revision that counted as true, as it was when the model was scored."""
    query = select(SCORES.c.revision_id, SCORES.c.score).where(SCORES.c.version == version)
    with store.reading() as connection:
        return {row.revision_id: _read_score(row.score) for row in connection.execute(query)}


def scores_on(
    store: Database, test_set: TestSet, versions: Iterable[str]
) -> dict[str, dict[str, FrameScore]]:
    """Give how models did on a test set, as far as they were scored: by version, then by the frame's id.

    What is true is asked of the set: a score may be older than a histology or a patient's number.
    """
    labels: dict[str, str] = {}
    with store.reading() as connection:
        for batch in in_batches(member.revision_id for member in test_set.members):
            rows = connection.execute(
                select(REVISIONS.c.id, REVISIONS.c.label).where(REVISIONS.c.id.in_(batch))
            )
            labels.update({row.id: row.label for row in rows})
    found: dict[str, dict[str, FrameScore]] = {}
    for version in versions:
        scores = read_scores(store, version)
        found[version] = {
            member.frame_id: replace(
                scores[member.revision_id],
                frame=member.frame_id,
                group=member.group_id,
                label=member.reference or labels[member.revision_id],
            )
            for member in test_set.members
            if member.revision_id in scores
        }
    return found


def write_scores(store: Database, version: str, scores: Mapping[str, FrameScore]) -> None:
    """Keep how a model did. What was computed before stays: all evaluations see the same figures."""
    texts = {revision: _write_score(score) for revision, score in scores.items()}
    with store.writing() as connection:
        known_model(connection, version)
        hold(connection, SCORES)
        there = set(connection.scalars(select(SCORES.c.revision_id).where(SCORES.c.version == version)))
        rows = [
            {"version": version, "revision_id": revision, "score": text}
            for revision, text in texts.items()
            if revision not in there
        ]
        if rows:
            connection.execute(insert(SCORES), rows)


def note_known(store: Database, version: str, known: Mapping[str, bool]) -> None:
    """Note beside a model's scores which frames it knows; a patient's number that came later may tell."""
    stale = {
        revision: replace(score, known=known[revision])
        for revision, score in read_scores(store, version).items()
        if known.get(revision, score.known) != score.known
    }
    if not stale:
        return
    with store.writing() as connection:
        for revision, score in stale.items():
            own = (SCORES.c.version == version, SCORES.c.revision_id == revision)
            connection.execute(update(SCORES).where(*own).values(score=_write_score(score)))


def _write_score(score: FrameScore) -> str:
    return json.dumps(asdict(score), allow_nan=False)


def _read_score(text: str) -> FrameScore:
    # older scores lack the last fields
    values = json.loads(text)
    return FrameScore(**{name: values[name] for name in FrameScore.__slots__ if name in values})


def record_evaluation(
    store: Database,
    *,
    test_set: int,
    candidate: str,
    incumbent: str,
    verdict: VerdictName,
    reason: str,
    figures: Mapping[str, Any],
    who: str,
    resumed: bool = False,
) -> Evaluation:
    """Put a comparison on record; whatever came out of it, it counts.

    A candidate that was refused is marked in the same transaction, and one that is found better after it was
    refused is not refused any longer.
    """
    if verdict not in VERDICTS:
        raise ValueError(f"verdict must be one of {', '.join(VERDICTS)}, got {verdict!r}")
    who = check_who(who)
    row = {
        "test_set": test_set,
        "candidate": candidate,
        "incumbent": incumbent,
        "verdict": verdict,
        "reason": reason,
        "figures": json.dumps(figures, allow_nan=False),
        "who": who,
        "created": now(),
    }
    with store.writing() as connection:
        if connection.scalar(select(TEST_SETS.c.number).where(TEST_SETS.c.number == test_set)) is None:
            raise StoreError(f"there is no test set {test_set}: freeze one first")
        known_model(connection, incumbent)
        compared = known_model(connection, candidate)
        hold(connection, LOOKS)
        if resumed and (same := _find_same(connection, row)) is not None:
            return same
        if verdict == "refuse":
            add_mark(connection, candidate, REFUSED, why=reason, who=who)
        elif verdict == "promote" and REFUSED in compared.standing:
            add_mark(connection, candidate, PASSED, why=reason, who=who)
        return _read_evaluation(connection.execute(insert(LOOKS).values(row).returning(*LOOKS.c)).one())


def evaluations(store: Database, test_set: int | None = None) -> tuple[Evaluation, ...]:
    """List the evaluations, on one test set or all, in their order."""
    query = select(LOOKS).order_by(LOOKS.c.number)
    if test_set is not None:
        query = query.where(LOOKS.c.test_set == test_set)
    with store.reading() as connection:
        return tuple(_read_evaluation(row) for row in connection.execute(query))


def _find_same(connection: Connection, row: Mapping[str, Any]) -> Evaluation | None:
    last = select(LOOKS).where(LOOKS.c.test_set == row["test_set"]).order_by(LOOKS.c.number.desc()).limit(1)
    found = connection.execute(last).one_or_none()
    same = ("candidate", "incumbent", "verdict", "reason", "figures")
    if found is None or any(found._mapping[key] != row[key] for key in same):
        return None
    return _read_evaluation(found)


def _read_evaluation(row: Row[Any]) -> Evaluation:
    return Evaluation(**values_of(row) | {"figures": json.loads(row.figures)})


def compare_models(store: Database) -> ModelComparison:
    """Put all models of a project side by side, with the scores that are stored; nothing is predicted."""
    rows, used, test_set = list_models(store), incumbent(store), newest_test_set(store)
    names = {row.version: row.model for row in rows}
    scores = {} if test_set is None else scores_on(store, test_set, names)
    unknown = {
        version: [score for score in own.values() if not score.known] for version, own in scores.items()
    }
    return ModelComparison(
        models=tuple(
            ComparedModel(
                row=row,
                parent=None if row.parent is None else names.get(row.parent, row.parent[:8]),
                figures=summarise_scores(unknown[row.version]) if unknown.get(row.version) else None,
                in_use=used is not None and used.version == row.version,
            )
            for row in reversed(rows)
        ),
        test_set=test_set,
        evaluations=0 if test_set is None else len(evaluations(store, test_set.number)),
        locked=locked_version(store),
    )
