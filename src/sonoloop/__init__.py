"""Sonoloop: propose, correct, keep and learn from breast-ultrasound lesion masks, in napari."""

__version__ = "0.1.0"
