"""The napari side: the only package that imports Qt."""

from sonoloop.gui.launch import open_viewer

__all__ = ["open_viewer"]
