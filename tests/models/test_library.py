"""The models on this machine: added, found, exported, imported, deleted, and each way that goes wrong."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from zipfile import ZIP_BZIP2, ZIP_DEFLATED, ZIP_LZMA, ZipFile, ZipInfo

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from sonoloop.errors import BundleError, EngineError, ModelError
from sonoloop.models import library as library_module
from sonoloop.models.archive import copy_members, pack, unpack, verify_files
from sonoloop.models.bundle import CARD, WEIGHTS, Card, save_bundle
from sonoloop.models.card import FORMAT, GRAPH, read_card, read_graph, shipped_card, shipped_folder
from sonoloop.models.engines.auto import open_engine
from sonoloop.models.library import Library, bundle_folder
from sonoloop.models.predictor import Predictor

SPLIT = {
    "train": [
        {
            "name": "clinic/Anna Muster 1970.png",
            "group": "clinic/patient 4711",
            "id": "ab" * 32,
            "pixels_hash": "cd" * 32,
            "fingerprint": "0f" * 32,
        },
        {"name": "clinic/Anna Muster left.png", "group": "clinic/patient 4711", "id": "12" * 32},
        "clinic/Berta.png",
    ],
    "validation": [],
    "test": [],
}


@pytest.fixture
def library(tmp_path) -> Library:
    return Library(tmp_path / "library")


@pytest.fixture
def folder(tmp_path, network, card) -> Path:
    """A bundle as a training leaves it, with what lies beside it."""
    beside = {
        "split.json": json.dumps(SPLIT).encode(),
        "history.json": b"[]",
        "notes.txt": b"Anna Muster",
    }
    save_bundle(tmp_path / "run" / "bundle", network, card, beside=beside)
    return tmp_path / "run" / "bundle"


@pytest.fixture
def archive(tmp_path, library, folder) -> Path:
    """The bundle as exported by another machine."""
    other = Library(tmp_path / "elsewhere")
    other.add(folder)
    return other.export(read_card(folder).version, tmp_path / "tiny.zip")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def rewrite(archive: Path, change) -> None:
    """Write the archive anew; `change` takes and gives its members by name."""
    with ZipFile(archive) as file:
        members = {info.filename: file.read(info) for info in file.infolist()}
    with ZipFile(archive, "w") as file:
        for name, data in change(members).items():
            file.writestr(name, data)


def test_what_is_added_is_found_and_loaded(library, folder):
    card = read_card(folder)
    added = library.add(folder)
    assert added == library.folder / card.model
    assert names(added) == {CARD, WEIGHTS, "split.json", "history.json"}
    assert library.find(card.version) == added
    assert library.load(card.version).version == card.version
    assert names(library.folder) == {card.model}


def test_a_library_copy_needs_nothing_of_where_it_came_from(library, folder):
    version = read_card(folder).version
    library.add(folder)
    shutil.rmtree(folder)
    assert library.load(version).version == version


def test_adding_twice_changes_nothing(library, folder):
    added = library.add(folder)
    before = {path.name: path.stat().st_mtime_ns for path in added.iterdir()}
    assert library.add(folder) == added
    assert {path.name: path.stat().st_mtime_ns for path in added.iterdir()} == before


@pytest.mark.parametrize("name", [CARD, WEIGHTS])
def test_a_damaged_copy_is_refused_and_mended_by_adding_again(library, folder, name):
    card = read_card(folder)
    added = library.add(folder)
    flip(added / name)
    with pytest.raises(BundleError):
        library.load(card.version)
    with pytest.raises(BundleError):
        library.export(card.version, library.folder / "x.zip")
    library.add(folder)
    assert library.load(card.version).version == card.version
    assert names(library.folder) == {card.model}


def test_a_card_that_was_edited_is_refused_and_mended_by_adding_again(library, folder):
    card = read_card(folder)
    added = library.add(folder)
    values = json.loads((added / CARD).read_text()) | {"threshold": 0.9}
    (added / CARD).write_text(json.dumps(values))
    with pytest.raises(BundleError, match="not the one that was kept"):
        library.load(card.version)
    library.add(folder)
    assert library.load(card.version).card.threshold == card.threshold


@pytest.mark.parametrize("damaged", [False, True])
def test_threads_may_add_a_model_at_once(library, folder, monkeypatch, damaged):
    copies = []

    def copy(source: Path, target: Path) -> None:
        copies.append(target)
        time.sleep(0.1)
        copy_members(source, target)

    if damaged:
        flip(library.add(folder) / WEIGHTS)
    monkeypatch.setattr(library_module, "copy_members", copy)
    with ThreadPoolExecutor(6) as pool:
        (added,) = set(pool.map(library.add, [folder] * 6))
    verify_files(added)
    assert list(library.folder.iterdir()) == [added]
    assert len(copies) == 1


def test_a_damaged_bundle_is_not_added(library, folder):
    flip(folder / WEIGHTS)
    with pytest.raises(BundleError, match="not those its card names"):
        library.add(folder)
    assert names(library.folder) == set()


def test_links_are_not_followed(library, folder, tmp_path):
    (tmp_path / "secret.json").write_text("{}")
    (folder / "other.json").symlink_to(tmp_path / "secret.json")
    assert "other.json" not in names(library.add(folder))


def test_a_copy_that_breaks_off_leaves_nothing_under_the_models_name(library, folder, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(library_module, "copy_members", full)
    with pytest.raises(BundleError, match=r"No space left on device.*make room"):
        library.add(folder)
    assert names(library.folder) == set()


def test_what_a_killed_copy_left_is_swept_away_later(library, folder):
    left = library.folder / ".tiny-00000000.1.tmp"
    left.mkdir(parents=True)
    (left / CARD).write_text("{")
    assert library.versions().keys() == {shipped_card().version}
    library.add(folder)
    assert left.exists()
    os.utime(left, (time.time() - 7200,) * 2)
    (library.folder / read_card(folder).model / WEIGHTS).unlink()
    library.add(folder)
    assert not left.exists()


@pytest.mark.parametrize(
    "use", [Library.versions, lambda library: library.import_(library.folder / "no.zip")]
)
def test_what_a_killed_process_left_is_swept_at_the_next_use(library, use):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    others = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    for name in (f".tiny-1.{ended.pid}.ab12cd34.tmp", f".a.{ended.pid}.ab12cd34.gone.tmp"):
        (library.folder / name).mkdir(parents=True)
        (library.folder / name / CARD).write_text("{")
    kept = library.folder / f".import.{others.pid}.a_12cd34.tmp"
    kept.mkdir()
    (library.folder / f".link.{ended.pid}.ab12cd34.tmp").symlink_to(kept)
    with suppress(BundleError):
        use(library)
    others.communicate(b"\n")
    assert list(library.folder.iterdir()) == [kept]


def special(path: Path, kind: str) -> None:
    """Put what is no file, or too large to be one of ours, at a path."""
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "sparse":
        with path.open("wb") as file:
            file.truncate(40 << 30)
    elif kind == "socket":
        # a name of at most 100 characters
        with socket.socket(socket.AF_UNIX) as server, contextlib.chdir(path.parent):
            server.bind(path.name)
    else:
        path.symlink_to(kind)


SPECIAL = ["pipe", "folder", "sparse", "socket", "/dev/zero", "/dev/nowhere"]


@pytest.mark.skipif(os.name != "posix", reason="has no pipes")
@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("name", [CARD, WEIGHTS, "split.json"])
def test_what_is_no_file_of_a_bundle_is_named_at_once(library, folder, name, kind):
    special(folder / name, kind)
    with pytest.raises(BundleError, match=name):
        library.import_(folder)
    with pytest.raises(BundleError, match=name):
        library.add(folder)
    shutil.copytree(folder, library.folder / "broken", symlinks=True, copy_function=shutil.move)
    assert shipped_card().version in library.versions()
    assert library.load(shipped_card().version)


@pytest.mark.skipif(os.name != "posix", reason="has no pipes")
@pytest.mark.parametrize("kind", SPECIAL)
def test_what_is_no_archive_is_named_at_once(library, tmp_path, kind):
    special(tmp_path / "a.zip", kind)
    with pytest.raises(BundleError, match=r"a\.zip|model a"):
        library.import_(tmp_path / "a.zip")
    assert not library.folder.exists() or names(library.folder) == set()


def test_a_card_and_weights_may_be_links_to_files(library, folder, tmp_path):
    version = read_card(folder).version
    for name in (CARD, WEIGHTS, "split.json", "history.json"):
        (folder / name).rename(tmp_path / name)
        (folder / name).symlink_to(tmp_path / name)
    added = library.import_(folder)
    # what nobody judges could be any file
    assert names(added) == {CARD, WEIGHTS, "split.json"}
    assert not any(path.is_symlink() for path in added.iterdir())
    assert library.load(version).version == version


def test_the_shipped_model_is_there_without_a_copy_and_stays_after_an_upgrade(library, monkeypatch, tmp_path):
    version = shipped_card().version
    assert library.find(version) == shipped_folder()
    library.keep(version)
    kept = library.find(version)
    assert kept.parent == library.folder
    monkeypatch.setattr(library_module, "shipped_folder", lambda: tmp_path / "newer")
    assert library.load(version).version == version


def test_a_library_that_cannot_be_written_to_still_predicts_with_the_shipped_model(tmp_path):
    (tmp_path / "file").write_text("in the way")
    said: list[str] = []
    version = shipped_card().version
    folder = Library(tmp_path / "file").keep(version, on_notice=said.append)
    assert read_card(folder).version == version
    assert len(said) == 1
    assert "cannot be copied" in said[0]


def test_a_version_in_use_predicts_and_is_named(monkeypatch, tmp_path, folder):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr(library_module, "models_folder", lambda: tmp_path / "models")
    card = read_card(folder)
    Library().add(folder)
    assert Predictor(open_engine(Library().keep(card.version), "cpu")).card == card
    with pytest.raises(ModelError, match="not on this machine: import it"):
        Library().keep("0" * 64)


def test_a_model_of_the_library_is_named_by_its_id(monkeypatch, tmp_path, folder):
    monkeypatch.setattr("sonoloop.models.library.models_folder", lambda: tmp_path / "models")
    added = Library(tmp_path / "models").add(folder)
    assert bundle_folder(added.name) == added
    with pytest.raises(ModelError, match=added.name):
        bundle_folder("nowhere")


def test_a_folder_put_there_by_hand_is_found_and_not_deleted(library, folder):
    version = read_card(folder).version
    library.folder.mkdir()
    shutil.copytree(folder, library.folder / "mine")
    assert library.find(version) == library.folder / "mine"
    with pytest.raises(BundleError, match="by hand"):
        library.delete(version)
    assert library.load(version).version == version


def test_deleting_deletes_that_model_alone(library, folder, tmp_path, network):
    other = save_bundle(tmp_path / "other", network, Card(name="other", spec=read_card(folder).spec))
    library.add(tmp_path / "other")
    library.add(folder)
    version = read_card(folder).version
    library.delete(version)
    library.delete(version)
    assert set(library.versions()) == {other.version, shipped_card().version}
    with pytest.raises(ModelError, match=f"{version[:8]} is not on this machine"):
        library.find(version)
    library.delete(shipped_card().version)
    assert library.load(shipped_card().version)


def test_a_damaged_copy_can_be_deleted(library, folder):
    version = read_card(folder).version
    (library.add(folder) / CARD).write_text("{")
    library.delete(version)
    assert names(library.folder) == set()


def test_what_is_exported_is_imported_whole(library, archive, folder):
    card = read_card(folder)
    added = library.import_(archive)
    assert read_card(added).version == card.version
    assert names(added) == {CARD, WEIGHTS, "split.json", "history.json"}
    assert torch.equal(
        next(library.load(card.version).network.parameters()),
        next(Library(archive.parent / "elsewhere").load(card.version).network.parameters()),
    )
    assert names(library.folder) == {card.model}


def test_an_export_names_nobody_and_still_knows_the_images(archive):
    with ZipFile(archive) as file:
        everything = b"".join(file.read(name) for name in file.namelist())
        listed = json.loads(file.read(next(n for n in file.namelist() if n.endswith("split.json"))))
    for name in (b"Anna", b"Berta", b"4711", b"clinic"):
        assert name not in everything
    first, second, third = listed["train"]
    assert {key: first[key] for key in ("id", "pixels_hash", "fingerprint")} == {
        key: SPLIT["train"][0][key] for key in ("id", "pixels_hash", "fingerprint")
    }
    assert first["group"] == second["group"] != ""
    assert third == {"name": "image-3"}


def test_an_export_keeps_what_the_package_names_itself(library, tmp_path):
    version = shipped_card().version
    path = library.export(version, tmp_path / "default.zip")
    with ZipFile(path) as file:
        member = next(n for n in file.namelist() if n.endswith("split.json"))
        assert json.loads(file.read(member)) == json.loads((shipped_folder() / "split.json").read_text())


def test_a_list_in_an_unknown_form_is_not_exported(library, folder, tmp_path):
    (folder / "split.json").write_text('["Anna"]')
    library.add(folder)
    path = library.export(read_card(folder).version, tmp_path / "x.zip")
    with ZipFile(path) as file:
        assert not any(name.endswith("split.json") for name in file.namelist())


def test_an_export_under_a_name_that_is_too_long_is_refused_in_words(library, folder, tmp_path):
    library.add(folder)
    with pytest.raises(BundleError, match="cannot be written"):
        library.export(read_card(folder).version, tmp_path / f"{'n' * 300}.zip")


def test_an_export_overwrites_nothing(library, folder, tmp_path):
    library.add(folder)
    (tmp_path / "mine.zip").write_text("mine")
    with pytest.raises(BundleError, match="is there already"):
        library.export(read_card(folder).version, tmp_path / "mine.zip")
    assert (tmp_path / "mine.zip").read_text() == "mine"
    with pytest.raises(BundleError, match="cannot be written"):
        library.export(read_card(folder).version, tmp_path / "nowhere" / "x.zip")


def test_the_same_model_gives_the_same_file(library, folder, tmp_path):
    library.add(folder)
    version = read_card(folder).version
    one, other = (library.export(version, tmp_path / name) for name in ("1.zip", "2.zip"))
    assert one.read_bytes() == other.read_bytes()


def test_a_folder_is_imported_and_its_card_stands_for_it(library, folder):
    assert library.import_(folder / CARD) == library.import_(folder)
    assert library.load(read_card(folder).version)


@pytest.mark.parametrize(
    "name",
    ["../evil.json", "/etc/evil.json", "tiny/../../evil.json", "C:\\evil.json", "..\\evil.json"],
)
def test_an_archive_with_a_path_that_leads_out_is_refused_whole(library, archive, name):
    rewrite(archive, lambda members: members | {name: b"{}"})
    with pytest.raises(BundleError, match="not safe; nothing was imported"):
        library.import_(archive)
    assert names(library.folder) == set()
    assert not list(archive.parent.rglob("evil.json"))


def test_an_archive_with_a_link_is_refused(library, archive):
    info = ZipInfo("tiny/split.json.lnk")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with ZipFile(archive, "a") as file:
        file.writestr(info, "/etc/passwd")
    with pytest.raises(BundleError, match="a link or no file"):
        library.import_(archive)


def test_files_that_are_no_part_of_a_bundle_are_passed_over(library, archive):
    def clutter(members):
        return members | {"__MACOSX/._card": b"x", "tiny-evil.py": b"import os", "x/.hidden": b"x"}

    rewrite(archive, clutter)
    assert names(library.import_(archive)) == {CARD, WEIGHTS, "split.json", "history.json"}


def test_a_card_that_promises_to_be_small_and_is_not_is_refused(library, archive):
    def bomb(members):
        return {name: b" " * (5 << 20) if name.endswith(CARD) else data for name, data in members.items()}

    rewrite(archive, bomb)
    with pytest.raises(BundleError, match="more than"):
        library.import_(archive)


def test_a_member_larger_than_its_header_says_is_refused(library, archive):
    data = bytearray(archive.read_bytes())
    # the size unpacked, in the last central directory entry
    place = data.rfind(b"PK\x01\x02") + 24
    size = int.from_bytes(data[place : place + 4], "little")
    data[place : place + 4] = (size - 1).to_bytes(4, "little")
    archive.write_bytes(data)
    with pytest.raises(BundleError, match="damaged"):
        library.import_(archive)
    assert names(library.folder) == set()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: {}, "no model"),
        (lambda m: m | {f"other/{CARD}": b"{}"}, "2 models"),
        (lambda m: {n: d for n, d in m.items() if not n.endswith(WEIGHTS)}, WEIGHTS),
        (lambda m: {n: d[:-8] + bytes(8) if n.endswith(WEIGHTS) else d for n, d in m.items()}, "not those"),
        (
            lambda m: {
                n: d.replace(f'"format": "{FORMAT}"'.encode(), b'"format": "3.0"') for n, d in m.items()
            },
            "update Sonoloop",
        ),
        (
            lambda m: {
                n: d.replace(b'"normal",\n  "benign"', b'"benign",\n  "normal"') for n, d in m.items()
            },
            "classes must be normal, benign, malignant",
        ),
    ],
)
def test_an_archive_that_is_no_bundle_is_refused(library, archive, change, message):
    rewrite(archive, change)
    with pytest.raises(BundleError, match=message):
        library.import_(archive)
    assert names(library.folder) == set()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_with_a_file_twice_is_refused(library, archive):
    with ZipFile(archive, "a", ZIP_DEFLATED) as file:
        member = next(name for name in file.namelist() if name.endswith(WEIGHTS))
        file.writestr(member, b"other weights")
    with pytest.raises(BundleError, match="twice"):
        library.import_(archive)


def test_every_cut_of_an_archive_is_refused(library, archive):
    data = archive.read_bytes()
    for share in (0.0, 0.01, 0.3, 0.6, 0.9, 0.999):
        archive.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(BundleError):
            library.import_(archive)
    assert names(library.folder) == set()


def test_an_encrypted_archive_and_a_missing_one_are_named(library, archive, tmp_path):
    data = bytearray(archive.read_bytes())
    with ZipFile(archive) as file:
        infos = file.infolist()
    for marker, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        place = 0
        for _ in infos:
            place = data.find(marker, place + 1) if place or data[:4] != marker else 0
            data[place + offset] |= 1
            place += 1
    archive.write_bytes(data)
    with pytest.raises(BundleError, match="encrypted"):
        library.import_(archive)
    with pytest.raises(BundleError, match="no file or folder"):
        library.import_(tmp_path / "nowhere.zip")
    (tmp_path / "text.zip").write_text("hello")
    with pytest.raises(BundleError, match="no zip file"):
        library.import_(tmp_path / "text.zip")


def test_zip_files_are_never_unpacked_by_zipfile_itself():
    source = (Path(library_module.__file__).parent / "archive.py").read_text()
    assert "extractall" not in source
    assert ".extract(" not in source


def test_only_what_an_export_writes_is_unpacked(library, archive):
    # each within its own limit, and no end to how many
    rewrite(
        archive, lambda members: members | {f"{folder_of(members)}/more-{n}.json": b"{}" for n in range(3)}
    )
    assert names(library.import_(archive)) == {CARD, WEIGHTS, "split.json", "history.json"}


@pytest.mark.parametrize("packing", [ZIP_BZIP2, ZIP_LZMA])
def test_an_archive_is_packed_in_the_ordinary_way(library, archive, packing):
    with ZipFile(archive) as file:
        members = {info.filename: file.read(info) for info in file.infolist()}
    with ZipFile(archive, "w", packing) as file:
        for name, data in members.items():
            file.writestr(name, data)
    with pytest.raises(BundleError, match="packed in a way of its own"):
        library.import_(archive)


def test_an_archive_that_unpacks_to_far_more_is_refused(library, archive):
    with ZipFile(archive) as file:
        members = {info.filename: file.read(info) for info in file.infolist()}
    with ZipFile(archive, "w", ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, bytes(30 << 20) if name.endswith(WEIGHTS) else data)
    with pytest.raises(
        BundleError, match=r"weights\.safetensors in tiny\.zip unpacks from .* to 30 MiB, more than"
    ):
        library.import_(archive)


def test_a_list_of_members_without_end_is_not_read(library, archive):
    with ZipFile(archive, "a") as file:
        for number in range(40_000):
            info = ZipInfo(f"{number}")
            info.comment = b" " * 100
            file.writestr(info, b"")
    with pytest.raises(BundleError, match="its list of members is too long"):
        library.import_(archive)


def test_a_damaged_archive_is_refused_wherever_it_is_damaged(archive, tmp_path):
    data = archive.read_bytes()
    rng = np.random.default_rng(0)
    # headers, where most can go wrong, lie at both ends
    places = [*rng.integers(0, 200, 60), *(len(data) - rng.integers(1, 500, 150))]
    for number, place in enumerate(places):
        damaged = bytearray(data)
        damaged[place] ^= 1 << rng.integers(0, 8)
        archive.write_bytes(damaged)
        with suppress(BundleError):  # a date may change, and a comment
            folder = tmp_path / f"{number}"
            folder.mkdir()
            unpack(archive, folder)


def folder_of(members) -> str:
    return next(iter(members)).split("/")[0]


@pytest.mark.parametrize(
    "split",
    [
        "[" * 100_000,
        '["Anna"]',
        json.dumps({"train": [{"name": "a", "fingerprint": "zz" * 32}]}),
        json.dumps({"train": [{"name": "a", "fingerprint": "0f"}]}),
        json.dumps({"train": [{"name": "a", "id": 7}]}),
        json.dumps({"train": [{"id": "ab" * 32}]}),
        json.dumps({"train": [None]}),
    ],
)
def test_a_model_whose_list_of_who_trained_it_cannot_be_read_is_not_let_in(library, archive, folder, split):
    def change(members):
        return {
            name: split.encode() if name.endswith("split.json") else held for name, held in members.items()
        }

    rewrite(archive, change)
    (folder / "split.json").write_text(split)
    for source in (archive, folder):
        with pytest.raises(BundleError, match=r"split\.json of the model.*cannot be used"):
            library.import_(source)
    assert names(library.folder) == set()


@pytest.mark.parametrize("parent", ["abc", "A" * 64, "", 7, ["a"]])
def test_a_model_with_a_parent_that_is_no_version_is_not_let_in(library, folder, parent):
    values = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps(values | {"parent": parent}))
    with pytest.raises(BundleError, match=r"parent must be (a version|text)"):
        library.import_(folder)
    assert not library.folder.exists()


def with_graph(folder, data):
    """A bundle whose card names another graph."""
    (folder / GRAPH).write_bytes(data)
    values = json.loads((folder / CARD).read_text())
    values["graphs"] = {GRAPH: hashlib.sha256(data).hexdigest()}
    (folder / CARD).write_text(json.dumps(values))
    return folder


def test_a_graph_travels_with_its_model(library, tmp_path):
    data = read_graph(shipped_folder(), shipped_card())
    added = library.import_(pack(shipped_folder(), tmp_path / "a.zip"))
    assert (added / GRAPH).read_bytes() == data
    assert read_card(added).version == shipped_card().version
    flip(added / GRAPH)
    with pytest.raises(BundleError, match=r"graph\.onnx of the model .* is not the one its card names"):
        verify_files(added)


def test_a_hostile_graph_is_not_let_in(library, tmp_path):
    folder = Path(shutil.copytree(shipped_folder(), tmp_path / "copy"))
    data = read_graph(folder, shipped_card())
    with pytest.raises(EngineError, match=r"the graph of the model .* cannot be used"):
        library.import_(with_graph(folder, data[:-100]))
    # it says "malignant" where the weights say "benign"
    graph = onnx.load_from_string(data)
    heads = {each.name: each for each in graph.graph.initializer if "classification_head" in each.name}
    for name, tensor in heads.items():
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor)[::-1].copy(), name))
    assert heads
    with_graph(folder, graph.SerializeToString())
    with pytest.raises(ModelError, match=r"the graph of the model .* answers otherwise than its network"):
        library.import_(folder)
    assert not library.folder.exists()


def test_without_onnx_runtime_a_graph_is_not_compared(library, monkeypatch):
    monkeypatch.setattr(library_module, "is_usable", lambda: False)
    assert library.import_(shipped_folder()).is_dir()
