"""The Settings panel shows what the manifest explains, and writes what napari keeps."""

from __future__ import annotations

from pathlib import Path

import pytest
from napari.components import ViewerModel
from napari.settings import get_plugin_settings
from npe2 import PluginManifest
from qtpy.QtWidgets import QComboBox, QFileDialog, QLabel, QLineEdit, QPushButton

import sonoloop
from sonoloop.gui.preferences import PLUGIN, read_preferences
from sonoloop.gui.settings import SettingsPanel

FIELDS = ("device", "annotator", "store", "base_data")


@pytest.fixture
def manifest(plugin_settings, npe2pm):
    read = PluginManifest.from_file(Path(sonoloop.__file__).with_name("napari.yaml"))
    npe2pm.register(read)
    return read


@pytest.fixture
def panel(manifest, qtbot):
    panel = SettingsPanel(ViewerModel())
    qtbot.addWidget(panel)
    yield panel
    panel.close_session()


def line(panel, title):
    return next(field for field in panel.findChildren(QLineEdit) if field.accessibleName() == title)


def browse(panel, number):
    [b for b in panel.findChildren(QPushButton) if b.text().startswith("Browse")][number].click()


def test_every_field_has_its_title_and_its_help_as_text(panel, manifest):
    texts = [label.text() for label in panel.findChildren(QLabel)]
    properties = manifest.contributions.configurations["annotate"].properties
    assert set(properties) == set(FIELDS)
    for each in properties.values():
        assert each.title.partition("\n")[0] in texts
        assert each.description in texts


def test_what_is_entered_is_kept_by_napari(panel, qtbot):
    line(panel, "Annotator").setText(" anna ")
    line(panel, "Annotator").editingFinished.emit()
    panel.findChild(QComboBox).setCurrentText("cpu")
    assert (read_preferences().annotator, read_preferences().device) == ("anna", "cpu")


def test_what_is_changed_in_naparis_preferences_is_shown(panel, qtbot):
    get_plugin_settings(PLUGIN).annotate.annotator = "bela"
    qtbot.waitUntil(lambda: line(panel, "Annotator").text() == "bela")


@pytest.mark.parametrize(
    ("chosen", "kept"), [("study", "study.db"), ("study.sqlite", "study.sqlite"), ("", "")]
)
def test_a_store_is_chosen_or_named_in_a_dialog(panel, tmp_path, monkeypatch, chosen, kept):
    answer = str(tmp_path / chosen) if chosen else ""
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_, **__: (answer, ""))
    browse(panel, 0)
    assert read_preferences().store == (str(tmp_path / kept) if kept else None)


def test_the_base_data_is_a_folder_chosen_in_a_dialog(panel, tmp_path, monkeypatch):
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_, **__: str(tmp_path))
    browse(panel, 1)
    assert read_preferences().base_data == str(tmp_path)
    assert line(panel, "Base data").text() == str(tmp_path)


def test_without_the_plugin_it_says_where_it_belongs(qtbot, plugin_settings, npe2pm):
    panel = SettingsPanel(ViewerModel())
    qtbot.addWidget(panel)
    assert "Plugins > Sonoloop" in panel.findChild(QLabel).text()
    panel.close_session()
