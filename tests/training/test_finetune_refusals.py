"""What a fine-tuning refuses, by name: too little, gone or changed files, other classes, no room."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest
from corrected import add, copy_project, make_project
from PIL import Image
from tuning import QUICK, notices, only, tune

from sonoloop.errors import BundleError, StoreError, TrainingError
from sonoloop.jobs.events import Failed, Finished, Job, Selected, parse_event
from sonoloop.jobs.folder import Plan, create_job, open_job
from sonoloop.jobs.request import FinetuneRequest, values_of
from sonoloop.models.card import CARD
from sonoloop.store import CorrectionStore
from sonoloop.store.leases import LeaseError, take_lease
from sonoloop.store.model_registry import list_models
from sonoloop.store.snapshots import list_snapshots, take_snapshot
from sonoloop_training.__main__ import main
from sonoloop_training.finetune.run import LEASE, find_store, finetune, read_finetune_recipe


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
        assert told.count("its file is gone") == 1
        assert path.name not in told
        assert told.endswith(
            "say where they lie now with: sonoloop store relink FOLDER, or go on without them with "
            "--skip-missing"
        )
        folder = next((project.url.with_suffix(".sonoloop") / "jobs").iterdir())
        last = parse_event((folder / "events.jsonl").read_text().splitlines()[-1])
        assert last == Failed(error=told, kind="missing_files")
        events = tune(project, skip_missing=True, judged=False)
    finally:
        kept.rename(path)
    selected = only(events, Selected)
    assert selected.train == 8
    assert [one.why for one in selected.left_out] == ["its file is not there"]
    assert any("going on without them" in message for message in notices(events))


def test_pixels_that_changed_are_refused_by_name_and_the_rest_goes_on_only_when_told_to(project):
    path = project.images / "image 4.png"
    before = path.read_bytes()
    try:
        Image.open(path).point(lambda level: level // 2).save(path)
        with pytest.raises(TrainingError) as refused:
            tune(project)
        events = tune(project, skip_missing=True, judged=False)
    finally:
        path.write_bytes(before)
    told = str(refused.value)
    assert "1 of the corrected images cannot be learned from: " in told
    assert "(its file has other pixels than when it was corrected)" in told
    assert "put the original files back" in told
    assert "go on without them with --skip-missing" in told
    selected = only(events, Selected)
    assert selected.train == 8
    (one,) = selected.left_out
    assert one.why == "its file has other pixels than when it was corrected"
    assert any(one.frame[:12] in message and "going on without" in message for message in notices(events))
    split = json.loads((Path(only(events, Finished).path) / "split.json").read_text())
    assert len(split["train"]) == 8
    assert one.frame not in {member["id"] for member in split["train"]}


def test_names_of_files_are_not_kept_in_the_jobs_folder(project):
    gone, damaged = project.images / "image 4.png", project.images / "image 5.png"
    judge = project.images / "image 12.png"
    kept = {path: path.read_bytes() for path in (gone, damaged, judge)}
    try:
        gone.unlink()
        damaged.write_bytes(kept[damaged][:200])
        Image.new("L", (128, 96), 7).save(judge)
        with pytest.raises(TrainingError):
            tune(project)
        events = tune(project, skip_missing=True)
    finally:
        for path, content in kept.items():
            path.write_bytes(content)
    assert only(events, Selected).train == 7
    jobs = project.url.with_suffix(".sonoloop") / "jobs"
    told = "".join(path.read_text() for path in jobs.glob("*/events.jsonl"))
    assert "its file is gone" in told
    assert told.count("its file has other pixels") == 1
    assert "image " not in told
    assert str(project.images) not in told


def test_a_store_that_is_not_there_is_no_new_project(project):
    slip = project.url.with_name("stroe.sqlite")
    with pytest.raises(StoreError, match=r"there is no store .*stroe\.sqlite: check --store"):
        tune(project, store=str(slip))
    assert not slip.exists()


def test_a_file_saved_anew_with_the_same_pixels_is_learned_from(project):
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
    monkeypatch.setattr("sonoloop.jobs.folder.shutil.disk_usage", lambda _: usage._replace(free=1e6))
    with pytest.raises(TrainingError, match=r"there are 1 MB free at .*: make room on the disk"):
        tune(project)


def test_the_recipe_may_not_change_the_network_or_the_start():
    assert read_finetune_recipe(FinetuneRequest(settings=("steps=10",))).fit.steps == 10
    with pytest.raises(TrainingError, match=r"leave model\.\* out"):
        read_finetune_recipe(FinetuneRequest(settings=("model.size=128",)))
    with pytest.raises(TrainingError, match="starts from --from"):
        read_finetune_recipe(FinetuneRequest(settings=("fit.start=default",)))


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
        (["--base-data", "gone"], "there is no folder gone; give the folder with the datasets, or a pack"),
        (["--base-data", __file__], f"{__file__} is a file; give the folder with the datasets"),
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
    assert event["kind"] == "refused"
    assert not (project.url.with_suffix(".sonoloop") / "jobs").exists()


def test_what_was_begun_is_gone_on_with_as_it_began(project, tmp_path):
    folder = tmp_path / "job"
    begun = tune(project, job=folder, judged=False)
    assert only(begun, Job).folder == str(folder)
    same = tune(project, job=folder, judged=False, start=project.base.model, snapshot="snapshot-1")
    assert only(same, Finished) == only(begun, Finished)
    for change, named in (
        ({"settings": (*QUICK, "seed=4")}, "--set"),
        ({"snapshot": "another"}, "--snapshot"),
        ({"base_data": tmp_path}, "--base-data"),
        ({"device": "auto", "max_minutes": 3.0}, "--max-minutes, --device"),
    ):
        with pytest.raises(
            TrainingError, match=f"that folder began with another {named}: leave it out to go"
        ):
            tune(project, job=folder, **change)


def test_it_goes_on_with_the_store_it_began_with_and_no_other(project, tmp_path):
    folder, other = tmp_path / "job", tmp_path / "other"
    other.mkdir()
    copy = copy_project(project, other)
    tune(project, job=folder, judged=False)
    with pytest.raises(TrainingError, match=f"began with another --store, {project.url}, and not {copy.url}"):
        tune(copy, job=folder, judged=False)
    # another store under its name is another one too
    for left in project.url.parent.glob("store.sqlite*"):
        left.unlink()
    make_project(tmp_path / "third", train=6, test=0).url.rename(project.url)
    with CorrectionStore(project.url) as store:
        take_snapshot(store, "snapshot-1", who="anna")
    with pytest.raises(TrainingError, match="is another snapshot than the one that the fine-tuning in that"):
        tune(project, job=folder, judged=False)


def test_a_store_on_a_server_has_to_be_named_again(tmp_path):
    plan = Plan(store="postgresql+psycopg://anna:***@host/lab", snapshot="s", base="b", recipe={})
    create_job(tmp_path / "job", plan, "anna").begin()
    with pytest.raises(
        TrainingError, match=r"are in postgresql\+psycopg://anna:\*\*\*@host/lab: give it with"
    ):
        list(finetune(FinetuneRequest(job=tmp_path / "job")))
    job = open_job(tmp_path / "job")
    given = "postgresql://anna:secret@host/lab"
    assert find_store(FinetuneRequest(store=given), job) == given
    with pytest.raises(TrainingError, match="began with another --store"):
        find_store(FinetuneRequest(store="postgresql://anna:secret@host/other"), job)


def test_a_plan_that_an_earlier_version_wrote_is_gone_on_with(tmp_path):
    plan = {
        "store": "s",
        "snapshot": "snapshot-1",
        "base": "b",
        "recipe": {"name": "ft"},
        "base_data": "",
        "promote": True,
        "skip_missing": False,
        "max_minutes": 5.0,
        "device": "cpu",
        "threads": 0,
    }
    (tmp_path / "job.json").write_text(json.dumps({"pid": 1, "who": "anna", "plan": plan}))
    read = open_job(tmp_path).plan
    assert read == Plan(**{**plan, "base_data": None})
    assert (read.snapshot_sha256, read.settings) == ("", ())


def test_a_plan_is_read_as_it_was_written(tmp_path):
    asked = FinetuneRequest(base_data=tmp_path, settings=("steps=1",), max_minutes=3, device="cpu")
    plan = Plan(**{**values_of(asked), "store": "s", "snapshot": "s", "base": "b", "recipe": {"a": {"b": 1}}})
    create_job(tmp_path / "job", plan, "anna").begin()
    assert open_job(tmp_path / "job").plan == plan


def test_a_plan_of_a_later_version_is_not_gone_on_with(tmp_path):
    create_job(tmp_path / "job", Plan(store="s", snapshot="s", base="b", recipe={}), "anna").begin()
    path = tmp_path / "job" / "job.json"
    state = json.loads(path.read_text())
    path.write_text(json.dumps({**state, "plan": {**state["plan"], "colour": "red"}}))
    with pytest.raises(TrainingError, match=r"made by another version of Sonoloop: it has colour\)"):
        open_job(tmp_path / "job")


def test_a_folder_of_something_else_is_left_alone(project, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(TrainingError, match="mine is no fine-tuning to go on with"):
        tune(project, job=tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]
