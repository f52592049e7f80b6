"""The public datasets on disk, as samples with a class, masks and a group."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sonoloop.errors import TrainingError
from sonoloop.imaging.files import find_images, mask_paths
from sonoloop.imaging.images import read_study
from sonoloop.values import CLASSES, ClassName, Frame

DATASETS = ("busi", "busbra", "phantom")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One image on disk with what is known of it.

    Parameters
    ----------
    name : str
        Unique within its dataset.
    dataset : str
        "busi", "busbra" or "phantom".
    image : pathlib.Path
        The image file.
    masks : tuple of pathlib.Path
        One file a lesion, or none.
    label : str
        The class.
    group : str
        Patient, or near-duplicates: never split between training and test.
    """

    name: str
    dataset: str
    image: Path
    masks: tuple[Path, ...]
    label: ClassName
    group: str

    def read(self) -> tuple[Frame, NDArray[np.bool_]]:
        """Read the frame and the union of its masks, both (H, W)."""
        frame = read_study(self.image).frames[0]
        mask = np.zeros(frame.shape, np.bool_)
        for path in self.masks:
            mask |= read_mask(path, frame.shape)
        return frame, mask


def read_mask(path: Path, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Read a 1-bit, grey or colour mask file as (H, W) booleans.

    Raises
    ------
    TrainingError
        If its size is not the image's.
    ImageError
        If it cannot be read.
    """
    mask: NDArray[np.bool_] = read_study(path).frames[0].pixels > 0
    if mask.shape != shape:
        raise TrainingError(
            f"{path.name} is {mask.shape[1]} x {mask.shape[0]}, its image {shape[1]} x {shape[0]}"
        )
    return mask


def load_busi(root: Path, groups: Path | None = None) -> list[Sample]:
    """List BUSI: one folder a class, masks beside the images.

    Parameters
    ----------
    root : pathlib.Path
        Holds the folders `benign`, `malignant` and `normal`.
    groups : pathlib.Path, optional
        JSON with the near-duplicates, by default `busi_groups.json` beside `root`; an image
        not listed is alone in its group. Groups whose members contradict each other in class are left out.

    Raises
    ------
    TrainingError
        If the folders or the list of groups are not there: without it, twins would leak into the test.
    """
    listing = groups or root.parent / "busi_groups.json"
    if not listing.is_file():
        raise TrainingError(f"{listing} is missing; BUSI is split by its near-duplicates, so give their list")
    group_of, dropped = _busi_groups(json.loads(listing.read_text(encoding="utf-8"))["groups"])
    samples = []
    for label in CLASSES:
        folder = root / label
        if not folder.is_dir():
            raise TrainingError(
                f"{root} has no folder {label!r}; give the folder that holds benign, malignant, normal"
            )
        for found in find_images([folder]):
            name = found.path.stem
            if name not in dropped:
                samples.append(
                    Sample(
                        name=name,
                        dataset="busi",
                        image=found.path,
                        masks=tuple(mask_paths(found.path)),
                        label=label,
                        group=f"busi/{group_of.get(name, name)}",
                    )
                )
    return samples


def _busi_groups(listed: Iterable[Mapping[str, object]]) -> tuple[dict[str, str], set[str]]:
    group_of: dict[str, str] = {}
    dropped: set[str] = set()
    for entry in listed:
        images = [str(name) for name in entry["images"]]  # type: ignore[attr-defined]
        group_of.update(dict.fromkeys(images, images[0]))
        if entry.get("conflicting_classes"):
            dropped.update(images)
    return group_of, dropped


def load_busbra(root: Path) -> list[Sample]:
    """List BUS-BRA: `Images`, `Masks` and `bus_data.csv`; a group is a patient.

    Raises
    ------
    TrainingError
        If the table is missing or a file that it names is.
    """
    table = root / "bus_data.csv"
    if not table.is_file():
        raise TrainingError(f"{root} has no bus_data.csv; give BUS-BRA's own folder")
    samples = []
    with table.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            name = row["ID"]
            image = root / "Images" / f"{name}.png"
            mask = root / "Masks" / f"{name.replace('bus_', 'mask_', 1)}.png"
            if not (image.is_file() and mask.is_file()):
                raise TrainingError(f"bus_data.csv names {name}, whose image or mask is missing")
            label = CLASSES[CLASSES.index(row["Pathology"])]
            samples.append(
                Sample(
                    name=name,
                    dataset="busbra",
                    image=image,
                    masks=(mask,),
                    label=label,
                    group=f"busbra/{row['Case']}",
                )
            )
    return samples


def find_datasets(data: Path) -> list[Sample]:
    """List every dataset that is known by its layout, at `data` or one folder below.

    Raises
    ------
    TrainingError
        If there is none.
    """
    if not data.is_dir():
        raise TrainingError(f"there is no folder {data}; give the folder with the datasets")
    samples: list[Sample] = []
    for folder in [data, *sorted(path for path in data.iterdir() if path.is_dir())]:
        if (folder / "bus_data.csv").is_file():
            samples += load_busbra(folder)
        elif all((folder / label).is_dir() for label in CLASSES):
            samples += load_busi(folder)
    if not samples:
        raise TrainingError(
            f"{data} holds neither BUSI (benign, malignant, normal) nor BUS-BRA (bus_data.csv)"
        )
    return samples
