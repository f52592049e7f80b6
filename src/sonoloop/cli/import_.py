"""`sonoloop import`: existing masks into a store, as corrections."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from sonoloop.cli.console import AsLines, result_console, say_failure
from sonoloop.cli.options import takes
from sonoloop.cli.train import TrainingReport
from sonoloop.jobs.events import Event, Imported, OddMask, Unreadable
from sonoloop.jobs.request import ImportRequest


class ImportReport(TrainingReport):
    """Tells the user of an import as it goes."""

    def __init__(self, *, as_json: bool) -> None:
        stays = "; what is stored stays, and the same command goes on"
        super().__init__(Path(), as_json=as_json, stays=stays)
        self._images = 0

    def tell(self, event: Event) -> None:
        """Take the next event."""
        match event:
            case Imported():
                self._images = event.images
                _summarise(event)
            case OddMask():
                self.notice(event.what)
            case Unreadable():
                self.notice(f"left out: {say_failure(event)}")
            case _:
                super().tell(event)

    def finish(self) -> None:
        """Name what was left out."""
        of = f" of {self._images}" if self._images else ""
        self.name_failures(f"{len(self.failures)}{of} images could not be used")


@takes(ImportRequest)
def import_masks(request: ImportRequest, *, as_json: AsLines = False) -> None:
    """Bring a dataset's masks into a store as corrections, patients and near copies kept together.

    Nothing is stored twice: the same command again adds what is new, and goes on where it broke off. Where
    masks look odd (inverted, more than half of the frame, another size, grey levels ...) they are named and
    nothing is stored, unless --accept-odd is given.

    The exit code is 1 where images could not be used and the others are stored.
    """
    report = ImportReport(as_json=as_json)
    report.follow(request)
    report.finish()


def _summarise(event: Imported) -> None:
    table = Table("", "images", title=f"{event.dataset} by {event.annotator}", box=None)
    table.title_justify = "left"
    rows = {
        "new corrections": event.new,
        "known already": event.known,
        "corrected otherwise by a person, left as they are": event.kept,
        "could not be used": event.unreadable,
        "of masks that look odd, stored as they are": event.odd,
        **event.by_class,
        f"train ({event.groups['train']} groups)": event.roles["train"],
        f"only judge ({event.groups['test']} groups)": event.roles["test"],
        "neither, since they belong to both": event.roles["neither"],
    }
    for what, count in rows.items():
        if count:
            table.add_row(what, str(count))
    result_console().print(table)
