"""Errors to napari notifications: the one place where they become text for a user."""

from __future__ import annotations

import logging

from napari.utils.notifications import (
    ErrorNotification,
    notification_manager,
    show_error,
    show_warning,
)

from sonoloop.errors import SonoloopError, UnsupportedImageError

logger = logging.getLogger(__name__)


def show_problem(error: Exception) -> None:
    """Show an error as a notification; an unexpected one with its traceback, which is logged too."""
    if isinstance(error, UnsupportedImageError):
        show_warning(str(error))
    elif isinstance(error, SonoloopError):
        logger.info("%s: %s", type(error).__name__, error)
        show_error(str(error))
    else:
        logger.error("unexpected error", exc_info=error)
        notification_manager.dispatch(ErrorNotification(error))
