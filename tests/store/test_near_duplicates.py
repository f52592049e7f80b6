"""Which frames look alike: found as by comparing with each, and without reading or copying all again."""

from __future__ import annotations

import tracemalloc
from contextlib import contextmanager
from statistics import median

import numpy as np
import pytest
from scenes import make_copy, make_frame
from sqlalchemy import event, insert, text

from sonoloop.imaging.fingerprints import CANDIDATE, CANDIDATES_AN_IMAGE, Sketch, sketch
from sonoloop.store import CorrectionStore
from sonoloop.store.groups import place_frame, set_aside
from sonoloop.store.near_duplicates import SketchIndex, hold_sketches, note_sketches, write_sketch
from sonoloop.store.tables import GROUPS
from sonoloop.store.withdrawal import withdraw

WINDOWS, BITS = 36, 256
EMPTY = np.zeros((96, 96), np.uint8)


def random_sketch(seed: int) -> Sketch:
    return Sketch(EMPTY, np.random.default_rng(seed).random((WINDOWS, BITS)) < 0.5)


def nearby(one: Sketch, seed: int, *, flipped: int, window: int, mirrored: bool) -> Sketch:
    """A sketch whose frame is that of a window of another, but for so many bits, or the other way round."""
    rng = np.random.default_rng(seed)
    other = random_sketch(seed)
    theirs, mine = (window, 0) if seed % 2 else (0, window)
    bits = one.bits[theirs].copy()
    bits[rng.choice(BITS, flipped, replace=False)] ^= True
    if mirrored:
        bits[BITS // 2 :] ^= True
    other.bits[mine] = bits
    return other


def distance(one: Sketch, other: Sketch) -> int:
    """The least distance of a frame to the other's windows, the mirror image of one allowed."""
    half = BITS // 2

    def apart(a, b):
        odd = (a[half:] != b[half:]).sum()
        return (a[:half] != b[:half]).sum() + min(odd, half - odd)

    pairs = [(mine, other.bits[0]) for mine in one.bits] + [(one.bits[0], theirs) for theirs in other.bits]
    return int(min(apart(*pair) for pair in pairs))


def by_comparing_with_each(sketches: dict[str, Sketch], one: Sketch) -> list[str]:
    apart = sorted((distance(other, one), name) for name, other in sketches.items())
    return [name for far, name in apart if far <= CANDIDATE][:CANDIDATES_AN_IMAGE]


@contextmanager
def statements(store: CorrectionStore):
    """Collect what is asked of the database meanwhile."""
    told: list[str] = []

    def tell(_connection, _cursor, statement, *_more):
        told.append(" ".join(statement.split()))

    event.listen(store._engine, "before_cursor_execute", tell)
    yield told
    event.remove(store._engine, "before_cursor_execute", tell)


def test_the_nearest_are_those_of_comparing_with_each():
    asked = [random_sketch(seed) for seed in (1, 2)]
    sketches = {f"far {seed:03d}": random_sketch(seed) for seed in range(100, 220)}
    for seed in range(60):
        # about half of them within reach, in every window and both ways round
        near = nearby(
            asked[seed % 2], 1000 + seed, flipped=40 + seed, window=seed % WINDOWS, mirrored=seed % 3 == 0
        )
        sketches[f"near {seed:03d}"] = near
    index = SketchIndex()
    for number, (name, one) in enumerate(sketches.items()):
        index.add(name, write_sketch(one)[1], number)
    for one in asked:
        expected = by_comparing_with_each(sketches, one)
        assert 15 < len(expected) < 35
        assert index.nearest(one) == expected


def test_only_the_nearest_so_many_are_compared_and_an_empty_index_names_none():
    one, index = random_sketch(0), SketchIndex()
    assert index.nearest(one) == []
    sketches = {f"{n:02d}": nearby(one, n, flipped=20 + n, window=0, mirrored=False) for n in range(1, 56)}
    for number, (name, other) in enumerate(sketches.items()):
        index.add(name, write_sketch(other)[1], number)
    assert index.nearest(one) == by_comparing_with_each(sketches, one)
    assert len(index.nearest(one)) == CANDIDATES_AN_IMAGE


def test_one_frame_more_does_not_copy_the_others():
    index = SketchIndex()
    bits = write_sketch(random_sketch(0))[1]
    for number in range(5000):
        index.add(str(number), bits, number)
    tracemalloc.start()
    grown = []
    for number in range(5000, 5030):
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        index.add(str(number), bits, number)
        grown.append(tracemalloc.get_traced_memory()[1] - before)
    tracemalloc.stop()
    assert median(grown) < 100_000, "all of them are 5.8 MB"


def test_what_others_place_is_read_and_nothing_else(url):
    with CorrectionStore(url) as mine, CorrectionStore(url) as theirs:
        my_index, their_index = SketchIndex(), SketchIndex()
        for seed in range(1, 5):
            place_frame(mine, make_frame(seed), index=my_index)
        place_frame(theirs, make_frame(5), index=their_index)
        with statements(mine) as told:
            place_frame(mine, make_frame(6), index=my_index)
        reads = [one for one in told if "FROM members WHERE length(members.bits)" in one]
        assert len(reads) == 1
        assert "members.frame_id IN" in reads[0]
        with mine.reading() as connection:
            my_index.refresh(connection)
        for seed in range(1, 7):
            assert my_index.nearest(sketch(make_frame(seed).pixels))[0] == make_frame(seed).id


def test_what_others_withdraw_is_forgotten(url):
    with CorrectionStore(url) as mine, CorrectionStore(url) as theirs:
        index = SketchIndex()
        for seed in (1, 2, 3):
            place_frame(mine, make_frame(seed), index=index)
        withdraw(theirs, make_frame(1).id, why="asked", who="x")
        place_frame(theirs, make_copy(2))
        with mine.reading() as connection:
            index.refresh(connection)
        assert make_frame(1).id not in index.nearest(sketch(make_frame(1).pixels))
        assert set(index.nearest(sketch(make_frame(2).pixels))) >= {make_frame(2).id, make_copy(2).id}
        assert index.nearest(sketch(make_frame(3).pixels))[0] == make_frame(3).id


@pytest.mark.parametrize("noted", [False, True], ids=["counted by an earlier Sonoloop", "too many"])
def test_whoever_missed_too_much_reads_all(url, noted, monkeypatch):
    monkeypatch.setattr("sonoloop.store.near_duplicates._REMEMBERED", 2)
    with CorrectionStore(url) as mine, CorrectionStore(url) as theirs:
        index = SketchIndex()
        place_frame(mine, make_frame(1), index=index)
        for seed in (2, 3, 4) if noted else (2,):
            place_frame(theirs, make_frame(seed))
        if not noted:
            with theirs.writing() as connection:
                connection.execute(text("DELETE FROM settings WHERE key = 'sketches 0'"))
        with mine.reading() as connection:
            index.refresh(connection)
        for seed in (1, 2, 3, 4) if noted else (1, 2):
            assert index.nearest(sketch(make_frame(seed).pixels))[0] == make_frame(seed).id


def test_placing_locks_no_table(url, shell):
    if not url.startswith("postgresql"):
        pytest.skip("SQLite has one writer at a time")
    with CorrectionStore(url) as store:
        with statements(store) as told:
            place_frame(store, make_frame(1))
            set_aside(store, make_frame(2))
        assert not [one for one in told if "LOCK TABLE" in one]
        with store.writing() as connection:
            hold_sketches(connection)
            note_sketches(connection, [make_frame(1).id])
            # others found groups meanwhile
            shell.execute(text("SET lock_timeout = 500"))
            shell.execute(insert(GROUPS).values(id="a" * 64, role="train", created="2026"))
            shell.commit()
