"""A whole evaluation on phantoms: events, files, refusals, leaks and two models."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from evaluation_models import copy_small, members, run, save_model
from PIL import Image

from sonoloop.errors import TrainingError
from sonoloop.jobs.events import EvaluationDone, Event, Notice, Progress, Unreadable
from sonoloop.models.card import ModelSpec
from sonoloop_training.evaluation.measures import MEASURES
from sonoloop_training.evaluation.report import read_history


@pytest.fixture(scope="module")
def small(datasets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_small(datasets, tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "bundle")


@pytest.fixture(scope="module")
def done(small: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Event]]:
    out = tmp_path_factory.mktemp("evaluated") / "out"
    return out, run(small, out, model)


def test_one_broken_image_is_named_and_the_others_go_on(done):
    out, events = done
    (refused,) = [event for event in events if isinstance(event, Unreadable)]
    assert refused.image == "busi/normal (4)"
    assert "breaks off or is damaged" in refused.error
    results = json.loads((out / "results.json").read_text())
    assert results["images"] == 11
    assert results["failures"] == [{"image": "busi/normal (4)", "error": refused.error}]


def test_progress_and_then_the_results_are_told(done):
    out, events = done
    stages = list(dict.fromkeys(event.stage for event in events if isinstance(event, Progress)))
    assert stages == ["Evaluating", "Computing figures", "Drawing the report"]
    assert isinstance(events[-1], EvaluationDone)
    assert events[-1].out == str(out)
    assert json.loads(events[-1].to_json())["results"]["images"] == 11


def test_the_table_of_cases_holds_what_the_figures_are_made_of(done):
    out, _ = done
    assert sorted(path.name for path in out.iterdir()) == ["cases.csv", "report.html", "results.json"]
    rows = cases(out)
    assert len(rows) == 11
    assert {row["leaked"] for row in rows} == {""}
    figures = json.loads((out / "results.json").read_text())["models"][0]["figures"]
    lesions = [row for row in rows if row["class"] != "normal"]
    mean = sum(float(row["dice"]) for row in lesions) / len(lesions)
    assert figures["lesion_dice"]["value"] == pytest.approx(mean, abs=1e-4)
    assert figures["lesion_dice"]["n"] == 8
    assert all(row["hd95_px"] == "" for row in rows if row["class"] == "normal")
    assert sum(sum(row.values()) for row in figures["confusion"].values()) == 11


def test_the_report_stands_alone_and_shows_cases(done):
    page = (done[0] / "report.html").read_text()
    for words in ("the worst cases", "where it looked", "Grad-CAM", "ROC curve", "normal (4)"):
        assert words in page
    # eleven worst cases, at most six looked at, four figures
    assert page.count("data:image/jpeg") >= 11 + 3
    assert page.count("data:image/png") == 4
    assert "http://" not in page
    assert 'src="https' not in page


def test_a_model_that_does_not_say_who_trained_it_is_told(done):
    (notice,) = [event for event in done[1] if isinstance(event, Notice)]
    assert "it cannot be known" in notice.message
    results = json.loads((done[0] / "results.json").read_text())
    assert results["models"][0]["training_known"] is False
    assert results["models"][0]["leaked"] is False


def test_leaked_images_are_named_and_left_out_beside(small, tmp_path):
    folder = save_model(tmp_path / "bundle")
    trained = {"busi/benign (3)", "busi/malignant (1)"}
    listing = {"train": members(small, trained), "validation": [], "test": []}
    (folder / "split.json").write_text(json.dumps(listing))
    events = run(small, tmp_path / "out", folder)
    (notice,) = [event.message for event in events if isinstance(event, Notice)]
    assert notice.startswith("2 of 11 images trained tiny-")
    assert "busi/benign (3), busi/malignant (1)" in notice
    entry = json.loads((tmp_path / "out" / "results.json").read_text())["models"][0]
    assert entry["leaked"] is True
    assert {leak["image"] for leak in entry["leaks"]} == trained
    assert entry["figures"]["images"] == 11
    assert entry["figures_without_leaks"]["images"] == 9
    page = (tmp_path / "out" / "report.html").read_text()
    name = f"{entry['model']} (leaked)"
    for place in ("where it holds", "the worst cases", "where it looked"):
        assert f"{name}: {place}" in page
        assert f"{entry['model']}: {place}" not in page
    for caption in (f"by the class that {name} gives", f"{name}. Sizes", f"{name}. ROC", f"{name}. Dice"):
        assert caption in page
    assert {row["image"] for row in cases(tmp_path / "out") if row["leaked"] == "1"} == trained
    assert {row["leaked"] for row in cases(tmp_path / "out")} == {"0", "1"}


def cases(out: Path) -> list[dict[str, str]]:
    with (out / "cases.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    "snapshot",
    [
        {"recipe": {"split": {"method": "leaky"}}},
        # started from a model that was
        {"recipe": {"split": {"method": "groups"}}, "leaked": True},
    ],
)
def test_a_split_that_leaks_on_purpose_marks_the_result(small, tmp_path, snapshot):
    folder = save_model(tmp_path / "bundle", snapshot=snapshot)
    (folder / "split.json").write_text(json.dumps({"train": ["busi/other"], "test": ["busi/benign (1)"]}))
    events = run(small, tmp_path / "out", folder, part="test")
    assert any("leaks on purpose" in event.message for event in events if isinstance(event, Notice))
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["models"][0]["leaked"] is True
    assert results["images"] == 1
    assert [row["leaked"] for row in cases(tmp_path / "out")] == ["1"]


def test_a_comparison_with_a_model_that_leaks_on_purpose_is_marked(small, model, tmp_path):
    leaky = save_model(tmp_path / "bundle", name="other", snapshot={"leaked": True})
    run(small, tmp_path / "out", leaky, versus=str(model))
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["comparison"]["leaked"] is True
    one, other = (entry["model"] for entry in results["models"])
    page = (tmp_path / "out" / "report.html").read_text()
    assert f"{other} against {one} (leaked)" in page
    assert f"{other} less {one} (leaked)." in page
    marks = {row["model"]: row["leaked"] for row in cases(tmp_path / "out")}
    # nobody knows who trained the second
    assert marks == {one: "1", other: ""}


def test_the_part_comes_from_the_split(small, model, tmp_path):
    split = tmp_path / "split.json"
    names = ["busi/benign (1)", "busi/malignant (2)", "busi/normal (1)"]
    split.write_text(json.dumps({"train": ["busi/benign (3)"], "validation": [], "test": names}))
    run(small, tmp_path / "out", model, part="test", split=split)
    with (tmp_path / "out" / "cases.csv").open(newline="") as file:
        assert sorted(row["image"] for row in csv.DictReader(file)) == names


def test_two_models_are_compared_on_the_same_images(small, model, tmp_path):
    other = save_model(tmp_path / "other", seed=1, name="other")
    run(small, tmp_path / "out", model, versus=str(other))
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    one, two = (entry["figures"] for entry in results["models"])
    found = results["comparison"]["differences"]["lesion_dice"]
    assert found["value"] == pytest.approx(
        two["lesion_dice"]["value"] - one["lesion_dice"]["value"], abs=2e-4
    )
    assert results["comparison"]["images"] == 11
    assert results["comparison"]["in_words"]
    with (tmp_path / "out" / "cases.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 22


def test_a_classifier_has_no_mask_figures(small, model, tmp_path):
    spec = ModelSpec(library="timm", architecture="test_resnet", encoder="", size=64)
    folder = save_model(tmp_path / "bundle", spec=spec)
    assert spec.heads == ("classes",)
    run(small, tmp_path / "out", folder, versus=str(model))
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    own = results["models"][0]
    of_masks = {measure.key for measure in MEASURES if measure.head == "lesion"}
    assert not of_masks & own["figures"].keys()
    assert own["figures"]["accuracy"]["n"] == 11
    assert not of_masks & own["strata"]["class"]["benign"].keys()
    assert own["strata"]["class"]["benign"]["accuracy"]["n"] == 4
    # a model of both heads is compared with it by the classes alone
    assert results["models"][1]["figures"]["lesion_dice"]["n"] == 8
    assert not of_masks & results["comparison"]["differences"].keys()
    run(small, tmp_path / "out", folder)
    assert "the worst cases" not in (tmp_path / "out" / "report.html").read_text()


def test_an_earlier_evaluation_is_replaced_and_other_files_are_not(small, model, tmp_path):
    split = tmp_path / "split.json"
    split.write_text(json.dumps({"train": [], "test": ["busi/benign (1)"]}))
    out = tmp_path / "out"
    run(small, out, model, part="test", split=split)
    (out / "notes.txt").write_text("mine")
    run(small, out, model, part="test", split=split)
    assert (out / "notes.txt").read_text() == "mine"
    (out / "results.json").write_text('{"model": "a training wrote this"}')
    with pytest.raises(TrainingError, match=r"was not written by `sonoloop evaluate` and would be lost"):
        run(small, out, model, part="test", split=split)
    assert "a training wrote this" in (out / "results.json").read_text()


def test_an_output_that_is_a_file_is_refused(small, model, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(TrainingError, match="out is no folder; give a folder"):
        run(small, tmp_path / "out", model)


def test_nothing_readable_is_an_error_that_names_the_first(small, model, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(small, data)
    for path in data.rglob("*).png"):
        path.write_bytes(b"no image")
    with pytest.raises(TrainingError, match=r"none of the 12 images could be judged; the first, busi/"):
        run(data, tmp_path / "out", model)
    assert not (tmp_path / "out").exists()


def test_a_mask_of_another_size_is_told(small, model, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(small, data)
    Image.new("L", (9, 9)).save(data / "BUSI" / "benign" / "benign (1)_mask.png")
    events = run(data, tmp_path / "out", model)
    refused = {event.image: event.error for event in events if isinstance(event, Unreadable)}
    assert "is 9 x 9, its image 128 x 96" in refused["busi/benign (1)"]


def test_the_folder_is_named_after_model_and_part_unless_given(small, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    events = run(small, None, model)
    out = Path(events[-1].out)
    assert out.parent == Path("evaluation")
    assert out.name.startswith("tiny-")
    assert out.name.endswith("-all")
    assert (tmp_path / out / "report.html").is_file()


def test_the_history_is_read_from_the_bundle_or_the_run_around_it(tmp_path):
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    assert read_history(bundle) == []
    lines = [{"event": "epoch_done", "epoch": n, "loss": 1.0, "dice": 0.5} for n in (2, 1, 2)]
    text = "\n".join(json.dumps(line) for line in [{"event": "started", "epoch": 0}, *lines])
    (tmp_path / "history.jsonl").write_text(text + '\n{"event": "epoch_d')
    assert [entry["epoch"] for entry in read_history(bundle)] == [1, 2]
    (bundle / "history.json").write_text(json.dumps(lines[:1]))
    assert [entry["epoch"] for entry in read_history(bundle)] == [2]


def test_a_training_history_is_drawn(small, tmp_path):
    folder = save_model(tmp_path / "bundle")
    epochs = [{"epoch": n, "loss": 1 / n, "dice": None if n == 1 else 0.5, "accuracy": 0.5} for n in (1, 2)]
    (folder / "history.json").write_text(json.dumps(epochs))
    run(small, tmp_path / "out", folder)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "How the training went" in page
    assert page.count("data:image/png") == 5
