"""`sonoloop store export` and `merge`: everything that people decided, out into a folder and in again."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sonoloop.cli.console import AsJson, Store, open_store, print_error, print_json, result_console, working
from sonoloop.regular_files import name_size

if TYPE_CHECKING:
    from sonoloop.store.merge import Merged

_NOT_COUNTED = ("snapshot_members", "test_set_members", "members", "heads")


def export(
    *,
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Not there yet, or empty.", show_default=False)
    ],
    place: Store = None,
    key: Annotated[
        Path | None,
        typer.Option(
            "--key",
            metavar="FILE",
            help="Write the secret that knows patients again into a file of its own; it stays in the house.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write everything that people decided into a folder, as PNG and JSON lines, also while others work.

    Every revision, drafts, notes, marks, groups, snapshots, models' record and settings, with a README.txt
    for whoever has no Sonoloop. No image, no file name and no patient's number is in it. `sonoloop store
    merge` reads it back.
    """
    from sonoloop.store.export import export_store  # noqa: PLC0415 - `--help` loads no SQLAlchemy

    with open_store(place) as opened, working("nothing is left of it", quiet=as_json) as console:
        done = export_store(opened, folder, key=key, tell=console.advance)
    if as_json:
        print_json({**asdict(done), "folder": str(done.folder)})
        return
    counts = f"{done.rows['revisions']} revisions of {done.rows['frames']} images and {done.drafts} drafts"
    console_ = result_console()
    console_.print(
        f"exported {counts} to {done.folder}: {done.files} files, {name_size(done.bytes)}", soft_wrap=True
    )
    console_.print(
        "Notes and reasons are in it as people wrote them: read them before it leaves.", soft_wrap=True
    )


def merge(
    *,
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="What `sonoloop store export` wrote.", show_default=False)
    ],
    place: Store = None,
    key: Annotated[
        Path | None,
        typer.Option(
            "--key", metavar="FILE", help="The key of the exported store; for a store without images."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Add to a store what an export holds and the store lacks, all or nothing; a new store is made.

    Nothing that is there changes. Where a person went on in both, both corrections are kept, and the store's
    stays the last. What was withdrawn on either side is erased. The same command again adds nothing.
    """
    from sonoloop.store import CorrectionStore  # noqa: PLC0415 - `--help` loads no SQLAlchemy
    from sonoloop.store.merge import Export, merge_export  # noqa: PLC0415
    from sonoloop.store.network_share import warn_of_share  # noqa: PLC0415

    Export(folder)  # before a store is made for nothing
    with CorrectionStore(place) as opened, working("nothing was added", quiet=as_json) as console:
        warn_of_share(opened.url, print_error)
        done = merge_export(opened, folder, key=key, tell=console.advance)
    if as_json:
        print_json(asdict(done))
        return
    _print_merged(done)


def _print_merged(done: Merged) -> None:
    console = result_console()
    added = {name: count for name, count in done.added.items() if count and name not in _NOT_COUNTED}
    counts = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in added.items())
    console.print(f"added {counts}" if counts else "nothing new: the store has all of it", soft_wrap=True)
    if done.drafts:
        console.print(f"{done.drafts} drafts are offered when their images are opened", soft_wrap=True)
    if done.heads_moved:
        console.print(
            f"{_images(done.heads_moved)}: the export's newer correction is the last now", soft_wrap=True
        )
    if done.heads_kept:
        console.print(
            f"{_images(done.heads_kept)}: the same person went on in both; both corrections are kept, this "
            "store's is the last",
            soft_wrap=True,
        )
    if done.promotions_left_out:
        console.print("the model in use stays this store's own", soft_wrap=True)
    if done.withdrawn:
        console.print(f"withdrawn there, and erased here too: {_images(len(done.withdrawn))}", soft_wrap=True)
    if not done.same_store and done.added.get("members"):
        console.print(
            "patients of the export are not known again when more of their images come: this store has a "
            "secret of its own (see --key)",
            soft_wrap=True,
        )


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"
