"""A small project of simulated images, for what has to be shown or timed without anybody's data.

The lesions are drawn with a rim, as some readers do and the shipped model does not: something can be learned.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from sonoloop.imaging.io import read_study
from sonoloop.imaging.phantom import phantom
from sonoloop.store import CorrectionStore
from sonoloop.store.file_index import Places
from sonoloop.store.groups import place_frame
from sonoloop.values import CLASSES, Correction

RIM = 7  # pixels
SEED = 1000


def make_project(folder: Path, *, train: int, test: int) -> str:
    """Make the images and a store with a correction of each.

    Parameters
    ----------
    folder : pathlib.Path
        Takes the images and the store; made if it is not there.
    train, test : int
        How many images train, and how many judge: benign, malignant and normal in turn.

    Returns
    -------
    str
        The store's URL.
    """
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    url = f"sqlite:///{(folder / 'corrections.sqlite').as_posix()}"
    with CorrectionStore(url) as store:
        places = Places(store.url)
        for number in range(train + test):
            label = CLASSES[1 + number % 2] if number % 6 else CLASSES[0]
            made = phantom(label, seed=SEED + number)
            path = images / f"case {number + 1:03}.png"
            Image.fromarray(made.image).save(path)
            frame = read_study(path).frames[0]
            place_frame(store, frame, role="train" if number < train else "test")
            places.remember(frame.id, path, pixels_hash=frame.pixels_hash)
            mask = ndimage.binary_dilation(made.mask > 0, iterations=RIM) if made.mask.any() else made.mask
            correction = Correction(
                frame_id=frame.id,
                pixels_hash=frame.pixels_hash,
                mask=np.asarray(mask, np.uint8),
                label=label,
                annotator=("anna", "bela")[number % 3 == 0],
            )
            store.accept(correction, parent=None)
    return url
