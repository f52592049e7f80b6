"""Which images a split lets judge, and what is said of those that are not here."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from evaluation_models import copy_small, members, run, save_model
from PIL import Image

from sonoloop.errors import TrainingError
from sonoloop.jobs.events import Notice


@pytest.fixture(scope="module")
def small(datasets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_small(datasets, tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "bundle")


@pytest.mark.parametrize(
    ("listing", "message"),
    [
        (None, "does not say which images are its test part"),
        ({"train": [], "test": []}, "lists no image for test"),
        (
            {"train": [], "test": ["busbra/1", "busbra/2"]},
            "none of the 12 images in the data is in the test part",
        ),
    ],
)
def test_a_part_that_is_not_there_is_refused(small, model, tmp_path, listing, message):
    split = None
    if listing is not None:
        split = tmp_path / "split.json"
        split.write_text(json.dumps(listing))
    with pytest.raises(TrainingError, match=message):
        run(small, tmp_path / "out", model, part="test", split=split)
    assert not (tmp_path / "out").exists()


def test_a_part_of_which_some_is_missing_is_told(small, model, tmp_path):
    split = tmp_path / "split.json"
    split.write_text(json.dumps({"train": [], "test": ["busi/benign (1)", "busbra/1", "busbra/2"]}))
    events = run(small, tmp_path / "out", model, part="test", split=split)
    notices = [event.message for event in events if isinstance(event, Notice)]
    assert "1 of the 3 images that the split calls test are here" in notices
    assert json.loads((tmp_path / "out" / "results.json").read_text())["images"] == 1


def test_another_image_of_a_listed_name_is_named_and_left_out(small, model, tmp_path):
    listing = members(small, {"busi/benign (1)", "busi/benign (2)", "busi/malignant (1)"})
    data = tmp_path / "data"
    shutil.copytree(small, data)
    folder = data / "BUSI" / "benign"
    # the same pixels in other bytes are the same image, another image is not
    Image.open(folder / "benign (1).png").save(folder / "benign (1).png", compress_level=0)
    shutil.copy(folder / "benign (3).png", folder / "benign (2).png")
    split = tmp_path / "split.json"
    split.write_text(json.dumps({"train": [], "test": listing}))
    events = run(data, tmp_path / "out", model, part="test", split=split)
    notices = [event.message for event in events if isinstance(event, Notice)]
    assert "2 of the 3 images that the split calls test are here" in notices
    assert "left out, since the split lists another image of the same name (1): busi/benign (2)" in notices
    with (tmp_path / "out" / "cases.csv").open(newline="") as file:
        assert {row["image"] for row in csv.DictReader(file)} == {"busi/benign (1)", "busi/malignant (1)"}


def test_a_part_of_others_alone_is_refused(small, model, tmp_path):
    (entry,) = members(small, {"busi/benign (1)"})
    split = tmp_path / "split.json"
    split.write_text(json.dumps({"train": [], "test": [entry | {"id": "0", "pixels_hash": "1"}]}))
    with pytest.raises(
        TrainingError, match=r"all 1 images have the names of others .*, as busi/benign \(1\)"
    ):
        run(small, tmp_path / "out", model, part="test", split=split)
    assert not (tmp_path / "out").exists()


def test_a_given_split_says_the_parts_and_not_that_the_model_is_clean(small, tmp_path):
    folder = save_model(tmp_path / "bundle")
    # as where all trained in the end
    everyone = members(
        small, {f"busi/{label} ({n})" for label in ("benign", "malignant") for n in range(1, 5)}
    )
    (folder / "split.json").write_text(json.dumps({"train": everyone, "validation": [], "test": []}))
    split = tmp_path / "first.json"
    split.write_text(
        json.dumps({"train": ["busi/benign (1)"], "test": ["busi/benign (3)", "busi/malignant (3)"]})
    )
    events = run(small, tmp_path / "out", folder, part="test", split=split)
    (notice,) = [event.message for event in events if isinstance(event, Notice)]
    assert notice.startswith("2 of 2 images trained tiny-")
    assert notice.endswith("(leaked) alone, since no others are left")
    entry = json.loads((tmp_path / "out" / "results.json").read_text())["models"][0]
    assert entry["leaked"] is True
    assert entry["figures_without_leaks"] is None
