"""A dataset as a whole: its images inspected, its near-duplicates grouped."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

from sonoloop.jobs.events import Progress
from sonoloop_training.checking.inspect_sample import Inspection, inspect_sample
from sonoloop_training.checking.sources import Source
from sonoloop_training.datasets.groups import Pair, group_pairs, match_sketches
from sonoloop_training.datasets.groups_ import read_groups

_EVERY = 20


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Survey:
    """What is known of a dataset.

    Parameters
    ----------
    source : Source
        Where it came from.
    inspections : tuple of Inspection
        One a sample, in order.
    pairs : tuple of Pair
        Near-duplicates, by their places in `inspections`.
    groups : tuple of tuple of int
        Near-duplicates joined, by their places.
    split_groups : tuple of str
        What each sample would be split by, were it to train: its patient or group as the dataset says, or its
        group in the list beside the images; empty where near-duplicates would be computed.
    """

    source: Source
    inspections: tuple[Inspection, ...]
    pairs: tuple[Pair, ...]
    groups: tuple[tuple[int, ...], ...]
    split_groups: tuple[str, ...]

    @property
    def readable(self) -> tuple[Inspection, ...]:
        """The samples whose image could be read."""
        return tuple(item for item in self.inspections if item.shape is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedPair:
    """Two near-duplicates in two datasets.

    Parameters
    ----------
    one, other : tuple of int
        The survey's place, and the image's in its `inspections`; the lower first.
    mirrored : bool
        Whether one is the mirror image of the other.
    """

    one: tuple[int, int]
    other: tuple[int, int]
    mirrored: bool


def find_shared(surveys: Sequence[Survey]) -> Generator[Progress, None, list[SharedPair]]:
    """Find the near-duplicates that lie in two datasets.

    Yields
    ------
    Progress
        While pairs are compared; nothing for a single dataset.

    Returns
    -------
    list of SharedPair
        In order of places.
    """
    if len(surveys) < 2:
        return []
    places = [
        (home, place, item.sketch)
        for home, survey in enumerate(surveys)
        for place, item in enumerate(survey.inspections)
        if item.sketch
    ]
    pairs = yield from match_sketches([item for _, _, item in places], [home for home, _, _ in places])
    return [
        SharedPair(one=places[pair.one][:2], other=places[pair.other][:2], mirrored=pair.mirrored)
        for pair in pairs
    ]


def survey_source(source: Source) -> Generator[Progress, None, Survey]:
    """Inspect every sample of a dataset and find its near-duplicates.

    Yields
    ------
    Progress
        Every twenty images, and while pairs are compared.

    Returns
    -------
    Survey
        What was found.

    Raises
    ------
    TrainingError
        If the list of near-duplicates beside the images has another form than it should.
    """
    inspections = []
    total = len(source.samples)
    for done, sample in enumerate(source.samples):
        if done % _EVERY == 0:
            yield Progress(stage=f"Reading {source.dataset}", done=done, total=total)
        inspections.append(inspect_sample(sample))
    places = [place for place, item in enumerate(inspections) if item.sketch]
    sketches = [item.sketch for item in inspections if item.sketch]
    found = yield from match_sketches(sketches)
    groups = group_pairs(found, sketches)
    pairs = tuple(
        Pair(
            one=places[pair.one],
            other=places[pair.other],
            correlation=pair.correlation,
            mirrored=pair.mirrored,
        )
        for pair in found
    )
    return Survey(
        source=source,
        inspections=tuple(inspections),
        pairs=pairs,
        groups=tuple(tuple(places[member] for member in members) for members in groups),
        split_groups=_split_groups(source),
    )


def _split_groups(source: Source) -> tuple[str, ...]:
    if source.grouped:
        return tuple(sample.group for sample in source.samples)
    if source.listed is None:
        return ()
    listed = read_groups(source.listed).group
    return tuple(listed.get(sample.name.casefold(), sample.name) for sample in source.samples)
