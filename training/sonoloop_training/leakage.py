"""Whether an image from elsewhere belongs to the frames of a store that judge."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from sqlalchemy import select

from sonoloop.errors import UnsupportedImageError
from sonoloop.imaging.fingerprints import BITS, sketch
from sonoloop.imaging.grey import check_frame
from sonoloop.store import CorrectionStore
from sonoloop.store.drawing import hash_patient
from sonoloop.store.near_copies import find_near
from sonoloop.store.revisions import is_withdrawn
from sonoloop.store.settings import store_secret
from sonoloop.store.snapshots import Snapshot
from sonoloop.store.tables import FRAMES, GROUPS, MEMBERS, REVISIONS, SNAPSHOT_MEMBERS
from sonoloop.values import Frame
from sonoloop_training.evaluation.split_list import Listed

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
        index = self.store.sketches
        with index.lock, self.store.reading() as connection:
            index.refresh(connection)
            homes = find_near(connection, index, seen, frame.id, known={"train"})
        return any(home.role == "test" or home.bridges for home in homes)


def read_test_side(store: CorrectionStore) -> TestSide:
    """Read who judges, or will.

    Raises
    ------
    StoreError
        If the store cannot be read.
    """
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
