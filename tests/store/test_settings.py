from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from sonoloop.errors import StoreError
from sonoloop.store import CorrectionStore
from sonoloop.store.settings import StoreSettings, change_settings, parse_changes, read_settings, store_secret


def test_a_new_store_has_the_defaults(store):
    assert read_settings(store) == StoreSettings()
    assert (read_settings(store).test_cap, read_settings(store).auc_margin) == (300, 0.02)


def test_what_was_changed_stays_and_the_rest_is_as_it_was(store, url):
    assert change_settings(store, test_cap=12, promote="automatic").test_cap == 12
    change_settings(store, auc_margin=0)
    with CorrectionStore(url) as again:
        assert read_settings(again) == StoreSettings(test_cap=12, promote="automatic", auc_margin=0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"test_cup": 3}, "no setting 'test_cup'; there are test_cap,"),
        ({"secret": "x"}, "no setting 'secret'"),
        ({"test_share": 1.5}, "test_share must be a number from 0 to 1, got 1.5"),
        ({"test_share": float("nan")}, "test_share must be"),
        ({"test_cap": 2.5}, "test_cap must be a whole number"),
        ({"test_cap": True}, "test_cap must be a whole number"),
        ({"promote": "always"}, "promote must be one of ask, automatic"),
        ({"auc_margin": "little"}, "auc_margin must be a number"),
    ],
)
def test_a_bad_setting_is_named_and_nothing_changes(store, changes, said):
    with pytest.raises(StoreError, match=said):
        change_settings(store, first_lesion_groups=3, **changes)
    assert read_settings(store) == StoreSettings()


def test_a_damaged_setting_is_said(store, shell):
    shell.execute(text("INSERT INTO settings VALUES ('test_cap', '{')"))
    shell.commit()
    with pytest.raises(StoreError, match="damaged"):
        read_settings(store)


def test_pairs_are_read_as_typed():
    assert parse_changes(["test_cap=100", "promote=automatic", "auc_margin=0.1"]) == {
        "test_cap": 100,
        "promote": "automatic",
        "auc_margin": 0.1,
    }
    with pytest.raises(StoreError, match="KEY=VALUE"):
        parse_changes(["test_cap"])


def test_the_secret_is_made_once_whoever_asks_first(url, tmp_path):
    CorrectionStore(url).close()
    start = threading.Barrier(4)

    def ask(_number: int) -> bytes:
        with CorrectionStore(url) as store:
            start.wait()
            return store_secret(store)

    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(ask, range(4)))
    assert len(found) == 1
    assert len(found.pop()) == 32
    with CorrectionStore(tmp_path / "another.sqlite") as other, CorrectionStore(url) as store:
        assert store_secret(other) != store_secret(store)


def test_what_many_change_at_once_is_changed_by_all_of_them(url):
    CorrectionStore(url).close()
    start = threading.Barrier(4)

    def change(number: int) -> None:
        with CorrectionStore(url) as store:
            for cap in range(8):
                start.wait(60)
                change_settings(store, test_cap=cap, auc_margin=number / 10)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(change, range(4)))
    with CorrectionStore(url) as store:
        assert read_settings(store).test_cap == 7
