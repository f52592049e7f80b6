"""What `sonoloop finetune` tells: what is learned from, how it goes, and the gate's verdict in words."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from sonoloop.cli.console import result_console
from sonoloop.cli.train import TrainingReport

_LISTED = 10


class FinetuneReport(TrainingReport):
    """Tells the user of a fine-tuning as it goes; the result alone goes to standard output.

    Parameters
    ----------
    as_json : bool
        Nothing is told: the events themselves are printed.
    """

    def __init__(self, *, as_json: bool) -> None:
        super().__init__(Path(), as_json=as_json)
        self._folder = ""
        self._verdict: dict[str, Any] = {}
        self._promoted = False

    @property
    def how_to_go_on(self) -> str:
        """What to type to go on with what was interrupted; empty where nothing had begun."""
        return f"; sonoloop finetune --job {self._folder} goes on from the last epoch" if self._folder else ""

    def tell(self, event: dict[str, Any]) -> None:
        """Tell of an event; see `sonoloop.jobs.events`."""
        match event["event"]:
            case "job":
                self._folder = event["folder"]
            case "selected":
                self._selected(event)
            case "gate":
                self._verdict = event
            case "promoted":
                self._promoted = True
            case "finished":
                self._ended(event)
            case _:
                super().tell(event)

    def _selected(self, event: dict[str, Any]) -> None:
        classes = ", ".join(f"{count} {label}" for label, count in event["by_class"].items() if count)
        replayed = f", with {event['replay']} images of those that trained it" if event["replay"] else ""
        self.notice(
            f"{event['base']} learns from {event['train']} corrections ({classes}) in {event['snapshot']}"
            f"{replayed}; {event['test_groups']} groups only judge"
        )
        left_out = event["left_out"]
        if not left_out:
            return
        self.notice(f"{len(left_out)} corrections are not learned from:")
        for one in left_out[:_LISTED]:
            self.notice(f"  {one['frame'][:12]}: {one['why']}")
        if len(left_out) > _LISTED:
            reasons = Counter(one["why"] for one in left_out[_LISTED:])
            told = "; ".join(f"{count} because {why}" for why, count in reasons.most_common())
            self.notice(f"  and {len(left_out) - _LISTED} more: {told}")

    def _ended(self, event: dict[str, Any]) -> None:
        console = result_console()
        console.print(
            f"{event['model']} is in {event['path']}, made in {event['minutes']:.0f} min", soft_wrap=True
        )
        if self._verdict:
            console.print(f"{self._verdict['verdict']}: {self._verdict['reason']}", soft_wrap=True)
        if self._promoted:
            console.print(f"{event['model']} is in use now")
        elif self._verdict:
            word = event["model"]
            console.print(f"the model in use stays; `sonoloop models use {word} --why ...` uses the new one")
