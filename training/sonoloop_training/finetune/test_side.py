"""Whether an image from elsewhere belongs to the frames of a store that judge."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy import or_, select

from sonoloop.errors import UnsupportedImageError
from sonoloop.imaging.fingerprints import BITS, sketch
from sonoloop.imaging.grey import check_frame
from sonoloop.labels import CorrectionStore
from sonoloop.labels.drawing import hash_patient
from sonoloop.labels.near_copies import find_near
from sonoloop.labels.settings import store_secret
from sonoloop.labels.snapshots import Snapshot
from sonoloop.labels.tables import FRAMES, GROUPS, MEMBERS, REVISIONS, SNAPSHOT_MEMBERS
from sonoloop.values import Frame
from sonoloop_training.evaluation.split_list import Listed

_FINGERPRINT_BYTES = BITS // 8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TestSide:
    """The frames of a store that judge, with those that belong to both sides.

    Parameters
    ----------
    store : CorrectionStore
        Where they are.
    listed : tuple of Listed
        Each as a split lists it.
    """

    # pytest would take the name for tests
    __test__ = False

    store: CorrectionStore
    listed: tuple[Listed, ...]
    _patients: frozenset[str] = field(default_factory=frozenset)
    _secret: bytes = b""

    def has_patient(self, patient: str) -> bool:
        """Tell whether a patient's frames are among them; as imported, "dataset/number"."""
        return bool(patient) and hash_patient(self._secret, patient) in self._patients

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
            MEMBERS.c.frame_id, MEMBERS.c.group_id, MEMBERS.c.patient, MEMBERS.c.bits, FRAMES.c.pixels_hash
        )
        .join(GROUPS, GROUPS.c.id == MEMBERS.c.group_id)
        .join(FRAMES, FRAMES.c.id == MEMBERS.c.frame_id)
        .where(or_(GROUPS.c.role == "test", MEMBERS.c.bridges))
        .order_by(MEMBERS.c.frame_id)
    )
    with store.reading() as connection:
        rows = connection.execute(query).all()
    listed = tuple(
        Listed(
            name=row.frame_id[:16],
            group=row.group_id,
            id=row.frame_id,
            pixels_hash=row.pixels_hash,
            # the first hash is that of the whole frame
            fingerprint=row.bits[:_FINGERPRINT_BYTES].hex(),
        )
        for row in rows
    )
    patients = frozenset(row.patient for row in rows if row.patient is not None)
    return TestSide(store=store, listed=listed, _patients=patients, _secret=store_secret(store))


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
