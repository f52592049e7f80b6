"""An export of everything that people decided: PNG and JSON lines, for whoever has no Sonoloop.

It leaves the house: no pixel of an image, no file name, nothing by which a patient could be found is in it.
`sonoloop.store.merge` reads it back.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

from sqlalchemy import Connection, Row, Table, func, select

from sonoloop import __version__
from sonoloop.atomic import find_obstacle, name_aside, sweep_left, whole
from sonoloop.crash_points import crash_here
from sonoloop.drafts import Draft, DraftFolder, draft_folders
from sonoloop.errors import StoreError, StoreUnavailableError, describe_system_error
from sonoloop.imaging.overlay import lesion_colour
from sonoloop.store.backup import called, copy_file
from sonoloop.store.database import HEAD, Database, Tell, is_file, now, tell_nobody
from sonoloop.store.revisions import encode_png, is_withdrawn
from sonoloop.store.settings import SETTING_NAMES, store_secret
from sonoloop.store.sqlite_file import files_beside
from sonoloop.store.tables import FRAMES, METADATA, SETTINGS

FORMAT = 1
MADE_BY = "sonoloop store export"
ABOUT = "export.json"
SUMS = "sha256sums.txt"
TABLES = "tables"
DRAFTS = "drafts.jsonl"
KEY_FORMAT = 1

# what is not exported, a table or a column, and why; everything else is
LEFT_OUT = {
    "leases": "who is at work at this moment and on which computer",
    "members.thumbnail": "a small picture of the image; it is made anew when the image is opened again",
    "members.bits": "what is computed from the image's pixels; it is made anew like the picture",
}
LEFT_OUT_SETTINGS = "the secret by which patients' numbers are hashed (see --key), and counters of this store"
# where the bytes of a column go
PICTURES = {
    "revisions.mask": "masks/{id}.png",
    "predictions.lesion": "predictions/{id}-lesion.png",
    "predictions.mask": "predictions/{id}-mask.png",
}
_MASKS = {"revisions.mask", "predictions.mask"}

_WORDS = {
    "frames": "the images, each by its id (the SHA-256 of its bytes, or of the frame's in its file), the "
    "hash of its pixels, and its size",
    "predictions": "what a model said of an image; lesion is a picture of probabilities (0 to 255), mask "
    "what it marked",
    "revisions": "what a person said of an image, in the order of acceptance; none ever changes. parent is "
    "the revision that it replaced. mask is its picture, null where the image was withdrawn; mask_sha256 is "
    "the SHA-256 of 'uint8 HEIGHT WIDTH ' and the pixels",
    "heads": "which revision is the last of each person on an image",
    "frame_marks": "which images were flagged, skipped or excluded, and why; the last line of an image holds",
    "notes": "what people wrote on an image",
    "assignments": "who is to read which image without seeing what others said",
    "adjudications": "which revisions an adjudicated one decided between",
    "groups": "patients, or near copies of an image, that are kept together; role says whether they train or "
    "judge",
    "members": "which group an image is in; patient is a hash that only the store's key can tell",
    "reference_labels": "what is known of an image from elsewhere, such as histology",
    "settings": "the project's settings, each value as JSON",
    "snapshots": "named sets of revisions that models learned from",
    "snapshot_members": "which revisions are in a snapshot, and what each is for",
    "models": "the models of the project by version; the models themselves are not here",
    "marks": "what became of models: refused, deleted, or leaked",
    "test_sets": "frozen sets of images that models are judged on",
    "test_set_members": "which images are in a test set, and which revision counts",
    "scores": "how a model did on an image, as JSON",
    "looks": "every comparison of two models",
    "promotions": "which model came into use when; the last line is the one in use",
    "tombstones": "which images were withdrawn; what was erased is not here either",
}
_PNG = b"\x89PNG\r\n\x1a\n"
_AFTER_IHDR = 33
_COLOUR_TYPE = 25
_PALETTE = bytes([0, 0, 0, *(part for number in range(1, 256) for part in lesion_colour(number))])
_FETCHED = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """An export that is whole: how many rows of each table it holds, drafts, files, and their bytes."""

    folder: Path
    rows: Mapping[str, int]
    drafts: int
    files: int
    bytes: int


def export_store(
    database: Database,
    folder: Path,
    *,
    key: Path | None = None,
    tell: Tell = tell_nobody,
) -> Exported:
    """Write what the store holds at one moment into a folder; others may go on working meanwhile.

    What people drew on this machine and did not accept goes with it. The folder has its name once all is in
    it; its README.txt says what is in which file.

    Parameters
    ----------
    database : Database
        The store.
    folder : pathlib.Path
        Not there yet, or empty.
    key : pathlib.Path, optional
        A file to write the secret to by which patients are known again; it is to stay in the house.
    tell : callable
        Told how far it is; an exception of its stops it, and nothing is left.

    Raises
    ------
    StoreError
        If the folder is not empty, or nothing can be written.
    """
    folder = folder.absolute()
    _check_folder(folder)
    if key is not None:
        _check_key(key.absolute(), folder)
    secret = store_secret(database)
    try:
        with whole(folder, durable=False) as temporary:
            temporary.mkdir(mode=0o700)
            writer = _Writer(temporary, tell)
            with _still(database, tell) as connection:
                writer.write_tables(connection)
                # of frames that were withdrawn until then nothing is left, and no draft either
                gone = set(connection.scalars(select(FRAMES.c.pixels_hash).where(is_withdrawn(FRAMES.c.id))))
            writer.write_drafts(draft_folders(database.url.render_as_string()), gone)
            writer.finish(store=name_store(secret))
            if key is not None:
                write_key(key.absolute(), secret)
    except OSError as error:
        error.filename = str(folder)
        raise StoreUnavailableError(
            f"{describe_system_error(error)}; nothing is left of the export"
        ) from error
    return Exported(
        folder=folder, rows=writer.rows, drafts=writer.drafts, files=len(writer.sums), bytes=writer.bytes
    )


def name_store(secret: bytes) -> str:
    """Tell one store from another, and the same one after a move, without telling its secret."""
    return hashlib.sha256(b"sonoloop store " + secret).hexdigest()[:32]


def write_key(path: Path, secret: bytes) -> None:
    """Write a store's secret into a file that only its owner may read."""
    text = json.dumps({"made_by": MADE_BY, "format": KEY_FORMAT, "secret": secret.hex()}) + "\n"
    with whole(path) as temporary:
        temporary.touch(mode=0o600)
        temporary.write_text(text, encoding="utf-8")


def columns_of(table: Table) -> list[str]:
    """Name the columns of a table that an export has."""
    return [column.name for column in table.c if f"{table.name}.{column.name}" not in LEFT_OUT]


def exported_tables() -> list[Table]:
    """Give the tables that an export has, each after those that its rows belong to."""
    return [table for table in METADATA.sorted_tables if table.name not in LEFT_OUT]


def colour(data: bytes) -> bytes:
    """Give a grey PNG of the store its palette, so that a viewer shows lesions in colour; values stay."""
    if data[:8] != _PNG or data[_COLOUR_TYPE] != 0:
        return data  # damaged: it leaves as it is
    head = data[12:_COLOUR_TYPE] + b"\3" + data[_COLOUR_TYPE + 1 : _AFTER_IHDR - 4]
    return _PNG + data[8:12] + _seal(head) + _chunk(b"PLTE", _PALETTE) + data[_AFTER_IHDR:]


def uncolour(data: bytes) -> bytes:
    """Undo `colour`, to the byte."""
    palette = _chunk(b"PLTE", _PALETTE)
    if data[:8] != _PNG or data[_COLOUR_TYPE] != 3 or not data[_AFTER_IHDR:].startswith(palette):
        return data
    head = data[12:_COLOUR_TYPE] + b"\0" + data[_COLOUR_TYPE + 1 : _AFTER_IHDR - 4]
    return _PNG + data[8:12] + _seal(head) + data[_AFTER_IHDR + len(palette) :]


def _chunk(kind: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + _seal(kind + body)


def _seal(body: bytes) -> bytes:
    return body + zlib.crc32(body).to_bytes(4, "big")


@contextmanager
def _still(database: Database, tell: Tell) -> Iterator[Connection]:
    """Open a transaction that sees the store at one moment and holds nobody up, however long it lasts."""
    if not is_file(database.url):
        with database.reading_still() as connection:
            yield connection
        return
    # a long reading of a file would keep others from writing: a copy is read, which stays in the house
    path = Path(str(database.url.database))
    sweep_left(path.parent)
    copy = name_aside(path)
    try:
        copy_file(path, copy, tell=tell)
        with called(copy, path), Database(copy) as still, still.reading() as connection:
            yield connection
    finally:
        for left in (copy, *files_beside(copy)):
            left.unlink(missing_ok=True)


class _Writer:
    def __init__(self, folder: Path, tell: Tell) -> None:
        self._folder = folder
        self._tell = tell
        self.rows: dict[str, int] = {}
        self.drafts = 0
        self.sums: dict[str, str] = {}
        self.bytes = 0

    def write_tables(self, connection: Connection) -> None:
        tables = exported_tables()
        total = sum(connection.scalar(select(func.count()).select_from(table)) or 0 for table in tables)
        done = 0
        for table in tables:
            names = columns_of(table)
            query = select(*(table.c[name] for name in names)).order_by(*table.primary_key)
            if table is SETTINGS:
                query = query.where(SETTINGS.c.key.in_(SETTING_NAMES))
            lines = bytearray()
            count = 0
            for row in connection.execution_options(yield_per=_FETCHED).execute(query):
                lines += _write_line(self._take_out(table, row))
                count += 1
                if count % _FETCHED == 0:
                    self._tell("Exporting", done + count, total)
                    crash_here("export-half-written")
            self._write(f"{TABLES}/{table.name}.jsonl", bytes(lines))
            self.rows[table.name] = count
            done += count
            self._tell("Exporting", min(done, total), total)
        crash_here("export-half-written")

    def write_drafts(self, folders: Iterable[DraftFolder], gone: set[str]) -> None:
        lines = bytearray()
        for drafts in folders:
            for frame_id in sorted(drafts.ids()):
                draft = drafts.read(frame_id)
                # it may have been accepted meanwhile
                if draft is None or draft.pixels_hash in gone:
                    continue
                self.drafts += 1
                name = f"drafts/{frame_id}-{self.drafts}.png"
                self._write(name, colour(encode_png(draft.mask)))
                lines += _write_line(_describe_draft(draft, name))
        self._write(DRAFTS, bytes(lines))

    def finish(self, *, store: str) -> None:
        """Write what tells that all of it is there, last."""
        self._write("README.txt", _write_readme(self.rows, self.drafts).encode())
        sums = "".join(f"{digest}  {name}\n" for name, digest in sorted(self.sums.items())).encode()
        (self._folder / SUMS).write_bytes(sums)
        if hasattr(os, "sync"):
            os.sync()  # one for all: a sync of each of many thousand small files takes minutes
        crash_here("before-manifest")
        about = {
            "made_by": MADE_BY,
            "format": FORMAT,
            "software": __version__,
            "schema": HEAD,
            "created": now(),
            "store": store,
            "rows": self.rows,
            "drafts": self.drafts,
            "left_out": {**LEFT_OUT, "settings": LEFT_OUT_SETTINGS},
            "sha256sums": hashlib.sha256(sums).hexdigest(),
        }
        with (self._folder / ABOUT).open("x", encoding="utf-8") as file:
            file.write(json.dumps(about, indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _take_out(self, table: Table, row: Row[Any]) -> dict[str, Any]:
        """Give a row with the names of files in the place of bytes, which are written."""
        values = dict(row._mapping)
        for column, template in PICTURES.items():
            of, _, name = column.partition(".")
            if of != table.name:
                continue
            data = bytes(values[name])
            values[name] = template.format(id=values["id"]) if data else None
            if data:
                self._write(values[name], colour(data) if column in _MASKS else data)
        return values

    def _write(self, name: str, data: bytes) -> None:
        path = self._folder / name
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.write_bytes(data)
        self.sums[name] = hashlib.sha256(data).hexdigest()
        self.bytes += len(data)


def _write_line(values: Mapping[str, Any]) -> bytes:
    # plain ASCII: no character of a note ends a line or acts in a terminal
    return json.dumps(values, allow_nan=False).encode() + b"\n"


def _describe_draft(draft: Draft, mask: str) -> dict[str, Any]:
    """Say what is exported of a draft: not where its image is."""
    names = ("frame_id", "pixels_hash", "annotator", "label", "model", "seen", "parent", "index")
    return {
        **{name: getattr(draft, name) for name in names},
        "lesions": {str(number): name for number, name in draft.lesions.items()},
        "written": draft.written.isoformat(),
        "mask": mask,
    }


def _check_folder(folder: Path) -> None:
    if os.path.lexists(folder):
        if not folder.is_dir() or folder.is_symlink():
            raise StoreError(f"{folder} is no folder: name one that is not there yet")
        try:
            is_empty = next(folder.iterdir(), None) is None
        except OSError as error:
            raise StoreUnavailableError(
                f"{folder} cannot be read ({error.strerror}): name another"
            ) from error
        if is_empty and os.name == "nt":
            folder.rmdir()  # nothing takes the place of a folder there
        if not is_empty:
            raise StoreError(f"{folder} is not empty: name a folder that is not there yet")
    elif not folder.parent.is_dir():
        raise StoreError(f"there is no folder {folder.parent}: create it, or check the path")
    if obstacle := find_obstacle(folder.parent):
        raise StoreUnavailableError(f"{obstacle}: choose another place for the export")


def _check_key(key: Path, folder: Path) -> None:
    if key.is_relative_to(folder):
        raise StoreError(f"{key} is in the export, which may leave the house: keep the key elsewhere")
    if os.path.lexists(key):
        raise StoreError(f"there is a file {key} already: name another for the key")
    if not key.parent.is_dir() or find_obstacle(key.parent):
        raise StoreUnavailableError(f"{key.parent} cannot be written to: choose another place for the key")


def _write_readme(rows: Mapping[str, int], drafts: int) -> str:
    def paragraph(text: str, indent: str = "") -> str:
        return fill(text, 100, initial_indent=indent, subsequent_indent=indent)

    parts = [
        paragraph(
            f"What people decided on breast ultrasound images, exported from a project of Sonoloop "
            f"{__version__}. For research use only."
        ),
        paragraph(
            "Files that end in .jsonl hold one JSON object a line, in UTF-8; files that end in .png are "
            "pictures of 8 bits. In a mask 0 is background and every other value is the number of a lesion; "
            "a viewer shows each in a colour of its own, and a program reads the values themselves as in "
            "numpy.array(PIL.Image.open(file)). Times are in UTC."
        ),
        paragraph(
            f"{SUMS} has the SHA-256 of every file; `sha256sum -c {SUMS}` checks them. {ABOUT} was written "
            "last: where it is missing, the export is not whole."
        ),
        paragraph(
            "The images are not here, nor their names or places, nor patients' numbers. An image is known by "
            "the hash of its file's bytes (of a file with several frames, of the frame's), and by that of "
            "its pixels. Notes and reasons are as people wrote them: read them before you pass the folder on."
        ),
        "Files",
    ]
    for name, count in rows.items():
        parts.append(
            f"  {TABLES}/{name}.jsonl  ({count} lines)\n" + paragraph(_WORDS.get(name, name), "      ")
        )
    parts.append(
        f"  {DRAFTS}  ({drafts} lines)\n"
        + paragraph("what people drew and have not accepted yet; mask is its picture", "      ")
    )
    parts.append("  masks/, predictions/, drafts/\n" + paragraph("the pictures", "      "))
    parts.append("Left out")
    left_out = {**LEFT_OUT, "settings": LEFT_OUT_SETTINGS}
    parts += [f"  {what}\n" + paragraph(why, "      ") for what, why in left_out.items()]
    parts.append(
        paragraph("To add all of this to a project of Sonoloop: sonoloop store merge FOLDER --store FILE")
    )
    return "\n\n".join(parts) + "\n"
