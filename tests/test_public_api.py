"""What `import sonoloop` offers: at no cost until it is used, and as docs/python.md shows it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import sonoloop
from sonoloop import project as project_module
from sonoloop.jobs.events import Finished
from sonoloop.jobs.request import FinetuneRequest

HEAVY = {"torch", "sqlalchemy", "numpy", "napari", "qtpy"}


def test_importing_sonoloop_loads_nothing_heavy():
    code = f"import sonoloop, sys; dir(sonoloop); print(sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", sonoloop.__all__)
def test_every_name_is_there_and_documented(name):
    found = getattr(sonoloop, name)
    assert name in dir(sonoloop)
    if callable(found):
        assert found.__doc__
        assert found.__module__.startswith("sonoloop.")


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'predict_all'"):
        sonoloop.predict_all  # noqa: B018


def code_blocks(text: str) -> list[str]:
    return re.findall(r"(?<!<!-- not run -->\n)```python\n(.*?)```", text, re.DOTALL)


def test_the_code_of_the_documentation_runs_as_it_stands(root, tmp_path, monkeypatch, capsys):
    """Training and its gate, which take minutes, are played; all else is real."""
    from sonoloop.models.card import shipped_folder
    from sonoloop.store.promotions import history
    from test_project import judged

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    phantom = np.random.default_rng(0).integers(0, 255, (80, 96)).astype(np.uint8)
    Image.fromarray(phantom).save("case.png")
    asked = []

    def events(request):
        asked.append(request)
        with sonoloop.open_project("study.sqlite") as project:
            if isinstance(request, FinetuneRequest):
                shutil.copytree(shipped_folder(), tmp_path / "made")
                card = tmp_path / "made" / "card.json"
                card.write_text(card.read_text().replace('"name": "default"', '"name": "candidate"'))
                row = project.import_model(tmp_path / "made")
                yield Finished(model=row.model, path="", minutes=1.0)
            else:
                (row,) = (line.row for line in project.models().overview.models if not line.in_use)
                yield judged(project, row, "promote")

    monkeypatch.setattr(project_module, "training_events", events)
    blocks = code_blocks((root / "docs" / "python.md").read_text(encoding="utf-8"))
    assert len(blocks) == 5
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), {})
    assert [request.command for request in asked] == ["finetune", "gate"]
    assert asked[0].max_minutes == 10
    with sonoloop.open_project("study.sqlite") as project:
        assert [move.kind for move in history(project.store)] == ["first", "gate"]
        assert project.store.count() == 5
    assert "candidate" in capsys.readouterr().out
