"""Devices as users know them."""

from __future__ import annotations


def device_name(device: str) -> str:
    """Name a device that torch spells, such as "cuda:1"."""
    kind, _, number = device.partition(":")
    names = {"cpu": "CPU", "cuda": "GPU", "mps": "Apple GPU"}
    return f"{names.get(kind, kind)} {number}" if number not in ("", "0") else names.get(kind, kind)
