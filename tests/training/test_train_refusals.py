"""What a training refuses, in one line, before it writes anything."""

from __future__ import annotations

import csv
import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from sonoloop.errors import DeviceError, SonoloopError, TrainingError
from sonoloop.imaging.phantom import phantom
from sonoloop.jobs.events import EpochDone
from sonoloop.jobs.request import TrainRequest
from sonoloop_training.__main__ import main, read_arguments
from sonoloop_training.commands import settings_of
from sonoloop_training.datasets import find_datasets
from sonoloop_training.fit.recipe import read_recipe
from sonoloop_training.fit.train import show_augmentation, train
from sonoloop_training.splits import apply_split


def make_folder(root: Path, labels: list[str], *, with_masks: bool = True) -> Path:
    """A user's own dataset: images, masks and a table."""
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    with (root / "table.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "class", "patient"])
        for number, label in enumerate(labels):
            made = phantom(label, seed=number, shape=(96, 128))
            Image.fromarray(made.image).save(root / "images" / f"case{number}.png")
            if with_masks:
                Image.fromarray(made.mask * 255).save(root / "masks" / f"case{number}.png")
            table.writerow([f"case{number}.png", label, number])
    return root


def refused(recipe, data: Path, out: Path, *, device: str = "cpu") -> str:
    """Train, which must fail and change nothing; give the error's message."""
    before = sorted(out.iterdir()) if out.exists() else None
    with pytest.raises(SonoloopError) as error:
        list(train(recipe, data, out, device=device))
    assert (sorted(out.iterdir()) if out.exists() else None) == before
    assert "\n" not in str(error.value)
    return str(error.value)


def test_no_data_are_refused(tiny, tmp_path):
    out = tmp_path / "out"
    assert refused(tiny(), tmp_path / "gone", out).startswith(f"there is no folder {tmp_path / 'gone'}; give")
    (tmp_path / "empty").mkdir()
    assert "holds neither BUSI" in refused(tiny(), tmp_path / "empty", out)


def test_data_without_any_mask_are_refused(tiny, tmp_path):
    data = make_folder(tmp_path / "clinic", ["benign", "malignant", "normal"] * 4, with_masks=False)
    message = refused(tiny(), data, tmp_path / "out")
    assert message == (
        "none of the images that train has a mask file; put them beside the images as NAME_mask.png"
    )


@pytest.mark.parametrize("label", ["benign", "normal"])
def test_data_of_one_class_are_refused(tiny, tmp_path, label):
    data = make_folder(tmp_path / "clinic", [label] * 8)
    assert refused(tiny(), data, tmp_path / "out") == (
        f"all 4 images that train are {label}: a class cannot be learned from one; "
        "give images of another class too"
    )


def test_a_lesion_without_a_mask_is_named(tiny, tmp_path):
    data = make_folder(tmp_path / "clinic", ["benign", "malignant"] * 8)
    (data / "masks" / "case3.png").unlink()
    assert refused(tiny(), data, tmp_path / "out").startswith(
        "case3.png is malignant and has no mask; add it"
    )


def test_validation_without_a_lesion_is_refused_before_it_trains(tiny, tmp_path):
    data = make_folder(tmp_path / "clinic", ["normal"] * 12 + ["benign"] * 2)
    message = refused(tiny("validation=0.2", "test=0.1"), data, tmp_path / "out")
    assert message.startswith(
        "no validation image has a lesion, so that no threshold can be fitted; give more"
    )


def test_a_mask_of_another_size_is_named(tiny, datasets, tmp_path):
    copy = shutil.copytree(datasets / "BUSBRA", tmp_path / "data" / "BUSBRA")
    for mask in (copy / "Masks").iterdir():
        Image.new("L", (10, 20)).save(mask)
    message = refused(tiny(), tmp_path / "data", tmp_path / "out")
    assert message.startswith("mask_")
    assert message.endswith(".png is 10 x 20, its image 128 x 96")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ["precision=float16"],
            "asks for float16, which needs CUDA, and this run is on cpu; use --set fit.pre",
        ),
        (
            ["fit.weights.busii=2"],
            "fit.weights names 'busii'; the datasets are breast-usg, busbra, busi, phantom, udiat",
        ),
        (["architecture=Unett"], "has no architecture 'Unett'"),
        (["fit.start=gone"], "gone"),
        (["name=Über model"], "no model can have the recipe's name: name must be lower-case letters"),
        (["draws=1"], "1 images an epoch are less than a batch of 4; set fit.batch"),
        (["split.validation=0"], "the data leave nothing for validation"),
        (["split.method=folds", "split.fold=9"], "there is no fold 9; there are 1, 2, 3, 4, 5"),
    ],
)
def test_a_recipe_that_does_not_fit_the_run_writes_nothing(tiny, datasets, tmp_path, settings, message):
    assert message in refused(tiny(*settings), datasets, tmp_path / "out")


def test_a_device_that_is_not_there_is_refused_before_data_are_read(tiny, tmp_path):
    with pytest.raises(DeviceError, match="there is no device 'tpu'; use one of auto, cpu, cuda, mps"):
        list(train(tiny(), tmp_path / "gone", tmp_path / "out", device="tpu"))
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_place_of_the_folder_is_named(tiny, datasets, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(TrainingError, match=r"out is no folder; give a folder with --out"):
        list(train(tiny(), datasets, tmp_path / "out", device="cpu"))
    assert (tmp_path / "out").read_text() == "mine"


def test_a_refused_checkpoint_keeps_its_own_split(tiny, datasets, tmp_path):
    out = tmp_path / "out"
    for event in train(tiny(), datasets, out, device="cpu"):
        if isinstance(event, EpochDone):
            break
    before = (out / "split.json").read_bytes()
    data = shutil.copytree(datasets, tmp_path / "data")
    shutil.rmtree(data / "BUSBRA")
    with pytest.raises(TrainingError, match="learned from other data or another split"):
        list(train(tiny(), data, out, device="cpu"))
    assert (out / "split.json").read_bytes() == before


def test_a_disk_that_is_full_when_a_run_goes_on_keeps_its_split(tiny, datasets, tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    out = tmp_path / "out"
    for event in train(tiny(), datasets, out, device="cpu"):
        if isinstance(event, EpochDone):
            break
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        TrainingError,
        match=r"history\.jsonl cannot be written \(No space left on device\); epoch 1 is kept .* make room",
    ):
        list(train(tiny(), datasets, out, device="cpu"))
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_test_image_that_cannot_be_used_is_named_before_anything_is_learned(tiny, datasets, tmp_path):
    data = shutil.copytree(datasets, tmp_path / "data")
    recipe = tiny()
    judge = next(s for s in apply_split(recipe.split, find_datasets(data))["test"] if s.label != "normal")
    Image.new("L", (10, 20), 255).save(judge.masks[0])
    assert refused(recipe, data, tmp_path / "out").startswith(f"{judge.masks[0].name} is 10 x 20")


@pytest.mark.parametrize(
    ("arguments", "method"),
    [(["--fold", "2"], "folds"), (["--set", "split.method=file", "--fold", "2"], "file")],
)
def test_a_fold_is_of_the_folds_that_the_recipe_has(recipe_file, arguments, method):
    request = read_arguments(["train", str(recipe_file), "--data", ".", "--out", ".", *arguments])
    split = read_recipe(request.recipe, settings_of(request)).split
    assert (split.method, split.fold) == (method, 2)


def test_a_hospital_is_left_out_by_its_name_alone(recipe_file):
    asked = TrainRequest(
        recipe=str(recipe_file), data=Path(), split="leave-out:busi, 2024", settings=("final.epochs=2",)
    )
    recipe = read_recipe(asked.recipe, settings_of(asked))
    assert (recipe.split.method, recipe.split.left_out) == ("leave-dataset", "busi, 2024")
    # a last fit on all would show the model the hospital: only who asks for it gets it
    assert recipe.final.epochs == 2
    assert asked.folder == Path("runs/tiny-without-busi-2024")
    alone = replace(asked, settings=())
    assert read_recipe(asked.recipe, settings_of(alone)).final.epochs == 0


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"split": "busi"}, "--split is 'busi'; write leave-out:HOSPITAL"),
        ({"split": "leave-out:"}, "write leave-out:HOSPITAL"),
        ({"split": "leave-out:busi", "fold": 2}, "leave --leaky and --fold out"),
        ({"split": "leave-out:busi", "leaky": True}, "leave --leaky and --fold out"),
    ],
)
def test_a_split_that_says_nothing_is_refused(recipe_file, asked, told):
    with pytest.raises(SonoloopError, match=told):
        settings_of(TrainRequest(recipe=str(recipe_file), data=Path(), **asked))


def test_leaky_makes_no_folds(recipe_file):
    request = TrainRequest(recipe=str(recipe_file), data=Path(), leaky=True, fold=2)
    with pytest.raises(TrainingError, match="leave --fold out"):
        settings_of(request)


def test_the_recipe_for_corrections_is_refused(datasets, tmp_path, capsys):
    assert main(["train", "finetune", "--data", str(datasets), "--out", str(tmp_path / "out")]) == 1
    assert "sonoloop finetune" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


OWN_NAMES = (
    "results.json",
    "split.json",
    "folds.json",
    "history.jsonl",
    "final.jsonl",
    "checkpoint.pt",
    "final.pt",
)


@pytest.mark.parametrize("name", OWN_NAMES)
@pytest.mark.parametrize("content", [b"mine", b"{}", b'{"train": [], "validation": [], "test": []}'])
def test_a_users_file_of_a_trainings_name_is_refused_before_data_are_read(tiny, tmp_path, name, content):
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_bytes(content)
    message = refused(tiny(), tmp_path / "no data", out)
    assert str(out / name) in message
    assert "give another --out" in message or "delete it to start anew" in message
    assert (out / name).read_bytes() == content


@pytest.mark.parametrize("name", OWN_NAMES[:4])
def test_a_users_file_beside_a_trainings_own_checkpoint_stays(tiny, datasets, tmp_path, name):
    out = tmp_path / "out"
    events = train(tiny("epochs=2", "draws=4"), datasets, out, device="cpu")
    next(event for event in events if isinstance(event, EpochDone))
    events.close()
    (out / name).write_text('{"train": ["mine"]}')
    message = refused(tiny("epochs=2", "draws=4"), datasets, out)
    assert message.startswith(f"{out / name} would be replaced")
    assert (out / name).read_text() == '{"train": ["mine"]}'
    (out / name).unlink()
    list(train(tiny("epochs=2", "draws=4"), datasets, out, device="cpu"))
    assert (out / "bundle").is_dir()


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such pipes")
@pytest.mark.parametrize("name", [*OWN_NAMES, "bundle"])
def test_a_pipe_of_a_trainings_name_is_refused_and_waits_for_nobody(tiny, datasets, tmp_path, name):
    out = tmp_path / "out"
    out.mkdir()
    os.mkfifo(out / name)
    assert "give another --out" in refused(tiny(), datasets, out)
    assert (out / name).is_fifo()


def test_a_picture_that_was_not_drawn_as_an_augmentation_stays(tiny, datasets, tmp_path):
    path = tmp_path / "augmentation.png"
    Image.new("L", (4, 4)).save(path)
    before = path.read_bytes()
    with pytest.raises(SonoloopError, match=r"augmentation\.png was not made by .* give another --out"):
        list(show_augmentation(tiny(), datasets, path))
    assert path.read_bytes() == before
    path.unlink()
    for _ in range(2):
        list(show_augmentation(tiny(), datasets, path))


def test_two_trainings_in_one_folder_do_not_meet(tiny, datasets, tmp_path):
    out = tmp_path / "out"
    first = train(tiny("epochs=2", "draws=4"), datasets, out, device="cpu")
    next(event for event in first if isinstance(event, EpochDone))
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    message = refused(tiny("epochs=2", "draws=4"), datasets, out)
    assert message.startswith(f"another `sonoloop train` is writing into {out}; wait until it ends, or")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    list(first)
    assert (out / "bundle").is_dir()
    assert not list(out.glob(".*"))
