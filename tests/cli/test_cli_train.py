"""`sonoloop train` as a process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from forked import Program
from sonoloop.imaging.phantom import phantom
from sonoloop.jobs.events import EpochDone
from sonoloop.jobs.request import TrainRequest
from sonoloop.values import CLASSES

TINY = """
name = "tiny"
[model]
encoder = "tu-test_efficientnet"
size = 64
arguments = { decoder_channels = [32, 16, 8, 8, 4] }
[split]
validation = 0.25
test = 0.25
[fit]
graph = false
epochs = 4
batch = 4
draws = 8
pretrained = false
precision = "float32"
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(TINY)
    return path


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
    # none is a near-duplicate of another
    (root / "busi_groups.json").write_text('{"groups": []}')
    return root


def interrupt(arguments: list[object], *, after: str) -> tuple[int | None, list[str], str]:
    """Run `sonoloop`, press Ctrl-C once a line with `after` came, and give the code and both outputs."""
    program = Program("sonoloop", *arguments)
    lines = []
    for line in program.stdout:
        lines.append(line)
        if after in line:
            program.interrupt()
            break
    code, rest, stderr = program.end()
    return code, lines + rest.splitlines(), stderr


@pytest.fixture(scope="module")
def broken(recipe, busi, tmp_path_factory):
    """A run that Ctrl-C ended in its second epoch, its events printed."""
    if sys.platform == "win32":
        pytest.skip("no SIGINT to a process group there")
    out = tmp_path_factory.mktemp("runs") / "tiny"
    arguments = ["train", recipe, "--data", busi, "--out", out, "--device", "cpu", "--threads", 1]
    ended = interrupt([*arguments, "--set", "epochs=200", "--json"], after='"epoch_done"')
    return out, arguments, ended


def test_ctrl_c_ends_with_130_and_says_how_to_go_on(broken):
    out, _, (code, lines, stderr) = broken
    assert code == 130
    assert "sonoloop: interrupted; the same command goes on from the last epoch" in stderr
    assert "Traceback" not in stderr
    assert (out / "checkpoint.pt").is_file()
    assert not (out / "bundle").exists()
    events = [json.loads(line) for line in lines]
    assert [e["event"] for e in events if e["event"] not in ("progress", "step")][:2] == [
        "started",
        "epoch_done",
    ]


@pytest.fixture(scope="module")
def resumed(sonoloop, broken):
    """The same command once more, which then has fewer epochs to make."""
    import torch

    out, arguments, _ = broken
    # a run of 200 epochs would take too long: what is left of it is cut
    state = torch.load(out / "checkpoint.pt", weights_only=True)
    done = state["epoch"]
    state["recipe"]["fit"]["epochs"] = done + 1
    torch.save(state, out / "checkpoint.pt")
    return out, done, sonoloop(*arguments, "--set", f"epochs={done + 1}", "--resume")


def test_the_same_command_goes_on(resumed):
    out, done, ended = resumed
    assert ended.returncode == 0, ended.stderr
    # where a stage is slow there is a line now and then
    stages = ("Training: ", "Reading: ", "Calibrating: ", "Evaluating ", "Listing ")
    lines = [line for line in ended.stderr.splitlines() if not line.startswith(stages)]
    assert lines[0] == (
        f"tiny: 12 images train, 6 validate, 6 test; {done + 1} epochs, going on after epoch {done}; "
        "cpu in 32-true"
    )
    assert lines[1].startswith("about 0:00:0")
    assert lines[2].startswith(f"epoch {done + 1}/{done + 1}: loss ")
    assert "; on validation Dice " in lines[2]
    assert len(lines) == 3
    history = (out / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in history] == list(range(1, done + 2))


def test_the_result_alone_is_on_standard_output(resumed):
    out, _, ended = resumed
    lines = ended.stdout.splitlines()
    figures = json.loads((out / "results.json").read_text())
    assert lines[0].rstrip() == "busi: 6 test images"
    row = next(line for line in lines if line.strip().startswith("Dice over images with a lesion"))
    value = figures["metrics"]["test"]["busi"]["lesion_dice"]
    assert row.split()[-4:] == [
        f"{value['value']:.3f}", f"{value['ci95'][0]:.3f}", "to", f"{value['ci95'][1]:.3f}",
    ]  # fmt: skip
    assert lines[-1].startswith(f"{figures['model']} is in {out / 'bundle'}, made in ")
    assert lines[-1].endswith(f"all figures are in {out / 'results.json'}")
    assert "\x1b" not in ended.stdout + ended.stderr


def test_the_model_that_came_out_predicts(resumed, sonoloop, busi, tmp_path):
    out, _, _ = resumed
    image = busi / "benign" / "benign (1).png"
    ended = sonoloop("predict", image, "--model", out / "bundle", "--out", tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "predictions.csv").is_file()


def test_a_finished_run_is_not_overwritten(resumed, sonoloop, broken):
    out, arguments, _ = broken
    before = (out / "bundle" / "card.json").read_bytes()
    ended = sonoloop(*arguments)
    assert ended.returncode == 2
    assert ended.stderr == f"sonoloop: {out / 'bundle'} holds a finished model; give another --out\n"
    assert (out / "bundle" / "card.json").read_bytes() == before


def test_json_prints_the_events_and_nothing_else(sonoloop, recipe, busi, tmp_path):
    out = tmp_path / "out"
    arguments = ["train", recipe, "--data", busi, "--out", out, "--device", "cpu", "--threads", 1, "--json"]
    changes = ["--fold", 2, "--seed", 3, "--set", "folds=4", "--set", "epochs=1", "--set", "strips=0.2"]
    ended = sonoloop(*arguments, *changes, "--max-minutes", 30)
    assert ended.returncode == 0, ended.stderr
    events = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [e["event"] for e in events if e["event"] != "progress"] == [
        "started", "step", "epoch_done", "evaluated", "evaluated", "finished",
    ]  # fmt: skip
    assert ended.stderr == ""
    recorded = json.loads((out / "results.json").read_text())["recipe"]
    assert (recorded["split"]["method"], recorded["split"]["fold"], recorded["split"]["folds"]) == (
        "folds", 2, 4,
    )  # fmt: skip
    assert (recorded["fit"]["seed"], recorded["fit"]["epochs"], recorded["fit"]["strips"]) == (3, 1, 0.2)


def test_showing_augmentation_writes_the_picture_only(sonoloop, recipe, busi, tmp_path):
    out = tmp_path / "shown"
    ended = sonoloop("train", recipe, "--data", busi, "--out", out, "--show-augment")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == f"wrote {out / 'augmentation.png'}\n"
    assert [path.name for path in out.iterdir()] == ["augmentation.png"]
    with Image.open(out / "augmentation.png") as picture:
        # 24 pairs of 64 pixels, four a row
        assert picture.size == (8 * 64, 6 * 64)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--set", "epochs=0"], "the recipe's table fit is wrong: epochs must be at least 1, got 0"),
        (
            ["--set", "split.method=leaky"],
            "a split by image leaks twins into the test; if that is what you me",
        ),
        (["--data", "gone"], "there is no folder gone; give the folder with the datasets"),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_written(sonoloop, recipe, tmp_path, changes, message):
    out = tmp_path / "out"
    ended = sonoloop("train", recipe, "--data", tmp_path, "--out", out, "--device", "cpu", *changes)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"sonoloop: {message}")
    assert len(ended.stderr.splitlines()) == 1
    assert ended.stdout == ""
    assert not out.exists()


def test_resuming_needs_a_checkpoint(sonoloop, recipe, busi, tmp_path):
    out = tmp_path / "out"
    ended = sonoloop("train", recipe, "--data", busi, "--out", out, "--resume")
    assert ended.returncode == 2
    assert ended.stderr == (
        f"sonoloop: {out} holds no checkpoint to go on from; leave --resume out to begin\n"
    )
    assert not out.exists()


def test_a_signal_to_the_command_alone_ends_the_training_too(recipe, busi, tmp_path, monkeypatch):
    from sonoloop.jobs import process as training

    begun, start = [], subprocess.Popen

    def started(*line, **options):
        begun.append(start(*line, **options))
        return begun[-1]

    monkeypatch.setattr(subprocess, "Popen", started)
    monkeypatch.setattr(training, "_PATIENCE", 0.2)
    asked = TrainRequest(
        recipe=str(recipe), data=busi, out=tmp_path, device="cpu", settings=("epochs=5000",), threads=1
    )
    events = training.training_events(asked)
    for event in events:
        if isinstance(event, EpochDone):
            break
    with pytest.raises(KeyboardInterrupt):
        events.throw(KeyboardInterrupt)
    # it was ended, and waited for: nobody writes there any more
    (process,) = begun
    assert process.returncode == 130


def test_help_loads_no_torch():
    code = "import sys; sys.argv = ['sonoloop', 'train', '--help']\nfrom sonoloop.cli import main\n"
    code += "try:\n    main()\nexcept SystemExit:\n    pass\n"
    code += "import json\nprint('\\n' + json.dumps(sorted(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in json.loads(answer.stdout.splitlines()[-1])}
    assert not loaded & {"torch", "torchvision", "timm", "lightning", "sonoloop_training", "napari", "numpy"}
    assert "--show-augment" in answer.stdout
