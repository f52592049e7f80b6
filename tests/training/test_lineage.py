"""Who trained the model that a training starts from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sonoloop.errors import TrainingError
from sonoloop.jobs.events import Finished, Notice
from sonoloop_training.fit.train import train

QUICK = ("epochs=1", "draws=4")


@pytest.fixture(scope="module")
def first(tiny, datasets, tmp_path_factory) -> Path:
    """A model made on the tiny recipe's own split."""
    out = tmp_path_factory.mktemp("lineage") / "first"
    list(train(tiny(*QUICK), datasets, out, device="cpu"))
    return out / "bundle"


def members(bundle: Path) -> dict[str, list[dict[str, Any]]]:
    return json.loads((bundle / "split.json").read_text())


def test_a_start_that_saw_the_judges_is_refused_and_nothing_is_written(tiny, datasets, first, tmp_path):
    other = tiny(*QUICK, f"fit.start={first}", "split.key=another")
    with pytest.raises(TrainingError, match=r"of the images that are to judge trained .* already, such as"):
        list(train(other, datasets, tmp_path / "out", device="cpu"))
    assert not (tmp_path / "out").exists()


def test_those_who_trained_the_start_are_listed_with_the_new_model(tiny, datasets, first, tmp_path):
    # on BUS-BRA alone, in the parts that they had
    split = f"split.file={first.parent / 'split.json'}"
    recipe = tiny(*QUICK, f"fit.start={first}", "split.method=file", split)
    events = list(train(recipe, datasets / "BUSBRA", tmp_path / "out", device="cpu"))
    assert isinstance(events[-1], Finished)
    now, before = members(tmp_path / "out" / "bundle"), members(first)
    assert {m["name"] for m in now["train"]} == {m["name"] for m in before["train"]}
    assert all(m["name"].startswith("busbra/") for m in now["test"])


def test_a_start_without_a_list_is_told(tiny, datasets, first, tmp_path):
    (bare := tmp_path / "bare").mkdir()
    for name in ("card.json", "weights.safetensors"):
        (bare / name).write_bytes((first / name).read_bytes())
    events = train(tiny(*QUICK, f"fit.start={bare}", "split.key=another"), datasets, tmp_path / "out")
    notice = next(event for event in events if isinstance(event, Notice))
    assert "does not say who trained it" in notice.message
    # made on the same split, it had the same images
    same = train(tiny(*QUICK, f"fit.start={bare}"), datasets, tmp_path / "same", device="cpu")
    assert not [event for event in same if isinstance(event, Notice)]
