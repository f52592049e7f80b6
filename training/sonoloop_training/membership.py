"""Who was where in a training: what `split.json` holds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Mapping, Sequence
from typing import Any

from sonoloop.imaging.fingerprints import fingerprint
from sonoloop.jobs.events import Progress
from sonoloop_training.datasets import Sample
from sonoloop_training.splits import LEFT_OUT, PARTS, Part

SPLIT = "split.json"

Members = dict[Part, list[dict[str, str]]]
_EVERY = 50


def describe_split(
    parts: Mapping[Part, Sequence[Sample]], samples: Sequence[Sample] = ()
) -> dict[str, list[str]]:
    """List who is where, and who of `samples` is nowhere if there are any, as "dataset/name"."""
    listing: dict[str, list[str]] = {
        part: sorted(f"{s.dataset}/{s.name}" for s in parts[part]) for part in PARTS
    }
    placed = {name for names in listing.values() for name in names}
    left_out = sorted({f"{s.dataset}/{s.name}" for s in samples} - placed)
    return listing | {LEFT_OUT: left_out} if left_out else listing


def hash_split(listing: Mapping[Any, Any]) -> str:
    """SHA-256 of who is where; 64 hex digits."""
    return hashlib.sha256(json.dumps(listing, sort_keys=True).encode()).hexdigest()


def list_members(
    parts: Mapping[Part, Sequence[Sample]],
) -> Generator[Progress, None, Members]:
    """List every image so that it, and a near copy of it, is known again wherever it lies."""
    total, done = sum(len(samples) for samples in parts.values()), 0
    members: Members = {}
    for part in PARTS:
        members[part] = []
        for sample in parts[part]:
            if done % _EVERY == 0:
                yield Progress(stage="Listing", done=done, total=total)
            frame, _ = sample.read()
            members[part].append(
                {
                    "name": f"{sample.dataset}/{sample.name}",
                    "group": sample.group,
                    "id": frame.id,
                    "pixels_hash": frame.pixels_hash,
                    "fingerprint": fingerprint(frame.pixels),
                }
            )
            done += 1
    return members
