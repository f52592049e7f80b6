"""What is kept beside a score."""

from __future__ import annotations

import json

from gate_samples import make_project

from sonoloop.labels import CorrectionStore, judging
from sonoloop.labels.overview import compare_models
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
        assert {key for key, score in scores.items() if score["known"]} == {known.revision_id}
        assert not any(score["known"] for score in judging.read_scores(store, project.incumbent).values())
        frames = {line.row.version: line.figures.frames for line in compare_models(store).lines}
        assert frames == {project.candidate: 5, project.incumbent: 6}
