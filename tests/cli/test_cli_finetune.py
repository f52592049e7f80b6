"""`sonoloop import` and `sonoloop finetune` as processes, from a folder of masks to the gate's verdict."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from forked import Program
from sonoloop.imaging.phantom import phantom
from sonoloop.values import CLASSES

SETTINGS = ["steps=2", "epochs=1", "batch=4", "l2sp=1", "graph=false", "precision=float32"]


def set_all(settings: list[str]) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


@pytest.fixture(scope="module")
def busi(tmp_path_factory) -> Path:
    """Eight phantoms of each class in BUSI's layout."""
    root = tmp_path_factory.mktemp("data") / "BUSI"
    for label in CLASSES:
        (root / label).mkdir(parents=True)
        for number in range(1, 9):
            made = phantom(label, seed=number, shape=(96, 128))
            Image.fromarray(made.image).save(root / label / f"{label} ({number}).png")
            Image.fromarray(made.mask * 255).save(root / label / f"{label} ({number})_mask.png")
    (root / "busi_groups.json").write_text('{"groups": []}')
    return root


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A data folder of its own, for the library."""
    folder = tmp_path_factory.mktemp("home")
    before = os.environ.get("XDG_DATA_HOME")
    os.environ["XDG_DATA_HOME"] = str(folder)
    yield folder
    if before is None:
        del os.environ["XDG_DATA_HOME"]
    else:
        os.environ["XDG_DATA_HOME"] = before


@pytest.fixture(scope="module")
def imported(sonoloop, home, busi):
    url = home / "store.sqlite"
    return url, sonoloop("import", busi, "--format", "busi", "--annotator", "anna", "--store", url)


@pytest.fixture(scope="module")
def tuned(sonoloop, imported, model):
    url, _ = imported
    arguments = ["finetune", "--store", url, "--from", model, "--who", "anna", "--device", "cpu"]
    return sonoloop(*arguments, "--threads", 1, *set_all(SETTINGS))


def test_an_import_ends_with_a_table(imported, sonoloop, busi):
    url, ended = imported
    assert ended.returncode == 0, ended.stderr
    lines = [line.strip() for line in ended.stdout.splitlines()]
    assert lines[0] == "busi by anna"
    rows = {line.rpartition(" ")[0].strip(): line.rpartition(" ")[2] for line in lines[2:]}
    assert rows["new corrections"] == "24"
    assert [rows[label] for label in CLASSES] == ["8", "8", "8"]
    roles = [int(count) for what, count in rows.items() if what.startswith(("train", "only judge"))]
    assert sum(roles) == 24
    again = sonoloop("import", busi, "--format", "busi", "--annotator", "anna", "--store", url, "--json")
    done = json.loads(again.stdout.splitlines()[-1])
    assert (done["event"], done["new"], done["known"]) == ("imported", 0, 24)


def test_a_finetuning_says_what_is_learned_and_what_came_out(tuned):
    assert tuned.returncode == 0, tuned.stderr
    stages = ("Training: ", "Reading: ", "Listing ", "Looking ", "Judging", "Scoring", "Drawing")
    lines = [line for line in tuned.stderr.splitlines() if not line.startswith(stages)]
    first = lines[0]
    assert first.startswith("tiny-")
    assert " corrections (" in first
    assert first.endswith(" groups only judge")
    assert any(line.startswith("ft: ") and " images train" in line for line in lines)
    # nothing is watched where there are few groups
    epoch = next(line for line in lines if line.startswith("epoch 1/1: loss "))
    assert "validation" not in epoch
    told = tuned.stdout.splitlines()
    assert told[0].startswith("ft-")
    assert told[1].partition(":")[0] in ("promote", "refuse", "inconclusive")
    assert told[2].startswith("the model in use stays; `sonoloop models use ft-")
    assert len(told) == 3
    assert "\x1b" not in tuned.stdout + tuned.stderr


def test_the_new_model_is_in_the_library_and_predicts(tuned, home, sonoloop, busi, tmp_path):
    name = tuned.stdout.split(" ", 1)[0]
    folder = home / "sonoloop" / "models" / name
    assert (folder / "card.json").is_file()
    ended = sonoloop("predict", busi / "benign" / "benign (1).png", "--model", folder, "--out", tmp_path)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to a process group there")
def test_ctrl_c_says_how_to_go_on_and_that_works(imported, tuned, model, sonoloop):
    url, _ = imported
    arguments = ["finetune", "--store", url, "--from", model, "--device", "cpu", "--threads", 1]
    changes = ["--no-gate", "--json", *set_all([*SETTINGS, "epochs=2"])]
    program = Program("sonoloop", *arguments, *changes)
    folder = ""
    for line in program.stdout:
        event = json.loads(line)
        if event["event"] == "job":
            folder = event["folder"]
        if event["event"] == "epoch_done":
            program.interrupt()
            break
    code, _, stderr = program.end()
    assert code == 130
    assert stderr == f"sonoloop: interrupted; sonoloop finetune --job {folder} goes on from the last epoch\n"
    assert (Path(folder) / "checkpoint.pt").is_file()
    ended = sonoloop("finetune", "--job", folder, "--no-gate", "--json")
    assert ended.returncode == 0, ended.stderr
    events = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [e["epoch"] for e in events if e["event"] == "epoch_done"] == [2]
    assert events[-1]["event"] == "finished"


def test_what_is_wrong_is_one_line(sonoloop, imported):
    ended = sonoloop("finetune", "--store", imported[0], "--set", "layers=last")
    assert ended.returncode == 2
    assert ended.stderr.startswith("sonoloop: the recipe's table fit is wrong: layers must be one of all, ")
    assert len(ended.stderr.splitlines()) == 1
    assert ended.stdout == ""


@pytest.mark.parametrize("command", ["finetune", "import"])
def test_help_loads_no_torch(command):
    code = f"import sys; sys.argv = ['sonoloop', '{command}', '--help']\nfrom sonoloop.cli import main\n"
    code += "try:\n    main()\nexcept SystemExit:\n    pass\n"
    code += "import json\nprint('\\n' + json.dumps(sorted(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in json.loads(answer.stdout.splitlines()[-1])}
    assert not loaded & {"torch", "sqlalchemy", "lightning", "sonoloop_training", "napari", "numpy"}
    assert "--store" in answer.stdout
