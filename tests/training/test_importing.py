"""Existing masks in as corrections: once, with patients, groups and references, and resumed."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import func, select

from sonoloop.errors import TrainingError
from sonoloop.imaging.io import read_frame
from sonoloop.jobs.events import Imported, OddMask, Progress, Unreadable
from sonoloop.store import CorrectionStore
from sonoloop.store.file_index import Places
from sonoloop.store.groups import count_groups, place_frame, placement
from sonoloop.store.leases import LeaseError
from sonoloop.store.references import reference_of, set_reference
from sonoloop.store.snapshots import take_snapshot
from sonoloop.store.tables import REFERENCES
from sonoloop.store.test_sets import freeze_test_set
from sonoloop.store.withdrawal import withdraw
from sonoloop.values import Correction
from sonoloop_training.importing import import_dataset, number_regions


@pytest.fixture
def busbra(datasets, tmp_path):
    return shutil.copytree(datasets / "BUSBRA", tmp_path / "BUSBRA")


@pytest.fixture
def busi(datasets, tmp_path):
    folder = shutil.copytree(datasets / "Dataset_BUSI_with_GT", tmp_path / "BUSI")
    shutil.copy(datasets / "busi_groups.json", tmp_path)
    return folder


@pytest.fixture
def url(tmp_path):
    return tmp_path / "store.sqlite"


def run(folder, form, url, **options):
    events = list(import_dataset(folder, form, store=str(url), **options))
    assert isinstance(events[-1], Imported)
    return events[-1], events[:-1]


def test_a_dataset_comes_in_with_patients_classes_and_references(busbra, url):
    done, events = run(busbra, "busbra", url)
    assert (done.images, done.new, done.known, done.kept, done.unreadable) == (16, 16, 0, 0, 0)
    assert done.by_class == {"normal": 0, "benign": 8, "malignant": 8}
    assert done.annotator == "busbra"
    assert sum(done.roles.values()) == 16
    assert sum(done.groups.values()) == 8
    assert all(isinstance(event, Progress) for event in events)
    frames = [read_frame(busbra / "Images" / f"bus_0003-{side}.png") for side in "lr"]
    with CorrectionStore(url) as store:
        assert store.verify() == []
        places = [placement(store, frame.id) for frame in frames]
        assert places[0].group_id == places[1].group_id
        assert places[0].patient is not None
        revision = store.head(frames[0].id, "busbra")
        assert reference_of(store, frames[0].id) == revision.correction.label == "malignant"
        assert revision.correction.prediction is None
        assert revision.correction.mask_decision == "new"
        truth = np.asarray(Image.open(busbra / "Masks" / "mask_0003-l.png")) > 0
        assert np.array_equal(revision.correction.mask > 0, truth)
        found = Places(store.url).find(frames[0].id)
        assert found.path == busbra / "Images" / "bus_0003-l.png"


def test_what_only_judges_does_so_at_once(busbra, url):
    done, _ = run(busbra, "busbra", url, role="test")
    assert done.roles == {"train": 0, "test": 16, "neither": 0}
    with CorrectionStore(url) as store:
        # nobody saw a prediction
        assert len(freeze_test_set(store).members) == 16
        assert count_groups(store).test_groups == 8


def test_the_same_command_again_stores_nothing(busbra, url):
    run(busbra, "busbra", url)
    with CorrectionStore(url) as store:
        before = store.count()
    again, _ = run(busbra, "busbra", url, role="test")
    assert (again.new, again.known) == (0, 16)
    with CorrectionStore(url) as store:
        assert store.count() == before == 16
        with store.reading() as connection:
            assert connection.scalar(select(func.count()).select_from(REFERENCES)) == 16


def test_an_import_that_broke_off_goes_on(busbra, url):
    events = import_dataset(busbra, "busbra", store=str(url))
    for event in events:
        if isinstance(event, Progress) and event.done == 5:
            break
    events.close()
    with CorrectionStore(url) as store:
        assert store.count() == 5
    done, _ = run(busbra, "busbra", url)
    assert (done.new, done.known) == (11, 5)


def test_a_correction_of_the_same_annotator_stays(busbra, url):
    run(busbra, "busbra", url, annotator="anna")
    frame = read_frame(busbra / "Images" / "bus_0001-l.png")
    with CorrectionStore(url) as store:
        head = store.head(frame.id, "anna")
        empty = np.zeros_like(head.correction.mask)
        better = Correction(
            frame_id=frame.id, pixels_hash=frame.pixels_hash, mask=empty, label="normal", annotator="anna"
        )
        kept = store.accept(better, parent=head.id)
    again, _ = run(busbra, "busbra", url, annotator="anna")
    assert (again.new, again.known, again.kept) == (0, 15, 1)
    other, _ = run(busbra, "busbra", url, annotator="bert")
    assert (other.new, other.known, other.kept) == (0, 15, 1)
    with CorrectionStore(url) as store:
        assert store.head(frame.id, "anna").id == store.newest(frame.id).id == kept.id


def test_what_people_said_of_an_image_is_not_replaced_by_the_dataset(busbra, url):
    frame = read_frame(busbra / "Images" / "bus_0001-l.png")
    mask = np.zeros(frame.shape, np.uint8)
    mask[20:40, 20:40] = 1
    with CorrectionStore(url) as store:
        place_frame(store, frame, role="train")
        anna = Correction(
            frame_id=frame.id, pixels_hash=frame.pixels_hash, mask=mask, label="unsure", annotator="anna"
        )
        kept = store.accept(anna, parent=None)
    done, _ = run(busbra, "busbra", url)
    assert (done.new, done.known, done.kept) == (15, 0, 1)
    with CorrectionStore(url) as store:
        assert store.newest(frame.id).id == kept.id
        assert store.head(frame.id, "busbra") is None
        assert reference_of(store, frame.id) is None
        # but whose image it is was news
        assert placement(store, frame.id).patient is not None


def test_a_reference_from_elsewhere_stays(busbra, url):
    frame = read_frame(busbra / "Images" / "bus_0001-l.png")
    with CorrectionStore(url) as store:
        place_frame(store, frame, role="train")
        set_reference(store, frame.id, "normal", source="histology")
    done, _ = run(busbra, "busbra", url)
    assert (done.new, done.kept) == (16, 0)
    run(busbra, "busbra", url)
    with CorrectionStore(url) as store:
        assert store.newest(frame.id).correction.label != "normal"
        assert reference_of(store, frame.id) == "normal"


def test_an_image_that_was_saved_anew_is_known(busbra, url):
    run(busbra, "busbra", url)
    path = busbra / "Images" / "bus_0001-l.png"
    before = read_frame(path)
    Image.open(path).save(path, compress_level=1)
    anew = read_frame(path)
    assert (anew.id == before.id, anew.pixels_hash == before.pixels_hash) == (False, True)
    again, _ = run(busbra, "busbra", url)
    assert (again.new, again.known, again.kept) == (0, 16, 0)
    with CorrectionStore(url) as store:
        assert store.count() == len(take_snapshot(store, who="anna").entries) == 16
        # from now on it is found there
        assert Places(store.url).find(anew.id).path == path


def test_near_copies_are_in_one_group(busi, url):
    Image.open(busi / "benign" / "benign (3).png").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(
        busi / "benign" / "benign (33).png"
    )
    Image.open(busi / "benign" / "benign (3)_mask.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(
        busi / "benign" / "benign (33)_mask.png"
    )
    run(busi, "busi", url)
    one, other = (read_frame(busi / "benign" / f"benign ({n}).png") for n in (3, 33))
    with CorrectionStore(url) as store:
        assert placement(store, one.id).group_id == placement(store, other.id).group_id
        assert placement(store, one.id).patient is None


def test_the_lesions_of_one_image_are_numbered_and_a_normal_one_has_none(busi, url):
    done, _ = run(busi, "busi", url)
    assert done.by_class["normal"] == 8
    normal = read_frame(busi / "normal" / "normal (1).png")
    with CorrectionStore(url) as store:
        head = store.head(normal.id, "busi").correction
    assert (head.mask.any(), head.label, head.mask_decision) == (False, "normal", "none")


def test_regions_are_numbered_by_size_and_none_is_lost():
    mask = np.zeros((40, 60), np.bool_)
    mask[2:5, 2:5] = mask[10:30, 10:30] = mask[35, 50] = True
    mask[18:22, 18:22] = False
    numbered = number_regions(mask)
    assert np.array_equal(numbered > 0, mask)
    assert (numbered[12, 12], numbered[3, 3], numbered[35, 50]) == (1, 2, 3)
    assert not number_regions(np.zeros((4, 4), np.bool_)).any()
    specks = np.zeros((40, 40), np.bool_)
    specks[::2, ::2] = True
    many = number_regions(specks)
    assert np.array_equal(many > 0, specks)
    assert many.max() == 255


def test_what_cannot_be_read_is_told_and_the_rest_comes_in(busbra, url):
    (busbra / "Images" / "bus_0002-l.png").write_bytes(b"no image")
    done, events = run(busbra, "busbra", url)
    assert (done.new, done.unreadable) == (15, 1)
    (told,) = (event for event in events if isinstance(event, Unreadable))
    assert told.image == "bus_0002-l.png"


def test_a_person_who_was_withdrawn_stays_so(busbra, url):
    run(busbra, "busbra", url)
    frame = read_frame(busbra / "Images" / "bus_0004-l.png")
    with CorrectionStore(url) as store:
        withdraw(store, frame.id, why="asked for it", who="anna")
    again, events = run(busbra, "busbra", url)
    assert (again.new, again.unreadable) == (0, 1)
    assert [e.error for e in events if isinstance(e, Unreadable)] == ["it was withdrawn from the store"]
    with CorrectionStore(url) as store:
        assert Places(store.url).find(frame.id) is None


def test_the_pixels_of_a_person_who_was_withdrawn_come_in_from_no_other_file(busbra, url):
    run(busbra, "busbra", url)
    path = busbra / "Images" / "bus_0004-l.png"
    with CorrectionStore(url) as store:
        withdraw(store, read_frame(path).id, why="asked for it", who="anna")
    before = read_frame(path)
    Image.open(path).save(path, compress_level=1)
    anew = read_frame(path)
    assert (anew.id == before.id, anew.pixels_hash == before.pixels_hash) == (False, True)
    again, events = run(busbra, "busbra", url)
    assert (again.new, again.unreadable) == (0, 1)
    assert [e.error for e in events if isinstance(e, Unreadable)] == ["it was withdrawn from the store"]
    with CorrectionStore(url) as store:
        assert placement(store, anew.id) is None
        assert Places(store.url).find(anew.id) is None


def test_no_other_image_of_a_patient_who_was_withdrawn_comes_in(busbra, url):
    side = busbra / "Images" / "bus_0004-r.png"
    content = side.read_bytes()
    side.write_bytes(b"no image yet")
    run(busbra, "busbra", url)
    with CorrectionStore(url) as store:
        withdraw(store, "busbra/4", why="asked for it", who="anna")
    side.write_bytes(content)
    again, events = run(busbra, "busbra", url)
    assert (again.new, again.unreadable) == (0, 2)
    told = [(e.image, e.error) for e in events if isinstance(e, Unreadable)]
    assert told == [(f"bus_0004-{one}.png", "it was withdrawn from the store") for one in "lr"]
    with CorrectionStore(url) as store:
        assert placement(store, read_frame(side).id) is None
        assert Places(store.url).find(read_frame(side).id) is None
        assert len(take_snapshot(store, who="anna").entries) == 14


def test_a_folder_that_is_no_such_dataset_is_named(tmp_path, url):
    with pytest.raises(TrainingError, match="there is no folder"):
        list(import_dataset(tmp_path / "gone", "busi", store=str(url)))
    with pytest.raises(TrainingError, match=r"has no bus_data\.csv"):
        list(import_dataset(tmp_path, "busbra", store=str(url)))
    assert not os.path.exists(url)  # noqa: PTH110 - nothing was made


def mask_of(busbra, number):
    return busbra / "Masks" / f"mask_{number:04}-l.png"


def invert(path):
    Image.fromarray(255 - np.asarray(Image.open(path).convert("L"))).save(path)


def test_masks_that_look_odd_are_told_before_anything_is_stored(busbra, url):
    invert(mask_of(busbra, 1))
    Image.open(mask_of(busbra, 2)).resize((64, 48)).save(mask_of(busbra, 2))
    shutil.copy(mask_of(busbra, 3), mask_of(busbra, 4))
    events = []
    with pytest.raises(TrainingError, match=r"4 of 16 images look odd, and nothing .* --accept-odd"):
        for event in import_dataset(busbra, "busbra", store=str(url)):
            events.append(event)  # noqa: PERF402 - it ends by raising
    told = {event.image: event.what for event in events if isinstance(event, OddMask)}
    assert set(told) == {f"bus_000{number}-l.png" for number in (1, 2, 3, 4)}
    assert told["bus_0002-l.png"].startswith("mask_0002-l.png is 64 x 48, its image 128 x 96")
    assert not url.exists()


def test_what_looks_odd_is_stored_as_it_is_when_it_is_accepted(busbra, url):
    invert(mask_of(busbra, 1))
    Image.open(mask_of(busbra, 2)).resize((64, 48)).save(mask_of(busbra, 2))
    done, events = run(busbra, "busbra", url, accept_odd=True)
    assert (done.new, done.odd, done.unreadable) == (15, 1, 1)
    (told,) = (event for event in events if isinstance(event, Unreadable))
    assert (told.image, "64 x 48" in told.error) == ("bus_0002-l.png", True)
    with CorrectionStore(url) as store:
        stored = store.head(read_frame(busbra / "Images" / "bus_0001-l.png").id, "busbra").correction.mask
    assert np.array_equal(stored > 0, np.asarray(Image.open(mask_of(busbra, 1))) > 0)


@pytest.mark.parametrize("other", ["busbra", "another"])
def test_of_two_imports_at_once_one_is_refused_and_nothing_is_stored_twice(busbra, url, other):
    first = import_dataset(busbra, "busbra", store=str(url))
    for event in first:
        if isinstance(event, Progress) and event.done == 5:
            break
    with pytest.raises(LeaseError, match=r"an import of busbra by busbra is under way: process \d+ on"):
        list(import_dataset(busbra, "busbra", store=str(url), annotator=other))
    *_, done = first
    assert (done.new, done.known) == (16, 0)
    again, _ = run(busbra, "busbra", url, annotator=other)
    assert (again.new, again.known) == (0, 16)
    with CorrectionStore(url) as store:
        assert store.count() == 16


def test_what_a_person_accepts_meanwhile_is_no_conflict(busbra, url, monkeypatch):
    accept_first = CorrectionStore.accept_first

    def quicker(store, correction):
        theirs = Correction(
            frame_id=correction.frame_id,
            pixels_hash=correction.pixels_hash,
            mask=np.zeros_like(correction.mask),
            label="normal",
            annotator=correction.annotator,
        )
        if not store.count():
            store.accept(theirs, parent=None)
        return accept_first(store, correction)

    monkeypatch.setattr(CorrectionStore, "accept_first", quicker)
    done, _ = run(busbra, "busbra", url)
    assert (done.new, done.kept) == (15, 1)
    with CorrectionStore(url) as store:
        assert store.count() == 16


def test_an_import_by_one_person_is_so_however_the_name_was_typed(busbra, url):
    done, _ = run(busbra, "busbra", url, annotator=" r1 ")
    assert done.annotator == "r1"
    again, _ = run(busbra, "busbra", url, annotator="r1")
    assert (again.new, again.known) == (0, 16)
