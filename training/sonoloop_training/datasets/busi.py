"""BUSI: a folder a class, masks beside the images; as downloaded, or as Hugging Face's image folder.

Al-Dhabyani et al., Dataset of breast ultrasound images, Data in Brief 28, 104863, 2020.
"""

from __future__ import annotations

from pathlib import Path

from sonoloop.errors import TrainingError
from sonoloop.imaging.image_files import find_images, is_image_path, mask_paths
from sonoloop.values import CLASSES
from sonoloop_training.datasets.groups import FindGroups, group_samples
from sonoloop_training.datasets.sample import Sample, class_folders, subfolder

# how Hugging Face names the parts of a dataset
_PARTS = ("train", "validation", "valid", "val", "test")


def is_busi(root: Path) -> bool:
    """Whether a folder holds a folder of each class."""
    return len(class_folders(root)) == len(CLASSES)


def is_part_of_busi(root: Path) -> bool:
    """Whether one class is missing; `load_busi` says which."""
    return len(class_folders(root)) == len(CLASSES) - 1


def load_busi(
    root: Path, groups: Path | None = None, *, find_groups: FindGroups | None = None
) -> list[Sample]:
    """List BUSI: one folder a class, masks beside the images."""
    samples = _list_classes(root)
    _check_names(samples)
    return group_samples(samples, root, groups=groups, find_groups=find_groups)


def load_huggingface(
    root: Path, groups: Path | None = None, *, find_groups: FindGroups | None = None
) -> list[Sample]:
    """List BUSI in Hugging Face's image folder: `train/benign/benign (1).png` and so on.

    Its parts are put together: they were made image by image, and would leave twins on both sides.
    """
    parts = part_folders(root)
    if not parts:
        if parquet_files(root):
            raise TrainingError(
                f"{root} holds Parquet files; unpack them first: sonoloop data unpack {root} --out FOLDER"
            )
        raise TrainingError(f"{root} has no folder train with the folders {', '.join(CLASSES)}")
    samples = [sample for part in parts for sample in _list_classes(part)]
    _check_names(samples)
    return group_samples(samples, root, groups=groups, find_groups=find_groups)


def is_huggingface(root: Path) -> bool:
    """Whether a folder holds a part of an image folder."""
    return bool(part_folders(root))


def part_folders(root: Path) -> list[Path]:
    """Return the parts of an image folder: `train`, `validation`, `test` with all the classes in each."""
    parts = [subfolder(root, part) for part in _PARTS]
    return [part for part in parts if part is not None and is_busi(part)]


def parquet_files(root: Path) -> list[Path]:
    """Return the Parquet files of a Hugging Face dataset: in `root` or its folder `data`."""
    return sorted(path for pattern in ("*.parquet", "data/*.parquet") for path in root.glob(pattern))


def _list_classes(root: Path) -> list[Sample]:
    folders = class_folders(root)
    samples = []
    for label in CLASSES:
        if label not in folders:
            raise TrainingError(
                f"{root} has no folder {label!r}; give the folder that holds benign, malignant, normal"
            )
        found = find_images([folders[label]])
        # an image that is left out is named when it is read; a folder would be missed by nobody
        for left_out in found.left_out:
            if not is_image_path(left_out.path):
                raise TrainingError(str(left_out.error)) from left_out.error
        paths = [*(image.path for image in found.images), *(one.path for one in found.left_out)]
        samples += [
            Sample(
                name=path.stem,
                dataset="busi",
                image=path,
                masks=tuple(mask_paths(path)),
                label=label,
                group=f"busi/{path.stem}",
            )
            for path in paths
        ]
    if not samples:
        raise TrainingError(f"{root} holds no images; unpack the dataset into it")
    return samples


def _check_names(samples: list[Sample]) -> None:
    seen: dict[str, Path] = {}
    for sample in samples:
        other = seen.setdefault(sample.name.casefold(), sample.image)
        if other != sample.image:
            raise TrainingError(f"{other} and {sample.image} have one name; rename or remove one of them")
