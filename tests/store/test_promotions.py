from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from model_samples import add, begin, row_of, use
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from store_writers import sha256

from sonoloop.errors import ConflictError, StoreError
from sonoloop.store import CorrectionStore
from sonoloop.store import promotions as pointer
from sonoloop.store.model_registry import DELETED, ModelRow, find_model, list_models, mark, register
from sonoloop.store.test_sets import freeze_test_set, record_evaluation


def in_use(store: CorrectionStore) -> str:
    return pointer.incumbent(store).version


def look_at(store: CorrectionStore, candidate: str, incumbent: str, verdict: str) -> int:
    return record_evaluation(
        store,
        test_set=freeze_test_set(store).number,
        candidate=candidate,
        incumbent=incumbent,
        verdict=verdict,
        reason="as measured",
        figures={"difference": 0.02},
        who="reader-1",
    ).number


def test_a_project_begins_with_the_shipped_model_once(store):
    assert pointer.incumbent(store) is None
    shipped = begin(store)
    register(store, version=sha256("newer"), model="default-newer", origin="shipped", who="reader-1")
    again = pointer.ensure_incumbent(store, version=sha256("newer"), model="default-newer", who="reader-2")
    assert again.version == shipped
    assert [(move.kind, move.previous, move.who) for move in pointer.history(store)] == [
        ("first", None, "reader-1")
    ]


def test_a_promotion_says_who_why_and_instead_of_what(store):
    shipped, tuned = begin(store), add(store, "tuned")
    made = use(store, tuned, why="it sees cysts", who="reader-2")
    assert pointer.incumbent(store) == made
    assert (made.version, made.previous, made.kind, made.why, made.who) == (
        tuned,
        shipped,
        "use",
        "it sees cysts",
        "reader-2",
    )


def test_who_knows_another_model_in_use_gets_a_conflict(store):
    shipped, first, second = begin(store), add(store, "first"), add(store, "second")
    use(store, first)
    with pytest.raises(ConflictError, match="it is first-"):
        use(store, second, expected=shipped)
    with pytest.raises(ConflictError):
        use(store, second, expected=None)
    assert in_use(store) == first
    assert len(pointer.history(store)) == 2


def test_of_two_promotions_at_once_one_wins_and_the_other_is_told(url, store):
    shipped = begin(store)
    versions = [add(store, f"candidate-{n}") for n in range(4)]
    gate = threading.Barrier(len(versions))
    said: dict[str, str] = {}

    def try_it(version: str) -> None:
        with CorrectionStore(url) as own:
            gate.wait()
            try:
                use(own, version, expected=shipped)
                said[version] = "moved"
            except ConflictError:
                said[version] = "conflict"

    threads = [threading.Thread(target=try_it, args=(version,)) for version in versions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(said.values()) == ["conflict", "conflict", "conflict", "moved"]
    assert said[in_use(store)] == "moved"
    assert len(pointer.history(store)) == 2


def test_one_model_that_many_register_at_once_is_one(url, store):
    gate = threading.Barrier(4)

    def try_it(_number: int) -> ModelRow:
        with CorrectionStore(url) as own:
            gate.wait()
            return row_of(own, "tuned")

    with ThreadPoolExecutor(4) as pool:
        rows = list(pool.map(try_it, range(4)))
    assert rows == [rows[0]] * 4
    assert list_models(store) == (rows[0],)


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("move", ["promote", "rollback"])
def test_a_kill_on_the_way_leaves_the_pointer_whole(path, move, place):
    with CorrectionStore(path) as store:
        begin(store)
        add(store, "tuned")
        present = add(store, "present")
        use(store, present)
    script = Path(__file__).with_name("model_samples.py")
    done = subprocess.run(
        [sys.executable, script, path, move, place], check=False, capture_output=True, text=True
    )
    assert done.returncode == -9, done.stderr
    with CorrectionStore(path) as store:
        assert in_use(store) == present
        assert len(pointer.history(store)) == 2
        assert store.verify() == []
        assert use(store, sha256("tuned")).previous == present


def test_what_is_refused_leaves_the_pointer(store):
    shipped, gone = begin(store), add(store, "gone")
    mark(store, gone, DELETED, why="no room", who="reader-1")
    with pytest.raises(StoreError, match="was deleted: import it again"):
        use(store, gone)
    with pytest.raises(StoreError, match="knows no model of version"):
        use(store, sha256("nowhere"))
    with pytest.raises(StoreError, match="in use already"):
        use(store, shipped)
    with pytest.raises(StoreError, match="say why"):
        use(store, add(store, "tuned"), why=" ")
    with pytest.raises(ValueError, match="say who"):
        use(store, sha256("tuned"), who="")
    with pytest.raises(ValueError, match="kind"):
        use(store, sha256("tuned"), kind="rollback")
    assert [move.version for move in pointer.history(store)] == [shipped]


def test_the_gate_promotes_only_by_a_look_that_said_so(store):
    shipped, tuned, other = begin(store), add(store, "tuned"), add(store, "other")
    with pytest.raises(StoreError, match="name the look"):
        use(store, tuned, kind="gate")
    with pytest.raises(StoreError, match="did not compare"):
        use(store, tuned, kind="gate", look=7)
    unsure = look_at(store, tuned, shipped, "inconclusive")
    with pytest.raises(StoreError, match="said inconclusive, not promote: as measured"):
        use(store, tuned, kind="gate", look=unsure)
    better = look_at(store, tuned, shipped, "promote")
    with pytest.raises(StoreError, match="did not compare"):
        use(store, other, kind="gate", look=better)
    assert in_use(store) == shipped
    # a person may use it anyway, and the record says on which look
    assert use(store, tuned, kind="use", look=unsure).look == unsure
    pointer.rollback(store, who="reader-1", why="once more")
    assert use(store, tuned, kind="gate", look=better).kind == "gate"
    with pytest.raises(StoreError, match="did not compare"):
        use(store, other, kind="gate", look=look_at(store, other, shipped, "promote"))


def test_a_look_that_another_one_came_after_promotes_nothing(store):
    shipped, tuned = begin(store), add(store, "tuned")
    better = look_at(store, tuned, shipped, "promote")
    look_at(store, tuned, shipped, "refuse")
    with pytest.raises(StoreError, match="look 2 said refuse, not promote: as measured"):
        use(store, tuned, kind="gate", look=better)
    # a look at another pair is none at this one
    look_at(store, add(store, "other"), shipped, "refuse")
    again = look_at(store, tuned, shipped, "promote")
    with pytest.raises(StoreError, match=f"compared again since look {better}: go by look {again}"):
        use(store, tuned, kind="gate", look=better)
    assert in_use(store) == shipped
    assert use(store, tuned, kind="gate", look=again).version == tuned


def test_rolling_back_goes_back_and_back_and_never_to_and_fro(store):
    first, second, third = begin(store), add(store, "second"), add(store, "third")
    with pytest.raises(StoreError, match="nothing to go back to"):
        pointer.rollback(store, who="reader-1", why="oops")
    use(store, second)
    use(store, third)
    assert pointer.rollback_target(store).version == second
    assert pointer.rollback(store, who="reader-1", why="worse on cysts").version == second
    assert pointer.rollback(store, who="reader-1", why="still worse", to=first).version == first
    assert pointer.rollback_target(store) is None
    with pytest.raises(StoreError, match="nothing to go back to"):
        pointer.rollback(store, who="reader-1", why="oops")
    use(store, third)
    assert pointer.rollback(store, who="reader-1", why="no").version == first
    assert [move.kind for move in pointer.history(store)] == [
        "first",
        "use",
        "use",
        "rollback",
        "rollback",
        "use",
        "rollback",
    ]


def test_rolling_back_passes_over_what_is_deleted_and_over_itself(store):
    shipped, first, second, third = begin(store), *(add(store, name) for name in ("one", "second", "third"))
    for version in (first, second, third):
        use(store, version)
    mark(store, second, DELETED, why="no room", who="reader-1")
    assert pointer.rollback_target(store).version == first
    use(store, first)
    use(store, third)
    # before it was the first model again, and before that this very one
    mark(store, first, DELETED, why="no room", who="reader-1")
    assert pointer.rollback_target(store).version == shipped
    row_of(store, "second")  # imported again
    assert pointer.rollback(store, who="reader-1", why="back").version == second


def test_rolling_back_to_what_is_no_longer_the_one_before_is_a_conflict(store):
    first, second, third = begin(store), add(store, "second"), add(store, "third")
    use(store, second)
    use(store, third)
    with pytest.raises(ConflictError, match="meanwhile"):
        pointer.rollback(store, who="reader-1", why="oops", to=first)
    assert in_use(store) == third


def test_a_locked_project_keeps_its_model(store):
    shipped, tuned = begin(store), add(store, "tuned")
    with pytest.raises(StoreError, match="use it first"):
        pointer.lock(store, tuned, who="reader-1", why="the study")
    use(store, tuned)
    pointer.lock(store, tuned, who="reader-1", why="the study")
    assert pointer.locked_version(store) == tuned
    with pytest.raises(StoreError, match=r"locked to tuned-.* unlock --why"):
        use(store, shipped)
    with pytest.raises(StoreError, match="locked to tuned-"):
        pointer.rollback(store, who="reader-1", why="oops")
    with pytest.raises(StoreError, match="already"):
        pointer.lock(store, tuned, who="reader-1", why="the study")
    assert in_use(store) == tuned
    row = pointer.unlock(store, who="reader-2", why="the study is over")
    assert [(m.mark, m.who, m.why) for m in row.marks] == [
        ("locked", "reader-1", "the study"),
        ("unlocked", "reader-2", "the study is over"),
    ]
    assert row.standing == ()
    with pytest.raises(StoreError, match="not locked"):
        pointer.unlock(store, who="reader-2", why="again")
    assert pointer.rollback(store, who="reader-1", why="free again").version == shipped


def test_the_model_that_ships_cannot_be_deleted(store):
    shipped = begin(store)
    use(store, add(store, "tuned"))
    with pytest.raises(StoreError, match="comes with Sonoloop"):
        mark(store, shipped, DELETED, why="no room", who="reader-1")


def test_the_model_in_use_cannot_be_deleted(store):
    shipped = begin(store)
    with pytest.raises(StoreError, match="is in use: use another model first"):
        mark(store, shipped, DELETED, why="no room", who="reader-1")
    assert find_model(store, shipped).marks == ()


def test_registering_again_changes_nothing_and_brings_back_what_was_deleted(store):
    row = row_of(store, "tuned")
    assert row_of(store, "tuned", who="reader-2", origin="imported") == row
    assert mark(store, row.version, DELETED, why="no room", who="reader-1").is_deleted
    back = row_of(store, "tuned", who="reader-2")
    assert not back.is_deleted
    assert [m.mark for m in back.marks] == ["deleted", "restored"]
    assert back.standing == ()
    assert len(list_models(store)) == 1


def test_marks_stay_and_stand(store):
    version = add(store, "tuned")
    mark(store, version, "refused", why="Dice -0.03", who="the gate")
    mark(store, version, "refused", why="Dice -0.02", who="the gate")
    mark(store, version, "deleted", why="no room", who="reader-1")
    row = find_model(store, "tuned")
    assert row.standing == ("refused", "deleted")
    assert [m.why for m in row.marks] == ["Dice -0.03", "Dice -0.02", "no room"]
    with pytest.raises(ValueError, match="a mark is a word"):
        mark(store, version, "Très mauvais", why="", who="reader-1")


def test_a_model_is_found_by_what_people_call_it(store):
    one, other = row_of(store, "ft-one"), row_of(store, "ft-two")
    assert find_model(store, one.model) == one
    assert find_model(store, "ft-o") == one
    assert find_model(store, other.version) == other
    assert find_model(store, other.version[:6]) == other
    with pytest.raises(StoreError, match=f"several models: .*{one.model}.*{other.model}"):
        find_model(store, "ft-")
    with pytest.raises(StoreError, match=f"no model 'nix'; it knows .*{one.model}"):
        find_model(store, "nix")
    with pytest.raises(StoreError, match="no model ''"):
        find_model(store, "")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": "abc"}, "64 hex"),
        ({"parent": "A" * 64}, "64 hex"),
        ({"origin": "found"}, "origin"),
        ({"who": " "}, "say who"),
    ],
)
def test_a_wrong_row_is_not_registered(store, changes, message):
    with pytest.raises(ValueError, match=message):
        row_of(store, "tuned", **changes)
    assert list_models(store) == ()


def test_a_snapshot_that_is_not_there_is_refused(store):
    with pytest.raises(StoreError):
        row_of(store, "tuned", snapshot="never taken")
    assert list_models(store) == ()


@pytest.mark.parametrize("statement", ["UPDATE promotions SET why = 'else'", "DELETE FROM promotions"])
def test_the_record_cannot_be_changed(store, shell, statement):
    begin(store)
    with pytest.raises(DBAPIError, match="append-only"):
        shell.execute(text(statement))
