"""Tables, lists, recipes and archives that are no files, or no such files, are refused by name at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sonoloop.errors import SonoloopError
from sonoloop.jobs.folder import open_job
from sonoloop_training.datasets.groups import read_groups
from sonoloop_training.datasets.sample import read_table
from sonoloop_training.datasets.unpack import unpack
from sonoloop_training.fit.recipe import read_recipe
from sonoloop_training.splits.folds import has_folds

READERS = {
    "table.csv": read_table,
    "table.xlsx": read_table,
    "groups.json": read_groups,
    "split.json": has_folds,
    "recipe.toml": lambda path: read_recipe(str(path), ()),
    "busi.zip": lambda path: list(unpack(path, path.with_name("out"))),
    "busi.parquet": lambda path: list(unpack(path, path.with_name("out"))),
    "job.json": lambda path: open_job(path.parent),
}


def make_huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 40 << 30)


SPOILT = {
    "a pipe": getattr(os, "mkfifo", None),
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "40 GiB": make_huge,
    "Too many levels": lambda path: path.symlink_to(path),
}


@pytest.mark.skipif(os.name != "posix", reason="Windows has no pipes or devices in folders")
@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("said", SPOILT)
def test_what_is_no_file_is_refused_by_name(name, said, tmp_path):
    path = tmp_path / name
    SPOILT[said](path)
    # an unpacking looks whether there is one, and a loop leads nowhere
    either = f"{said}|there is no" if said.startswith("Too many") else said
    with pytest.raises(SonoloopError, match=either) as caught:
        READERS[name](path)
    assert str(path) in str(caught.value) or str(tmp_path) in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["groups.json", "split.json", "job.json"])
def test_json_that_is_too_deep_is_refused(name, tmp_path):
    (tmp_path / name).write_text("[" * 200_000)
    with pytest.raises(SonoloopError, match=str(tmp_path)):
        READERS[name](tmp_path / name)
