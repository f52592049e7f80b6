"""The calibration in the Models panel: what is shown, and that nothing is used before somebody says so."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event as Flag

import pytest
from qtpy.QtCore import QThreadPool
from qtpy.QtWidgets import QApplication

from sonoloop.gui.models.calibration import CalibrationBox
from sonoloop.jobs.events import Calibrated, Compared, Event, Notice, Progress, Refitted

FOUND = Calibrated(
    model="cal-12345678",
    version="1" * 64,
    base="default-00b8f020",
    base_version="0" * 64,
    in_use="0" * 64,
    numbers=[
        Refitted(name="temperature", before=1.0, after=1.5),
        Refitted(name="normal_gate", before=0.9, after=0.9, left="it would miss 1 more lesion"),
    ],
    figures=[
        Compared(
            name="lesion_dice",
            title="mean Dice, frames with a lesion",
            before=0.7,
            after=0.72,
            difference=0.02,
            interval=(0.01, 0.03),
            frames=40,
        )
    ],
    frames=50,
    groups=50,
    test_set=1,
)


class FakeProject:
    """Gives the events of a calibration; waits where it is told to."""

    def __init__(self, last: Calibrated = FOUND, wait: Flag | None = None) -> None:
        self.last, self.wait, self.ended = last, wait, False

    def calibrating(self, model: str, *, device: str, engine: str) -> Iterator[Event]:
        try:
            yield Notice(message="2 frames are left out")
            yield Progress(stage="Asking", done=8, total=50)
            if self.wait is not None:
                self.wait.wait(20)
            yield self.last
        finally:
            self.ended = True


@pytest.fixture
def box(qtbot):
    box = CalibrationBox()
    qtbot.addWidget(box)
    yield box
    box.close_session()
    QApplication.processEvents()
    assert QThreadPool.globalInstance().waitForDone(20_000)


def start(box: CalibrationBox, project: FakeProject) -> None:
    box.start(lambda question: question(project), "0" * 64, "cpu", "auto")


def test_before_and_after_are_shown_and_nothing_is_used_until_somebody_says_so(box, qtbot):
    used: list[Calibrated] = []
    box.used.connect(used.append)
    start(box, FakeProject())
    qtbot.waitUntil(lambda: not box.busy, timeout=20_000)
    text = box._text.text()
    assert "Temperature 1 \N{RIGHTWARDS ARROW} 1.5" in text
    assert "Gate for normals 0.9 (left as it was: it would miss 1 more lesion)" in text
    assert "0.700 \N{RIGHTWARDS ARROW} 0.720 (+0.020 [+0.010, +0.030])" in text
    assert "Out of fold on 50 frames of 50 groups" in text
    assert used == []
    box._use.click()
    assert used == [FOUND]
    assert box.isHidden()


def test_where_no_number_changes_there_is_nothing_to_use(box, qtbot):
    nothing = Calibrated(
        **{name: getattr(FOUND, name) for name in FOUND.__slots__} | {"model": None, "version": None}
    )
    start(box, FakeProject(nothing))
    qtbot.waitUntil(lambda: not box.busy, timeout=20_000)
    assert box._use.isHidden()
    assert "Nothing changes" in box._text.text()


def test_one_that_is_cancelled_ends_its_process_and_shows_nothing(box, qtbot):
    project, ended = FakeProject(wait=Flag()), []
    box.ended.connect(lambda: ended.append(True))
    start(box, project)
    qtbot.waitUntil(lambda: "8 of 50" in box._text.text(), timeout=20_000)
    assert "2 frames are left out" in box._text.text()
    box._cancel.click()
    project.wait.set()
    qtbot.waitUntil(lambda: not box.busy, timeout=20_000)
    assert project.ended
    assert box.isHidden()
    assert ended, "the table is read again: the model may be there by now"
