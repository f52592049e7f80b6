"""`sonoloop finetune`: corrections to a better model, or to none."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from sonoloop.cli.console import AsLines, result_console
from sonoloop.cli.options import takes
from sonoloop.cli.train import TrainingReport
from sonoloop.jobs.events import Event, Finished, Gate, Job, Promoted, Selected
from sonoloop.jobs.request import FinetuneRequest

_LISTED = 10


class FinetuneReport(TrainingReport):
    """Tells the user of a fine-tuning as it goes."""

    def __init__(self, *, as_json: bool) -> None:
        super().__init__(Path(), as_json=as_json, stays="")
        self._verdict: Gate | None = None
        self._promoted = False

    def tell(self, event: Event) -> None:
        """Take the next event."""
        match event:
            case Job():
                self.stays = f"; sonoloop finetune --job {event.folder} goes on from the last epoch"
            case Selected():
                self._selected(event)
            case Gate():
                self._verdict = event
            case Promoted():
                self._promoted = True
            case _:
                super().tell(event)

    def _selected(self, event: Selected) -> None:
        classes = ", ".join(f"{count} {label}" for label, count in event.by_class.items() if count)
        replayed = f", with {event.replay} images of those that trained it" if event.replay else ""
        self.notice(
            f"{event.base} learns from {event.train} corrections ({classes}) in {event.snapshot}{replayed}; "
            f"{event.test_groups} groups only judge"
        )
        left_out = event.left_out
        if not left_out:
            return
        self.notice(f"{len(left_out)} corrections are not learned from:")
        for one in left_out[:_LISTED]:
            self.notice(f"  {one.frame[:12]}: {one.why}")
        if len(left_out) > _LISTED:
            reasons = Counter(one.why for one in left_out[_LISTED:])
            told = "; ".join(f"{count} because {why}" for why, count in reasons.most_common())
            self.notice(f"  and {len(left_out) - _LISTED} more: {told}")

    def _finished(self, event: Finished) -> None:
        console, model = result_console(), event.model
        console.print(f"{model} is in {event.path}, made in {event.minutes:.0f} min", soft_wrap=True)
        if self._verdict is not None:
            console.print(f"{self._verdict.verdict}: {self._verdict.reason}", soft_wrap=True)
        if self._promoted:
            console.print(f"{model} is in use now")
        elif self._verdict is not None:
            console.print(f"the model in use stays; `sonoloop models use {model} --why ...` uses the new one")


@takes(FinetuneRequest)
def finetune(request: FinetuneRequest, *, as_json: AsLines = False) -> None:
    """Learn from the corrections in a store, and let the gate say whether the new model is better.

    Images that judge never train. A fine-tuning that broke off, by Ctrl-C or a crash, goes on from its last
    epoch with --job and the folder that it told of. The model in use stays in use unless the new one passes
    and --promote is given, or the project's setting says promote = automatic.
    """
    FinetuneReport(as_json=as_json).follow(request)
