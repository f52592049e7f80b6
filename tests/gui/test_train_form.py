"""A field of a request that says how a panel asks for it is a row of the form."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from qtpy.QtWidgets import QCheckBox, QComboBox, QDoubleSpinBox

from sonoloop.gui.train.form import RequestForm
from sonoloop.jobs.request import FinetuneRequest, InForm, option


@dataclass(frozen=True, slots=True, kw_only=True)
class Tinted(FinetuneRequest):
    """A fine-tuning with one thing more to ask for."""

    mirror: bool = option("Mirror.", default=False, form=InForm(label="Mirror", tip="As in a glass"))


@pytest.fixture
def form(qtbot):
    form = RequestForm(Tinted)
    for label, widget in form.rows():
        qtbot.addWidget(label)
        qtbot.addWidget(widget)
    return form


def test_one_field_more_is_one_row_more(form):
    rows = [(label.text(), type(widget)) for label, widget in form.rows()]
    assert [text for text, _ in rows] == ["Snapshot", "Budget", "Mirror"]
    assert all(
        issubclass(kind, base)
        for (_, kind), base in zip(rows, (QComboBox, QDoubleSpinBox, QCheckBox), strict=True)
    )
    assert form.values() == {"snapshot": None, "max_minutes": 5.0, "mirror": False}
    _, mirror = form.rows()[-1]
    assert (mirror.toolTip(), mirror.accessibleName()) == ("As in a glass", "Mirror")
    mirror.setChecked(True)
    assert Tinted(**form.values()) == Tinted(max_minutes=5.0, mirror=True)


def test_a_choice_stays_as_long_as_there_is_one(form, qtbot):
    _, snapshot = form.rows()[0]
    form.set_choices("snapshot", ["second", "first"])
    assert [snapshot.itemText(i) for i in range(snapshot.count())] == ["All accepted", "second", "first"]
    with qtbot.waitSignal(form.changed):
        snapshot.setCurrentText("first")
    form.set_choices("snapshot", ["third", "second", "first"])
    assert form.values()["snapshot"] == "first"
    form.set_choices("snapshot", ["fourth"])
    assert form.values()["snapshot"] is None


def test_minutes_are_whole_and_within_a_day(form):
    _, budget = form.rows()[1]
    assert budget.text() == "5 min"
    budget.setValue(5000)
    assert form.values()["max_minutes"] == 1440


@pytest.mark.parametrize(
    ("minutes", "shown"),
    [(30, "30 min"), (0.5, "0.5 min"), (None, "no limit"), (2000, "2000 min"), ("x", "no limit")],
)
def test_the_budget_of_a_job_is_shown_whatever_it_is_and_asked_again_after_it(qtbot, minutes, shown):
    form = RequestForm(FinetuneRequest)
    (_, snapshot), (_, budget) = form.rows()
    budget.setValue(7)
    form.show_job({"snapshot": "of another store", "max_minutes": minutes})
    assert (snapshot.currentText(), budget.text()) == ("of another store", shown)
    form.set_choices("snapshot", ["first"])
    assert snapshot.currentText() == "of another store"
    form.show_job(None)
    assert (form.values()["snapshot"], form.values()["max_minutes"], budget.text()) == (None, 7, "7 min")
