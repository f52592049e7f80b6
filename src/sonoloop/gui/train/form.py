"""A form made from the fields of a request that say how a panel asks for them; its widgets are magicgui's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from magicgui.widgets import create_widget
from magicgui.widgets.bases import CategoricalWidget, ValueWidget
from qtpy.QtCore import QObject, Qt, Signal
from qtpy.QtWidgets import QLabel, QSizePolicy, QWidget

from sonoloop.jobs.request import Asked, Request, asked_of


class RequestForm(QObject):
    """Asks for what a request holds; a panel lays its rows out.

    Parameters
    ----------
    request : type of Request
        Its fields with an `InForm` are asked for, in their order.
    parent : QObject, optional
        The owner.
    """

    changed = Signal()

    def __init__(self, request: type[Request], parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._asked = {each.name: each for each in asked_of(request) if each.option.form is not None}
        self._widgets = {name: _make_widget(each) for name, each in self._asked.items()}
        for widget in self._widgets.values():
            widget.changed.connect(lambda _value: self.changed.emit())
        # what is asked for, while a job's own is shown instead
        self._kept: dict[str, Any] | None = None
        self._job: Mapping[str, Any] | None = None

    def rows(self) -> list[tuple[QLabel, QWidget]]:
        """Return the label and the widget of each field."""
        return [(QLabel(each.label), each.native) for each in self._widgets.values()]

    def values(self) -> dict[str, Any]:
        """Return what is asked for now, by the names of the fields."""
        given = {name: widget.value for name, widget in self._widgets.items()}
        return {
            name: None if value is None else self._asked[name].kind(value) for name, value in given.items()
        }

    def show_job(self, plan: Mapping[str, Any] | None) -> None:
        """Show what a job that runs was asked for, which cannot be changed; None to ask again."""
        if plan == self._job:
            return
        self._job = plan
        if plan is None:
            assert self._kept is not None
            kept, self._kept = self._kept, None
            for name, value in kept.items():
                self._put(name, value)
        else:
            if self._kept is None:
                self._kept = {name: widget.value for name, widget in self._widgets.items()}
            for name in self._widgets.keys() & plan.keys():
                self._put(name, plan[name])
        for widget in self._widgets.values():
            widget.native.setEnabled(plan is None)

    def _put(self, name: str, value: Any) -> None:  # noqa: ANN401 - a field's
        """Show a value, also one that could not be asked for, such as no limit."""
        widget, form = self._widgets[name], self._asked[name].option.form
        assert form is not None
        widget.native.blockSignals(True)
        if isinstance(widget, CategoricalWidget):
            if value is not None and value not in widget.choices:
                widget.choices = [*_pairs(widget), (str(value), value)]
            widget.value = value
        elif form.least is not None:
            number = value if isinstance(value, int | float) else None
            within = (
                number is not None and number == int(number) and form.least <= number <= (form.most or number)
            )
            told = "no limit" if number is None else f"{number:g}{form.unit}"
            # shown in the place of the least
            widget.native.setSpecialValueText("" if within else told)
            widget.value = number if within else form.least
        widget.native.blockSignals(False)

    def set_choices(self, name: str, choices: Sequence[str]) -> None:
        """Offer choices beside none; what was chosen stays chosen, if it is still among them."""
        widget, form = self._widgets[name], self._asked[name].option.form
        chosen = widget.value
        nothing = [] if form is None or form.nothing is None else [(form.nothing, None)]
        assert isinstance(widget, CategoricalWidget)
        if self._kept is not None and chosen is not None and chosen not in choices:
            choices = (*choices, chosen)  # a job's own
        widget.choices = [*nothing, *((each, each) for each in choices)]
        widget.value = chosen if chosen in choices else None


def _pairs(widget: CategoricalWidget[Any]) -> list[tuple[str, Any]]:
    native = widget.native
    return [(native.itemText(place), value) for place, value in enumerate(widget.choices)]


def _make_widget(asked: Asked) -> ValueWidget[Any]:
    form = asked.option.form
    assert form is not None
    options: dict[str, Any] = {"tooltip": form.tip}
    kind: Any = asked.kind
    bounded = form.least is not None
    if form.nothing is not None:
        options |= {"widget_type": "ComboBox", "choices": [(form.nothing, None)]}
    elif asked.choices:
        options |= {"widget_type": "ComboBox", "choices": list(asked.choices)}
    elif bounded:
        # magicgui's own box of whole numbers shows no unit
        kind, options = float, {**options, "min": form.least, "max": form.most, "step": 1}
    value = {} if form.value is None and asked.default is None else {"value": form.value or asked.default}
    widget = create_widget(annotation=kind, name=asked.name, label=form.label, options=options, **value)
    assert isinstance(widget, ValueWidget)
    native = widget.native
    native.setAccessibleName(form.label)
    if bounded:
        native.setDecimals(0)
        native.setSuffix(form.unit)
    if "choices" in options:
        # a long name must not widen the panel
        native.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
    if asked.kind is bool:
        native.setFocusPolicy(Qt.FocusPolicy.TabFocus)
    return widget
