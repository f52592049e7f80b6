"""Corrections of images that an earlier Sonoloop read without heeding how they are to be turned."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from sonoloop.errors import StoreError, TrainingError
from sonoloop.imaging.grey import frame_from_array
from sonoloop.imaging.io import read_frame
from sonoloop.imaging.orientation import as_stored, turn
from sonoloop.imaging.phantom import phantom
from sonoloop.project import Project
from sonoloop.store.corrections import CorrectionStore
from sonoloop.store.file_index import Places, Relinked, relink, reread
from sonoloop.store.groups import place_frame
from sonoloop.store.revisions import HeadMovedError
from sonoloop.store.settings import change_settings
from sonoloop.store.test_sets import freeze_test_set
from sonoloop.store.withdrawal import withdraw
from sonoloop.values import Correction, Prediction
from sonoloop_training.finetune.samples import CorrectedSample, read_cases, read_samples
from sonoloop_training.fit.batches import letterbox_pair
from sonoloop_training.gate.scoring import read_test_frame

SEEN = phantom("benign", seed=3, shape=(96, 128))
TURNS = (2, 3, 5, 6, 7, 8)


def save(path, orientation, form="PNG"):
    """Save an image that lies in its file as `SEEN`, and says how to turn it."""
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(SEEN.image).save(path, form, exif=exif)
    return path


def predict(frame, mask):
    return Prediction(
        frame_id=frame.id,
        lesion=np.round(np.linspace(0, 1, mask.size) * 255).reshape(mask.shape).astype(np.float32) / 255,
        mask=mask,
        classes=np.array([0.1, 0.7, 0.2], np.float32),
        expected_dice=0.8,
        threshold=0.5,
        model="fake-1",
    )


@pytest.fixture
def store(tmp_path):
    with CorrectionStore(tmp_path / "store.sqlite") as opened:
        change_settings(opened, test_cap=0, draw_first_share=0.0)
        yield opened


def store_as_before(store, path, *, annotator="r1", mask=None):
    """Store a correction as the version did that left images as they lie in their files."""
    lying = frame_from_array(np.asarray(Image.open(path)), name=path.name, id=read_frame(path).id)
    place_frame(store, lying)
    Places(store.url).remember(lying.id, path, pixels_hash=lying.pixels_hash)
    mask = (SEEN.mask > 0).astype(np.uint8) if mask is None else mask
    correction = Correction(
        frame_id=lying.id,
        pixels_hash=lying.pixels_hash,
        mask=mask,
        label="benign",
        annotator=annotator,
        prediction=predict(lying, mask),
        prediction_seen=True,
    )
    return lying, store.accept(correction, parent=None)


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_a_correction_of_before_comes_back_upright(tmp_path, store, form, orientation):
    path = save(tmp_path / "a", orientation, form)
    lying, stored = store_as_before(store, path)
    frame = read_frame(path)
    assert (frame.id, as_stored(frame).pixels_hash) == (lying.id, lying.pixels_hash)
    status = Project(store, annotator="r1").look_up(frame)
    assert (status.newest.id, status.own_head) == (stored.id, stored.id)
    correction = status.newest.correction
    np.testing.assert_array_equal(correction.mask, turn(stored.correction.mask, orientation))
    before, after = stored.correction.prediction, status.prediction
    np.testing.assert_array_equal(after.lesion, turn(before.lesion, orientation))
    np.testing.assert_array_equal(after.mask, turn(before.mask, orientation))
    assert (correction.mask_decision, correction.pixels_hash) == ("kept", frame.pixels_hash)


@pytest.mark.parametrize("orientation", TURNS)
def test_it_is_corrected_on_upright(tmp_path, store, orientation):
    path = save(tmp_path / "a.png", orientation)
    _, stored = store_as_before(store, path)
    frame, project = read_frame(path), Project(store, annotator="r1")
    shown = project.look_up(frame).newest.correction.mask
    assert project.accept(frame, shown, "benign", seen=True).id == stored.id
    drawn = np.zeros(frame.shape, np.uint8)
    drawn[2:9, 3:30] = 1
    new = project.accept(frame, drawn, "malignant", prediction=predict(frame, drawn), seen=True)
    assert new.parent == stored.id
    np.testing.assert_array_equal(new.correction.mask, drawn)
    status = project.look_up(frame)
    np.testing.assert_array_equal(status.newest.correction.mask, drawn)
    np.testing.assert_array_equal(status.prediction.mask, drawn)
    assert store.verify() == []
    with pytest.raises(HeadMovedError) as caught:
        project.accept(frame, 1 - drawn, "benign", seen=True, parent=stored.id)
    np.testing.assert_array_equal(caught.value.theirs.correction.mask, drawn)
    np.testing.assert_array_equal(caught.value.mine.correction.mask, 1 - drawn)


@pytest.mark.parametrize("orientation", [3, 6])
def test_it_is_found_by_its_pixels_in_a_file_that_was_saved_anew(tmp_path, store, orientation):
    _, stored = store_as_before(store, save(tmp_path / "a.png", orientation))
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(SEEN.image).save(tmp_path / "b.png", exif=exif, compress_level=1)
    again = read_frame(tmp_path / "b.png")
    assert again.id != stored.correction.frame_id
    project = Project(store, annotator="r2")
    status = project.look_up(again)
    np.testing.assert_array_equal(status.newest.correction.mask, turn(stored.correction.mask, orientation))
    # and the same pixels without a turn are found as they are
    Image.fromarray(SEEN.image).save(tmp_path / "c.png")
    plain = project.look_up(read_frame(tmp_path / "c.png"))
    np.testing.assert_array_equal(plain.newest.correction.mask, stored.correction.mask)


@pytest.mark.parametrize("orientation", TURNS)
def test_what_is_stored_today_lies_upright(tmp_path, store, orientation):
    frame, project = read_frame(save(tmp_path / "a.png", orientation)), Project(store, annotator="r1")
    drawn = np.zeros(frame.shape, np.uint8)
    drawn[2:9, 3:30] = 1
    project.accept(frame, drawn, "benign", seen=False)
    np.testing.assert_array_equal(store.newest(frame.id).correction.mask, drawn)
    np.testing.assert_array_equal(project.look_up(frame).newest.correction.mask, drawn)
    sample = sample_of(store.newest(frame.id))
    case = next_case(sample, store)
    np.testing.assert_array_equal(case.mask, drawn > 0)


def sample_of(revision):
    correction = revision.correction
    return CorrectedSample(
        frame_id=correction.frame_id,
        pixels_hash=correction.pixels_hash,
        group_id="g",
        mask=correction.mask > 0,
        label="benign",
        mask_weight=1.0,
        class_weight=1.0,
    )


def returned(steps):
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def next_case(sample, store):
    [case] = returned(read_cases([sample], Places(store.url).find))
    return case


@pytest.mark.parametrize("orientation", TURNS)
def test_training_learns_it_upright(tmp_path, store, orientation):
    path = save(tmp_path / "a.png", orientation)
    _, stored = store_as_before(store, path)
    sample, find = sample_of(stored), Places(store.url).find
    read = returned(read_samples([sample], find, size=64))
    frame, mask = read_frame(path), turn(SEEN.mask > 0, orientation)
    image, lesion = letterbox_pair(frame.pixels, mask, 64)
    batch = read.cache
    assert batch is not None
    assert np.array_equal(np.asarray(batch.images[0]).ravel(), np.asarray(image).ravel())
    assert np.array_equal(np.asarray(batch.masks[0]).ravel(), np.asarray(lesion).ravel())
    case = next_case(sample, store)
    np.testing.assert_array_equal(case.mask, mask)
    np.testing.assert_array_equal(case.frame.pixels, frame.pixels)


@pytest.mark.parametrize("orientation", TURNS)
def test_the_gate_judges_by_it_upright(tmp_path, orientation):
    with CorrectionStore(tmp_path / "judging.sqlite") as store:
        change_settings(store, test_cap=300, first_test_share=1.0, test_share=1.0)
        path = save(tmp_path / "a.png", orientation)
        lying = frame_from_array(np.asarray(Image.open(path)), name="a", id=read_frame(path).id)
        place_frame(store, lying, role="test")
        Places(store.url).remember(lying.id, path, pixels_hash=lying.pixels_hash)
        mask = (SEEN.mask > 0).astype(np.uint8)
        correction = Correction(
            frame_id=lying.id, pixels_hash=lying.pixels_hash, mask=mask, label="benign", annotator="r1"
        )
        store.accept(correction, parent=None)
        [member] = freeze_test_set(store).members
        case = read_test_frame(store, Places(store.url), member)
        np.testing.assert_array_equal(case.mask, turn(mask > 0, orientation))
        np.testing.assert_array_equal(case.frame.pixels, read_frame(path).pixels)


def test_its_file_is_found_again(tmp_path, store):
    path = save(tmp_path / "a.png", 6)
    lying, _ = store_as_before(store, path)
    (tmp_path / "moved").mkdir()
    path.rename(tmp_path / "moved" / "b.png")
    known = {lying.id: lying.pixels_hash}
    *_, result = relink(Places(store.url), tmp_path / "moved", known)
    assert isinstance(result, Relinked) and result.found == (lying.id,)
    exif = Image.Exif()
    exif[274] = 6
    (tmp_path / "moved" / "b.png").unlink()
    (tmp_path / "anew").mkdir()
    Image.fromarray(SEEN.image).save(tmp_path / "anew" / "c.png", exif=exif, compress_level=1)
    *_, result = relink(Places(store.url), tmp_path / "anew", known)
    assert result.resaved == (lying.id,)
    assert reread(Places(store.url).find(lying.id), lying.id, lying.pixels_hash).shape == (128, 96)
    Image.fromarray(SEEN.image[:, ::-1]).save(tmp_path / "anew" / "c.png")
    with pytest.raises(TrainingError, match="other pixels"):
        reread(Places(store.url).find(lying.id), lying.id, lying.pixels_hash)


def test_who_was_withdrawn_before_stays_so(tmp_path, store):
    path = save(tmp_path / "a.png", 6)
    lying, _ = store_as_before(store, path)
    withdraw(store, lying.id, why="asked for", who="r1")
    frame, project = read_frame(path), Project(store, annotator="r1")
    status = project.look_up(frame)
    assert status.newest is None
    with pytest.raises(StoreError, match="withdrawn"):
        project.accept(frame, np.zeros(frame.shape, np.uint8), "normal", seen=False)
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(SEEN.image).save(tmp_path / "b.png", exif=exif, compress_level=1)
    with pytest.raises(StoreError, match="withdrawn"):
        project.accept(read_frame(tmp_path / "b.png"), np.zeros((128, 96), np.uint8), "normal", seen=False)


def test_a_frame_of_the_same_bytes_is_the_same_whatever_decoded_it(tmp_path, store):
    path = save(tmp_path / "a.png", 1)
    frame = read_frame(path)
    place = Places(store.url)
    place.remember(frame.id, path)
    assert reread(place.find(frame.id), frame.id, "0" * 64).pixels_hash == frame.pixels_hash
