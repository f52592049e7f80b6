"""The manifest: one file, only what napari honours, and no torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from napari._app_model.constants import MenuId
from npe2 import PluginManifest

import sonoloop

SOURCE = Path(sonoloop.__file__).with_name("napari.yaml")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def manifest() -> PluginManifest:
    return PluginManifest.from_file(SOURCE)


def test_the_file_at_the_root_is_the_packages_own():
    assert (ROOT / "napari.yaml").read_text() == SOURCE.read_text()


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


def test_the_defaults_are_those_of_the_code(manifest):
    from sonoloop.gui.preferences import Preferences

    properties = manifest.contributions.configurations["annotate"].properties
    assert properties["device"].default == Preferences().device
    assert properties["annotator"].default == Preferences().annotator
    assert properties["store"].default == (Preferences().store or "")


def test_listing_and_importing_the_widgets_imports_no_torch():
    code = (
        "import sys, sonoloop.gui.annotate, sonoloop.gui.reader, sonoloop.gui.samples, sonoloop.gui.commands;"
        "sys.exit('torch' in sys.modules or 'sonoloop_training' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
