"""The gate on a real store, with two small models that know nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from gate_samples import Project, add_frames, make_project
from PIL import Image

from sonoloop.errors import ModelError, StoreError, TrainingError
from sonoloop.imaging.fingerprints import fingerprint
from sonoloop.imaging.io import read_frame
from sonoloop.imaging.phantom import phantom
from sonoloop.jobs.events import Gate, Notice, Progress, Unreadable
from sonoloop.leakage import Judging, JudgingCounter
from sonoloop.models.predictor import Predictor
from sonoloop.store import CorrectionStore
from sonoloop.store import test_sets as judging
from sonoloop.store.file_index import Places
from sonoloop.store.groups import place_frame
from sonoloop.store.metrics import FrameScore
from sonoloop.store.model_registry import find_model
from sonoloop.store.promotions import incumbent
from sonoloop.store.settings import change_settings
from sonoloop.values import Frame
from sonoloop_training.evaluation.scores import dice
from sonoloop_training.gate.comparison import judge
from sonoloop_training.gate.scoring import read_test_frame, score_models


@pytest.fixture
def store(tmp_path: Path) -> Iterator[CorrectionStore]:
    with CorrectionStore(tmp_path / "corrections.sqlite") as opened:
        yield opened


@pytest.fixture
def project(store: CorrectionStore, tmp_path: Path) -> Project:
    return make_project(store, tmp_path)


def run(project: Project, out: Path, **changes: object):
    """Judge, and give the events and the judgement."""
    values = {"candidate": project.candidate, "incumbent": project.incumbent, "out": out, "who": "reader-1"}
    events = judge(project.store, device="cpu", library=project.library, **(values | changes))
    told = []
    while True:
        try:
            told.append(next(events))
        except StopIteration as end:
            return told, end.value


def knows(project: Project, *, train: Sequence[object] = (), validation: Sequence[object] = ()) -> None:
    """Have the candidate say who trained it, and who its numbers were fitted on."""
    split = json.dumps({"train": list(train), "validation": list(validation), "test": []})
    (project.library.find(project.candidate) / "split.json").write_text(split)


def phantom_frame(path: Path, seed: int) -> Frame:
    """Read a phantom from a file of its own."""
    Image.fromarray(phantom("benign", seed=seed, shape=(96, 128)).image).save(path)
    return read_frame(path)


def pretend(project: Project, version: str, dices: list[float]) -> None:
    """Have scores of a model in the store already."""
    labels = ("normal", "benign", "malignant")
    judging.write_scores(
        project.store,
        version,
        {
            revision: FrameScore(
                frame="x",
                group="x",
                label=labels[number % 3],
                lesion=number % 3 > 0,
                dice=dices[number],
                claimed=number % 3 > 0,
                malignant=0.9 if number % 3 == 2 else 0.1,
            )
            for number, revision in enumerate(project.revisions)
        },
    )


def test_both_models_are_scored_on_every_frame_that_judges(project, tmp_path):
    told, found = run(project, tmp_path / "gate")
    assert (found.verdict.verdict, found.verdict.judged, found.verdict.frames) == ("inconclusive", 6, 4)
    assert found.test_set.number == 1
    predictor = Predictor(project.library.load(project.candidate), device="cpu")
    for member in found.test_set.members:
        one = read_test_frame(project.store, Places(project.store.url), member)
        predicted = predictor.predict(one.frame).mask > 0
        kept = judging.read_scores(project.store, project.candidate)[member.revision_id]
        assert kept.dice == pytest.approx(dice(predicted, one.mask), abs=1e-3)
        assert (kept.lesion, kept.claimed) == (bool(one.mask.any()), bool(predicted.any()))
        assert kept.frame == member.frame_id
    event = told[-1]
    assert isinstance(event, Gate)
    assert json.loads(event.to_json())["event"] == "gate"
    assert (event.test_set, event.look, event.looks) == (1, found.evaluation.number, 1)
    assert event.difference == found.verdict.difference
    assert event.sides["false_alarms"].frames == 2
    assert any(isinstance(event, Progress) and event.stage.startswith("Judging new-") for event in told)


def test_the_pictures_are_there(project, tmp_path):
    told, found = run(project, tmp_path / "gate")
    assert set(found.pictures) <= {"scatter", "improved", "harmed"}
    assert "scatter" in found.pictures
    assert len(found.pictures) > 1
    for path in found.pictures.values():
        assert Image.open(path).size[0] > 300
    assert told[-1].pictures == found.pictures


def test_every_look_is_counted_and_predicts_nothing_anew(project, tmp_path, monkeypatch):
    run(project, tmp_path / "gate")
    monkeypatch.setattr("sonoloop_training.gate.scoring._score", None)
    _, found = run(project, tmp_path / "gate")
    assert found.evaluations == 2
    recorded = judging.evaluations(project.store, found.test_set.number)
    assert [look.candidate for look in recorded] == [project.candidate] * 2
    assert recorded[0].figures["difference"] == recorded[1].figures["difference"]
    assert recorded[1].figures["auc"]["frames"] == 4


def test_a_job_that_was_interrupted_after_its_look_does_not_look_twice(store, tmp_path):
    project = make_project(store, tmp_path, count=18)
    pretend(project, project.incumbent, [0.8] * 18)
    pretend(project, project.candidate, [0.1] * 18)
    _, first = run(project, tmp_path / "gate", resumed=True)
    _, again = run(project, tmp_path / "gate", resumed=True)
    assert (again.evaluation, again.evaluations) == (first.evaluation, 1)
    assert [mark.mark for mark in find_model(store, project.candidate).marks] == ["refused"]


def test_what_was_scored_before_a_crash_is_not_lost(project, tmp_path):
    events = judge(
        project.store,
        project.candidate,
        project.incumbent,
        out=tmp_path / "gate",
        who="x",
        device="cpu",
        library=project.library,
    )
    for event in events:
        if isinstance(event, Progress) and event.stage.startswith("Judging new-") and event.done:
            break
    events.close()
    assert len(judging.read_scores(project.store, project.candidate)) == 6
    assert judging.evaluations(project.store) == ()
    assert incumbent(project.store).version == project.incumbent


def test_a_refused_candidate_is_kept_and_marked(store, tmp_path):
    project = make_project(store, tmp_path, count=18)
    pretend(project, project.incumbent, [0.8] * 18)
    pretend(project, project.candidate, [0.1] * 18)
    _, found = run(project, tmp_path / "gate")
    assert found.verdict.verdict == "refuse"
    row = find_model(store, project.candidate)
    assert row.standing == ("refused",)
    assert row.marks[0].why == found.verdict.reason == found.evaluation.reason
    assert project.library.find(project.candidate).is_dir()
    assert incumbent(store).version == project.incumbent


def test_a_better_candidate_passes_and_takes_over_only_when_told_to(store, tmp_path):
    project = make_project(store, tmp_path, count=18)
    pretend(project, project.incumbent, [0.1] * 18)
    pretend(project, project.candidate, [0.9] * 18)
    _, found = run(project, tmp_path / "gate")
    assert found.verdict.verdict == "promote"
    assert find_model(store, project.candidate).marks == ()
    assert incumbent(store).version == project.incumbent


def test_the_settings_of_the_project_are_the_margins(store, tmp_path):
    project = make_project(store, tmp_path, count=6)
    change_settings(store, missed_malignant_margin=0.3, false_alarm_margin=0.2, auc_margin=0.1)
    _, found = run(project, tmp_path / "gate")
    sides = (found.verdict.missed_malignant, found.verdict.false_alarms, found.verdict.auc)
    assert [side.margin for side in sides] == [0.3, 0.2, 0.1]


def test_frames_that_trained_a_model_do_not_judge_it_and_it_is_marked(store, tmp_path):
    project = make_project(store, tmp_path)
    member = judging.freeze_test_set(store).members[0]
    entry = {"name": "a", "id": member.frame_id}
    knows(project, train=[entry])
    told, found = run(project, tmp_path / "gate")
    assert found.verdict.judged == 5
    model = find_model(store, project.candidate)
    assert model.standing == ("leaked",)
    assert "1 of 6 frames that judge trained it or fitted its numbers" in model.marks[0].why
    known = f"since {model.model} trained or was fitted on it, on copies or on the same patient."
    words = f"1 frame did not judge, {known}"
    assert words in found.verdict.reason
    assert any(isinstance(event, Notice) and event.message == words for event in told)
    # the other model says nothing of who trained it
    assert any(isinstance(event, Notice) and "does not say who trained it" in event.message for event in told)
    run(project, tmp_path / "gate")
    assert len(find_model(store, project.candidate).marks) == 1


def test_frames_that_a_models_numbers_were_fitted_on_do_not_judge_it(store, tmp_path):
    project = make_project(store, tmp_path)
    member = judging.freeze_test_set(store).members[0]
    knows(project, validation=[{"name": "a", "id": member.frame_id}])
    _, found = run(project, tmp_path / "gate")
    assert found.verdict.judged == 5


def test_a_near_copy_of_another_image_of_a_patient_gives_the_patient_away(store, tmp_path):
    project = make_project(store, tmp_path)
    sister = phantom_frame(tmp_path / "sister.png", 901)
    # of the patient of the first frame that judges
    assert place_frame(store, sister, patient="0").role == "test"
    # what trained is another file with other pixels, and looks like the sister that does not judge
    entry = {"name": "copy", "id": "f" * 64, "fingerprint": fingerprint(sister.pixels)}
    knows(project, train=[entry])
    _, found = run(project, tmp_path / "gate")
    assert found.verdict.judged == 5
    assert "(same patient or group)" in find_model(store, project.candidate).marks[0].why


def test_a_model_that_lists_names_alone_is_told(store, tmp_path):
    project = make_project(store, tmp_path)
    knows(project, train=["busi/benign (1)", "busi/benign (2)"])
    told, _ = run(project, tmp_path / "gate")
    model = find_model(store, project.candidate).model
    words = f"{model} lists 2 of the 2 images that it knows by name alone; frames that judge it may be"
    assert any(isinstance(event, Notice) and event.message.startswith(words) for event in told)


def test_a_patient_who_became_known_later_does_not_judge_what_learned_from_them(store, tmp_path):
    project = make_project(store, tmp_path)
    frame = phantom_frame(tmp_path / "learned.png", 900)
    place_frame(store, frame, role="train")
    entry = {"name": "a", "id": frame.id, "group": "then", "pixels_hash": frame.pixels_hash}
    knows(project, train=[entry])
    assert run(project, tmp_path / "gate")[1].verdict.judged == 6
    # it is the patient of the first frame that judges
    assert place_frame(store, frame, patient="0").role == "neither"
    _, found = run(project, tmp_path / "gate")
    assert found.verdict.judged == 5
    assert "1 frame did not judge" in found.verdict.reason


@pytest.mark.parametrize("how", ["trained", "fitted", "near copy", "patient", "file gone"])
def test_what_will_judge_is_counted_before_as_the_gate_counts_it(store, tmp_path, how):
    project = make_project(store, tmp_path)
    counter = JudgingCounter(store, project.library)
    assert counter.count(project.incumbent) == Judging(frames=6)
    frame_id = judging.freeze_test_set(store).members[0].frame_id
    sister = phantom_frame(tmp_path / "sister.png", 901)
    if how == "trained":
        knows(project, train=[{"name": "a", "id": frame_id}])
    elif how == "fitted":
        knows(project, validation=[{"name": "a", "id": frame_id}])
    elif how == "near copy":
        place_frame(store, sister, patient="0")
        knows(project, train=[{"name": "a", "id": "f" * 64, "fingerprint": fingerprint(sister.pixels)}])
    elif how == "patient":
        place_frame(store, sister, role="train")
        knows(project, train=[{"name": "a", "id": sister.id}])
        assert counter.count(project.candidate) == Judging(frames=6)
        place_frame(store, sister, patient="0")
    else:
        Places(store.url).find(frame_id).path.unlink()
    counted = counter.count(project.candidate)
    _, found = run(project, tmp_path / "gate")
    assert counted.frames == found.verdict.judged == 5
    assert (counted.known, counted.missing) == ((0, 1) if how == "file gone" else (1, 0))
    assert counter.count(project.candidate) == counted, "the look changes nothing"


def test_a_list_that_cannot_be_right_is_told(project, tmp_path):
    split = project.library.find(project.candidate) / "split.json"
    split.write_text(json.dumps({"train": [{"name": "a", "fingerprint": "zz"}]}))
    with pytest.raises(TrainingError, match="is no split"):
        run(project, tmp_path / "gate")


def test_a_frame_whose_file_is_gone_or_changed_is_told_and_the_others_judge(project, tmp_path):
    (project.images / "1.png").unlink()
    Image.new("L", (128, 96), 7).save(project.images / "2.png")
    Image.effect_noise((128, 96), 50).save(project.images / "4.png")
    told, found = run(project, tmp_path / "gate")
    errors = [event.error for event in told if isinstance(event, Unreadable)]
    assert len(errors) == 3
    assert any(
        "its file is not on this machine; say where it is with: sonoloop store relink" in e for e in errors
    )
    assert any("has other pixels than when it was corrected" in e for e in errors)
    assert found.verdict.judged == 3
    assert "3 frames could not be read and did not judge." in found.verdict.reason


def test_a_store_without_frames_that_judge_gives_no_verdict_and_keeps_the_look(store, tmp_path):
    project = make_project(store, tmp_path, count=0)
    _, found = run(project, tmp_path / "gate")
    assert found.verdict.verdict == "inconclusive"
    assert found.pictures == {}
    assert found.evaluation.reason.startswith("Nothing to go by")


def test_old_models_are_scored_again_when_the_set_has_grown(store, tmp_path):
    project = make_project(store, tmp_path, count=3)
    versions = [project.incumbent, project.candidate]

    def score():
        events = score_models(
            store, judging.freeze_test_set(store), versions, device="cpu", library=project.library
        )
        return [event for event in events if isinstance(event, Progress) and not event.done]

    assert [event.total for event in score()] == [3, 3]
    add_frames(store, project.images, range(3, 5))
    assert [event.total for event in score()] == [2, 2]
    assert score() == []
    assert all(len(judging.read_scores(store, version)) == 5 for version in versions)
    # nobody was compared with anybody
    assert judging.evaluations(store) == ()


def test_what_cannot_be_judged_is_refused(project, tmp_path):
    with pytest.raises(TrainingError, match="against itself"):
        run(project, tmp_path, candidate=project.incumbent)
    with pytest.raises(StoreError, match="knows no model"):
        run(project, tmp_path, candidate="0" * 64)
    project.library.delete(project.candidate)
    with pytest.raises(ModelError, match="not on this machine"):
        run(project, tmp_path)
    assert judging.evaluations(project.store) == ()


def test_a_folder_that_cannot_be_written_costs_the_pictures_alone(project, tmp_path):
    (tmp_path / "gate").write_text("a file")
    told, found = run(project, tmp_path / "gate")
    assert found.pictures == {}
    assert any(isinstance(event, Notice) and "no pictures" in event.message for event in told)
    assert judging.evaluations(project.store) == (found.evaluation,)
