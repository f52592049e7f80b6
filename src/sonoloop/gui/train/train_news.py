"""What there is to learn from, in words."""

from __future__ import annotations

from collections.abc import Mapping

from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget

from sonoloop.gui.desks import Outlook

_FEWEST = 5  # the training refuses fewer


class NewsText(QWidget):
    """Says what is new since the model in use, by class and by annotator.

    Parameters
    ----------
    parent : QWidget, optional
        The panel.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._news, self._learn, self._by_annotator = QLabel(), QLabel(), QLabel()
        font = self._news.font()
        font.setBold(True)
        self._news.setFont(font)
        self._learn.setToolTip("What judges was drawn before the prediction was seen, and never trains")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(8)
        for label in (self._news, self._learn, self._by_annotator):
            label.setWordWrap(True)
            layout.addWidget(label)

    def set_outlook(self, outlook: Outlook | None) -> None:
        """Show what was counted; None while it is being counted."""
        if outlook is None:
            self._news.setText("Counting what is new")
            return
        news = outlook.news
        self._news.setText(f"New since {outlook.model}")
        self._learn.setText(f"{news.learn} to learn from{_brackets(news.by_class)}, {news.judge} to judge")
        self._by_annotator.setText("By " + ", ".join(f"{who} {n}" for who, n in news.by_annotator.items()))
        self._by_annotator.setVisible(bool(news.by_annotator))


def describe_too_few(outlook: Outlook | None) -> str | None:
    """Say that more must be accepted before anything can be learned; None where that is not so."""
    if outlook is None or outlook.lessons >= _FEWEST:
        return None
    return f"Accept at least {_FEWEST} images first; {outlook.lessons} so far"


def _brackets(counts: Mapping[str, int]) -> str:
    return f" ({', '.join(f'{n} {name}' for name, n in counts.items())})" if counts else ""
