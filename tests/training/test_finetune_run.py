"""A whole fine-tuning on a store of phantoms: what it tells, what it leaves, and that it can be repeated."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from corrected import Project, add, copy_project, gate_that_says, make_project
from PIL import Image
from tuning import QUICK, notices, only, tune

from sonoloop.errors import StoreError
from sonoloop.imaging.io import read_frame
from sonoloop.imaging.phantom import phantom
from sonoloop.jobs.events import (
    EpochDone,
    Event,
    Finished,
    Gate,
    Job,
    LeftOut,
    Notice,
    Progress,
    Promoted,
    Selected,
    Started,
    StartWatched,
    Step,
)
from sonoloop.jobs.folder import open_job
from sonoloop.jobs.request import FinetuneRequest
from sonoloop.models.bundle import read_bundle
from sonoloop.models.card import read_card
from sonoloop.store import CorrectionStore
from sonoloop.store.file_index import Places
from sonoloop.store.groups import set_aside
from sonoloop.store.model_registry import find_model
from sonoloop.store.promotions import incumbent, lock
from sonoloop.store.references import set_reference
from sonoloop.store.settings import change_settings
from sonoloop.store.snapshots import list_snapshots, take_snapshot
from sonoloop.values import Correction
from sonoloop_training.finetune.run import finetune


def test_a_finetuning_tells_what_it_does(made):
    project, events = made
    names = [type(e).__name__ for e in events if not isinstance(e, Progress | Step | Notice)]
    assert names[:3] == ["Job", "Selected", "Started"]
    assert names[3:5] == ["EpochDone", "EpochDone"]
    assert names[-2:] == ["Gate", "Finished"]
    selected = only(events, Selected)
    assert (selected.snapshot, selected.base) == ("snapshot-1", project.base.model)
    assert (selected.train, selected.test_groups, selected.replay, selected.left_out) == (9, 6, 0, [])
    assert selected.by_class == {"normal": 3, "benign": 3, "malignant": 3, "unsure": 0}
    started = only(events, Started)
    # nine corrections are shown four times an epoch: an epoch has eight steps at least
    assert (started.train, started.validation, started.test, started.steps) == (9, 0, 6, 9)
    assert only(events, Finished).minutes >= 0


def test_what_it_tells_is_kept_in_the_jobs_folder(made):
    project, events = made
    folder = Path(only(events, Job).folder)
    assert folder.parent == project.url.with_suffix(".sonoloop") / "jobs"
    lines = (folder / "events.jsonl").read_text().splitlines()
    assert lines == [event.to_json() for event in events]
    state = json.loads((folder / "job.json").read_text())
    assert (state["who"], state["what"]) == ("anna", "fine-tuning on snapshot-1")
    assert state["pid"] > 0
    # the model is in the library: what it could be gone on from is not needed any more
    assert not (folder / "checkpoint.pt").exists()
    assert not (folder / "bundle").exists()


def test_the_new_model_says_where_it_comes_from(made):
    project, events = made
    finished = only(events, Finished)
    bundle = read_bundle(Path(finished.path))
    assert bundle.model == finished.model
    assert finished.model.startswith("ft-")
    assert project.library.find(bundle.version) == Path(finished.path)
    card, base = bundle.card, project.base.card
    assert card.parent == project.base.version
    assert card.spec == base.spec
    fitted = ("threshold", "normal_gate", "min_area", "temperature", "agreement", "foreground", "views")
    assert [getattr(card, name) for name in fitted] == [getattr(base, name) for name in fitted]
    learned = card.snapshot
    with CorrectionStore(project.url) as store:
        snapshot = list_snapshots(store)[0]
        row = find_model(store, bundle.version)
    assert (learned["name"], learned["sha256"]) == (snapshot.name, snapshot.sha256)
    assert learned["images"] == {"train": 9, "validation": 0, "test": 0, "replay": 0}
    assert learned["by_site"]["own corrections"] == 9
    assert learned["licences"]["own corrections"] == "the project's own"
    assert "too few groups to keep any apart" in " ".join(learned["limits"])
    assert learned["recipe"]["fit"]["l2sp"] == 1.0
    assert learned["start"] == project.base.model
    assert (row.origin, row.parent, row.snapshot, row.who) == (
        "tuned", project.base.version, "snapshot-1", "anna",
    )  # fmt: skip
    assert not torch.equal(
        bundle.network.state_dict()["segmentation_head.0.weight"],
        project.base.network.state_dict()["segmentation_head.0.weight"],
    )


def test_who_trained_is_listed_without_names_of_files(made):
    _, events = made
    split = json.loads((Path(only(events, Finished).path) / "split.json").read_text())
    assert len(split["train"]) == 9
    assert split["validation"] == split["test"] == []
    for member in split["train"]:
        assert member["name"] == f"corrections/{member['id'][:16]}"
        assert len(member["group"]) == len(member["pixels_hash"]) == len(member["fingerprint"]) == 64
    assert "image" not in json.dumps(split)


def test_the_same_snapshot_recipe_and_seed_make_the_same_model(made, project):
    _, events = made
    first = read_bundle(Path(only(events, Finished).path))
    again = tune(project, judged=False)
    second = read_bundle(Path(only(again, Finished).path))
    # every word of the card, and with it every weight; another seed is another model
    assert second.card == first.card
    assert second.version == first.version
    other = only(tune(project, judged=False, settings=(*QUICK, "seed=1")), Finished)
    assert other.model != only(again, Finished).model


def test_the_gate_judges_and_without_leave_nothing_is_promoted(made):
    project, events = made
    gate = only(events, Gate)
    assert gate.candidate == read_bundle(Path(only(events, Finished).path)).version
    assert gate.incumbent == project.base.version
    assert gate.verdict in ("promote", "refuse", "inconclusive")
    with CorrectionStore(project.url) as store:
        assert incumbent(store).version == project.base.version
        assert store.verify() == []


@pytest.fixture(scope="module")
def learned(template, tmp_path_factory) -> Project:
    """A project with a new model that waits for the gate, and its job."""
    project = copy_project(template, tmp_path_factory.mktemp("learned"))
    tune(project, judged=False)
    return project


@pytest.fixture
def waiting(learned, tmp_path) -> Project:
    return copy_project(learned, tmp_path)


def have_judged(project: Project, **changes) -> list[Event]:
    """Go on with the one job until its model is judged."""
    (folder,) = (project.url.with_suffix(".sonoloop") / "jobs").iterdir()
    job = open_job(folder)
    # that which it began with is still there
    job.plan = dataclasses.replace(job.plan, store=str(project.url))
    job.begin()
    return list(finetune(FinetuneRequest(job=folder, **changes), library=project.library))


@pytest.mark.parametrize(
    "case",
    [
        ("promote", True, "ask", True),
        ("promote", False, "automatic", True),
        ("promote", False, "ask", False),
        ("refuse", True, "automatic", False),
        ("inconclusive", True, "automatic", False),
    ],
)
def test_only_a_model_that_passed_is_promoted_and_only_if_wanted(waiting, monkeypatch, case):
    verdict, promote, setting, promoted = case
    monkeypatch.setattr("sonoloop_training.finetune.run.judge", gate_that_says(verdict))
    with CorrectionStore(waiting.url) as store:
        change_settings(store, promote=setting)
    events = have_judged(waiting, promote=promote)
    made = only(events, Finished).model
    assert [e.model for e in events if isinstance(e, Promoted)] == ([made] if promoted else [])
    with CorrectionStore(waiting.url) as store:
        in_use = incumbent(store)
        assert find_model(store, in_use.version).model == (made if promoted else waiting.base.model)
        assert (in_use.kind, in_use.who, in_use.why) == (
            ("gate", "anna", "because") if promoted else ("first", "test", "ships with Sonoloop")
        )


def test_a_locked_project_keeps_its_model_and_the_new_one_too(waiting, monkeypatch):
    monkeypatch.setattr("sonoloop_training.finetune.run.judge", gate_that_says("promote"))
    with CorrectionStore(waiting.url) as store:
        lock(store, waiting.base.version, who="anna", why="a study")
    events = have_judged(waiting, promote=True)
    assert any("passed and is not in use: the project is locked to" in message for message in notices(events))
    with CorrectionStore(waiting.url) as store:
        assert incumbent(store).version == waiting.base.version
        assert find_model(store, only(events, Finished).model)


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Project:
    """A store in which some groups validate."""
    return make_project(tmp_path_factory.mktemp("many"), train=30, test=0)


def test_twenty_groups_validate_in_part(many, tmp_path):
    project = copy_project(many, tmp_path)
    # groups are drawn anew in each store: by half of thirty, for the test not to hang on chance
    events = tune(project, judged=False, settings=(*QUICK, "validation=0.5"))
    started = only(events, Started)
    assert started.validation >= 1
    assert started.train + started.validation == 30
    measured = read_card(Path(only(events, Finished).path)).metrics["validation"]
    assert measured["images"] == started.validation
    assert 0 <= measured["lesion_dice"]["value"] <= 1
    done = [event for event in events if isinstance(event, EpochDone)]
    assert all(event.dice is not None or event.accuracy is not None for event in done)
    # what the curve is compared with: the first event after `Started`
    start = only(events, StartWatched)
    assert events.index(start) == events.index(started) + 1
    assert (start.dice is None) == (done[0].dice is None)
    split = json.loads((Path(only(events, Finished).path) / "split.json").read_text())
    assert len(split["validation"]) == started.validation
    assert not {m["group"] for m in split["train"]} & {m["group"] for m in split["validation"]}


def test_what_the_base_models_numbers_were_fitted_on_is_known_of_the_new_one_too(project):
    entry = {"name": "a", "id": "f" * 64}
    split = json.dumps({"train": [], "validation": [entry], "test": []})
    (project.library.find(project.base.version) / "split.json").write_text(split)
    made = only(tune(project, judged=False), Finished)
    # its threshold is the base's
    (fitted,) = json.loads((Path(made.path) / "split.json").read_text())["validation"]
    assert (fitted["name"], fitted["id"]) == ("a", "f" * 64)


def test_forty_validation_lesions_fit_the_models_numbers_anew(many, tmp_path, monkeypatch):
    monkeypatch.setattr("sonoloop_training.finetune.learn.LESIONS_TO_CALIBRATE", 2)
    project = copy_project(many, tmp_path)
    events = tune(project, judged=False, settings=(*QUICK, "validation=0.5"))
    card = read_bundle(Path(only(events, Finished).path)).card
    assert card.temperature != project.base.card.temperature


def test_it_starts_from_the_model_in_use_or_the_one_that_is_named(project):
    first = only(tune(project, judged=False), Finished)
    second = tune(project, start=first.model, judged=False)
    assert only(second, Selected).base == first.model
    card = read_bundle(Path(only(second, Finished).path)).card
    assert card.parent == read_bundle(Path(first.path)).version
    with pytest.raises(Exception, match="there is no model 'gone'"):
        tune(project, start="gone")


def test_a_model_in_a_folder_is_taken_into_the_library(project, tmp_path):
    from corrected import make_base

    from sonoloop.models.library import Library

    other = make_base(Library(tmp_path / "elsewhere" / "models"), seed=5)
    events = tune(project, start=str(tmp_path / "elsewhere" / "base-5"), judged=False)
    assert only(events, Selected).base == other.model
    with CorrectionStore(project.url) as store:
        assert find_model(store, other.version).origin == "imported"
    assert project.library.load(other.version).version == other.version


def test_a_named_snapshot_is_learned_from_whatever_came_later(project):
    with CorrectionStore(project.url) as store:
        take_snapshot(store, "first", who="anna")
        add(store, project.images, 30)
    events = tune(project, snapshot="first", judged=False)
    assert (only(events, Selected).snapshot, only(events, Selected).train) == ("first", 9)
    with pytest.raises(StoreError, match="there is no snapshot second; the newest are first"):
        tune(project, snapshot="second")


def test_an_old_image_is_compared_with_those_that_judge_once_it_is_read(project):
    with CorrectionStore(project.url) as store:
        judge = next(e for e in read_snapshot_entries(store) if e.role == "test")
        path = Places(store.url).find(judge.frame_id).path
        # brighter, so that its pixels are others
        copy = project.images / "copy.png"
        Image.open(path).point(lambda level: level * 9 // 10).save(copy)
        frame = read_frame(copy)
        Places(store.url).remember(frame.id, copy, pixels_hash=frame.pixels_hash)
        mask = np.zeros(frame.shape, np.uint8)
        mask[30:60, 40:80] = 1
        # as an earlier version stored it: no pixels were seen
        correction = Correction(
            frame_id=frame.id, pixels_hash=frame.pixels_hash, mask=mask, label="benign", annotator="anna"
        )
        store.accept(correction, parent=None)
        sample = read_frame(add_sample(store, project))
    selected = only(tune(project, judged=False), Selected)
    assert selected.train == 9
    assert {(one.frame, one.why) for one in selected.left_out} == {
        (frame.id, "near copies of it, or its patient, are among the images that judge"),
        (sample.id, "it takes no part, as the samples do"),
    }


def read_snapshot_entries(store):
    return take_snapshot(store, "before", who="anna").entries


def add_sample(store, project):
    path = project.images / "sample.png"
    Image.fromarray(phantom("benign", seed=5000, shape=(96, 128)).image).save(path)
    frame = read_frame(path)
    set_aside(store, frame)
    correction = Correction(
        frame_id=frame.id,
        pixels_hash=frame.pixels_hash,
        mask=np.ones(frame.shape, np.uint8),
        label="benign",
        annotator="anna",
    )
    store.accept(correction, parent=None)
    return path


def test_a_reference_counts_and_a_contradiction_is_listed(project):
    with CorrectionStore(project.url) as store:
        found = add(store, project.images, 31, label="normal")  # a benign phantom with its lesion
        settled = add(store, project.images, 34, label="normal")
        set_reference(store, settled, "benign", source="histology")
    selected = only(tune(project, judged=False), Selected)
    assert selected.train == 10
    assert selected.by_class["benign"] == 4
    assert selected.left_out == [LeftOut(frame=found, why="a lesion is drawn, and its class is normal")]
