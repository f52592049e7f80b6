"""Whether evaluated images, or copies of them, were among those that trained the model."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Literal

from sonoloop.jobs.events import Progress
from sonoloop_training.evaluation.cases_ import Case
from sonoloop_training.evaluation.split_list import Listed

Kind = Literal["same image", "near copy", "same patient or group"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """An evaluated image, the training image that gives it away, and how."""

    image: str
    trained: str
    kind: Kind


def identify(case: Case) -> Listed:
    """Describe a case as a split lists it."""
    # imported late: it reads images by itself, and only this needs it
    from sonoloop_training.datasets.groups import fingerprint  # noqa: PLC0415

    return Listed(
        name=f"{case.dataset}/{case.name}",
        group=case.group,
        id=case.frame.id,
        pixels_hash=case.frame.pixels_hash,
        fingerprint=fingerprint(case.frame.pixels),
    )


def find_leaks_in_steps(
    evaluated: Sequence[Listed], trained: Sequence[Listed], *, stage: str, every: int
) -> Generator[Progress, None, list[Leak]]:
    """Do what `find_leaks` does, and tell before each so many images how far it is."""
    leaks: list[Leak] = []
    for first in range(0, len(evaluated), every):
        yield Progress(stage=stage, done=first, total=len(evaluated))
        leaks += find_leaks(evaluated[first : first + every], trained)
    return leaks


def find_leaks(
    evaluated: Sequence[Listed],
    trained: Sequence[Listed],
    *,
    near: Callable[[str, str], bool] | None = None,
) -> list[Leak]:
    """Find the evaluated images that the training saw, one leak an image at most.

    Parameters
    ----------
    evaluated, trained : sequence of Listed
        Who judges, and who trained.
    near : callable, optional
        Whether two fingerprints are those of near copies; those of `sonoloop_training.datasets.groups`.

    Returns
    -------
    list of Leak
        In the order of `evaluated`. An image of the same bytes or pixels is the same, or of the same name
        where the split lists names alone; then near copies are told, then images of one group.
    """
    # where hashes are listed, a name says nothing: two folders may hold other images of one name
    by_name = {one.name: one.name for one in trained if not (one.id or one.pixels_hash)}
    by_hash = {key: one.name for one in trained for key in (one.id, one.pixels_hash) if key}
    by_group: dict[str, str] = {}
    for one in trained:
        if one.group:
            by_group.setdefault(one.group, one.name)
    prints = [(one.fingerprint, one.name) for one in trained if one.fingerprint]
    close = near or _near_copies if prints else None
    leaks = []
    for image in evaluated:
        same = by_hash.get(image.id) or by_hash.get(image.pixels_hash) or by_name.get(image.name)
        kind: Kind = "same image"
        if same is None and close is not None and image.fingerprint:
            same = next((name for other, name in prints if close(image.fingerprint, other)), None)
            kind = "near copy"
        if same is None:
            same = by_group.get(image.group)
            kind = "same patient or group"
        if same is not None:
            leaks.append(Leak(image=image.name, trained=same, kind=kind))
    return leaks


def _near_copies(one: str, other: str) -> bool:
    from sonoloop_training.datasets.groups import NEAR, distance  # noqa: PLC0415

    return distance(one, other) <= NEAR
