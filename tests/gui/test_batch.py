"""Batch predict: the same folder as `sonoloop predict` writes, with progress, and what is done is kept."""

from __future__ import annotations

import struct
import threading
import zlib

import numpy as np
import pytest
from desk import FakePredictor, picture
from napari.components import ViewerModel
from PIL import Image
from qtpy.QtCore import Qt, QThreadPool
from qtpy.QtWidgets import QApplication, QScrollArea

from sonoloop.batch import Batch
from sonoloop.formats.prediction_folder import read_predictions
from sonoloop.gui.batch import BatchPanel
from sonoloop.gui.preferences import Preferences
from sonoloop.gui.workers import Projects
from sonoloop.models.card import shipped_card
from sonoloop.models.library import Library
from sonoloop.project import Project
from sonoloop.store.corrections import CorrectionStore


class BatchPredictor(FakePredictor):
    """Counts the frames that it predicted, one at a time."""

    def predict_batch(self, frames):
        return [self.predict(frame) for frame in frames]


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(9):
        Image.fromarray(picture(seed=number)).save(folder / f"case {number}.png")
    (folder / "broken.png").write_bytes(b"\x89PNG no more")
    return folder


@pytest.fixture
def asked():
    return []


@pytest.fixture
def predictor():
    return BatchPredictor()


@pytest.fixture
def load(predictor, asked):
    def load(place, **options):
        asked.append((place, options))
        return predictor

    return load


@pytest.fixture
def panel(qtbot, tmp_path, images, store_url, load):
    def open_one(url):
        return Project(CorrectionStore(url), library=Library(tmp_path / "models"))

    preferences = Preferences(store=store_url)
    panel = BatchPanel(ViewerModel(), projects=Projects(open_one), load=load, preferences=lambda: preferences)
    qtbot.addWidget(panel)
    panel.form["images"].value, panel.form["out"].value = images, tmp_path / "out"
    panel.form["model"].value = "default"
    yield panel
    load(None).gate.set()
    panel.close_session()
    QApplication.processEvents()
    assert QThreadPool.globalInstance().waitForDone(20_000)


def run(panel, qtbot) -> str:
    panel._start.click()
    assert not panel._start.isEnabled()
    qtbot.waitUntil(lambda: not panel._jobs.busy, timeout=20_000)
    return panel._result.text().replace("\N{ZERO WIDTH SPACE}", "")


def test_it_writes_what_the_command_line_writes(panel, qtbot, images, load, asked):
    tmp_path = images.parent
    panel.form["overlay"].value = True
    said = run(panel, qtbot).splitlines()
    assert said[0] == f"9 of 10 images predicted; masks and predictions.csv are in {tmp_path / 'out'}"
    assert said[1] == "1 could not be predicted:"
    assert said[2].startswith("broken.png: ")
    assert asked[0][0] == "default"
    assert {k: asked[0][1][k] for k in ("device", "engine", "views", "threshold")} == {
        "device": "auto",
        "engine": "auto",
        "views": None,
        "threshold": None,
    }
    for _ in Batch.plan([images], tmp_path / "cli", overlay=True).run(load(None)):
        pass
    ours, theirs = (sorted((tmp_path / name).rglob("*")) for name in ("out", "cli"))
    assert [p.relative_to(tmp_path / "out") for p in ours] == [
        p.relative_to(tmp_path / "cli") for p in theirs
    ]
    assert all(
        a.read_bytes() == b.read_bytes() for a, b in zip(ours, theirs, strict=True) if a.suffix == ".png"
    )


def test_what_could_not_be_found_or_written_is_told_in_words(panel, qtbot, images, tmp_path):
    Image.fromarray(picture(seed=20)).save(images / f"{'n' * 247}.png")
    Image.fromarray(picture(seed=21)).save(images / "<b>\u202ecase.png")
    (images / "gone.png").symlink_to("nowhere.png")
    (images / "again").symlink_to(".")
    said = run(panel, qtbot)
    assert said.splitlines()[0].startswith("10 of 13 images predicted;")
    assert "gone.png: is a link to what is not there" in said
    assert "nnn.png: its mask cannot be written" in said
    assert "again is a link to" in said
    assert "n" * 25 not in said, "a long name is shortened"
    assert panel._result.textFormat() == Qt.TextFormat.PlainText
    assert (tmp_path / "out" / "masks" / "<b>\u202ecase_mask.png").is_file()


def test_an_image_that_is_not_whole_is_named_with_what_is_missing(panel, qtbot, images):
    rows = np.pad(np.tile(picture(), (10, 10)), ((0, 0), (1, 0)))[:112]
    header = struct.pack(">IIBBBBB", 600, 400, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b""))
    (images / "cut.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks
        )
    )
    said = run(panel, qtbot).splitlines()
    assert said[0].startswith("10 of 11 images predicted;")
    assert said[-2] == "1 predicted, though not whole:"
    assert said[-1] == "cut.png: only 112 of 400 rows are there; the rest is blank"


def test_a_folder_of_somebody_else_is_refused_in_words(panel, qtbot, tmp_path, notices, asked):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "predictions.csv").write_text("theirs")
    run(panel, qtbot)
    assert "was not written by" in notices[-1]
    assert not asked, "no model was loaded"
    assert (tmp_path / "out" / "predictions.csv").read_text() == "theirs"


def test_progress_names_the_image_and_cancel_keeps_what_is_done(panel, qtbot, tmp_path, predictor):
    told = []
    panel._reports.told.connect(lambda *args: told.append(args))
    predictor.gate.clear()
    panel._start.click()
    qtbot.waitUntil(lambda: bool(predictor.frames))
    predictor.gate.set()
    panel._cancel.click()
    qtbot.waitUntil(lambda: not panel._jobs.busy, timeout=20_000)
    said = panel._result.text()
    rows = read_predictions(tmp_path / "out")
    assert said.startswith(f"Cancelled: {len(rows)} of 10 images")
    assert told[-1][1] == 10
    assert told[-1][2].endswith(".png")
    assert len(rows) < 9
    assert all(
        (tmp_path / "out" / "masks" / row.image.replace(".png", "_mask.png")).is_file() for row in rows
    )


def test_options_are_those_of_the_form(panel, qtbot, asked, tmp_path):
    values = {"model": "", "device": "cpu", "views": "2", "threshold": 0.4}
    for name, value in values.items():
        panel.form[name].value = value
    run(panel, qtbot)
    place, options = asked[0]
    assert place == tmp_path / "models" / shipped_card().model, "the model in use"
    assert (options["device"], options["views"], options["threshold"]) == ("cpu", 2, 0.4)


def test_it_says_what_is_missing_and_what_failed(panel, qtbot, tmp_path, notices):
    panel.form["images"].value = tmp_path / "nowhere"
    run(panel, qtbot)
    assert "there is no file or folder" in notices[-1]
    panel.form["out"].line_edit.value = ""
    panel._start.click()
    assert notices[-1] == "choose a folder for the predictions first"


def test_it_fits_300_pixels(panel, qtbot):
    panel.resize(300, 500)
    with qtbot.waitExposed(panel):
        panel.show()
    assert panel.findChild(QScrollArea).widget().minimumSizeHint().width() <= 300 - 16


def test_the_gui_goes_on_while_it_runs(panel, qtbot, predictor):
    predictor.gate.clear()
    panel._start.click()
    beats = threading.Event()
    qtbot.waitUntil(lambda: bool(predictor.frames) and (beats.set() or beats.is_set()))
    assert panel._jobs.busy
    assert not any(asked.enabled for asked in panel.form)
