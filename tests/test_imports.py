"""The import rule: what each package loads, in a fresh interpreter, and what it may name at all."""

from __future__ import annotations

import ast
import functools
import json
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src"
TRAINING = Path(__file__).parents[1] / "training"

TORCH = {"torch", "torchvision", "timm", "segmentation_models_pytorch", "lightning"}
QT = {"napari", "qtpy", "superqt", "PyQt5", "PyQt6", "PySide2", "PySide6"}

# what every package may import of ours
GROUND = {"values", "errors", "crash_points", "atomic", "regular_files", "plain_text", "library_noise"}
# what a package may import of ours, anywhere in its code, beside itself and the ground
MAY_IMPORT = {
    "imaging": set(),
    "models": {"imaging"},
    "formats": {"imaging"},
    "store": {"imaging", "drafts"},
    "jobs": {"store", "drafts"},
    "cli": {"imaging", "models", "formats", "store", "jobs", "leakage", "batch", "project", "gui"},
    "gui": {"imaging", "models", "formats", "store", "jobs", "batch", "project", "drafts"},
}


@functools.cache
def loaded_by(*steps: str) -> list[set[str]]:
    """Run code step by step in a fresh interpreter; return the modules that were loaded after each."""
    report = "\nimport json, sys\nprint('\\n' + 'loaded ' + json.dumps(sorted(sys.modules)))\n"
    code = report.join([*steps, ""])
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = [line for line in answer.stdout.splitlines() if line.startswith("loaded ")]
    return [set(json.loads(line.removeprefix("loaded "))) for line in lines]


def import_everything(package: str, folder: Path) -> str:
    """Return code that imports each module of a package."""
    files = sorted(p for p in (folder / package.replace(".", "/")).rglob("*.py") if p.name != "__main__.py")
    # Alembic alone runs its environment
    files = [path for path in files if path.name != "env.py"]
    modules = [p.relative_to(folder).with_suffix("").as_posix().replace("/", ".") for p in files]
    return "\n".join(f"import {module.removesuffix('.__init__')}" for module in modules)


def top_level(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


def ours(modules: set[str]) -> set[str]:
    """Return the packages of sonoloop among the modules."""
    return {name.split(".")[1] for name in modules if name.startswith("sonoloop.")}


def test_the_ground_loads_numpy_at_most():
    modules = ["sonoloop", *(f"sonoloop.{name}" for name in sorted(GROUND))]
    (loaded,) = loaded_by("\n".join(f"import {module}" for module in modules))
    assert not top_level(loaded) & (TORCH | QT | {"PIL", "scipy", "skimage", "typer", "sqlalchemy"})


HELP = """
import sys
sys.argv = ["sonoloop", "predict", "--help"]
from sonoloop.cli import main
try:
    main()
except SystemExit:
    pass
"""
WIDGETS = f"""
from npe2 import PluginManager, PluginManifest
manager = PluginManager()
manager.register(PluginManifest.from_file({str(SRC / "sonoloop" / "napari.yaml")!r}))
names = [widget.display_name for widget in manager.iter_widgets()]
assert names == ["Annotate", "Train", "Models", "Batch predict", "Settings"]
"""
# what one interpreter runs, step by step: each step may load all that those before it may
STARTS = (
    ("imaging", "formats"),
    ("store",),
    ("jobs",),
    (HELP, "cli"),
    (WIDGETS, "gui"),
    ("models", "training"),
)


def after(step: str) -> set[str]:
    """Return what is loaded once all of a package is imported, or some code has run."""
    (start,) = (start for start in STARTS if step in start)
    codes = {name: import_everything(f"sonoloop.{name}", SRC) for name in MAY_IMPORT}
    codes["training"] = import_everything("sonoloop_training", TRAINING)
    return loaded_by(*(codes.get(one, one) for one in start))[start.index(step)]


@pytest.mark.parametrize("package", ["imaging", "formats", "store", "jobs", "cli"])
def test_loads_neither_torch_nor_qt_nor_training(package):
    modules = after(package)
    assert not top_level(modules) & (TORCH | QT | {"sonoloop_training"})
    assert ours(modules) <= {package} | GROUND | MAY_IMPORT[package] - {"gui"}


def test_models_load_neither_store_nor_qt_nor_training():
    modules = after("models")
    assert not top_level(modules) & (QT | {"sonoloop_training"})
    assert ours(modules) <= {"models", "imaging"} | GROUND


def test_the_gui_loads_neither_torch_nor_training():
    modules = after("gui")
    assert not top_level(modules) & (TORCH | {"sonoloop_training"})
    assert "cli" not in ours(modules)


def test_project_joins_what_is_below_it_and_loads_no_torch():
    (modules,) = loaded_by("import sonoloop.project")
    assert not top_level(modules) & (TORCH | QT | {"sonoloop_training"})
    assert (
        ours(modules)
        <= {"project", "leakage", "imaging", "drafts", "models", "formats", "store", "jobs"} | GROUND
    )


def test_training_loads_no_gui():
    modules = after("training")
    assert not top_level(modules) & QT
    assert not ours(modules) & {"gui", "cli"}


def test_help_loads_no_torch_and_no_napari():
    assert not top_level(after(HELP)) & (TORCH | QT | {"numpy"})


def test_listing_the_widgets_loads_no_torch():
    assert not top_level(after(WIDGETS)) & TORCH


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_imports_go_one_way_wherever_they_stand(package):
    allowed = MAY_IMPORT[package] | GROUND | {package, "__version__"}
    for path in sorted((SRC / "sonoloop" / package).rglob("*.py")):
        for name in imported_names(path):
            parts = name.split(".")
            assert parts[0] != "sonoloop_training", f"{path} imports {name}"
            assert parts[0] != "sonoloop" or len(parts) == 1 or parts[1] in allowed, f"{path} imports {name}"
            assert package == "gui" or parts[0] not in QT, f"{path} imports {name}"
            assert package == "models" or parts[0] not in TORCH, f"{path} imports {name}"


def imported_names(path: Path) -> list[str]:
    """Return what a file imports, inside functions too."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively; say which module"
            module = node.module or ""
            names += [f"{module}.{alias.name}" if module == "sonoloop" else module for alias in node.names]
    return names
