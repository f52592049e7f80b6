"""What the Train panel asks of the store, in its workers, without Qt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sonoloop.errors import ConflictError
from sonoloop.gui.desks import Outlook
from sonoloop.gui.work import OpenStore, StoreKeeper
from sonoloop.jobs.events import Gate
from sonoloop.jobs.folder import JOBS
from sonoloop.models.archive import verify_files
from sonoloop.models.card import shipped_card
from sonoloop.models.library import Library
from sonoloop.store.file_index import Places, known_frames, work_folder
from sonoloop.store.promotions import incumbent, promote
from sonoloop.store.snapshots import LearnableCounter, list_snapshots

_ID = 64  # digits


class TrainDesk:
    """Asks the store and the library.

    Parameters
    ----------
    open_store : callable
        Gives the correction store for a URL.
    library : Library, optional
        Where models lie.
    """

    def __init__(self, open_store: OpenStore, library: Library | None = None) -> None:
        self._keeper = StoreKeeper(open_store)
        self._library = library or Library()
        self._counter: LearnableCounter | None = None

    def outlook(self, url: str | None) -> Outlook:
        """Count what is new, and list the snapshots."""
        store = self._keeper.at(url)
        if self._counter is None or self._counter.store is not store:
            self._counter = LearnableCounter(store)
        news = self._counter.count()
        names = tuple(snapshot.name for snapshot in list_snapshots(store))
        return Outlook(news, news.model or shipped_card().model, names[::-1], news.samples)

    def name_frames(self, url: str | None, frames: Sequence[str]) -> dict[str, str]:
        """Name the files of frames, by ids or their first digits, as far as this machine knows them."""
        store = self._keeper.at(url)
        places, ids = Places(store.url), {frame: frame for frame in frames}
        short = {frame for frame in frames if len(frame) < _ID}
        if short:
            known = known_frames(store)
            ids |= {frame: whole for whole in known for frame in short if whole.startswith(frame)}
        found = ((frame, places.find(whole)) for frame, whole in ids.items())
        return {frame: place.path.name for frame, place in found if place is not None}

    def jobs_folder(self, url: str | None) -> Path:
        """Return where the jobs of a store lie."""
        return work_folder(self._keeper.at(url).url) / JOBS

    def use(self, url: str | None, gate: Gate, *, who: str, why: str | None) -> None:
        """Put a candidate into use: on the gate's word, or on a person's, who says why."""
        store = self._keeper.at(url)
        # what is not whole must not be in use
        verify_files(self._library.find(gate.candidate))
        now = incumbent(store)
        if now is not None and now.version != gate.incumbent:
            raise ConflictError(
                "another model came into use since this comparison: fine-tune again, or choose a model "
                "in the Models panel"
            )
        promote(
            store,
            gate.candidate,
            kind="gate" if why is None else "use",
            who=who,
            why=why or gate.reason,
            look=gate.look,
            expected=None if now is None else now.version,
        )

    def close(self) -> None:
        """Close the store."""
        self._keeper.close()
