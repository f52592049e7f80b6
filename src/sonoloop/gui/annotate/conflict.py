"""The one dialog: two versions of somebody's work, and which of them goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QMessageBox, QWidget

from sonoloop.gui.annotate.view import count_lesions

if TYPE_CHECKING:
    from sonoloop.store.revisions import HeadMovedError, Revision


def ask_which(
    name: str, conflict: HeadMovedError, answer: Callable[[bool], object], *, parent: QWidget | None = None
) -> QMessageBox:
    """Ask which of two versions goes on; `answer` is called with True for the annotator's own.

    The dialog does not block; closing it leaves the stored version as it is, which is never a loss.
    """
    box = QMessageBox(parent)
    box.setIcon(QMessageBox.Icon.Warning)
    box.setWindowTitle("Two versions")
    box.setText(f"{name} was accepted elsewhere since it was opened here. Both versions are kept.")
    box.setInformativeText(
        f"Stored:\t{_describe(conflict.theirs)}\nYours:\t{_describe(conflict.mine)}\n\nWhich one goes on?"
    )
    mine = box.addButton("Go on with mine", QMessageBox.ButtonRole.AcceptRole)
    theirs = box.addButton("Go on with the stored one", QMessageBox.ButtonRole.RejectRole)
    box.setEscapeButton(theirs)
    box.buttonClicked.connect(lambda button: answer(button is mine))
    box.open()
    return box


def _describe(revision: Revision) -> str:
    correction = revision.correction
    lesions = count_lesions(correction.mask)
    return (
        f"{correction.label}, {lesions} lesion{'' if lesions == 1 else 's'}, "
        f"{revision.created.astimezone():%Y-%m-%d %H:%M}, {correction.annotator}"
    )
