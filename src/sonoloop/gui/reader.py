"""The reader: opens in napari what the command line opens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from napari import current_viewer
from napari.utils.notifications import show_info
from numpy.typing import NDArray

from sonoloop.errors import ImageError, ImageTruncatedError, NotAnImageError
from sonoloop.gui.launch import annotate_panel
from sonoloop.gui.widgets import show_notice
from sonoloop.imaging.grey import frame_from_array
from sonoloop.imaging.image_files import find_images, is_image_path, is_mask_path
from sonoloop.imaging.io import Study, read_study
from sonoloop.imaging.phantom import Phantom, sample_study
from sonoloop.values import Frame

LayerData = tuple[Any, dict[str, Any], str]
Paths = str | Sequence[str]

# what napari takes for "it was opened, and makes no layer"
_NO_LAYER: list[LayerData] = [(None,)]  # type: ignore[list-item]
# files of a folder, where none can be read
_MOST_TRIED = 20


def get_reader(path: Paths) -> Callable[[Paths], list[LayerData]] | None:
    """Return the reader if it takes the path: an image, a mask, a folder with images, or a list of images."""
    paths = [Path(path)] if isinstance(path, str) else [Path(p) for p in path]
    if all(p.is_dir() or is_image_path(p) or is_mask_path(p) for p in paths):
        return read
    return None


def read(path: Paths) -> list[LayerData]:
    """Read a path into layers.

    A file with several frames is one layer with a slider. A folder becomes the queue of the Annotate panel;
    where that is not open, the first image of the folder is a layer, and the panel takes over from there. A
    mask opened by itself is a Labels layer. A list of paths, which napari passes when asked to open as a
    stack, is stacked.
    """
    if not isinstance(path, str):
        return [_read_stack([Path(p) for p in path])]
    one = Path(path)
    if one.is_dir():
        return _read_folder(one)
    if is_mask_path(one):
        return [_read_mask(one)]
    return [_read_image(one)]


def layer_data(name: str, frames: Sequence[Frame], colour: NDArray[Any] | None) -> LayerData:
    """Make an image layer of frames of one size and type, with what finds them again in its metadata."""
    files = tuple((frame.path, frame.index) for frame in frames if frame.path is not None)
    pixels = np.stack([frame.pixels for frame in frames]) if colour is None else colour
    single = len(frames) == 1
    options: dict[str, Any] = {
        "name": name,
        "rgb": colour is not None,
        "metadata": {
            "sonoloop": {
                "frame_ids": tuple(frame.id for frame in frames),
                "pixels_hashes": tuple(frame.pixels_hash for frame in frames),
                "names": tuple(frame.name for frame in frames),
                "orientations": tuple(frame.orientation for frame in frames),
                **({"files": files} if len(files) == len(frames) else {}),
            }
        },
    }
    if colour is None and pixels.dtype == np.uint8:
        # ultrasound is made for the screen: as it is stored, not stretched image by image
        options["contrast_limits"] = (0, 255)
    spacing = frames[0].spacing
    if spacing is not None:
        options["scale"] = spacing if single else (1, *spacing)
        options["units"] = ("mm", "mm") if single else ("pixel", "mm", "mm")
    return (pixels[0] if single else pixels), options, "image"


def _read_image(path: Path) -> LayerData:
    study = read_study(path)
    for note in study.notes:
        show_notice(note)
    shapes = {frame.shape for frame in study.frames}
    if len(shapes) > 1:
        raise NotAnImageError(f"the pages of {study.name} differ in size; save each as a file of its own")
    if len(types := _types(study.frames)) > 1:
        raise NotAnImageError(
            f"the pages of {study.name} differ in type ({', '.join(types)}); save each as a file of its own"
        )
    return layer_data(path.stem, study.frames, study.colour)


def _types(frames: Sequence[Frame]) -> list[str]:
    # stacked, they would all become of one type: other pixels than those of the files
    return sorted({str(frame.pixels.dtype) for frame in frames})


def _read_folder(folder: Path) -> list[LayerData]:
    viewer = current_viewer()
    panel = None if viewer is None else annotate_panel(viewer)
    if panel is not None:
        panel.queue.open([folder])
        return _NO_LAYER
    searched = find_images([folder])
    found, problems = searched.images, [str(one.error) for one in searched.left_out]
    total = len(found) + len(problems)
    if not total:
        raise NotAnImageError(f"{folder.name} holds no PNG, JPEG, TIFF or BMP image; choose another folder")
    for image in found:
        try:
            layer = _read_image(image.path)
        except ImageError as error:
            problems.append(str(error))
            if len(problems) < _MOST_TRIED:
                continue
            break
        if problems:
            show_notice(f"{len(problems)} of {total} not read: {problems[0]}")
        if len(found) > 1:
            layer[1]["metadata"]["sonoloop"]["folder"] = folder
            show_info(f"The first of {len(found)} images; Plugins > Sonoloop > Annotate goes through all")
        return [layer]
    raise NotAnImageError(f"no image of {folder.name} could be read; the first: {problems[0]}")


def show_first(layers: list[LayerData]) -> None:
    """Bring the first layer on top, where napari makes it the active one, and hide the others."""
    for _, options, _ in layers[1:]:
        options["visible"] = False
    layers.reverse()


def _read_stack(paths: list[Path]) -> LayerData:
    searched = find_images(paths)
    for left_out in searched.left_out:
        raise left_out.error
    found = searched.images
    if not found:
        raise NotAnImageError("there is no image among the files; masks are not stacked")
    studies = [read_study(image.path) for image in found]
    for note in (note for study in studies for note in study.notes):
        show_notice(note)
    frames = [frame for study in studies for frame in study.frames]
    shapes = {frame.shape for frame in frames}
    if len(shapes) > 1:
        sizes = " and ".join(f"{width} x {height}" for height, width in sorted(shapes)[:2])
        raise NotAnImageError(f"images of {sizes} pixels do not make a stack; open them without stacking")
    if len(_types(frames)) > 1:
        one = frames[0]
        other = next(frame for frame in frames if frame.pixels.dtype != one.pixels.dtype)
        raise NotAnImageError(
            f"{one.name} holds {one.pixels.dtype} and {other.name} {other.pixels.dtype} grey levels, which "
            "do not make a stack; open them without stacking"
        )
    return layer_data(found[0].path.parent.name, frames, _stack_colour(studies))


def _stack_colour(studies: list[Study]) -> NDArray[Any] | None:
    if all(study.colour is None for study in studies):
        return None
    parts = [
        np.stack([np.repeat(frame.pixels[..., None], 3, axis=-1) for frame in study.frames])
        if study.colour is None
        else study.colour
        for study in studies
    ]
    return np.concatenate(parts)


def _read_mask(path: Path) -> LayerData:
    """Read a mask: its palette indices or grey levels are lesion numbers, 255 or colour means lesion 1."""
    from sonoloop.formats.mask_png import read_mask  # noqa: PLC0415 - the store's, which loads slowly

    try:
        values = read_mask(path)
    except NotAnImageError:
        frame = read_study(path).frames[0]  # says so itself if it is no image at all
        if frame.note is not None:
            raise ImageTruncatedError(f"{path.name} is not whole: {frame.note}; write it again") from None
        colour = frame.pixels
        values = (colour > colour.max() / 2).astype(np.uint8)
    if values.max(initial=0) == 255:
        values = (values > 127).astype(np.uint8)
    return values, {"name": path.stem}, "labels"


def benign() -> list[LayerData]:
    """Open the benign phantom."""
    return [_sample(sample_study()[0])]


def malignant() -> list[LayerData]:
    """Open the malignant phantom."""
    return [_sample(sample_study()[1])]


def normal() -> list[LayerData]:
    """Open the normal phantom."""
    return [_sample(sample_study()[2])]


def study() -> list[LayerData]:
    """Open all three, the benign one shown."""
    layers = [_sample(phantom) for phantom in sample_study()]
    show_first(layers)
    return layers


def _sample(phantom: Phantom) -> LayerData:
    frame = frame_from_array(phantom.image, name=f"{phantom.label} phantom")
    data, options, kind = layer_data(frame.name, (frame,), None)
    # nobody's data: it is neither drawn into a part nor hidden from the annotator
    options["metadata"]["sonoloop"]["simulated"] = True
    return data, options, kind
