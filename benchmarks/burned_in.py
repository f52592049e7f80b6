"""Recall and precision of the detector of burned-in overlays, by kind.

python benchmarks/burned_in.py --data FOLDER

FOLDER holds BUSI with `busi_groups.json` beside it, whose flags (Pawlowska et al. 2023) are of groups: an
image without callipers may be flagged for its twin's. Images without a flag count as clean. BUS-BRA has no
flags; the share that is marked there is given by scanner.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from sonoloop.imaging.io import read_study
from sonoloop_training.checking.burned_in import has_overlay
from sonoloop_training.checking.survey import Source, find_sources
from sonoloop_training.datasets.groups import read_groups


def main() -> None:
    """Print a table of each dataset."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    for source in find_sources(parser.parse_args().data):
        pixels = (read_study(sample.image).frames[0].pixels for sample in source.samples)
        seconds, said = 0.0, {}
        for sample, image in zip(source.samples, pixels, strict=True):
            start = time.perf_counter()
            said[sample.name] = has_overlay(image)
            seconds += time.perf_counter() - start
        print(f"{source.dataset}: {len(said)} images, {1000 * seconds / len(said):.1f} ms an image")
        if source.listed:
            against_flags(said, read_groups(source.listed).overlays)
        else:
            by_scanner(source, said)


def against_flags(said: dict[str, bool], overlays: Mapping[str, tuple[str, ...]]) -> None:
    """Print recall by kind, and precision with the names of what no flag bears out."""
    flagged = {name: overlays.get(name.casefold(), ()) for name in said}
    right = sum(said[name] and bool(kinds) for name, kinds in flagged.items())
    print(
        f"  precision {right / sum(said.values()):.3f}, recall {right / sum(map(bool, flagged.values())):.3f}"
    )
    by_kind: dict[str, list[bool]] = defaultdict(list)
    for name, kinds in flagged.items():
        for kind in kinds:
            by_kind[kind].append(said[name])
    for kind, found in sorted(by_kind.items()):
        print(f"  {kind}: recall {sum(found) / len(found):.3f} of {len(found)}")
    print("  not flagged:", ", ".join(name for name, kinds in flagged.items() if said[name] and not kinds))
    print("  missed:", ", ".join(name for name, kinds in flagged.items() if kinds and not said[name]))


def by_scanner(source: Source, said: dict[str, bool]) -> None:
    """Print the share that is marked for each scanner."""
    found: dict[str, list[bool]] = defaultdict(list)
    for sample in source.samples:
        found[sample.scanner].append(said[sample.name])
    for scanner, marked in sorted(found.items()):
        print(f"  {scanner}: {sum(marked) / len(marked):.3f} of {len(marked)}")


if __name__ == "__main__":
    main()
