"""Finding images among masks and other files."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from sonoloop.errors import ImageError, ImageMissingError, NotAnImageError
from sonoloop.imaging.image_files import (
    Found,
    find_images,
    fold_case,
    is_mask_path,
    is_overlay_path,
    mask_paths,
    natural_order,
    read,
)
from sonoloop.imaging.io import FORMATS, ImageFormat, read_frame


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def relatives(paths: list[Path]) -> list[str]:
    return [found.relative.as_posix() for found in find_images(paths).images]


def left_out(found: Found) -> dict[str, str]:
    return {one.relative.as_posix(): str(one.error) for one in found.left_out}


def test_masks_are_never_taken_for_images(tmp_path):
    touch(
        tmp_path,
        "benign/benign (2).png",
        "benign/benign (2)_mask.png",
        "benign/benign (10).png",
        "benign/benign (10)_mask_1.png",
        "benign/benign (10)_mask.PNG",
        "notes.txt",
        ".hidden.png",
    )
    assert relatives([tmp_path]) == ["benign/benign (2).png", "benign/benign (10).png"]
    assert relatives([tmp_path / "benign/benign (2)_mask.png"]) == []


def test_a_name_that_only_holds_the_word_mask_is_an_image():
    assert not is_mask_path(Path("masked.png"))
    assert not is_mask_path(Path("unmask_2.png"))
    assert is_mask_path(Path("a_mask.png"))
    assert is_mask_path(Path("a_mask_12.tif"))


def test_an_overlay_of_ours_is_no_input(tmp_path):
    touch(tmp_path, "masks/b/a_overlay.png", "masks/b/a.png", "study/a_overlay.png")
    assert relatives([tmp_path]) == ["masks/b/a.png", "study/a_overlay.png"]
    assert relatives([tmp_path / "masks/b/a_overlay.png"]) == []
    assert is_overlay_path(Path("out/masks/benign/a_overlay.png"))
    assert not is_overlay_path(Path("out/masks/a.png"))


def test_a_digit_that_is_no_number_is_sorted():
    names = ["1²3.png", "2.png", "10.png"]
    assert sorted(map(Path, reversed(names)), key=natural_order) == list(map(Path, names))


def test_a_file_given_twice_is_found_once(tmp_path):
    touch(tmp_path, "a.png")
    assert relatives([tmp_path, tmp_path / "a.png"]) == ["a.png"]


def test_two_folders_keep_their_names_apart(tmp_path):
    touch(tmp_path, "one/a.png", "two/a.png")
    assert relatives([tmp_path / "one", tmp_path / "two"]) == ["one/a.png", "two/a.png"]


def test_a_missing_path_is_named(tmp_path):
    with pytest.raises(ImageMissingError, match="gone"):
        find_images([tmp_path / "gone"])


def test_a_path_that_no_disk_can_hold_is_refused():
    with pytest.raises(ImageMissingError, match="cannot be looked at"):
        find_images([Path("a" * 300 + ".png")])


def test_what_is_hidden_is_searched_where_it_is_named(tmp_path):
    touch(tmp_path, "a.png", ".cache/b.png", "c/.d/e.png", ".f.png")
    assert relatives([tmp_path]) == ["a.png"]
    assert relatives([tmp_path / ".cache"]) == ["b.png"]
    assert relatives([tmp_path / ".f.png"]) == [".f.png"]


def test_a_link_to_a_folder_is_followed_once(tmp_path):
    touch(tmp_path, "in/real/a.png", "elsewhere/b.png")
    (tmp_path / "in" / "first").symlink_to("real")
    (tmp_path / "in" / "z").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "in")
    found = find_images([tmp_path / "in"])
    assert [image.relative.as_posix() for image in found.images] == ["real/a.png", "z/b.png"]
    assert not found.left_out
    for name in ("in/first", "in/z/back"):
        assert any(notice.startswith(f"{tmp_path / name} is a link to ") for notice in found.notices)


@pytest.mark.parametrize("target", [".", "..", "../..", "/"])
def test_a_link_to_where_it_lies_is_told_and_not_followed(tmp_path, target):
    touch(tmp_path, "in/a.png", "beside/b.png", "in/sub/c.png")
    (tmp_path / "in" / "sub" / "loop").symlink_to(target)
    found = find_images([tmp_path / "in"])
    assert [image.relative.as_posix() for image in found.images] == ["a.png", "sub/c.png"]
    [notice] = found.notices
    assert f"{tmp_path / 'in/sub/loop'} is a link to" in notice


@pytest.mark.skipif(os.name != "posix", reason="Windows has no pipes or devices in folders")
def test_what_is_no_file_or_leads_nowhere_is_named_and_not_opened(tmp_path):
    touch(tmp_path, "a.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "device.png").symlink_to("/dev/zero")
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "self.png").symlink_to("self.png")
    (tmp_path / "disk").symlink_to("/nowhere/at/all")
    (tmp_path / "notes.txt").symlink_to("nowhere.txt")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(tmp_path / "socket.png"))
    found = find_images([tmp_path])
    assert [image.path.name for image in found.images] == ["a.png"]
    told = left_out(found)
    assert told.keys() == {"pipe.png", "device.png", "gone.png", "self.png", "disk", "socket.png"}
    assert "a pipe" in told["pipe.png"]
    assert "not there" in told["gone.png"]
    assert left_out(find_images([tmp_path / "pipe.png"])).keys() == {"pipe.png"}
    with pytest.raises(ImageError):
        read(tmp_path)


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), FileNotFoundError(2, "No such")])
def test_a_folder_that_cannot_be_searched_is_named_and_the_others_are(tmp_path, monkeypatch, error):
    touch(tmp_path, "a/a.png", "b.v2/b.png", "c/c.png")
    scan = os.scandir

    def refuse(path):
        if Path(path).name == "b.v2":
            raise error
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = find_images([tmp_path])
    assert [image.relative.as_posix() for image in found.images] == ["a/a.png", "c/c.png"]
    assert error.strerror in left_out(found)["b.v2"]
    with pytest.raises(ImageMissingError, match=r"b\.v2"):
        read(tmp_path)


def test_folders_too_deep_to_be_reached_are_named(tmp_path):
    touch(tmp_path, "a.png")
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("d" * 250, dir_fd=here)
        here, above = os.open("d" * 250, os.O_RDONLY, dir_fd=here), here
        os.close(above)
    os.close(here)
    found = find_images([tmp_path])
    assert [image.path.name for image in found.images] == ["a.png"]
    assert len(found.left_out) == 1


def test_names_are_one_where_a_disk_takes_them_for_one():
    assert fold_case(Path("a/\u00e9.PNG")) == fold_case(Path("A/e\u0301.png"))
    assert fold_case(Path("a.png")) != fold_case(Path("b.png"))


def test_the_masks_of_an_image_are_its_own(tmp_path):
    touch(tmp_path, "a (1).png", "a (1)_mask.png", "a (1)_mask_1.png", "a (11)_mask.png", "a (1)_masked.png")
    assert [p.name for p in mask_paths(tmp_path / "a (1).png")] == ["a (1)_mask.png", "a (1)_mask_1.png"]


def test_a_format_is_one_decoder_and_one_line(tmp_path, monkeypatch):
    (tmp_path / "own_images.py").write_text(
        "import numpy as np\n"
        "def decode(data, name, max_pixels):\n"
        "    return [np.frombuffer(data[6:], np.uint8).reshape(2, 3)]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    line = ImageFormat(suffixes=(".own",), magic=(b"OWN",), offset=3, decoder="own_images:decode")
    monkeypatch.setitem(FORMATS, "OWN", line)
    (tmp_path / "a.own").write_bytes(b"\0\0\0OWN" + bytes(range(6)))
    [found] = find_images([tmp_path]).images
    assert read_frame(found.path).pixels.tolist() == [[0, 1, 2], [3, 4, 5]]
    (tmp_path / "b.own").write_bytes(b"something else")
    with pytest.raises(NotAnImageError, match="not a PNG, JPEG, TIFF, BMP or OWN image"):
        read_frame(tmp_path / "b.own")


def test_a_plain_file_is_not_looked_at_by_itself(tmp_path, monkeypatch):
    touch(tmp_path, *(f"{folder}/{number}.png" for folder in "ab" for number in range(10)))
    real, looked = Path.stat, []
    monkeypatch.setattr(Path, "stat", lambda path, **more: looked.append(path.name) or real(path, **more))
    assert len(find_images([tmp_path]).images) == 20
    assert sorted(looked) == ["a", "b", tmp_path.name]
