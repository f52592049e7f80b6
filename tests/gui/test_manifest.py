"""The manifest: only what napari honours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from napari._app_model.constants import MenuId
from npe2 import PluginManifest

import sonoloop

SOURCE = Path(sonoloop.__file__).with_name("napari.yaml")


@pytest.fixture(scope="module")
def manifest() -> PluginManifest:
    return PluginManifest.from_file(SOURCE)


def test_everything_it_names_can_be_imported(manifest):
    manifest.validate_imports()


def test_menus_are_ones_that_napari_shows(manifest):
    allowed = {str(menu.value) for menu in MenuId.contributables()}
    assert set(manifest.contributions.menus) <= allowed


def test_it_claims_no_key_bindings_which_napari_ignores(manifest):
    assert not manifest.contributions.keybindings


def test_no_sample_key_is_the_suffix_of_a_command(manifest):
    commands = {command.id.partition(".")[2] for command in manifest.contributions.commands}
    assert not commands & {sample.key for sample in manifest.contributions.sample_data}


def test_listing_the_widgets_loads_neither_torch_nor_curves(manifest):
    assert [widget.display_name for widget in manifest.contributions.widgets] == [
        "Annotate",
        "Train",
        "Models",
        "Batch predict",
        "Settings",
    ]
    names = [command.python_name for command in manifest.contributions.commands]
    modules = sorted({name.partition(":")[0] for name in names})
    code = f"""
import importlib, sys
for name in {modules!r}:
    importlib.import_module(name)
print(sorted({{"torch", "pyqtgraph", "sonoloop_training"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_defaults_are_those_of_the_code(manifest):
    from sonoloop.gui.preferences import EngineName, Preferences

    properties = manifest.contributions.configurations["annotate"].properties
    assert properties["device"].default == Preferences().device
    assert properties["engine"].default == Preferences().engine
    assert tuple(properties["engine"].enum) == get_args(EngineName)
    assert properties["annotator"].default == Preferences().annotator
    assert properties["store"].default == (Preferences().store or "")
    assert properties["base_data"].default == (Preferences().base_data or "")
