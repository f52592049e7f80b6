"""`sonoloop evaluate` as a process."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
from PIL import Image

from forked import Program
from sonoloop.imaging.phantom import phantom
from sonoloop.values import CLASSES


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """BUSI in small, of phantoms."""
    root = tmp_path_factory.mktemp("data")
    for label in CLASSES:
        (root / "BUSI" / label).mkdir(parents=True)
        for number in range(1, 5):
            made = phantom(label, seed=number, shape=(96, 128))
            Image.fromarray(made.image).save(root / "BUSI" / label / f"{label} ({number}).png")
            Image.fromarray(made.mask * 255).save(root / "BUSI" / label / f"{label} ({number})_mask.png")
    (root / "BUSI" / "busi_groups.json").write_text('{"groups": []}')
    return root


@pytest.fixture(scope="module")
def done(sonoloop, data, model, tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluated") / "out"
    arguments = ("--data", data, "--model", model, "--versus", model, "--out", out, "--device", "cpu")
    return out, sonoloop("evaluate", *arguments)


def test_the_table_holds_the_figures_of_the_file(done):
    out, told = done
    assert told.returncode == 0, told.stderr
    figures = json.loads((out / "results.json").read_text())["models"][0]["figures"]
    line = next(line for line in told.stdout.splitlines() if "Dice, images with a lesion" in line)
    low, high = figures["lesion_dice"]["ci95"]
    assert f"{figures['lesion_dice']['value']:.3f} [{low:.3f}, {high:.3f}]" in line
    assert line.split()[-1] == "8"
    # and once more by hospital: of this model nobody knows which it learned from
    assert any(line.split()[:3] == ["busi", "unknown", "12"] for line in told.stdout.splitlines())
    assert told.stdout.splitlines()[-1].endswith(f"report.html, results.json and cases.csv are in {out}")


def test_progress_and_notes_go_to_standard_error(done):
    _, told = done
    assert "Evaluating: 8 of 12" in told.stderr
    assert "Computing figures: 1 of 2" in told.stderr
    assert "it cannot be known whether some of these did" in told.stderr
    assert "Traceback" not in told.stderr
    assert "\x1b" not in told.stderr + told.stdout


def test_a_comparison_is_a_table_of_its_own(done):
    _, told = done
    assert "(12 images)" in told.stdout
    line = [line for line in told.stdout.splitlines() if "Dice, images with a lesion" in line][-1]
    assert "+0.000 [+0.000, +0.000]" in line
    assert "no difference shown" in line


def test_json_is_one_object_and_failures_give_exit_code_1(sonoloop, data, model, tmp_path):
    other = tmp_path / "data"
    shutil.copytree(data, other)
    broken = other / "BUSI" / "benign" / "benign (2).png"
    broken.write_bytes(broken.read_bytes()[:400])
    told = sonoloop("evaluate", "--data", other, "--model", model, "--out", tmp_path / "o", "--json")
    assert told.returncode == 1
    results = json.loads(told.stdout)
    assert results["images"] == 11
    assert results["models"][0]["figures"]["lesion_dice"]["n"] == 7
    assert "sonoloop: 1 of 12 images could not be judged:" in told.stderr
    assert "busi/benign (2): benign (2).png breaks off or is damaged" in told.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data", "nowhere"], "there is no folder nowhere"),
        (["--data", ".", "--model", "no-such"], "there is no model 'no-such'"),
        (["--data", ".", "--part", "train"], "--part"),
        (["--data", ".", "--views", "3"], "--views"),
        (["--data", ".", "--split", "nowhere.json"], "cannot read the split nowhere.json"),
        ([], "--data"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_written(sonoloop, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    told = sonoloop("evaluate", *arguments)
    assert told.returncode == 2
    assert words in " ".join(told.stderr.split())
    assert "Traceback" not in told.stderr
    assert told.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to a process group there")
def test_ctrl_c_ends_cleanly_and_writes_nothing(data, tmp_path):
    out = tmp_path / "out"
    options = ("--batch", 1, "--views", 4, "--device", "cpu")
    program = Program("sonoloop", "evaluate", "--data", data, "--out", out, *options)
    first = program.stderr.readline()
    program.interrupt()
    code, _, rest = program.end()
    assert "Evaluating" in first
    assert code == 130, rest
    assert "sonoloop: interrupted; nothing was written" in rest
    assert "Traceback" not in rest
    assert not out.exists()
