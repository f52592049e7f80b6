"""The queue's list: what is in it, its orders, its filter, and what comes next."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
from desk import picture
from PIL import Image

from sonoloop.cli.annotate import annotate
from sonoloop.errors import NotAnImageError, SonoloopError
from sonoloop.gui.annotate.queue_list import QueueEntry, QueueList, list_frames
from sonoloop.imaging.io import read_study
from sonoloop.store.file_hashes import FileHashes


def entries(*names: str, **known) -> list[QueueEntry]:
    return [QueueEntry(path=Path("/study") / name, name=name, **known) for name in names]


def names(found) -> list[str]:
    return [entry.name for entry in found]


def touch(folder: Path, *files: str) -> None:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(b"")


def test_a_folder_gives_all_its_images_below_it_and_no_mask(tmp_path):
    touch(tmp_path, *(f"a/benign ({n}).png" for n in range(1, 31)), "a/benign (1)_mask.png", "b.txt", "c.tif")
    listed = list_frames([tmp_path])
    assert len(listed.entries) == 31, "no limit of 20, and nothing is opened"
    assert names(listed.entries)[:3] == ["benign (1).png", "benign (2).png", "benign (3).png"]
    assert listed.problems == ()


def test_images_are_listed_without_being_opened(tmp_path):
    # none of these can be opened as an image
    for number in range(100):
        (tmp_path / f"{number}.png").touch()
    assert len(QueueList(list_frames([tmp_path]).entries).shown()) == 100


def test_a_folder_without_an_image_says_so(tmp_path):
    touch(tmp_path, "notes.txt")
    with pytest.raises(NotAnImageError, match=r"holds no PNG.*choose another"):
        list_frames([tmp_path])


def test_a_table_names_files_beside_it_with_what_is_known_of_them(tmp_path):
    touch(tmp_path, "img/a.png", "img/b.png")
    (tmp_path / "list.csv").write_text(
        "\ufeffPath;Patient;Class;Group;Name;expected_dice\n"
        "img/a.png;p1;Benign;g;first;0.4\nimg/b.png;;;;;\n;;;;;\n",
        encoding="utf-8",
    )
    a, b = list_frames([tmp_path / "list.csv"]).entries
    assert (a.path, a.name, a.patient, a.label, a.group, a.expected_dice) == (
        tmp_path / "img/a.png",
        "first",
        "p1",
        "benign",
        "g",
        0.4,
    )
    assert (b.name, b.patient, b.label, b.expected_dice) == ("b.png", None, None, None)


def test_bad_rows_of_a_table_are_named_and_left_out(tmp_path):
    touch(tmp_path, "a.png", "b.txt", "c_mask.png")
    (tmp_path / "list.csv").write_text(
        "file,class\na.png,normal\ngone.png,\nb.txt,\nc_mask.png,\n,benign\na.png,cyst\na.png,normal\n"
    )
    listed = list_frames([tmp_path / "list.csv"])
    assert names(listed.entries) == ["a.png"], "a file that is named twice is one"
    for told, wanted in zip(
        listed.problems,
        ("line 3.*no file gone.png", "line 4.*b.txt", "line 5.*c_mask", "line 6.*names no", "line 7.*'cyst'"),
        strict=True,
    ):
        assert re.search(wanted, told), told


def test_a_table_without_a_column_of_files_says_which_it_has(tmp_path):
    (tmp_path / "list.csv").write_text("id,class\n1,benign\n")
    with pytest.raises(SonoloopError, match=r"no column path, image, file.*it has id, class"):
        list_frames([tmp_path / "list.csv"])
    (tmp_path / "latin.csv").write_bytes(b"path\n\xe9\n")
    with pytest.raises(SonoloopError, match="UTF-8"):
        list_frames([tmp_path / "latin.csv"])


def test_the_random_order_is_the_same_for_a_seed():
    some = entries(*"abcdefgh")
    orders = []
    for seed in (1, 1, 2):
        queue = QueueList(some, seed=seed)
        queue.order_by("random")
        orders.append(names(queue))
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[2]) == list("abcdefgh")


def test_review_value_begins_with_what_the_model_is_least_sure_of():
    sure, poor, unknown, never = entries("sure", "poor", "unknown", "never looked up")
    sure.expected_dice, poor.expected_dice = 0.9, 0.3
    for entry in (sure, poor, unknown):
        entry.draw_first = False
    queue = QueueList([never, sure, poor, unknown])
    queue.order_by("review value")
    assert names(queue) == ["poor", "sure", "unknown", "never looked up"]


def test_a_place_in_the_review_tells_nothing_of_what_judges_a_model():
    """Frames that judge lie evenly over all ranks, whatever the model expects of them."""
    ranks = []
    for seed in range(200):
        some = entries(*(f"{seed} {n}" for n in range(50)))
        for number, entry in enumerate(some):
            entry.draw_first = number % 5 == 0
            entry.expected_dice = 0.1 if entry.draw_first else 0.5 + number / 100
        queue = QueueList(some, seed=seed)
        queue.order_by("review value")
        ranks += [place for place, entry in enumerate(queue) if entry.draw_first]
    counts = np.histogram(ranks, bins=5, range=(0, 50))[0]
    assert counts.sum() == 2000
    assert abs(counts - 400).max() < 70
    others = [entry.expected_dice for entry in queue if not entry.draw_first]
    assert others == sorted(others)


def test_next_is_the_next_that_is_to_do_round_to_the_beginning():
    queue = QueueList(entries(*"abcde"))
    a, b, c, d, e = queue
    b.stored, c.stored, d.is_draft = "accepted", "flagged", True
    queue.go_to(a)
    assert queue.next() is d
    assert names(queue.ahead(3)) == ["d", "e"]
    queue.go_to(e)
    assert queue.next() is a
    for entry in (a, d, e):
        entry.stored, entry.is_draft = "accepted", False
    assert queue.next() is None


def test_next_goes_through_what_the_filter_shows():
    queue = QueueList(entries("ab", "b", "abc", "c"))
    queue.show(search="A b")
    assert names(queue.shown()) == ["ab", "abc"]
    queue.show(search="B")
    queue.go_to(next(iter(queue)))
    assert names(queue.shown()) == ["ab", "b", "abc"]
    assert queue.next().name == "b"
    list(queue)[2].stored = "flagged"
    queue.show(["flagged"])
    assert queue.next().name == "abc", "of what is decided on, the next one shown"


def test_back_follows_the_order_of_visits():
    queue = QueueList(entries(*"abcd"))
    a, b, _, d = queue
    for entry in (a, d, b, b):
        queue.go_to(entry)
    assert [queue.back().name, queue.back().name] == ["d", "a"]
    assert queue.back() is None
    assert queue.current is a


def test_a_file_of_several_frames_becomes_as_many_entries_once_it_is_looked_at(tmp_path):
    cine = np.stack([picture(row, seed=row) for row in (0, 10, 20)])
    tifffile.imwrite(tmp_path / "b.tif", cine, photometric="minisblack")
    for name in ("a.png", "c.png"):
        Image.fromarray(picture()).save(tmp_path / name)
    queue = QueueList(list_frames([tmp_path]).entries)
    hashes = FileHashes(tmp_path / "kept" / "hashes.jsonl")
    for entry in list(queue):
        queue.expand(entry, hashes.frame_ids(entry.path))
    assert names(queue) == ["a.png", "b.tif [1]", "b.tif [2]", "b.tif [3]", "c.png"]
    assert [entry.index for entry in queue] == [0, 0, 1, 2, 0]
    told = [frame.id for name in "abc" for frame in read_study(next(tmp_path.glob(f"{name}.*"))).frames]
    assert [entry.frame_id for entry in queue] == told


def test_a_file_that_did_not_change_is_not_read_again(tmp_path, monkeypatch):
    file = tmp_path / "a.png"
    Image.fromarray(picture()).save(file)
    before = FileHashes(tmp_path / "hashes.jsonl").frame_ids(file)
    monkeypatch.setattr("sonoloop.store.file_hashes.read_frame_ids", lambda _: ("read",))
    assert FileHashes(tmp_path / "hashes.jsonl").frame_ids(file) == before
    assert b"a.png" not in (tmp_path / "hashes.jsonl").read_bytes(), "names stay out of it"
    Image.fromarray(picture(20)).save(file)
    with (tmp_path / "hashes.jsonl").open("ab") as kept:
        kept.write(b'["cut sho')
    assert FileHashes(tmp_path / "hashes.jsonl").frame_ids(file) == ("read",)


def test_annotate_opens_a_window_on_the_list_and_none_where_there_is_no_image(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr("sonoloop.gui.open_viewer", lambda **options: opened.append(options))
    with pytest.raises(NotAnImageError, match=tmp_path.name):
        annotate([tmp_path])
    touch(tmp_path, "a.png")
    monkeypatch.chdir(tmp_path)
    annotate([tmp_path], store="study.sqlite")
    (options,) = opened
    assert names(options["queue"].entries) == ["a.png"]
    assert options["store"] == str(tmp_path / "study.sqlite")
