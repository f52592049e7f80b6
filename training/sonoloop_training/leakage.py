"""What must not be on both sides: what a model learned from, or copies of it, and its test images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sqlalchemy import select

from sonoloop.errors import TrainingError, UnsupportedImageError
from sonoloop.imaging.fingerprints import sketch
from sonoloop.imaging.grey import check_frame
from sonoloop.jobs.events import Event, Notice, Progress
from sonoloop.leakage import Family, Leak, find_leaks, list_row, read_family
from sonoloop.models.bundle import read_bundle
from sonoloop.models.library import Library, bundle_folder
from sonoloop.models.manifest import SPLIT, Manifest, Member, read_manifest
from sonoloop.store import CorrectionStore
from sonoloop.store.groups import hash_patient
from sonoloop.store.near_duplicates import SketchIndex, match_copies
from sonoloop.store.revisions import is_withdrawn
from sonoloop.store.settings import store_secret
from sonoloop.store.snapshots import Snapshot
from sonoloop.store.tables import FRAMES, GROUPS, MEMBERS, REVISIONS, SNAPSHOT_MEMBERS, TEST_SET_MEMBERS
from sonoloop.store.test_sets import TestSet
from sonoloop.values import Frame
from sonoloop_training.datasets import Sample
from sonoloop_training.fit.preflight import check_parts
from sonoloop_training.fit.recipe import Recipe
from sonoloop_training.splits import Part

_TRAINED_EVERY = 50
_COPIES_EVERY = 100
_DOES: dict[Part, str] = {"train": "train", "validation": "validate"}


def find_leaks_in_steps(
    evaluated: Sequence[Member], trained: Sequence[Member], *, stage: str, every: int
) -> Generator[Progress, None, list[Leak]]:
    """Do what `find_leaks` does, and tell before each so many images how far it is."""
    leaks: list[Leak] = []
    for first in range(0, len(evaluated), every):
        yield Progress(stage=stage, done=first, total=len(evaluated))
        leaks += find_leaks(evaluated[first : first + every], trained)
    return leaks


def leave_out_copies(
    recipe: Recipe, parts: Mapping[Part, Sequence[Sample]], members: Manifest
) -> Generator[Event, None, tuple[dict[Part, list[Sample]], Manifest]]:
    """Leave out of training whose copies judge, and out of validation whose copies test.

    A split keeps groups apart, and no group spans datasets: where a folder holds another one's images under
    other names, or one patient has two numbers, the same image would be on both sides. The whole group of a
    copy goes, since it shows the same lesion or patient. Copies are found by bytes, pixels and fingerprints;
    one that was cropped hard is not. Where the split leaks on purpose, nothing is left out.
    """
    kept, listed = {part: list(samples) for part, samples in parts.items()}, members
    if recipe.split.method == "leaky":
        return kept, listed
    judges: dict[Part, tuple[Member, ...]] = {
        "train": members.validation + members.test,
        "validation": members.test,
    }
    for part, judging in judges.items():
        steps = find_leaks_in_steps(members[part], judging, stage="Looking for copies", every=_COPIES_EVERY)
        # the beginning is not told: mostly there is no more to tell
        next(steps)
        copies = yield from steps
        if not copies:
            continue
        names = {copy.image for copy in copies}
        groups = {entry.group for entry in members[part] if entry.name in names}
        kept[part] = [sample for sample in parts[part] if sample.group not in groups]
        left = tuple(entry for entry in members[part] if entry.group not in groups)
        listed = replace(listed, **{part: left})
        gone = len(members[part]) - len(left)
        # of a copy, `trained` names the image that judges
        such = f"such as {copies[0].image} ({copies[0].kind}: {copies[0].trained})"
        if not kept[part]:
            raise TrainingError(
                f"all {gone} images that are to {_DOES[part]} are copies of images that judge, or of "
                f"their groups, {such}; remove one of the two datasets, or change the recipe's split"
            )
        yield Notice(
            message=f"{gone} images do not {_DOES[part]}, since copies of them, or of others of their "
            f"groups, judge, {such}"
        )
    check_parts(kept, heads=recipe.model.heads)
    return kept, listed


def inherit(
    start: str, members: Manifest, *, split_sha256: str
) -> Generator[Notice, None, tuple[tuple[Member, ...], bool]]:
    """Find who trained the model that is started from, and make sure that none of them judges."""
    folder = bundle_folder(start)
    card = read_bundle(folder).card
    leaked = bool(card.snapshot.get("leaked"))
    if not (folder / SPLIT).is_file():
        if card.snapshot.get("split_sha256") != split_sha256:
            yield Notice(message=f"{start} does not say who trained it; images that judge may be among them")
        return (), leaked
    trained = read_manifest(folder / SPLIT).train
    leaks = find_leaks(members.validation + members.test, trained)
    if leaks:
        first = leaks[0]
        raise TrainingError(
            f"{len(leaks)} of the images that are to judge trained {start} already, such as {first.image} "
            f"({first.kind}: {first.trained}); start from another model, or use the split it was made with"
        )
    known = {entry.id for entry in members.train}
    return tuple(one for one in trained if one.id not in known), leaked


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TestSide:
    """The frames of a store that test models, or will, with those that belong to both sides."""

    # pytest would take the name for tests
    __test__ = False

    store: CorrectionStore
    # each as a split lists it
    listed: tuple[Member, ...]
    # frames that were set aside
    outsiders: frozenset[str] = frozenset()
    # frames that were placed without their pixels, so that they were compared with none
    unseen: frozenset[str] = frozenset()
    # their patients, hashed
    _patients: frozenset[str] = frozenset()
    # who was withdrawn, as far as the store knows: ids and pixel hashes of frames, and patients, hashed
    _withdrawn: frozenset[str] = frozenset()
    _withdrawn_patients: frozenset[str] = frozenset()
    _secret: bytes = b""
    _index: SketchIndex = field(default_factory=SketchIndex)

    def has_patient(self, patient: str) -> bool:
        """Tell whether a patient's frames are among them; as imported, "dataset/number"."""
        return bool(patient) and hash_patient(self._secret, patient) in self._patients

    def is_gone(self, listed: Member, patient: str) -> bool:
        """Tell whether an image or its patient was withdrawn; the patient as in `has_patient`."""
        if not self._withdrawn.isdisjoint(listed.hashes):
            return True
        return bool(patient) and hash_patient(self._secret, patient) in self._withdrawn_patients

    def has_near_copy(self, frame: Frame) -> bool:
        """Tell whether a near copy of a frame is among them, by the rule that placed them."""
        if not self.listed:
            return False
        try:
            seen = sketch(check_frame(frame).pixels)
        except UnsupportedImageError:
            return False
        with self._index.lock, self.store.reading() as connection:
            self._index.refresh(connection)
            matches = match_copies(connection, self._index, seen, frame.id, known={"train"})
        return any(match.role == "test" or match.crosses_split for match in matches)


def read_test_side(store: CorrectionStore) -> TestSide:
    """Read who tests models, or will."""
    query = (
        select(
            MEMBERS.c.frame_id,
            MEMBERS.c.group_id,
            MEMBERS.c.patient,
            MEMBERS.c.bridges,
            MEMBERS.c.bits,
            FRAMES.c.pixels_hash,
            GROUPS.c.role,
            is_withdrawn(MEMBERS.c.frame_id).label("gone"),
        )
        .join(GROUPS, GROUPS.c.id == MEMBERS.c.group_id)
        .join(FRAMES, FRAMES.c.id == MEMBERS.c.frame_id)
        .order_by(MEMBERS.c.frame_id)
    )
    with store.reading() as connection:
        rows = connection.execute(query).all()
    sizes = Counter(row.group_id for row in rows)
    testing = [row for row in rows if row.role == "test" or row.bridges]
    gone = [row for row in rows if row.gone]
    return TestSide(
        store=store,
        listed=tuple(list_row(row, row.frame_id[:16]) for row in testing),
        # nothing ties it to another frame
        outsiders=frozenset(
            row.frame_id
            for row in testing
            if row.role == "train" and not row.bits and row.patient is None and sizes[row.group_id] == 1
        ),
        unseen=frozenset(row.frame_id for row in rows if not row.bits),
        _patients=frozenset(row.patient for row in testing if row.patient is not None),
        _withdrawn=frozenset(key for row in gone for key in (row.frame_id, row.pixels_hash)),
        _withdrawn_patients=frozenset(row.patient for row in gone if row.patient is not None),
        _secret=store_secret(store),
    )


def read_corrected(store: CorrectionStore, snapshot: Snapshot) -> frozenset[str]:
    """Read the ids and pixel hashes of all frames that a snapshot holds a correction of."""
    query = (
        select(FRAMES.c.id, FRAMES.c.pixels_hash)
        .join(REVISIONS, REVISIONS.c.frame_id == FRAMES.c.id)
        .join(SNAPSHOT_MEMBERS, SNAPSHOT_MEMBERS.c.revision_id == REVISIONS.c.id)
        .where(SNAPSHOT_MEMBERS.c.snapshot == snapshot.name)
    )
    with store.reading() as connection:
        return frozenset(key for row in connection.execute(query) for key in row)


def find_trained(
    store: CorrectionStore, test_set: TestSet, version: str, model: str, library: Library
) -> Generator[Progress | Notice, None, list[Leak]]:
    """Find the frames of a test set that a model knows: from training, or from fitting its numbers.

    Its list says what was known when it trained; whether one of its frames is, or is a near copy of, one that
    has the patient or the group of a test frame, is looked up as the store knows it by now.
    """
    path = library.find(version) / SPLIT
    known = read_manifest(path).known if path.is_file() else ()
    if not known:
        yield Notice(message=f"{model} does not say who trained it; frames that judge it may be among them")
        return []
    nameless = sum(not (one.hashes or one.fingerprint) for one in known)
    if nameless:
        yield Notice(
            message=f"{model} lists {nameless} of the {len(known)} images that it knows by name alone; "
            "frames that judge it may be among them"
        )
    family = _read_family(store, test_set)
    stage = f"Looking for what trained {model}"
    leaks = yield from find_leaks_in_steps(family.frames, known, stage=stage, every=_TRAINED_EVERY)
    return family.give_away(leaks)


def find_fitted(store: CorrectionStore, test_set: TestSet, version: str, library: Library) -> set[str]:
    """Name the groups of a test set on which a model's numbers, and nothing else of it, were fitted."""
    path = library.find(version) / SPLIT
    fitted = read_manifest(path).calibration if path.is_file() else ()
    if not fitted:
        return set()
    family = _read_family(store, test_set)
    leaks = family.give_away(find_leaks(family.frames, [replace(one, fingerprint="") for one in fitted]))
    leaked = {leak.image for leak in leaks}
    return {frame.group_id for frame in test_set.members if frame.frame_id in leaked}


def find_relatives(store: CorrectionStore, test_set: TestSet, split: Path) -> list[Leak]:
    """Do what `find_trained` does, but for near copies, which take longer to find."""
    family = _read_family(store, test_set)
    known = [replace(one, fingerprint="") for one in read_manifest(split).known]
    return family.give_away(find_leaks(family.frames, known))


def _read_family(store: CorrectionStore, test_set: TestSet) -> Family:
    frames = select(TEST_SET_MEMBERS.c.frame_id).where(TEST_SET_MEMBERS.c.test_set == test_set.number)
    return read_family(store, frames)
