from __future__ import annotations

import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scenes import correct, make_copy, make_frame
from sqlalchemy import event, insert, select, text
from sqlalchemy.exc import DBAPIError
from store_writers import make_correction, make_prediction, sha256

from sonoloop import drafts
from sonoloop.drafts import Draft, DraftFolder, draft_folder
from sonoloop.errors import StoreError
from sonoloop.store import CorrectionStore, withdrawal
from sonoloop.store.file_index import Places, work_folder
from sonoloop.store.groups import count_groups, place_frame, placement, set_aside, was_withdrawn
from sonoloop.store.model_registry import register
from sonoloop.store.snapshots import take_snapshot
from sonoloop.store.tables import FRAMES, MEMBERS, PREDICTIONS, REVISIONS, TOMBSTONES
from sonoloop.store.withdrawal import frames_of, list_withdrawn, withdraw

PATIENT = "4711"


@pytest.fixture
def taught(store):
    """Two frames of a patient and one of another, each corrected, the first twice and with a prediction."""
    frames = [make_frame(seed) for seed in (1, 2, 3)]
    for frame, patient in zip(frames, (PATIENT, PATIENT, "4712"), strict=True):
        place_frame(store, frame, patient=patient, role="train")
    mask = np.random.default_rng(5).integers(0, 3, frames[0].shape, dtype=np.uint8)
    prediction = make_prediction(seed=1, shape=frames[0].shape)
    given = correct(frames[0], prediction=None)
    first = store.accept(
        type(given)(
            frame_id=frames[0].id,
            pixels_hash=frames[0].pixels_hash,
            mask=mask,
            label="benign",
            annotator="reader-1",
            prediction=type(prediction)(
                **{name: getattr(prediction, name) for name in prediction.__slots__}
                | {"frame_id": frames[0].id}
            ),
        ),
        parent=None,
    )
    store.accept(correct(frames[0], label="malignant"), parent=first.id)
    for frame in frames[1:]:
        store.accept(correct(frame), parent=None)
    return frames


def blobs(store, frame_id: str) -> list[bytes]:
    with store.reading() as connection:
        return [
            bytes(value)
            for table, names in (
                (REVISIONS, ("mask",)),
                (PREDICTIONS, ("lesion", "mask")),
                (MEMBERS, ("thumbnail", "bits")),
            )
            for row in connection.execute(
                select(*(table.c[name] for name in names)).where(table.c.frame_id == frame_id)
            )
            for value in row
        ]


def test_a_frame_is_erased_and_the_fact_stays(store, taught):
    before = store.history(taught[0].id)
    assert withdraw(store, taught[0].id[:8], why="asked to", who="reader-1").frames == (taught[0].id,)
    assert blobs(store, taught[0].id) == [b""] * 6
    assert all(blobs(store, taught[1].id))
    after = store.history(taught[0].id)
    assert [(r.id, r.mask_sha256, r.created, r.model) for r in after] == [
        (r.id, r.mask_sha256, r.created, r.model) for r in before
    ]
    assert all(r.withdrawn and not r.correction.mask.any() for r in after)
    assert all(r.correction.prediction is None for r in after)
    assert [r.correction.label for r in after] == ["benign", "malignant"]
    (stone,) = list_withdrawn(store)
    assert (stone.frame_id, stone.why, stone.who) == (taught[0].id, "asked to", "reader-1")
    assert store.verify() == []


def test_nothing_of_it_is_left_in_the_file(store, taught, path):
    if not path.exists():
        pytest.skip("PostgreSQL keeps old rows until VACUUM")
    # some builds of SQLite erase by default, most do not
    event.listen(store._engine, "connect", lambda raw, _: raw.execute("PRAGMA secure_delete=OFF"))
    places = Places(store.url)
    places.remember(taught[0].id, Path("/images/Muster Anna/left.png"))
    # the tail of each: a page holds no more than some 4000 bytes of one value in a row
    others = [value for frame in taught[1:] for value in blobs(store, frame.id)]
    traces = [value[-300:-20] for value in blobs(store, taught[0].id) if value not in others]
    assert len(traces) == 5
    assert all(trace in path.read_bytes() for trace in traces)
    withdraw(store, taught[0].id, why="asked to", who="reader-1")
    content = path.read_bytes()
    assert not any(trace[start : start + 40] in content for trace in traces for start in range(0, 240, 40))
    assert places.find(taught[0].id) is None
    assert "Muster" not in (path.parent / "corrections.sonoloop" / "places.jsonl").read_text()


def test_a_patient_is_withdrawn_whole(store, taught):
    assert frames_of(store, PATIENT) == sorted(frame.id for frame in taught[:2])
    assert withdraw(store, PATIENT, why="asked to", who="reader-1").frames == tuple(frames_of(store, PATIENT))
    assert [store.newest(frame.id) is None for frame in taught] == [True, True, False]
    assert count_groups(store).withdrawn_frames == 2


def test_it_counts_nowhere_any_more(store, taught):
    copy = make_copy(1)
    withdraw(store, taught[0].id, why="asked to", who="reader-1")
    assert store.head(taught[0].id, "reader-1") is None
    assert store.newest("f" * 64, pixels_hash=taught[0].pixels_hash) is None
    assert placement(store, taught[0].id).role == "neither"
    assert place_frame(store, taught[0], patient=PATIENT).role == "neither"
    assert blobs(store, taught[0].id)[-2:] == [b"", b""]
    # what knew it again is gone, in memory too
    assert place_frame(store, copy).group_id != placement(store, taught[0].id).group_id
    with pytest.raises(StoreError, match="this image was withdrawn on 20"):
        store.accept(correct(taught[0], annotator="reader-2"), parent=None)


def test_the_same_pixels_from_another_file_are_withdrawn_too(store, taught):
    anew, later = (replace(taught[0], id=digit * 64) for digit in "ef")
    place_frame(store, anew)
    store.accept(correct(anew), parent=None)
    done = withdraw(store, taught[0].id, why="asked to", who="reader-1")
    assert done.frames == tuple(sorted((taught[0].id, anew.id)))
    assert blobs(store, anew.id) == [b""] * 3
    # and what is saved anew after that comes in neither
    assert place_frame(store, later, patient=PATIENT).role == "neither"
    assert placement(store, later.id) is None
    with pytest.raises(StoreError, match="this image was withdrawn on 20"):
        store.accept(correct(later, annotator="reader-2"), parent=None)
    set_aside(store, later)
    with store.reading() as connection:
        assert later.id not in set(connection.scalars(select(FRAMES.c.id)))
    assert store.verify() == []


def test_who_used_it_is_told(store, taught):
    take_snapshot(store, "first", who="reader-1")
    parent, child, other, later = (letter * 64 for letter in "abcd")
    register(store, version=parent, model="unet-a", origin="tuned", who="reader-1", snapshot="first")
    register(store, version=child, model="unet-b", origin="tuned", who="reader-1", parent=parent)
    register(store, version=other, model="unet-c", origin="imported", who="reader-1")
    found = withdraw(store, PATIENT, why="asked to", who="reader-1")
    assert found.snapshots == ("first",)
    assert [row.model for row in found.models] == ["unet-a", "unet-b"]
    take_snapshot(store, "second", who="reader-1")
    register(store, version=later, model="unet-d", origin="tuned", who="reader-1", snapshot="second")
    found = withdraw(store, taught[2].id, why="asked to", who="reader-1")
    assert found.snapshots == ("first", "second")
    assert [row.model for row in found.models] == ["unet-a", "unet-b", "unet-d"]


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("", "say what to withdraw"),
        ("47", "no image and no patient 47"),
        ("ffffffff", "no image and no patient ffffffff"),
        ("%", "no image and no patient"),
    ],
)
def test_what_is_not_there_is_said_and_nothing_erased(store, taught, wanted, said):
    with pytest.raises(StoreError, match=said):
        withdraw(store, wanted, why="asked to", who="reader-1")
    assert list_withdrawn(store) == []


def test_a_beginning_that_fits_two_is_refused(store):
    for tail in "ab":
        store.accept(make_correction(tail, frame_id="12345678" + tail * 56), parent=None)
    with pytest.raises(StoreError, match="2 images have ids that begin with 12345678"):
        withdraw(store, "12345678", why="asked to", who="reader-1")
    withdraw(store, "12345678B", why="asked to", who="reader-1")
    assert store.newest("12345678" + "a" * 56) is not None


def test_a_reason_is_needed(store, taught):
    with pytest.raises(StoreError, match="say why"):
        withdraw(store, taught[0].id, why=" ", who="reader-1")
    assert list_withdrawn(store) == []


def test_a_second_withdrawal_tells_who_used_it_again_and_forgets_what_the_first_did_not(store, taught):
    take_snapshot(store, "first", who="reader-1")
    row = register(store, version="a" * 64, model="unet-a", origin="tuned", who="reader-1", snapshot="first")
    withdraw(store, taught[0].id, why="asked to", who="reader-1")
    places = Places(store.url)
    places.remember(taught[0].id, Path("/images/left.png"))
    again = withdraw(store, taught[0].id, why="again", who="reader-1")
    assert (again.frames, again.before) == ((), (taught[0].id,))
    assert (again.snapshots, again.models) == (("first",), (row,))
    assert again.keys == {taught[0].id, taught[0].pixels_hash}
    assert places.find(taught[0].id) is None
    assert [stone.why for stone in list_withdrawn(store)] == ["asked to"]
    # the other frame of the patient is still to be erased
    both = withdraw(store, PATIENT, why="all", who="reader-1")
    assert (both.frames, both.before) == ((taught[1].id,), (taught[0].id,))


def test_a_new_image_of_a_patient_who_was_withdrawn_does_not_come_in(store, taught):
    new = make_frame(9)
    withdraw(store, PATIENT, why="asked to", who="reader-1")
    assert not was_withdrawn(store, new)
    assert was_withdrawn(store, new, patient=PATIENT)
    placed = place_frame(store, new, patient=PATIENT, role="train")
    assert (placed.role, placed.patient) == ("neither", None)
    # nor under no number at all, now that this program knows whose it is
    assert place_frame(store, new).role == "neither"
    with pytest.raises(StoreError, match="an image of this patient was withdrawn on 20"):
        store.accept(correct(new), parent=None)
    set_aside(store, new)
    with store.reading() as connection:
        assert new.id not in set(connection.scalars(select(FRAMES.c.id)))
    assert {entry.frame_id for entry in take_snapshot(store, who="reader-1").entries} == {taught[2].id}
    # who is not that patient comes in
    assert place_frame(store, make_frame(10), patient="4713", role="train").role == "train"


def test_what_was_known_of_a_patient_stays_where_one_frame_alone_was_withdrawn(store, taught):
    withdraw(store, taught[0].id, why="the wrong breast", who="reader-1")
    assert place_frame(store, taught[1], patient=PATIENT).role == "train"
    head = store.head(taught[1].id, "reader-1")
    store.accept(correct(taught[1], label="malignant"), parent=head.id)
    assert taught[1].id in {entry.frame_id for entry in take_snapshot(store, who="reader-1").entries}


@pytest.mark.parametrize("file", ["same", "another"])
def test_an_image_that_turns_out_to_be_a_withdrawn_patients_takes_no_part(store, taught, file):
    late = make_frame(9)
    place_frame(store, late, role="train")
    store.accept(correct(late), parent=None)
    withdraw(store, PATIENT, why="asked to", who="reader-1")
    assert placement(store, late.id).role == "train"
    told = late if file == "same" else replace(late, id="e" * 64)
    assert was_withdrawn(store, told, patient=PATIENT)
    assert place_frame(store, told, patient=PATIENT).role == "neither"
    assert placement(store, late.id).role == "neither"
    assert was_withdrawn(store, late)
    with pytest.raises(StoreError, match="an image of this patient was withdrawn on 20"):
        store.accept(correct(late, annotator="reader-2"), parent=None)
    # a number that was mistyped erases nothing; withdrawing the patient again does
    assert blobs(store, late.id)[0]
    again = withdraw(store, PATIENT, why="asked to", who="reader-1")
    assert (again.frames, len(again.before)) == ((late.id,), 2)
    assert store.verify() == []


def test_a_frame_of_an_old_store_can_be_withdrawn(store):
    frame = make_frame(1)
    store.accept(correct(frame), parent=None)
    withdraw(store, frame.id, why="asked to", who="reader-1")
    assert count_groups(store).withdrawn_frames == 1
    assert store.verify() == []


@pytest.mark.parametrize("stone", [False, True])
@pytest.mark.parametrize(
    "change",
    [
        "UPDATE revisions SET mask = mask",
        "UPDATE revisions SET label = 'normal', mask = {empty}",
        "UPDATE predictions SET lesion = {empty}, mask = {empty}, expected_dice = 1",
        "UPDATE predictions SET lesion = {empty}",
        "DELETE FROM tombstones",
        "UPDATE tombstones SET why = 'none'",
        "DELETE FROM revisions",
    ],
)
def test_the_guard_lets_an_erasure_pass_and_nothing_else(store, taught, shell, change, stone):
    frame_id = taught[0].id
    # a row is needed for the guards of tombstones to speak
    stones = [frame_id] if stone or "tombstones" in change else []
    with store.writing() as connection:
        for one in stones:
            connection.execute(insert(TOMBSTONES).values(frame_id=one, why="w", who="w", created="2026"))
    empty = "x''" if shell.dialect.name == "sqlite" else "''::bytea"
    with pytest.raises(DBAPIError, match="append-only"):
        shell.execute(text(change.format(empty=empty)))
    shell.rollback()


def test_erasing_without_a_tombstone_is_refused(store, taught, shell):
    empty = "x''" if shell.dialect.name == "sqlite" else "''::bytea"
    for statement in (
        f"UPDATE revisions SET mask = {empty}",
        f"UPDATE predictions SET lesion={empty}, mask={empty}",
    ):
        with pytest.raises(DBAPIError, match="append-only"):
            shell.execute(text(statement))
        shell.rollback()


def test_verify_finds_a_tombstone_whose_erasure_is_missing(store, taught):
    with store.writing() as connection:
        row = {"frame_id": taught[0].id, "why": "w", "who": "w", "created": "2026"}
        connection.execute(insert(TOMBSTONES).values(row))
    problems = store.verify()
    assert sum("its mask is still there" in problem for problem in problems) == 2
    assert sum("its maps are still there" in problem for problem in problems) == 1
    assert sum("what knows it again is still there" in problem for problem in problems) == 1


@pytest.mark.skipif(os.name != "posix", reason="sends SIGKILL")
def test_a_withdrawal_that_was_killed_erased_nothing(path, monkeypatch):
    with CorrectionStore(path) as store:
        store.accept(make_correction(), parent=None)
    child = os.fork()
    if child == 0:
        monkeypatch.setattr(withdrawal, "snapshots_with", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        withdraw(CorrectionStore(path), sha256("frame"), why="asked to", who="reader-1")
        os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    with CorrectionStore(path) as store:
        assert store.newest(sha256("frame")).correction.mask.any()
        assert store.verify() == []
        assert list_withdrawn(store) == []


def test_a_key_file_that_cannot_be_written_is_said_and_can_be_repeated(path):
    with CorrectionStore(path) as store:
        store.accept(make_correction(), parent=None)
        folder = path.with_suffix(".sonoloop")
        (folder / "places.jsonl").mkdir(parents=True)
        with pytest.raises(StoreError, match=r"it is erased from the store; but .*then withdraw it again"):
            withdraw(store, sha256("frame"), why="asked to", who="reader-1")
        assert store.verify() == []
        shutil.rmtree(folder)
        again = withdraw(store, sha256("frame"), why="asked to", who="reader-1")
        assert (again.frames, again.before) == ((), (sha256("frame"),))


def test_drafts_of_it_on_this_machine_are_removed(store, taught, tmp_path, monkeypatch):
    monkeypatch.setattr(drafts, "drafts_root", lambda: tmp_path / "drafts")
    folder = DraftFolder(draft_folder(str(store.url.database), "reader-1"))
    for frame in taught:
        mask = np.ones(frame.shape, np.uint8)
        folder.write(Draft(frame_id=frame.id, pixels_hash=frame.pixels_hash, mask=mask, annotator="reader-1"))
    withdraw(store, PATIENT, why="asked to", who="reader-1")
    assert folder.ids() == {taught[2].id}


def test_pictures_that_may_show_it_are_removed(store, taught):
    folder = work_folder(store.url)
    pictures = [folder / "jobs" / "one" / "gate" / "harmed.png", folder / "gates" / "two" / "scatter.png"]
    for picture in (*pictures, folder / "jobs" / "one" / "events.jsonl"):
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.write_bytes(b"drawn")
    withdraw(store, PATIENT, why="consent", who="anna")
    assert [path.name for path in folder.rglob("*") if path.is_file() and path.read_bytes() == b"drawn"] == [
        "events.jsonl"
    ]


def test_pictures_of_the_store_beside_it_stay(tmp_path):
    pictures = {}
    for name in ("study.v1", "study.v2"):
        with CorrectionStore(tmp_path / name) as store:
            store.accept(make_correction(), parent=None)
        pictures[name] = work_folder(store.url) / "gates" / "two" / "scatter.png"
        pictures[name].parent.mkdir(parents=True)
        pictures[name].write_bytes(b"drawn")
    # of both, once; nobody knows whose
    shared = tmp_path / "study.sonoloop" / "gates" / "one" / "scatter.png"
    shared.parent.mkdir(parents=True)
    shared.write_bytes(b"drawn")
    with CorrectionStore(tmp_path / "study.v1") as store:
        told = pytest.raises(StoreError, match=r"erased from the store; but .*scatter\.png may show it, or")
        with told:
            withdraw(store, sha256("frame"), why="consent", who="anna")
        shared.unlink()
        withdraw(store, sha256("frame"), why="consent", who="anna")
    assert not pictures["study.v1"].exists()
    assert pictures["study.v2"].exists()


def test_an_imported_patient_is_found_by_the_number_alone(store):
    for seed, patient in ((1, "busbra/47"), (2, "busi/9"), (3, "busbra/9")):
        place_frame(store, make_frame(seed), patient=patient, role="train")
        store.accept(correct(make_frame(seed)), parent=None)
    assert frames_of(store, "47") == [make_frame(1).id]
    assert frames_of(store, "busbra/9") == [make_frame(3).id]
    with pytest.raises(StoreError, match="busbra/9 or busi/9"):
        frames_of(store, "9")


def test_a_model_that_it_only_judged_did_not_learn_from_it(store, taught):
    place_frame(store, make_frame(9), patient="4713", role="test")
    store.accept(correct(make_frame(9)), parent=None)
    take_snapshot(store, "both", who="anna")
    register(store, version="a" * 64, model="unet-a", origin="tuned", who="anna", snapshot="both")
    found = withdraw(store, "4713", why="asked to", who="anna")
    assert (found.snapshots, found.models) == (("both",), ())
