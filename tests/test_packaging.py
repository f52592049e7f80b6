"""What a user installs: the manifest, and the files inside the wheel."""

from __future__ import annotations

import subprocess
import sys
import zipfile

import pytest
from npe2 import PluginManifest
from packaging.requirements import Requirement

from sonoloop.jobs.request import Request

MANIFEST = "src/sonoloop/napari.yaml"


@pytest.fixture(scope="module")
def wheel(root, tmp_path_factory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(root)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    (path,) = folder.glob("napari_sonoloop-*.whl")
    with zipfile.ZipFile(path) as opened:
        yield opened


def test_the_two_manifests_are_one(root):
    outer, inner = root / "napari.yaml", root / MANIFEST
    if outer.is_symlink():
        assert outer.resolve() == inner.resolve()
    else:
        # a checkout without links holds the link's target as text
        assert outer.read_text().strip() in (MANIFEST, inner.read_text().strip())


def test_the_manifest_is_valid(root):
    manifest = PluginManifest.from_file(root / MANIFEST)
    assert manifest.name == "napari-sonoloop"
    assert manifest.contributions.widgets
    assert manifest.contributions.readers
    assert manifest.contributions.sample_data


def test_the_wheel_holds_what_is_read_at_run_time(wheel):
    names = set(wheel.namelist())
    for needed in (
        "sonoloop/napari.yaml",
        "sonoloop/py.typed",
        "sonoloop/models/default/card.json",
        "sonoloop/models/default/weights.safetensors",
        "sonoloop_training/recipes/default.toml",
        "sonoloop_training/py.typed",
    ):
        assert needed in names, f"{needed} is not in the wheel"
    assert "sonoloop/store/migrations/env.py" in names
    assert any(name.startswith("sonoloop/store/migrations/versions/r0001") for name in names)


def test_the_wheels_manifest_is_the_sources(wheel, root):
    assert wheel.read("sonoloop/napari.yaml") == (root / MANIFEST).read_bytes()


def test_the_wheel_holds_the_licences_and_no_tests(wheel):
    names = wheel.namelist()
    assert {name.rpartition("/")[2] for name in names if "/licenses/" in name} == {"LICENSE", "NOTICE"}
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {
        "sonoloop",
        "sonoloop_training",
    }


def test_the_wheel_is_under_40_megabytes(wheel):
    assert sum(entry.compress_size for entry in wheel.infolist()) < 40e6


def requirements(wheel, extra: str = "") -> set[str]:
    """Return what the wheel asks for, by name: always, or for an extra with those that it names."""
    (path,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    lines = wheel.read(path).decode().partition("\n\n")[0].splitlines()
    asked = [Requirement(line.partition(": ")[2]) for line in lines if line.startswith("Requires-Dist: ")]
    names = set()
    for one in asked:
        if one.marker is None if not extra else one.marker and one.marker.evaluate({"extra": extra}):
            names.add(one.name)
            if one.name == "napari-sonoloop":
                names |= requirements(wheel, *one.extras)
    return names


def test_what_annotates_is_installed_without_torch(wheel):
    base = requirements(wheel)
    assert {"napari", "onnxruntime", "sqlalchemy"} <= base
    heavy = {
        "torch",
        "torchvision",
        "timm",
        "segmentation-models-pytorch",
        "lightning",
        "monai",
        "matplotlib",
    }
    assert not (base | requirements(wheel, "annotate") | requirements(wheel, "openvino")) & heavy
    assert {"torch", "timm", "segmentation-models-pytorch"} <= requirements(wheel, "torch")
    assert heavy <= requirements(wheel, "train") <= requirements(wheel, "all")
    assert "napari" in requirements(wheel, "all") & requirements(wheel, "annotate")


def test_what_a_job_needs_is_in_the_extra_that_it_names(wheel):
    installed = {name.replace("-", "_") for name in requirements(wheel, "train")}
    for kind in Request.__subclasses__():
        assert set(kind.needs) <= installed, f"{kind.command} needs more"


def test_the_wheel_registers_the_plugin_and_the_command(wheel):
    (entry_points,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    text = wheel.read(entry_points).decode()
    assert "napari-sonoloop = sonoloop:napari.yaml" in text
    assert "sonoloop = sonoloop.cli:main" in text
