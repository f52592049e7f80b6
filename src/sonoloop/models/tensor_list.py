"""What a safetensors file says of its tensors, before any is read; without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sonoloop.models.schema import check_type, parse_json, show

MAX_HEADER_BYTES = 8 << 20


def read_header(data: bytes) -> dict[str, Mapping[str, Any]]:
    """Read what a safetensors file says of each tensor; a `ValueError` for what is none."""
    length = int.from_bytes(data[:8], "little")
    if not 2 <= length <= len(data) - 8:
        raise ValueError(f"it has {len(data):,} bytes, and its list of tensors {length:,}")
    if length > MAX_HEADER_BYTES:
        raise ValueError(f"its list of tensors has {length:,} bytes, more than {MAX_HEADER_BYTES:,}")
    header: dict[str, Mapping[str, Any]] = parse_json(data[8 : 8 + length])
    check_type("its list of tensors", Mapping[str, Mapping[str, Any]], header)
    header.pop("__metadata__", None)
    for name, told in header.items():
        check_type(f"{show(name)}.dtype", str, told.get("dtype"))
        check_type(f"{show(name)}.shape", list[int], told.get("shape"))
        check_type(f"{show(name)}.data_offsets", list[int], told.get("data_offsets"))
    return header
