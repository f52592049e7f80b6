"""`sonoloop gate` as its user has it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sonoloop.imaging.io import read_study
from sonoloop.imaging.phantom import phantom
from sonoloop.models.card import read_card
from sonoloop.models.library import Library
from sonoloop.store import CorrectionStore
from sonoloop.store import test_sets as judging
from sonoloop.store.file_index import Places
from sonoloop.store.groups import place_frame
from sonoloop.store.metrics import FrameScore
from sonoloop.store.model_registry import register
from sonoloop.store.promotions import incumbent, lock, promote, unlock
from sonoloop.store.settings import change_settings
from sonoloop.values import CLASSES, Correction

COUNT = 15
Gate = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def home(tmp_path_factory, model) -> Path:
    """A data folder with a model, and a store whose model in use is the shipped one."""
    home = tmp_path_factory.mktemp("home")
    with CorrectionStore(home / "c.sqlite") as store:
        places = Places(store.url)
        for number in range(COUNT):
            made = phantom(CLASSES[number % 3], seed=number, shape=(96, 128))
            path = home / f"{number}.png"
            Image.fromarray(made.image).save(path)
            frame = read_study(path).frames[0]
            place_frame(store, frame, patient=str(number), role="test")
            places.remember(frame.id, path)
            correction = Correction(
                frame_id=frame.id,
                pixels_hash=frame.pixels_hash,
                mask=made.mask.astype(np.uint8),
                label=CLASSES[number % 3],
                annotator="reader-1",
            )
            store.accept(correction, parent=None)
        library = Library(home / "sonoloop" / "models")
        tiny, shipped = read_card(library.add(model)), library.keep_shipped()
        for card in (tiny, shipped):
            register(store, version=card.version, model=card.model, origin="imported", who="reader-1")
        test_set = judging.freeze_test_set(store)
        # known before, so that the verdict is certain
        for card, dice in ((shipped, 0.95), (tiny, 0.05)):
            scores = {
                one.revision_id: FrameScore(
                    frame=one.frame_id,
                    group=one.group_id,
                    label="benign",
                    lesion=number < 12,
                    dice=dice if number < 12 else 1.0,
                    claimed=number < 12,
                    malignant=0.5,
                )
                for number, one in enumerate(test_set.members)
            }
            judging.write_scores(store, card.version, scores)
    return home


@pytest.fixture(scope="module")
def gate(sonoloop, home) -> Gate:
    return lambda *arguments: sonoloop("gate", *arguments, XDG_DATA_HOME=str(home))


def use(home: Path, version: str) -> None:
    with CorrectionStore(home / "c.sqlite") as store:
        now = incumbent(store)
        promote(store, version, kind="use", who="x", why="y", expected=None if now is None else now.version)


def test_the_verdict_is_told_and_the_model_in_use_stays(gate, home):
    told = gate("tiny", "--store", home / "c.sqlite", "--device", "cpu", "--threads", "1")
    assert told.returncode == 0, told.stderr
    assert "refuse: Worse: mean Dice -0.900 [" in told.stdout
    assert "on 12 frames with a lesion from 12 groups" in told.stdout
    assert "Look 1 at test set 1; pictures: " in told.stdout
    row = next(line for line in told.stdout.splitlines() if "false alarms on normals" in line)
    assert row.split()[-3:] == ["0.05", "3", "3"]
    assert "tiny-" in told.stderr
    assert "does not say who trained it" in told.stderr
    assert "Traceback" not in told.stderr
    for path in told.stdout.partition("pictures: ")[2].splitlines()[0].split(", "):
        assert Path(path).is_file()
    with CorrectionStore(home / "c.sqlite") as store:
        assert incumbent(store).kind == "first"


def test_a_better_model_takes_over_when_told_to_and_every_look_is_counted(gate, home):
    with CorrectionStore(home / "c.sqlite") as store:
        shipped = incumbent(store)
        versions = Library(home / "sonoloop" / "models").versions()
        tiny = next(version for version in versions if version != shipped.version)
    use(home, tiny)
    command = ("default", "--store", home / "c.sqlite", "--device", "cpu", "--who", "reader-2", "--json")
    found = json.loads(gate(*command, "--promote").stdout)
    assert (found["verdict"], found["promoted"], found["looks"]) == ("promote", True, 2)
    assert found["sides"]["false_alarms"]["state"] == "held"
    with CorrectionStore(home / "c.sqlite") as store:
        now = incumbent(store)
    assert (now.version, now.kind, now.look, now.who) == (shipped.version, "gate", found["look"], "reader-2")
    assert now.why == found["reason"]


def test_the_projects_setting_promotes_too_and_never_what_was_judged_against_another(gate, home):
    with CorrectionStore(home / "c.sqlite") as store:
        shipped = incumbent(store).version
        tiny = next(v for v in Library(home / "sonoloop" / "models").versions() if v != shipped)
    use(home, tiny)
    with CorrectionStore(home / "c.sqlite") as store:
        change_settings(store, promote="automatic")
        lock(store, tiny, who="x", why="a study")
    command = ("default", "--store", home / "c.sqlite", "--device", "cpu", "--json")
    held = gate(*command)
    assert (json.loads(held.stdout)["verdict"], json.loads(held.stdout)["promoted"]) == ("promote", False)
    assert "it passed and is not in use: the project is locked to" in " ".join(held.stderr.split())
    with CorrectionStore(home / "c.sqlite") as store:
        unlock(store, who="x", why="over")
    assert json.loads(gate(*command).stdout)["promoted"]
    with CorrectionStore(home / "c.sqlite") as store:
        change_settings(store, promote="ask")
        assert incumbent(store).version == shipped


def test_all_models_are_scored_without_a_look(gate, home):
    told = gate("--every-model", "--store", home / "c.sqlite", "--device", "cpu")
    assert told.returncode == 0, told.stderr
    assert f"2 models are scored on test set 1: {COUNT} frames of {COUNT} groups" in told.stderr
    assert told.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name the MODEL to judge, or give --every-model"),
        (["tiny", "--every-model"], "and not both"),
        (["nobody"], "knows no model 'nobody'"),
        (["default", "--against", "default"], "against itself"),
        (["tiny", "--who", " "], "--who is empty"),
        (["tiny", "--store", "nowhere.sqlite"], "there is no store"),
    ],
)
def test_what_cannot_be_is_refused(gate, home, arguments, words):
    if "--store" not in arguments:
        arguments = [*arguments, "--store", home / "c.sqlite"]
    told = gate(*arguments)
    assert told.returncode == 2
    assert words in " ".join(told.stderr.split())
    assert "Traceback" not in told.stderr
    assert told.stdout == ""


def test_only_the_model_in_use_gives_its_place(gate, home):
    with CorrectionStore(home / "c.sqlite") as store:
        used = incumbent(store).version
        other = next(v for v in Library(home / "sonoloop" / "models").versions() if v != used)
    told = gate(used[:8], "--against", other[:8], "--promote", "--store", home / "c.sqlite")
    assert told.returncode == 2
    assert "only a model that was judged against the one in use can take its place" in told.stderr


def test_a_locked_project_is_told_before_the_look_is_taken(gate, home):
    with CorrectionStore(home / "c.sqlite") as store:
        used = incumbent(store).version
        other = next(v for v in Library(home / "sonoloop" / "models").versions() if v != used)
        lock(store, used, who="x", why="a study")
        before = len(judging.evaluations(store))
        told = gate(other[:8], "--promote", "--store", home / "c.sqlite")
        assert told.returncode == 2
        assert "the project is locked to" in told.stderr
        assert len(judging.evaluations(store)) == before
        unlock(store, who="x", why="over")
