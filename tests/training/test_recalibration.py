"""A calibration on a real store, with a small model that knows nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from gate_samples import Project, make_project

from own_networks import TOML, segmenter
from sonoloop.errors import TrainingError
from sonoloop.jobs.events import Calibrated, Event, Gate, Notice, Refitted, Unreadable
from sonoloop.jobs.request import CalibrateRequest
from sonoloop.models.card import GRAPH, WEIGHTS, read_card
from sonoloop.models.library import find_models_trained_on
from sonoloop.models.manifest import Manifest, Member, bundle_manifest
from sonoloop.models.predictor import Predictor
from sonoloop.store import CorrectionStore
from sonoloop.store.model_registry import CALIBRATED, find_model, list_models, register
from sonoloop.store.promotions import incumbent
from sonoloop.store.test_sets import compare_models, evaluations
from sonoloop_training.fit.calibration import Numbers
from sonoloop_training.gate.comparison import judge
from sonoloop_training.recalibration import run
from sonoloop_training.recalibration.refit import Refit

NEW = Numbers(threshold=0.35, min_area=0.002, normal_gate=0.7, temperature=1.5)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Iterator[Project]:
    folder = tmp_path_factory.mktemp("site")
    with CorrectionStore(folder / "corrections.sqlite") as store:
        yield make_project(store, folder)


def found(answers, before: Numbers, *, numbers: Numbers = NEW) -> Refit:
    """What a fit might have come to on six frames, which are too few for one."""
    names = ("temperature", "normal_gate", "threshold", "min_area")
    told = [Refitted(name=n, before=getattr(before, n), after=getattr(numbers, n)) for n in names]
    return Refit(numbers=numbers, told=told, figures=[], metrics={"lesion_dice": {"value": 0.5, "n": 4}})


def calibrate(project: Project, model: str | None = None) -> list[Event]:
    request = CalibrateRequest(model=model, store=project.store.url.database, who="anna", device="cpu")
    return list(run.calibrate(request, library=project.library))


@pytest.fixture
def made(project: Project, monkeypatch) -> Calibrated:
    monkeypatch.setattr(run, "refit", found)
    *_, last = calibrate(project)
    assert isinstance(last, Calibrated)
    return last


def test_the_new_model_has_the_old_weights_byte_for_byte_and_a_new_card(project, made):
    old, new = (project.library.find(version) for version in (made.base_version, made.version))
    assert (old / WEIGHTS).read_bytes() == (new / WEIGHTS).read_bytes()
    card, before = read_card(new), read_card(old)
    assert (card.parent, card.name, card.spec) == (before.version, "cal", before.spec)
    assert Numbers.of(card) == NEW
    told = card.snapshot["calibration"]
    assert (told["frames"], told["groups"], told["test_set"]) == (6, 6, made.test_set)
    assert told["fitted"] == ["temperature", "normal_gate", "threshold", "min_area"]
    assert len(bundle_manifest(new).calibration) == 6
    # it predicts, as its card says
    assert Predictor(project.library.load(made.version), device="cpu").threshold == NEW.threshold
    # listed with its figures and a mark, and not in use
    row = find_model(project.store, made.model)
    assert (row.parent, row.origin, row.standing) == (before.version, "tuned", (CALIBRATED,))
    line = next(one for one in compare_models(project.store).models if one.row == row)
    assert line.figures.frames == 6
    assert incumbent(project.store).version == made.in_use == before.version


def test_asked_again_it_is_the_same_model(project, made, monkeypatch):
    monkeypatch.setattr(run, "refit", found)
    count = len(list_models(project.store))
    assert calibrate(project)[-1].version == made.version
    assert len(list_models(project.store)) == count


def test_nothing_is_made_where_no_number_changes(project, monkeypatch):
    monkeypatch.setattr(run, "refit", lambda answers, before: found(answers, before, numbers=before))
    count = len(list_models(project.store))
    last = calibrate(project)[-1]
    assert (last.version, last.model) == (None, None)
    assert len(list_models(project.store)) == count


def test_too_few_frames_are_refused_and_leave_nothing(project):
    count = len(list_models(project.store))
    with pytest.raises(
        TrainingError, match=r"nothing can be fitted on these 6 frames .*it takes 20\): correct more"
    ):
        calibrate(project)
    assert len(list_models(project.store)) == count


def test_the_gate_does_not_compare_a_model_with_itself_by_other_numbers(project, made, tmp_path):
    before = len(evaluations(project.store))
    with pytest.raises(TrainingError, match="have the same weights"):
        list(gate(project, made.version, made.base_version, tmp_path))
    assert len(evaluations(project.store)) == before


def test_frames_that_fitted_the_candidates_numbers_alone_do_not_judge_it(project, made, tmp_path):
    events = list(gate(project, made.version, project.candidate, tmp_path))
    assert "6 frames did not judge, since " + made.model in told(events)


def test_frames_that_fitted_the_numbers_of_the_model_in_use_judge_and_that_is_said(project, made, tmp_path):
    text = told(list(gate(project, project.candidate, made.version, tmp_path)))
    assert f"6 frames fitted the threshold or gate of {made.model}, which favours it." in text
    assert "did not judge" not in text


def test_a_network_of_ones_own_is_judged_and_calibrated(project, monkeypatch, tmp_path):
    path = tmp_path / "theirs.onnx"
    path.write_bytes(segmenter().SerializeToString())
    path.with_suffix(".toml").write_text(TOML)
    card = read_card(project.library.import_(path))
    register(project.store, version=card.version, model=card.model, origin="imported", who="anna")
    seen = list(gate(project, card.version, project.candidate, tmp_path / "gate"))
    look = next(event for event in seen if isinstance(event, Gate))
    assert look.candidate == card.version
    assert look.frames > 0
    monkeypatch.setattr(run, "refit", found)
    last = calibrate(project, card.model)[-1]
    folder, before = project.library.find(last.version), project.library.find(card.version)
    assert (folder / GRAPH).read_bytes() == (before / GRAPH).read_bytes()
    assert not (folder / WEIGHTS).exists()
    assert Numbers.of(project.library.check(last.version)) == NEW
    with pytest.raises(TrainingError, match="have the same weights"):
        list(gate(project, last.version, card.version, tmp_path / "again"))


def gate(project: Project, candidate: str, other: str, out: Path) -> Iterator[Event]:
    yield from judge(
        project.store, candidate, other, out=out, who="anna", device="cpu", library=project.library
    )


def told(events: list[Event]) -> str:
    return "\n".join(event.message for event in events if isinstance(event, Notice))


def test_a_withdrawn_frame_is_found_among_those_that_fitted_the_numbers(project, made):
    listed = bundle_manifest(project.library.find(made.version)).calibration
    found = find_models_trained_on(project.library, {listed[0].pixels_hash})
    # another test has calibrated a model of its own, on the same frames
    ours = {v: m for v, m in found.items() if read_card(project.library.find(v)).parent == made.base_version}
    assert ours == {made.version: made.model}


def test_a_frame_whose_file_is_gone_fits_nothing_and_is_told_once(project, tmp_path, monkeypatch):
    seen: list[int] = []
    monkeypatch.setattr(
        run, "refit", lambda answers, before: seen.append(len(answers)) or found(answers, before)
    )
    first = next(project.images.glob("*.png"))
    away = first.rename(tmp_path / first.name)
    try:
        events = calibrate(project, project.candidate)
    finally:
        away.rename(first)
    assert seen == [5]
    (gone,) = (event for event in events if isinstance(event, Unreadable))
    assert gone.error.startswith("its file is not on this machine")


def test_the_list_of_who_fitted_the_numbers_leaves_the_house_without_names():
    member = Member(name="file of a patient", group="g", id="a" * 64, pixels_hash="b" * 64)
    listed = Manifest(calibration=(member,))
    again = Manifest.from_json(listed.without_names(Manifest()).to_json())
    assert again.calibration[0].hashes == member.hashes
    assert "patient" not in json.dumps(again.to_dict())
    # what lists none is written as before
    assert "calibration" not in Manifest().to_dict()
