"""``gate``: a model against the one in use, on the frames of a store that judge."""

from __future__ import annotations

import argparse
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sonoloop.errors import TrainingError
from sonoloop.jobs.events import Event, Notice

if TYPE_CHECKING:
    from sonoloop.models.library import Library
    from sonoloop.store.corrections import CorrectionStore
    from sonoloop_training.gate.comparison import Judgement

HELP = "judge a model against the one in use, on the frames of a store that judge"
DEFAULT_WHO = "command line"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    parser.add_argument("--store", metavar="URL", help="the corrections; the default store unless given")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--candidate", metavar="MODEL", help="who wants the place")
    what.add_argument(
        "--every-model", action="store_true", help="only score all models on today's test set; no look"
    )
    parser.add_argument("--against", metavar="MODEL", help="who has it; the model in use unless given")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for pictures; the store's own else")
    parser.add_argument("--promote", action="store_true", help="use the candidate if it is found better")
    parser.add_argument("--who", metavar="NAME", default=DEFAULT_WHO, help="pseudonym, for the record")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--threads", type=int, help="CPU threads; all cores unless given")


def run(options: argparse.Namespace) -> Iterator[Event]:
    """Judge; see `sonoloop_training.gate.comparison.judge`."""
    import torch  # noqa: PLC0415 - after the arguments are known to be right

    from sonoloop.models.devices import choose_device  # noqa: PLC0415
    from sonoloop.models.library import Library  # noqa: PLC0415
    from sonoloop.project import begin_with_shipped  # noqa: PLC0415
    from sonoloop.store.model_registry import find_model  # noqa: PLC0415
    from sonoloop.store.settings import read_settings  # noqa: PLC0415
    from sonoloop_training.fit.devices import device_watched  # noqa: PLC0415
    from sonoloop_training.gate.comparison import promote_found, promote_if_free  # noqa: PLC0415
    from sonoloop_training.gate.scoring import score_every  # noqa: PLC0415

    if options.threads:
        torch.set_num_threads(options.threads)
    library = Library()
    with _open(options.store) as store:
        in_use = begin_with_shipped(store, library, who=options.who)
        if options.every_model:
            with device_watched(choose_device(options.device), kept="what was scored is kept"):
                yield from _score_all(store, library, options.device)
            return
        candidate = find_model(store, options.candidate).version
        against = find_model(store, options.against).version if options.against else in_use.version
        if options.promote and against != in_use.version:
            raise TrainingError(
                "only a model that was judged against the one in use can take its place: leave out --against "
                "or --promote"
            )
        if options.promote:
            # told before the look, which counts
            _check_lock(store, candidate)
        kept = "the model in use stays, and what was scored is kept"
        with device_watched(choose_device(options.device), kept=kept):
            judgement = yield from _judge(store, library, candidate, against, options)
            if judgement.verdict.verdict == "promote":
                if options.promote:
                    yield promote_found(store, library, judgement.look, who=options.who)
                elif against == in_use.version and read_settings(store).promote == "automatic":
                    yield promote_if_free(store, library, judgement.look, who=options.who, called="it")
            yield from score_every(
                store,
                judgement.test_set,
                device=options.device,
                library=library,
                judged=(candidate, against),
            )


def _open(place: str | None) -> CorrectionStore:
    from sonoloop.store import CorrectionStore  # noqa: PLC0415
    from sonoloop.store.database import read_existing  # noqa: PLC0415

    read_existing(place)
    return CorrectionStore(place)


def _check_lock(store: CorrectionStore, candidate: str) -> None:
    from sonoloop.store.model_registry import find_model  # noqa: PLC0415
    from sonoloop.store.promotions import check_lock  # noqa: PLC0415

    row = find_model(store, candidate)
    with store.reading() as connection:
        check_lock(connection, row)


def _judge(
    store: CorrectionStore, library: Library, candidate: str, against: str, options: argparse.Namespace
) -> Generator[Event, None, Judgement]:
    from sonoloop.store.file_index import work_folder  # noqa: PLC0415
    from sonoloop_training.gate.comparison import judge  # noqa: PLC0415 - seconds to import

    own = work_folder(store.url) / "gates" / f"{candidate[:8]}-against-{against[:8]}"
    return (
        yield from judge(
            store,
            candidate,
            against,
            out=options.out or own,
            who=options.who,
            device=options.device,
            library=library,
        )
    )


def _score_all(store: CorrectionStore, library: Library, device: str) -> Iterator[Event]:
    from sonoloop.store.test_sets import freeze_test_set  # noqa: PLC0415
    from sonoloop_training.gate.scoring import score_every  # noqa: PLC0415

    test_set = freeze_test_set(store)
    scored = yield from score_every(store, test_set, device=device, library=library)
    yield Notice(
        message=f"{scored} models are scored on test set {test_set.number}: {len(test_set.members)} frames "
        f"of {test_set.groups} groups; `sonoloop models list` shows how they did"
    )
