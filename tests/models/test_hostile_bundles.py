"""A stranger's bundle: what is wrong in it is refused by name, and nothing outside of it is opened."""

from __future__ import annotations

import copy
import hashlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from sonoloop.errors import BundleError
from sonoloop.models.bundle import CARD, WEIGHTS, read_bundle, save_bundle
from sonoloop.models.card import Card, ModelSpec, read_card, shipped_folder
from sonoloop.models.networks import build_network
from sonoloop.models.weights import read_weights

HOSTILE = [
    *(
        None,
        True,
        -1,
        3,
        1.5,
        10**30,
        1e308,
        "",
        "x",
        "hf-hub:a/b",
        "../../etc/passwd",
        "\x1b[31m",
        "a" * 100_000,
    ),
    *([], [None], [[1]], [1e9] * 10, {}, {"a": 1}, {"value": "x"}, {"value": 1, "ci95": [1]}),
]
# JSON that Python would read, or stumble over
RAW = ["NaN", "-Infinity", "1e999", "9" * 10_000, "[" * 900 + "]" * 900, '"\\ud800"', '{"a": 1, "a": 2}']


@pytest.fixture(scope="module")
def card() -> Card:
    spec = ModelSpec(
        encoder="tu-test_efficientnet",
        size=64,
        dropout=0.0,
        arguments={"decoder_channels": [32, 16, 8, 8, 4]},
    )
    return Card(
        name="tiny",
        spec=spec,
        parent="a" * 64,
        agreement={"2": {"x": [0.1, 0.9], "y": [0.2, 0.8]}},
        snapshot={"datasets": ["busi"], "leaked": False, "recipe": {"split": {"method": "folds"}}},
        metrics={"test": {"auc": {"value": 0.9, "n": 5, "ci95": [0.8, 1.0]}, "images": 5}},
        libraries={"torch": "2"},
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory, card, network) -> Path:
    save_bundle(tmp_path_factory.mktemp("written") / "tiny", network, card)
    return next(tmp_path_factory.getbasetemp().glob("written*/tiny"))


@pytest.fixture
def folder(tmp_path, written) -> Path:
    """A copy of the bundle to spoil."""
    (tmp_path / "tiny").mkdir()
    for name in (CARD, WEIGHTS):
        (tmp_path / "tiny" / name).write_bytes((written / name).read_bytes())
    return tmp_path / "tiny"


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    values = json.loads((folder / CARD).read_text())
    change(values)
    (folder / CARD).write_text(json.dumps(values))


def replace_weights(folder: Path, data: bytes) -> None:
    (folder / WEIGHTS).write_bytes(data)
    edit(folder, lambda values: values.update(weights_sha256=hashlib.sha256(data).hexdigest()))


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    inner = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in inner:
        yield from places(value[key], (*at, key))


def put(value: Any, at: tuple[Any, ...], new: Any) -> Any:
    if not at:
        return new
    value = copy.deepcopy(value)
    within = value
    for key in at[:-1]:
        within = within[key]
    within[at[-1]] = new
    return value


def test_whatever_stands_anywhere_in_a_card_is_read_or_refused(folder):
    values = json.loads((folder / CARD).read_text())
    refused, begun = 0, time.process_time()
    for at in places(values):
        marked = json.dumps(put(values, at, "@"))
        key = json.dumps(at[-1]) if at and isinstance(at[-1], str) else None
        twice = [marked.replace('"@"', f"1, {key}: 2")] if key else []
        for text in (*(marked.replace('"@"', raw) for raw in (*map(json.dumps, HOSTILE), *RAW)), *twice):
            (folder / CARD).write_text(text)
            try:
                card = read_card(folder)
            except BundleError as error:
                refused += 1
                message = str(error)
                assert message.isprintable()
                assert 20 < len(message) < 500
            else:
                assert json.loads(card.to_json())
                assert card.version
                for part in card.metrics:
                    assert all(re.search(r"\d", str(figure)) for figure in card.figures(part).values())
    assert refused > 1000
    assert time.process_time() - begun < 15


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["spec"].update(encoder=3), r"spec\.encoder must be text, got 3"),
        (lambda c: c["spec"].update(arguments=[1]), r"spec\.arguments must be a table of values, got \[1\]"),
        (lambda c: c["spec"].update(size=True), r"spec\.size must be a whole number, got True"),
        (lambda c: c["spec"].update(size=10**9), r"spec\.size must be a multiple of 32 from 32 to 2048"),
        (lambda c: c.update(metrics="good"), "metrics must be a table of values, got 'good'"),
        (lambda c: c.update(metrics={"test": 1}), r"metrics\.test must be a table of values or null, got 1"),
        (
            lambda c: c["metrics"]["test"]["auc"].update(value="high"),
            r"metrics\.test\.auc\.value must be a number or null, got 'high'",
        ),
        (lambda c: c["metrics"]["test"]["auc"].update(ci95=[1]), r"auc\.ci95 must be two numbers in order"),
        (lambda c: c.update(views=True), "views must be a whole number, got True"),
        (lambda c: c.update(format=True), "its format is True"),
        (lambda c: c.update(threshold=1e-45), r"threshold must be between 0\.01 and 0\.99, got 1e-45"),
        (lambda c: c.update(threshold=False), "threshold must be a number, got False"),
        (lambda c: c.update(normal_gate=1e-9), r"normal_gate must be between 0\.33 and 1\.01"),
        (lambda c: c.update(min_area=0.9), r"min_area must be between 0 and 0\.2"),
        *(
            (lambda c, t=t: c.update(temperature=t), r"temperature must be between 0\.01 and 100")
            for t in (1e-45, 0, -1, 1e9)
        ),
        (
            lambda c: c["agreement"].update({"3": {"x": [0], "y": [0]}}),
            r"agreement\.3 must be a line x and y",
        ),
        (lambda c: c["agreement"]["2"].pop("y"), r"agreement\.2 must be a line x and y"),
        (lambda c: c.update(weights_sha256="x"), "weights_sha256 must be 64 hex digits"),
        (lambda c: c["snapshot"].update(datasets="busi"), r"snapshot\.datasets must be a list, got 'busi'"),
        (lambda c: c["libraries"].update(torch="\x1b]0;x"), "has control characters"),
    ],
)
def test_a_wrong_field_is_named(folder, change, message):
    edit(folder, change)
    with pytest.raises(BundleError, match=f"the card of the model tiny cannot be used: .*{message}"):
        read_bundle(folder)


FORBIDDEN = {
    "checkpoint_path": "/etc/passwd",
    "pretrained": True,
    "pretrained_cfg": {"file": "/etc/passwd"},
    "pretrained_cfg_overlay": {"url": "http://127.0.0.1"},
    "encoder_weights": "imagenet",
    "weights": "DEFAULT",
    "weights_backbone": "DEFAULT",
    "cache_dir": "/tmp",
    "features_only": True,
    "activation": "sigmoid",
    "aux_params": {"classes": 10**9},
    "in_channels": 10**9,
    "num_classes": 10**9,
    "encoder_name": "resnet18",
}
TOO_MUCH = {
    "depth": 10**9,
    "encoder_depth": 10**9,
    "decoder_channels": [10**9] * 5,
    "channels": [2048] * 10**5,
    "img_size": 10**9,
    "decoder_use_norm": {"type": "batchnorm"},
    "upsampling": True,
    "drop_rate": "0.5",
    "decoder_aspp_dropout": 1.0,
    "decoder_atrous_rates": [[1]],
}
NETWORKS = [
    ("smp", "Unet", "resnet18"),
    ("smp", "DeepLabV3Plus", "resnet18"),
    ("smp", "DPT", "tu-vit_tiny_patch16_224"),
    ("timm", "vit_tiny_patch16_224", ""),
    ("torchvision", "fcn_resnet50", ""),
    ("plain", "Unet", ""),
]


@pytest.mark.parametrize("name", [*FORBIDDEN, *TOO_MUCH])
def test_an_argument_that_no_architecture_is_given_never_reaches_it(name):
    value = (FORBIDDEN | TOO_MUCH)[name]
    for library, architecture, encoder in NETWORKS:
        spec = {"library": library, "architecture": architecture, "encoder": encoder, "size": 64}
        with pytest.raises(ValueError, match=f"arguments.{name} (is none that|must be)"):
            ModelSpec(**spec, arguments={name: value})


@pytest.mark.parametrize(
    ("named", "arguments", "message"),
    [
        ("smp Unet tu-resnet18.nosuch", {}, "cannot build Unet on tu-resnet18.nosuch"),
        ("smp Unet tu-", {}, "cannot build Unet on tu-"),
        ("smp Unet tu-tu-resnet18", {}, "has an encoder"),
        ("smp Unet timm-regnetx_002", {}, "has an encoder"),
        ("smp Unet resnext101_32x48d", {}, "weights, more than"),
        ("smp Unet tu-vit_giant_patch14_224", {}, "cannot build|more than"),
        ("smp create_model resnet18", {}, "no architecture 'create_model'"),
        ("timm eva02_enormous_patch14_clip_224 ", {}, "weights, more than"),
        ("timm nosuch ", {}, "has no model 'nosuch'"),
        ("timm resnet18 ", {"depth": 3}, "cannot build resnet18 of timm"),
        ("torchvision deeplabv3_resnet50 ", {}, "there are fcn_resnet50"),
        ("plain Unet ", {"channels": [2048] * 8}, "weights, more than"),
    ],
)
def test_a_network_that_nobody_has_or_that_is_too_large_is_refused_at_once(folder, named, arguments, message):
    library, architecture, encoder = named.split(" ")
    spec = {"library": library, "architecture": architecture, "encoder": encoder, "arguments": arguments}
    edit(folder, lambda card: card.update(spec=spec))
    begun = time.process_time()
    with pytest.raises(BundleError, match=message):
        read_bundle(folder)
    assert time.process_time() - begun < 5


def test_a_network_that_cannot_compute_its_own_size_is_refused(tmp_path, card):
    spec = ModelSpec(
        library="timm", architecture="vit_tiny_patch16_224", encoder="", size=64, arguments={"depth": 1}
    )
    with pytest.raises(BundleError, match=r"vit_tiny_patch16_224 cannot compute images of 64 pixels"):
        save_bundle(tmp_path / "vit", build_network(spec), Card(name="vit", spec=spec))


SPIES = """
import sys
from pathlib import Path
import torch, timm, segmentation_models_pytorch, torchvision  # what they open themselves is theirs
from sonoloop.errors import SonoloopError
from sonoloop.models.bundle import read_bundle
from sonoloop.models.card import ModelSpec
from sonoloop.models.networks import build_network
from torchvision.models import segmentation

folder = Path(sys.argv[1])
opened = []
known = (sys.prefix, sys.base_prefix, str(folder), str(Path(timm.__file__).parents[1]))

def spy(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        path = arguments[0] if isinstance(arguments[0], str) else arguments[0].decode()
        if not path.startswith(known):
            opened.append(path)
    elif event.startswith(("socket.", "subprocess.", "os.system")):
        opened.append(event)

sys.addaudithook(spy)
read_bundle(folder)
for library, architecture, encoder in (
    ("smp", "Unet", "resnet18"), ("smp", "FPN", "mit_b0"), ("smp", "Unet", "tu-resnet18.a1_in1k"),
    ("timm", "resnet18", ""), ("timm", "resnet18.tv_in1k", ""), ("torchvision", "fcn_resnet50", ""),
    ("smp", "Unet", "timm-efficientnet-b0"), ("timm", "hf-hub.x", ""), ("smp", "Unet", "tu-hf_hub.x"),
):
    try:
        build_network(ModelSpec(library=library, architecture=architecture, encoder=encoder, size=64))
    except SonoloopError:
        pass
print(opened)
"""


def test_reading_a_bundle_opens_nothing_outside_of_it(folder):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SPIES, str(folder)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def state(written) -> Tensors:
    return safetensors.torch.load((written / WEIGHTS).read_bytes())


def first(state: Tensors, ending: str) -> str:
    return next(name for name in state if name.endswith(ending))


@pytest.mark.parametrize(
    ("ending", "value", "message"),
    [
        ("conv1.0.weight", float("nan"), "NaN or infinite"),
        ("running_mean", float("-inf"), "NaN or infinite"),
        ("conv1.0.weight", -2e6, "beyond 1,000,000"),
        ("running_mean", 1e30, "beyond 1,000,000"),
        ("running_var", 2e6, "beyond 1,000,000"),
        ("running_var", -0.001, "a negative variance, -0.001"),
        ("num_batches_tracked", -1, "has counted -1 batches"),
        ("num_batches_tracked", 2**60, "has counted 1.15292e.18 batches"),
    ],
)
def test_weights_that_no_training_gives_are_refused_by_their_tensor(folder, state, ending, value, message):
    name = first(state, ending)
    odd = state[name].float() if state[name].is_floating_point() else state[name]
    replace_weights(folder, safetensors.torch.save({**state, name: torch.full_like(odd, value)}))
    with pytest.raises(BundleError, match=rf"model tiny .*{re.escape(name)}") as refused:
        read_bundle(folder)
    assert re.search(message, str(refused.value))


def test_the_shipped_weights_are_far_from_the_bound():
    state = safetensors.torch.load((shipped_folder() / WEIGHTS).read_bytes())
    assert max(float(tensor.abs().max()) for tensor in state.values()) < 1e4


@pytest.mark.parametrize(
    "kind", [torch.float8_e4m3fn, torch.complex64, torch.float64, torch.int64, torch.bool]
)
def test_weights_of_another_type_are_refused_by_their_tensor(folder, state, kind):
    name = first(state, "conv1.0.weight")
    replace_weights(folder, safetensors.torch.save({**state, name: state[name].float().to(kind)}))
    with pytest.raises(
        BundleError, match=f"tiny do not fit.*{re.escape(name)}' must be BF16 or F16 or F32, got"
    ):
        read_bundle(folder)


def test_other_half_precision_and_single_are_read(folder, state):
    for kind in (torch.bfloat16, torch.float32):
        other = {name: t.to(kind) if t.is_floating_point() else t for name, t in state.items()}
        replace_weights(folder, safetensors.torch.save(other))
        assert next(read_bundle(folder).network.parameters()).dtype == torch.float32


def test_a_list_of_tensors_that_is_wrong_anywhere_is_refused(state, written):
    data = (written / WEIGHTS).read_bytes()
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    name = first(state, "conv1.0.weight")

    def pack(text: str) -> bytes:
        return len(text.encode()).to_bytes(8, "little") + text.encode() + body

    whole = json.dumps(header)
    cases = [
        *(pack(json.dumps(put(header, (name, *at), value))) for at, value in (
            *(((), value) for value in HOSTILE),
            *(((key,), value) for key in ("dtype", "shape", "data_offsets") for value in HOSTILE),
            (("data_offsets", 0), header[name]["data_offsets"][0] + 2),
            (("data_offsets", 1), 10**17),
            (("shape", 0), 0),
            (("dtype",), "BF17"),
        )),
        pack(f'{whole[:-1]}, {json.dumps(name)}: {json.dumps(header[name])}}}'),
        pack(json.dumps({**header, "more": header[name]})),
        pack(json.dumps({key: told for key, told in header.items() if key != name})),
        pack(json.dumps({**header, "__metadata__": {"a": 3}})),
        pack(json.dumps({**header, "__metadata__": {"a": "b" * 9_000_000}})),
        pack(whole) + b"x",
        *(size.to_bytes(8, "little") + data[8:] for size in (0, 1, 2**63, 2**64 - 1, len(data))),
        *(data[:cut] for cut in (0, 7, 8, 9, length, len(data) - 1)),
    ]  # fmt: skip
    for case in cases:
        with pytest.raises(
            BundleError, match=r"the weights of the model tiny (are no safetensors|do not fit)"
        ):
            read_weights(case, state, "tiny")
    assert read_weights(data, state, "tiny").keys() == state.keys()


def test_indices_that_a_network_computes_are_its_own(tmp_path):
    spec = ModelSpec(library="timm", architecture="efficientformer_l1", encoder="", size=224)
    network = build_network(spec)
    name = first(network.state_dict(), "attention_bias_idxs")
    save_bundle(tmp_path / "right", network, Card(name="right", spec=spec))
    network.get_buffer(name).fill_(10**9)
    with pytest.raises(BundleError, match=f"other indices in {re.escape(name)}"):
        save_bundle(tmp_path / "wrong", network, Card(name="wrong", spec=spec))
