"""The keys: one table, no collision with napari's own, rebindable."""

from __future__ import annotations

from collections import Counter

import pytest
from desk import box, picture
from napari.layers import Image
from napari.utils.action_manager import action_manager
from napari.utils.key_bindings import KeymapHandler, coerce_keybinding
from napari.utils.shortcuts import default_shortcuts

from sonoloop.gui.annotate.keys import KEYS, describe_keys, spell

# Qt shortcuts of napari's menus, which its table of shortcuts does not list
MENU_KEYS = [
    "Ctrl+S",
    "Ctrl+Shift+S",
    "Ctrl+N",
    "Ctrl+U",
    "Ctrl+O",
    "Ctrl+W",
    "Ctrl+Q",
    "Ctrl+M",
    "Ctrl+0",
    "Ctrl+,",
    "Ctrl+Shift+P",
]


def press(desk, key: str) -> None:
    """Press a key as napari's canvas does: the active layer's keys go first."""
    handler = KeymapHandler()
    active = desk.viewer.layers.selection.active
    handler.keymap_providers = [provider for provider in (active, desk.viewer) if provider is not None]
    assert handler.press_key(key), f"{key} is bound to nothing"
    handler.release_key(key)


def test_no_key_collides_with_napari():
    taken = {coerce_keybinding(key) for keys in default_shortcuts.values() for key in keys}
    taken |= {coerce_keybinding(key.replace("+", "-")) for key in MENU_KEYS}
    assert taken, "napari's table has moved"
    assert not taken & {coerce_keybinding(key.key) for key in KEYS}


def test_every_key_and_action_is_there_once():
    assert max(Counter(coerce_keybinding(key.key) for key in KEYS).values()) == 1
    assert max(Counter(key.action for key in KEYS).values()) == 1


def test_the_panels_table_names_every_key():
    table = describe_keys()
    for key in KEYS:
        assert key.description in table
    assert "Ctrl+Enter" in table


def test_keys_are_in_naparis_table_so_that_they_can_be_rebound(desk):
    for key in KEYS:
        assert f"napari-sonoloop:{key.action}" in action_manager._actions


@pytest.mark.parametrize("active", ["case", "case lesions"])
def test_keys_work_on_the_image_and_on_the_lesions(desk, store, active):
    desk.open(Image(picture(), name="case"))
    press(desk, "G")
    desk.qtbot.waitUntil(lambda: len(desk.predictions) == 1)
    desk.viewer.layers.selection.active = desk.viewer.layers[active]
    for key, label in (("8", "normal"), ("0", "malignant"), ("9", "benign")):
        press(desk, key)
        assert desk.view.label == label
    press(desk, "Control-Enter")
    desk.qtbot.waitUntil(lambda: desk.view.accepted)
    assert store.count() == 1
    assert (desk.lesions.data == box()).all()


def test_w_fills_and_outlines(desk):
    desk.open(Image(picture(), name="case"))
    desk.predict()
    press(desk, "W")
    assert desk.lesions.contour == 0
    assert desk.lesions.opacity < 0.5
    press(desk, "W")
    assert (desk.lesions.contour, desk.lesions.opacity) == (2, 0.9)


def test_h_hides_the_lesions_while_held(desk):
    desk.open(Image(picture(), name="case"))
    desk.predict()
    handler = KeymapHandler()
    handler.keymap_providers = [desk.lesions, desk.viewer]
    handler.press_key("H")
    assert not desk.lesions.visible
    handler.release_key("H")
    assert desk.lesions.visible


def test_keys_of_one_viewer_do_not_reach_the_panel_of_another(make_desk):
    one, other = make_desk(), make_desk()
    for desk in (one, other):
        desk.open(Image(picture(), name="case"))
    press(one, "9")
    assert (one.view.label, other.view.label) == ("benign", None)


def test_a_viewer_whose_panel_is_gone_says_where_to_find_it(desk, notices):
    desk.panel.close_session()
    press(desk, "G")
    assert notices == ["Open Plugins > Sonoloop > Annotate first"]


def test_without_naparis_action_manager_the_keys_still_work(make_desk, monkeypatch):
    def gone(*_args, **_kwargs):
        raise AttributeError("moved")

    monkeypatch.setattr(action_manager, "register_action", gone)
    desk = make_desk()
    desk.open(Image(picture(), name="case"))
    press(desk, "9")
    assert desk.view.label == "benign"


def test_the_page_has_the_table_of_keys(root):
    rows = "".join(f"| {spell(key.key)} | {key.description} |\n" for key in KEYS)
    assert f"| key | does |\n|---|---|\n{rows}\n" in (root / "docs" / "annotating.md").read_text("utf-8")
