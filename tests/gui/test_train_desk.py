"""What the Train panel asks of the store."""

from __future__ import annotations

import numpy as np
from PIL import Image

from sonoloop.gui.train_desk import TrainDesk
from sonoloop.imaging.grey import frame_from_array
from sonoloop.store.file_index import Places
from sonoloop.store.groups import place_frame
from sonoloop.store.settings import change_settings
from sonoloop.values import Correction


def test_frames_are_named_by_their_whole_id_or_its_first_digits(store, store_url, tmp_path):
    frame = frame_from_array(
        np.random.default_rng(0).integers(0, 255, (40, 60)).astype(np.uint8), name="case 12"
    )
    Image.fromarray(frame.pixels).save(tmp_path / "case 12.png")
    place_frame(store, frame)
    Places(store.url).remember(frame.id, tmp_path / "case 12.png", pixels_hash=frame.pixels_hash)
    desk = TrainDesk(lambda _url: store)
    asked = [frame.id, frame.id[:12], "0" * 12]
    assert desk.name_frames(store_url, asked) == dict.fromkeys(asked[:2], "case 12.png")


def test_what_judges_is_no_lesson(store, store_url):
    for number, kept_for_tests in enumerate((False, False, True)):
        pixels = np.random.default_rng(number).integers(0, 255, (40, 60)).astype(np.uint8)
        frame = frame_from_array(pixels, name=str(number))
        share = float(kept_for_tests)
        change_settings(store, test_cap=300, first_test_share=share, test_share=share)
        place_frame(store, frame)
        correction = Correction(
            frame_id=frame.id,
            pixels_hash=frame.pixels_hash,
            mask=np.zeros(frame.shape, np.uint8),
            label="normal",
            annotator="anna",
        )
        store.accept(correction, parent=None)
    outlook = TrainDesk(lambda _url: store).outlook(store_url)
    assert (outlook.lessons, outlook.news.test_frames) == (2, 1)
