"""Adding an export to a store: what is missing comes in, and nothing that is there changes.

Rows are known again by their key; those that a store numbers by themselves by all that they say. Numbers stay
where the table was empty, else the rows are numbered after those that are there, in their own order.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Double,
    Integer,
    LargeBinary,
    String,
    Table,
    UniqueConstraint,
    func,
    insert,
    select,
    text,
    update,
)

from sonoloop.crash_points import crash_here
from sonoloop.drafts import Draft, DraftFolder, draft_folder
from sonoloop.errors import StoreError
from sonoloop.regular_files import read_regular
from sonoloop.store.database import (
    HEAD,
    OLDER,
    SECRET,
    Database,
    Tell,
    add_if_new,
    check_who,
    hold,
    tell_nobody,
)
from sonoloop.store.export import (
    ABOUT,
    DRAFTS,
    FORMAT,
    KEY_FORMAT,
    MADE_BY,
    PICTURES,
    SUMS,
    TABLES,
    exported_tables,
    name_store,
    uncolour,
)
from sonoloop.store.groups import note_roles
from sonoloop.store.near_duplicates import hold_sketches
from sonoloop.store.revisions import decode_png, hash_prediction, join_rows, read_prediction, read_revision
from sonoloop.store.settings import SETTING_NAMES, secret_in, settings_in
from sonoloop.store.tables import (
    FRAMES,
    GROUPS,
    HEADS,
    MEMBERS,
    PREDICTIONS,
    PROMOTIONS,
    REVISIONS,
    SETTINGS,
    SNAPSHOTS,
    TOMBSTONES,
)
from sonoloop.store.withdrawal import ERASED, complete_withdrawals, forget_withdrawn

_MOST_BYTES = 4 << 30  # of a table
_MOST_PICTURE = 1 << 28
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SUM = re.compile(r"([0-9a-f]{64})  (\S.*)")
_REVISION = re.compile(r"[0-9a-f]{32}")
_DIGITS = 12
_WHOLE = 1 << 63

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """What came in: rows by table, and drafts; and what did not, since the store has its own.

    `heads_kept` are images on which a person went on in both: both corrections are there, and the store's is
    the last. `promotions_left_out` were made where the store has put other models into use. `withdrawn` are
    frames that were erased here, since they had been withdrawn there. `same_store` tells whether patients
    hash alike, so that one who comes again is known.
    """

    added: Mapping[str, int]
    drafts: int
    heads_moved: int
    heads_kept: int
    promotions_left_out: int
    withdrawn: tuple[str, ...]
    same_store: bool


class Export:
    """An export on disk, checked against its own list of files; nothing in it is trusted.

    Parameters
    ----------
    folder : pathlib.Path
        Where it is.

    Raises
    ------
    StoreError
        If it is none, was not finished, or was made by a newer version.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder = folder.absolute()
        if not folder.is_dir():
            raise StoreError(f"there is no folder {folder}: give the one that an export was written to")
        if not (folder / ABOUT).exists():
            raise StoreError(
                f"{folder} has no {ABOUT}: it is no export, or one that was not finished or copied whole"
            )
        about = _parse(self._read(ABOUT, most=1 << 24), ABOUT)
        if about.get("made_by") != MADE_BY:
            raise StoreError(f"{folder / ABOUT} was not written by `{MADE_BY}`: give an export's folder")
        schema = about.get("schema")
        if about.get("format") != FORMAT or schema not in {HEAD, *OLDER}:
            raise StoreError(
                f"{folder} was made by another version of Sonoloop (format {about.get('format')}, schema "
                f"{schema}): update with pip install -U napari-sonoloop"
            )
        self.store = str(about.get("store"))
        sums = self._read(SUMS, most=_MOST_BYTES)
        if hashlib.sha256(sums).hexdigest() != about.get("sha256sums"):
            raise StoreError(f"{folder / SUMS} is not what it was when the export was made: export again")
        self._sums = dict(self._read_sums(sums))

    @property
    def files(self) -> list[str]:
        """Name its files, as paths below its folder."""
        return list(self._sums)

    def read(self, name: str) -> bytes:
        """Read a file of it, and make sure that it is what was written."""
        if name not in self._sums:
            raise StoreError(f"{self.folder} has no file {name}: export again")
        most = _MOST_PICTURE if name.endswith(".png") else _MOST_BYTES
        data = self._read(name, most=most)
        if hashlib.sha256(data).hexdigest() != self._sums[name]:
            raise StoreError(
                f"{self.folder / name} is not what it was when the export was made: export again"
            )
        return data

    def rows(self, table: Table) -> list[Row]:
        """Read the rows of a table, each with the columns of today, as the store would hold them.

        In the place of bytes are the names of their files. A table that is newer than the export has none.
        """
        name = f"{TABLES}/{table.name}.jsonl"
        return [self._check(table, line) for line in self.lines(name)] if name in self._sums else []

    def lines(self, name: str) -> list[Row]:
        """Read a file of JSON lines."""
        return [_parse(line, name) for line in self.read(name).splitlines()]

    def picture(self, name: str | None) -> bytes:
        """Read a picture as the store keeps it; nothing where there is none."""
        return b"" if name is None else uncolour(self.read(name))

    def _check(self, table: Table, line: Row) -> Row:
        unknown = line.keys() - {column.name for column in table.c}
        if unknown:
            raise StoreError(
                f"{table.name} of {self.folder} has {sorted(unknown)[0]!r}, which this Sonoloop does not "
                "know: update with pip install -U napari-sonoloop"
            )
        row: Row = {}
        for column in table.c:
            value = line.get(column.name)
            if not _fits(column, value):
                raise StoreError(
                    f"{table.name} of {self.folder} has a line whose {column.name} is not what it should be "
                    f"({str(value)[:40]!r}): export again"
                )
            row[column.name] = b"" if isinstance(column.type, LargeBinary) and value is None else value
        for column_name, template in PICTURES.items():
            of, _, name = column_name.partition(".")
            if of == table.name and row[name] not in (b"", template.format(id=row["id"])):
                raise StoreError(f"{table.name} of {self.folder} names a picture that is another row's")
        return row

    def _read(self, name: str, *, most: int) -> bytes:
        path = self.folder / name
        try:
            if path.is_symlink():
                raise OSError(0, "it is a link")
            return read_regular(path, most=most)
        except OSError as error:
            raise StoreError(f"{path} cannot be read ({error.strerror}): copy the export again") from error

    def _read_sums(self, sums: bytes) -> Iterator[tuple[str, str]]:
        for line in sums.decode(errors="replace").splitlines():
            found = _SUM.fullmatch(line)
            if found is None or not _is_below(found[2]):
                raise StoreError(f"{self.folder / SUMS} has a line that names no file of the export")
            yield found[2], found[1]


def check_export(folder: Path, *, tell: Tell = tell_nobody) -> tuple[str, ...]:
    """Check every file of an export against its list, and say what is wrong."""
    export = Export(folder)
    problems = []
    for done, name in enumerate(export.files):
        tell("Checking", done, len(export.files))
        try:
            export.read(name)
        except StoreError as error:
            problems.append(str(error))
    return tuple(problems)


def merge_export(
    database: Database,
    folder: Path,
    *,
    key: Path | None = None,
    tell: Tell = tell_nobody,
) -> Merged:
    """Add what an export holds and a store lacks, all of it or nothing.

    A person's last correction of an image becomes that of the export where the export builds on the store's;
    where both went on, the store's stays, and the other is kept beside it. What was withdrawn on either side
    is erased. Drafts go to those of this machine, where there is none of that frame and person yet.

    Parameters
    ----------
    database : Database
        The store, empty or not.
    folder : pathlib.Path
        What `sonoloop.store.export.export_store` wrote.
    key : pathlib.Path, optional
        The key of the store that was exported, for one that has no images yet: patients are known again.
    tell : callable
        Told how far it is; an exception of its stops it, and nothing was added.

    Raises
    ------
    StoreError
        If the export is not whole, is damaged or of a newer version, or the key is another store's.
    """
    export = Export(folder)
    secret = None if key is None else _read_key(key, export)
    tables = {table.name: export.rows(table) for table in exported_tables()}
    _check_content(export, tables, tell)
    drafts = [_read_draft(export, line) for line in export.lines(DRAFTS)] if DRAFTS in export.files else []
    with database.writing() as connection:
        merging = _Merging(connection, export, tables, tell)
        same_store = merging.agree_on_secret(secret)
        merging.add_all()
        withdrawn = complete_withdrawals(connection) if merging.gone else {}
    if withdrawn:
        forget_withdrawn(database.url, withdrawn, withdrawn.values())
    place = database.url.render_as_string()
    kept = sum(_keep(draft, place) for draft in drafts if draft.pixels_hash not in merging.gone)
    return Merged(
        added=dict(merging.added),
        drafts=kept,
        heads_moved=merging.heads_moved,
        heads_kept=merging.heads_kept,
        promotions_left_out=merging.promotions_left_out,
        withdrawn=tuple(withdrawn),
        same_store=same_store,
    )


class _Merging:
    """A merge in its transaction."""

    def __init__(
        self, connection: Connection, export: Export, tables: Mapping[str, list[Row]], tell: Tell
    ) -> None:
        self._connection = connection
        self._export = export
        self._tables = tables
        self._tell = tell
        # of tables that number their rows: the numbers of the export's rows here
        self._numbers: dict[str, dict[int, int]] = {}
        self._names: dict[str, str] = {}
        self.gone = _gone_pixels(connection, tables)
        self._pixels = {row["id"]: row["pixels_hash"] for row in tables[FRAMES.name]}
        self.added: Counter[str] = Counter()
        self.heads_moved = self.heads_kept = self.promotions_left_out = 0

    def agree_on_secret(self, secret: str | None) -> bool:
        """Take the exported store's secret where this one has none of use yet; tell whether they are one."""
        own = self._connection.scalar(select(SETTINGS.c.value).where(SETTINGS.c.key == SECRET))
        if secret is not None and own != secret:
            if own is not None and self._connection.scalar(select(func.count()).select_from(MEMBERS)):
                raise StoreError(
                    "the key is another store's, and this store has images already: leave out --key, or "
                    "begin with an empty store"
                )
            if own is None:
                self._connection.execute(insert(SETTINGS).values(key=SECRET, value=secret))
            else:
                changed = update(SETTINGS).where(SETTINGS.c.key == SECRET).values(value=secret)
                self._connection.execute(changed)
        return name_store(secret_in(self._connection)) == self._export.store

    def add_all(self) -> None:
        hold_sketches(self._connection)
        total = sum(map(len, self._tables.values()))
        done = 0
        for table in exported_tables():
            hold(self._connection, table)
            rows = [self._translate(table, row) for row in self._tables[table.name]]
            match table.name:
                case FRAMES.name:
                    self._check_sizes(rows)
                    self._add_missing(table, rows)
                case HEADS.name:
                    self._move_heads(rows)
                case PROMOTIONS.name:
                    self._add_missing(table, self._promotions_to_add(rows))
                case MEMBERS.name:
                    self._add_missing(table, self._place(rows))
                case SETTINGS.name:
                    self._add_missing(table, [row for row in rows if row["key"] in SETTING_NAMES])
                case SNAPSHOTS.name:
                    self._add_missing(table, self._name_snapshots(rows))
                case _:
                    self._add_missing(table, rows)
            done += len(rows)
            self._tell("Adding", done, total)
            crash_here("merge-half-written")
        # a setting that the two have between them may be none
        settings_in(self._connection)
        if self.added[MEMBERS.name]:
            note_roles(self._connection)

    def _check_sizes(self, rows: Sequence[Row]) -> None:
        """Refuse masks on another grid than the one on which the store knows an image."""
        query = select(FRAMES.c.id, FRAMES.c.height, FRAMES.c.width)
        own = {found.id: (found.height, found.width) for found in self._connection.execute(query)}
        for row in rows:
            if own.get(row["id"], (row["height"], row["width"])) != (row["height"], row["width"]):
                raise StoreError(
                    f"image {row['id'][:_DIGITS]} has another size in the export than in the store"
                )

    def _translate(self, table: Table, row: Row) -> Row:
        """Give a row with the numbers and names that what it belongs to has here."""
        for column in table.c:
            for key in column.foreign_keys:
                of = key.column.table.name
                if of in self._numbers and key.column is _serial(key.column.table):
                    value = row[column.name]
                    if value is not None and value not in self._numbers[of]:
                        raise StoreError(f"{table.name} of the export names {of} {value}, which it has not")
                    row[column.name] = None if value is None else self._numbers[of][value]
                elif key.column is SNAPSHOTS.c.name:
                    row[column.name] = self._names.get(row[column.name], row[column.name])
        return row

    def _add_missing(self, table: Table, rows: Sequence[Row]) -> None:
        serial = _serial(table)
        names = [column.name for column in table.c if column.name in _key_of(table)]
        columns = [table.c[name] for name in names]
        numbers = [] if serial is None else [serial]
        there: dict[tuple[Any, ...], list[int]] = {}
        for found in self._connection.execute(select(*columns, *numbers).order_by(*numbers)):
            there.setdefault(tuple(found[: len(names)]), []).append(found[-1])
        keeps_numbers = serial is not None and not there
        if serial is not None:
            self._numbers[table.name] = {}
        for row in rows:
            key = tuple(row[name] for name in names)
            if there.get(key):
                if serial is not None:
                    # of several that say the same, one each
                    self._numbers[table.name][row[serial.name]] = there[key].pop(0)
                continue
            values = self._read_pictures(table, row)
            if serial is None:
                self._connection.execute(insert(table).values(values))
                there[key] = [0]
            else:
                if not keeps_numbers:
                    del values[serial.name]
                added = insert(table).values(values).returning(serial)
                self._numbers[table.name][row[serial.name]] = self._connection.scalars(added).one()
            self.added[table.name] += 1
            if self.added[table.name] % 64 == 0:
                crash_here("merge-half-written")
        if serial is not None and keeps_numbers and rows and self._connection.dialect.name == "postgresql":
            last = max(self._numbers[table.name].values())
            sequence = text("SELECT setval(pg_get_serial_sequence(:of, :name), :last)")
            self._connection.execute(sequence, {"of": table.name, "name": serial.name, "last": last})

    def _read_pictures(self, table: Table, row: Row) -> Row:
        gone = self._pixels.get(str(row.get("frame_id"))) in self.gone
        values = dict(row) if gone else _pictured(self._export, table, row)
        for erased, empty in ERASED if gone else ():
            if erased is table:
                values.update(empty)
        return values

    def _name_snapshots(self, rows: Sequence[Row]) -> list[Row]:
        """Give a snapshot another name where the store has another one of its name."""
        known = {row.name: row.sha256 for row in self._connection.execute(select(SNAPSHOTS))}
        for row in rows:
            name, sha256 = row["name"], row["sha256"]
            if known.get(name, sha256) != sha256:
                row["name"] = self._names[name] = f"{name[: 63 - _DIGITS]}-{sha256[:_DIGITS]}"
        return list(rows)

    def _place(self, rows: Sequence[Row]) -> list[Row]:
        """Have images join the groups that their patients, or the same pixels, have here.

        An image that would belong to both sides takes no part.
        """
        query = (
            select(
                MEMBERS.c.group_id, MEMBERS.c.patient, MEMBERS.c.bridges, FRAMES.c.pixels_hash, GROUPS.c.role
            )
            .join(FRAMES, FRAMES.c.id == MEMBERS.c.frame_id)
            .join(GROUPS, GROUPS.c.id == MEMBERS.c.group_id)
        )
        alike: dict[str, list[Any]] = {}
        for found in self._connection.execute(query):
            alike.setdefault(f"pixels {found.pixels_hash}", []).append(found)
            if found.patient is not None:
                alike.setdefault(f"patient {found.patient}", []).append(found)
        roles = {found.id: found.role for found in self._connection.execute(select(GROUPS))}
        for row in rows:
            twins = alike.get(f"pixels {self._pixels.get(row['frame_id'])}", [])
            theirs = [*twins, *alike.get(f"patient {row['patient']}", [])]
            if theirs:
                row["group_id"] = theirs[0].group_id
                crosses = len({found.role for found in theirs}) > 1 or any(found.bridges for found in twins)
                row["bridges"] = row["bridges"] or crosses
            elif row["group_id"] not in roles:
                raise StoreError(f"image {row['frame_id'][:_DIGITS]} is in a group that the export has not")
        return list(rows)

    def _promotions_to_add(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Give the promotions where the store's own are their beginning; else another model came into use."""
        names = [column.name for column in PROMOTIONS.c if column is not PROMOTIONS.c.number]
        query = select(*(PROMOTIONS.c[name] for name in names)).order_by(PROMOTIONS.c.number)
        own = [tuple(found) for found in self._connection.execute(query)]
        given = [tuple(row[name] for name in names) for row in rows]
        locked = settings_in(self._connection).locked_model is not None
        if given[: len(own)] == own and (not own or not locked or len(given) == len(own)):
            return rows
        self.promotions_left_out = sum((Counter(given) - Counter(own)).values())
        return []

    def _move_heads(self, rows: Sequence[Row]) -> None:
        """Make a person's last correction the export's, where the export's builds on the store's."""
        heads = self._connection.execute(select(HEADS))
        own = {(found.frame_id, found.annotator): found.revision_id for found in heads}
        every = self._connection.execute(select(REVISIONS.c.id, REVISIONS.c.parent))
        parents = {found.id: found.parent for found in every}
        for row in rows:
            key, given = (row["frame_id"], row["annotator"]), row["revision_id"]
            there = own.get(key)
            if there is None:
                add_if_new(self._connection, HEADS, row)
                self.added[HEADS.name] += 1
            elif there in _history(given, parents):
                if there != given:
                    at = (HEADS.c.frame_id == key[0], HEADS.c.annotator == key[1])
                    self._connection.execute(update(HEADS).where(*at).values(revision_id=given))
                    self.heads_moved += 1
            elif given not in _history(there, parents):
                self.heads_kept += 1


def _history(revision: str, parents: Mapping[str, str | None]) -> Iterator[str]:
    at: str | None = revision
    while at is not None:
        yield at
        at = parents.get(at)


def _gone_pixels(connection: Connection, tables: Mapping[str, list[Row]]) -> set[str]:
    """Name the pixels of frames that were withdrawn here or there."""
    here = select(FRAMES.c.pixels_hash).join(TOMBSTONES, TOMBSTONES.c.frame_id == FRAMES.c.id)
    pixels = {row["id"]: row["pixels_hash"] for row in tables.get(FRAMES.name, [])}
    there = {pixels.get(row["frame_id"], "") for row in tables.get(TOMBSTONES.name, [])}
    return {*connection.scalars(here), *there}


def _check_content(export: Export, tables: Mapping[str, list[Row]], tell: Tell) -> None:
    """Refuse an export whose masks are not what was accepted, or whose rows do not add up."""
    frames = {row["id"]: row for row in tables[FRAMES.name]}
    for row in frames.values():
        if not (_SHA256.fullmatch(row["id"]) and _SHA256.fullmatch(row["pixels_hash"])):
            raise StoreError(f"an image of {export.folder} has no id as Sonoloop gives them: export again")
    predictions = {row["id"]: row for row in tables[PREDICTIONS.name]}
    gone = {row["frame_id"] for row in tables[TOMBSTONES.name]}
    revisions = tables[REVISIONS.name]
    seen: set[str] = set()
    total = len(predictions) + len(revisions)
    for done, row in enumerate([*predictions.values(), *revisions]):
        tell("Checking", done, total)
        is_revision = "parent" in row
        kind = "revision" if is_revision else "prediction"
        if not (_REVISION if is_revision else _SHA256).fullmatch(row["id"]):
            raise StoreError(f"a {kind} of {export.folder} has no id as Sonoloop gives them: export again")
        frame = frames.get(row["frame_id"])
        if frame is None:
            raise StoreError(f"{kind} {row['id']} is of an image that the export has not: export again")
        if is_revision and row["parent"] is not None and row["parent"] not in seen:
            raise StoreError(f"{kind} {row['id']} follows one that the export has not: export again")
        seen.add(row["id"])
        if row["frame_id"] in gone:
            continue
        if not is_revision:
            if hash_prediction(read_prediction(_pictured(export, PREDICTIONS, row))) != row["id"]:
                raise StoreError(f"prediction {row['id']} is not what was exported: export again")
            continue
        started_from = predictions.get(row["prediction_id"])
        if started_from is None and row["prediction_id"] is not None:
            raise StoreError(f"revision {row['id']} names a prediction that the export has not: export again")
        shown = None if started_from is None else _pictured(export, PREDICTIONS, started_from)
        correction = read_revision(join_rows(_pictured(export, REVISIONS, row), frame, shown)).correction
        if (correction.mask_decision, correction.class_decision) != (
            row["mask_decision"],
            row["class_decision"],
        ):
            raise StoreError(f"revision {row['id']} has decisions that do not follow from it: export again")


def _pictured(export: Export, table: Table, row: Row) -> Row:
    """Give a row with the bytes of its pictures."""
    pictures = {name for name in row if f"{table.name}.{name}" in PICTURES}
    return {**row, **{name: export.picture(row[name] or None) for name in pictures}}


def _read_draft(export: Export, line: Row) -> Draft:
    try:
        return Draft(
            frame_id=str(line["frame_id"]),
            pixels_hash=str(line["pixels_hash"]),
            mask=decode_png(export.picture(str(line["mask"]))),
            annotator=check_who(str(line["annotator"])),
            label=line["label"],
            lesions={int(number): name for number, name in line["lesions"].items()},
            model=None if line["model"] is None else str(line["model"]),
            seen=bool(line["seen"]),
            parent=None if line["parent"] is None else str(line["parent"]),
            index=int(line["index"]),
            written=datetime.fromisoformat(str(line["written"])),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(
            f"a draft of {export.folder} is not what Sonoloop writes ({error}): export again"
        ) from error


def _keep(draft: Draft, store: str) -> bool:
    folder = DraftFolder(draft_folder(store, draft.annotator), store=store)
    if draft.frame_id in folder.ids():
        return False
    folder.write(draft)
    return True


def _serial(table: Table) -> Column[Any] | None:
    """Give the column by which a store numbers the rows of a table, if it does."""
    found = table.autoincrement_column
    return found if found is not None and not found.foreign_keys else None


def _key_of(table: Table) -> set[str]:
    """Name the columns by which a row is known in another store."""
    serial = _serial(table)
    if serial is None:
        return {column.name for column in table.primary_key}
    unique = [
        {column.name for column in constraint.columns}
        for constraint in table.constraints
        if isinstance(constraint, UniqueConstraint)
    ]
    # what a withdrawal erased on one side alone is the same row
    erased = {name for erasable, values in ERASED if erasable is table for name in values}
    return min(unique, key=len, default={column.name for column in table.c} - {serial.name} - erased)


def _fits(column: Column[Any], value: object) -> bool:
    if value is None:
        # what is left out, and what an older version had not
        return bool(column.nullable) or isinstance(column.type, LargeBinary)
    match column.type:
        case Boolean():
            fits = isinstance(value, bool)
        case Integer():
            fits = isinstance(value, int) and not isinstance(value, bool) and -_WHOLE <= value < _WHOLE
        case Double():
            fits = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        case LargeBinary():
            fits = isinstance(value, str)
        case String(length=most):
            fits = isinstance(value, str) and "\0" not in value and len(value) <= (most or len(value))
            fits = fits and (column.name != "created" or _is_time(str(value)))
        case _:
            fits = False
    return fits


def _is_time(value: str) -> bool:
    try:
        return datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


def _is_below(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(path.name) and not path.is_absolute() and ".." not in path.parts and not Path(name).anchor


def _parse(line: bytes, name: str) -> Row:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{name} of the export has a line that is no JSON: export again") from error
    if not isinstance(found, dict):
        raise StoreError(f"{name} of the export has a line that is no JSON object: export again")
    return found


def _read_key(path: Path, export: Export) -> str:
    """Read a key file as the store keeps a secret, and make sure that it is the export's."""
    try:
        about = _parse(read_regular(path, most=1 << 16), path.name)
        secret = bytes.fromhex(about["secret"])
        is_key = about.get("made_by") == MADE_BY and about.get("format") == KEY_FORMAT
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror}): give the key file") from error
    except (StoreError, KeyError, TypeError, ValueError):
        is_key = False
    if not is_key:
        raise StoreError(f"{path} is no key: give the file that `{MADE_BY} --key` wrote")
    if name_store(secret) != export.store:
        raise StoreError(f"{path} is the key of another store than the one that was exported")
    return json.dumps(secret.hex())
