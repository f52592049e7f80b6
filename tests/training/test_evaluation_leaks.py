"""Which evaluated images had trained, and what a split file says."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sonoloop.errors import TrainingError
from sonoloop.imaging.grey import frame_from_array
from sonoloop.imaging.phantom import phantom
from sonoloop.models.manifest import Member, is_other, read_manifest
from sonoloop_training.evaluation.scores import Case
from sonoloop_training.leakage import find_leaks


def listed(pixels: np.ndarray, name: str, group: str = "") -> Member:
    frame = frame_from_array(pixels, name=name)
    mask = np.zeros(pixels.shape, bool)
    case = Case(frame=frame, mask=mask, label="benign", dataset="busi", group=group, name=name)
    return case.listed()


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    return [phantom("benign", seed=seed, shape=(120, 160)).image for seed in range(4)]


def test_a_copy_under_another_name_is_found(images):
    (leak,) = find_leaks(
        [listed(images[0], "new")], [listed(image, f"t{n}") for n, image in enumerate(images)]
    )
    assert (leak.image, leak.trained, leak.kind) == ("busi/new", "busi/t0", "same image")


def test_a_mirrored_and_brighter_copy_is_found(images):
    twin = np.clip(images[1][:, ::-1].astype(int) + 12, 0, 255).astype(np.uint8)
    (leak,) = find_leaks([listed(twin, "new")], [listed(image, f"t{n}") for n, image in enumerate(images)])
    assert (leak.trained, leak.kind) == ("busi/t1", "near copy")


def test_another_image_of_the_patient_is_found_and_a_stranger_is_not(images):
    trained = [listed(images[0], "t0", group="busi/7")]
    evaluated = [listed(images[2], "a", group="busi/7"), listed(images[3], "b", group="busi/8")]
    (leak,) = find_leaks(evaluated, trained)
    assert (leak.image, leak.kind) == ("busi/a", "same patient or group")


def test_a_name_tells_only_where_nothing_better_is_listed(images):
    new = [listed(images[0], "one")]
    assert [leak.kind for leak in find_leaks(new, [Member(name="busi/one")])] == ["same image"]
    # another folder's image of the same name
    assert find_leaks(new, [listed(images[3], "one")]) == []


def test_an_image_is_another_where_neither_bytes_nor_pixels_agree(images):
    frame = frame_from_array(images[0], name="a", id="bytes")
    assert is_other(frame, Member(name="busi/a", id="x", pixels_hash="y"))
    assert is_other(frame, Member(name="busi/a", id="x"))
    # saved again, and what an older list does not tell
    assert not is_other(frame, Member(name="busi/a", id="x", pixels_hash=frame.pixels_hash))
    assert not is_other(frame, Member(name="busi/a", id="bytes"))
    assert not is_other(frame, Member(name="busi/a"))
    assert not is_other(frame, None)


def test_a_split_is_read_in_both_forms(tmp_path):
    path = tmp_path / "split.json"
    entry = {"name": "busi/a", "group": "busi/g", "id": "1", "pixels_hash": "2", "fingerprint": "3f" * 32}
    path.write_text(json.dumps({"train": [entry], "validation": ["busi/b"], "test": []}))
    parts = read_manifest(path)
    assert parts["train"] == (Member(**entry),)
    assert parts["validation"] == (Member(name="busi/b"),)
    assert parts["test"] == ()


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"train": [{"group": "a"}]}',
        '{"train": 4}',
        '{"train": [3]}',
        '{"train": [{"name": "a", "fingerprint": "zz"}]}',
        '{"train": [{"name": "a", "fingerprint": "00"}]}',
        '{"train": [{"name": "a", "group": {"b": 1}}]}',
        "[" * 100_000,
    ],
)
def test_another_file_is_no_split(tmp_path, text):
    path = tmp_path / "split.json"
    path.write_text(text)
    with pytest.raises(TrainingError, match=r"split\.json is no split; it should be"):
        read_manifest(path)


def test_a_missing_split_is_named(tmp_path):
    with pytest.raises(TrainingError, match=r"cannot read the split .*nowhere\.json"):
        read_manifest(tmp_path / "nowhere.json")
