"""The Settings panel: the preferences with their explanations, and paths to be chosen instead of typed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox, QFileDialog, QLabel, QLineEdit, QPushButton, QWidget

from sonoloop.gui.launch import annotate_panel
from sonoloop.gui.preferences import (
    Device,
    EngineName,
    Preferences,
    describe_field,
    find_settings,
    read_preferences,
    watch_preferences,
)
from sonoloop.gui.widgets import Panel, row, single_shot, text_label

if TYPE_CHECKING:
    import napari

_UNREGISTERED = "Settings need the plugin: open this panel from Plugins > Sonoloop"
_SMALLER = 0.9
_FILTER = "Correction stores (*.db *.sqlite);;All files (*)"


class SettingsPanel(Panel):
    """Shows and takes what napari's Preferences take, for this plugin.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        The viewer it is docked in.
    parent : QWidget, optional
        The owner.
    """

    def __init__(self, viewer: napari.viewer.Viewer, *, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._device, self._engine = QComboBox(), QComboBox()
        self._device.addItems(get_args(Device))
        self._engine.addItems(get_args(EngineName))
        self._annotator, self._store, self._base_data = QLineEdit(), QLineEdit(), QLineEdit()
        self._named = text_label()
        self._unwatch: Callable[[], None] = lambda: None
        if find_settings() is None:
            self.column.addWidget(text_label(_UNREGISTERED))
            return
        self._add("device", self._device)
        self._add("engine", self._engine)
        self._add("annotator", self._annotator)
        self._add("store", self._store, self._browse("Choose a store, or name a new one", self._choose_store))
        self.column.addWidget(self._named)
        self._add("base_data", self._base_data, self._browse("Choose a folder", self._choose_base_data))
        self.column.addStretch(1)
        self._read()
        self._device.currentTextChanged.connect(lambda value: _write("device", value))
        self._engine.currentTextChanged.connect(lambda value: _write("engine", value))
        for name, line in self._lines():
            line.editingFinished.connect(lambda name=name, line=line: _write(name, line.text().strip()))
        # not at once: a model tells of a change before it is made throughout
        self._later = single_shot(self, 0, self._read)
        self._unwatch = watch_preferences(self._later.start)

    def close_session(self) -> None:
        """Stop listening to the preferences."""
        self._unwatch()

    def _add(self, name: str, field: QWidget, button: QPushButton | None = None) -> None:
        text = describe_field(name)
        title, explanation = QLabel(text.title), text_label(text.help)
        title.setBuddy(field)
        field.setAccessibleName(text.title)
        small = explanation.font()
        small.setPointSizeF(small.pointSizeF() * _SMALLER)
        explanation.setFont(small)
        self.column.addWidget(title)
        self.column.addLayout(row((field, 1)) if button is None else row((field, 1), (button, 0)))
        self.column.addWidget(explanation)
        self.column.addSpacing(8)

    def _browse(self, title: str, action: Callable[..., object]) -> QPushButton:
        button = QPushButton("Browse…")
        button.setToolTip(title)
        button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        button.clicked.connect(action)
        return button

    def _lines(self) -> tuple[tuple[str, QLineEdit], ...]:
        return ("annotator", self._annotator), ("store", self._store), ("base_data", self._base_data)

    def _read(self) -> None:
        preferences = read_preferences()
        self._device.setCurrentText(preferences.device)
        self._engine.setCurrentText(preferences.engine)
        for name, line in self._lines():
            value = getattr(preferences, name) or ""
            # what is being typed stays
            if line.text() != value and not line.hasFocus():
                line.setText(value)
        self._store.setPlaceholderText("A file in your data folder")
        self._base_data.setPlaceholderText("None")
        self._annotator.setPlaceholderText(Preferences().annotator)
        panel = annotate_panel(self._viewer)
        own = None if panel is None else panel.session.own_store
        self._named.setText(f"This window works on {own}, which was named at its start." if own else "")
        self._named.setVisible(own is not None)

    def _choose_store(self) -> None:
        start = _start_of(self._store.text(), os.path.isfile)
        # one dialog for a file that is there and for one to be made
        options = QFileDialog.Option.DontConfirmOverwrite
        chosen, _ = QFileDialog.getSaveFileName(
            self, "Choose a correction store, or name a new one", start, _FILTER, options=options
        )
        if chosen:
            path = Path(chosen)
            self._store.setText(str(path if path.suffix or path.exists() else path.with_suffix(".db")))
            _write("store", self._store.text())

    def _choose_base_data(self) -> None:
        start = _start_of(self._base_data.text(), os.path.isdir)
        chosen = QFileDialog.getExistingDirectory(self, "Choose the folder of the base data", start)
        if chosen:
            self._base_data.setText(chosen)
            _write("base_data", chosen)


def _start_of(text: str, is_there: Callable[[str], bool]) -> str:
    """Say where a dialog begins: at what is named, where it can be looked at."""
    path = text.removeprefix("sqlite:///")
    return path if is_there(path) else str(Path.home())


def _write(name: str, value: str) -> None:
    settings = find_settings()
    if settings is not None and getattr(settings, name) != value:
        setattr(settings, name, value)
