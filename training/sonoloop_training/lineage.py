"""What the model that a training starts from had seen."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict

from sonoloop.errors import TrainingError
from sonoloop.jobs.events import Notice
from sonoloop.models.bundle import read_bundle
from sonoloop.models.registry import bundle_folder
from sonoloop_training.evaluation.split_list import Listed, read_split_list
from sonoloop_training.leaks import find_leaks
from sonoloop_training.membership import SPLIT, Members
from sonoloop_training.splits import Part


def inherit(
    start: str, members: Mapping[Part, Sequence[Mapping[str, str]]], *, split_sha256: str
) -> Generator[Notice, None, tuple[list[dict[str, str]], bool]]:
    """Find who trained the model that is started from, and make sure that none of them judges.

    Parameters
    ----------
    start : str
        See `sonoloop.models.registry.bundle_folder`.
    members : mapping
        Who is where now; see `sonoloop_training.membership.list_members`.
    split_sha256 : str
        Hash of that split: a model without a list, but made on the same split, had the same images.

    Yields
    ------
    Notice
        If the model does not say who trained it.

    Returns
    -------
    trained : list of dict
        Who trained it and does not train now, as in `members`.
    leaked : bool
        Whether its own split was by image.

    Raises
    ------
    TrainingError
        If it had trained on images that are to judge, or on near copies, or on their patients.
    """
    folder = bundle_folder(start)
    card = read_bundle(folder).card
    leaked = bool(card.snapshot.get("leaked"))
    if not (folder / SPLIT).is_file():
        if card.snapshot.get("split_sha256") != split_sha256:
            yield Notice(message=f"{start} does not say who trained it; images that judge may be among them")
        return [], leaked
    trained = read_split_list(folder / SPLIT)["train"]
    judging = [Listed(**entry) for part in ("validation", "test") for entry in members[part]]
    leaks = find_leaks(judging, trained)
    if leaks:
        first = leaks[0]
        raise TrainingError(
            f"{len(leaks)} of the images that are to judge trained {start} already, such as {first.image} "
            f"({first.kind}: {first.trained}); start from another model, or use the split it was made with"
        )
    known = {entry["id"] for entry in members["train"]}
    return [asdict(one) for one in trained if one.id not in known], leaked


def merge(members: Members, inherited: Sequence[dict[str, str]]) -> Members:
    """Add those who trained before to those who train."""
    return {**members, "train": [*members["train"], *inherited]}
