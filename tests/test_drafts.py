from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sonoloop import drafts
from sonoloop.drafts import Draft, DraftFolder, draft_folder, erase_drafts
from sonoloop.errors import DraftError

ONE, OTHER = "1" * 64, "2" * 64


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def folder(tmp_path, told) -> DraftFolder:
    return DraftFolder(tmp_path / "drafts", store="study.sqlite", on_notice=told.append)


def make(frame_id=ONE, **values) -> Draft:
    mask = np.zeros((20, 30), np.uint8)
    mask[3:9, 4:20] = 2
    given = {
        "frame_id": frame_id,
        "pixels_hash": "a" * 64,
        "mask": mask,
        "annotator": "anna",
        "label": "benign",
        "lesions": {2: "malignant"},
        "model": "default-1",
        "seen": True,
        "parent": "revision-1",
        "path": Path("/images/Bjørk (1).png"),
        "index": 3,
        "written": datetime(2026, 5, 3, 14, 32, tzinfo=UTC),
    }
    return Draft(**{**given, **values})


def same(one: Draft, other: Draft) -> bool:
    fields = [name for name in Draft.__slots__ if name != "mask"]
    return np.array_equal(one.mask, other.mask) and all(
        getattr(one, name) == getattr(other, name) for name in fields
    )


@pytest.mark.parametrize(
    "draft", [make(), make(label=None, lesions={}, model=None, seen=False, parent=None, path=None)]
)
def test_a_draft_comes_back_as_it_was(folder, draft):
    folder.write(draft)
    assert same(folder.read(ONE), draft)
    with Image.open(folder.folder / f"{ONE}.png") as picture:
        np.testing.assert_array_equal(np.array(picture), draft.mask)


def test_the_newest_of_a_frame_holds_and_dropping_it_twice_is_no_error(folder):
    folder.write(make())
    folder.write(make(label="normal"))
    folder.write(make(OTHER))
    assert folder.read(ONE).label == "normal"
    assert folder.ids() == {ONE, OTHER}
    folder.drop(ONE)
    folder.drop(ONE)
    assert folder.ids() == {OTHER}
    assert folder.read(ONE) is None


def test_a_folder_that_is_not_there_has_no_drafts(folder):
    assert (folder.ids(), folder.heads(), folder.read(ONE)) == (frozenset(), [], None)
    folder.drop(ONE)
    assert folder.set_aside(ONE, "is old") is None


def test_any_flipped_byte_is_found_or_changes_nothing(folder, told):
    folder.write(make())
    path = folder.folder / f"{ONE}.png"
    good = path.read_bytes()
    for place in range(len(good)):
        path.write_bytes(good[:place] + bytes([good[place] ^ 0x41]) + good[place + 1 :])
        read = folder.read(ONE)
        assert read is None or same(read, make()), place
        # set aside, or read; never removed
        assert sum(1 for _ in folder.folder.glob(f"{ONE}*")) == 1
        for kept in folder.folder.glob(f"{ONE}.aside*"):
            kept.unlink()
    assert len(told) > 0.9 * len(good)


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n", b"not a picture" * 100])
def test_what_is_no_draft_is_set_aside_and_named(folder, told, data):
    folder.write(make(OTHER))
    (folder.folder / f"{ONE}.png").write_bytes(data)
    assert folder.read(ONE) is None
    assert (folder.folder / f"{ONE}.aside-1.png").read_bytes() == data
    assert str(folder.folder / f"{ONE}.aside-1.png") in told[0]
    assert folder.ids() == {OTHER}


def test_a_picture_of_somebody_else_and_a_draft_of_another_frame_are_set_aside(folder, told):
    folder.write(make(OTHER))
    (folder.folder / f"{OTHER}.png").rename(folder.folder / f"{ONE}.png")
    assert folder.read(ONE) is None
    Image.fromarray(np.ones((4, 4), np.uint8)).save(folder.folder / f"{ONE}.png")
    assert folder.read(ONE) is None
    assert len(told) == 2
    assert {path.name for path in folder.folder.glob("*.png")} == {f"{ONE}.aside-{n}.png" for n in (1, 2)}


def test_what_is_set_aside_is_not_written_over(folder):
    for label in ("benign", "malignant"):
        folder.write(make(label=label))
        folder.set_aside(ONE, "is of other pixels")
    assert sum(1 for _ in folder.folder.glob(f"{ONE}.aside-*.png")) == 2
    assert folder.ids() == frozenset()


def test_a_full_disk_is_told_and_the_last_draft_stays(folder, monkeypatch):
    folder.write(make())

    def fill(*_):
        raise OSError(28, "No space left on device", "draft.png")

    monkeypatch.setattr(Path, "write_bytes", fill)
    with pytest.raises(DraftError, match=r"No space left.*make room on its disk.*tried again"):
        folder.write(make(label="normal"))
    assert folder.read(ONE).label == "benign"


@pytest.mark.skipif(os.name != "posix", reason="needs modes")
def test_a_pipe_in_the_place_of_a_draft_neither_hangs_nor_goes(folder, told):
    folder.folder.mkdir()
    os.mkfifo(folder.folder / f"{ONE}.png")
    assert folder.read(ONE) is None
    assert "pipe" in told[0]
    assert folder.heads() == []


def test_heads_name_the_files_and_leave_out_what_is_damaged(folder):
    folder.write(make())
    folder.write(make(OTHER, path=None))
    (folder.folder / f"{'3' * 64}.png").write_bytes(b"no")
    assert [(head.frame_id, head.path, head.index) for head in folder.heads()] == [
        (ONE, Path("/images/Bjørk (1).png"), 3),
        (OTHER, None, 3),
    ]


def test_many_are_listed_at_once(folder):
    folder.folder.mkdir()
    # none is opened: they are empty
    for number in range(200):
        (folder.folder / f"{number:064x}.png").touch()
    assert len(folder.ids()) == 200


@pytest.mark.parametrize(
    "wrong",
    [
        {"frame_id": "../../x"},
        {"mask": np.zeros((4, 4), bool)},
        {"label": "bad"},
        {"lesions": {0: "benign"}},
        {"lesions": {1: "unsure"}},
        {"written": datetime(2026, 5, 3)},
    ],
)
def test_what_is_no_draft_is_refused(wrong):
    with pytest.raises(ValueError):
        make(**wrong)


def test_a_store_has_one_folder_however_it_is_spelled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "study.sqlite"
    file = {
        draft_folder(store, "anna")
        for store in (path, str(path), "study.sqlite", f"sqlite:///{path}", f"sqlite+pysqlite:///{path}")
    }
    assert len(file) == 1
    server = {
        draft_folder(store, " anna")
        for store in (
            "postgresql://me:secret@host/study",
            "postgresql+psycopg://me:***@host/study",
            "postgresql://me@host/study",
        )
    }
    assert len(server) == 1
    assert len(file | server | {draft_folder(path, "bert"), draft_folder(None, "anna")}) == 4


def test_drafts_of_a_frame_and_of_its_pixels_are_erased_for_all_annotators(tmp_path, monkeypatch):
    monkeypatch.setattr(drafts, "drafts_root", lambda: tmp_path)
    folders = [DraftFolder(draft_folder("a.sqlite", name)) for name in ("anna", "bert")]
    other_store = DraftFolder(draft_folder("b.sqlite", "anna"))
    alike, apart = "3" * 64, "4" * 64
    for folder in (*folders, other_store):
        for frame_id in (ONE, OTHER, alike):
            folder.write(make(frame_id))
        folder.set_aside(OTHER, "is old")
        folder.write(replace(make(apart), pixels_hash="b" * 64))
    erase_drafts("a.sqlite", {ONE}, {"a" * 64})
    for folder in folders:
        assert [path.name for path in folder.folder.glob("*.png")] == [f"{apart}.png"]
    assert len(list(other_store.folder.glob("*.png"))) == 4
