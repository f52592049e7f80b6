"""Tables of a dataset: CSV, or the first sheet of an Excel file."""

from __future__ import annotations

import csv
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from sonoloop.errors import TrainingError
from sonoloop.values import CLASSES, ClassName

MAX_BYTES = 64_000_000

# what a damaged file can raise: the file system, csv, zipfile, XML and openpyxl
_BROKEN = (
    OSError,
    csv.Error,
    BadZipFile,
    zlib.error,
    EOFError,
    RuntimeError,
    SyntaxError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
)


def read_table(path: Path, columns: Sequence[str] = ()) -> list[dict[str, str]]:
    """Read a table; its column names come back in lower case, empty rows are left out.

    Parameters
    ----------
    path : pathlib.Path
        ``.csv`` with commas or semicolons, UTF-8; or ``.xlsx``.
    columns : sequence of str
        Columns it must have, in lower case.

    Raises
    ------
    TrainingError
        If it cannot be read, has no rows or lacks a column.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise TrainingError(f"{path} is larger than {MAX_BYTES // 1_000_000} MB; is it a table?")
        cells = _read_excel(path) if path.suffix.lower() == ".xlsx" else _read_csv(path)
    except _BROKEN as error:
        raise TrainingError(f"{path} cannot be read ({error}); save it again as CSV in UTF-8") from error
    header = [cell.strip().lower() for cell in cells[0]] if cells else []
    rows = [
        {name: cell.strip() for name, cell in zip(header, row, strict=False) if name}
        for row in cells[1:]
        if any(cell.strip() for cell in row)
    ]
    if not rows:
        raise TrainingError(f"{path} has no rows")
    require_columns(path, header, columns)
    # a short row says nothing of its last columns
    return [{name: row.get(name, "") for name in header if name} for row in rows]


def require_columns(path: Path, header: Iterable[str], columns: Sequence[str]) -> None:
    """Raise a `TrainingError` that names the columns a table lacks."""
    found = [name for name in header if name]
    missing = [name for name in columns if name not in found]
    if missing:
        raise TrainingError(f"{path} has no column {', '.join(missing)}; it has {', '.join(found)}")


def parse_class(text: str, path: Path, name: str) -> ClassName:
    """Turn a table's word into a class, in any case.

    Raises
    ------
    TrainingError
        If it is none; the message names table and row.
    """
    word = text.strip().lower()
    if word not in CLASSES:
        raise TrainingError(f"{path.name} calls {name} {text!r}; a class is one of {', '.join(CLASSES)}")
    return CLASSES[CLASSES.index(word)]


def _read_csv(path: Path) -> list[list[str]]:
    # utf-8-sig: Excel begins its files with a byte order mark
    with path.open(newline="", encoding="utf-8-sig") as file:
        first = file.readline()
        file.seek(0)
        return list(csv.reader(file, delimiter=";" if first.count(";") > first.count(",") else ","))


def _read_excel(path: Path) -> list[list[str]]:
    from openpyxl import load_workbook  # noqa: PLC0415 - only Dataset B needs it

    with ZipFile(path) as parts:
        if sum(part.file_size for part in parts.infolist()) > MAX_BYTES:
            raise TrainingError(f"{path} is larger than {MAX_BYTES // 1_000_000} MB inside; is it a table?")
    workbook = load_workbook(path, read_only=True, data_only=True)
    try:
        rows = workbook.worksheets[0].iter_rows(values_only=True)
        return [["" if cell is None else str(cell) for cell in row] for row in rows]
    finally:
        workbook.close()
