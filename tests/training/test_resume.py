"""A run that broke off, by Ctrl-C, a kill or a full disk, ends as if it had not; a wrong one is refused."""

from __future__ import annotations

import errno
import itertools
import json
import random
import shutil
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch

from forked import start_forked
from sonoloop.errors import TrainingError
from sonoloop.jobs.events import EpochDone, Started
from sonoloop.models.bundle import read_bundle
from sonoloop_training.__main__ import main

# every part that has a state between two epochs, and more draws than fit into whole batches
EVERYTHING = (
    "epochs=4",
    "draws=10",
    "small_epochs=2",
    "patience=3",
    "ema=0.9",
    "warmup=0.3",
    "strips=0.3",
    "dropout=0.3",
    'fit.weights={"busi/normal"=2.0, busi=0.5}',
    "augment.sector=0.5",
    "augment.overlay=0.5",
    "augment.elastic=0.5",
    "augment.resolution=0.5",
)


def epochs_of(events) -> list[EpochDone]:
    return [event for event in events if isinstance(event, EpochDone)]


def load(out: Path) -> dict:
    return torch.load(out / "checkpoint.pt", weights_only=True)


def assert_same(one: dict, other: dict) -> None:
    """Compare two states, every tensor to the last bit."""
    assert one.keys() == other.keys()
    for name, value in one.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, other[name]), name
        elif isinstance(value, dict):
            assert_same(value, other[name])
        elif name != "history":
            assert value == other[name], name


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, tiny, run_fit) -> tuple[list[EpochDone], dict]:
    """The epochs of a run, and what it left."""
    out = tmp_path_factory.mktemp("whole")
    return epochs_of(run_fit(tiny(*EVERYTHING), out)), load(out)


@pytest.mark.parametrize("stop_after", [1, 2, 3])
def test_a_resumed_run_is_the_uninterrupted_one_to_the_last_bit(
    tmp_path, tiny, run_fit, uninterrupted, stop_after
):
    recipe, (whole, state) = tiny(*EVERYTHING), uninterrupted
    run_fit(recipe, tmp_path / "broken", stop_after=stop_after)
    resumed = run_fit(recipe, tmp_path / "broken")
    assert isinstance(resumed[0], Started)
    assert resumed[0].epoch == stop_after
    later = epochs_of(resumed)
    assert [e.epoch for e in later] == [e.epoch for e in whole][stop_after:]
    assert [(e.loss, e.score, e.best_epoch) for e in later] == [
        (e.loss, e.score, e.best_epoch) for e in whole[stop_after:]
    ]
    assert state["best"]
    assert_same(state, load(tmp_path / "broken"))
    assert len((tmp_path / "broken" / "history.jsonl").read_text().splitlines()) == len(whole)


def test_an_epoch_that_broke_off_begins_again(tmp_path, tiny, run_fit, monkeypatch):
    recipe = tiny("epochs=2")
    whole = epochs_of(run_fit(recipe, tmp_path / "whole"))
    from sonoloop_training.fit import batches as steps

    real, calls = steps.make_batch, []

    def interrupted(*given, **named):
        calls.append(named["epoch"])
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*given, **named)

    monkeypatch.setattr(steps, "make_batch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_fit(recipe, tmp_path / "broken")
    assert calls == [0, 0, 1, 1]
    resumed = epochs_of(run_fit(recipe, tmp_path / "broken"))
    assert [e.loss for e in resumed] == [whole[1].loss]
    assert_same(load(tmp_path / "whole"), load(tmp_path / "broken"))


@pytest.fixture(scope="module")
def first_epoch(tmp_path_factory, tiny, run_fit) -> Path:
    out = tmp_path_factory.mktemp("first")
    run_fit(tiny(), out, stop_after=1)
    return out


@pytest.fixture
def broken(first_epoch, tmp_path) -> Path:
    """The folder of a run that broke off after its first epoch."""
    return Path(shutil.copytree(first_epoch, tmp_path / "broken"))


def stop_at_once(recipe, folder, run_fit, monkeypatch):
    """Break off in the first batch."""

    def interrupted(*_, **named):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("sonoloop_training.fit.batches.make_batch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_fit(recipe, folder)


def test_whoever_stops_in_the_first_epoch_has_a_checkpoint_to_go_on_from(
    tmp_path, tiny, run_fit, uninterrupted, monkeypatch
):
    recipe, (whole, state) = tiny(*EVERYTHING), uninterrupted
    stop_at_once(recipe, tmp_path / "broken", run_fit, monkeypatch)
    assert load(tmp_path / "broken")["epoch"] == 0
    assert not (tmp_path / "broken" / "history.jsonl").exists()
    resumed = epochs_of(run_fit(recipe, tmp_path / "broken"))
    assert [e.loss for e in resumed] == [e.loss for e in whole]
    assert_same(state, load(tmp_path / "broken"))


def test_what_learned_nothing_yet_may_begin_anew_in_another_way(tmp_path, tiny, run_fit, monkeypatch):
    stop_at_once(tiny("epochs=1"), tmp_path, run_fit, monkeypatch)
    # such as what it was told to do when memory ran out in the first batch
    changed = run_fit(tiny("epochs=1", "batch=2"), tmp_path, learns_from="b")
    assert changed[0].epoch == 0
    anew = run_fit(tiny("epochs=1", "batch=2"), tmp_path / "anew", learns_from="b")
    assert [e.loss for e in epochs_of(changed)] == [e.loss for e in epochs_of(anew)]
    assert_same(load(tmp_path), load(tmp_path / "anew"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": {}}, "was made with another recipe; give another --out, or delete it to start anew"),
        ({"learns_from": "b"}, "images it trained on could be tested; give another --out"),
        ({"precision": "bf16-mixed"}, "was computed in bf16-mixed, this run in 32-true"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(broken, tiny, run_fit, change, message):
    path = broken / "checkpoint.pt"
    torch.save(load(broken) | change, path)
    before = path.read_bytes()
    with pytest.raises(TrainingError, match=message) as refused:
        run_fit(tiny(), broken)
    assert str(path) in str(refused.value)
    assert path.read_bytes() == before


def test_a_run_goes_on_in_the_precision_it_began_with(tmp_path, tiny, run_fit, monkeypatch):
    recipe = tiny("precision=auto")
    # the trial on this machine may come to another answer each time
    monkeypatch.setattr("sonoloop_training.fit.devices.autocast_dtype", lambda _: torch.bfloat16)
    run_fit(recipe, tmp_path, stop_after=1)
    monkeypatch.setattr("sonoloop_training.fit.devices.autocast_dtype", lambda _: None)
    resumed = run_fit(recipe, tmp_path)
    assert (resumed[0].precision, resumed[0].epoch) == ("bf16-mixed", 1)
    assert run_fit(recipe, tmp_path / "anew", stop_after=1)[0].precision == "32-true"


def test_a_precision_that_the_device_lacks_is_refused(tmp_path, tiny, run_fit):
    recipe = tiny("precision=auto")
    run_fit(recipe, tmp_path, stop_after=1)
    torch.save(load(tmp_path) | {"precision": "16-mixed"}, tmp_path / "checkpoint.pt")
    with pytest.raises(TrainingError, match="was computed in 16-mixed, this run in "):
        run_fit(recipe, tmp_path)


def test_another_seed_or_another_split_is_another_training(broken, tiny, run_fit):
    with pytest.raises(TrainingError, match="another recipe"):
        run_fit(tiny("seed=5"), broken)
    with pytest.raises(TrainingError, match="another split"):
        run_fit(tiny(), broken, learns_from="b")


@pytest.mark.parametrize("keep", [0, 100, -1000])
def test_a_damaged_checkpoint_is_named(broken, tiny, run_fit, keep):
    path = broken / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(TrainingError, match=r"checkpoint\.pt is damaged \(.*; delete it to start anew"):
        run_fit(tiny(), broken)


@pytest.mark.parametrize("held", [{"epoch": 1}, [1, 2]])
def test_a_file_that_is_no_checkpoint_is_named(tmp_path, tiny, run_fit, held):
    torch.save(held, tmp_path / "checkpoint.pt")
    with pytest.raises(TrainingError, match=r"checkpoint\.pt is no checkpoint of this version of Sonoloop"):
        run_fit(tiny(), tmp_path)


def test_a_full_disk_keeps_the_last_good_checkpoint(tmp_path, tiny, run_fit, monkeypatch):
    recipe = tiny("epochs=2")

    def save(state, file):
        file.write(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", save)
        with pytest.raises(TrainingError, match=r"No space left on device\); nothing was learned yet: make "):
            run_fit(recipe, tmp_path / "full")
    assert list((tmp_path / "full").iterdir()) == []
    run_fit(recipe, tmp_path / "full", stop_after=1)
    before = (tmp_path / "full" / "checkpoint.pt").read_bytes()

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", save)
        with pytest.raises(
            TrainingError, match=r"No space left on device\); the checkpoint of the epoch bef"
        ):
            run_fit(recipe, tmp_path / "full")
    assert sorted(path.name for path in (tmp_path / "full").iterdir()) == ["checkpoint.pt", "history.jsonl"]
    assert (tmp_path / "full" / "checkpoint.pt").read_bytes() == before
    run_fit(recipe, tmp_path / "full")
    run_fit(recipe, tmp_path / "whole")
    assert_same(load(tmp_path / "whole"), load(tmp_path / "full"))


def test_a_file_that_may_grow_no_further_is_a_full_disk(tmp_path, tiny, run_fit):
    resource = pytest.importorskip("resource", reason="Windows limits no file's size")
    recipe = tiny("epochs=2")
    run_fit(recipe, tmp_path, stop_after=1)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    allowed = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, allowed[1]))
    try:
        with pytest.raises(TrainingError, match=r"checkpoint\.pt cannot be written \(.*File too large"):
            run_fit(recipe, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, allowed)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert not list(tmp_path.glob("*.tmp"))


def test_a_disk_that_is_full_for_the_history_keeps_the_new_checkpoint(tmp_path, tiny, run_fit, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    recipe = tiny("epochs=1")
    with monkeypatch.context() as patched:
        patched.setattr("sonoloop_training.fit.checkpoint.write_whole", full)
        with pytest.raises(
            TrainingError,
            match=r"history\.jsonl cannot be written \(No space .*\); epoch 1 is kept in checkpoint\.pt",
        ):
            run_fit(recipe, tmp_path)
    assert load(tmp_path)["epoch"] == 1
    # there is nothing left to learn, and the history is complete all the same
    assert epochs_of(run_fit(recipe, tmp_path)) == []
    assert len((tmp_path / "history.jsonl").read_text().splitlines()) == 1


def describe(out: Path) -> dict[str, object]:
    """What a run left, but for how long it took; the card holds the hash of the weights."""
    bundle = read_bundle(out / "bundle")
    card = json.loads(bundle.card.to_json())
    card["snapshot"].pop("minutes")
    history = json.loads((out / "bundle" / "history.json").read_text())
    losses = [(entry["epoch"], entry["loss"], entry["score"]) for entry in history]
    return {"card": card, "losses": losses, "split": (out / "split.json").read_text()}


def start(arguments: list[str], out: Path) -> BaseProcess:
    """Train in a process forked from a server that has loaded torch: it starts in a moment."""
    return start_forked(main, [*arguments, "--out", str(out)])


def train_killed(arguments: list[str], out: Path, *, kills: int, waits: Iterator[float]) -> list[float]:
    """Train in processes that are killed, until one ends; give after how many seconds each was."""
    killed: list[float] = []
    while not (out / "bundle").exists():
        process = start(arguments, out)
        wait = next(waits) if len(killed) < kills else 120.0
        process.join(wait)
        if process.exitcode is None and len(killed) < kills:
            process.kill()
            process.join()
            killed.append(wait)
        else:
            assert process.exitcode == 0
    return killed


@pytest.mark.parametrize(
    ("runs", "kills"), [(1, 1), pytest.param(8, 6, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
)
def test_a_run_killed_at_random_moments_makes_the_same_model(tmp_path, recipe_file, datasets, runs, kills):
    arguments = ["train", str(recipe_file), "--data", str(datasets), "--device", "cpu", "--threads", "1"]
    for setting in (*EVERYTHING, "draws=18", "final.epochs=2"):
        arguments += ["--set", setting]
    # refused at once; by then the server has loaded what it should
    start(["train", "gone"], tmp_path).join()
    begun = time.monotonic()
    process = start(arguments, tmp_path / "whole")
    process.join(120)
    seconds = time.monotonic() - begun
    assert process.exitcode == 0
    expected = describe(tmp_path / "whole")
    rng = random.Random(runs)
    waits = (rng.uniform(0.05, 0.6) * seconds for _ in itertools.count())
    total = 0
    for run in range(runs):
        out = tmp_path / str(run)
        killed = train_killed(arguments, out, kills=kills, waits=waits)
        total += len(killed)
        assert describe(out) == expected, killed
    assert total >= runs
