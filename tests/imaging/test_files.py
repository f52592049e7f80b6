"""Finding images among masks and other files."""

from __future__ import annotations

from pathlib import Path

import pytest

from sonoloop.errors import ImageMissingError, NotAnImageError
from sonoloop.imaging.image_files import find_images, is_mask_path, is_overlay_path, mask_paths, natural_order
from sonoloop.imaging.io import FORMATS, ImageFormat, read_frame


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def relatives(paths: list[Path]) -> list[str]:
    return [found.relative.as_posix() for found in find_images(paths)]


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
    [found] = find_images([tmp_path])
    assert read_frame(found.path).pixels.tolist() == [[0, 1, 2], [3, 4, 5]]
    (tmp_path / "b.own").write_bytes(b"something else")
    with pytest.raises(NotAnImageError, match="not a PNG, JPEG, TIFF, BMP or OWN image"):
        read_frame(tmp_path / "b.own")
