"""Which frames of a test set trained a model, or are copies of such, or of their patients."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy import or_, select

from sonoloop.imaging.fingerprints import BITS
from sonoloop.jobs.events import Notice, Progress
from sonoloop.models.library import Library
from sonoloop.store.corrections import CorrectionStore
from sonoloop.store.tables import FRAMES, MEMBERS, TEST_SET_MEMBERS
from sonoloop.store.test_sets import TestSet
from sonoloop_training.evaluation.split_list import Listed, read_split_list
from sonoloop_training.leaks import Leak, find_leaks, find_leaks_in_steps
from sonoloop_training.membership import SPLIT

_EVERY = 50
_FINGERPRINT_BYTES = BITS // 8


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

    Yields
    ------
    Progress
        Every fifty frames.
    Notice
        If the model does not say who trained it, or says it of some by name alone.

    Returns
    -------
    list of Leak
        ``image`` is the frame's id.

    Raises
    ------
    TrainingError
        If the model's list cannot be read.
    ModelError
        If the model is not on this machine.
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
    """Read who trained a model, and who its threshold and its other numbers were fitted on.

    Raises
    ------
    TrainingError
        See `sonoloop_training.evaluation.split_list.read_split_list`.
    """
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
    """Read the frames of a test set, and the others of their groups and patients.

    Raises
    ------
    StoreError
        If the store cannot be read.
    """
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
