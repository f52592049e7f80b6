"""Going back to the model that was in use before: a move like any other, on the record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from sonoloop.errors import ConflictError, StoreError
from sonoloop.store.locking import check_lock
from sonoloop.store.model_rows import ModelRow, check_who, check_why, hold, select_models
from sonoloop.store.promotions_ import Promotion, all_moves, move_pointer
from sonoloop.store.tables import PROMOTIONS

if TYPE_CHECKING:
    from sonoloop.store.corrections import CorrectionStore


def rollback_target(store: CorrectionStore) -> ModelRow | None:
    """Tell which model `rollback` would put back into use; None where there is none before.

    Raises
    ------
    StoreError
        If the store cannot be read.
    """
    with store.reading() as connection:
        return _before(connection)


def rollback(store: CorrectionStore, *, who: str, why: str, to: str | None = None) -> Promotion:
    """Put the model back into use that was before the present one; again for the one before that.

    Verify its bundle first, as for `promote`.

    Parameters
    ----------
    store : CorrectionStore
        Where.
    who, why : str
        Pseudonym of the person, and the reason.
    to : str, optional
        The version that `rollback_target` told the caller.

    Returns
    -------
    Promotion
        As it is stored.

    Raises
    ------
    ConflictError
        If it would be another model than `to` by now.
    StoreError
        If no model was in use before that is still there, the project is locked, or no reason is given. The
        pointer stays.
    ValueError
        If nobody is named.
    """
    check_who(who)
    check_why(why)
    with store.writing() as connection:
        hold(connection, PROMOTIONS)
        target = _before(connection)
        if target is None:
            raise StoreError("no model was in use before this one that is still there: nothing to go back to")
        if to is not None and target.version != to:
            raise ConflictError("the model in use was changed meanwhile: look which one it is, and try again")
        check_lock(connection, target)
        return move_pointer(connection, target.version, kind="rollback", look=None, why=why, who=who)


def _before(connection: Connection) -> ModelRow | None:
    models = {row.version: row for row in select_models(connection)}
    way = _unwind(all_moves(connection))
    for version in reversed(way[:-1]):
        if version != way[-1] and not models[version].is_deleted:
            return models[version]
    return None


def _unwind(moves: Sequence[Promotion]) -> list[str]:
    """List the versions that lead to the one in use; what was rolled back is off the way."""
    way: list[str] = []
    for move in moves:
        if move.kind == "rollback" and move.version in way[:-1]:
            way.pop()
            while way[-1] != move.version:
                way.pop()
        else:
            way.append(move.version)
    return way
