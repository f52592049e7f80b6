"""Which model is in use: a row that only promotions and rollbacks add, each in one transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Connection, select

from sonoloop.crash_points import crash_here
from sonoloop.errors import ConflictError, StoreError
from sonoloop.store.locking import check_lock, lock, locked_version, unlock
from sonoloop.store.model_registry import add_model
from sonoloop.store.model_rows import check_who, check_why, hold, known_model, read_in_use
from sonoloop.store.promotions_ import KINDS, Kind, Promotion, all_moves, last_move, move_pointer
from sonoloop.store.rolling_back import rollback, rollback_target
from sonoloop.store.tables import LOOKS, PROMOTIONS

if TYPE_CHECKING:
    from sonoloop.store.corrections import CorrectionStore

__all__ = [
    "KINDS",
    "Kind",
    "Promotion",
    "ensure_incumbent",
    "history",
    "incumbent",
    "lock",
    "locked_version",
    "promote",
    "rollback",
    "rollback_target",
    "unlock",
]


def incumbent(store: CorrectionStore) -> Promotion | None:
    """Tell which model is in use, and since when.

    Raises
    ------
    StoreError
        If the store cannot be read.
    """
    with store.reading() as connection:
        return last_move(connection)


def history(store: CorrectionStore) -> tuple[Promotion, ...]:
    """List every move of the pointer, the first one first.

    Raises
    ------
    StoreError
        If the store cannot be read.
    """
    with store.reading() as connection:
        return all_moves(connection)


def ensure_incumbent(store: CorrectionStore, *, version: str, model: str, who: str) -> Promotion:
    """Tell which model is in use; in a project that has none, that is the shipped one from now on.

    Parameters
    ----------
    store : CorrectionStore
        Where.
    version, model : str
        Of the model that ships, as `sonoloop.models.places.shipped_card` gives them.
    who : str
        Pseudonym of the person.

    Returns
    -------
    Promotion
        The last one.

    Raises
    ------
    StoreError
        If the store cannot be written to.
    """
    last = incumbent(store)
    if last is not None:
        return last
    with store.writing() as connection:
        hold(connection, PROMOTIONS)
        last = last_move(connection)
        if last is not None:
            return last
        add_model(connection, version=version, model=model, origin="shipped", who=who)
        return move_pointer(connection, version, kind="first", look=None, why="ships with Sonoloop", who=who)


def promote(
    store: CorrectionStore,
    version: str,
    *,
    kind: Kind,
    who: str,
    why: str,
    look: int | None = None,
    expected: str | None,
) -> Promotion:
    """Put a model into use. Verify its bundle first: the store cannot.

    Parameters
    ----------
    store : CorrectionStore
        Where; one transaction, so that a crash leaves the old model in use or the new one.
    version : str
        Of a registered model.
    kind : str
        "gate" where the gate decided, which needs its look; "use" where a person did.
    who, why : str
        Pseudonym of the person, and the reason; of a gate, its own words.
    look : int, optional
        Number of the look that said "promote" of this model against the one in use.
    expected : str, optional
        The version that is in use as far as the caller knows; None for none.

    Returns
    -------
    Promotion
        As it is stored.

    Raises
    ------
    ConflictError
        If another model is in use by now.
    StoreError
        If the model is unknown, deleted or in use already, the project is locked to another one, no reason
        is given, or the look is missing or did not say so. The pointer stays.
    ValueError
        If nobody is named, or it is a kind that is not promoted by hand.
    """
    if kind not in ("first", "gate", "use"):
        raise ValueError(f"kind must be first, gate or use, got {kind!r}")
    check_who(who)
    check_why(why)
    with store.writing() as connection:
        hold(connection, PROMOTIONS)
        known = known_model(connection, version)
        _check_unmoved(connection, expected)
        if known.is_deleted:
            raise StoreError(f"{known.model} was deleted: import it again, then use it")
        if version == expected:
            raise StoreError(f"{known.model} is in use already")
        check_lock(connection, known)
        _check_look(connection, look, kind=kind, version=version, incumbent=expected)
        moved = move_pointer(connection, version, kind=kind, look=look, why=why, who=who)
        # written, and not committed
        crash_here("before-promote")
    crash_here("after-promote")
    return moved


def _check_unmoved(connection: Connection, expected: str | None) -> None:
    present = read_in_use(connection)
    if present != expected:
        name = "none" if present is None else known_model(connection, present).model
        raise ConflictError(
            f"the model in use was changed meanwhile, it is {name} now: look at it, and decide again"
        )


def _check_look(
    connection: Connection, look: int | None, *, kind: Kind, version: str, incumbent: str | None
) -> None:
    if look is None:
        if kind == "gate":
            raise StoreError("the gate promotes by a look at a test set: name the look")
        return
    row = connection.execute(select(LOOKS).where(LOOKS.c.number == look)).one_or_none()
    if row is None or (row.candidate, row.incumbent) != (version, incumbent):
        raise StoreError(f"look {look} did not compare this model with the one in use: judge it again")
    if kind != "gate":
        return
    last = connection.execute(
        select(LOOKS)
        .where(LOOKS.c.candidate == version, LOOKS.c.incumbent == incumbent)
        .order_by(LOOKS.c.number.desc())
        .limit(1)
    ).one()
    if last.verdict != "promote":
        raise StoreError(f"look {last.number} said {last.verdict}, not promote: {last.reason}")
    if last.number != look:
        raise StoreError(f"the two were compared again since look {look}: go by look {last.number}")
