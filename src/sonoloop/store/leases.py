"""One at a time: a lease on a name, for what must not run twice on a store, such as a training.

And claims: leases on frames, so that two annotators do not work on one image.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import getnode, uuid4

import psutil
from sqlalchemy import ColumnElement, Connection, Row, Select, delete, func, select, update

from sonoloop.errors import StoreError
from sonoloop.store.database import Database, add_if_new, check_who
from sonoloop.store.references import lock_frame
from sonoloop.store.tables import LEASES

# a holder that was not heard of for so long is taken for gone
EXPIRY = timedelta(seconds=120)
# and whoever has an image open, who may think about it for a while
CLAIM_EXPIRY = timedelta(minutes=10)
_RENEWED_EVERY = 20.0
_WATCH_SECONDS = 2.0  # between two glances at a holder that may be gone
_MARK = "/"  # no host name holds it
_DIGITS = 8
_FRAME = re.compile(r"[0-9a-f]{64}")

_log = logging.getLogger(__name__)


class LeaseError(StoreError):
    """Somebody else holds the lease; the message says who, where and since when."""


class ClaimedError(LeaseError):
    """Another annotator works on the frame: `by` whom, and `until` when if nothing more is heard of them."""

    def __init__(self, claim: Claim) -> None:
        self.by, self.until = claim.by, claim.until
        super().__init__(
            f"{claim.by} is working on this image, and has it until {claim.until:%H:%M} UTC: choose another, "
            "or go on; what both of you accept is kept"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """That an annotator works on a frame, and until when (UTC) unless it is claimed again or released."""

    frame_id: str
    by: str
    until: datetime


class Lease:
    """A lease that is held; from `lease`. Each has a number: a process may hold one name twice in turn."""

    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self.name = name
        self.holder = uuid4().hex
        self._own = (LEASES.c.name == name, LEASES.c.holder == self.holder)

    def renew(self) -> None:
        """Say that the holder is still there; call it every half minute or so."""
        with self._database.writing() as connection:
            renewed = _read_clock(connection).isoformat(timespec="microseconds")
            if connection.execute(update(LEASES).where(*self._own).values(renewed=renewed)).rowcount == 0:
                raise LeaseError(
                    f"the lease on {self.name} was not renewed in time and another program took it: "
                    "stop here, and start again when the other one is done"
                )

    def give_back(self) -> None:
        """Let the next one have it; where another one took it meanwhile, nothing happens."""
        with self._database.writing() as connection:
            connection.execute(delete(LEASES).where(*self._own))


@contextmanager
def lease(database: Database, name: str, *, what: str) -> Iterator[Lease]:
    """Hold a lease while a block runs."""
    held = take_lease(database, name, what=what)
    try:
        yield held
    finally:
        held.give_back()


def take_lease(database: Database, name: str, *, what: str) -> Lease:
    """Take a lease without a block; see `lease`.

    A server's clock tells whether a holder is gone. A file has no clock of its own, and those of two machines
    that share it differ: a holder that seems gone is watched for as long as a lease lasts first.
    """
    held = Lease(database, name)
    silent: Row[Any] | None = None
    while True:
        with database.writing() as connection:
            doubtful = _try(connection, held, what, silent)
        if doubtful is None:
            return held
        silent = _watch(database, doubtful)


def check_nobody_works(rows: Iterable[Any]) -> None:
    """Refuse where one of these leases or claims, rows read from a file, is of somebody who is there."""
    now = datetime.now(UTC)
    for row in rows:
        is_claim = _FRAME.fullmatch(row.name)
        if is_claim and not _is_over(row, now):
            raise LeaseError(f"{row.what} is working on an image of this store: close napari, then try again")
        silent = abs(now - datetime.fromisoformat(row.renewed))
        if not is_claim and silent <= EXPIRY and not _has_ended(row):
            raise _refusal(row)


@contextmanager
def renewed(renew: Callable[[], None], *, every: float = _RENEWED_EVERY) -> Iterator[Callable[[], None]]:
    """Renew a lease in a thread while a block runs."""
    ended = threading.Event()
    lost: list[LeaseError] = []

    def keep_on() -> None:
        while not ended.wait(every):
            try:
                renew()
            except LeaseError as error:
                lost.append(error)
                return
            except StoreError as error:
                # it may be busy; there is time for a few more attempts before the lease runs out
                _log.warning("the lease could not be renewed: %s", error)

    def check() -> None:
        if lost:
            raise lost[0]

    thread = threading.Thread(target=keep_on, name="lease", daemon=True)
    thread.start()
    try:
        yield check
    finally:
        ended.set()
        thread.join()


def claim_frame(database: Database, frame_id: str, *, annotator: str) -> Claim:
    """Say that an annotator works on a frame; claimed again by them, it lasts from now on.

    Refused while another's claim lasts. Nobody is watched before an old one is taken over, as a training is:
    should a clock be wrong, two work on one image, and both versions are kept.
    """
    annotator = check_who(annotator)
    with database.writing() as connection:
        lock_frame(connection, frame_id)
        now = _read_clock(connection)
        mine = _write_lease(frame_id, uuid4().hex, annotator, now)
        while not add_if_new(connection, LEASES, mine):
            other = connection.execute(_select(frame_id).with_for_update()).one_or_none()
            if other is None:
                continue  # released since it was found
            if other.what != annotator and not _is_over(other, now):
                raise ClaimedError(_read_claim(other))
            connection.execute(update(LEASES).where(LEASES.c.name == frame_id).values(mine))
            break
    return Claim(frame_id=frame_id, by=annotator, until=now + CLAIM_EXPIRY)


def release_frame(database: Database, frame_id: str, *, annotator: str) -> None:
    """Give a frame back that an annotator claimed; where they hold none, nothing happens."""
    own = (LEASES.c.name == frame_id, LEASES.c.what == check_who(annotator))
    with database.writing() as connection:
        connection.execute(delete(LEASES).where(*own))


def claims_among(connection: Connection, among: ColumnElement[bool]) -> dict[str, Claim]:
    """Read the claims that last, by frame, of those that a condition on their names gives."""
    now = _read_clock(connection)
    rows = connection.execute(select(LEASES).where(among)).all()
    return {row.name: _read_claim(row) for row in rows if not _is_over(row, now)}


def _is_over(row: Any, now: datetime) -> bool:  # noqa: ANN401 - as `_has_ended` takes it
    """Tell whether a claim ran out, or its program ended; one from the future is a wrong clock's."""
    return _has_ended(row) or abs(now - datetime.fromisoformat(row.renewed)) > CLAIM_EXPIRY


def _read_claim(row: Row[Any]) -> Claim:
    until = datetime.fromisoformat(row.renewed) + CLAIM_EXPIRY
    return Claim(frame_id=row.name, by=row.what, until=until)


def _try(connection: Connection, held: Lease, what: str, silent: Row[Any] | None) -> Row[Any] | None:
    """Take the lease, or give the holder that must be watched before it can be taken for gone."""
    now = _read_clock(connection)
    mine = _write_lease(held.name, held.holder, what, now)
    while not add_if_new(connection, LEASES, mine):
        other = connection.execute(_select(held.name).with_for_update()).one_or_none()
        if other is None:
            continue  # given back since it was found
        if not _has_ended(other) and other != silent:
            if abs(now - datetime.fromisoformat(other.renewed)) <= EXPIRY:
                raise _refusal(other)
            if connection.dialect.name == "sqlite":
                return other
        connection.execute(update(LEASES).where(LEASES.c.name == held.name).values(mine))
        break
    return None


def _write_lease(name: str, holder: str, what: str, now: datetime) -> dict[str, Any]:
    stamp = now.isoformat(timespec="microseconds")
    return {
        "name": name,
        "holder": holder,
        "host": _name_machine(),
        "pid": os.getpid(),
        "what": what,
        "taken": stamp,
        "renewed": stamp,
    }


def _has_ended(other: Any) -> bool:  # noqa: ANN401 - a row of leases, however it was read
    return other.host == _name_machine() and not psutil.pid_exists(other.pid)


def _watch(database: Database, other: Row[Any]) -> Row[Any] | None:
    """Give a holder back that says nothing while a lease lasts; None where the lease changed hands."""
    _log.info("nobody was heard of who holds %s; watching the lease before it is taken over", other.name)
    end = time.monotonic() + EXPIRY.total_seconds()
    while time.monotonic() < end:
        time.sleep(_WATCH_SECONDS)
        with database.reading() as connection:
            there = connection.execute(_select(other.name)).one_or_none()
        if there is None or there.holder != other.holder:
            return None
        if there != other:
            raise _refusal(there)
    return other


def _refusal(other: Row[Any]) -> LeaseError:
    return LeaseError(
        f"{other.what} is under way: process {other.pid} on {other.host.partition(_MARK)[0]} has held "
        f"{other.name} since {other.taken[:16].replace('T', ' ')} UTC; wait until it ends, or stop it"
    )


def _select(name: str) -> Select[Any]:
    return select(LEASES).where(LEASES.c.name == name)


def _read_clock(connection: Connection) -> datetime:
    """Read the time that all who share the database agree on, as far as there is one."""
    if connection.dialect.name == "sqlite":
        return datetime.now(UTC)
    server: datetime = connection.scalars(select(func.clock_timestamp())).one()
    return server.astimezone(UTC)


def _name_machine() -> str:
    """Name this machine: two that share a store may have one host name."""
    node = getnode()
    # without a network card it is drawn anew by each process, which this bit tells
    drawn = node >> 40 & 1
    digits = "" if drawn else hashlib.sha256(str(node).encode()).hexdigest()[:_DIGITS]
    return f"{socket.gethostname()}{_MARK}{digits}"
