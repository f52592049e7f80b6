"""Says what is not installed that fine-tuning needs, and copies the command that installs it."""

from __future__ import annotations

import shlex
import subprocess
import sys

from qtpy.QtCore import Qt
from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import QFrame, QPushButton, QVBoxLayout, QWidget

from sonoloop.errors import NotInstalledError
from sonoloop.gui.widgets import row, text_label


class InstallBox(QFrame):
    """The command is shown as it is typed anywhere; copied, it names the Python that napari runs in.

    Parameters
    ----------
    missing : NotInstalledError
        What is not there.
    parent : QWidget, optional
        The panel.
    """

    def __init__(self, missing: NotInstalledError, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setFrameShape(QFrame.Shape.StyledPanel)
        self._copied = f"{_this_python()} -m {missing.command}"
        self._copy = QPushButton("Copy the command")
        self._copy.setToolTip(f"Copy it with the Python of this napari:\n{self._copied}")
        self._copy.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self._copy.clicked.connect(self._on_copy)
        needs = missing.what.removeprefix("this ")
        self.said = f"Fine-tuning {needs}. Run this in a terminal, then open napari again:"
        command = text_label(missing.command, selectable=True)
        told = text_label("Predicting, correcting and accepting work without it.")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 8, 8, 8)
        for label in (text_label(self.said), command):
            layout.addWidget(label)
        layout.addLayout(row((self._copy, 0), (QWidget(), 1)))
        layout.addWidget(told)

    def _on_copy(self) -> None:
        clipboard = QGuiApplication.clipboard()
        if clipboard is not None:
            clipboard.setText(self._copied)
            self._copy.setText("Copied")


def _this_python() -> str:
    return (
        subprocess.list2cmdline([sys.executable]) if sys.platform == "win32" else shlex.quote(sys.executable)
    )
