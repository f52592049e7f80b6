"""What a fine-tuning refuses, by name: too little, gone or changed files, other classes, no room."""

from __future__ import annotations

import json
import shutil
import signal

import pytest
from corrected import add, make_project
from tuning import QUICK, notices, only, tune

from sonoloop.errors import BundleError, TrainingError
from sonoloop.labels import CorrectionStore
from sonoloop.labels.leases import LeaseError, take_lease
from sonoloop.labels.snapshots import list_snapshots
from sonoloop.labels.versions import list_models
from sonoloop.models.card import CARD
from sonoloop_training.__main__ import main
from sonoloop_training.events import Finished, Job, Selected
from sonoloop_training.finetune.jobs import open_job
from sonoloop_training.finetune.run import LEASE, read_finetune_recipe


def test_a_model_of_another_class_order_is_refused_before_a_snapshot_is_taken(project):
    card = project.library.find(project.base.version) / CARD
    values = json.loads(card.read_text())
    values["classes"] = ["benign", "malignant", "normal"]
    card.write_text(json.dumps(values))
    other = project.url.parent / "other"
    shutil.copytree(card.parent, other)
    with pytest.raises(BundleError, match="classes must be normal, benign, malignant, got benign, malignant"):
        tune(project, start=str(other))
    with CorrectionStore(project.url) as store:
        assert list_snapshots(store) == []


def test_four_corrections_are_too_few(tmp_path):
    project = make_project(tmp_path / "few", train=4, test=2)
    with pytest.raises(TrainingError, match="4 of the corrections can teach, and at least 5 are needed"):
        tune(project)
    with CorrectionStore(project.url) as store:
        assert len(list_models(store)) == 1


def test_a_missing_file_is_named_and_the_rest_goes_on_only_when_told_to(project, tmp_path):
    path = project.images / "image 4.png"
    kept = path.rename(tmp_path / "away.png")
    try:
        with pytest.raises(TrainingError) as refused:
            tune(project)
        told = str(refused.value)
        assert told.startswith("the files of 1 of 9 corrected images are not there: ")
        assert f"{path} is gone" in told
        assert told.endswith(
            "say where they lie now with: sonoloop store relink FOLDER, or go on without them with "
            "--skip-missing"
        )
        events = tune(project, skip_missing=True, judged=False)
    finally:
        kept.rename(path)
    selected = only(events, Selected)
    assert selected.train == 8
    assert [one["why"] for one in selected.left_out] == ["its file is not there"]
    assert any("going on without them" in message for message in notices(events))


def test_pixels_that_changed_are_refused_though_missing_ones_are_skipped(project):
    path = project.images / "image 4.png"
    before = path.read_bytes()
    from PIL import Image

    try:
        Image.open(path).point(lambda level: level // 2).save(path)
        with pytest.raises(TrainingError) as refused:
            tune(project, skip_missing=True)
    finally:
        path.write_bytes(before)
    assert "1 of the corrected images cannot be learned from: " in str(refused.value)
    assert f"{path} has other pixels than when it was corrected" in str(refused.value)
    assert "put the original files back" in str(refused.value)


def test_a_file_saved_anew_with_the_same_pixels_is_learned_from(project):
    from PIL import Image

    path = project.images / "image 4.png"
    before = path.read_bytes()
    try:
        Image.open(path).save(path, compress_level=0)
        assert path.read_bytes() != before
        assert only(tune(project, judged=False), Selected).train == 9
    finally:
        path.write_bytes(before)


def test_a_second_finetuning_on_the_store_is_refused_by_name(project):
    with CorrectionStore(project.url) as store:
        held = take_lease(store, LEASE, what="a fine-tuning by bert")
        with pytest.raises(LeaseError, match="a fine-tuning by bert is under way: process "):
            tune(project)
        held.give_back()
        assert list_snapshots(store) == []
    assert only(tune(project, judged=False), Finished)


def test_a_full_disk_is_told_before_anything_is_learned(project, monkeypatch):
    usage = shutil.disk_usage(project.url.parent)
    monkeypatch.setattr(
        "sonoloop_training.finetune.jobs.shutil.disk_usage", lambda _: usage._replace(free=1e6)
    )
    with pytest.raises(TrainingError, match=r"there are 1 MB free at .*: make room on the disk"):
        tune(project)


def test_the_recipe_may_not_change_the_network_or_the_start():
    assert read_finetune_recipe(settings=("steps=10",)).fit.steps == 10
    with pytest.raises(TrainingError, match=r"leave model\.\* out"):
        read_finetune_recipe(settings=("model.size=128",))
    with pytest.raises(TrainingError, match="starts from --from"):
        read_finetune_recipe(settings=("fit.start=default",))


@pytest.mark.parametrize("content", [None, "{", '{"who": "a"}', '{"who": "a", "plan": {"store": ""}}'])
def test_a_folder_that_is_no_job_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / "job.json").write_text(content)
    with pytest.raises(TrainingError, match=str(tmp_path)):
        open_job(tmp_path)


def test_one_class_alone_teaches_the_mask_and_says_so(tmp_path):
    project = make_project(tmp_path / "one", train=0, test=0)
    with CorrectionStore(project.url) as store:
        for number in range(6):
            add(store, project.images, 3 * number + 1)
    events = tune(project, judged=False)
    assert any(m.startswith("all corrections are benign: the mask alone is learned") for m in notices(events))
    assert only(events, Selected).by_class["benign"] == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "model.size=96"], "a fine-tuning has the network of the model it starts from"),
        (["--base-data", "gone"], "there is no folder gone; give the data that trained the model"),
        (["--from", "gone"], "there is no model 'gone'; give a bundle's folder, or one of: "),
        (["--snapshot", "gone"], "there is no snapshot gone; there is none yet"),
        (["--set", "precision=float16", "--device", "cpu"], "the recipe asks for float16, which needs CUDA"),
    ],
)
def test_what_is_wrong_is_one_event_and_no_job(project, monkeypatch, capsys, arguments, message):
    monkeypatch.setenv("XDG_DATA_HOME", str(project.library.folder.parents[1]))
    monkeypatch.setattr("os.nice", lambda less: less)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        code = main(["finetune", "--store", str(project.url), *arguments])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    (event,) = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert code == 1
    assert event["event"] == "failed"
    assert event["error"].startswith(message)
    assert not (project.url.with_suffix(".sonoloop") / "jobs").exists()


def test_what_was_begun_is_gone_on_with_as_it_began(project, tmp_path):
    folder = tmp_path / "job"
    begun = tune(project, job=folder, judged=False)
    assert only(begun, Job).folder == str(folder)
    same = tune(project, job=folder, judged=False, start=project.base.model, snapshot="snapshot-1")
    assert only(same, Finished) == only(begun, Finished)
    for change, named in (
        ({"settings": (*QUICK, "seed=4")}, "--recipe or --set"),
        ({"snapshot": "another"}, "--snapshot"),
        ({"base_data": tmp_path}, "--base-data"),
        ({"device": "auto", "max_minutes": 3.0}, "--max-minutes, --device"),
    ):
        with pytest.raises(
            TrainingError, match=f"that folder began with another {named}: leave it out to go"
        ):
            tune(project, job=folder, **change)


def test_a_folder_of_something_else_is_left_alone(project, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(TrainingError, match="mine is no fine-tuning to go on with"):
        tune(project, job=tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]
