"""The Annotate panel: what the model thinks, what the annotator decides, and Accept."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Literal

from napari.utils.notifications import show_warning
from napari.utils.theme import get_theme
from qtpy.QtCore import QEvent, Qt
from qtpy.QtGui import QCloseEvent
from qtpy.QtWidgets import QLabel, QPushButton, QToolButton, QWidget
from superqt import QElidingLabel

from sonoloop.errors import SonoloopError
from sonoloop.gui.annotate.carry_over import CarryOver
from sonoloop.gui.annotate.class_table import ClassTable, FactsTable
from sonoloop.gui.annotate.deciding import Deciding, Question, ask_which
from sonoloop.gui.annotate.effort import EffortCounter
from sonoloop.gui.annotate.focus import FocusLayout
from sonoloop.gui.annotate.followers import Followers
from sonoloop.gui.annotate.journal import Journal
from sonoloop.gui.annotate.keys import attach, describe_keys, detach
from sonoloop.gui.annotate.layers import Target
from sonoloop.gui.annotate.lesion_table import LesionTable
from sonoloop.gui.annotate.notes_box import NotesBox
from sonoloop.gui.annotate.own_layers import Offer
from sonoloop.gui.annotate.predicting import ModelLine, Predicting
from sonoloop.gui.annotate.prompt_tools import PromptTools
from sonoloop.gui.annotate.queue import NO_QUEUE, Queue
from sonoloop.gui.annotate.queue_bar import ProgressLine, QueueBar, ReasonBox, show_checked
from sonoloop.gui.annotate.queue_list import QueueEntry
from sonoloop.gui.annotate.queue_view import QueueView
from sonoloop.gui.annotate.session import (
    DRAW_FIRST,
    Session,
    lay_out_canvas,
    offer_canvas,
    take_up_brush,
)
from sonoloop.gui.annotate.unfinished import UnfinishedBox
from sonoloop.gui.preferences import Preferences, read_preferences, watch_preferences
from sonoloop.gui.widgets import (
    BROKEN,
    Panel,
    QuestionBox,
    focus_canvas,
    row,
    show_problem,
    single_shot,
    text_label,
    themed_icon,
)
from sonoloop.gui.words import shorten
from sonoloop.gui.workers import Projects
from sonoloop.values import Label

if TYPE_CHECKING:
    import napari

    from sonoloop.store.revisions import HeadMovedError


# layers offered at once; the others follow
_OFFERS = 3
_WHY = "Show or hide what in the image speaks for the class that the model names: the brighter, the more"
_NOT_PREDICTED = "Predict first"
_TOGGLES = (
    ("Queue", "Show the list of frames"),
    ("Simple", "Show only the proposal, the class and Accept"),
    ("Focus", "Fold napari's own docks, so that the image has the window (Shift+F)"),
)
_DRAW_FIRST = (
    "The proposal is shown after Accept, so that it does not lead you. Some of these images train all the "
    "same, and which ones is not told: see docs/store.md, Who trains, who judges"
)
_PREDICT_ALL = "Predict every frame that nobody worked on; the slider shows them"


def _toggle(text: str, help_: str) -> QToolButton:
    button = QToolButton()
    button.setText(text)
    button.setToolTip(help_)
    button.setCheckable(True)
    button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
    show_checked(button)
    return button


class AnnotatePanel(Panel):
    """Predict, choose a class, correct the mask, accept.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        The viewer it is docked in.
    projects : Projects, optional
        What its workers ask; the user's own unless given.
    preferences : callable
        Gives the user's preferences as they are now.
    parent : QWidget, optional
        The owner.
    """

    def __init__(
        self,
        viewer: napari.viewer.Viewer,
        *,
        projects: Projects | None = None,
        preferences: Callable[[], Preferences] = read_preferences,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self.session = Session(viewer, preferences=preferences, parent=self)
        projects = projects or Projects()
        self.effort = EffortCounter(self.session)
        self.deciding = Deciding(self.session, projects=projects, effort=self.effort)
        self.predicting = Predicting(self.session, projects=projects)
        self.journal = Journal(self.session, effort=self.effort)
        self.news = self.watch_store(projects, self.session.preferences)
        self._carry_over = CarryOver(viewer)
        self._followers = Followers(viewer)
        self.queue = Queue(
            self.session,
            deciding=self.deciding,
            predicting=self.predicting,
            carry_over=self._carry_over,
            projects=projects,
        )
        self.journal.listed.connect(self.queue.note_drafts)
        self.journal.kept.connect(self.queue.note_draft)
        self._closed = False
        self._predict_first = False
        self._notes = NotesBox(self.session, projects=projects)
        self._build()
        self._lay_out()
        self._connect()
        attach(viewer, self)
        self._unwatch = watch_preferences(self._on_preferences)
        self._on_theme()
        self._render()
        self._render_queue()
        self._begin = single_shot(self, 0, self.queue.take_over)
        self._begin.start()

    def run(self, action: str, *, pressed: bool = True) -> None:
        """Do what a key was pressed for; see `sonoloop.gui.annotate.keys`."""
        self.effort.act()
        actions: dict[str, Callable[[], object]] = {
            "predict": self.predicting.predict,
            "choose_normal": lambda: self.deciding.choose("normal"),
            "choose_benign": lambda: self._choose("benign"),
            "choose_malignant": lambda: self._choose("malignant"),
            "accept": self.deciding.accept,
            "toggle_fill": self.session.toggle_fill,
            "hide_lesions": lambda: self.session.set_lesions_visible(not pressed),
            "focus": lambda: self._focus.setChecked(not self._focus.isChecked()),
            "flag": lambda: self._put_aside("flagged"),
            "skip": lambda: self._put_aside("skipped"),
            "exclude": lambda: self._put_aside("excluded"),
            "next": self.queue.next,
            "previous": self.queue.back,
        }
        actions[action]()

    def predict_first(self) -> None:
        """Predict on the next frame that comes up, unless a correction of it is stored."""
        self._predict_first = True

    def close_session(self) -> None:
        """Stop listening to the viewer; what is being stored is still stored."""
        if self._closed:
            return
        self._closed = True
        self._viewer.events.theme.disconnect(self._on_theme)
        self._unwatch()
        detach(self._viewer, self)
        self._layout.set_on(False)
        self._begin.stop()
        self._queue_timer.stop()
        self._list.close_session()
        self._notes.close_session()
        self.queue.close()
        self.news.close()
        self._carry_over.close()
        self._followers.close()
        self.journal.close()
        self.effort.close()
        self._repair.close_session()
        self.predicting.close()
        self.deciding.close()
        self.session.close()

    def closeEvent(self, event: QCloseEvent | None) -> None:  # noqa: N802 - Qt's name
        """Leave the viewer as it was found."""
        self._leave()
        super().closeEvent(event)

    def changeEvent(self, event: QEvent | None) -> None:  # noqa: N802 - Qt's name
        """Take being cut out of the window for being closed: napari's dock does not close what it holds."""
        super().changeEvent(event)
        if event is not None and event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self._leave()

    def _leave(self) -> None:
        if not self._closed:
            self.session.restore_hidden()
        self.close_session()

    def _build(self) -> None:
        self._name = QElidingLabel()
        self._name.setElideMode(Qt.TextElideMode.ElideMiddle)
        bold = self._name.font()
        bold.setBold(True)
        self._name.setFont(bold)
        self._name.setTextFormat(Qt.TextFormat.PlainText)
        self._status = text_label()
        self._status.setWordWrap(False)
        self._model = ModelLine()
        self._hint = text_label()
        self._show = QPushButton("Show it")
        self._show.setToolTip("Show this image alone on the canvas, with its lesions")
        self._show.hide()
        self._classes = ClassTable()
        self._why = QPushButton("Why?")
        self._why.setToolTip(_WHY)
        self._facts = FactsTable()
        self.lesions = LesionTable(self.session)
        self._repair = PromptTools(self.session)
        self._offer = QuestionBox()
        self._offered: tuple[Offer, ...] = ()
        self.unfinished = UnfinishedBox(self.journal, self.predicting.overwriting)
        self._question = QuestionBox()
        self._advice = text_label()
        self._advice.setToolTip("The model learned from other images: take its answer with care")
        self._predict = QPushButton("Predict")
        self._predict_all = QPushButton("Predict all")
        self._accept = QPushButton("Accept")
        self._help = QToolButton()
        self._help.setCheckable(True)
        self._help.setToolTip("Show the keys")
        self._help.setAccessibleName("Show the keys")
        self._keys = QLabel(describe_keys())
        self._keys.setWordWrap(True)
        self._keys.hide()
        self._notice = text_label("For research use, not for diagnosis")
        self._layout = FocusLayout(self)
        self._place = text_label()
        self._place.setWordWrap(False)
        self._toggles = [_toggle(text, help_) for text, help_ in _TOGGLES]
        self._show_list, self._simple, self._focus = self._toggles
        self._show_list.setChecked(True)
        self._asked_of: QueueEntry | None = None  # why it is put aside
        self._list, self._bar = QueueView(), QueueBar()
        self._reason, self._progress = ReasonBox(), ProgressLine()
        # statuses come in by the hundred
        self._queue_timer = single_shot(self, 100, self._render_list)
        self._fit = single_shot(self, 50, self._carry_over.fit)
        buttons = (self._predict, self._predict_all, self._accept, self._help, self._show, self._why)
        for button in buttons:
            button.setFocusPolicy(Qt.FocusPolicy.TabFocus)

    def _lay_out(self) -> None:
        column = self.column
        column.addLayout(row((self._name, 1), (self._status, 0)))
        column.addWidget(self._model)
        column.addLayout(row((self._place, 1), *((toggle, 0) for toggle in self._toggles)))
        column.addWidget(self._list)
        column.addLayout(row((self._hint, 1), (self._show, 0)))
        column.addWidget(self._advice)
        column.addWidget(self._classes)
        column.addLayout(row((self._facts, 1), (self._why, 0)))
        column.addWidget(self.lesions)
        column.addWidget(self._repair)
        column.addWidget(self._notes)
        column.addLayout(row((self._notice, 1), (self._help, 0)))
        column.addWidget(self._keys)
        column.addStretch(1)
        foot = self.foot
        foot.setContentsMargins(8, 4, 8, 8)
        for box in (self.unfinished, self._offer, self._question, self._reason):
            foot.addWidget(box)
        foot.addWidget(self._bar)
        foot.addLayout(row((self._predict, 1), (self._predict_all, 1), (self._accept, 1)))
        foot.addWidget(self._progress)

    def _connect(self) -> None:
        self.session.changed.connect(self._render)
        self.news.moved.connect(self.deciding.look_up_again)
        self.news.moved.connect(self.queue.statuses.refresh)
        self.news.opened.connect(self.deciding.look_again)
        self.news.changed.connect(self.deciding.refresh_model)
        self.news.trouble_changed.connect(lambda: self.session.set_trouble(self.news.trouble))
        self.news.changed.connect(self.queue.statuses.refresh)
        self.deciding.accepted.connect(lambda _target: self.news.look())
        self.deciding.refused.connect(self.news.doubt)
        self.session.target_changed.connect(lambda: lay_out_canvas(self.session))
        self.predicting.busy_changed.connect(self._on_busy)
        self.predicting.progressed.connect(self._on_progress)
        self.deciding.asked.connect(self._on_asked)
        self.deciding.conflicted.connect(self._on_conflict)
        self.deciding.looked_up.connect(self._on_looked_up)
        self.deciding.accepted.connect(self._on_accepted)
        self.deciding.model_seen.connect(self.predicting.set_in_use)
        self._model.cancelled.connect(self.predicting.cancel)
        self._classes.chosen.connect(self._choose)
        self._predict.clicked.connect(self.predicting.predict)
        self._accept.clicked.connect(self.deciding.accept)
        self._predict_all.clicked.connect(self.predicting.predict_all)
        self._repair.pointed.connect(self.effort.click)
        self.lesions.acted.connect(lambda: focus_canvas(self))
        self.unfinished.answered.connect(lambda: focus_canvas(self))
        self._show.clicked.connect(self.session.show_current)
        self._why.clicked.connect(self.predicting.explain)
        self._help.toggled.connect(self._keys.setVisible)
        self.queue.listed.connect(self._on_listed)
        self.queue.changed.connect(self._render_queue)
        self._list.chosen.connect(self.queue.go_to)
        self._list.filtered.connect(self.queue.changed)
        self._bar.pressed.connect(self.run)
        self._reason.given.connect(self.queue.mark)
        self._show_list.toggled.connect(lambda _on: self._render_queue())
        self._simple.toggled.connect(lambda _on: self._render_simple())
        self._focus.toggled.connect(self._layout.set_on)
        # once the docks are folded, and the canvas has its size
        self._focus.toggled.connect(lambda _on: self._fit.start())
        for signal in (
            self._list.list.clicked,
            self._notes.written,
            self._bar.pressed,
            self._reason.closed,
            *(toggle.clicked for toggle in self._toggles),
            self._classes.chosen,
            self._predict.clicked,
            self._predict_all.clicked,
            self._accept.clicked,
            self._help.clicked,
            self._show.clicked,
            self._why.clicked,
        ):
            signal.connect(lambda *_: focus_canvas(self))
        self._viewer.events.theme.connect(self._on_theme)
        self.destroyed.connect(self.close_session)

    def _render(self) -> None:
        if self.session.arriving:
            return  # it is told once all of the frame is there
        view = self.session.view()
        self._name.setText(view.name)
        self._name.setToolTip(view.name)
        self._status.setText(view.status)
        self._model.set_text(self.predicting.model_line)
        hint = view.unseen or view.hint
        self._hint.setText(hint or "")
        self._hint.setToolTip(_DRAW_FIRST if hint == DRAW_FIRST else "")
        self._hint.setVisible(hint is not None)
        self._show.setVisible(view.unseen is not None)
        self._offer_layers(view.offers)
        self._advice.setText(f"{view.advice}: the model may err" if view.advice else "")
        self._advice.setVisible(view.advice is not None)
        self._predict_all.setVisible(view.frames > 1 and not self._simple.isChecked())
        self._render_predict_all()
        self._classes.setEnabled(self.session.target is not None)
        self._classes.set_probabilities(view.probabilities)
        self._classes.set_value(view.label)
        self._why.setEnabled(view.probabilities is not None)
        self._why.setToolTip(_NOT_PREDICTED if view.probabilities is None else _WHY)
        self._facts.set_view(view)
        self._predict.setEnabled(view.why_no_predict is None)
        self._predict.setToolTip(view.why_no_predict or "Propose a mask and a class (G)")
        self._accept.setEnabled(view.why_no_accept is None)
        self._accept.setToolTip(view.why_no_accept or "Store this mask and class (Ctrl+Enter)")

    def _render_queue(self) -> None:
        """Show where in the queue the annotator is; the list follows soon."""
        queue = self.queue
        for widget in (self._bar, self._progress, self._place, self._show_list):
            widget.setVisible(queue.is_open)
        self._list.setVisible(queue.is_open and self._show_list.isChecked() and not self._simple.isChecked())
        self._bar.setVisible(queue.is_open and not self._simple.isChecked())
        self._accept.setText("Accept → next" if queue.is_open else "Accept")
        place = "" if queue.list.place is None else f"{queue.list.place} / {len(queue.list)}"
        self._place.setText(f"{place} reading…" if queue.busy else place)
        self._bar.set_status(queue.shown.status if queue.shown is not None and queue.is_current else None)
        if queue.shown is not self._asked_of:
            self._reason.clear()  # it was asked of another frame
        self._queue_timer.start()

    def _render_list(self) -> None:
        queue = self.queue
        if queue.is_open:
            self._list.refresh()
            self._progress.set_counts(queue.list.counts(), sum(bool(entry.problem) for entry in queue.list))

    def _render_simple(self) -> None:
        for widget in (self._facts, self._why, self._repair, self._notes, self._notice, self._help):
            widget.setVisible(not self._simple.isChecked())
        self._keys.setVisible(self._help.isChecked() and not self._simple.isChecked())
        self._render_queue()
        self._render()

    def _on_listed(self) -> None:
        self._list.set_queue(self.queue.list)
        self._render_queue()

    def _put_aside(self, status: Literal["flagged", "skipped", "excluded"]) -> None:
        entry = self.queue.shown
        if entry is None or not self.queue.is_current:
            show_warning(NO_QUEUE)
        elif entry.stored == status:
            self.queue.mark("open", "")
        else:
            self._asked_of = entry
            self._reason.ask(status)

    def _render_predict_all(self) -> None:
        broken = self.news.trouble is not None
        self._predict_all.setEnabled(not broken and not self.predicting.predicts_all)
        self._predict_all.setToolTip(BROKEN if broken else _PREDICT_ALL)

    def _offer_layers(self, offers: tuple[Offer, ...]) -> None:
        if offers == self._offered:
            return
        self._offered = offers
        if not offers:
            self._offer.clear()
            return
        usable = [offer for offer in offers if offer.why_not is None]
        text = ";\n".join(offer.text for offer in offers[:_OFFERS])
        answers: list[tuple[str, Callable[[], object]]] = [
            (f"Use “{shorten(offer.name, 20)}” as the mask", partial(self._use_layer, offer))
            for offer in usable[:_OFFERS]
        ]
        leave = "Leave it" if len(offers) == 1 else "Leave them"
        self._offer.ask(
            text + (".\nUse it?" if usable else ": not used."), [*answers, (leave, self._leave_layers)]
        )

    def _use_layer(self, offer: Offer) -> None:
        try:
            self.session.use_layer(offer)
        except SonoloopError as error:
            show_problem(error)
        focus_canvas(self)

    def _leave_layers(self) -> None:
        self.session.leave_layers()
        focus_canvas(self)

    def _on_preferences(self) -> None:
        # every beginning of a store's name that is being typed would become a store: `news` waits for its end
        if self.session.preferences().store == self.news.store:
            self.deciding.look_up_again()
            self.journal.look_for_drafts()
            self.queue.statuses.refresh()

    def _on_busy(self, busy: bool) -> None:
        self._model.set_busy(busy)
        self._model.set_text(self.predicting.model_line)
        self._render_predict_all()

    def _on_progress(self, number: int, total: int) -> None:
        self._model.set_progress(number, total)
        self._model.set_text(self.predicting.model_line)
        self._render_predict_all()

    def _on_asked(self, question: Question | None) -> None:
        if question is Question.NORMAL_WITH_LESION:
            self._question.ask(
                "This frame is called normal, and a lesion is drawn on it. Which holds?",
                [
                    ("Normal: clear and accept", self.deciding.keep_normal),
                    ("The lesion: choose a class", self.deciding.keep_lesion),
                ],
            )
        elif question is Question.NO_LESION:
            self._question.ask(
                "No lesion is drawn on this frame.",
                [
                    ("No lesion here: accept", lambda: self.deciding.accept(no_lesion=True)),
                    ("Go on drawing", self._go_on_drawing),
                ],
            )
        else:
            self._question.clear()

    def _choose(self, label: Label) -> None:
        self.deciding.choose(label)
        if label in ("benign", "malignant"):
            offer_canvas(self.session)

    def _go_on_drawing(self) -> None:
        self._question.clear()
        take_up_brush(self.session)

    def _on_conflict(self, target: Target, conflict: HeadMovedError) -> None:
        def answer(keep_mine: bool) -> None:
            self.deciding.settle(target, conflict, keep_mine=keep_mine)

        ask_which(target.name, conflict, answer, parent=self)

    def _on_accepted(self, target: Target) -> None:
        state, current = self.session.state(target), self.session.target
        self.journal.accepted(target)
        self.predicting.overwriting.forget(target)
        self.predicting.release(target)
        waits = state.draw_first and state.prediction is None
        if waits and current is not None and current.key == target.key:
            self.predicting.predict()

    def _on_looked_up(self, target: Target, found: bool) -> None:
        self.journal.look_up_answered(target)
        self.predicting.look_up_answered(target)
        lay_out_canvas(self.session)
        current = self.session.target
        if current is None or current.key != target.key:
            return  # the answer for a frame that was passed on the way
        if not (self._predict_first or (self.queue.is_current and self.queue.predicts)):
            return
        self._predict_first = False
        state = self.session.state(target)
        known = (state.prediction, state.held, state.kept)
        if not found and not state.withheld and all(each is None for each in known):
            self.predicting.predict()

    def _on_theme(self, _event: object = None) -> None:
        theme = self._viewer.theme
        self._help.setIcon(themed_icon("help", theme))
        self._accept.setIcon(themed_icon("check", theme))
        self.lesions.redraw()
        self._classes.set_colour(get_theme(theme).current.as_hex())
