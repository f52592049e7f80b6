"""Text files that are written whole, or not at all."""

from __future__ import annotations

import errno
import os

import pytest

from sonoloop.atomic import write_whole


def test_a_file_is_replaced(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    write_whole(path, "größer")
    assert path.read_text(encoding="utf-8") == "größer"
    assert list(tmp_path.iterdir()) == [path]


def test_on_a_full_disk_the_old_file_stays_and_nothing_is_left_of_the_new(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "a.json"
    path.write_text("old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
