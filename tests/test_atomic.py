"""Files and folders are written whole, or not at all."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier

import pytest

from sonoloop.atomic import find_obstacle, remove_whole, sweep, whole, write_together, write_whole


def full(_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_file_is_replaced(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    write_whole(path, "größer")
    assert path.read_text(encoding="utf-8") == "größer"
    assert list(tmp_path.iterdir()) == [path]


def test_on_a_full_disk_the_old_file_stays_and_nothing_is_left_of_the_new(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    path.write_text("old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_of_files_that_belong_together_none_is_written_alone(tmp_path):
    page, table = tmp_path / "page.html", tmp_path / "gone" / "table.csv"
    with pytest.raises(FileNotFoundError):
        write_together({page: "new", table: "new"})
    assert list(tmp_path.iterdir()) == []
    table.parent.mkdir()
    write_together({page: "a\nb\n", table: "new"})
    assert (page.read_bytes(), table.read_text()) == (b"a\nb\n", "new")


def test_a_folder_that_is_not_finished_is_not_there(tmp_path):
    folder = tmp_path / "model"
    with pytest.raises(RuntimeError), whole(folder) as temporary:
        temporary.mkdir()
        (temporary / "half").touch()
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with whole(folder) as temporary:
        temporary.mkdir()
        (temporary / "card.json").write_text("{}")
        assert not folder.exists()
    assert [path.name for path in folder.iterdir()] == ["card.json"]
    assert list(tmp_path.iterdir()) == [folder]


def test_threads_write_the_same_file_beside_each_other(tmp_path):
    path, together = tmp_path / "a.json", Barrier(8)

    def write(number: int) -> None:
        with whole(path) as temporary:
            together.wait(10)
            assert not temporary.exists()
            temporary.write_text(str(number))
            together.wait(10)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert path.read_text() in map(str, range(8))
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_swept_and_nothing_else(tmp_path):
    folder = tmp_path / "model"
    (tmp_path / ".model.1.tmp").mkdir()
    (tmp_path / ".model.2.tmp").touch()
    with suppress(RuntimeError), whole(folder) as temporary:
        raise RuntimeError
    temporary.mkdir()
    (tmp_path / ".other.1.tmp").touch()
    folder.mkdir()
    sweep(folder)
    assert {path.name for path in tmp_path.iterdir()} == {"model", ".other.1.tmp"}
    remove_whole(folder)
    assert {path.name for path in tmp_path.iterdir()} == {".other.1.tmp"}


@pytest.mark.parametrize("name", ["n" * 255, "\u00e9" * 127 + "n", "\U0001f600" * 63 + "nnn"])
def test_whatever_name_a_disk_takes_is_written(tmp_path, name):
    path = tmp_path / name
    write_whole(path, "new")
    with suppress(RuntimeError), whole(path) as temporary:
        raise RuntimeError
    temporary.touch()
    sweep(path)
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_in_a_folder_is_swept_by_the_next_one_that_writes_there(tmp_path):
    code = """
import os, sys
from pathlib import Path
from sonoloop.atomic import whole
with whole(Path(sys.argv[1]) / "x_mask.png") as temporary:
    temporary.write_text("half")
    os._exit(9)
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    ended = next(tmp_path.iterdir()).name.split(".")[-3]
    names = (".note.tmp", ".a.12.tmp", f".x.{os.getpid()}.ab12cd34.tmp", f".x.@0f0f0f.{ended}.ab12cd34.tmp")
    of_others = [tmp_path / name for name in names]
    for path in of_others:
        path.write_text("mine")
    write_whole(tmp_path / "other.txt", "done")
    assert {*tmp_path.iterdir()} == {*of_others, tmp_path / "other.txt"}


def test_what_keeps_a_folder_from_being_written_is_known_before(tmp_path):
    assert find_obstacle(tmp_path) is None
    assert find_obstacle(tmp_path / "not" / "yet") is None
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        assert find_obstacle(folder) == f"{tmp_path / 'file'} is no folder"


@pytest.mark.skipif(os.name != "posix", reason="links of POSIX")
def test_a_link_that_leads_nowhere_keeps_a_folder_from_being_written(tmp_path):
    (tmp_path / "link").symlink_to("nowhere")
    assert find_obstacle(tmp_path / "link") == f"{tmp_path / 'link'} is no folder"
