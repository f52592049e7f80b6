"""Project: the rules of Accept, the model in use, and the way from a candidate to a promotion."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import numpy as np
import pytest
from PIL import Image

import sonoloop
from sonoloop import project as project_module
from sonoloop.errors import BundleError, ConflictError, StoreError, TrainingError
from sonoloop.imaging.grey import frame_from_array
from sonoloop.imaging.phantom import sample_study
from sonoloop.jobs.events import Gate, Progress
from sonoloop.jobs.request import FinetuneRequest, GateRequest
from sonoloop.leakage import Judging
from sonoloop.models.card import shipped_card, shipped_folder
from sonoloop.models.library import Library
from sonoloop.project import Project, begin_with_shipped
from sonoloop.store import network_share
from sonoloop.store.corrections import CorrectionStore
from sonoloop.store.file_index import Places
from sonoloop.store.groups import placement
from sonoloop.store.leases import ClaimedError
from sonoloop.store.promotions import history, incumbent
from sonoloop.store.revisions import HeadMovedError
from sonoloop.store.settings import change_settings
from sonoloop.store.snapshots import LearnableCounter, take_snapshot
from sonoloop.store.test_sets import freeze_test_set
from sonoloop.store.withdrawal import withdraw
from sonoloop.values import Effort, Prediction

ALL_TEST = {"test_cap": 300, "first_test_share": 1.0, "test_share": 1.0, "draw_first_share": 0.0}
ALL_TRAIN = {"test_cap": 0, "draw_first_share": 0.0}


class FakePredictor:
    """Finds a lesion wherever it looks."""

    def predict(self, frame):
        mask = np.ones(frame.shape, np.uint8)
        return Prediction(
            frame_id=frame.id,
            lesion=mask.astype(np.float32),
            mask=mask,
            classes=np.array([0.1, 0.7, 0.2], np.float32),
            expected_dice=0.8,
            threshold=0.5,
            model="fake-1",
        )


@pytest.fixture
def make_project(tmp_path):
    opened = []

    def make(url="study.sqlite", annotator="r1", **settings):
        store = CorrectionStore(tmp_path / url)
        if settings:
            change_settings(store, **settings)
        project = Project(
            store,
            annotator=annotator,
            library=Library(tmp_path / "models"),
            load_predictor=lambda *_: FakePredictor(),
        )
        opened.append(project)
        return project

    yield make
    for project in opened:
        project.close()


@pytest.fixture
def project(make_project):
    return make_project(**ALL_TRAIN)


def write_case(folder, name="case.png", seed=0):
    pixels = np.random.default_rng(seed).integers(0, 255, (48, 64)).astype(np.uint8)
    Image.fromarray(pixels).save(folder / name)
    return folder / name


@pytest.fixture
def frame(tmp_path):
    return sonoloop.read(write_case(tmp_path))[0]


def lesion(frame, row=10):
    mask = np.zeros(frame.shape, np.uint8)
    mask[row : row + 8, 20:30] = 1
    return mask


def test_read_gives_every_frame_with_its_file(tmp_path):
    pages = [Image.fromarray(np.full((8, 8), n, np.uint8)) for n in (1, 2)]
    pages[0].save(tmp_path / "b.tif", save_all=True, append_images=pages[1:])
    write_case(tmp_path, "a.png")
    frames = sonoloop.read(tmp_path)
    assert [(f.path.name, f.index) for f in frames] == [("a.png", 0), ("b.tif", 0), ("b.tif", 1)]
    assert sonoloop.read(str(tmp_path / "a.png"))[0].path == (tmp_path / "a.png").absolute()


def test_accept_alone_places_the_frame_and_finds_its_file_again(project, frame):
    revision = project.accept(frame, lesion(frame), "benign", seen=False)
    assert placement(project.store, frame.id).role == "train"
    place = Places(project.store.url).find(frame.id)
    assert (place.path, place.index, place.pixels_hash) == (frame.path, 0, frame.pixels_hash)
    assert project.name_frames([frame.id[:12]]) == {frame.id[:12]: "case.png"}
    assert revision.correction.annotator == "r1"


def test_a_second_correction_builds_on_the_first(project, frame):
    first = project.accept(frame, lesion(frame), "benign", seen=False)
    second = project.accept(frame, lesion(frame, 20), "malignant", seen=True)
    assert second.parent == first.id
    assert project.look_up(frame).own_head == second.id


def test_a_head_that_nobody_looked_at_is_a_conflict(project, frame):
    project.accept(frame, lesion(frame), "benign", seen=False)
    with pytest.raises(HeadMovedError):
        project.accept(frame, lesion(frame, 20), "benign", seen=False, parent=None)


def test_who_gives_no_parent_builds_on_the_last_one_from_several_threads_too(project, frame):
    ready = Barrier(4)

    def accept(number):
        ready.wait(30)
        return project.accept(frame, lesion(frame, number), "benign", seen=False)

    with ThreadPoolExecutor(4) as pool:
        accepted = {revision.id for revision in pool.map(accept, range(4))}
    history = project.store.history(frame.id)
    assert {revision.id for revision in history} == accepted
    assert [revision.parent for revision in history] == [None, *(one.id for one in history[:-1])]
    assert project.look_up(frame).own_head == history[-1].id


def test_accepted_again_unchanged_nothing_is_stored(project, frame):
    first = project.accept(frame, lesion(frame), "benign", seen=False)
    again = project.accept(
        frame, lesion(frame), "benign", prediction=project.model().predict(frame), seen=True
    )
    assert again.id == first.id
    assert project.store.count() == 1
    project.accept(frame, lesion(frame), "unsure", seen=True)
    project.by("r2").accept(frame, lesion(frame), "benign", seen=True)
    assert project.store.count() == 3, "another class, or another person, is a change"


def test_lesions_have_classes_of_their_own_and_an_effort_is_kept(project, frame):
    mask = lesion(frame)
    mask[30:36, 40:50] = 2
    effort = Effort(active_seconds=5.0, strokes=2, shown=(("prediction", 1.0),))
    project.accept(frame, mask, "unsure", seen=True, lesions={1: "benign", 2: "malignant"}, effort=effort)
    found = project.look_up(frame).newest.correction
    assert (found.label, found.lesions) == ("unsure", {1: "benign", 2: "malignant"})
    assert found.effort == effort.without_times()
    change_settings(project.store, record_time=True)
    again = project.accept(frame, mask, "benign", seen=True, lesions={1: "benign"}, effort=effort)
    assert again.correction.effort == effort
    with pytest.raises(StoreError, match=r"case\.png has no lesion 3"):
        project.accept(frame, mask, "benign", seen=True, lesions={3: "benign"})


def test_a_frame_is_marked_and_noted_before_it_is_accepted(project, frame):
    project.mark(frame, "skipped", "a needle is in it")
    project.note(frame, "ask the radiologist")
    assert placement(project.store, frame.id).role == "train"
    found = project.overview([frame.id])[frame.id]
    assert (found.status, found.reason, found.draw_first) == ("skipped", "a needle is in it", False)
    assert [note.text for note in project.by("r2").notes(frame.id)] == ["ask the radiologist"]
    project.mark(frame.id, "open")
    assert project.overview([frame.id])[frame.id].status == "to do"
    withdraw(project.store, frame.id, why="asked to", who="r1")
    with pytest.raises(StoreError, match="was withdrawn"):
        project.mark(replace(frame, id="e" * 64), "flagged")


def test_another_annotator_sees_who_works_on_a_frame(project, frame):
    other = project.by("r2")
    project.claim(frame)
    assert other.overview([frame.id])[frame.id].claimed_by == "r1"
    assert project.overview([frame.id])[frame.id].claimed_by is None
    with pytest.raises(ClaimedError, match="r1 is working on this image"):
        other.claim(frame)
    other.accept(frame, lesion(frame), "benign", seen=False)
    project.release(frame)
    assert other.claim(frame).by == "r2"


def test_a_test_frame_stays_one_whatever_is_accepted_after_the_first_time(make_project, frame):
    project = make_project(**ALL_TEST)
    first = project.accept(frame, lesion(frame), "benign", seen=False)
    for label in ("benign", "malignant"):
        project.accept(frame, lesion(frame), label, seen=True)
    (judge,) = freeze_test_set(project.store).members
    assert judge.revision_id == first.id
    assert LearnableCounter(project.store).count().test_frames == 1


def test_what_was_once_seen_stays_seen(project, frame):
    project.accept(frame, lesion(frame), "benign", prediction=project.model().predict(frame), seen=True)
    assert project.accept(frame, lesion(frame, 20), "benign", seen=False).correction.prediction_seen
    anew = replace(frame, id="e" * 64)  # the same pixels in another file
    assert project.accept(anew, lesion(frame), "benign", seen=False).correction.prediction_seen


def test_who_accepted_a_frame_that_is_drawn_first_has_seen_its_proposal(make_project, frame):
    project = make_project(**ALL_TEST)
    assert project.look_up(frame).draw_first
    project.accept(frame, lesion(frame), "benign", seen=False)
    assert project.accept(frame, lesion(frame, 20), "benign", seen=False).correction.prediction_seen


def test_who_accepted_a_test_image_has_seen_its_proposal_in_another_file_too(make_project, frame):
    project = make_project(**ALL_TEST)
    assert not project.accept(frame, lesion(frame), "benign", seen=False).correction.prediction_seen
    anew = replace(frame, id="e" * 64)
    assert project.accept(anew, lesion(frame), "benign", seen=False).correction.prediction_seen


@pytest.mark.parametrize(
    "wrong",
    [
        {"label": "cyst"},
        {"parent": "0" * 32},
        {"annotator": "a\0b"},
        {"lesion": np.full((48, 64), np.nan, np.float32)},
        {"lesion": np.zeros((48, 63), np.float32)},
        {"mask": np.zeros((48, 63), np.uint8)},
        {"threshold": np.nan},
    ],
)
def test_what_is_refused_does_not_place_the_frame(project, frame, wrong):
    prediction = project.model().predict(frame)
    said = {name: value for name, value in wrong.items() if hasattr(prediction, name) and name != "label"}
    with pytest.raises((StoreError, ValueError)):
        project.by(wrong.get("annotator", "r1")).accept(
            frame,
            lesion(frame),
            wrong.get("label", "benign"),
            prediction=replace(prediction, **said),
            seen=True,
            parent=wrong.get("parent"),
        )
    assert placement(project.store, frame.id) is None
    assert Places(project.store.url).find(frame.id) is None
    assert project.store.count() == 0


def test_a_mask_of_another_size_is_refused(project, frame):
    with pytest.raises(StoreError, match="20 x 10 pixels, the image 64 x 48"):
        project.accept(frame, np.zeros((10, 20), np.uint8), "normal", seen=False)
    assert project.store.count() == 0


@pytest.mark.parametrize("use", ["look_up", "accept"])
def test_the_name_of_a_withdrawn_image_does_not_come_back(project, frame, tmp_path, use):
    project.accept(frame, lesion(frame), "benign", seen=False)
    withdraw(project.store, frame.id, why="asked to", who="r1")
    anew = replace(frame, id="e" * 64, path=tmp_path / "Muster Anna.png")
    for one in (frame, anew):
        if use == "look_up":
            project.look_up(one)
        else:
            with pytest.raises(StoreError, match="was withdrawn on"):
                project.accept(one, lesion(one), "benign", seen=False)
        assert Places(project.store.url).find(one.id) is None


def test_masks_may_be_boolean_and_not_fractions(project, frame):
    revision = project.accept(frame, lesion(frame) > 0, "benign", seen=False)
    np.testing.assert_array_equal(revision.correction.mask, lesion(frame))
    for wrong in (lesion(frame) * 0.5, lesion(frame).astype(int) * 300):
        with pytest.raises(ValueError, match="mask must be uint8"):
            project.accept(frame, wrong, "benign", seen=False)


def test_a_simulated_frame_takes_no_part(make_project):
    project = make_project(**ALL_TEST)
    phantom = frame_from_array(sample_study()[0].image, name="phantom")
    simulated = replace(phantom, simulated=True)
    assert not project.look_up(simulated).draw_first
    assert placement(project.store, phantom.id) is None
    project.accept(simulated, np.zeros(phantom.shape, np.uint8), "normal", seen=False)
    assert placement(project.store, phantom.id).role == "neither"


def test_a_stored_prediction_comes_back_for_the_same_pixels(project, frame):
    project.accept(frame, lesion(frame), "benign", prediction=project.model().predict(frame), seen=True)
    status = project.by("r2").look_up(replace(frame, id="e" * 64))
    assert (status.own_head, status.newest.correction.annotator) == (None, "r1")
    assert (status.prediction.frame_id, status.prediction.model) == ("e" * 64, "fake-1")


def test_an_annotator_is_a_pseudonym_and_never_empty(project):
    assert sonoloop.open_project.__kwdefaults__["annotator"] == "annotator"
    with pytest.raises(StoreError, match="give a pseudonym"):
        project.by(" ")


def test_samples_are_what_may_train(make_project, tmp_path):
    project = make_project()
    for number, tests in enumerate((0.0, 0.0, 1.0)):
        change_settings(project.store, test_cap=300, first_test_share=tests, test_share=tests)
        case = sonoloop.read(write_case(tmp_path, f"{number}.png", number))[0]
        project.accept(case, np.zeros(case.shape, np.uint8), "normal", seen=False)
    status = project.learning_status()
    assert (status.samples, status.learnable.test_frames, status.model) == (2, 1, shipped_card().model)
    assert status.judging == Judging(frames=1)
    assert shipped_card().version in status.usable
    (tmp_path / "2.png").unlink()
    assert project.learning_status().judging == Judging(missing=1)


def test_a_pulse_changes_with_every_decision_of_any_program_and_with_nothing_else(
    make_project, tmp_path, frame
):
    project = make_project()
    project.begin()
    with CorrectionStore(project.store.url.render_as_string(hide_password=False)) as other:
        before = project.pulse()
        project.look_up(frame)
        assert project.pulse() == before
        elsewhere = Project(other, library=project.library)
        for decide in (
            lambda: elsewhere.accept(frame, np.zeros(frame.shape, np.uint8), "normal", seen=False),
            lambda: elsewhere.lock_model(why="a study"),
            lambda: elsewhere.unlock_model(why="it is over"),
            lambda: take_snapshot(other, who="r2"),
            lambda: change_settings(other, test_cap=7),
        ):
            decide()
            assert project.pulse() != before, decide
            before = project.pulse()


def test_what_would_be_rolled_back_to_must_be_what_was_looked_at(project):
    project.begin()
    with pytest.raises(ConflictError, match="since you looked"):
        project.roll_back(why="a test", expected="ft-12345678")


def test_beginning_with_the_shipped_model_copies_it(project, tmp_path):
    assert project.in_use().version is None
    assert project.begin().version == shipped_card().version
    assert (tmp_path / "models" / shipped_card().model / "card.json").is_file()
    assert project.in_use().model == shipped_card().model


def test_a_fine_tuning_that_begins_a_project_copies_the_shipped_model(project, tmp_path):
    from sonoloop_training.finetune.run import _find_base

    library = Library(tmp_path / "models")
    assert _find_base(None, project.store, library, "r1") == shipped_card().version
    assert (tmp_path / "models" / shipped_card().model / "card.json").is_file()


def test_a_shipped_model_that_cannot_be_copied_is_used_all_the_same(project, monkeypatch):
    told = []

    def fail(_library):
        raise BundleError("the disk is full")

    monkeypatch.setattr(Library, "keep_shipped", fail)
    promotion = begin_with_shipped(project.store, project.library, who="r1", on_notice=told.append)
    assert promotion.version == shipped_card().version
    assert told == ["the disk is full"]


def test_the_predictor_is_kept_until_another_is_asked_for(make_project, tmp_path):
    loaded = []
    store = CorrectionStore(tmp_path / "other.sqlite")
    with Project(
        store, library=Library(tmp_path / "models"), load_predictor=lambda *key: loaded.append(key)
    ) as project:
        project.model()
        project.by("r2").model()
        project.begin()
        project.model()
        project.model(device="cpu")
        project.model(device="cpu", engine="onnx")
        assert project.compare_engines() is None, "what is loaded is not its to choose"
    version = shipped_card().version
    assert loaded == [
        ("auto", None, "auto"),
        ("auto", version, "auto"),
        ("cpu", version, "auto"),
        ("cpu", version, "onnx"),
    ]


@pytest.fixture
def candidate(project, tmp_path):
    """A copy of the shipped model under another name, imported."""
    folder = tmp_path / "made"
    shutil.copytree(shipped_folder(), folder)
    card = folder / "card.json"
    card.write_text(card.read_text().replace('"name": "default"', '"name": "candidate"'))
    return project.import_model(folder)


def judged(project, candidate, verdict):
    """Put a look on record, and return the gate's event of it."""
    from sonoloop.store.test_sets import record_evaluation

    test_set = freeze_test_set(project.store)
    now = incumbent(project.store).version
    look = record_evaluation(
        project.store,
        test_set=test_set.number,
        candidate=candidate.version,
        incumbent=now,
        verdict=verdict,
        reason="as it is",
        figures={},
        who="r1",
    )
    return Gate(
        verdict=verdict,
        reason="as it is",
        groups=0,
        test_set=test_set.number,
        look=look.number,
        looks=1,
        candidate=candidate.version,
        incumbent=now,
    )


def test_the_gates_word_promotes(project, candidate, monkeypatch):
    asked = []

    def events(request):
        asked.append(request)
        yield Progress(stage="", done=1, total=1)
        yield judged(project, candidate, "promote")

    monkeypatch.setattr(project_module, "training_events", events)
    gate = project.gate("candidate", device="cpu")
    moved = project.promote(gate)
    assert (moved.kind, moved.version, moved.look) == ("gate", candidate.version, gate.look)
    place = str(project.store.url.database)
    assert asked == [GateRequest(model="candidate", store=place, who="r1", device="cpu")]
    with pytest.raises(ConflictError, match="since this comparison"):
        project.promote(gate)
    assert project.roll_back(why="a test").version == shipped_card().version


def test_without_the_gates_word_a_reason_is_needed(project, candidate, monkeypatch):
    monkeypatch.setattr(
        project_module, "training_events", lambda *_: iter([judged(project, candidate, "refuse")])
    )
    gate = project.gate("candidate")
    with pytest.raises(StoreError, match="said refuse, not promote: as it is; to use the model anyway"):
        project.promote(gate)
    with pytest.raises(StoreError, match="say why"):
        project.promote("candidate")
    assert project.promote(gate, why="a second opinion").kind == "use"
    assert [move.why for move in history(project.store)] == ["ships with Sonoloop", "a second opinion"]


def test_a_gate_without_a_verdict_is_an_error(project, monkeypatch):
    monkeypatch.setattr(project_module, "training_events", lambda *_: iter(()))
    with pytest.raises(TrainingError, match="was not judged"):
        project.gate("candidate")


def test_a_fine_tuning_is_asked_for_by_its_request(project, monkeypatch):
    asked = []
    monkeypatch.setattr(project_module, "training_events", lambda request: asked.append(request) or iter(()))
    assert list(project.finetune(max_minutes=10, judged=False)) == []
    place = str(project.store.url.database)
    assert asked == [FinetuneRequest(store=place, who="r1", max_minutes=10, judged=False)]
    with pytest.raises(TypeError, match="max_hours"):
        list(project.finetune(max_hours=1))


def test_a_damaged_model_is_not_used(project, candidate, tmp_path):
    weights = tmp_path / "models" / candidate.model / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError):
        project.promote("candidate", why="a test")
    assert incumbent(project.store).version == shipped_card().version


def test_a_project_is_exported_merged_and_backed_up(project, make_project, frame, tmp_path):
    stored = project.accept(frame, lesion(frame), "benign", seen=False)
    project.export(tmp_path / "export")
    other = make_project("other.sqlite")
    assert other.merge(tmp_path / "export").added["revisions"] == 1
    assert other.look_up(frame).newest.id == stored.id
    assert project.back_up(tmp_path / "backup.sqlite").revisions == 1


def test_a_store_on_a_network_share_is_told_of_once(tmp_path, monkeypatch):
    monkeypatch.setattr(network_share, "find_share", lambda _: "cifs")
    told = []
    for _ in range(2):
        sonoloop.open_project(tmp_path / "study.sqlite", on_notice=told.append).close()
    assert len(told) == 1 and "on a network share (cifs); use PostgreSQL" in told[0]
