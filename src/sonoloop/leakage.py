"""Which images a model knows, from training or from fitting its numbers; they, and copies, do not judge it.

The gate and whoever counts before it what will judge go by the same rule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Select, or_, select

from sonoloop.errors import ModelError, TrainingError
from sonoloop.imaging.fingerprints import BITS, NEAR, distance
from sonoloop.models.library import Library
from sonoloop.models.manifest import SPLIT, Member, read_manifest
from sonoloop.store.database import Database
from sonoloop.store.file_index import Places
from sonoloop.store.revisions import select_judging
from sonoloop.store.tables import FRAMES, MEMBERS, REVISIONS

Kind = Literal["same image", "near copy", "same patient or group"]
_FINGERPRINT_BYTES = BITS // 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """An evaluated image, the training image that gives it away, and how."""

    image: str
    trained: str
    kind: Kind


class KnownImages:
    """The images that a model knows, to look others up among."""

    def __init__(self, members: Sequence[Member]) -> None:
        # where hashes are listed, a name says nothing: two folders may hold other images of one name
        self._by_name = {one.name: one.name for one in members if not one.hashes}
        self._by_hash = {key: one.name for one in members for key in one.hashes}
        # the first of each
        self._by_group = {one.group: one.name for one in reversed(members) if one.group}
        self._prints = [(one.fingerprint, one.name) for one in members if one.fingerprint]

    def find(self, image: Member) -> Leak | None:
        """Find what gives an image away; None where it is not known."""
        same = self._by_hash.get(image.id) or self._by_hash.get(image.pixels_hash)
        same = same or self._by_name.get(image.name)
        kind: Kind = "same image"
        if same is None and image.fingerprint:
            near = (name for other, name in self._prints if distance(image.fingerprint, other) <= NEAR)
            same, kind = next(near, None), "near copy"
        if same is None:
            same, kind = self._by_group.get(image.group), "same patient or group"
        return None if same is None else Leak(image=image.name, trained=same, kind=kind)


def find_leaks(evaluated: Sequence[Member], trained: Sequence[Member]) -> list[Leak]:
    """Find the evaluated images that the training saw, one leak an image at most."""
    known = KnownImages(trained)
    return [leak for image in evaluated if (leak := known.find(image)) is not None]


def list_row(row: Any, name: str) -> Member:  # noqa: ANN401 - a database's row
    """Describe a frame of the store as a split lists it."""
    return Member(
        name=name,
        group=row.group_id,
        id=row.frame_id,
        pixels_hash=row.pixels_hash,
        # the first hash is that of the whole frame
        fingerprint=row.bits[:_FINGERPRINT_BYTES].hex(),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """The frames that test, and the others of their groups and patients, named by their ids."""

    frames: list[Member]
    # by a frame's id its group, and its patient where that is known
    keys: Mapping[str, tuple[str, ...]]
    # ids of those that test
    testing: list[str]

    def give_away(self, leaks: Sequence[Leak]) -> list[Leak]:
        """Say of each test frame what gives it away: itself, or another of its group or patient."""
        own = {leak.image: leak for leak in leaks}
        known: dict[str, str] = {}
        for leak in leaks:
            for key in self.keys[leak.image]:
                known.setdefault(key, leak.trained)
        found = []
        for image in self.testing:
            relatives = [known[key] for key in self.keys[image] if key in known]
            if image in own:
                found.append(own[image])
            elif relatives:
                found.append(Leak(image=image, trained=relatives[0], kind="same patient or group"))
        return found


def read_family(store: Database, testing: Select[Any]) -> Family:
    """Read the family of the frames whose ids a query gives."""
    theirs = MEMBERS.c.frame_id.in_(testing)
    related = or_(
        MEMBERS.c.group_id.in_(select(MEMBERS.c.group_id).where(theirs)),
        MEMBERS.c.patient.in_(select(MEMBERS.c.patient).where(theirs)),
    )
    query = select(
        MEMBERS.c.frame_id, MEMBERS.c.group_id, MEMBERS.c.patient, MEMBERS.c.bits, FRAMES.c.pixels_hash
    ).join(FRAMES, FRAMES.c.id == MEMBERS.c.frame_id)
    with store.reading() as connection:
        rows = connection.execute(query.where(related).order_by(MEMBERS.c.frame_id)).all()
        ids = set(connection.scalars(testing))
    return Family(
        frames=[list_row(row, row.frame_id) for row in rows],
        keys={row.frame_id: tuple(filter(None, (row.group_id, row.patient))) for row in rows},
        testing=[row.frame_id for row in rows if row.frame_id in ids],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Judging:
    """How many frames would judge a new model today, and how many more were kept for it and would not.

    `known`: the model in use trained on them, on copies, or on the same patient; `missing`: their files are
    not on this machine.
    """

    frames: int = 0
    known: int = 0
    missing: int = 0


class JudgingCounter:
    """Counts, before a model is made, the frames that the gate will judge it by; see `Judging`.

    Near copies are looked for once a frame, so that it can be asked after every correction.
    """

    def __init__(self, store: Database, library: Library) -> None:
        self._store = store
        self._library = library
        self._places = Places(store.url)
        self._version: str | None = None
        self._known: KnownImages | None = None
        # by what a frame is listed as
        self._leaks: dict[Member, Leak | None] = {}

    def count(self, version: str) -> Judging:
        """Count for a model that is made from this version, and compared with it."""
        known = self._read_known(version)
        family = read_family(self._store, select_judging(REVISIONS.c.frame_id).order_by(None))
        leaks = (
            [] if known is None else [leak for one in family.frames if (leak := self._look_up(known, one))]
        )
        group = {one.name: one.group for one in family.frames}
        told = {group[leak.image] for leak in family.give_away(leaks)}
        judging = [frame for frame in family.testing if group[frame] not in told]
        here = sum(self._is_here(frame) for frame in judging)
        return Judging(frames=here, known=len(family.testing) - len(judging), missing=len(judging) - here)

    def _read_known(self, version: str) -> KnownImages | None:
        if version != self._version:
            self._leaks, self._known = {}, None
            try:
                path = self._library.find(version) / SPLIT
                if path.is_file():
                    self._known = KnownImages(read_manifest(path).known)
            except (ModelError, TrainingError):
                return None  # said by whoever needs it
            self._version = version
        return self._known

    def _look_up(self, known: KnownImages, image: Member) -> Leak | None:
        if image not in self._leaks:
            self._leaks[image] = known.find(image)
        return self._leaks[image]

    def _is_here(self, frame: str) -> bool:
        place = self._places.find(frame)
        return place is not None and place.path.is_file()
