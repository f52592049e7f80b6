"""What a change of model does, in pictures."""

from __future__ import annotations

import numpy as np
import pytest
from gate_samples import alarmed, changed, outcomes
from PIL import Image

from sonoloop.errors import SonoloopError
from sonoloop.imaging.phantom import phantom
from sonoloop.values import Frame
from sonoloop_training.evaluation.scores import Case
from sonoloop_training.gate.pictures import (
    Change,
    Shown,
    changes_figure,
    check_pictures,
    most_changed,
    save_pictures,
    scatter_figure,
)
from sonoloop_training.page import new_figure


def test_the_most_changed_come_first_and_false_alarms_count():
    old = outcomes(6, dice=[0.5, 0.5, 0.5, 0.5, 0.5, 0.5], normals=2)
    new = outcomes(6, dice=[0.9, 0.2, 0.501, 0.7, 0.5, 0.4], normals=2)
    improved, harmed = most_changed(alarmed(new, 1), old)
    assert [one.after.frame for one in improved] == ["0", "3"]
    assert [one.after.frame for one in harmed] == ["n1", "1", "5"]
    assert [one.amount for one in harmed] == pytest.approx([-1.0, -0.3, -0.1])
    improved, harmed = most_changed(old, alarmed(old, 2), count=1)
    assert [one.after.frame for one in improved] == ["n0"]
    assert harmed == []


def test_the_scatter_counts_frames_with_a_lesion_alone(tmp_path):
    old, new = outcomes(5, dice=0.5, normals=3), outcomes(5, dice=[0.9, 0.8, 0.5, 0.1, 0.7], normals=3)
    figure = scatter_figure(
        changed(new, [4], label="unsure"), changed(old, [4], label="unsure"), names=("b", "a")
    )
    axes = figure.axes[0]
    assert axes.get_title(loc="left") == "5 frames with a lesion: 3 better, 1 worse"
    assert axes.get_xlabel() == "Dice before (a)"
    drawn = {line.get_label(): list(zip(*line.get_data(), strict=True)) for line in axes.lines[1:]}
    assert drawn == {
        "malignant": [(0.5, 0.9)],
        "benign": [(0.5, 0.8), (0.5, 0.5), (0.5, 0.1)],
        "unsure": [(0.5, 0.7)],
    }


def test_frames_are_drawn_before_and_after_and_saved_whole(tmp_path):
    made = phantom("benign", seed=1, shape=(96, 128))
    case = Case(
        frame=Frame(pixels=made.image, id="a" * 64, pixels_hash="b" * 64, name=""),
        mask=made.mask > 0,
        label="benign",
        dataset="",
        group="g",
    )
    change = Change(before=outcomes(1, dice=0.2)[0], after=outcomes(1, dice=0.9)[0])
    shown = Shown(change=change, case=case, before=np.zeros((96, 128), np.bool_), after=made.mask > 0)
    figure = changes_figure([shown, shown], title="Most improved")
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["0, benign; before: Dice 0.20", "after: Dice 0.90"] * 2
    left, right = (axes.images[0].get_array() for axes in figure.axes[:2])
    assert (left != right).any()
    paths = save_pictures(tmp_path / "out", {"improved": figure})
    assert Image.open(paths["improved"]).size == (704, 627)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["improved.png"]


@pytest.mark.parametrize("name", ["scatter.png", "improved.png", "harmed.png"])
def test_pictures_that_no_gate_drew_are_refused(tmp_path, name):
    Image.new("L", (4, 4)).save(tmp_path / name)
    with pytest.raises(
        SonoloopError, match=rf"{name} was not made by `sonoloop gate` and would be lost; move"
    ):
        check_pictures(tmp_path)
    with pytest.raises(SonoloopError, match=r"is no folder; give a folder"):
        check_pictures(tmp_path / name)


def test_pictures_of_an_earlier_look_are_replaced(tmp_path):
    with new_figure() as figure:
        save_pictures(tmp_path, {"scatter": figure})
    check_pictures(tmp_path)
    check_pictures(tmp_path / "not there yet")
