"""Messages for the panels: in the words of their own controls, and as long as there is room for."""

from __future__ import annotations

import re
import textwrap

_BASE_DATA = "name their folder under Base data in the preferences"
# from the longest on: what is said of an option alone comes last
_WORDS = tuple(
    (re.compile(told), said)
    for told, said in (
        (r"or go on without (?:them|it) with --skip-missing", "or press Go on without them"),
        (r"go on without (?:them|it) with --skip-missing", "press Go on without them"),
        (
            r"What is done is kept; go on with: sonoloop finetune --job .+",
            "What is done is kept: press Go on",
        ),
        (r"--base-data shows them again", f"{_BASE_DATA} to show them again"),
        (
            r"give the data that it was trained on with --base-data",
            "name the folder of the data that it was trained on under Base data in the preferences",
        ),
        (
            r"say where (?:they|it) (?:lie|is)(?: now)? with: sonoloop store relink FOLDER",
            "open the images again from where they lie now",
        ),
        (r",? ?as with: sonoloop models unlock --why REASON", ": press Unlock in Models"),
        (r"bring in another one with: sonoloop models import FILE", "press Import in Models for another one"),
        (
            r"import it from a zip file or a folder, as in: sonoloop models import FILE",
            "press Import in Models",
        ),
        # the panel shows how it was judged, and has no second look at a test set
        (r"; to judge it again: sonoloop gate .+", ""),
        (r", without --job\b", ""),
        (r"or give another --job to begin anew", "or press Fine-tune to begin anew"),
        (r"\bwith another --store\b", "with another store"),
        (r"give it with --store\b", "name it under Correction store in the preferences"),
        (r"check --store\b", "check Correction store in the preferences"),
        (r"use --engine torch(?: for it)?(?=[,;:.]|$)", "choose the engine torch in the preferences"),
        (r"use --device auto\b", "choose the device auto in the preferences"),
        (r"train on the CPU with --device cpu", "choose the device cpu in the preferences"),
        (r"(another folder) with --out\b", r"\1 under Write to"),
        (r"another --base-data\b", "another folder under Base data"),
        (r"another --snapshot\b", "another snapshot"),
        (r"another --max-minutes\b", "another budget"),
        (r"another --device\b", "another device"),
        (r"another (one|engine) with --engine\b", r"another \1 in the preferences"),
    )
)


def in_panel_words(text: str) -> str:
    """Name the panel's controls and the preferences instead of the command line's options."""
    for told, said in _WORDS:
        text = told.sub(said, text)
    return text


_TOAST = 90
_LONG_WORD = re.compile(r"\S{49,}")


def shorten(name: str, most: int = 28) -> str:
    """Shorten a name in its middle, so that a line with it stays one line."""
    if len(name) <= most:
        return name
    half = (most - 1) // 2
    return f"{name[:half]}\N{HORIZONTAL ELLIPSIS}{name[-half:]}"


def shorten_words(text: str) -> str:
    """Shorten the long words of a text, such as names of files, each in its middle."""
    return _LONG_WORD.sub(lambda word: shorten(word[0], 48), text)


def fit_toast(text: str) -> str:
    """Cut a text to what a notification shows whole: its first clause, where that is short enough."""
    if len(text) <= _TOAST and "\n" not in text:
        return text
    text = " ".join(shorten_words(text).split())
    if len(text) <= _TOAST:
        return text
    clause = text.partition(": ")[0]
    if len(clause) < len(text) and len(clause) < _TOAST:
        return f"{clause}\N{HORIZONTAL ELLIPSIS}"
    return textwrap.shorten(text, _TOAST, placeholder="\N{HORIZONTAL ELLIPSIS}")
