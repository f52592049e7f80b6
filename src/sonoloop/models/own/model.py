"""A user's network becomes a bundle: an ONNX or safetensors file, and the TOML file beside it."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sonoloop.errors import BundleError, EngineError, check_installed
from sonoloop.imaging.grey import frame_from_array, to_unit
from sonoloop.imaging.phantom import phantom
from sonoloop.models.card import CARD, GRAPH, MAX_GRAPH_BYTES, Card
from sonoloop.models.engines import first_line
from sonoloop.models.engines.onnx import OnnxEngine
from sonoloop.models.graph_shapes import OPERATORS
from sonoloop.models.own import ONNX, OTHERS, SAFETENSORS, TOML, UNPICKLED
from sonoloop.models.own.adapter import adapt, specify
from sonoloop.models.own.description import (
    NCHW,
    NHWC,
    NONE,
    SIGMOID,
    SOFTMAX,
    Classes,
    Description,
    Input,
    Lesion,
    Network,
    read_description,
)
from sonoloop.models.own.onnx_file import OnnxFile, Port
from sonoloop.models.predictor import Predictor
from sonoloop.models.preprocess import Letterbox, normalise
from sonoloop.models.tensor_list import read_header
from sonoloop.models.torch_import import before_torch
from sonoloop.regular_files import name_size, read_regular
from sonoloop.values import CLASSES

if TYPE_CHECKING:
    from collections.abc import Iterator

_PACKAGES = (
    "torch",
    "safetensors",
    "segmentation_models_pytorch",
    "timm",
    "torchvision",
    "onnx",
    "onnxscript",
)
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_SIZE = 256
# of probabilities: of one image and of the same image among others, and beside 0 and 1
_MAX_APART, _ROUNDING = 0.01, 0.001
_ROUNDS = 3
_ALMOST_ALL = 0.9
# of the classes' probabilities together; of outputs that are each a sigmoid it is not 1
_LEAST_SUM = 0.01

# lesion probability and class logits
Answer = tuple[NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnFile:
    """A user's file as it lies there, and what it says of itself."""

    path: Path
    data: bytes = field(repr=False)
    # name by name, in words
    facts: tuple[tuple[str, str], ...]
    # what keeps it from being a model here
    faults: tuple[str, ...] = ()
    onnx: OnnxFile | None = field(default=None, repr=False)

    @property
    def beside(self) -> Path:
        """Where its description lies."""
        return self.path.with_suffix(TOML)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What a model made of simulated images."""

    # of one image, on this machine
    seconds: float
    # for each class of image the share of it that is masked, and the class probabilities
    answers: tuple[tuple[str, float, tuple[float, ...]], ...]
    notes: tuple[str, ...]


def read_own(source: Path) -> OwnFile:
    """Read a network's file, or the one that a TOML file lies beside; nothing in it is run."""
    path = _find_network(source)
    try:
        data = read_regular(path, most=MAX_GRAPH_BYTES)
    except FileNotFoundError as error:
        raise BundleError(f"there is no file {path}; check the path") from error
    except OSError as error:
        raise BundleError(f"{path.name} cannot be read ({error.strerror})") from error
    if not data:
        raise BundleError(f"{path.name} is empty; save or export the network again")
    size = ("file", f"{path.name}, {name_size(len(data))}")
    if path.suffix.lower() == SAFETENSORS:
        return OwnFile(path=path, data=data, facts=(size, *_describe_tensors(path.name, data)))
    with _told(path.name):
        onnx = OnnxFile(data)
        faults = tuple(onnx.find_faults(OPERATORS))
    facts = (
        size,
        (
            "is",
            f"ONNX, operators of set {onnx.opset}"
            + (f", by {onnx.producer[:80]!a}" if onnx.producer else ""),
        ),
        *(("takes", str(port)[:200]) for port in onnx.inputs[:_SHOWN]),
        *(("gives", str(port)[:200]) for port in onnx.outputs[:_SHOWN]),
        (
            "operations",
            f"{sum(onnx.operators.values()):,} of {len(onnx.operators)} kinds, {onnx.tensors:,} weights",
        ),
    )
    return OwnFile(path=path, data=data, facts=facts, faults=faults, onnx=onnx)


_SHOWN = 8


def describe(own: OwnFile) -> Description:
    """Read the description beside a network; where there is none, say how to get one."""
    if not os.path.lexists(own.beside):
        raise BundleError(
            f"there is no {own.beside.name} beside {own.path.name}, which says what it takes and gives: "
            f"sonoloop models check {own.path.name} --write writes one to begin with"
        )
    return read_description(own.beside)


def make_own(own: OwnFile, description: Description, folder: Path) -> Card:
    """Write a bundle of a user's network to a folder that is not there; it was not run yet."""
    name = description.name or name_of(own.path)
    if own.faults:
        raise BundleError(f"{own.path.name} cannot be used: {own.faults[0]}")
    if own.onnx is None:
        return _make_named(own, description, folder, name)
    if description.network is not None:
        raise BundleError(f"{own.beside.name}: [network] is for a safetensors file; leave it out for ONNX")
    return _write_bundle(own, description, own.onnx, folder, name=name, architecture=name)


def try_card(folder: Path, card: Card, description: Description, name: str) -> Trial:
    """Run a bundle's graph on simulated images; what it answers has to be an answer."""
    graph = (folder / GRAPH).read_bytes()
    with _told(name):
        engine = OnnxEngine(card, graph)
        # of one size, whatever the network's: a large one takes long to simulate
        shown = [phantom(label, seed=1, shape=(_SIZE, _SIZE)) for label in CLASSES]
        predictor = Predictor(engine, views=1)
        box = Letterbox(_SIZE, _SIZE, card.spec.size)
        squares = [box.apply(to_unit(each.image)) for each in shown]
        images = np.asarray(normalise(np.stack(squares)[:, None]), np.float32)
        single, seconds = [], float("inf")
        for number in range(_ROUNDS):
            start = time.perf_counter()
            single.append(_run(engine, images[number : number + 1]))
            seconds = min(seconds, time.perf_counter() - start)
        _check_answers(card, single)
        if description.classes is not None and description.classes.activation == NONE:
            _check_probabilities(single)
        _check_batch(engine, images, single)
    answers = []
    for each in shown:
        made = predictor.predict(frame_from_array(each.image, name=f"a {each.label} phantom"))
        answers.append((each.label, float((made.mask > 0).mean()), tuple(map(float, made.classes))))
    return Trial(seconds=seconds, answers=tuple(answers), notes=tuple(_find_notes(card, answers, single)))


def propose(own: OwnFile) -> Description:
    """Guess a description from what a file says; what it does not say is what is most common."""
    if own.onnx is None:
        return _propose_named(own)
    port = own.onnx.inputs[0] if own.onnx.inputs else Port("", 0, ())
    layout = (
        NHWC if len(port.shape) == 4 and port.shape[3] in (1, 3) and port.shape[1] not in (1, 3) else NCHW
    )
    place, sides = (3, port.shape[1:3]) if layout == NHWC else (1, port.shape[2:])
    channels = 1 if len(port.shape) == 4 and port.shape[place] == 1 else 3
    size = next((side for side in sides if side and 16 <= side <= 2048), _SIZE)
    lesion = classes = None
    for output in own.onnx.outputs:
        last = own.onnx.last_operator(output.name)
        if len(output.shape) in (3, 4) and lesion is None and output.shape[2:] != (1, 1):
            at = 3 if layout == NHWC else 1
            many = (output.shape[at] or 1) if len(output.shape) == 4 else 1
            many = min(max(many, 1), 64)
            activation = NONE if last in ("Sigmoid", "Softmax") else SIGMOID if many == 1 else SOFTMAX
            lesion = Lesion(
                output=output.name, activation=activation, channels=many, channel=0 if many == 1 else 1
            )
        elif classes is None:
            classes = _guess_classes(output, last)
    if lesion is None and classes is None:
        # something has to stand there for the user to correct
        lesion = Lesion(activation=SIGMOID)
    mean, std = _IMAGENET if channels == 3 else ((), ())
    return Description(
        name=name_of(own.path),
        input=Input(name=port.name, size=size, channels=channels, layout=layout, mean=mean, std=std),
        lesion=lesion,
        classes=classes,
    )


def name_of(path: Path) -> str:
    """Call a model by its file."""
    return re.sub(r"[^a-z0-9_-]+", "-", path.stem.lower()).strip("-_")[:40] or "own"


def _guess_classes(output: Port, last: str) -> Classes | None:
    count = output.shape[1] if len(output.shape) > 1 else 1
    orders = {1: CLASSES[1:], 2: CLASSES[1:], 3: CLASSES}
    if count not in orders:
        return None
    activation = NONE if last in ("Sigmoid", "Softmax") else SIGMOID if count == 1 else SOFTMAX
    return Classes(output=output.name, activation=activation, order=orders[count])


def _find_network(source: Path) -> Path:
    suffix = source.suffix.lower()
    if suffix in UNPICKLED | OTHERS:
        why = (
            "may run code when it is opened" if suffix in UNPICKLED else "is of a kind that is not read here"
        )
        raise BundleError(
            f"{source.name} {why}, and is left closed. Where the network was made, save its weights with "
            'safetensors.torch.save_file(network.state_dict(), "network.safetensors"), or the network with '
            'torch.onnx.export(network.eval(), (images,), "network.onnx", dynamo=True, external_data=False), '
            "and bring that in: see docs/own-model.md"
        )
    if suffix in (ONNX, SAFETENSORS):
        return source
    if suffix != TOML:
        raise BundleError(
            f"{source.name} is no network of your own by its name: give a file that ends in {ONNX} or "
            f"{SAFETENSORS}, or the {TOML} file beside it"
        )
    there = [path for path in map(source.with_suffix, (ONNX, SAFETENSORS)) if os.path.lexists(path)]
    if len(there) != 1:
        names = f"{source.stem}{ONNX} and {source.stem}{SAFETENSORS}"
        raise BundleError(
            f"beside {source.name} lie both {names}; give the one that is meant"
            if there
            else f"beside {source.name} lies neither {source.stem}{ONNX} nor {source.stem}{SAFETENSORS}, "
            "which it would describe"
        )
    return there[0]


def _make_named(own: OwnFile, description: Description, folder: Path, name: str) -> Card:
    network = description.network
    if network is None:
        raise BundleError(
            f"{own.beside.name} has no [network]: say which library, architecture and encoder these weights "
            "are of"
        )
    if description.input.layout != NCHW:
        raise BundleError(f"{own.beside.name}: [input] layout is for ONNX; leave it out for safetensors")
    check_installed(_PACKAGES, "train")
    before_torch()
    from sonoloop.models.bundle import save_bundle  # noqa: PLC0415 - imports torch
    from sonoloop.models.own.named_network import load_native, native_spec, write_named  # noqa: PLC0415 - as above

    spec = native_spec(description)
    if spec is not None:
        # ours are as this one is: torch can go on training it
        built, graph = load_native(spec, own.data, own.path.name)
        card = replace(_card(own, description, name), spec=spec)
        return save_bundle(folder, built, card, graph=graph).card
    data, outputs = write_named(description, own.data, own.path.name)
    lesion, classes = description.lesion, description.classes
    written = replace(
        description,
        input=replace(description.input, name=""),
        lesion=None if lesion is None else replace(lesion, output=outputs[0]),
        classes=None if classes is None else replace(classes, output=outputs[-1]),
    )
    architecture = "-".join(filter(None, (network.library, network.architecture, network.encoder)))[:100]
    with _told(own.path.name):
        onnx = OnnxFile(data)
    return _write_bundle(own, written, onnx, folder, name=name, architecture=architecture)


def _write_bundle(
    own: OwnFile, description: Description, onnx: OnnxFile, folder: Path, *, name: str, architecture: str
) -> Card:
    spec = specify(description, architecture)
    with _told(own.path.name):
        graph = adapt(onnx, description, spec.size)
    card = replace(
        _card(own, description, name), spec=spec, graphs={GRAPH: hashlib.sha256(graph).hexdigest()}
    )
    folder.mkdir(parents=True)
    (folder / GRAPH).write_bytes(graph)
    (folder / CARD).write_bytes(card.to_json().encode())
    return card


def _card(own: OwnFile, description: Description, name: str) -> Card:
    return Card(
        name=name,
        spec=specify(description, name),
        threshold=description.threshold,
        normal_gate=description.normal_gate,
        min_area=description.min_area,
        temperature=description.temperature,
        views=description.views,
        snapshot={
            "brought_in": {
                "sha256": hashlib.sha256(own.data).hexdigest(),
                "described": description.to_dict(),
            }
        },
    )


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Say of which file it is what is wrong."""
    try:
        yield
    except EngineError as error:
        # its own advice is for a bundle
        cause = error.__cause__ if isinstance(error.__cause__, ValueError) else error
        raise BundleError(f"{name} cannot be used: {cause}") from error
    except ValueError as error:
        raise BundleError(f"{name} cannot be used: {error}") from error


def _run(engine: OnnxEngine, images: NDArray[np.float32]) -> Answer:
    try:
        return engine.run(images)
    except Exception as error:  # ONNX Runtime's exceptions have no base of their own
        side = images.shape[-1]
        raise ValueError(
            f"it cannot compute a simulated image of {side} x {side} pixels ({first_line(error)}); is size "
            "that of its training?"
        ) from error


def _check_answers(card: Card, answers: Sequence[Answer]) -> None:
    size = card.spec.size
    for lesion, classes in answers:
        shapes = [tuple(lesion.shape), tuple(classes.shape)]
        if shapes != [(1, 1, size, size), (1, len(CLASSES))]:
            raise ValueError(
                f"it answers one image in the shapes {shapes}; do [lesion] and [classes] fit it?"
            )
        if not (np.isfinite(lesion).all() and np.isfinite(classes).all()):
            raise ValueError("it answers a simulated image with NaN or infinity; are its weights whole?")
        low, high = float(lesion.min()), float(lesion.max())
        if low < -_ROUNDING or high > 1 + _ROUNDING:
            raise ValueError(
                f"its answer for the lesion goes from {low:.3g} to {high:.3g} and is no probability; set "
                f"[lesion] activation to {SIGMOID} or {SOFTMAX}"
            )


def _check_probabilities(answers: Sequence[Answer]) -> None:
    """Refuse an answer for the classes that was said to be probabilities, and is none."""
    told = np.exp(np.concatenate([classes for _, classes in answers]))
    if told.max() > 1 + _ROUNDING or told.sum(axis=1).min() < _LEAST_SUM:
        raise ValueError(
            "its answer for the classes is below 0 or above 1 and is no probability; set [classes] "
            f"activation to {SOFTMAX}, or to {SIGMOID} where it is one number"
        )


def _check_batch(engine: OnnxEngine, images: NDArray[np.float32], single: Sequence[Answer]) -> None:
    """Refuse a network that computes one image at a time only, or otherwise among others."""
    advice = (
        'export it for any number of images, as with torch.onnx.export(..., dynamic_shapes={"x": {0: '
        'torch.export.Dim("batch")}}), where x is the argument of its forward'
    )
    try:
        together = engine.run(images)
    except Exception as error:  # ONNX Runtime's exceptions have no base of their own
        raise ValueError(
            f"it computes one image and not three at once ({first_line(error)}); {advice}"
        ) from error
    for part, whole in enumerate(together):
        alone = np.concatenate([answer[part] for answer in single])
        if alone.shape != whole.shape or not np.abs(alone - whole).max() <= _MAX_APART:
            raise ValueError(f"it answers an image otherwise when others are beside it; {advice}")


def _find_notes(
    card: Card,
    answers: Sequence[tuple[str, float, tuple[float, ...]]],
    single: Sequence[Answer],
) -> Iterator[str]:
    if "lesion" in card.spec.heads:
        shares = [share for _, share, _ in answers]
        if not any(shares):
            yield (
                "the mask is empty on every simulated image; are size, range, mean and std those of its "
                "training?"
            )
        elif min(shares) > _ALMOST_ALL:
            yield "the mask is almost the whole image on every simulated image; is channel the lesion's?"
        values = np.concatenate([lesion.ravel() for lesion, _ in single])
        if values.min() >= 0.49 and values.max() <= 0.74:
            yield (
                "every lesion probability is between 0.5 and 0.73, as where a sigmoid is taken twice; is "
                f"activation = {NONE}?"
            )
    else:
        yield "it tells no mask: it can be used with --model, and not as the model in use"
    if "classes" not in card.spec.heads:
        yield "it tells no classes: each is given a third"


def _describe_tensors(name: str, data: bytes) -> tuple[tuple[str, str], ...]:
    shapes = _shapes(name, data)
    parts = sorted({ascii(key.partition(".")[0])[1:-1] for key in shapes})
    return (
        ("is", f"safetensors, {len(shapes):,} tensors"),
        ("parts", ", ".join(parts[:_SHOWN])[:200] + (" and others" if len(parts) > _SHOWN else "")),
    )


def _shapes(name: str, data: bytes) -> dict[str, list[int]]:
    try:
        return {key: told["shape"] for key, told in read_header(data).items()}
    except ValueError as error:
        raise BundleError(f"{name} is no safetensors file: {error}") from error


def _propose_named(own: OwnFile) -> Description:
    """Guess which library the weights are of by their names; the encoder is for the user to say."""
    shapes = _shapes(own.path.name, own.data)
    # nothing but what sees the image takes three
    channels = 3 if any(len(shape) == 4 and shape[1] == 3 for shape in shapes.values()) else 1
    mean, std = _IMAGENET if channels == 3 else ((), ())

    def last(part: str) -> int | None:
        found = [shape[0] for key, shape in shapes.items() if key.endswith(part) and shape]
        return min(max(found[-1], 1), 64) if found else None

    drawn = last("segmentation_head.0.weight") or last("classifier.4.weight")
    lesion = drawn and Lesion(
        activation=SIGMOID if drawn == 1 else SOFTMAX, channels=drawn, channel=0 if drawn == 1 else 1
    )
    if any("segmentation_head." in key for key in shapes):
        network = Network(library="smp", architecture="Unet", encoder="resnet34")
        told = last("classification_head.3.weight")
    elif any(key.removeprefix("module.").startswith("backbone.") for key in shapes):
        network, told = Network(library="torchvision", architecture="deeplabv3_resnet50"), None
        lesion = lesion or Lesion(activation=SIGMOID)
    else:
        network, lesion = Network(library="timm", architecture="resnet18"), None
        told = last("fc.weight") or last("classifier.weight") or last("head.weight") or 3
    classes = told and _guess_classes(Port("", 1, (None, told)), "")
    if lesion is None and classes is None:
        classes = Classes(activation=SOFTMAX, order=CLASSES)
    return Description(
        name=name_of(own.path),
        network=network,
        input=Input(size=_SIZE, channels=channels, mean=mean, std=std),
        lesion=lesion or None,
        classes=classes or None,
    )
