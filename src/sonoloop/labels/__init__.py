"""What people decide about frames, and the store that keeps it."""

from sonoloop.labels.location import default_url
from sonoloop.labels.revisions import HeadMovedError, Revision
from sonoloop.labels.store import CorrectionStore

__all__ = ["CorrectionStore", "HeadMovedError", "Revision", "default_url"]
