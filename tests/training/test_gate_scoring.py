"""What is kept beside a score."""

from __future__ import annotations

import json

from gate_samples import make_project

from sonoloop.imaging.grey import frame_from_array
from sonoloop.imaging.phantom import phantom
from sonoloop.store import CorrectionStore
from sonoloop.store import test_sets as judging
from sonoloop.store.groups import place_frame
from sonoloop_training.gate.scoring import score_models


def test_a_frame_that_trained_the_model_is_in_none_of_its_figures(tmp_path):
    with CorrectionStore(tmp_path / "corrections.sqlite") as store:
        project = make_project(store, tmp_path)
        test_set = judging.freeze_test_set(store)
        known = test_set.members[0]
        split = json.dumps({"train": [{"name": "a", "id": known.frame_id}], "validation": [], "test": []})
        (project.library.find(project.candidate) / "split.json").write_text(split)
        versions = [project.candidate, project.incumbent]
        list(score_models(store, test_set, versions, device="cpu", library=project.library))
        scores = judging.read_scores(store, project.candidate)
        assert {key for key, score in scores.items() if score.known} == {known.revision_id}
        assert not any(score.known for score in judging.read_scores(store, project.incumbent).values())
        frames = {line.row.version: line.figures.frames for line in judging.compare_models(store).models}
        assert frames == {project.candidate: 5, project.incumbent: 6}


def test_what_turns_out_to_be_known_after_it_was_scored_is_in_no_figure(tmp_path):
    with CorrectionStore(tmp_path / "corrections.sqlite") as store:
        project = make_project(store, tmp_path)
        version, test_set = project.candidate, judging.freeze_test_set(store)

        def score() -> int:
            list(score_models(store, test_set, [version], device="cpu", library=project.library))
            lines = {line.row.version: line for line in judging.compare_models(store).models}
            return lines[version].figures.frames

        made = phantom("benign", seed=900, shape=(96, 128))
        learned = frame_from_array(made.image, name="learned")
        place_frame(store, learned, role="train")
        split = json.dumps({"train": [{"name": "a", "id": learned.id}], "validation": [], "test": []})
        (project.library.find(version) / "split.json").write_text(split)
        assert score() == 6
        # it is the patient of the first frame that judges
        place_frame(store, learned, patient="0")
        assert score() == 5
        # what is not here any more keeps what was noted
        project.library.delete(version)
        assert score() == 5
