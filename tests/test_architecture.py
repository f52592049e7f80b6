"""The house as `docs/architecture.md` draws it: who may import whom, no circles, and where new things go.

A command and a panel are added here; an image format, a format of masks, a layout of datasets, an
architecture, an engine and an option of a job beside the other tests of each.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

ROOT = Path(__file__).parents[1]
GROUND = {
    "values",
    "errors",
    "atomic",
    "regular_files",
    "plain_text",
    "library_noise",
    "crash_points",
}
# an arrow beside these, or to the ground, is a new one: it wants a reason before it is written here
ARROWS = {
    "drafts": set(),
    "imaging": set(),
    "formats": {"imaging"},
    "models": {"imaging"},
    "store": {"imaging", "drafts"},
    "jobs": {"store"},
    "batch": {"imaging", "formats", "models"},
    "leakage": {"imaging", "models", "store"},
    "project": {"drafts", "imaging", "models", "store", "jobs", "leakage"},
    "gui": {"drafts", "imaging", "formats", "models", "store", "jobs", "batch", "project"},
    "cli": {"drafts", "imaging", "formats", "models", "store", "jobs", "leakage", "batch", "project", "gui"},
    "training": {"imaging", "formats", "models", "store", "jobs", "leakage", "project"},
}


def modules() -> dict[str, Path]:
    """Return every module of ours by its dotted name."""
    found = {}
    for folder in (ROOT / "src", ROOT / "training"):
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(name: str, *, everywhere: bool) -> set[str]:
    """Return our modules that one imports: anywhere, or when it is loaded itself."""
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if everywhere else tree.body
    named = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            named |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return named & MODULES.keys()


def room(name: str) -> str:
    """Return which part of the house a module is in."""
    top, _, rest = name.partition(".")
    return "training" if top == "sonoloop_training" else rest.partition(".")[0]


@pytest.mark.parametrize("package", sorted(ARROWS))
def test_imports_go_along_the_arrows(package):
    for name in MODULES:
        if room(name) == package:
            reached = {room(other) for other in imports(name, everywhere=True)}
            assert reached - {package, ""} <= ARROWS[package] | GROUND, f"{name} draws a new arrow"


def test_every_part_of_the_house_has_its_arrows():
    assert {room(name) for name in MODULES} == ARROWS.keys() | GROUND | {"", "__main__"}


def test_no_module_reaches_itself_in_a_circle():
    arrows = {name: imports(name, everywhere=False) for name in MODULES}
    open_, done = [], set()

    def follow(name: str) -> None:
        assert name not in open_, " -> ".join([*open_[open_.index(name) :], name])
        if name not in done:
            open_.append(name)
            for other in sorted(arrows[name]):
                # a package's own file may gather what stands in it
                if not name.startswith(f"{other}."):
                    follow(other)
            open_.pop()
            done.add(name)

    for name in sorted(MODULES):
        follow(name)


def test_the_steps_and_places_of_the_page_exist():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    files = {str(path.relative_to(ROOT)) for path in MODULES.values()}
    named = set(re.findall(r"`((?:[a-z_]+/)*[a-z_]+\.py)`", page))
    assert len(named) > 20
    for name in named:
        assert any(file.endswith(f"/{name}") for file in [*files, "/tests/test_architecture.py"]), name
    for file, thing in re.findall(r"`((?:[a-z_]+/)*[a-z_]+\.py)`, `([\w.]+)`", page):
        path = next(ROOT / known for known in files if known.endswith(f"/{file}"))
        assert re.search(rf"(class|def) {thing.rpartition('.')[2]}\b", path.read_text(encoding="utf-8")), (
            thing
        )


def test_a_command_is_one_file_and_one_line(tmp_path, monkeypatch):
    from sonoloop.cli.app import COMMANDS, make_app

    (tmp_path / "greet_command.py").write_text(
        'import typer\n\ndef greet(name: str) -> None:\n    """Greet."""\n    typer.echo(f"hello {name}")\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(COMMANDS, "greet", "greet_command:greet")
    said = CliRunner().invoke(make_app(), ["greet", "annotator"])
    assert (said.exit_code, said.output) == (0, "hello annotator\n")


def test_a_panel_is_one_file_and_its_widget_in_the_manifest(tmp_path):
    (tmp_path / "counting_panel.py").write_text(
        "from qtpy.QtWidgets import QWidget\n\nclass CountingPanel(QWidget):\n    pass\n"
    )
    manifest = yaml.safe_load((ROOT / "src" / "sonoloop" / "napari.yaml").read_text(encoding="utf-8"))
    contributions = manifest["contributions"]
    contributions["commands"].append(
        {"id": "napari-sonoloop.count", "title": "Count", "python_name": "counting_panel:CountingPanel"}
    )
    contributions["widgets"].append({"command": "napari-sonoloop.count", "display_name": "Count"})
    (tmp_path / "napari.yaml").write_text(yaml.safe_dump(manifest))
    code = f"""
import sys
from pkgutil import resolve_name
sys.path.insert(0, {str(tmp_path)!r})
from npe2 import PluginManager, PluginManifest
manager = PluginManager()
manager.register(PluginManifest.from_file({str(tmp_path / "napari.yaml")!r}))
(widget,) = (each for each in manager.iter_widgets() if each.display_name == "Count")
manifest = manager.get_manifest(widget.command)
(command,) = (each for each in manifest.contributions.commands if each.id == widget.command)
print(resolve_name(command.python_name).__name__)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "CountingPanel"
