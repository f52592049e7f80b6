"""Names of files do nothing in a terminal and in a spreadsheet, and come back from a table as they were."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonoloop.plain_text import from_cell, shown, to_cell

CASES = {
    "plain.png": "plain.png",
    "größe 3 (1).png": "größe 3 (1).png",
    "=1+2.png": "'=1+2.png",
    "+a.png": "'+a.png",
    "-a.png": "'-a.png",
    "@a.png": "'@a.png",
    " =a.png": "' =a.png",
    "\uff1da.png": "'\uff1da.png",
    "'=a.png": "''=a.png",
    "'a.png": "'a.png",
    "\t=a.png": "\\x09=a.png",
    "a\rb\nc.png": "a\\x0db\\x0ac.png",
    "a\x1b[31mb.png": "a\\x1b[31mb.png",
    "a\u202egnp.exe": "a\\u202egnp.exe",
    "a\u2066b\u2069.png": "a\\u2066b\\u2069.png",
    "a\x9b31mb.png": "a\\x9b31mb.png",
    "a\u2028b.png": "a\\u2028b.png",
    "\udcff.png": "\\udcff.png",
    "\\udcff.png": "\\x5cudcff.png",
    "a\\b.png": "a\\b.png",
    "\N{TAG LATIN SMALL LETTER A}.png": "\\U000e0061.png",
    "می\N{ZERO WIDTH NON-JOINER}شود.png": "می\N{ZERO WIDTH NON-JOINER}شود.png",
}


@pytest.mark.parametrize(("text", "cell"), CASES.items(), ids=map(ascii, CASES))
def test_a_cell_is_neither_computed_nor_obeyed_and_comes_back(text, cell):
    assert to_cell(text) == cell
    assert from_cell(cell) == text


@given(st.text(st.sampled_from("=+-@'\\xu0a9 \t\r\x1b\u202e\udcff") | st.characters()))
def test_whatever_is_in_a_cell_comes_back(text):
    assert from_cell(to_cell(text)) == text


@given(st.text())
def test_what_is_shown_stays_as_it_is_when_shown_again(text):
    assert shown(shown(text)) == shown(text)
    assert "\x1b" not in shown(text)


def test_a_line_can_be_kept():
    assert shown("a\nb\rc", keep="\n") == "a\nb\\x0dc"
