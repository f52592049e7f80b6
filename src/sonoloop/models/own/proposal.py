"""A description to begin with, guessed from what a user's network says of itself."""

from __future__ import annotations

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
)
from sonoloop.models.own.onnx_file import Port
from sonoloop.models.own.own_file import OwnFile, name_of, read_shapes
from sonoloop.values import CLASSES

_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_SIZE = 256


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


def _guess_classes(output: Port, last: str) -> Classes | None:
    count = output.shape[1] if len(output.shape) > 1 else 1
    orders = {1: CLASSES[1:], 2: CLASSES[1:], 3: CLASSES}
    if count not in orders:
        return None
    activation = NONE if last in ("Sigmoid", "Softmax") else SIGMOID if count == 1 else SOFTMAX
    return Classes(output=output.name, activation=activation, order=orders[count])


def _propose_named(own: OwnFile) -> Description:
    """Guess which library the weights are of by their names; the encoder is for the user to say."""
    shapes = read_shapes(own.path.name, own.data)
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
