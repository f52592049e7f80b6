"""What every test shares: the folders, the markers that ask for something, and study folders of phantoms."""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"

# workers of pytest-xdist, and what they start, slow each other down many times over with all cores each
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")


# they fork their processes from one, which takes seconds to start
FORKING = (
    "tests/training/test_distributed.py",
    "tests/training/test_finetune_survives.py",
    "tests/training/test_resume.py",
    "tests/cli/test_cli_evaluate.py",
    "tests/cli/test_cli_finetune.py",
    "tests/cli/test_cli_train.py",
)
# what takes long begins first, so that the workers end together
FIRST = ("gui", "training", "cli", "store")


def pytest_configure(config: pytest.Config) -> None:
    """Have pytest-xdist keep our order: its own begins with the files of many tests, which are quick."""
    config.option.loadscopereorder = False


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long."""
    items.sort(key=lambda item: FIRST.index(item.path.parent.name) if item.path.parent.name in FIRST else 9)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Have a file stay with one worker of xdist, all windows (only one is in front), and all of FORKING."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "windows" if file.startswith("tests/gui/") else "forked" if file in FORKING else file

    return Scheduling(config, log)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def data() -> Path:
    """The public datasets; for tests marked `data`."""
    return DATA


@pytest.fixture(scope="session", autouse=True)
def _migrated_once() -> Iterator[None]:
    """Run the migrations for the first SQLite store alone; the next ones begin with the schema it came to."""
    from sonoloop.store import database

    migrate = database._upgrade
    made: list[str] = []

    def upgrade(connection: Any) -> None:
        begun = connection.exec_driver_sql if connection.dialect.name == "sqlite" else None
        if begun is None or begun("SELECT count(*) FROM sqlite_master").scalar():
            migrate(connection)
        elif made:
            for statement in made:
                begun(statement)
        else:
            migrate(connection)
            made.extend(_schema(connection.connection.driver_connection))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "_upgrade", upgrade)
        yield


def _schema(connection: sqlite3.Connection) -> list[str]:
    """Give the statements that make an empty database what this one is."""
    kept = "BEGIN TRANSACTION;", "COMMIT;"
    return [statement for statement in connection.iterdump() if statement not in kept]


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("data") and not DATA.is_dir():
        pytest.skip("the public datasets are not at ../shared/data")
    if item.get_closest_marker("cuda") and not _has_cuda():
        pytest.skip("there is no NVIDIA GPU")
    if item.path.is_relative_to(ROOT / "tests" / "gui") and not _has_display():
        pytest.skip("there is no display; `make test` starts one")


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _has_display() -> bool:
    names = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    return sys.platform in ("win32", "darwin") or any(os.environ.get(name) for name in names)
