"""Whether an image from elsewhere belongs to the frames of a store that judge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from sqlalchemy import or_, select

from sonoloop.errors import TrainingError, UnsupportedImageError
from sonoloop.imaging.fingerprints import BITS, sketch
from sonoloop.imaging.grey import check_frame
from sonoloop.jobs.events import Event, Notice, Progress
from sonoloop.models.bundle import read_bundle
from sonoloop.models.library import Library, bundle_folder
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
from sonoloop_training.evaluation.scores import Case
from sonoloop_training.evaluation.split_list import Listed, read_split_list
from sonoloop_training.fit.preflight import check_parts
from sonoloop_training.fit.recipe import Recipe
from sonoloop_training.membership import SPLIT, Members
from sonoloop_training.splits import Part

_FINGERPRINT_BYTES = BITS // 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Gone:
    """Those who were withdrawn, as far as the store knows them still.

    Parameters
    ----------
    keys : frozenset of str
        Ids and pixel hashes of their frames.
    patients : frozenset of str
        Their patients, hashed.
    """

    keys: frozenset[str]
    patients: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TestSide:
    """The frames of a store that judge, with those that belong to both sides.

    Parameters
    ----------
    store : CorrectionStore
        Where they are.
    listed : tuple of Listed
        Each as a split lists it.
    gone : Gone
        Those who were withdrawn.
    outsiders : frozenset of str
        Frames that were set aside.
    unseen : frozenset of str
        Frames that were placed without their pixels, so that they were compared with none.
    """

    # pytest would take the name for tests
    __test__ = False

    store: CorrectionStore
    listed: tuple[Listed, ...]
    gone: Gone
    outsiders: frozenset[str] = frozenset()
    unseen: frozenset[str] = frozenset()
    _patients: frozenset[str] = field(default_factory=frozenset)
    _secret: bytes = b""
    _index: SketchIndex = field(default_factory=SketchIndex)

    def has_patient(self, patient: str) -> bool:
        """Tell whether a patient's frames are among them; as imported, "dataset/number"."""
        return bool(patient) and hash_patient(self._secret, patient) in self._patients

    def is_gone(self, listed: Listed, patient: str) -> bool:
        """Tell whether an image or its patient was withdrawn; the patient as in `has_patient`."""
        if not self.gone.keys.isdisjoint((listed.id, listed.pixels_hash)):
            return True
        return bool(patient) and hash_patient(self._secret, patient) in self.gone.patients

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
    """Read who judges, or will."""
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
    judging = [row for row in rows if row.role == "test" or row.bridges]
    gone = [row for row in rows if row.gone]
    return TestSide(
        store=store,
        listed=tuple(
            Listed(
                name=row.frame_id[:16],
                group=row.group_id,
                id=row.frame_id,
                pixels_hash=row.pixels_hash,
                # the first hash is that of the whole frame
                fingerprint=row.bits[:_FINGERPRINT_BYTES].hex(),
            )
            for row in judging
        ),
        gone=Gone(
            keys=frozenset(key for row in gone for key in (row.frame_id, row.pixels_hash)),
            patients=frozenset(row.patient for row in gone if row.patient is not None),
        ),
        # nothing ties it to another frame
        outsiders=frozenset(
            row.frame_id
            for row in judging
            if row.role == "train" and not row.bits and row.patient is None and sizes[row.group_id] == 1
        ),
        unseen=frozenset(row.frame_id for row in rows if not row.bits),
        _patients=frozenset(row.patient for row in judging if row.patient is not None),
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


Kind = Literal["same image", "near copy", "same patient or group"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """An evaluated image, the training image that gives it away, and how."""

    image: str
    trained: str
    kind: Kind


def identify(case: Case) -> Listed:
    """Describe a case as a split lists it."""
    # imported late: it reads images by itself, and only this needs it
    from sonoloop_training.datasets.groups import fingerprint  # noqa: PLC0415

    return Listed(
        name=f"{case.dataset}/{case.name}",
        group=case.group,
        id=case.frame.id,
        pixels_hash=case.frame.pixels_hash,
        fingerprint=fingerprint(case.frame.pixels),
    )


def find_leaks_in_steps(
    evaluated: Sequence[Listed], trained: Sequence[Listed], *, stage: str, every: int
) -> Generator[Progress, None, list[Leak]]:
    """Do what `find_leaks` does, and tell before each so many images how far it is."""
    leaks: list[Leak] = []
    for first in range(0, len(evaluated), every):
        yield Progress(stage=stage, done=first, total=len(evaluated))
        leaks += find_leaks(evaluated[first : first + every], trained)
    return leaks


def find_leaks(
    evaluated: Sequence[Listed],
    trained: Sequence[Listed],
    *,
    near: Callable[[str, str], bool] | None = None,
) -> list[Leak]:
    """Find the evaluated images that the training saw, one leak an image at most."""
    # where hashes are listed, a name says nothing: two folders may hold other images of one name
    by_name = {one.name: one.name for one in trained if not (one.id or one.pixels_hash)}
    by_hash = {key: one.name for one in trained for key in (one.id, one.pixels_hash) if key}
    by_group: dict[str, str] = {}
    for one in trained:
        if one.group:
            by_group.setdefault(one.group, one.name)
    prints = [(one.fingerprint, one.name) for one in trained if one.fingerprint]
    close = near or _near_copies if prints else None
    leaks = []
    for image in evaluated:
        same = by_hash.get(image.id) or by_hash.get(image.pixels_hash) or by_name.get(image.name)
        kind: Kind = "same image"
        if same is None and close is not None and image.fingerprint:
            same = next((name for other, name in prints if close(image.fingerprint, other)), None)
            kind = "near copy"
        if same is None:
            same = by_group.get(image.group)
            kind = "same patient or group"
        if same is not None:
            leaks.append(Leak(image=image.name, trained=same, kind=kind))
    return leaks


def _near_copies(one: str, other: str) -> bool:
    from sonoloop_training.datasets.groups import NEAR, distance  # noqa: PLC0415

    return distance(one, other) <= NEAR


_EVERY = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """The frames of a test set, and the others of their groups and patients.

    Parameters
    ----------
    frames : list of Listed
        All of them as a split lists them, named by their ids.
    keys : mapping
        By a frame's id its group, and its patient where that is known.
    judging : list of str
        Ids of those that judge.
    """

    frames: list[Listed]
    keys: Mapping[str, tuple[str, ...]]
    judging: list[str]


def find_trained(
    store: CorrectionStore, test_set: TestSet, version: str, model: str, library: Library
) -> Generator[Progress | Notice, None, list[Leak]]:
    """Find the frames of a test set that a model knows: from training, or from fitting its numbers.

    Its list says what was known when it trained; whether one of its frames is, or is a near copy of, one that
    has the patient or the group of a frame that judges, is looked up as the store knows it by now.
    """
    path = library.find(version) / SPLIT
    if not path.is_file():
        yield Notice(message=f"{model} does not say who trained it; frames that judge it may be among them")
        return []
    known = read_known(path)
    nameless = sum(not (one.id or one.pixels_hash or one.fingerprint) for one in known)
    if nameless:
        yield Notice(
            message=f"{model} lists {nameless} of the {len(known)} images that it knows by name alone; "
            "frames that judge it may be among them"
        )
    family = read_family(store, test_set)
    stage = f"Looking for what trained {model}"
    leaks = yield from find_leaks_in_steps(family.frames, known, stage=stage, every=_EVERY)
    return to_judging(family, leaks)


def find_relatives(store: CorrectionStore, test_set: TestSet, known: Sequence[Listed]) -> list[Leak]:
    """Do what `find_trained` does, but for near copies, which take longer to find."""
    family = read_family(store, test_set)
    return to_judging(family, find_leaks(family.frames, [replace(one, fingerprint="") for one in known]))


def read_known(path: Path) -> list[Listed]:
    """Read who trained a model, and who its threshold and its other numbers were fitted on."""
    split = read_split_list(path)
    return [*split["train"], *split["validation"]]


def to_judging(family: Family, leaks: Sequence[Leak]) -> list[Leak]:
    """Say of each frame that judges what gives it away: itself, or another of its group or patient."""
    own = {leak.image: leak for leak in leaks}
    taught: dict[str, str] = {}
    for leak in leaks:
        for key in family.keys[leak.image]:
            taught.setdefault(key, leak.trained)
    found = []
    for image in family.judging:
        relatives = [taught[key] for key in family.keys[image] if key in taught]
        if image in own:
            found.append(own[image])
        elif relatives:
            found.append(Leak(image=image, trained=relatives[0], kind="same patient or group"))
    return found


def read_family(store: CorrectionStore, test_set: TestSet) -> Family:
    """Read the frames of a test set, and the others of their groups and patients."""
    judging = {judge.frame_id for judge in test_set.members}
    judged = select(TEST_SET_MEMBERS.c.frame_id).where(TEST_SET_MEMBERS.c.test_set == test_set.number)
    theirs = MEMBERS.c.frame_id.in_(judged)
    related = or_(
        MEMBERS.c.group_id.in_(select(MEMBERS.c.group_id).where(theirs)),
        MEMBERS.c.patient.in_(select(MEMBERS.c.patient).where(theirs)),
    )
    query = select(
        MEMBERS.c.frame_id, MEMBERS.c.group_id, MEMBERS.c.patient, MEMBERS.c.bits, FRAMES.c.pixels_hash
    ).join(FRAMES, FRAMES.c.id == MEMBERS.c.frame_id)
    with store.reading() as connection:
        rows = connection.execute(query.where(related).order_by(MEMBERS.c.frame_id)).all()
    frames = [
        Listed(
            name=row.frame_id,
            group=row.group_id,
            id=row.frame_id,
            pixels_hash=row.pixels_hash,
            # the first hash is that of the whole frame
            fingerprint=row.bits[:_FINGERPRINT_BYTES].hex(),
        )
        for row in rows
    ]
    return Family(
        frames=frames,
        keys={row.frame_id: tuple(filter(None, (row.group_id, row.patient))) for row in rows},
        judging=[row.frame_id for row in rows if row.frame_id in judging],
    )


_COPIES_EVERY = 100
_DOES: dict[Part, str] = {"train": "train", "validation": "validate"}


def leave_out_copies(
    recipe: Recipe, parts: Mapping[Part, Sequence[Sample]], members: Members
) -> Generator[Event, None, tuple[dict[Part, list[Sample]], Members]]:
    """Leave out of training whose copies judge, and out of validation whose copies test.

    A split keeps groups apart, and no group spans datasets: where a folder holds another one's images under
    other names, or one patient has two numbers, the same image would be on both sides. The whole group of a
    copy goes, since it shows the same lesion or patient. Copies are found by bytes, pixels and fingerprints;
    one that was cropped hard is not. Where the split leaks on purpose, nothing is left out.
    """
    kept, listed = {part: list(samples) for part, samples in parts.items()}, dict(members)
    if recipe.split.method == "leaky":
        return kept, listed
    testing = members["test"]
    judges: dict[Part, list[dict[str, str]]] = {
        "train": [*members["validation"], *testing],
        "validation": testing,
    }
    for part, judging in judges.items():
        copies = yield from _find_copies(members[part], judging)
        if not copies:
            continue
        names = {copy.image for copy in copies}
        groups = {entry["group"] for entry in members[part] if entry["name"] in names}
        kept[part] = [sample for sample in parts[part] if sample.group not in groups]
        listed[part] = [entry for entry in members[part] if entry["group"] not in groups]
        gone = [entry["name"] for entry in members[part] if entry["group"] in groups]
        first = copies[0]
        such = f"such as {first.image} ({first.kind}: {first.trained})"
        if not kept[part]:
            raise TrainingError(
                f"all {len(gone)} images that are to {_DOES[part]} are copies of images that judge, or of "
                f"their groups, {such}; remove one of the two datasets, or change the recipe's split"
            )
        yield Notice(
            message=f"{len(gone)} images do not {_DOES[part]}, since copies of them, or of others of their "
            f"groups, judge, {such}"
        )
    check_parts(kept, heads=recipe.model.heads)
    return kept, listed


def _find_copies(
    members: Sequence[Mapping[str, str]], judging: Sequence[Mapping[str, str]]
) -> Generator[Progress, None, list[Leak]]:
    """Find the members that judge too, one leak each; `trained` names the image that judges."""
    mine, theirs = [Listed(**entry) for entry in members], [Listed(**entry) for entry in judging]
    steps = find_leaks_in_steps(mine, theirs, stage="Looking for copies", every=_COPIES_EVERY)
    # the beginning is not told: mostly there is no more to tell
    next(steps)
    return (yield from steps)


def inherit(
    start: str, members: Mapping[Part, Sequence[Mapping[str, str]]], *, split_sha256: str
) -> Generator[Notice, None, tuple[list[dict[str, str]], bool]]:
    """Find who trained the model that is started from, and make sure that none of them judges."""
    folder = bundle_folder(start)
    card = read_bundle(folder).card
    leaked = bool(card.snapshot.get("leaked"))
    if not (folder / SPLIT).is_file():
        if card.snapshot.get("split_sha256") != split_sha256:
            yield Notice(message=f"{start} does not say who trained it; images that judge may be among them")
        return [], leaked
    trained = read_split_list(folder / SPLIT)["train"]
    judging = [Listed(**entry) for part in ("validation", "test") for entry in members[part]]
    leaks = find_leaks(judging, trained)
    if leaks:
        first = leaks[0]
        raise TrainingError(
            f"{len(leaks)} of the images that are to judge trained {start} already, such as {first.image} "
            f"({first.kind}: {first.trained}); start from another model, or use the split it was made with"
        )
    known = {entry["id"] for entry in members["train"]}
    return [asdict(one) for one in trained if one.id not in known], leaked


def merge(members: Members, inherited: Sequence[dict[str, str]]) -> Members:
    """Add those who trained before to those who train."""
    return {**members, "train": [*members["train"], *inherited]}
