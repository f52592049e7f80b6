"""One at a time: a lease on a name, for what must not run twice on a store, such as a training."""

from __future__ import annotations

import hashlib
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import getnode, uuid4

from sqlalchemy import Connection, Row, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite

from sonoloop.errors import StoreError
from sonoloop.store.tables import LEASES

if TYPE_CHECKING:
    from sonoloop.store.corrections import CorrectionStore

# a holder that was not heard of for so long is taken for gone
EXPIRY = timedelta(seconds=120)
# no host name holds it
_MARK = "/"
_DIGITS = 8


class LeaseError(StoreError):
    """Somebody else holds the lease; the message says who, where and since when."""


class Lease:
    """A lease that is held; from `lease`.

    Parameters
    ----------
    store : CorrectionStore
        Where it is held.
    name : str
        On what.
    holder : str
        A number of its own: a process may take a lease that it held before.
    """

    def __init__(self, store: CorrectionStore, name: str, holder: str) -> None:
        self._store = store
        self.name = name
        self.holder = holder

    def renew(self) -> None:
        """Say that the holder is still there; call it every half minute or so."""
        with self._store.writing() as connection:
            own = (LEASES.c.name == self.name, LEASES.c.holder == self.holder)
            if connection.execute(update(LEASES).where(*own).values(renewed=_now())).rowcount == 0:
                raise LeaseError(
                    f"the lease on {self.name} was not renewed in time and another program took it: "
                    "stop here, and start again when the other one is done"
                )

    def give_back(self) -> None:
        """Let the next one have it; where another one took it meanwhile, nothing happens."""
        with self._store.writing() as connection:
            own = (LEASES.c.name == self.name, LEASES.c.holder == self.holder)
            connection.execute(delete(LEASES).where(*own))


@contextmanager
def lease(store: CorrectionStore, name: str, *, what: str) -> Iterator[Lease]:
    """Hold a lease while a block runs."""
    held = take_lease(store, name, what=what)
    try:
        yield held
    finally:
        held.give_back()


def take_lease(store: CorrectionStore, name: str, *, what: str) -> Lease:
    """Take a lease without a block; see `lease`."""
    now = _now()
    held = Lease(store, name, uuid4().hex)
    values = {
        "name": name,
        "holder": held.holder,
        "host": _name_machine(),
        "pid": os.getpid(),
        "what": what,
        "taken": now,
        "renewed": now,
    }
    with store.writing() as connection:
        while not _add(connection, values):
            query = select(LEASES).where(LEASES.c.name == name).with_for_update()
            other = connection.execute(query).one_or_none()
            if other is None:
                continue  # given back since it was found
            if not _is_gone(other):
                raise LeaseError(
                    f"{other.what} is under way: process {other.pid} on {_host(other.host)} has held {name} "
                    f"since {other.taken[:16].replace('T', ' ')} UTC; wait until it ends, or stop it"
                )
            connection.execute(update(LEASES).where(LEASES.c.name == name).values(values))
            break
    return held


def _add(connection: Connection, values: dict[str, Any]) -> bool:
    """Enter the lease unless it is there, in one statement: two that find none must not both add it."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    add = dialect.insert(LEASES).values(values).on_conflict_do_nothing().returning(LEASES.c.name)
    return connection.scalar(add) is not None


def _name_machine() -> str:
    """Name this machine: two that share a store may have one host name."""
    node = getnode()
    # without a network card it is drawn anew by each process, which this bit tells
    drawn = node >> 40 & 1
    digits = "" if drawn else hashlib.sha256(str(node).encode()).hexdigest()[:_DIGITS]
    return f"{socket.gethostname()}{_MARK}{digits}"


def _host(machine: str) -> str:
    return machine.partition(_MARK)[0]


def _is_gone(holder: Row[Any]) -> bool:
    if holder.host == _name_machine() and not _is_running(holder.pid):
        return True
    return datetime.now(UTC) - datetime.fromisoformat(holder.renewed) > EXPIRY


def _is_running(pid: int) -> bool:
    if sys.platform == "win32":
        return True  # os.kill would end the process; its lease expires
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
