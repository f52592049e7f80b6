"""`sonoloop store`, as a user runs it."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sonoloop.cli.console import ProgressConsole
from sonoloop.imaging.io import read_study
from sonoloop.imaging.phantom import phantom
from sonoloop.models.card import models_folder
from sonoloop.models.library import Library
from sonoloop.store import CorrectionStore, withdrawal
from sonoloop.store.file_index import Places
from sonoloop.store.groups import place_frame
from sonoloop.values import Correction


@pytest.fixture
def project(tmp_path):
    """A store of three corrected images, two of them of patient PAT-7, and their files."""
    place = tmp_path / "corrections.sqlite"
    (tmp_path / "images").mkdir()
    with CorrectionStore(place) as store:
        places = Places(store.url)
        for seed, patient, role in ((1, "PAT-7", "train"), (2, "PAT-7", None), (3, "PAT-8", "test")):
            file = tmp_path / "images" / f"image {seed}.png"
            Image.fromarray(phantom("benign", seed=seed, shape=(96, 128)).image).save(file)
            frame = read_study(file).frames[0]
            place_frame(store, frame, patient=patient, role=role)
            places.remember(frame.id, file, pixels_hash=frame.pixels_hash)
            mask = np.zeros(frame.shape, np.uint8)
            mask[10:20, 10:30] = 1
            correction = Correction(
                frame_id=frame.id,
                pixels_hash=frame.pixels_hash,
                mask=mask,
                label="benign",
                annotator="reader-1",
            )
            store.accept(correction, parent=None)
    return place


@pytest.fixture
def run(sonoloop, project):
    """Run a subcommand on the project."""

    def run(*arguments: object):
        return sonoloop("store", *arguments, "--store", project)

    return run


def own_data(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Have other processes keep models in a folder of the test's."""
    for name in ("XDG_DATA_HOME", "HOME"):
        monkeypatch.setenv(name, str(folder / "data"))


def test_status_says_what_is_there(run, project):
    done = run("status")
    assert (done.returncode, done.stderr) == (0, "")
    told = " ".join(done.stdout.split())
    for part in (
        str(project),
        "3 revisions",
        "2 images in 1 group",
        "1 image in 1 group of at most 300, 1 with a lesion",
        "snapshots none",
        "the one that ships",
    ):
        assert part in told
    found = json.loads(run("status", "--json").stdout)
    assert (found["train_frames"], found["test_frames"], found["settings"]["test_cap"]) == (2, 1, 300)


def test_snapshots_are_taken_and_listed(run):
    assert "there is no snapshot yet" in run("snapshots").stdout
    done = run("snapshot", "first", "--who", "reader-1")
    assert (done.returncode, done.stderr) == (0, "")
    assert "snapshot first holds 3 corrections: 2 train, 1 judge; its hash is" in done.stdout
    again = run("snapshot", "first")
    assert (again.returncode, again.stdout) == (2, "")
    assert "there is a snapshot first already" in again.stderr
    same = json.loads(run("snapshot", "--json").stdout)
    assert (same["name"], same["train"], same["who"]) == ("first", 2, "reader-1")
    second = json.loads(run("snapshot", "second", "--json").stdout)
    assert (second["name"], second["who"]) == ("second", "command line")
    assert "first" in run("snapshots").stdout
    listed = json.loads(run("snapshots", "--json").stdout)
    assert [(row["name"], row["test"]) for row in listed] == [("first", 1), ("second", 1)]
    assert listed[0]["sha256"] == listed[1]["sha256"]


def test_withdrawing_a_patient_erases_and_tells(run, project):
    run("snapshot", "first")
    refused = run("withdraw", "PAT-7", "--why", "asked to")
    assert refused.returncode == 2 and "add --yes" in refused.stderr
    assert json.loads(run("status", "--json").stdout)["withdrawn_frames"] == 0
    done = run("withdraw", "PAT-7", "--why", "asked to", "--yes")
    assert (done.returncode, done.stderr) == (0, "")
    told = " ".join(done.stdout.split())
    assert "erased 2 images:" in told and "snapshots that hold them first" in told
    assert "models that learned from them none" in told
    assert json.loads(run("status", "--json").stdout)["withdrawn_frames"] == 2
    assert run("verify").returncode == 0
    again = run("withdraw", "PAT-7", "--why", "once more", "--yes")
    assert (again.returncode, again.stderr) == (0, "")
    told = " ".join(again.stdout.split())
    assert "erased nothing that was left withdrawn before 2 images:" in told
    assert "snapshots that hold them first" in told
    assert "2 images; see: sonoloop store withdrawn" in " ".join(run("status").stdout.split())


def test_what_was_withdrawn_is_listed_with_its_date_and_reason(run):
    assert run("withdrawn").stdout == "nothing was withdrawn\n"
    found = json.loads(
        run("withdraw", "PAT-7", "--why", "asked to", "--who", "anna", "--yes", "--json").stdout
    )
    assert (len(found["frames"]), found["before"]) == (2, [])
    listed = run("withdrawn").stdout
    for part in (*(frame[:12] for frame in found["frames"]), "UTC", "anna", "asked to"):
        assert part in listed
    stones = json.loads(run("withdrawn", "--json").stdout)
    assert [stone["frame_id"] for stone in stones] == found["frames"]
    assert {(stone["why"], stone["who"], stone["created"][:2]) for stone in stones} == {
        ("asked to", "anna", "20")
    }


def test_models_that_say_they_learned_from_it_are_named(run, project, model, tmp_path, monkeypatch):
    own_data(monkeypatch, tmp_path)
    library = Library(models_folder())
    with CorrectionStore(project) as store:
        frame_id = withdrawal.frames_of(store, "PAT-8")[0]
    folder = library.add(model)
    (folder / "split.json").write_text(json.dumps({"train": [{"name": "a", "id": frame_id}]}))
    done = run("withdraw", "PAT-8", "--why", "asked to", "--yes")
    assert f"models that learned from them {folder.name}" in " ".join(done.stdout.split())
    again = json.loads(run("withdraw", "PAT-8", "--why", "asked to", "--yes", "--json").stdout)
    assert [row["model"] for row in again["models"]] == [folder.name]


def test_withdrawing_needs_a_reason_and_something_that_is_there(run):
    assert run("withdraw", "PAT-7").returncode == 2
    assert run("withdraw", "PAT-7", "--why", " ").returncode == 2
    done = run("withdraw", "PAT-9", "--why", "asked to", "--yes", "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no image and no patient PAT-9" in done.stderr and "Traceback" not in done.stderr
    assert json.loads(run("status", "--json").stdout)["withdrawn_frames"] == 0


def test_moved_files_are_found_again(run, project, tmp_path):
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "image 3.png").unlink()
    done = run("relink", tmp_path / "elsewhere")
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 lost files found among 2 images; 1 are not there:" in done.stdout
    found = json.loads(run("relink", tmp_path / "elsewhere", "--json").stdout)
    assert (len(found["found"]), len(found["missing"])) == (0, 1)
    gone = run("relink", tmp_path / "images")
    assert gone.returncode == 2 and "there is no file or folder" in gone.stderr


def test_verify_ends_with_1_where_something_is_wrong(run, project):
    done = run("verify")
    assert (done.returncode, done.stderr) == (0, "")
    assert "3 revisions checked: all is well" in done.stdout
    with closing(sqlite3.connect(project)) as connection:
        connection.execute("DROP TRIGGER looks_no_delete")
    done = run("verify")
    assert done.returncode == 1
    assert "the guard against changing looks (delete) was removed" in done.stdout
    assert json.loads(run("verify", "--json").stdout)["problems"]


def test_settings_are_shown_and_changed(run):
    assert "test_cap 300" in " ".join(run("set").stdout.split())
    done = run("set", "test_cap=50", "promote=automatic")
    assert done.returncode == 0
    assert "test_cap 50" in " ".join(done.stdout.split())
    found = json.loads(run("set", "--json").stdout)
    assert (found["test_cap"], found["promote"], found["locked_model"]) == (50, "automatic", None)
    for change, said in (
        ("test_cap=many", "whole number from 0 on, got 'many'"),
        ("cap=3", "no setting 'cap'"),
        ("test_cap", "KEY=VALUE"),
        ("locked_model=abc", "sonoloop models lock"),
    ):
        done = run("set", change)
        assert done.returncode == 2 and said in " ".join(done.stderr.split())
    assert json.loads(run("set", "--json").stdout)["test_cap"] == 50


def test_a_slip_of_the_pen_makes_no_store(sonoloop, tmp_path):
    done = sonoloop("store", "status", "--store", tmp_path / "corections.sqlite")
    assert done.returncode == 2
    assert "there is no store" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_store_is_named(sonoloop, tmp_path):
    (tmp_path / "notes.txt").write_text("no database at all" * 50)
    done = sonoloop("store", "status", "--store", tmp_path / "notes.txt")
    assert done.returncode == 2
    assert "not a SQLite database" in done.stderr and "Traceback" not in done.stderr


def test_a_backup_is_made_checked_and_restored(run, sonoloop, project, tmp_path, monkeypatch):
    own_data(monkeypatch, tmp_path)
    backup = tmp_path / "backup.sqlite"
    done = run("backup", backup)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"backed up to {backup}:" in done.stdout and "3 revisions, checked" in done.stdout
    refused = run("backup", backup)
    assert refused.returncode == 2 and "add --replace" in refused.stderr
    assert json.loads(run("backup", backup, "--replace", "--json").stdout)["revisions"] == 3
    checked = sonoloop("store", "verify", backup)
    assert (checked.returncode, checked.stdout) == (0, "3 revisions checked: all is well\n")
    run("withdraw", "PAT-8", "--why", "asked to", "--yes")
    done = sonoloop("store", "restore", backup, "--to", project)
    assert (done.returncode, done.stderr) == (0, "")
    assert "the store before is" in done.stdout and "1 image withdrawn since the backup" in done.stdout
    assert json.loads(run("status", "--json").stdout)["withdrawn_frames"] == 1
    sqlite(backup, "DROP TRIGGER looks_no_delete")
    for command in (("verify", backup), ("restore", backup, "--to", project), ("backup", tmp_path / "b")):
        done = sonoloop("store", *command, *(("--store", backup) if command[0] == "backup" else ()))
        assert done.returncode == 1
        assert "the guard against changing looks (delete) was removed" in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "b").exists()


def sqlite(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)


def test_an_export_is_checked_and_added_to_another_store(run, sonoloop, tmp_path):
    folder, key, other = tmp_path / "export", tmp_path / "key.json", tmp_path / "other.sqlite"
    done = run("export", folder, "--key", key)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"exported 3 revisions of 3 images and 0 drafts to {folder}:" in done.stdout
    assert sonoloop("store", "verify", folder).stdout == "the export checked: all is well\n"
    done = sonoloop("store", "merge", folder, "--store", other, "--key", key)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "added 3 frames, 2 groups, 3 revisions\n"
    again = sonoloop("store", "merge", folder, "--store", other)
    assert again.stdout == "nothing new: the store has all of it\n"
    third = sonoloop("store", "merge", folder, "--store", tmp_path / "third.sqlite", "--json")
    assert json.loads(third.stdout)["same_store"] is False
    nothing = sonoloop("store", "merge", tmp_path, "--store", tmp_path / "fourth.sqlite")
    assert nothing.returncode == 2 and "it is no export" in nothing.stderr
    assert not (tmp_path / "fourth.sqlite").exists()
    (folder / "tables" / "frames.jsonl").write_text("{}\n")
    damaged = sonoloop("store", "verify", folder)
    assert damaged.returncode == 1 and "1 problems; export again" in damaged.stdout


def test_an_export_that_is_interrupted_leaves_nothing(run, tmp_path, monkeypatch):
    before = sorted(tmp_path.iterdir())

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ProgressConsole, "advance", interrupt)
    for command in ("export", "backup"):
        done = run(command, tmp_path / "out")
        assert (done.returncode, done.stdout) == (130, "")
        assert "interrupted; nothing is left of it" in done.stderr
    assert sorted(tmp_path.iterdir()) == before


def test_a_store_on_a_network_share_is_warned_about(run, monkeypatch):
    from sonoloop.store import network_share

    monkeypatch.setattr(network_share, "find_share", lambda _: "nfs4")
    monkeypatch.setattr(network_share, "_told", set())
    done = run("snapshots", "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, [])
    assert "on a network share (nfs4)" in done.stderr and "sonoloop store backup" in done.stderr
    assert run("snapshots").stderr == ""
