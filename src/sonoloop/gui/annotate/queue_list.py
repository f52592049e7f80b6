"""The list of frames that an annotator goes through: what is in it, in which order, and what comes next."""

from __future__ import annotations

import csv
import io
import os
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from sonoloop.errors import NotAnImageError, SonoloopError
from sonoloop.imaging.image_files import find_images, is_image_path, is_mask_path
from sonoloop.regular_files import read_regular
from sonoloop.values import LABELS, Label

Status = Literal["to do", "draft", "accepted", "flagged", "skipped", "excluded"]
Order = Literal["name", "random", "review value"]

STATUSES: tuple[Status, ...] = get_args(Status)
ORDERS: tuple[Order, ...] = get_args(Order)
TABLE = ".csv"

# what is still to be decided on
_LEFT = ("to do", "draft")
_MOST_TABLE_BYTES = 100_000_000
_PATH_COLUMNS = ("path", "image", "file")


@dataclass(slots=True, eq=False)
class QueueEntry:
    """One frame of a queue, and what is known of it so far.

    Parameters
    ----------
    path : pathlib.Path
        The file, absolute.
    index : int
        Its number in the file, from 0.
    name : str
        What to call it before a user.
    patient, group, label : str, optional
        What a table says of it; the class is shown, and decides nothing.
    frame_id : str, optional
        Its id, once the file was looked at.
    stored : str
        What the store says of it: one of `STATUSES`, but "draft".
    reason : str
        Why it was flagged, skipped or excluded.
    is_draft : bool
        Whether something was drawn or chosen on it that is not accepted.
    problem : str
        Why its file could not be read.
    decided : str, optional
        The class that was accepted.
    expected_dice : float, optional
        The model's own, where it is known.
    draw_first : bool, optional
        Whether it is drawn before the prediction is shown; None as long as nobody asked the store.
    """

    path: Path
    index: int = 0
    name: str = ""
    patient: str | None = None
    group: str | None = None
    label: Label | None = None
    frame_id: str | None = None
    stored: Status = "to do"
    reason: str = ""
    is_draft: bool = False
    problem: str = ""
    decided: str | None = None
    expected_dice: float | None = None
    draw_first: bool | None = None

    @property
    def key(self) -> str:
        """What it is called as long as its file lies there."""
        return f"{self.path}#{self.index}"

    @property
    def status(self) -> Status:
        """One of `STATUSES`: what was flagged, skipped or excluded stays so, whatever is drawn on it."""
        return "draft" if self.is_draft and self.stored in ("to do", "accepted") else self.stored

    @property
    def is_left(self) -> bool:
        """Whether it is still to be decided on, and can be."""
        return self.status in _LEFT and not self.problem


@dataclass(frozen=True, slots=True)
class Listed:
    """The frames below some paths, what was left out, and why."""

    entries: tuple[QueueEntry, ...]
    problems: tuple[str, ...] = ()


def list_frames(paths: Iterable[Path]) -> Listed:
    """List the frames of images, folders and tables; no image is opened.

    A file is one entry until its frames are counted; see `QueueList.expand`.

    Raises
    ------
    NotAnImageError
        If there is none.
    ImageMissingError
        If a path leads nowhere.
    SonoloopError
        If a table cannot be read, or names no files.
    """
    paths = [Path(path).absolute() for path in paths]
    entries: dict[Path, QueueEntry] = {}
    problems: list[str] = []
    for path in paths:
        if path.suffix.lower() == TABLE and path.is_file():
            found, told = _read_table(path)
        else:
            searched = find_images([path])
            told = [str(one.error) for one in searched.left_out]
            found = [_entry(image.path) for image in searched.images]
        problems += told
        for entry in found:
            entries.setdefault(entry.path, entry)
    if not entries:
        where = paths[0].name if len(paths) == 1 else "what was given"
        why = f" ({problems[0]})" if problems else ""
        raise NotAnImageError(
            f"{where} holds no PNG, JPEG, TIFF or BMP image{why}; choose another folder or table"
        )
    return Listed(tuple(entries.values()), tuple(problems))


def _entry(path: Path, **known: Any) -> QueueEntry:  # noqa: ANN401 - fields of the entry
    return QueueEntry(path=path, name=path.name, **known)


def _read_table(path: Path) -> tuple[list[QueueEntry], list[str]]:
    """Read a CSV table; a row that is of no use is named, and left out."""
    try:
        text = read_regular(path, most=_MOST_TABLE_BYTES).decode("utf-8-sig")
        # Excel writes semicolons where a comma stands in numbers
        head = text.partition("\n")[0]
        cells = list(
            csv.reader(
                io.StringIO(text, newline=""), delimiter=";" if head.count(";") > head.count(",") else ","
            )
        )
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise SonoloopError(f"{path} cannot be read as a table ({why}); save it as CSV in UTF-8") from error
    header = [cell.strip().lower() for cell in cells[0]] if cells else []
    column = next((name for name in _PATH_COLUMNS if name in header), None)
    if column is None:
        found = ", ".join(filter(None, header)) or "nothing"
        raise SonoloopError(
            f"{path.name} has no column {', '.join(_PATH_COLUMNS)}: one names the files; it has {found}"
        )
    entries, problems = [], []
    for number, row in enumerate(cells[1:], start=2):
        if not any(cell.strip() for cell in row):
            continue
        values = {name: cell.strip() for name, cell in zip(header, row, strict=False) if name}
        try:
            entries.append(_read_row(values, values.get(column, ""), path.parent))
        except ValueError as error:
            problems.append(f"line {number} of {path.name}: {error}")
    return entries, problems


def _read_row(values: Mapping[str, str], place: str, folder: Path) -> QueueEntry:
    if not place:
        raise ValueError("it names no file")
    file = folder / place
    if is_mask_path(file) or not is_image_path(file):
        raise ValueError(f"{file.name} is no image that is read")
    if "\0" in place or not os.path.isfile(file):  # noqa: PTH113 - of many, and it raises for nothing
        raise ValueError(f"there is no file {place}")
    word = values.get("class", "").lower()
    label = next((known for known in LABELS if known == word), None)
    if word and label is None:
        raise ValueError(f"a class is one of {', '.join(LABELS)}, and not {values['class']!r}")
    expected = values.get("expected_dice") or None
    entry = _entry(
        file,
        patient=values.get("patient") or None,
        group=values.get("group") or None,
        label=label,
        expected_dice=None if expected is None else float(expected),
    )
    entry.name = values.get("name") or entry.name
    return entry


class QueueList:
    """The frames of a queue, the filter and order they are gone through in, and the way that was gone.

    Parameters
    ----------
    entries : sequence of QueueEntry
        As `list_frames` gives them.
    seed : int
        Of the random order, and of where frames that judge a model are mixed in.
    """

    def __init__(self, entries: Sequence[QueueEntry], *, seed: int = 0) -> None:
        self._named = list(entries)
        self.seed = seed
        self._order: Order = "name"
        self._ordered: list[QueueEntry] = []
        self._places: dict[QueueEntry, int] = {}
        self._statuses: frozenset[Status] = frozenset(STATUSES)
        self._search: tuple[str, ...] = ()
        self._visits: list[QueueEntry] = []
        self.sort()

    def __len__(self) -> int:
        return len(self._named)

    def __iter__(self) -> Iterator[QueueEntry]:
        """Give all frames in order, whatever the filter."""
        return iter(self._ordered)

    @property
    def order(self) -> Order:
        """In which order they are gone through."""
        return self._order

    @property
    def current(self) -> QueueEntry | None:
        """The frame that was gone to last."""
        return self._visits[-1] if self._visits else None

    @property
    def place(self) -> int | None:
        """Number of the current frame among all, from 1."""
        return None if self.current is None else self._places[self.current] + 1

    def order_by(self, order: Order) -> None:
        """Choose an order."""
        self._order = order
        self.sort()

    def sort(self) -> None:
        """Put the frames in order by what is known of them by now."""
        if self._order == "name":
            self._ordered = list(self._named)
        elif self._order == "random":
            self._ordered = sorted(self._named, key=self._draw)
        else:
            self._ordered = self._by_review_value()
        self._places = {entry: place for place, entry in enumerate(self._ordered)}

    def show(self, statuses: Iterable[Status] = STATUSES, search: str = "") -> None:
        """Choose which frames are shown, and gone through: by status, and by words that all occur."""
        self._statuses = frozenset(statuses)
        self._search = tuple(search.casefold().split())

    def shown(self) -> list[QueueEntry]:
        """List the frames that the filter lets through, in order."""
        return [entry for entry in self._ordered if self._passes(entry)]

    def counts(self) -> Counter[Status]:
        """Count the frames of each status, whatever the filter."""
        return Counter(entry.status for entry in self._named)

    def next(self) -> QueueEntry | None:
        """Find the next frame that is to do, round to the beginning; None where nothing is left.

        Where the filter shows only what was decided on, it is the next one shown.
        """
        here = self.current
        start = -1 if here is None else self._places[here]
        around = self._ordered[start + 1 :] + self._ordered[: max(start, 0)]
        only_left = not self._statuses.isdisjoint(_LEFT)
        return next(
            (entry for entry in around if self._passes(entry) and (entry.is_left or not only_left)), None
        )

    def ahead(self, count: int) -> list[QueueEntry]:
        """List the next frames that `next` would give one after another."""
        here = self.current
        start = -1 if here is None else self._places[here]
        found = []
        for entry in self._ordered[start + 1 :] + self._ordered[: max(start, 0)]:
            if entry.is_left and self._passes(entry):
                found.append(entry)
                if len(found) == count:
                    break
        return found

    def go_to(self, entry: QueueEntry) -> None:
        """Take note that a frame was gone to."""
        if entry is not self.current:
            self._visits.append(entry)

    def undo_visit(self) -> None:
        """Take back that a frame was gone to: it could not be read."""
        if self._visits:
            self._visits.pop()

    def back(self) -> QueueEntry | None:
        """Go back to the frame that was visited before this one; None where there is none."""
        if len(self._visits) < 2:
            return None
        self._visits.pop()
        return self._visits[-1]

    def expand(self, entry: QueueEntry, ids: Sequence[str]) -> None:
        """Take note of the frames that an entry's file holds: each becomes an entry, beside the first."""
        if entry.frame_id is not None or not ids:
            return
        entry.frame_id = ids[0]
        if len(ids) == 1:
            return
        file, place = entry.name, self._named.index(entry)
        entry.name = f"{file} [1]"
        more = [
            QueueEntry(
                path=entry.path,
                index=number,
                name=f"{file} [{number + 1}]",
                patient=entry.patient,
                group=entry.group,
                label=entry.label,
                frame_id=frame_id,
            )
            for number, frame_id in enumerate(ids[1:], start=1)
        ]
        self._named[place + 1 : place + 1] = more
        if self._order == "name":
            self.sort()
            return
        # where the first stands: what is shown now stays where it is
        at = self._places[entry] + 1
        self._ordered[at:at] = more
        self._places = {each: place for place, each in enumerate(self._ordered)}

    def _passes(self, entry: QueueEntry) -> bool:
        if entry.status not in self._statuses:
            return False
        if not self._search:
            return True
        said = (entry.path.parent.name, entry.name, entry.patient, entry.group, entry.label, entry.decided)
        text = " ".join(filter(None, (*said, entry.reason))).casefold()
        return all(word in text for word in self._search)

    def _draw(self, entry: QueueEntry) -> float:
        """Draw a number that stays the same for a frame of a queue, whatever else is in it."""
        return random.Random(f"{self.seed} {entry.name} {entry.key}").random()

    def _by_review_value(self) -> list[QueueEntry]:
        """Low expected Dice first; what judges a model lies anywhere among what the store knows.

        A place must tell nothing of which frames these are: they are mixed in at random, and never by their
        own expected Dice.
        """
        unknown = [entry for entry in self._named if entry.draw_first is None and entry.expected_dice is None]
        rest = [
            entry
            for entry in self._named
            if not entry.draw_first and not (entry.draw_first is None and entry.expected_dice is None)
        ]
        rest.sort(
            key=lambda entry: (
                entry.expected_dice is None,
                0.0 if entry.expected_dice is None else entry.expected_dice,
            )
        )
        apart = [entry for entry in self._named if entry.draw_first]
        places = random.Random(f"{self.seed} review").sample(range(len(rest) + len(apart)), len(apart))
        random.Random(f"{self.seed} apart").shuffle(apart)
        mixed, ordered = dict(zip(places, apart, strict=True)), iter(rest)
        return [
            mixed[place] if place in mixed else next(ordered) for place in range(len(rest) + len(apart))
        ] + unknown
