"""Project: a store, the files of its frames and its models; what GUI, command line and scripts call."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, or_, select

from sonoloop.errors import BundleError, ConflictError, ModelError, StoreError, TrainingError
from sonoloop.jobs.events import Calibrated, Event, Gate
from sonoloop.jobs.folder import JOBS
from sonoloop.jobs.process import training_events
from sonoloop.jobs.request import CalibrateRequest, FinetuneRequest, GateRequest
from sonoloop.leakage import Judging, JudgingCounter
from sonoloop.models.card import read_card, shipped_card, shipped_folder
from sonoloop.models.engines.auto import compare_engines, open_engine
from sonoloop.models.library import Library, bundle_folder
from sonoloop.models.predictor import Predictor
from sonoloop.store.adjudication import check_annotator
from sonoloop.store.agreement import Agreement, read_agreement
from sonoloop.store.assignments import Assigned, assign, hides_others
from sonoloop.store.backup import Backup, back_up
from sonoloop.store.corrections import HEAD, CorrectionStore
from sonoloop.store.database import is_file
from sonoloop.store.effort import ModelEffort, model_effort
from sonoloop.store.export import Exported, export_store
from sonoloop.store.file_hashes import FileHashes
from sonoloop.store.file_index import Places, known_frames, work_folder
from sonoloop.store.groups import place_frame, placement, set_aside, was_withdrawn
from sonoloop.store.leases import Claim, claim_frame, release_frame
from sonoloop.store.marks import MarkStatus, mark_frame
from sonoloop.store.merge import Merged, merge_export
from sonoloop.store.model_registry import DELETED, ModelRow, find_model, list_models, mark, register
from sonoloop.store.near_duplicates import SketchIndex
from sonoloop.store.network_share import warn_of_share
from sonoloop.store.notes import Note, add_note, list_notes
from sonoloop.store.overview import FrameOverview, read_overview
from sonoloop.store.promotions import (
    Promotion,
    ensure_incumbent,
    incumbent,
    lock,
    locked_version,
    promote,
    rollback,
    rollback_target,
    unlock,
)
from sonoloop.store.pulse import read_pulse
from sonoloop.store.revisions import ADJUDICATION, HeadMovedError, Revision
from sonoloop.store.snapshots import Learnable, LearnableCounter, list_snapshots
from sonoloop.store.stored_orientation import as_known, to_frame, to_stored
from sonoloop.store.tables import FRAMES, REVISIONS
from sonoloop.store.test_sets import ModelComparison, compare_models
from sonoloop.values import ClassName, Correction, Effort, Frame, Label, Prediction

_log = logging.getLogger(__name__)

ANNOTATOR = "annotator"
_ID = 64  # digits

# of a device, of a version, None for the shipped one, and of an engine
LoadPredictor = Callable[[str, "str | None", str], "Predictor"]
Notify = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class InUse:
    """The model in use, by version and name; None for the shipped one that nobody promoted."""

    version: str | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FrameStatus:
    """What the store holds of a frame.

    Parameters
    ----------
    newest : Revision, optional
        What was last said of it, or of the same pixels in another file.
    prediction : Prediction, optional
        The one that revision started from, as one of this frame.
    own_head : str, optional
        Id of what the project's annotator last said of it.
    draw_first : bool
        Whether it is drawn before its prediction is shown.
    in_use : InUse
        The model that is in use by now.
    others_hidden : bool
        Whether the frame is read twice: what others said of it is kept from the annotator until they accept.
    """

    newest: Revision | None
    prediction: Prediction | None
    own_head: str | None
    draw_first: bool
    in_use: InUse
    others_hidden: bool = False


@dataclass(frozen=True, slots=True)
class LearningStatus:
    """What the next training would have: what is new since `model`, in use by now, and the newest snapshots.

    `samples` are the corrections that may train, those that the model has learned from among them; `judging`
    the frames that a new model will be judged by, as the gate counts them; `locked` the model that the
    project is locked to, by name; `usable` the versions that are on this machine and were not deleted.
    """

    learnable: Learnable
    model: str
    snapshots: tuple[str, ...]
    samples: int
    judging: Judging
    locked: str | None = None
    usable: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelList:
    """The models of a project with their figures, and which of them are on this machine.

    `back_to` names the one that `Project.roll_back` would put back into use.
    """

    overview: ModelComparison
    here: frozenset[str]
    back_to: str | None


def open_project(
    store: str | os.PathLike[str] | None = None,
    *,
    annotator: str = ANNOTATOR,
    on_notice: Notify | None = None,
) -> Project:
    """Open a project; its store is made where there is none.

    Parameters
    ----------
    store : str or path, optional
        A file, or a URL of SQLite or PostgreSQL; the store in your data folder unless given.
    annotator : str
        Pseudonym under which corrections and decisions are stored. No real name.
    on_notice : callable, optional
        Told what you should know and need not act on; it is logged unless given.

    Returns
    -------
    Project
        To be closed; it is a context manager too.

    Raises
    ------
    StoreError
        If the store cannot be opened; the message says what to do.
    """
    opened = CorrectionStore(store)
    warn_of_share(opened.url, on_notice or _log.warning)
    return Project(opened, annotator=annotator, on_notice=on_notice)


def load_model(
    name_or_path: str | os.PathLike[str] | None = None,
    *,
    device: str = "auto",
    engine: str = "auto",
    views: int | None = None,
    threshold: float | None = None,
    on_notice: Notify | None = None,
) -> Predictor:
    """Load a model, ready to predict; no project is needed.

    Parameters
    ----------
    name_or_path : str or path, optional
        A model's folder, or its name in the library; the shipped model unless given.
    device : str
        "auto", "cpu", "cuda" or "mps".
    engine : str
        "auto", "torch", "onnx" or "openvino", or one that another package brings.
    views : int, optional
        Views of each image to average, 1, 2 or 4; as the model's card says unless given.
    threshold : float, optional
        Lesion probability from which a pixel counts; as the card says unless given.
    on_notice : callable, optional
        Told what you should know and need not act on; it is logged unless given.

    Returns
    -------
    Predictor
        Its `predict` takes a `Frame`.

    Raises
    ------
    ModelError
        If there is no such model, or it is damaged.
    """
    place = None if name_or_path is None else os.fspath(name_or_path)
    loaded = open_engine(bundle_folder(place), device, engine=engine, on_notice=on_notice)
    return Predictor(loaded, views=views, threshold=threshold, on_notice=on_notice)


class Project:
    """A store of corrections, the files of its frames, and its models; see `open_project`.

    May be used from several threads. Everything is stored under the pseudonym `annotator`.

    Parameters
    ----------
    store : CorrectionStore
        Open; it is closed with the project.
    annotator : str
        Pseudonym.
    library : Library, optional
        Where models lie; the user's own unless given.
    load_predictor : callable, optional
        Gives a predictor for a device, a version, None for the shipped one, and an engine; from the library
        unless given.
    on_notice : callable, optional
        Told what the user should know and need not act on.
    """

    def __init__(
        self,
        store: CorrectionStore,
        *,
        annotator: str = ANNOTATOR,
        library: Library | None = None,
        load_predictor: LoadPredictor | None = None,
        on_notice: Notify | None = None,
    ) -> None:
        self.store = store
        self.annotator = _check_annotator(annotator)
        self._notify = on_notice or _log.warning
        self.library = library or Library()
        self._chooses_engine = load_predictor is None
        self._load = lru_cache(maxsize=1)(load_predictor or self._load_version)
        self._places = Places(store.url)
        self._hashes = FileHashes(self._places.folder / "hashes.jsonl")
        self._sketches = SketchIndex()
        self._counter = LearnableCounter(store)
        self._judging = JudgingCounter(store, self.library)
        self._places_lock, self._load_lock, self._counter_lock = Lock(), Lock(), Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the store; closing twice is no error."""
        self.store.close()

    def by(self, annotator: str) -> Project:
        """Return the same project, in which another person works; it is closed with this one."""
        other = copy.copy(self)
        other.annotator = _check_annotator(annotator)
        return other

    def export(self, folder: Path, *, key: Path | None = None) -> Exported:
        """Write all that people decided into a folder, readable without Sonoloop; see `export_store`."""
        return export_store(self.store, folder, key=key)

    def merge(self, folder: Path, *, key: Path | None = None) -> Merged:
        """Add what an export holds and the store lacks; see `merge_export`."""
        return merge_export(self.store, folder, key=key)

    def back_up(self, target: Path, *, replace: bool = False) -> Backup:
        """Copy the store into one file, checked, also while others work on it; see `back_up`."""
        return back_up(self.store, target, replace=replace)

    def frame_ids(self, path: Path) -> tuple[str, ...]:
        """Give the ids of a file's frames; a file that did not change since is not read again."""
        return self._hashes.frame_ids(Path(path).absolute())

    def look_up(self, frame: Frame, *, patient: str | None = None) -> FrameStatus:
        """Place a frame in its group, remember its file, and tell what is known of it.

        Parameters
        ----------
        frame : Frame
            As `sonoloop.read` gives it. A simulated one is not placed.
        patient : str, optional
            The patient's number, where it is known: frames of one are one group. Only its keyed hash is kept.

        Returns
        -------
        FrameStatus
            With the newest correction, and whether the frame is drawn before its prediction may be shown.
        """
        known = as_known(self.store, frame)
        draw_first = False if frame.simulated else self._place(known, patient)
        hidden = hides_others(self.store, frame.id, self.annotator)
        newest = None if hidden else self.store.newest(frame.id, pixels_hash=known.pixels_hash)
        newest = None if newest is None else to_frame(newest, frame, known)
        head = self.store.head(frame.id, self.annotator)
        prediction = newest.correction.prediction if newest is not None else None
        if prediction is not None:
            prediction = replace(prediction, frame_id=frame.id)  # the same pixels, perhaps saved anew
        return FrameStatus(
            newest=newest,
            prediction=prediction,
            own_head=None if head is None else head.id,
            draw_first=draw_first,
            in_use=self.in_use(),
            others_hidden=hidden,
        )

    def accept(
        self,
        frame: Frame,
        mask: NDArray[Any],
        label: Label,
        *,
        prediction: Prediction | None = None,
        seen: bool,
        parent: str | None = HEAD,
        lesions: Mapping[int, ClassName] | None = None,
        effort: Effort | None = None,
    ) -> Revision:
        """Store what the annotator says of a frame; when this returns it is on disk.

        The frame is placed in its group, and its file remembered. Where nothing changed since the annotator's
        last correction of the frame, that one is returned and nothing stored. A mark that the annotator had
        set on the frame is taken back.

        Parameters
        ----------
        frame : Frame
            As `sonoloop.read` gives it.
        mask : numpy.ndarray
            The lesions, (H, W) on the frame's grid: 0 background, then a number from 1 to 255 for each;
            boolean for one lesion. All zero is the statement that there is none.
        label : str
            "normal", "benign", "malignant" or "unsure".
        prediction : Prediction, optional
            The one that the annotator started from, or that was made for the frame.
        seen : bool
            Whether the annotator had seen what a model says of the frame. What was once seen stays seen.
        parent : str, optional
            Id of the correction this one builds on, None for the first one; whatever the annotator said last
            unless given.
        lesions : mapping of int to str, optional
            Classes of lesions by their numbers in the mask; that of the frame is `label`, whatever these are.
        effort : Effort, optional
            What it took. Its times are kept only where the project's setting `record_time` is on.

        Returns
        -------
        Revision
            What is stored.

        Raises
        ------
        StoreError
            If the mask has another size than the frame, a class is given to a lesion that is not in it, the
            frame was withdrawn, or nothing can be written.
        HeadMovedError
            If the annotator's last correction is another one than `parent`; both are kept.
        """
        mask = _check_mask(frame, mask, lesions or {})
        correction = Correction(
            frame_id=frame.id,
            pixels_hash=frame.pixels_hash,
            mask=mask,
            label=label,
            annotator=self.annotator,
            prediction=prediction,
            prediction_seen=seen,
            lesions=lesions or {},
            effort=effort,
        )
        known = as_known(self.store, frame)
        correction = to_stored(correction, frame, known)
        # before it is placed, which is for ever
        self.store.check(correction, parent=parent)
        if frame.simulated:
            set_aside(self.store, frame)
        else:
            self._place(known)
        # after it is placed: whether it is drawn first says what was shown
        seen = seen or may_have_seen(self.store, known, self.annotator)
        try:
            stored = self.store.accept(replace(correction, prediction_seen=seen), parent=parent)
        except HeadMovedError as error:
            theirs, mine = (to_frame(one, frame, known) for one in (error.theirs, error.mine))
            raise HeadMovedError(str(error), theirs=theirs, mine=mine) from error
        return to_frame(stored, frame, known)

    def adjudicate(
        self,
        frame: Frame,
        mask: NDArray[Any],
        label: Label,
        *,
        of: Sequence[str],
        seen: bool = False,
        lesions: Mapping[int, ClassName] | None = None,
        effort: Effort | None = None,
    ) -> Revision:
        """Decide between what several annotators said of a frame; their revisions stay as they are.

        What is decided has a head of its own, stands as last said of the frame, and is on record as the
        annotator's decision. Its annotator is `sonoloop.store.revisions.ADJUDICATION`.

        Parameters
        ----------
        frame : Frame
            As `sonoloop.read` gives it.
        mask, label, lesions, effort
            As for `accept`: those of one of the revisions, or new ones.
        of : sequence of str
            Ids of the revisions that are decided between, of two annotators or more.
        seen : bool
            Whether the annotator had seen what a model says of the frame. What one of those who drew the
            revisions had seen counts as seen, too.

        Returns
        -------
        Revision
            What is stored; what stands already where nothing changed.

        Raises
        ------
        StoreError
            If `of` are not revisions of this frame by two annotators, or `accept` would refuse the rest.
        """
        mask = _check_mask(frame, mask, lesions or {})
        known = as_known(self.store, frame)
        correction = Correction(
            frame_id=frame.id,
            pixels_hash=frame.pixels_hash,
            mask=mask,
            label=label,
            annotator=ADJUDICATION,
            lesions=lesions or {},
            effort=effort,
        )
        correction = to_stored(correction, frame, known)
        # before it is placed, which is for ever
        seen = self.store.check_originals(of, known.pixels_hash) or seen
        if not frame.simulated:
            self._place(known)
        seen = seen or may_have_seen(self.store, known, self.annotator)
        stored = self.store.adjudicate(replace(correction, prediction_seen=seen), of=of, who=self.annotator)
        return to_frame(stored, frame, known)

    def assign(self, readers: Sequence[str], *, share: float, each: int | None = None) -> Assigned:
        """Have a share of the images read by several annotators who do not see each other's work.

        `look_up`, `notes` and `overview` keep from a reader what others said of an image until the reader has
        accepted it.

        Parameters
        ----------
        readers : sequence of str
            Pseudonyms.
        share : float
            Of all images in the store, above 0 and at most 1; those assigned before count. Images that two
            annotators corrected already are left out.
        each : int, optional
            How many of the readers read each image; all unless given.

        Returns
        -------
        Assigned
            Which images each reader got.

        Raises
        ------
        StoreError
            If there are fewer than two readers, or no images.
        """
        return assign(self.store, readers, share=share, each=each)

    def agreement(self) -> Agreement:
        """Compare what the readers of each assigned image said of it first, with intervals over groups."""
        return read_agreement(self.store)

    def claim(self, frame: Frame | str) -> Claim:
        """Say that the annotator works on a frame, which is placed as by `mark`; for ten minutes from now on.

        Claim it again while it is open; one that ran out, or whose program ended, is taken over.

        Raises
        ------
        ClaimedError
            If another annotator works on it; its `by` and `until` say who, and until when.
        """
        return claim_frame(self.store, self._enter(frame), annotator=self.annotator)

    def release(self, frame: Frame | str) -> None:
        """Let another annotator have a frame; where it is not claimed, nothing happens."""
        frame_id = frame if isinstance(frame, str) else frame.id
        release_frame(self.store, frame_id, annotator=self.annotator)

    def mark(self, frame: Frame | str, status: MarkStatus, reason: str = "") -> None:
        """Flag, skip or exclude a frame for the annotator, or take that back.

        Parameters
        ----------
        frame : Frame or str
            As `sonoloop.read` gives it; it is placed as by `look_up`. Or the id of one that was placed.
        status : str
            "flagged", "skipped", "excluded", or "open", which takes back what was set. So does `accept`.
        reason : str
            Why, in words that name nobody.

        Raises
        ------
        StoreError
            If there is no such status, the frame was withdrawn, or nothing can be written.
        """
        mark_frame(self.store, self._enter(frame), status, reason, annotator=self.annotator)

    def note(self, frame: Frame | str, text: str) -> None:
        """Write a note on a frame, which is placed as by `mark`; it names nobody, and stays for good.

        Raises
        ------
        StoreError
            If the text is empty, the frame was withdrawn, or nothing can be written.
        """
        add_note(self.store, self._enter(frame), text, annotator=self.annotator)

    def notes(self, frame_id: str) -> list[Note]:
        """List the notes on a frame, the oldest first; only one's own as long as others' work is hidden."""
        notes = list_notes(self.store, frame_id)
        if notes and hides_others(self.store, frame_id, self.annotator):
            return [note for note in notes if note.annotator == self.annotator]
        return notes

    def overview(self, frame_ids: Iterable[str]) -> dict[str, FrameOverview]:
        """Tell what the store holds of many frames, for the annotator; quick for 10,000 ids.

        Every id has its entry: one that the store does not know is to do.
        """
        return read_overview(self.store, frame_ids, annotator=self.annotator)

    def model_effort(self) -> tuple[ModelEffort, ...]:
        """Tell by model how often its proposals are accepted unedited and how many seconds an image takes.

        The model that was used last comes first; over everybody's corrections. Reads no mask.
        """
        return model_effort(self.store)

    def name_frames(self, frames: Sequence[str]) -> dict[str, str]:
        """Name the files of frames, by ids or their first digits, as far as this machine knows them."""
        places, ids = Places(self.store.url), {frame: frame for frame in frames}
        short = {frame for frame in frames if len(frame) < _ID}
        if short:
            known = known_frames(self.store)
            ids |= {frame: whole for whole in known for frame in short if whole.startswith(frame)}
        found = ((frame, places.find(whole)) for frame, whole in ids.items())
        return {frame: place.path.name for frame, place in found if place is not None}

    def in_use(self) -> InUse:
        """Tell which model is in use."""
        promotion = incumbent(self.store)
        if promotion is None:
            return InUse()
        return InUse(promotion.version, find_model(self.store, promotion.version).model)

    def model(self, version: str | None = None, device: str = "auto", *, engine: str = "auto") -> Predictor:
        """Give a model ready to predict; the one that was asked for last is kept loaded.

        Parameters
        ----------
        version : str, optional
            64 hex digits; the model in use unless given.
        device : str
            "auto", "cpu", "cuda" or "mps".
        engine : str
            "auto", "torch", "onnx" or "openvino", or one that another package brings.

        Returns
        -------
        Predictor
            Its `predict` takes a `Frame`.

        Raises
        ------
        ModelError
            If the model is not on this machine, or damaged.
        """
        with self._load_lock:
            return self._load(device, version or self.in_use().version, engine)

    def compare_engines(
        self, device: str = "auto", *, is_cancelled: Callable[[], bool] = lambda: False
    ) -> str | None:
        """Find which engine is the quickest here for the model in use; it runs from the next start on.

        Takes seconds, once a machine. Gives what came out; None where there is nothing to find, and where it
        was cancelled.
        """
        if not self._chooses_engine:
            return None
        version = self.in_use().version
        folder = shipped_folder() if version is None else self.library.find(version)
        return compare_engines(folder, device, is_cancelled=is_cancelled, on_notice=self._notify)

    def begin(self) -> Promotion:
        """Tell which model is in use; in a project that has none, that is the shipped one from now on."""
        return begin_with_shipped(self.store, self.library, who=self.annotator, on_notice=self._notify)

    def models(self) -> ModelList:
        """List the models of the project, the newest first, with their figures on the newest test set."""
        self.begin()
        overview = compare_models(self.store)
        # after it: what is in use there has one before it by now, whoever put it there meanwhile
        back = rollback_target(self.store)
        return ModelList(
            overview=overview,
            here=frozenset(self.library.versions()),
            back_to=None if back is None else back.model,
        )

    def find_model(self, name: str) -> ModelRow:
        """Find a model that the project knows by its version or name, or the beginning of either."""
        return find_model(self.store, name)

    def promote(self, model: Gate | str, *, why: str | None = None, expected: str | None = None) -> Promotion:
        """Put a model into use: on the gate's word, or on yours, which takes a reason.

        Parameters
        ----------
        model : Gate or str
            What `gate` returned, or a model's version or name.
        why : str, optional
            The reason, for the record; needed unless the gate said "promote".
        expected : str, optional
            Version of the model that you take for the one in use, where you give a model.

        Returns
        -------
        Promotion
            What is on record of it.

        Raises
        ------
        StoreError
            If the gate did not say so and there is no reason, or the project is locked to another model.
        ConflictError
            If another model came into use since the comparison, or since you looked.
        ModelError
            If the model is not on this machine, or damaged.
        """
        if isinstance(model, str):
            now = self.begin()
            row = find_model(self.store, model)
            if why is None:
                raise StoreError(f"say why {row.model} is to be used, for the record: give why=...")
            if not row.is_deleted:
                self._verify(row)
            expected = expected or now.version
            return promote(
                self.store, row.version, kind="use", who=self.annotator, why=why, expected=expected
            )
        if why is None and model.verdict != "promote":
            raise StoreError(
                f"the gate said {model.verdict}, not promote: {model.reason}; to use the model anyway, on "
                "the record, give why=..."
            )
        self._verify(find_model(self.store, model.candidate))
        last = incumbent(self.store)
        if last is not None and last.version != model.incumbent:
            raise ConflictError(
                "another model came into use since this comparison: fine-tune again, or choose a model "
                "in the Models panel"
            )
        return promote(
            self.store,
            model.candidate,
            kind="gate" if why is None else "use",
            who=self.annotator,
            why=why or model.reason,
            look=model.look,
            expected=None if last is None else last.version,
        )

    def roll_back(self, *, why: str, expected: str | None = None) -> Promotion:
        """Put the model back into use that was before; again for the one before that.

        `expected` is the name of the model that you take for that one, as in `ModelList.back_to`; where it is
        another by now, nothing is done.
        """
        self.begin()
        target = rollback_target(self.store)
        if expected is not None and (target is None or target.model != expected):
            raise ConflictError(
                "another model came into use since you looked: look which one it is, and try again"
            )
        if target is not None:
            self._verify(target)
        to = None if target is None else target.version
        return rollback(self.store, who=self.annotator, why=why, to=to)

    def lock_model(self, version: str | None = None, *, why: str) -> ModelRow:
        """Keep the model in use for a study: nothing else gets in."""
        used = self.begin().version
        return lock(self.store, version or used, who=self.annotator, why=why)

    def unlock_model(self, *, why: str) -> ModelRow:
        """Let other models in again."""
        return unlock(self.store, who=self.annotator, why=why)

    def import_model(self, source: Path) -> ModelRow:
        """Add a model from a zip file, a folder or a card; it is checked, and not used until you say so."""
        self.begin()
        card = read_card(self.library.import_(source))
        return register(
            self.store,
            version=card.version,
            model=card.model,
            origin="imported",
            who=self.annotator,
            parent=card.parent,
        )

    def export_model(self, version: str, target: Path) -> Path:
        """Write a model to a zip file; it holds no names of images."""
        return self.library.export(version, target)

    def delete_model(self, version: str, *, why: str) -> None:
        """Delete a model from this machine, for all projects on it; what was said of it stays on record."""
        row = find_model(self.store, version)
        # the record first: it refuses the model in use, and the pointer must never lead to what is gone
        if not row.is_deleted:
            mark(self.store, row.version, DELETED, why=why, who=self.annotator)
        self.library.delete(row.version)

    def learning_status(self) -> LearningStatus:
        """Count what is new since the model in use, and list the snapshots, the newest first."""
        with self._counter_lock:
            learnable = self._counter.count()
            judging = self._judging.count(learnable.version or shipped_card().version)
        names = tuple(snapshot.name for snapshot in list_snapshots(self.store))
        rows, locked = list_models(self.store), locked_version(self.store)
        return LearningStatus(
            learnable,
            learnable.model or shipped_card().model,
            names[::-1],
            learnable.samples,
            judging=judging,
            locked=next((row.model for row in rows if row.version == locked), None),
            usable=frozenset(self.library.versions()) - {row.version for row in rows if row.is_deleted},
        )

    def pulse(self, *, thorough: bool = False) -> Hashable:
        """Give a value that is another one as soon as anybody, in any program, decided something.

        Cheap, so that whoever shows a project can ask it every few seconds. A `thorough` look reads all of
        the store's file, and finds damage within it.

        Raises
        ------
        StoreError
            If the store cannot be used, such as one whose file is gone; the message says what to do.
        """
        try:
            models = self.library.folder.stat().st_mtime_ns
        except OSError:
            models = 0
        return read_pulse(self.store, thorough=thorough), models

    def jobs_folder(self) -> Path:
        """Return where the project's jobs lie."""
        return work_folder(self.store.url) / JOBS

    def finetune(self, **options: Any) -> Iterator[Event]:  # noqa: ANN401 - a request's fields
        """Learn from the corrections in a process of its own, and have the new model judged.

        The model in use stays, unless `promote=True` and the gate finds the new one better.

        Parameters
        ----------
        **options
            Fields of `sonoloop.jobs.request.FinetuneRequest`, such as ``max_minutes=10``, ``judged=False``.

        Yields
        ------
        Event
            As they come; see `sonoloop.jobs.events`.

        Raises
        ------
        TrainingError
            If it fails; the message says why.
        """
        yield from training_events(FinetuneRequest(store=self._location(), who=self.annotator, **options))

    def gate(self, candidate: str, **options: Any) -> Gate:  # noqa: ANN401 - a request's fields
        """Compare a model with the one in use on the frames that judge; the look is put on record.

        Parameters
        ----------
        candidate : str
            A model's version or name, or the beginning of either.
        **options
            Fields of `sonoloop.jobs.request.GateRequest`, such as ``device="cpu"``.

        Returns
        -------
        Gate
            The verdict; for `promote`.

        Raises
        ------
        TrainingError
            If the two cannot be compared; the message says why.
        """
        request = GateRequest(model=candidate, store=self._location(), who=self.annotator, **options)
        told = [event for event in training_events(request) if isinstance(event, Gate)]
        if not told:
            raise TrainingError(f"{candidate} was not judged: the gate ended without a verdict")
        return told[-1]

    def calibrate(self, model: str | None = None, **options: Any) -> Calibrated:  # noqa: ANN401 - as above
        """Fit a model's threshold, gate and temperature on the frames that judge; nothing comes into use.

        Parameters
        ----------
        model : str, optional
            A model's version or name, or the beginning of either; the one in use unless given.
        **options
            Fields of `sonoloop.jobs.request.CalibrateRequest`, such as ``device="cpu"``.

        Returns
        -------
        Calibrated
            The numbers and the figures before and after; its `version` is for `promote`.

        Raises
        ------
        TrainingError
            If nothing can be fitted; the message says why.
        """
        told = [event for event in self.calibrating(model, **options) if isinstance(event, Calibrated)]
        if not told:
            raise TrainingError("nothing was calibrated: the calibration ended without a result")
        return told[-1]

    def calibrating(self, model: str | None = None, **options: Any) -> Iterator[Event]:  # noqa: ANN401 - as above
        """Do what `calibrate` does, and give its events as they come; closed early, it ends the process."""
        request = CalibrateRequest(model=model, store=self._location(), who=self.annotator, **options)
        yield from training_events(request)

    def _location(self) -> str:
        """Say where the store is, to another process."""
        url = self.store.url
        return str(url.database) if is_file(url) else url.render_as_string(hide_password=False)

    def _enter(self, frame: Frame | str) -> str:
        """Place a frame that is not there yet, and give its id; refuse one that was withdrawn."""
        if isinstance(frame, str):
            return frame
        known = as_known(self.store, frame)
        if was_withdrawn(self.store, known):
            raise StoreError(f"{frame.name} was withdrawn: nothing more is stored of it; open another image")
        if frame.simulated:
            set_aside(self.store, frame)
        else:
            self._place(known)
        return frame.id

    def _place(self, frame: Frame, patient: str | None = None) -> bool:
        """Place a frame for ever, remember its file unless withdrawn, and tell whether it is drawn first."""
        placed = place_frame(self.store, frame, patient=patient, index=self._sketches)
        if frame.path is not None and not was_withdrawn(self.store, frame):
            with self._places_lock:
                self._places.remember(frame.id, frame.path, index=frame.index, pixels_hash=frame.pixels_hash)
        return placed.draw_first

    def _verify(self, row: ModelRow) -> None:
        """Refuse a model that is not whole, or that marks no lesions."""
        spec = self.library.check(row.version).spec
        if "lesion" not in spec.heads:
            raise ModelError(f"{row.model} predicts classes and no mask: it cannot be used here")
        if spec.takes_prompts:
            raise ModelError(
                f"{row.model} repairs masks by clicks, and is not made to propose them: use another model"
            )

    def _load_version(self, device: str, version: str | None, engine: str) -> Predictor:
        if version is None:
            return load_model(device=device, engine=engine, on_notice=self._notify)
        folder = self.library.keep(version, on_notice=self._notify)
        loaded = open_engine(folder, device, engine=engine, on_notice=self._notify)
        return Predictor(loaded, on_notice=self._notify)


def begin_with_shipped(
    store: CorrectionStore, library: Library, *, who: str, on_notice: Notify | None = None
) -> Promotion:
    """Tell which model is in use; in a project that has none, that is the shipped one from now on.

    The shipped one is copied into the library, so that an upgrade takes nothing away.
    """
    try:
        card = library.keep_shipped()
    except BundleError as error:
        # the copy is for the day of an upgrade; the model inside the package is there today
        (on_notice or _log.warning)(str(error))
        card = shipped_card()
    return ensure_incumbent(store, version=card.version, model=card.model, who=who)


def may_have_seen(store: CorrectionStore, frame: Frame, annotator: str) -> bool:
    """Tell whether an annotator's earlier corrections of a frame give away that a prediction was shown.

    Where a frame is drawn first the proposal is shown after Accept, whether or not it was stored: whoever
    accepted it once, or the same pixels in another file, may have seen it.
    """
    query = (
        select(REVISIONS.c.prediction_seen)
        .join(FRAMES, FRAMES.c.id == REVISIONS.c.frame_id)
        .where(
            # names were once kept as they were typed
            func.trim(REVISIONS.c.annotator) == annotator,
            or_(FRAMES.c.id == frame.id, FRAMES.c.pixels_hash == frame.pixels_hash),
        )
    )
    with store.reading() as connection:
        earlier = connection.scalars(query).all()
    if not earlier:
        return False
    placed = placement(store, frame.id)
    return any(earlier) or (placed is not None and placed.draw_first)


def _check_mask(frame: Frame, mask: NDArray[Any], lesions: Mapping[int, ClassName]) -> NDArray[Any]:
    """Give a mask as it is kept; refuse another size than the frame's, and classes of lesions it has not."""
    mask = np.asarray(mask)
    if mask.dtype.kind in "bui" and mask.min(initial=0) >= 0 and mask.max(initial=0) <= 255:
        mask = mask.astype(np.uint8, copy=False)
    if mask.shape != frame.shape:
        # the store would take it for the frame's size for ever
        drawn, shown = (" x ".join(map(str, reversed(shape))) for shape in (mask.shape, frame.shape))
        raise StoreError(
            f"the mask of {frame.name} has {drawn} pixels, the image {shown}; remove its lesions layer "
            "and draw on the image's own grid"
        )
    for number, name in lesions.items():
        if number == 0 or not (mask == number).any():
            raise StoreError(
                f"the mask of {frame.name} has no lesion {number} to be {name}: give classes to lesions that "
                "are there"
            )
    return mask


def _check_annotator(annotator: str) -> str:
    if not annotator.strip():
        raise StoreError('the annotator is empty: give a pseudonym, as in open_project(annotator="r1")')
    return check_annotator(annotator)
