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

FIELDS = ("device", "engine", "annotator", "store", "base_data")


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
    device, engine = panel.findChildren(QComboBox)
    device.setCurrentText("cpu")
    engine.setCurrentText("openvino")
    told = read_preferences()
    assert (told.annotator, told.device, told.engine) == ("anna", "cpu", "openvino")


def test_a_path_from_home_is_one(panel):
    get_plugin_settings(PLUGIN).annotate.store = "~/a.db"
    get_plugin_settings(PLUGIN).annotate.base_data = "~nobody-of-that-name/data"
    assert read_preferences().store == str(Path.home() / "a.db")
    assert read_preferences().base_data == "~nobody-of-that-name/data"


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


@pytest.mark.parametrize("typed", ["x" * 300, "/root\0", "no such place"])
def test_browse_begins_at_home_where_what_was_typed_is_no_path(panel, monkeypatch, typed):
    begun = []
    for ask, nothing in (("getSaveFileName", ("", "")), ("getExistingDirectory", "")):
        monkeypatch.setattr(
            QFileDialog, ask, lambda _p, _t, start, *_, nothing=nothing, **__: begun.append(start) or nothing
        )
    for number, title in enumerate(("Correction store", "Base data")):
        line(panel, title).setText(typed)
        browse(panel, number)
    assert begun == [str(Path.home())] * 2


def test_browse_begins_at_the_store_that_a_url_names(panel, monkeypatch, tmp_path):
    begun = []
    monkeypatch.setattr(
        QFileDialog, "getSaveFileName", lambda _p, _t, start, *_, **__: begun.append(start) or ("", "")
    )
    (tmp_path / "a.db").touch()
    line(panel, "Correction store").setText(f"sqlite:///{tmp_path / 'a.db'}")
    browse(panel, 0)
    assert begun == [str(tmp_path / "a.db")]


def test_without_the_plugin_it_says_where_it_belongs(qtbot, plugin_settings, npe2pm):
    panel = SettingsPanel(ViewerModel())
    qtbot.addWidget(panel)
    assert any("Plugins > Sonoloop" in label.text() for label in panel.findChildren(QLabel))
    panel.close_session()
