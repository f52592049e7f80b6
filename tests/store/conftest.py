from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import Connection, create_engine, make_url, text

from sonoloop.store import CorrectionStore
from sonoloop.store.database import read_location

POSTGRES = os.environ.get("SONOLOOP_TEST_POSTGRES_URL")


@pytest.fixture(params=["sqlite", *(["postgresql"] if POSTGRES else [])])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A place for a store that does not exist yet."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'corrections.sqlite'}"
        return
    schema = f"test_{uuid4().hex}"
    engine = create_engine(read_location(POSTGRES))
    with engine.begin() as connection:
        connection.execute(text(f"CREATE SCHEMA {schema}"))
    place = make_url(POSTGRES).update_query_dict({"options": f"-csearch_path={schema}"})
    yield place.render_as_string(hide_password=False)
    with engine.begin() as connection:
        connection.execute(text(f"DROP SCHEMA {schema} CASCADE"))
    engine.dispose()


@pytest.fixture
def store(url: str) -> Iterator[CorrectionStore]:
    with CorrectionStore(url) as opened:
        yield opened


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A place for a store in a SQLite file."""
    return tmp_path / "corrections.sqlite"


@pytest.fixture
def shell(url: str, store: CorrectionStore) -> Iterator[Connection]:
    """A connection beside the store's own, as from a shell; without the store's pragmas."""
    engine = create_engine(read_location(url))
    with engine.connect() as connection:
        yield connection
    engine.dispose()
