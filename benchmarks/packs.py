"""What packing costs: bytes an image, and by how much what a network gets differs from the files.

python benchmarks/packs.py DIR... [--size 320] [--lossless] [--at 256 320] [--every 10] [--out FILE]

The datasets are packed to a temporary file. Then every so-many-th image is brought to the sizes of networks,
from the files and from the pack, as a training does it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch

from sonoloop.jobs.events import Packed
from sonoloop.jobs.events import drain as finish
from sonoloop.jobs.request import PackRequest
from sonoloop_training.datasets import find_datasets
from sonoloop_training.datasets.packing import pack
from sonoloop_training.fit.batches import Cache, cache_samples


def main() -> None:
    """Pack, compare, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--lossless", action="store_true")
    parser.add_argument("--at", type=int, nargs="+", default=[256, 320])
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        path, begun = Path(scratch) / "all.pack", time.process_time()
        wanted = PackRequest(
            folders=tuple(options.folders), out=path, size=options.size, lossless=options.lossless
        )
        done = next(event for event in pack(wanted) if isinstance(event, Packed))
        seconds = time.process_time() - begun
        files = [sample for folder in options.folders for sample in find_datasets(folder)][:: options.every]
        packed = find_datasets(path)[:: options.every]
        compared = {}
        for size in options.at:
            one, other = (finish(cache_samples(samples, size=size)) for samples in (files, packed))
            compared[str(size)] = compare(one, other)
    result = {
        "what": "a pack: bytes an image, and how what a network of a size gets differs from the files",
        "size": options.size,
        "lossless": options.lossless,
        "datasets": done.datasets,
        "images": done.images,
        "resized": done.resized,
        "megabytes": round(done.bytes / 1e6, 1),
        "kilobytes_an_image": round(done.bytes / done.images / 1000, 2),
        "own_seconds_an_image": round(seconds / done.images, 3),
        "compared": len(files),
        "at": compared,
    }
    text = json.dumps(result, indent=1)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    print(text)


def compare(one: Cache, other: Cache) -> dict[str, float]:
    """Give how far grey levels are off, of 255, and how alike the masks are."""
    apart = (one.images.int() - other.images.int()).abs()
    both = (one.masks & other.masks).sum((1, 2))
    either = one.masks.sum((1, 2)) + other.masks.sum((1, 2))
    dices = (2 * both / either)[either > 0]
    return {
        "mean_off": round(float(apart.float().mean()), 3),
        "most_off": int(apart.max()),
        "mean_mask_dice": round(float(dices.mean()), 5),
        "least_mask_dice": round(float(dices.min()), 5),
        "same_images": int(torch.eq(apart.amax((1, 2)), 0).sum()),
    }


if __name__ == "__main__":
    main()
