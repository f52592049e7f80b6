"""An export holds everything, tells nothing of a person, and comes back as it was."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from full_store import PATIENTS, content_of, fill, rows_of
from PIL import Image
from scenes import correct, make_frame
from sqlalchemy import LargeBinary
from store_writers import make_correction

from sonoloop import drafts
from sonoloop.drafts import Draft, DraftFolder, draft_folder
from sonoloop.errors import StoreError
from sonoloop.store import CorrectionStore
from sonoloop.store.export import ABOUT, LEFT_OUT, PICTURES, colour, export_store, uncolour
from sonoloop.store.file_index import Places
from sonoloop.store.groups import place_frame, placement
from sonoloop.store.merge import check_export, merge_export
from sonoloop.store.promotions import incumbent
from sonoloop.store.revisions import encode_png, hash_pixels
from sonoloop.store.settings import store_secret
from sonoloop.store.snapshots import read_snapshot, take_snapshot
from sonoloop.store.tables import METADATA
from sonoloop.store.test_sets import read_test_set
from sonoloop.store.withdrawal import withdraw
from sonoloop.values import Frame


@pytest.fixture(scope="module")
def filled(tmp_path_factory) -> Path:
    """The file of a store with something in every table."""
    path = tmp_path_factory.mktemp("full") / "full.sqlite"
    with CorrectionStore(path) as store:
        fill(store)
    return path


@pytest.fixture
def full(url, filled) -> Iterator[CorrectionStore]:
    """A store with something in every table."""
    if url.startswith("sqlite"):
        shutil.copy(filled, url.removeprefix("sqlite:///"))
    with CorrectionStore(url) as store:
        if not url.startswith("sqlite"):
            fill(store)
        yield store


@pytest.fixture(scope="module")
def exported_once(filled, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "export"
    with CorrectionStore(filled) as store:
        export_store(store, folder)
    return folder


@pytest.fixture
def exported(exported_once, tmp_path) -> Path:
    """An export of a store with something in every table, to be spoilt."""
    return Path(shutil.copytree(exported_once, tmp_path / "export"))


@pytest.fixture
def other(tmp_path) -> Iterator[CorrectionStore]:
    """Another store, which is empty."""
    with CorrectionStore(tmp_path / "other.sqlite") as opened:
        yield opened


def lines(folder: Path, table: str) -> list[dict]:
    return [json.loads(line) for line in (folder / "tables" / f"{table}.jsonl").read_text().splitlines()]


@pytest.fixture(autouse=True)
def drafts_here(tmp_path_factory, monkeypatch) -> None:
    """Keep drafts away from the user's own."""
    folder = tmp_path_factory.mktemp("data") / "drafts"
    monkeypatch.setattr(drafts, "drafts_root", lambda: folder)


def draft_on(store: CorrectionStore, frame: Frame, **changes: object) -> Draft:
    values = {
        "frame_id": frame.id,
        "pixels_hash": frame.pixels_hash,
        "mask": np.eye(5, dtype=np.uint8),
        "lesions": {1: "benign"},
        "annotator": "reader-1",
        "path": Path("/CANARY/of a path.png"),
    }
    draft = Draft(**values | changes)
    drafts_of(store, draft.annotator).write(draft)
    return draft


def drafts_of(store: CorrectionStore, annotator: str = "reader-1") -> DraftFolder:
    return DraftFolder(draft_folder(store.url.render_as_string(), annotator))


def test_every_table_is_exported_or_left_out_with_a_reason(full, tmp_path):
    export_store(full, tmp_path / "export")
    exported = {path.stem for path in (tmp_path / "export" / "tables").iterdir()}
    assert exported | {name for name in LEFT_OUT if "." not in name} == set(METADATA.tables)
    for name, table in METADATA.tables.items():
        if name not in LEFT_OUT:
            assert lines(tmp_path / "export", name), f"{name} of the full store is empty: add to it a row"
        for column in table.c:
            if isinstance(column.type, LargeBinary):
                told = f"{name}.{column.name}"
                assert told in PICTURES or told in LEFT_OUT, f"say where the bytes of {told} go"
    known = {*METADATA.tables, *(str(column) for table in METADATA.tables.values() for column in table.c)}
    assert {*LEFT_OUT, *PICTURES} <= known
    assert all(LEFT_OUT.values())


def test_an_export_comes_back_table_by_table(full, other, tmp_path):
    export_store(full, tmp_path / "export")
    merged = merge_export(other, tmp_path / "export")
    before, after = content_of(full), content_of(other)
    for name in before:
        assert after[name] == before[name], name
    assert other.verify() == []
    assert merged.added["revisions"] == len(before["revisions"])
    export_store(other, tmp_path / "again")
    for path in (tmp_path / "export").rglob("*"):
        if path.is_file() and path.name not in (ABOUT,):
            assert (
                tmp_path / "again" / path.relative_to(tmp_path / "export")
            ).read_bytes() == path.read_bytes()
    # what is hashed over several tables adds up
    assert read_snapshot(other, "first").entries == read_snapshot(full, "first").entries
    assert read_test_set(other, 1) == read_test_set(full, 1)
    assert incumbent(other) == incumbent(full)


def test_added_again_nothing_changes(full, tmp_path):
    export_store(full, tmp_path / "export")
    before = content_of(full)
    merged = merge_export(full, tmp_path / "export")
    assert (sum(merged.added.values()), merged.heads_moved, merged.heads_kept) == (0, 0, 0)
    assert merged.same_store
    assert content_of(full) == before
    assert full.verify() == []


def test_it_reads_without_sonoloop(filled, exported):
    folder = exported
    revisions = lines(folder, "revisions")
    with CorrectionStore(filled) as store:
        accepted = {revision.id: revision for revision in store.history(revisions[0]["frame_id"])}
    for row in revisions[:2]:
        with Image.open(folder / row["mask"]) as picture:
            mask = np.array(picture)
            assert picture.mode == "P"
        assert (mask == accepted[row["id"]].correction.mask).all()
        assert row["mask_sha256"] == hash_pixels(mask)
    assert revisions[0]["label"] == "benign"
    (withdrawn,) = [row for row in revisions if row["frame_id"] == lines(folder, "tombstones")[0]["frame_id"]]
    assert withdrawn["mask"] is None
    for line in (folder / "sha256sums.txt").read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    readme = (folder / "README.txt").read_text()
    for path in folder.rglob("*.jsonl"):
        assert path.relative_to(folder).as_posix() in readme
    assert max(map(len, readme.splitlines())) <= 110


def test_nothing_of_a_person_leaves(full, tmp_path):
    image = tmp_path / "CANARY of a name.png"
    frame = make_frame(1)
    Places(full.url).remember(frame.id, image, pixels_hash=frame.pixels_hash)
    draft_on(full, frame)
    folder = export_store(full, tmp_path / "export").folder
    secret = store_secret(full)
    canaries = [
        b"CANARY",
        *(patient.encode() for patient in PATIENTS),
        secret,
        secret.hex().encode(),
        str(tmp_path).encode(),
        *(row["host"].encode() for row in rows_of(full, "leases")),
        np.ascontiguousarray(frame.pixels)[40].tobytes()[:32],
        *(row["thumbnail"][:24] for row in rows_of(full, "members") if row["thumbnail"]),
        *(row["bits"][:24] for row in rows_of(full, "members") if row["bits"]),
    ]
    for path in folder.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        for canary in canaries:
            assert canary not in content, path
            assert canary.hex().encode() not in content, path


def test_others_go_on_while_it_is_written(full, tmp_path):
    added = []

    def accept(stage: str, done: int, total: int) -> None:
        if stage == "Exporting" and not added:
            added.append(full.accept(make_correction("meanwhile"), parent=None))

    export_store(full, tmp_path / "export", tell=accept)
    assert full.verify() == []
    names = {row["id"] for row in lines(tmp_path / "export", "revisions")}
    assert added and added[0].id not in names
    assert full.count() == len(names) + 1


@pytest.mark.parametrize("stage", ["Copying", "Exporting"])
def test_cancelled_it_leaves_nothing(full, path, tmp_path, stage):
    if stage == "Copying" and not path.exists():
        pytest.skip("a server is read where it is")
    before = sorted(tmp_path.iterdir())

    def stop(told: str, done: int, total: int) -> None:
        if told == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_store(full, tmp_path / "export", tell=stop)
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_that_holds_something_is_refused(full, tmp_path):
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "notes.txt").touch()
    with pytest.raises(StoreError, match="is not empty: name a folder"):
        export_store(full, tmp_path / "export")
    with pytest.raises(StoreError, match="there is no folder"):
        export_store(full, tmp_path / "no" / "export")
    with pytest.raises(StoreError, match="is no folder"):
        export_store(full, tmp_path / "export" / "notes.txt")
    with pytest.raises(StoreError, match="keep the key elsewhere"):
        export_store(full, tmp_path / "new", key=tmp_path / "new" / "key.json")


def test_a_full_disk_is_said_and_nothing_is_left(full, tmp_path, monkeypatch):
    def write(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr(Path, "write_bytes", write)
    with pytest.raises(
        StoreError, match=r"export cannot be used \(No space left.*make room.*nothing is left"
    ):
        export_store(full, tmp_path / "export")
    assert sorted(tmp_path.iterdir()) == before


def test_drafts_go_with_it_and_come_back(full, other, tmp_path):
    first, second, withdrawn = (make_frame(seed) for seed in (1, 2, 4))
    given = draft_on(full, first, label="unsure")
    draft_on(full, second, annotator="reader-2")
    draft_on(full, withdrawn)
    assert export_store(full, tmp_path / "export").drafts == 2
    own = draft_on(other, second, annotator="reader-2", mask=np.ones((4, 4), np.uint8))
    assert merge_export(other, tmp_path / "export").drafts == 1
    found = drafts_of(other).read(first.id)
    for name in (
        "pixels_hash",
        "annotator",
        "label",
        "lesions",
        "model",
        "seen",
        "parent",
        "index",
        "written",
    ):
        assert getattr(found, name) == getattr(given, name), name
    assert (found.mask == given.mask).all()
    assert found.path is None
    assert (drafts_of(other, "reader-2").read(second.id).mask == own.mask).all()
    assert drafts_of(other).ids() == {first.id}


def test_what_two_stores_went_on_with_is_kept_beside_each_other(full, other, tmp_path):
    """One head is behind and moves on, one went another way and stays, one is ahead and stays."""
    export_store(full, tmp_path / "export")
    merge_export(other, tmp_path / "export")
    first, second, third = (make_frame(seed) for seed in (1, 2, 3))
    newer = full.accept(correct(first, label="unsure"), parent=full.head(first.id, "reader-1").id)
    theirs = full.accept(correct(second, label="unsure"), parent=full.head(second.id, "reader-1").id)
    mine = other.accept(correct(second, label="malignant"), parent=other.head(second.id, "reader-1").id)
    ahead = other.accept(correct(third, label="malignant"), parent=other.head(third.id, "reader-1").id)
    alone = other.accept(make_correction("only here"), parent=None)
    before = {name: rows for name, rows in content_of(other).items() if name != "heads"}
    export_store(full, tmp_path / "newer")
    merged = merge_export(other, tmp_path / "newer")
    assert (merged.heads_moved, merged.heads_kept, merged.added["revisions"]) == (1, 1, 2)
    assert other.head(first.id, "reader-1").id == newer.id
    assert other.head(second.id, "reader-1").id == mine.id
    assert other.head(third.id, "reader-1").id == ahead.id
    assert theirs.id in {revision.id for revision in other.history(second.id)}
    after = content_of(other)
    for name, rows in before.items():
        assert [row for row in after[name] if row in rows] == rows, name
    numbers = {row["id"]: row["number"] for row in after["revisions"]}
    assert numbers[newer.id] > numbers[alone.id]
    assert other.verify() == []
    # and back: both hold the same in the end, each with its own head where both went on
    export_store(other, tmp_path / "back")
    merge_export(full, tmp_path / "back")
    for name in ("frames", "predictions", "snapshots", "models", "groups"):
        assert content_of(full)[name] == content_of(other)[name]
    assert {row["id"] for row in content_of(full)["revisions"]} == numbers.keys()


def test_numbers_and_names_that_are_taken_are_given_anew(full, other, tmp_path):
    """A store that knows nothing of the other has its own first snapshot, test set and comparison."""
    place_frame(other, make_frame(9), role="test")
    other.accept(correct(make_frame(9)), parent=None)
    own = take_snapshot(other, "first", who="reader-9")
    fill_other = content_of(other)
    export_store(full, tmp_path / "export")
    merged = merge_export(other, tmp_path / "export")
    assert not merged.same_store
    assert read_snapshot(other, "first") == own
    theirs = read_snapshot(full, "first")
    assert read_snapshot(other, f"first-{theirs.sha256[:12]}").entries == theirs.entries
    (tuned,) = [row for row in rows_of(other, "models") if row["snapshot"] is not None]
    assert tuned["snapshot"] == f"first-{theirs.sha256[:12]}"
    again = merge_export(other, tmp_path / "export")
    assert sum(again.added.values()) == 0
    for name, rows in fill_other.items():
        assert [row for row in content_of(other)[name] if row in rows] == rows, name


def test_the_model_in_use_stays_where_a_store_has_its_own(full, other, tmp_path):
    from model_samples import add, begin, use

    begin(other)
    own = add(other, "own")
    use(other, own, expected=begin(other))
    export_store(full, tmp_path / "export")
    merged = merge_export(other, tmp_path / "export")
    assert incumbent(other).version == own
    assert merged.promotions_left_out == 2
    assert len(rows_of(other, "looks")) == 1


def test_an_image_of_another_size_is_refused(exported, other):
    other.accept(make_correction("x", frame_id=make_frame(1).id), parent=None)
    with pytest.raises(StoreError, match="has another size in the export than in the store"):
        merge_export(other, exported)
    assert other.count() == 1


def test_an_image_joins_its_group_here(full, other, tmp_path):
    """The same pixels judge here and trained there: here they go on judging, in one group."""
    frame = make_frame(1)
    place_frame(other, frame, role="test")
    export_store(full, tmp_path / "export")
    merge_export(other, tmp_path / "export")
    assert placement(other, frame.id).role == "test"
    assert other.head(frame.id, "reader-1") is not None


def test_what_was_withdrawn_on_either_side_is_erased(full, other, tmp_path):
    export_store(full, tmp_path / "export")
    merge_export(other, tmp_path / "export")
    first, second = make_frame(1), make_frame(2)
    withdraw(other, first.id, why="here", who="reader-1")
    withdraw(full, second.id, why="there", who="reader-1")
    export_store(full, tmp_path / "newer")
    merged = merge_export(other, tmp_path / "newer")
    assert merged.withdrawn == (second.id,)
    # a note and a mark that are erased on one side alone are the same ones
    assert {name for name, count in merged.added.items() if count} == {"tombstones"}
    stones = {row["frame_id"]: row["why"] for row in rows_of(other, "tombstones")}
    assert (stones[first.id], stones[second.id]) == ("here", "there")
    for frame in (first, second):
        assert all(revision.withdrawn for revision in other.history(frame.id))
    assert other.verify() == []


def test_what_was_withdrawn_here_does_not_come_back(full, other, tmp_path):
    frame = make_frame(1)
    place_frame(other, frame)
    other.accept(correct(frame), parent=None)
    withdraw(other, frame.id, why="here", who="reader-1")
    export_store(full, tmp_path / "export")
    merge_export(other, tmp_path / "export")
    masks = [row["mask"] for row in rows_of(other, "revisions") if row["frame_id"] == frame.id]
    assert len(masks) == 4 and not any(masks)
    assert other.verify() == []


def test_a_key_has_patients_known_again(full, other, tmp_path):
    key = tmp_path / "key.json"
    export_store(full, tmp_path / "export", key=key)
    if os.name == "posix":
        assert key.stat().st_mode & 0o077 == 0
    assert merge_export(other, tmp_path / "export", key=key).same_store
    assert store_secret(other) == store_secret(full)
    frame = make_frame(20)
    place_frame(other, frame, patient=PATIENTS[0])
    assert placement(other, frame.id).group_id == placement(full, make_frame(1).id).group_id
    with CorrectionStore(tmp_path / "third.sqlite") as third:
        place_frame(third, frame)
        with pytest.raises(StoreError, match="the key is another store's"):
            merge_export(third, tmp_path / "export", key=key)
        assert third.count() == 0
    key.write_text("{}")
    with pytest.raises(StoreError, match="is no key"):
        merge_export(other, tmp_path / "export", key=key)


def spoil_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def test_a_byte_that_changed_is_found_whichever_file_it_is_in(exported, other):
    folder = exported
    assert check_export(folder) == ()
    files = [path for path in folder.rglob("*.*") if path.stat().st_size]
    kinds = {path.relative_to(folder).parts[0] + path.suffix: path for path in files}
    for path in kinds.values():
        if path.name in (ABOUT, "tables"):
            continue
        whole = path.read_bytes()
        spoil_byte(path)
        if path.name == "sha256sums.txt":
            with pytest.raises(StoreError, match="not what it was"):
                check_export(folder)
        else:
            (problem,) = check_export(folder)
            assert path.name in problem
        if path.name != "README.txt":
            with pytest.raises(StoreError):
                merge_export(other, folder)
        path.write_bytes(whole)
    assert sum(map(len, content_of(other).values())) == 0
    (folder / ABOUT).unlink()
    with pytest.raises(StoreError, match="not finished or copied whole"):
        merge_export(other, folder)


def change_line(name: str, **changes: object):
    def change(folder: Path) -> None:
        path = folder / name
        first, *others = path.read_text().splitlines()
        path.write_text("\n".join([json.dumps(json.loads(first) | changes), *others]) + "\n")

    return change


def swap_masks(folder: Path) -> None:
    one, two, *_ = sorted((folder / "masks").iterdir(), key=lambda path: path.stat().st_size)[::-1]
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(content)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (change_line("tables/revisions.jsonl", mask="../secret.png"), "another row's"),
        (change_line("tables/revisions.jsonl", id="../../x", mask="masks/../../x.png"), "no id as Sonoloop"),
        (change_line("tables/revisions.jsonl", label="cancer"), "damaged"),
        pytest.param(
            change_line("tables/revisions.jsonl", label=7),
            "label is not what it should be",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            change_line("tables/revisions.jsonl", created="yesterday"),
            "created is not",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            change_line("tables/revisions.jsonl", number=1 << 70), "number is not", marks=pytest.mark.slow
        ),
        pytest.param(
            change_line("tables/revisions.jsonl", invented=1), "does not know", marks=pytest.mark.slow
        ),
        (change_line("tables/revisions.jsonl", mask_decision="kept", class_decision="kept"), "decisions"),
        (change_line("tables/frames.jsonl", id="x"), "an image of .* has no id"),
        (change_line("tables/predictions.jsonl", expected_dice=0.999), "not what was exported"),
        (change_line("tables/looks.jsonl", test_set=99), "names test_sets 99"),
        (change_line("tables/settings.jsonl", key="test_cap", value='"many"'), "whole number"),
        (swap_masks, "not the one that was accepted"),
    ],
)
def test_an_export_that_was_forged_is_refused_and_nothing_added(exported, other, change, said):
    folder = exported
    change(folder)
    sums = "".join(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder).as_posix()}\n"
        for path in sorted(folder.rglob("*.*"))
        if path.is_file() and path.name not in (ABOUT, "sha256sums.txt")
    )
    (folder / "sha256sums.txt").write_text(sums)
    about = json.loads((folder / ABOUT).read_text())
    about["sha256sums"] = hashlib.sha256(sums.encode()).hexdigest()
    (folder / ABOUT).write_text(json.dumps(about))
    with pytest.raises(StoreError, match=said):
        merge_export(other, folder)
    assert sum(map(len, content_of(other).values())) == 0


def test_a_newer_export_is_refused(exported, other):
    folder = exported
    about = json.loads((folder / ABOUT).read_text())
    for change in ({"format": 2}, {"schema": "9999"}):
        (folder / ABOUT).write_text(json.dumps(about | change))
        with pytest.raises(StoreError, match=r"another version.*pip install -U napari-sonoloop"):
            merge_export(other, folder)


def test_an_export_of_an_earlier_version_has_what_it_has(exported, other):
    """Tables and columns that came later are empty; the sums are of what was there then."""
    folder = exported
    about = json.loads((folder / ABOUT).read_text())
    for name in ("notes", "frame_marks", "assignments", "adjudications"):
        (folder / "tables" / f"{name}.jsonl").unlink()
    path = folder / "tables" / "revisions.jsonl"
    older = [
        {k: v for k, v in row.items() if k not in ("lesions", "effort")} for row in lines(folder, "revisions")
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in older))
    sums = "".join(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder).as_posix()}\n"
        for path in folder.rglob("*.*")
        if path.is_file() and path.name not in (ABOUT, "sha256sums.txt")
    )
    (folder / "sha256sums.txt").write_text(sums)
    sha256 = hashlib.sha256(sums.encode()).hexdigest()
    (folder / ABOUT).write_text(json.dumps(about | {"schema": "0002", "sha256sums": sha256}))
    merged = merge_export(other, folder)
    assert merged.added["revisions"] == len(older)
    assert other.verify() == []


def test_a_palette_comes_off_to_the_byte():
    mask = np.random.default_rng(1).integers(0, 256, (40, 50), dtype=np.uint8)
    data = encode_png(mask)
    assert colour(data) != data
    assert uncolour(colour(data)) == data
    assert colour(b"no picture") == uncolour(b"no picture") == b"no picture"


def test_a_damaged_store_is_named_and_not_its_copy(filled, tmp_path):
    path = Path(shutil.copy(filled, tmp_path / "store.sqlite"))
    content = path.read_bytes()
    with CorrectionStore(path) as store:
        at = content.index(b"CREATE TABLE adjudications")
        path.write_bytes(content[:at] + b"CREATE \xdfABLE" + content[at + 12 :])
        with pytest.raises(
            StoreError, match=r"corrections in \S*/store\.sqlite could not be used: it is damaged"
        ):
            export_store(store, tmp_path / "export")
    assert [entry.name for entry in tmp_path.iterdir()] == ["store.sqlite"]


def test_the_secret_stays(exported):
    assert {row["key"] for row in lines(exported, "settings")} == {"test_cap"}
