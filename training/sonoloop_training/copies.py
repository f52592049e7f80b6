"""Copies of images that judge: they and their groups do not train."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence

from sonoloop.errors import TrainingError
from sonoloop.jobs.events import Event, Notice, Progress
from sonoloop_training.datasets import Sample
from sonoloop_training.evaluation.split_list import Listed
from sonoloop_training.fit.preflight import check_parts
from sonoloop_training.fit.recipe_ import Recipe
from sonoloop_training.leaks import Leak, find_leaks_in_steps
from sonoloop_training.membership import Members
from sonoloop_training.splits import Part

_EVERY = 100
_DOES: dict[Part, str] = {"train": "train", "validation": "validate"}


def leave_out_copies(
    recipe: Recipe, parts: Mapping[Part, Sequence[Sample]], members: Members
) -> Generator[Event, None, tuple[dict[Part, list[Sample]], Members]]:
    """Leave out of training whose copies judge, and out of validation whose copies test.

    A split keeps groups apart, and no group spans datasets: where a folder holds another one's images under
    other names, or one patient has two numbers, the same image would be on both sides. The whole group of a
    copy goes, since it shows the same lesion or patient. Copies are found by bytes, pixels and fingerprints;
    one that was cropped hard is not. Where the split leaks on purpose, nothing is left out.

    Parameters
    ----------
    recipe : Recipe
        How it was split, and what is to be learned.
    parts : mapping
        Who is where.
    members : Members
        The same images; see `sonoloop_training.membership.list_members`.

    Yields
    ------
    Event
        `Progress` every hundred images, and a `Notice` for each part that loses some.

    Returns
    -------
    parts, members
        Without them; the test stays as it is.

    Raises
    ------
    TrainingError
        If nothing is left of a part, or what is left teaches nothing; see
        `sonoloop_training.fit.preflight.check_parts`.
    """
    kept, listed = {part: list(samples) for part, samples in parts.items()}, dict(members)
    if recipe.split.method == "leaky":
        return kept, listed
    testing = members["test"]
    judges: dict[Part, list[dict[str, str]]] = {
        "train": [*members["validation"], *testing],
        "validation": testing,
    }
    for part, judging in judges.items():
        copies = yield from _find_copies(members[part], judging)
        if not copies:
            continue
        names = {copy.image for copy in copies}
        groups = {entry["group"] for entry in members[part] if entry["name"] in names}
        kept[part] = [sample for sample in parts[part] if sample.group not in groups]
        listed[part] = [entry for entry in members[part] if entry["group"] not in groups]
        gone = [entry["name"] for entry in members[part] if entry["group"] in groups]
        first = copies[0]
        such = f"such as {first.image} ({first.kind}: {first.trained})"
        if not kept[part]:
            raise TrainingError(
                f"all {len(gone)} images that are to {_DOES[part]} are copies of images that judge, or of "
                f"their groups, {such}; remove one of the two datasets, or change the recipe's split"
            )
        yield Notice(
            message=f"{len(gone)} images do not {_DOES[part]}, since copies of them, or of others of their "
            f"groups, judge, {such}"
        )
    check_parts(kept, heads=recipe.model.heads)
    return kept, listed


def _find_copies(
    members: Sequence[Mapping[str, str]], judging: Sequence[Mapping[str, str]]
) -> Generator[Progress, None, list[Leak]]:
    """Find the members that judge too, one leak each; `trained` names the image that judges."""
    mine, theirs = [Listed(**entry) for entry in members], [Listed(**entry) for entry in judging]
    steps = find_leaks_in_steps(mine, theirs, stage="Looking for copies", every=_EVERY)
    # the beginning is not told: mostly there is no more to tell
    next(steps)
    return (yield from steps)
