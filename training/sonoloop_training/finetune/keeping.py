"""A lease that is renewed for as long as a job works, however long one of its steps takes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sonoloop.errors import StoreError
from sonoloop.store.leases import LeaseError

_log = logging.getLogger(__name__)

_EVERY = 20.0


@contextmanager
def renewed(renew: Callable[[], None], *, every: float = _EVERY) -> Iterator[Callable[[], None]]:
    """Renew a lease in a thread while a block runs.

    Parameters
    ----------
    renew : callable
        See `sonoloop.store.leases.Lease.renew`.
    every : float
        Seconds in between.

    Yields
    ------
    callable
        Raises the `LeaseError` if another one took the lease meanwhile; to be called now and then.
    """
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
