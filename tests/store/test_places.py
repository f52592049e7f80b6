from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scenes import correct, make_frame
from store_writers import sha256

from sonoloop.errors import ImageMissingError, StoreError
from sonoloop.imaging.io import read_study
from sonoloop.store import CorrectionStore
from sonoloop.store.database import read_location
from sonoloop.store.file_index import Place, Places, Relinked, Searching, known_frames, relink, work_folder
from sonoloop.store.withdrawal import withdraw


@pytest.fixture
def url(path):
    return read_location(path)


@pytest.fixture
def images(tmp_path) -> Path:
    """Two images of their own in two folders."""
    for name, seed in (("Muster Anna/left.png", 1), ("Muster Anna/right.png", 2), ("Weiss Eva/left.png", 3)):
        file = tmp_path / "images" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(make_frame(seed).pixels).save(file)
    return tmp_path / "images"


def remember_all(places: Places, folder: Path) -> dict[str, Path]:
    frames = {}
    for file in sorted(folder.rglob("*.png")):
        frame = read_study(file).frames[0]
        places.remember(frame.id, file, pixels_hash=frame.pixels_hash)
        frames[frame.id] = file
    return frames


def write_places(path: str, start: int) -> None:
    places = Places(read_location(path))
    for number in range(start, start + 200):
        places.remember(sha256(str(number)), Path(f"/images/{number % 7}/{number}.png"))


def test_the_folder_is_beside_the_store_or_in_the_users(tmp_path):
    assert work_folder(read_location(tmp_path / "study.sqlite")) == tmp_path / "study.sonoloop"
    one = work_folder(read_location("postgresql://anna:secret@host/study"))
    assert one == work_folder(read_location("postgresql://anna:changed@host/study"))
    assert one != work_folder(read_location("postgresql://anna:secret@host/another"))
    assert "host" not in str(one) and one.parent.name == "stores"


def write_job(folder: Path, store: Path) -> Path:
    """A job of a store, as far as it tells whose it is."""
    job = folder / "jobs" / store.name
    job.mkdir(parents=True)
    (job / "job.json").write_text(json.dumps({"plan": {"store": f"/elsewhere/{store.name}"}}))
    return job


@pytest.mark.parametrize("names", [("study.v1", "study.v2"), ("study.sqlite", "study.db", "study")])
def test_stores_beside_each_other_have_folders_of_their_own(tmp_path, names):
    places = []
    for name in names:
        CorrectionStore(tmp_path / name).close()
        places.append(Places(read_location(tmp_path / name)))
        places[-1].remember("a" * 64, Path(f"/{name}/x.png"))
    places[0].forget(["a" * 64])
    assert [found and found.path.parent.name for found in (p.find("a" * 64) for p in places)] == [
        None,
        *names[1:],
    ]


def test_where_a_living_store_owns_the_shared_folder_each_notes_and_forgets_its_own(tmp_path):
    frame, file = "a" * 64, Path("/Muster Anna/x.png")
    for name in ("study.sqlite", "study.v1"):
        CorrectionStore(tmp_path / name).close()
    owner = Places(read_location(tmp_path / "study.sqlite"))
    owner.remember(frame, file)
    places = Places(read_location(tmp_path / "study.v1"))
    places.remember(frame, file)
    own = tmp_path / "study.v1-sonoloop" / "places.jsonl"
    assert frame in own.read_text()
    size = own.stat().st_size
    places.remember(frame, file)
    assert own.stat().st_size == size
    places.forget([frame])
    assert frame not in own.read_text()
    assert owner.find(frame).path.name == "x.png"
    places.remember(frame, file)
    owner.forget([frame])
    assert places.find(frame).path.name == "x.png"


@pytest.mark.parametrize("full", [False, True])
def test_a_new_store_leaves_the_folder_of_one_that_is_away_for_a_moment(tmp_path, full):
    away = tmp_path / "study.sqlite"
    CorrectionStore(away).close()
    Places(read_location(away)).remember("a" * 64, Path("/one/x.png"))
    job = write_job(tmp_path / "study.sonoloop", away)
    away.rename(tmp_path / "kept")
    with CorrectionStore(tmp_path / "study.db") as store:
        if full:
            store.accept(correct(make_frame(1)), parent=None)
        places = Places(store.url)
        assert places.find("a" * 64).path.name == "x.png"
        places.remember("b" * 64, Path("/two/y.png"))
    (tmp_path / "kept").rename(away)
    assert Places(read_location(away)).find("a" * 64).path.name == "x.png"
    assert Places(read_location(away)).find("b" * 64) is None
    assert job.is_dir()


@pytest.mark.parametrize("known_by", ["frame", "job"])
def test_the_folder_of_one_store_alone_is_moved(tmp_path, known_by):
    shared, frame = tmp_path / "study.sonoloop", make_frame(1)
    with CorrectionStore(tmp_path / "study.v1") as store:
        if known_by == "frame":
            store.accept(correct(frame), parent=None)
    old = Places(read_location(tmp_path / "study.sqlite"))
    old.remember("a" * 64, Path("/one/x.png"))
    old.remember(frame.id, Path("/one/y.png"))
    write_job(shared, tmp_path / "any")
    if known_by == "job":
        write_job(shared, tmp_path / "study.v1")
    # no store: what the name alone would take for one
    (tmp_path / "study.txt").write_text("notes")
    folder = work_folder(read_location(tmp_path / "study.v1"))
    assert folder == tmp_path / "study.v1-sonoloop"
    assert (folder / "jobs" / "any" / "job.json").is_file() and not shared.exists()
    assert Places(read_location(tmp_path / "study.v1")).find("a" * 64).path.name == "x.png"


def test_of_a_folder_that_two_stores_shared_each_takes_its_jobs_and_reads_the_places(tmp_path):
    stores = [tmp_path / "study.v1", tmp_path / "study.v2"]
    shared = tmp_path / "study.sonoloop"
    for store in stores:
        CorrectionStore(store).close()
        write_job(shared, store)
    write_job(shared, tmp_path / "study.v3")
    Places(read_location(tmp_path / "study.sqlite")).remember("a" * 64, Path("/Muster Anna/x.png"))
    for store in stores:
        url = read_location(store)
        assert [job.name for job in (work_folder(url) / "jobs").iterdir()] == [store.name]
        assert Places(url).find("a" * 64).path.name == "x.png"
    assert [job.name for job in (shared / "jobs").iterdir()] == ["study.v3"]
    before = (shared / "places.jsonl").read_bytes()
    Places(url).remember("a" * 64, Path("/moved/x.png"))
    assert Places(url).find("a" * 64).path.parent.name == "moved"
    assert (shared / "places.jsonl").read_bytes() == before
    Places(url).forget(["a" * 64])
    assert Places(url).find("a" * 64) is None
    assert "Muster" not in (shared / "places.jsonl").read_text()


def test_what_was_remembered_is_found_by_another_process(url, images):
    frames = remember_all(Places(url), images)
    for frame_id, file in frames.items():
        assert Places(url).find(frame_id).path == file
    assert Places(url).find("f" * 64) is None


def test_the_last_place_holds_and_the_same_one_is_written_once(url):
    places, key_file = Places(url), work_folder(url) / "places.jsonl"
    places.remember("a" * 64, Path("/one/x.tif"), index=3, pixels_hash="p")
    size = key_file.stat().st_size
    places.remember("a" * 64, Path("/one/x.tif"), index=3)
    assert key_file.stat().st_size == size
    assert places.find("a" * 64) == Place(path=Path("/one/x.tif").absolute(), index=3, pixels_hash="p")
    places.remember("a" * 64, Path("/two/x.tif"), index=4)
    assert places.find("a" * 64).path == Path("/two/x.tif").absolute()


def test_paths_are_relative_to_roots(url, images):
    places = Places(url)
    remember_all(places, images)
    text = (work_folder(url) / "places.jsonl").read_text()
    assert text.count(str(images)) == 2  # once a folder
    assert '"path": "left.png"' in text


@pytest.mark.skipif(os.name != "posix", reason="Windows keeps rights otherwise")
def test_the_key_file_is_nobody_elses_business(url, images):
    remember_all(Places(url), images)
    assert work_folder(url).stat().st_mode & 0o777 == 0o700
    assert (work_folder(url) / "places.jsonl").stat().st_mode & 0o777 == 0o600


def test_no_name_of_a_file_is_in_the_store(path, images):
    with CorrectionStore(path) as store:
        remember_all(Places(store.url), images)
        store.accept(correct(make_frame(1)), parent=None)
    assert b"Muster" not in path.read_bytes()


def test_a_line_cut_short_by_a_crash_costs_that_line_alone(url):
    places = Places(url)
    places.remember("a" * 64, Path("/one/x.png"))
    key_file = work_folder(url) / "places.jsonl"
    with key_file.open("ab") as file:
        file.write(b'{"frame": "cut sho')
    Places(url).remember("b" * 64, Path("/one/y.png"))
    for reader in (places, Places(url)):
        assert reader.find("a" * 64).path.name == "x.png"
        assert reader.find("b" * 64).path.name == "y.png"


def test_two_processes_lose_no_line(path):
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=write_places, args=(str(path), start)) for start in (0, 200)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    places = Places(read_location(path))
    for number in range(400):
        assert places.find(sha256(str(number))).path == Path(f"/images/{number % 7}/{number}.png").absolute()


def test_forgetting_leaves_no_name(url, images):
    places, other = Places(url), Places(url)
    frames = remember_all(places, images)
    other.find("a" * 64)
    gone = next(frame_id for frame_id, file in frames.items() if file.parent.name == "Weiss Eva")
    places.forget([gone])
    assert "Weiss" not in (work_folder(url) / "places.jsonl").read_text()
    for reader in (places, other, Places(url)):
        assert reader.find(gone) is None
        assert [frame_id for frame_id in frames if reader.find(frame_id)] == [f for f in frames if f != gone]


@pytest.mark.skipif(os.name != "posix", reason="Windows keeps rights otherwise")
def test_a_key_file_that_cannot_be_written_is_named(url):
    work_folder(url).write_text("a file where the folder should be")
    with pytest.raises(StoreError, match=r"places\.jsonl.*cannot be used"):
        Places(url).remember("a" * 64, Path("/one/x.png"))


def lost(store) -> set[str]:
    """Those of a store's frames whose file is not where it was."""
    found = ((frame_id, Places(store.url).find(frame_id)) for frame_id in known_frames(store))
    return {frame_id for frame_id, place in found if place is None or not place.path.is_file()}


def test_moved_renamed_and_saved_anew_files_are_found(path, images, tmp_path):
    with CorrectionStore(path) as store:
        places = Places(store.url)
        frames = remember_all(places, images)
        for seed, file in zip((1, 2, 3), sorted(frames.values()), strict=True):
            frame = read_study(file).frames[0]
            store.accept(correct(frame), parent=None)
            assert np.array_equal(frame.pixels, make_frame(seed).pixels)
        assert lost(store) == set()
        first, second, third = frames
        moved = tmp_path / "moved"
        moved.mkdir()
        frames[first].rename(moved / "renamed.png")
        Image.open(frames[second]).save(moved / "anew.bmp")
        shutil.rmtree(images)
        (moved / "broken.png").write_bytes(b"\x89PNG")
        assert lost(store) == set(frames)

        *steps, result = relink(places, moved, known_frames(store))
        assert all(isinstance(step, Searching) and step.total == 3 for step in steps)
        assert result == Relinked(
            images=3,
            unreadable=1,
            found=tuple(sorted((first, second))),
            resaved=(second,),
            missing=(third,),
        )
        assert Places(store.url).find(first).path == moved / "renamed.png"
        assert Places(store.url).find(second).path == moved / "anew.bmp"
        assert lost(store) == {third}
        withdraw(store, third, why="asked to", who="reader-1")
        assert lost(store) == set()


def test_a_file_that_was_changed_is_found_elsewhere_and_one_that_is_well_stays(path, images, tmp_path):
    with CorrectionStore(path) as store:
        places = Places(store.url)
        frames = remember_all(places, images)
        for file in frames.values():
            store.accept(correct(read_study(file).frames[0]), parent=None)
        backup = shutil.copytree(images, tmp_path / "backup")
        changed, *well = frames
        name = frames[changed].relative_to(images)
        Image.new("L", (160, 120), 7).save(frames[changed])

        *_, result = relink(places, backup, known_frames(store))
        assert (result.found, result.missing) == ((changed,), ())
        assert places.find(changed).path == backup / name
        assert [places.find(frame_id).path for frame_id in well] == [frames[one] for one in well]
        *_, again = relink(places, backup, known_frames(store))
        assert (again.found, again.missing) == ((), ())


def test_frames_of_a_cine_are_found_by_their_number(url, tmp_path):
    cine = [Image.fromarray(make_frame(seed).pixels) for seed in (1, 2, 3)]
    (tmp_path / "cines").mkdir()
    cine[0].save(tmp_path / "cines" / "one.tif", save_all=True, append_images=cine[1:])
    frames = read_study(tmp_path / "cines" / "one.tif").frames
    places = Places(url)
    *_, result = relink(places, tmp_path / "cines", {frames[2].id: frames[2].pixels_hash})
    assert (result.found, result.resaved) == ((frames[2].id,), ())
    assert (places.find(frames[2].id).path.name, places.find(frames[2].id).index) == ("one.tif", 2)


def test_searching_where_nothing_is_says_so(url, tmp_path):
    with pytest.raises(ImageMissingError, match="check the path"):
        list(relink(Places(url), tmp_path / "gone", {"a" * 64: "p"}))
