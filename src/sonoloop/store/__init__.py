"""What people decide about frames, and the store that keeps it."""

from sonoloop.store.corrections import CorrectionStore
from sonoloop.store.database import default_url
from sonoloop.store.revisions import HeadMovedError, Revision

__all__ = ["CorrectionStore", "HeadMovedError", "Revision", "default_url"]
