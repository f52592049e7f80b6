"""Text of strangers, such as names of files, made plain: it does nothing in a terminal or a table."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

# control and format characters, halves of UTF-16 (a byte that is no text), separators of lines and paragraphs
_ACTS = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# Persian and Indian names are spelled with these two
_JOINS = "\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}"
_CODE = r"x[0-9a-f]{2}|u[0-9a-f]{4}|U00(?:0[0-9a-f]|10)[0-9a-f]{4}"
_ESCAPED = re.compile(rf"\\({_CODE})")
# a backslash of the text's own that would be taken for an escape
_AMBIGUOUS = re.compile(rf"\\(?={_CODE})")
# a spreadsheet computes such a cell; the wide forms are what a Japanese keyboard gives
_FORMULA = re.compile(r"'*\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")


def shown(text: str, *, keep: str = "") -> str:
    r"""Return text as it can be shown on one line: characters that act become ``\x1b`` or ``\u202e``."""
    if text.isprintable():
        return text
    return "".join(_escape(c) if _acts(c) and c not in keep else c for c in text)


def to_cell(text: str) -> str:
    """Return text as a CSV cell that no spreadsheet computes and no terminal obeys; `from_cell` undoes it."""
    text = shown(_AMBIGUOUS.sub(r"\\x5c", text))
    return f"'{text}" if _FORMULA.match(text) else text


def to_cells(values: Iterable[object]) -> list[object]:
    """Return a row of a table, its texts as `to_cell` makes them."""
    return [to_cell(value) if isinstance(value, str) else value for value in values]


def from_cell(cell: str) -> str:
    """Return the text of which `to_cell` made a cell."""
    if cell.startswith("'") and _FORMULA.match(cell):
        cell = cell[1:]
    return _ESCAPED.sub(lambda found: chr(int(found[1][1:], 16)), cell)


def _acts(character: str) -> bool:
    return unicodedata.category(character) in _ACTS and character not in _JOINS


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
