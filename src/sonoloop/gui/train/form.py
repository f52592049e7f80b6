"""A form made from the fields of a request that say how a panel asks for them; its widgets are magicgui's."""

from __future__ import annotations

from collections.abc import Sequence
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

    def rows(self) -> list[tuple[QLabel, QWidget]]:
        """Return the label and the widget of each field."""
        return [(QLabel(each.label), each.native) for each in self._widgets.values()]

    def values(self) -> dict[str, Any]:
        """Return what is asked for now, by the names of the fields."""
        given = {name: widget.value for name, widget in self._widgets.items()}
        return {
            name: None if value is None else self._asked[name].kind(value) for name, value in given.items()
        }

    def set_choices(self, name: str, choices: Sequence[str]) -> None:
        """Offer choices beside none; what was chosen stays chosen, if it is still among them."""
        widget, form = self._widgets[name], self._asked[name].option.form
        chosen = widget.value
        nothing = [] if form is None or form.nothing is None else [(form.nothing, None)]
        assert isinstance(widget, CategoricalWidget)
        widget.choices = [*nothing, *((each, each) for each in choices)]
        widget.value = chosen if chosen in choices else None


def _make_widget(asked: Asked) -> ValueWidget[Any]:
    form = asked.option.form
    assert form is not None
    options: dict[str, Any] = {"tooltip": form.tip}
    kind: Any = asked.kind
    if form.nothing is not None:
        options |= {"widget_type": "ComboBox", "choices": [(form.nothing, None)]}
    elif asked.choices:
        options |= {"widget_type": "ComboBox", "choices": list(asked.choices)}
    elif form.least is not None or form.most is not None:
        # magicgui's own box of whole numbers shows no unit
        kind, options = float, {**options, "min": form.least, "max": form.most, "step": 1}
    value = {} if form.value is None and asked.default is None else {"value": form.value or asked.default}
    widget = create_widget(annotation=kind, name=asked.name, label=form.label, options=options, **value)
    assert isinstance(widget, ValueWidget)
    native = widget.native
    native.setAccessibleName(form.label)
    if kind is float:
        native.setDecimals(0)
        native.setSuffix(form.unit)
    if "choices" in options:
        # a long name must not widen the panel
        native.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
    if asked.kind is bool:
        native.setFocusPolicy(Qt.FocusPolicy.TabFocus)
    return widget
