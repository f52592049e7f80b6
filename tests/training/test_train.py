"""A whole training on phantoms: what it tells and what it leaves."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from sonoloop.atomic import write_whole
from sonoloop.errors import BundleError, ModelError, TrainingError
from sonoloop.imaging.io import read_study
from sonoloop.jobs.events import (
    EpochDone,
    Evaluated,
    Event,
    Finished,
    Notice,
    Progress,
    Started,
    Step,
    drain,
)
from sonoloop.jobs.request import PackRequest
from sonoloop.models.bundle import read_bundle
from sonoloop.models.card import PARITY, Card, ModelSpec, read_card
from sonoloop.models.predictor import Predictor
from sonoloop_training.__main__ import main
from sonoloop_training.datasets import packing
from sonoloop_training.fit.batches import cache_samples
from sonoloop_training.fit.devices import count_workers
from sonoloop_training.fit.fitting import begin
from sonoloop_training.fit.train import pick_evenly, show_augmentation, train, write_graph

Made = tuple[Path, list[Event]]


@pytest.fixture(scope="module")
def made(datasets, tiny, tmp_path_factory) -> Made:
    """A run with the defaults, the graph too."""
    out = tmp_path_factory.mktemp("made") / "out"
    return out, list(train(tiny("graph=true"), datasets, out, device="cpu"))


@pytest.fixture(scope="module")
def final(datasets, tiny, tmp_path_factory) -> Made:
    """The same run with a last fit on all images."""
    out = tmp_path_factory.mktemp("final") / "out"
    return out, list(train(tiny("final.epochs=3"), datasets, out, device="cpu"))


@pytest.fixture
def terminable():
    """`main` takes both signals for itself; afterwards they are what they were."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def results(out: Path) -> dict:
    return json.loads((out / "results.json").read_text())


def test_a_training_tells_what_it_does(made):
    _, events = made
    names = [type(event).__name__ for event in events if not isinstance(event, Progress)]
    assert names == [
        "Started",
        "Step",
        "EpochDone",
        "Step",
        "EpochDone",
        "Evaluated",
        "Evaluated",
        "Finished",
    ]
    assert [e.part for e in events if isinstance(e, Evaluated)] == ["validation", "test"]
    stages = list(dict.fromkeys(e.stage for e in events if isinstance(e, Progress)))
    assert stages == [
        "Trying the network",
        "Listing",
        "Reading",
        "Calibrating",
        "Evaluating on validation",
        "Evaluating on test",
        "Writing the graph",
    ]
    started = next(e for e in events if isinstance(e, Started))
    # three phantoms train beside the images
    assert started.train + started.validation + started.test == 38 + 3


def test_a_training_leaves_a_bundle_that_predicts(made, datasets):
    out, events = made
    bundle = read_bundle(out / "bundle")
    assert isinstance(events[-1], Finished)
    assert events[-1].model == bundle.model == results(out)["model"]
    assert bundle.card.snapshot["images"]["train"] > bundle.card.snapshot["images"]["test"] > 0
    assert set(bundle.card.foreground) == {"1", "2", "4"}
    for line in bundle.card.foreground.values():
        assert line["x"] == sorted(line["x"])
        assert line["y"] == sorted(line["y"])
    image = datasets / "Dataset_BUSI_with_GT" / "benign" / "benign (1).png"
    prediction = Predictor(bundle, device="cpu").predict(read_study(image).frames[0])
    assert prediction.lesion.shape == (96, 128)
    assert prediction.classes.sum() == pytest.approx(1, abs=1e-5)


def test_the_graph_is_compared_with_torch_on_the_frames_that_judged(made):
    out, _ = made
    card = read_card(out / "bundle")
    images = card.snapshot["images"]
    assert card.metrics[PARITY]["images"] == images["test"] + images["validation"]
    assert card.figures(PARITY)["dice_apart"].value < 0.002
    assert results(out)[PARITY] == card.metrics[PARITY]


def test_a_graph_that_answers_otherwise_does_not_ship(tiny, monkeypatch):
    def check(*_):
        raise ModelError("on 6 frames the graph answers otherwise than torch")

    monkeypatch.setattr("sonoloop.models.graph.make_graph", lambda *_: b"")
    monkeypatch.setattr("sonoloop.models.graph.prove_graph", lambda *_: None)
    monkeypatch.setattr("sonoloop_training.fit.train.check_graph_answers", check)
    recipe = tiny("graph=true")
    card = Card(name="tiny", spec=recipe.model)
    steps, told = write_graph(recipe.fit, card, torch.nn.Identity(), []), []
    with pytest.raises(StopIteration) as end:
        while True:
            told.append(next(steps))
    assert end.value.value == (None, {})
    why = "the new model has no graph, and runs with torch only: on 6 frames the graph answers otherwise"
    assert told[-1].message == f"{why} than torch"


def test_frames_are_picked_from_the_whole_length():
    assert pick_evenly([]) == []
    assert pick_evenly([1, 2, 3]) == [1, 2, 3]
    assert pick_evenly(range(100), 4) == [0, 33, 66, 99]


def test_the_bundle_holds_the_averaged_weights(made, tiny):
    out, _ = made
    average = torch.load(out / "checkpoint.pt", weights_only=True)["average"]
    fitting = begin(tiny())
    fitting.average.load_state_dict(average)
    stored = read_bundle(out / "bundle").network.state_dict()
    for name, tensor in fitting.averaged.items():
        half = tensor.half().float() if tensor.is_floating_point() else tensor
        assert torch.equal(stored[name], half), name


def test_the_split_is_written_and_disjoint(made):
    out, _ = made
    parts = json.loads((out / "split.json").read_text())
    names = [name for part in parts.values() for name in part]
    assert len(names) == len(set(names)) == 38
    members = json.loads((out / "bundle" / "split.json").read_text())
    assert {part: sorted(m["name"] for m in members[part]) for part in members} == parts
    groups = {part: {m["group"] for m in members[part]} for part in members}
    assert not groups["train"] & groups["test"]
    assert not groups["train"] & groups["validation"]
    assert all(len(m["id"]) == 64 and m["fingerprint"] for m in members["train"])


def test_results_have_intervals(made):
    out, _ = made
    written = results(out)
    assert set(written["metrics"]["test"]) == {"all", "busi", "busbra"}
    figure = written["metrics"]["test"]["all"]["lesion_dice"]
    assert 0 <= figure["ci95"][0] <= figure["value"] <= figure["ci95"][1] <= 1
    assert [entry["epoch"] for entry in written["history"]] == [1, 2]
    assert written["epochs"] == 2
    assert {written["metrics"]["test"][name]["hospital"] for name in ("busi", "busbra")} == {"known"}
    assert written["final"] is None
    assert written["leaked"] is False
    assert written["recipe"]["fit"]["batch"] == 4


def test_from_a_pack_of_the_networks_size_the_very_same_is_learned(made, datasets, tiny, tmp_path):
    pack = tmp_path / "both.pack"
    drain(packing.pack(PackRequest(folders=(datasets,), out=pack, size=64, lossless=True)))
    # processes that augment change nothing either
    events = list(train(tiny(), pack, tmp_path / "out", device="cpu", workers=1))
    one, other = results(made[0]), results(tmp_path / "out")
    without = {"seconds"}
    for here, there in zip(one["history"], other["history"], strict=True):
        assert {k: v for k, v in here.items() if k not in without} == {
            k: v for k, v in there.items() if k not in without
        }
    assert one["split_sha256"] == other["split_sha256"]
    assert (one["packed"], other["packed"]) == (None, 64)
    weights = [read_bundle(out / "bundle").network.state_dict() for out in (made[0], tmp_path / "out")]
    for name, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][name]), name
    assert any("38 of 38 images come from a pack" in e.message for e in events if isinstance(e, Notice))
    with pytest.raises(TrainingError, match="holds images of 64 pixels, and tiny learns from 96: pack them"):
        list(train(tiny("model.size=96"), pack, tmp_path / "larger", device="cpu"))


@pytest.mark.cuda
def test_a_pack_and_a_gpu_are_one_command(datasets, tiny, tmp_path):
    pack = tmp_path / "both.pack"
    drain(packing.pack(PackRequest(folders=(datasets,), out=pack, size=64)))
    events = list(train(tiny("fit.precision=auto"), pack, tmp_path / "out", device="cuda"))
    started = next(e for e in events if isinstance(e, Started))
    assert started.device.startswith("cuda")
    assert started.precision in ("bf16-mixed", "16-mixed", "32-true")
    assert isinstance(events[-1], Finished)
    assert count_workers(torch.device("cuda")) > 0


def test_images_are_learned_from_at_a_size_of_their_own_and_judged_at_the_models(
    datasets, tiny, tmp_path, monkeypatch
):
    sizes = []

    def cache(samples, *, size, **options):
        sizes.append(size)
        return (yield from cache_samples(samples, size=size, **options))

    monkeypatch.setattr("sonoloop_training.fit.train.cache_samples", cache)
    recipe = tiny("fit.size=32")
    run = train(recipe, datasets, tmp_path / "out", device="cpu")
    next(event for event in run if isinstance(event, Started))
    run.close()
    assert sizes == [32, recipe.model.size]


def test_a_finished_run_is_not_overwritten(made, datasets, tiny):
    before = {path: path.stat().st_mtime_ns for path in made[0].rglob("*")}
    with pytest.raises(TrainingError, match=r"bundle holds a finished model; give another --out"):
        list(train(tiny(), datasets, made[0], device="cpu"))
    assert {path: path.stat().st_mtime_ns for path in made[0].rglob("*")} == before


def test_the_last_fit_is_on_all_images_and_the_figures_stay_the_judged_models(made, final):
    out, events = final
    members = json.loads((out / "bundle" / "split.json").read_text())
    assert len(members["train"]) == 38
    assert members["validation"] == members["test"] == []
    # who was kept apart while it was judged is still known
    assert {part: len(names) for part, names in json.loads((out / "split.json").read_text()).items()} == (
        results(made[0])["images"]
    )
    card, judged = read_bundle(out / "bundle").card, read_bundle(made[0] / "bundle").card
    assert card.snapshot["final"] == {"images": 38, "epochs": 3}
    assert card.snapshot["epochs"] == 2
    # the other has no graph
    assert card.metrics == {part: judged.metrics[part] for part in ("validation", "test")}
    fitted = ("threshold", "normal_gate", "min_area", "temperature", "foreground")
    assert [getattr(card, name) for name in fitted] == [getattr(judged, name) for name in fitted]
    assert card.weights_sha256 != judged.weights_sha256
    assert torch.load(out / "final.pt", weights_only=True)["source"] == "the judged model"
    assert results(out)["metrics"] == results(made[0])["metrics"]
    starts = [event for event in events if isinstance(event, Started)]
    assert [(s.train, s.epochs, s.test > 0) for s in starts][1] == (38 + 3, 3, False)


def test_the_last_fit_keeps_the_history_of_the_first(made, final):
    first, last = ((final[0] / name).read_text().splitlines() for name in ("history.jsonl", "final.jsonl"))
    assert [json.loads(line)["epoch"] for line in first] == [1, 2]
    assert [json.loads(line)["epoch"] for line in last] == [1, 2, 3]
    losses = [json.loads(line)["loss"] for line in first]
    assert losses == [entry["loss"] for entry in results(made[0])["history"]]


def test_a_classifier_is_judged_by_its_classes_only(datasets, tiny, tmp_path):
    spec = ModelSpec(library="timm", architecture="test_efficientnet", encoder="", size=64)
    recipe = dataclasses.replace(tiny("epochs=1"), model=spec)
    list(train(recipe, datasets, tmp_path / "out", device="cpu"))
    figures = results(tmp_path / "out")["metrics"]["test"]["all"]
    assert "lesion_dice" not in figures
    assert 0 <= figures["accuracy"]["value"] <= 1


def run_main(capsys, *arguments: object) -> tuple[int, list[dict]]:
    code = main(["train", *map(str, arguments)])
    return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.usefixtures("terminable")
def test_told_to_end_twice_it_ends_once(capsys, monkeypatch, datasets, recipe_file, tmp_path):
    def told_twice(*_):
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        finally:
            # while the first unwinds
            os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr("sonoloop_training.fit.loop.joint_loss", told_twice)
    code, events = run_main(capsys, recipe_file, "--data", datasets, "--out", tmp_path / "out")
    assert code == 130
    assert events[-1] == {"event": "failed", "error": "interrupted", "kind": "interrupted"}


@pytest.mark.usefixtures("terminable")
def test_a_failure_is_one_event(capsys, tmp_path, recipe_file):
    out = tmp_path / "out"
    code, events = run_main(capsys, recipe_file, "--data", tmp_path / "gone", "--out", out)
    assert code == 1
    assert [event["event"] for event in events] == ["failed"]
    assert "there is no folder" in events[0]["error"]
    code, events = run_main(capsys, "defualt", "--data", tmp_path, "--out", out)
    assert code == 1
    assert events[0]["error"].startswith("there is no recipe 'defualt'; there are: ")
    assert not out.exists()


@pytest.mark.usefixtures("terminable")
def test_a_split_by_image_has_to_be_meant(capsys, datasets, recipe_file, tmp_path):
    common = [recipe_file, "--data", datasets, "--out", tmp_path / "out", "--device", "cpu"]
    code, events = run_main(capsys, *common, "--set", "split.method=leaky")
    assert code == 1
    assert events == [
        {
            "event": "failed",
            "error": "a split by image leaks twins into the test; if that is what you mean, add --leaky",
            "kind": "refused",
        }
    ]
    assert not (tmp_path / "out").exists()
    code, events = run_main(capsys, *common, "--leaky", "--set", "epochs=1")
    assert code == 0
    assert results(tmp_path / "out")["leaked"] is True
    assert read_bundle(tmp_path / "out" / "bundle").card.snapshot["leaked"] is True


@pytest.mark.usefixtures("terminable")
def test_a_full_disk_is_told_in_one_event(capsys, datasets, recipe_file, tmp_path, monkeypatch):
    def save(state, file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", save)
    code, events = run_main(
        capsys, recipe_file, "--data", datasets, "--out", tmp_path / "out", "--device", "cpu"
    )
    assert code == 1
    assert "No space left on device" in events[-1]["error"]
    assert "make room on the disk and run the same command again" in events[-1]["error"]
    assert not list((tmp_path / "out").iterdir())


def test_augmentation_is_shown_in_one_picture(tiny, datasets, tmp_path):
    path = tmp_path / "new" / "augmentation.png"
    events = list(show_augmentation(tiny(), datasets, path))
    assert events[-1] == Finished(model="", path=str(path), minutes=0.0)
    with Image.open(path) as picture:
        # 32 pairs of 64 pixels, four a row
        assert picture.size == (8 * 64, 8 * 64)
        assert len(picture.convert("L").getcolors()) > 50
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match=r"x\.png cannot be written \(.*\); give another file"):
        list(show_augmentation(tiny(), datasets, tmp_path / "file" / "x.png"))


def test_a_run_that_ends_while_the_model_is_written_keeps_its_results(tiny, datasets, tmp_path, monkeypatch):
    def full(*_, **__):
        raise BundleError("no room")

    recipe, out = tiny("epochs=1", "draws=4"), tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("sonoloop_training.fit.train.save_bundle", full)
        with pytest.raises(BundleError, match="no room"):
            list(train(recipe, datasets, out, device="cpu"))
    before = json.loads((out / "results.json").read_text())
    list(train(recipe, datasets, out, device="cpu"))
    after = json.loads((out / "results.json").read_text())
    assert before["version"] == after["version"] == read_bundle(out / "bundle").version


def test_a_disk_that_is_full_for_the_results_keeps_what_was_learned(tiny, datasets, tmp_path, monkeypatch):
    def full(path, text):
        if path.name == "results.json":
            raise OSError(28, "No space left on device")
        write_whole(path, text)

    recipe, out = tiny("epochs=1", "draws=4"), tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("sonoloop_training.fit.train.write_whole", full)
        with pytest.raises(
            TrainingError,
            match=r"results\.json cannot be written \(No space .*; what was learned is kept: make room on",
        ):
            list(train(recipe, datasets, out, device="cpu"))
    assert sorted(path.name for path in out.iterdir()) == ["checkpoint.pt", "history.jsonl", "split.json"]
    events = list(train(recipe, datasets, out, device="cpu"))
    assert not [event for event in events if isinstance(event, EpochDone)]
    assert results(out)["model"] == read_bundle(out / "bundle").model


def test_a_training_tells_how_long_the_last_fit_takes_too(final, made):
    left = [[e.seconds_left for e in events if isinstance(e, Step)] for _, events in (made, final)]
    # two epochs, and three more in the end
    assert left[1][0] > 1.5 * left[0][0]


def test_folds_are_written_and_read_back_as_the_same_split(tiny, datasets, tmp_path):
    settings = ("epochs=1", "draws=4", "split.folds=3", "split.fold=2")
    list(train(tiny(*settings, "split.method=folds"), datasets, tmp_path / "one", device="cpu"))
    again = tiny(*settings, "split.method=file", f"split.file={tmp_path / 'one' / 'folds.json'}")
    list(train(again, datasets, tmp_path / "two", device="cpu"))
    one, two = (json.loads((tmp_path / name / "split.json").read_text()) for name in ("one", "two"))
    assert one == two
