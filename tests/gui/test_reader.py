"""The reader opens what the command line opens, and says what it cannot."""

from __future__ import annotations

import hashlib
import struct
import zlib

import numpy as np
import pytest
import tifffile
from desk import box, picture
from PIL import Image

from sonoloop.errors import ImageError
from sonoloop.gui import reader
from sonoloop.gui.reader import get_reader, study


def read(path):
    return get_reader(str(path))(str(path))


def save(path, array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def test_a_grey_image_is_one_layer_that_can_be_found_again(tmp_path):
    save(tmp_path / "benign (1).png", picture())
    ((data, options, kind),) = read(tmp_path / "benign (1).png")
    np.testing.assert_array_equal(data, picture())
    assert (kind, options["name"], options["rgb"]) == ("image", "benign (1)", False)
    about = options["metadata"]["sonoloop"]
    assert about["frame_ids"] == (hashlib.sha256((tmp_path / "benign (1).png").read_bytes()).hexdigest(),)
    assert about["names"] == ("benign (1).png",)


def test_an_image_of_which_rows_are_missing_is_opened_and_told(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(reader, "show_notice", told.append)
    save(tmp_path / "a.png", picture()[:20])
    data = (tmp_path / "a.png").read_bytes()
    # it says that it is higher than what it holds
    header = data[12:20] + struct.pack(">I", 40) + data[24:29]
    (tmp_path / "a.png").write_bytes(data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:])
    ((pixels, _, _),) = read(tmp_path / "a.png")
    np.testing.assert_array_equal(pixels[:20], picture()[:20])
    assert told == ["a.png: only 20 of 40 rows are there; the rest is blank"]


def test_colour_stays_colour_where_channels_disagree(tmp_path):
    colour = np.stack([picture(), picture(20), picture()], axis=-1)
    save(tmp_path / "doppler.png", colour)
    ((data, options, _),) = read(tmp_path / "doppler.png")
    np.testing.assert_array_equal(data, colour)
    assert options["rgb"]


def test_grey_saved_as_colour_is_grey(tmp_path):
    save(tmp_path / "grey.png", np.stack([picture()] * 3, axis=-1))
    ((data, options, _),) = read(tmp_path / "grey.png")
    assert data.ndim == 2
    assert not options["rgb"]


def test_several_frames_are_one_layer_with_a_slider(tmp_path):
    cine = np.stack([picture(row, seed=row) for row in (0, 10, 20)])
    tifffile.imwrite(tmp_path / "cine.tif", cine, photometric="minisblack")
    ((data, options, _),) = read(tmp_path / "cine.tif")
    np.testing.assert_array_equal(data, cine)
    assert len(set(options["metadata"]["sonoloop"]["frame_ids"])) == 3


def test_a_folder_opens_its_first_image_for_the_panel_to_take_over(tmp_path, notices):
    for number in (1, 2, 10):
        save(tmp_path / "benign" / f"benign ({number}).png", picture(seed=number))
        save(tmp_path / "benign" / f"benign ({number})_mask.png", box() * 255)
    ((_, options, _),) = read(tmp_path)
    assert options["name"] == "benign (1)"
    assert options["metadata"]["sonoloop"]["folder"] == tmp_path
    assert "The first of 3 images" in notices[0]


def test_a_folder_with_predictions_gives_no_overlay(tmp_path):
    save(tmp_path / "case.png", picture())
    save(tmp_path / "out" / "masks" / "case_overlay.png", picture())
    assert [options["name"] for _, options, _ in read(tmp_path)] == ["case"]


def test_one_bad_file_does_not_stop_a_folder(tmp_path, notices):
    save(tmp_path / "good.png", picture())
    (tmp_path / "bad.png").write_bytes((tmp_path / "good.png").read_bytes()[:200])
    assert len(read(tmp_path)) == 1
    assert "bad.png" in notices[0]


@pytest.mark.parametrize("name", ["folder", "text.png", "empty.png"])
def test_what_cannot_be_read_is_an_error_with_its_name(tmp_path, name):
    if name == "folder":
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).write_text("" if name == "empty.png" else "no image")
    with pytest.raises(ImageError, match=name):
        read(tmp_path / name)


def test_a_busi_mask_opens_as_labels(tmp_path):
    save(tmp_path / "benign (1)_mask.png", (box() * 255).astype(bool))
    ((data, options, kind),) = read(tmp_path / "benign (1)_mask.png")
    np.testing.assert_array_equal(data, box())
    assert (kind, options["name"]) == ("labels", "benign (1)_mask")


def test_a_palette_mask_keeps_its_lesion_numbers(tmp_path):
    two = box(0) + 2 * box(20)
    image = Image.fromarray(two)
    image.putpalette([0, 0, 0, 0, 255, 255, 255, 0, 255] + [0] * 759)
    image.save(tmp_path / "case_mask.png")
    ((data, _, kind),) = read(tmp_path / "case_mask.png")
    np.testing.assert_array_equal(data, two)
    assert kind == "labels"


def test_a_coloured_mask_is_one_lesion(tmp_path):
    save(tmp_path / "case_mask.png", box()[..., None] * np.array([255, 0, 0], np.uint8))
    ((data, _, kind),) = read(tmp_path / "case_mask.png")
    np.testing.assert_array_equal(data, box())
    assert kind == "labels"


def test_images_opened_as_a_stack_are_stacked_in_the_order_asked(tmp_path):
    paths = []
    for number in (3, 1):
        save(tmp_path / f"{number}.png", picture(number))
        paths.append(str(tmp_path / f"{number}.png"))
    ((data, options, _),) = get_reader(paths)(paths)
    np.testing.assert_array_equal(data, [picture(3), picture(1)])
    assert options["metadata"]["sonoloop"]["names"] == ("3.png", "1.png")


def test_images_of_two_sizes_do_not_make_a_stack(tmp_path):
    save(tmp_path / "a.png", picture())
    save(tmp_path / "b.png", picture()[:30])
    paths = [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    with pytest.raises(ImageError, match="60 x 30 and 60 x 40"):
        get_reader(paths)(paths)


def test_other_files_are_left_to_other_readers():
    assert get_reader("cells.czi") is None
    assert get_reader(["a.png", "b.czi"]) is None


def test_the_sample_study_shows_the_benign_phantom_on_top():
    layers = study()
    assert [options["name"] for _, options, _ in layers] == [
        "normal phantom",
        "malignant phantom",
        "benign phantom",
    ]
    assert [options.get("visible", True) for _, options, _ in layers] == [False, False, True]


def test_files_of_different_types_are_no_stack(tmp_path):
    save(tmp_path / "eight.png", picture())
    save(tmp_path / "sixteen.png", picture(20).astype(np.uint16) * 200)
    paths = [str(tmp_path / name) for name in ("eight.png", "sixteen.png")]
    with pytest.raises(ImageError, match=r"eight.png holds uint8 and sixteen.png uint16 .* without stacking"):
        get_reader(paths)(paths)
    pages = [Image.open(path) for path in paths]
    pages[0].save(tmp_path / "mixed.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(ImageError, match=r"pages of mixed\.tif differ in type"):
        read(tmp_path / "mixed.tif")
