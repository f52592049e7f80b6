"""What the commands on a project have in common: its store, who asks, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sonoloop.store.corrections import CorrectionStore


def not_blank(value: str | None) -> str | None:
    """Refuse an option that is given and says nothing."""
    if value is not None and not value.strip():
        raise typer.BadParameter("it is empty")
    return value


Store = Annotated[
    str | None,
    typer.Option("--store", help="File or URL of the project's corrections; your own if not given."),
]
Who = Annotated[str, typer.Option("--who", callback=not_blank, help="Your pseudonym, for the record.")]
Why = Annotated[str, typer.Option("--why", callback=not_blank, help="The reason, for the record.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, and no table.")]
DEFAULT_WHO = "command line"


def open_store(place: str | None) -> CorrectionStore:
    """Open a project's store; one that is named has to be there.

    Raises
    ------
    StoreError
        If there is none, or it cannot be opened.
    """
    from sonoloop.store import CorrectionStore  # noqa: PLC0415 - `--help` loads none of these
    from sonoloop.store.database import read_existing  # noqa: PLC0415

    read_existing(place)
    return CorrectionStore(place)
