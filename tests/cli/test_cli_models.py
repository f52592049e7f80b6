"""`sonoloop models`: what it shows and does, in this process; two commands as a user runs them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from sonoloop.cli import main
from sonoloop.formats.prediction_folder import read_predictions
from sonoloop.models.card import WEIGHTS, read_card, shipped_card
from sonoloop.models.library import Library
from sonoloop.store import CorrectionStore
from sonoloop.store import promotions as pointer
from sonoloop.store.model_registry import find_model, list_models, register
from sonoloop.store.test_sets import freeze_test_set, record_evaluation

SHIPPED = shipped_card().model


class Said(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """An own, empty place for models."""
    place = tmp_path / "data" / "models"
    monkeypatch.setattr("sonoloop.models.library.models_folder", lambda: place)
    return place


@pytest.fixture
def store(tmp_path, folder) -> Path:
    path = tmp_path / "corrections.sqlite"
    CorrectionStore(path).close()
    return path


@pytest.fixture
def tiny(store, folder, model) -> str:
    """A model of the project, tuned from the shipped one, and not in use; its id."""
    card = read_card(Library(folder).add(model))
    with CorrectionStore(store) as opened:
        shipped = shipped_card()
        pointer.ensure_incumbent(opened, version=shipped.version, model=shipped.model, who="anna")
        register(
            opened,
            version=card.version,
            model=card.model,
            origin="tuned",
            parent=shipped.version,
            who="anna",
        )
    return card.model


@pytest.fixture
def models(store, capsys, monkeypatch):
    def run(*arguments: object) -> Said:
        line = ["sonoloop", "models", *map(str, arguments), "--store", str(store)]
        monkeypatch.setattr(sys, "argv", line)
        try:
            code = main()
        except SystemExit as end:
            code = int(end.code or 0)
        return Said(code, *capsys.readouterr())

    return run


def own_data(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Have other processes keep models in a folder of the test's."""
    for name in ("XDG_DATA_HOME", "HOME"):
        monkeypatch.setenv(name, str(folder / "data"))


def in_use(store: Path) -> str:
    with CorrectionStore(store) as opened:
        version = pointer.incumbent(opened).version
        return find_model(opened, version).model


def test_a_new_project_lists_the_shipped_model_as_in_use(models, store, folder):
    said = models("list")
    assert said.code == 0
    assert f"* {SHIPPED} shipped" in " ".join(said.out.split())
    assert "nothing was judged yet" in said.out
    # kept, so that an upgrade of the package takes nothing away
    assert (folder / SHIPPED / WEIGHTS).is_file()
    assert in_use(store) == SHIPPED


def test_listing_loads_no_torch(store, tmp_path, monkeypatch):
    own_data(monkeypatch, tmp_path)
    code = (
        "import sys; from sonoloop.cli import main; "
        f"sys.argv = ['sonoloop', 'models', 'list', '--store', {str(store)!r}]\n"
        "try:\n    main()\nfinally:\n    print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_using_a_model_goes_on_record_and_back(models, store, tiny):
    said = models("use", tiny, "--why", "it sees cysts", "--who", "berta")
    assert (said.code, in_use(store)) == (0, tiny)
    assert f"{tiny} is in use, in place of {SHIPPED}" in said.out
    again = models("use", tiny, "--why", "twice")
    assert again.code == 2
    assert "in use already" in again.err
    back = models("rollback", "--why", "worse on normals")
    assert (back.code, in_use(store)) == (0, SHIPPED)
    assert models("rollback", "--why", "once more").code == 2
    with CorrectionStore(store) as opened:
        moves = pointer.history(opened)
    assert [(move.kind, move.who, move.why) for move in moves[1:]] == [
        ("use", "berta", "it sees cysts"),
        ("rollback", "command line", "worse on normals"),
    ]


def test_a_reason_is_asked_for(models, store, tiny):
    for arguments in (("use", tiny), ("use", tiny, "--why", "  "), ("rollback",), ("delete", tiny)):
        said = models(*arguments)
        assert said.code == 2
        assert "--why" in said.err
    assert in_use(store) == SHIPPED


def test_a_damaged_model_is_refused_before_it_is_used(models, store, tiny, folder):
    path = folder / tiny / WEIGHTS
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    said = models("use", tiny, "--why", "try")
    assert said.code == 2
    assert "not those its card names" in said.err
    assert in_use(store) == SHIPPED


def test_rolling_back_to_a_damaged_model_is_refused(models, store, tiny, folder):
    models("use", tiny, "--why", "try")
    with CorrectionStore(store) as opened:
        version = pointer.incumbent(opened).version
        register(opened, version="f" * 64, model="other-ffffffff", origin="tuned", who="anna")
        pointer.promote(opened, "f" * 64, kind="use", who="anna", why="try", expected=version)
    shutil.rmtree(folder / tiny)
    said = models("rollback", "--why", "no")
    assert said.code == 2
    assert "is not on this machine: import it" in said.err
    assert in_use(store) == "other-ffffffff"


def test_a_lock_holds_for_the_command_line(models, store, tiny):
    assert models("lock", "--why", "study 7").code == 0
    said = models("use", tiny, "--why", "try")
    assert said.code == 2
    assert f"locked to {SHIPPED}" in said.err
    assert "the project is locked" in models("list").out
    assert models("unlock", "--why", "over").code == 0
    assert models("use", tiny, "--why", "try").code == 0
    assert in_use(store) == tiny


def test_a_model_goes_to_another_machine_by_a_file(models, store, tiny, folder, tmp_path):
    out = tmp_path / "tiny.zip"
    assert models("export", tiny, "--out", out).code == 0
    assert models("delete", tiny, "--why", "no room").code == 0
    assert not (folder / tiny).exists()
    assert models("use", tiny, "--why", "gone").code == 2
    assert "deleted" in models("list").out
    said = models("import", out, "--who", "berta")
    assert said.code == 0
    assert f"{tiny} is here" in said.out
    assert models("use", tiny, "--why", "back").code == 0
    with CorrectionStore(store) as opened:
        assert [mark.mark for mark in find_model(opened, tiny).marks] == ["deleted", "restored"]


def test_an_imported_model_is_known_and_not_used(models, store, model):
    said = models("import", model)
    assert said.code == 0
    with CorrectionStore(store) as opened:
        row = list_models(opened)[-1]
    assert (row.model, row.origin, row.parent) == (read_card(model).model, "imported", None)
    assert in_use(store) == SHIPPED


def test_what_is_no_model_is_not_imported(models, store, tmp_path):
    (tmp_path / "x.zip").write_text("hello")
    said = models("import", tmp_path / "x.zip")
    assert said.code == 2
    assert "is no zip file" in said.err
    with CorrectionStore(store) as opened:
        assert [row.model for row in list_models(opened)] == [SHIPPED]


def test_the_model_in_use_is_not_deleted(models, folder):
    said = models("delete", SHIPPED, "--why", "no room")
    assert said.code == 2
    assert "in use" in said.err
    assert (folder / SHIPPED).is_dir()


def test_deleting_again_finishes_what_was_interrupted(models, tiny, folder, monkeypatch):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Library, "delete", stop)
        assert models("delete", tiny, "--why", "no room").code == 130
    assert (folder / tiny).is_dir()
    assert models("delete", tiny, "--why", "no room").code == 0
    assert not (folder / tiny).exists()


def test_deleting_asks_first_on_a_terminal(models, store, tiny, folder, monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    asked = []

    def answer(question: str, **_: object) -> bool:
        asked.append(question)
        return False

    monkeypatch.setattr("typer.confirm", answer)
    assert models("delete", tiny, "--why", "no room").code == 130
    assert asked == [f"Delete {tiny} from this machine, for all projects on it?"]
    assert (folder / tiny).is_dir()
    with CorrectionStore(store) as opened:
        assert not find_model(opened, tiny).is_deleted
    said = models("delete", tiny, "--why", "no room", "--yes")
    assert (said.code, len(asked)) == (0, 1)
    assert "for all projects on it" in said.out
    assert not (folder / tiny).exists()


def test_showing_a_model_tells_its_record(models, store, tiny):
    models("use", tiny, "--why", "it sees cysts", "--who", "berta")
    with CorrectionStore(store) as opened:
        record_evaluation(
            opened,
            test_set=freeze_test_set(opened).number,
            candidate=find_model(opened, tiny).version,
            incumbent=find_model(opened, SHIPPED).version,
            verdict="inconclusive",
            reason="about 90 more test groups would tell",
            figures={},
            who="berta",
        )
    said = models("show", tiny[:6])
    assert said.code == 0
    text = " ".join(said.out.split())
    assert f"model: {tiny} (in use)" in text
    assert f"tuned from: {SHIPPED}" in text
    assert "(use) by berta: it sees cysts" in text
    assert f"{tiny} against {SHIPPED} on test set 1: inconclusive. about 90 more" in text
    values = json.loads(models("show", tiny, "--json").out)
    assert values["promotions"][0]["why"] == "it sees cysts"
    assert values["looks"][0]["verdict"] == "inconclusive"
    assert values["card"]["name"] == "tiny"
    assert "its card, test: Dice" in " ".join(models("show", SHIPPED).out.split())


def test_a_model_whose_card_is_damaged_is_shown_and_said_to_be(models, tiny, folder):
    (folder / tiny / "card.json").write_text('{"metrics": "good"}')
    said = models("show", tiny)
    assert said.code == 0
    assert f"{tiny} is damaged: the card of the model {tiny}" in said.err
    assert "on this machine: no" in " ".join(said.out.split())


def test_the_list_is_json_too(models, tiny):
    values = json.loads(models("list", "--json").out)
    assert [(line["model"], line["in_use"], line["from"]) for line in values["models"]] == [
        (tiny, False, SHIPPED),
        (SHIPPED, True, None),
    ]
    assert (values["test_set"], values["looks"], values["locked"]) == (None, 0, None)


def test_a_store_that_is_not_there_is_not_made(models, store):
    store.unlink()
    said = models("list")
    assert said.code == 2
    assert "there is no store" in said.err
    assert not store.exists()


def test_an_unknown_model_is_named_with_those_there_are(models):
    said = models("use", "nix", "--why", "try")
    assert said.code == 2
    assert f"no model 'nix'; it knows {SHIPPED}" in said.err


def test_predict_uses_the_model_of_the_project(sonoloop, study, tmp_path, model, monkeypatch):
    own_data(monkeypatch, tmp_path)
    store, image = tmp_path / "corrections.sqlite", study / "benign" / "benign (2).png"
    CorrectionStore(store).close()
    done = sonoloop("models", "import", model, "--store", store)
    assert done.returncode == 0, done.stderr
    name = read_card(model).model
    assert sonoloop("models", "use", name, "--why", "quick", "--store", store).returncode == 0
    done = sonoloop("predict", image, "--out", tmp_path / "out", "--store", store)
    assert done.returncode == 0, done.stderr
    assert [row.model for row in read_predictions(tmp_path / "out")] == [name]
    done = sonoloop("predict", image, "--out", tmp_path / "2", "--store", store, "--model", name)
    assert done.returncode == 2
    assert "not both" in done.stderr
    done = sonoloop("predict", image, "--out", tmp_path / "2", "--store", tmp_path / "nowhere.sqlite")
    assert done.returncode == 2
    assert not (tmp_path / "nowhere.sqlite").exists()
