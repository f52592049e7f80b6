"""What `sonoloop models check` says of a network of a user's own."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from sonoloop.atomic import write_whole
from sonoloop.cli.console import print_json, result_console
from sonoloop.errors import BundleError, SonoloopError
from sonoloop.models.card import Card
from sonoloop.models.own.description import read_description, write_description
from sonoloop.models.own.model import make_own
from sonoloop.models.own.own_file import OwnFile, read_own
from sonoloop.models.own.proposal import propose
from sonoloop.models.own.trial import Trial, try_card
from sonoloop.values import CLASSES


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnReport:
    """What was found out, as far as it went; the `problem` is why it ended there."""

    own: OwnFile
    # a TOML file where there is none beside the network, and where it was written to
    proposal: str | None = None
    written: Path | None = None
    card: Card | None = None
    trial: Trial | None = None
    problem: str | None = None

    def print(self, *, as_json: bool) -> None:
        """Print it."""
        if as_json:
            print_json(
                {
                    "facts": [list(fact) for fact in self.own.facts],
                    "faults": list(self.own.faults),
                    "proposal": self.proposal,
                    "trial": None if self.trial is None else asdict(self.trial),
                    "card": None if self.card is None else json.loads(self.card.to_json()),
                    "problem": self.problem,
                }
            )
            return
        console = result_console()
        for name, value in (*self.own.facts, *self._found()):
            console.print(f"{name + ':':<18}{value}", soft_wrap=True, markup=False, highlight=False)
        if self.proposal is not None and self.written is None:
            console.print(
                f"\nIt needs {self.own.beside.name} beside it (--write writes it). What the file tells:\n"
            )
            console.print(self.proposal, soft_wrap=True, markup=False, highlight=False)

    def _found(self) -> list[tuple[str, str]]:
        found = [("problem", fault) for fault in self.own.faults if fault not in (self.problem or "")]
        if self.written is not None:
            found.append(("written", f"{self.written.name}: look it through, and check again"))
        if self.card is not None:
            spec, card = self.card.spec, self.card
            kind = "can be fine-tuned" if spec.has_weights else "predicts, and cannot be fine-tuned"
            network = "" if spec.architecture == card.name else f"{spec.architecture}, "
            found += [
                ("becomes", f"{card.name}: {network}{' and '.join(spec.heads)}; {kind}"),
                (
                    "card",
                    f"{spec.size} pixels, threshold {card.threshold:g}, gate for normals "
                    f"{card.normal_gate:g}, smallest lesion {card.min_area:g}, temperature "
                    f"{card.temperature:g}, {card.views} views",
                ),
            ]
        if self.trial is not None:
            time = max(1, round(1000 * self.trial.seconds))
            found.append(("time", f"{time} ms for an image, one view, on this computer"))
            for label, share, classes in self.trial.answers:
                told = ", ".join(f"{name} {value:.2f}" for name, value in zip(CLASSES, classes, strict=True))
                found.append((f"{label} image", f"mask on {share:.1%} of the image; {told}"))
            found += [("note", note) for note in self.trial.notes]
        return found


def check_own(source: Path, *, write: bool) -> OwnReport:
    """Look at a file, and make a model of it in a folder that is dropped."""
    own = read_own(source)
    if own.faults:
        return OwnReport(own=own, problem=f"{own.path.name} cannot be used: {own.faults[0]}")
    if not os.path.lexists(own.beside):
        proposal = write_description(propose(own))
        if write:
            _write(own.beside, proposal)
        return OwnReport(own=own, proposal=proposal, written=own.beside if write else None)
    if write:
        raise BundleError(f"{own.beside.name} is there already, and is left as it is; leave --write out")
    card = None
    try:
        description = read_description(own.beside)
        with tempfile.TemporaryDirectory(prefix="sonoloop-") as scratch:
            folder = Path(scratch) / "model"
            card = make_own(own, description, folder)
            return OwnReport(own=own, card=card, trial=try_card(folder, card, description, own.path.name))
    except SonoloopError as error:
        return OwnReport(own=own, card=card, problem=str(error))


def _write(path: Path, text: str) -> None:
    try:
        write_whole(path, text)
    except OSError as error:
        raise BundleError(f"{path} cannot be written ({error.strerror}); allow writing there") from error
