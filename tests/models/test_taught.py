"""Which models say that they learned from an image."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sonoloop.models.bundle import save_bundle
from sonoloop.models.card import shipped_folder
from sonoloop.models.library import Library, find_taught


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "library")


@pytest.fixture
def add(library, tmp_path, network, card) -> Callable[[object], str]:
    """Add the model with a list of who trained it, and give its version."""

    def add(split: object) -> str:
        text = split if isinstance(split, str) else json.dumps(split)
        bundle = save_bundle(tmp_path / "run", network, card, beside={"split.json": text.encode()})
        library.add(tmp_path / "run")
        return bundle.version

    return add


@pytest.mark.parametrize(
    ("part", "key", "found"),
    [
        ("train", "id", True),
        ("train", "pixels_hash", True),
        ("validation", "id", True),
        ("test", "id", False),
        ("train", "group", False),
    ],
)
def test_a_model_is_found_by_the_images_that_taught_it(library, add, part, key, found):
    split = {part: [{"name": "a", key: "ab" * 32}, "b"]}
    version = add(split)
    names = {version: next(library.folder.iterdir()).name}
    assert find_taught(library, {"ab" * 32, "cd" * 32}) == (names if found else {})
    assert find_taught(library, {"cd" * 32}) == {}


def test_the_model_that_ships_says_so_too(library):
    listed = json.loads((shipped_folder() / "split.json").read_text())["train"][0]
    assert [name[:8] for name in find_taught(library, {listed["id"]}).values()] == ["default-"]


@pytest.mark.parametrize("split", ["not json", "[]", '{"train": 7}', '{"train": [7, null]}', "[" * 100_000])
def test_a_list_that_cannot_be_read_says_nothing(library, add, split):
    add(split)
    assert find_taught(library, {"ab" * 32}) == {}
