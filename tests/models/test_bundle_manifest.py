"""Who trained a model: its list read, written, without names, and searched for an image."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sonoloop.errors import BundleError, TrainingError
from sonoloop.models.bundle import save_bundle
from sonoloop.models.card import shipped_card, shipped_folder
from sonoloop.models.library import Library, find_models_trained_on
from sonoloop.models.manifest import Manifest, Member, bundle_manifest, read_manifest


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
    assert find_models_trained_on(library, {"ab" * 32, "cd" * 32}) == (names if found else {})
    assert find_models_trained_on(library, {"cd" * 32}) == {}


def test_the_model_that_ships_says_so_too(library):
    listed = json.loads((shipped_folder() / "split.json").read_text())["train"][0]
    assert [name[:8] for name in find_models_trained_on(library, {listed["id"]}).values()] == ["default-"]


@pytest.mark.parametrize("split", ["not json", "[]", '{"train": 7}', '{"train": [7, null]}', "[" * 100_000])
def test_a_list_that_cannot_be_read_says_nothing(library, add, split):
    add(split)
    assert find_models_trained_on(library, {"ab" * 32}) == {}


@pytest.mark.parametrize("entries", ["abc", {"a": 1}, None, 7])
def test_a_part_that_is_no_list_is_refused(tmp_path, entries):
    split = tmp_path / "split.json"
    split.write_text(json.dumps({"train": entries}))
    with pytest.raises(TypeError, match="train is no list"):
        Manifest.from_json(split.read_text())
    with pytest.raises(
        BundleError, match=r"split\.json of the model.*train is no list.*export the model again"
    ):
        bundle_manifest(tmp_path)
    with pytest.raises(TrainingError, match="is no split"):
        read_manifest(split)


def test_a_manifest_is_written_as_it_was_read():
    listed = {"name": "busi/a", "group": "busi/g", "id": "1", "pixels_hash": "2", "fingerprint": "3f" * 32}
    manifest = Manifest(train=(Member(**listed), Member(name="busi/b")), test=(Member(name="c", id="9"),))
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert json.loads(manifest.to_json()) == {
        "train": [listed, {"name": "busi/b"}],
        "validation": [],
        "test": [{"name": "c", "id": "9"}],
    }


def test_the_shipped_list_is_read_and_hashed_as_its_card_says():
    manifest = bundle_manifest(shipped_folder())
    assert manifest.sha256 == shipped_card().snapshot["members_sha256"]
    assert manifest.to_json() == (shipped_folder() / "split.json").read_bytes()


def test_without_names_the_images_of_a_group_stay_together():
    anna = [Member(name=f"clinic/Anna {side}", group="clinic/4711", id=str(side) * 64) for side in (1, 2)]
    known = Member(name="busi/a", group="busi/g", id="3" * 64)
    manifest = Manifest(train=(*anna, Member(name="Berta")), test=(replace(known, name="mine"), anna[0]))
    nameless = manifest.without_names(Manifest(train=(known,)))
    one, two, three = nameless.train
    assert (one.name, two.name, three.name) == ("1" * 16, "2" * 16, "image-3")
    assert one.group == two.group == nameless.test[1].group == f"group-{'1' * 16}"
    assert nameless.test[0] == known
    assert [member.id for member in nameless.train] == [member.id for member in manifest.train]
