"""Only regular files within a cap are opened."""

from __future__ import annotations

import os
import socket
import sys

import pytest

from sonoloop.regular_files import name_size, open_regular, read_regular

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pipes or devices in folders")


def test_a_file_at_the_cap_is_read_and_one_byte_more_is_not(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"1234")
    assert read_regular(path, most=4) == b"1234"
    with pytest.raises(OSError, match="it has 4 bytes, and at most 3 bytes are read"):
        read_regular(path, most=3)


def test_a_link_is_followed(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with open_regular(tmp_path / "b", most=1) as file:
        assert file.read() == b"1"


@posix
@pytest.mark.timeout(10)
def test_a_pipe_nobody_writes_to_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="it is a pipe, not a file"):
        read_regular(tmp_path / "pipe", most=1)


@posix
@pytest.mark.timeout(10)
def test_a_link_to_an_endless_device_is_refused(tmp_path):
    (tmp_path / "a.png").symlink_to("/dev/zero")
    with pytest.raises(OSError, match="it is a device, not a file"):
        read_regular(tmp_path / "a.png", most=1)


@posix
def test_a_socket_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("s")
        with pytest.raises(OSError, match="it is a socket, not a file"):
            open_regular(tmp_path / "s", most=1)


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(OSError, match="it is a folder, not a file"):
        open_regular(tmp_path, most=1)


@posix
def test_a_sparse_file_is_refused_before_it_is_read(tmp_path):
    with (tmp_path / "a").open("wb") as file:
        file.truncate(40 * 2**30)
    with pytest.raises(OSError, match=r"it has 40 GiB, and at most 1 GiB are read"):
        read_regular(tmp_path / "a", most=2**30)


def test_sizes_in_words():
    assert [name_size(n) for n in (1, 1023, 1536, 2**40)] == ["1 bytes", "1023 bytes", "1.5 KiB", "1 TiB"]
