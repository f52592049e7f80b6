"""A bundle's round trip, and each way it can be wrong."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from sonoloop.errors import BundleError, ModelError
from sonoloop.models.bundle import CARD, WEIGHTS, Card, read_bundle, save_bundle
from sonoloop.models.card import FORMAT, ModelSpec, read_card
from sonoloop.models.library import load_bundle
from sonoloop.models.networks import build_network


def edit_card(folder: Path, **changes: object) -> None:
    values = json.loads((folder / CARD).read_text()) | changes
    (folder / CARD).write_text(json.dumps({k: v for k, v in values.items() if v is not ...}))


def replace_weights(folder: Path, data: bytes) -> None:
    (folder / WEIGHTS).write_bytes(data)
    edit_card(folder, weights_sha256=hashlib.sha256(data).hexdigest())


def state_of(folder: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load((folder / WEIGHTS).read_bytes())


def test_what_is_saved_is_read(tmp_path, bundle, network):
    again = read_bundle(tmp_path / "tiny")
    assert again.version == bundle.version
    assert again.model == f"tiny-{bundle.version[:8]}"
    images = torch.rand(2, 1, 64, 64)
    with torch.inference_mode():
        for got, want in zip(again.network(images), network(images), strict=True):
            # stored in half precision
            np.testing.assert_allclose(got, want, atol=0.02)


def test_the_version_is_the_hash_of_the_content(tmp_path, bundle, network, card):
    same = save_bundle(tmp_path / "same", network, card)
    other = save_bundle(tmp_path / "other", network, dataclasses.replace(card, threshold=0.4))
    assert same.version == bundle.version
    assert other.version != bundle.version


def test_a_bundle_is_never_overwritten(tmp_path, bundle, network, card):
    with pytest.raises(BundleError, match="never overwritten"):
        save_bundle(tmp_path / "tiny", network, card)
    assert read_bundle(tmp_path / "tiny").version == bundle.version


def test_weights_that_are_not_finite_are_never_written(tmp_path, card):
    network = build_network(card.spec)
    with torch.no_grad():
        next(network.parameters()).view(-1)[0] = float("nan")
    with pytest.raises(BundleError, match="NaN"):
        save_bundle(tmp_path / "bad", network, card)
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_that_cannot_be_read_back_is_not_left(tmp_path, card):
    other = build_network(dataclasses.replace(card.spec, arguments={}))
    with pytest.raises(
        BundleError,
        match=r"odd is not written, since it could not be read back: the weights of the model odd do not fit",
    ):
        save_bundle(tmp_path / "odd", other, card)
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_computes_while_it_is_built_is_read_back(tmp_path, card):
    # its blocks' drop rates are numbers out of a tensor, which has none on the meta device
    arguments = {"decoder_segmentation_channels": 16}
    spec = ModelSpec(architecture="Segformer", encoder="mit_b0", size=64, arguments=arguments)
    network = build_network(spec).eval()
    again = save_bundle(tmp_path / "mit", network, dataclasses.replace(card, spec=spec)).network
    assert read_bundle(tmp_path / "mit").card.spec.encoder == "mit_b0"
    images = torch.rand(1, 1, 64, 64)
    with torch.inference_mode():
        for got, want in zip(again(images), network(images), strict=True):
            np.testing.assert_allclose(got, want, atol=0.02)


@pytest.mark.parametrize("name", [CARD, WEIGHTS])
def test_a_missing_file_is_named(tmp_path, bundle, name):
    (tmp_path / "tiny" / name).unlink()
    with pytest.raises(BundleError, match=name):
        read_bundle(tmp_path / "tiny")


def test_a_flipped_byte_anywhere_in_the_weights_is_found(tmp_path, bundle):
    path = tmp_path / "tiny" / WEIGHTS
    data = path.read_bytes()
    for place in np.random.default_rng(0).integers(0, len(data), 20):
        damaged = bytearray(data)
        damaged[place] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(BundleError, match="not those its card names"):
            read_bundle(tmp_path / "tiny")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ...}, "missing.*name"),
        ({"extra": 1}, "unknown.*extra"),
        ({"format": 99}, "its format is 99.*update Sonoloop"),
        ({"format": "3.0"}, r"its format is 3\.0.*update Sonoloop"),
        ({"format": "2.x"}, "its format is 2.x"),
        ({"format": ...}, "its format is None"),
        ({"metrics": {"dice": float("nan")}}, "NaN is no number"),
        ({"snapshot": "foo"}, "tiny.*snapshot must be a table.*'foo'; export the model again"),
        ({"metrics": [1]}, "tiny.*metrics must be a table"),
        ({"libraries": None}, "tiny.*libraries must be a table"),
        ({"libraries": {"torch": 2}}, r"tiny.*libraries\.torch must be text, got 2"),
        ({"classes": ["benign", "normal", "malignant"]}, "classes"),
        ({"threshold": 1.5}, "threshold"),
        ({"threshold": "0.5"}, "threshold"),
        ({"temperature": 0}, "temperature"),
        ({"views": 3}, "views"),
        ({"name": "../../evil"}, "name"),
        ({"agreement": {"2": {"x": [0.1], "y": []}}}, "as many x as y"),
        ({"agreement": {"2": {"x": [0.9, 0.1], "y": [0.1, 0.9]}}}, "x in order"),
        ({"agreement": {"2": {"x": ["a"], "y": ["b"]}}}, r"agreement\.2\.x\.0 must be a number, got 'a'"),
        ({"agreement": {"2": {"x": [0.1], "y": [1.5]}}}, r"agreement\.2 lie between 0 and 1"),
        ({"foreground": {"2": {"x": [0.1], "y": [1.5]}}}, r"foreground\.2 lie between 0 and 1"),
        ({"spec": {"architecture": "Unet", "encoder": "tu-hf_hub:some/where"}}, "plain name"),
        ({"spec": {"architecture": "Unet", "encoder": "tu-local-dir:/etc"}}, "plain name"),
        ({"spec": {"architecture": "Unet", "encoder": "resnet18", "size": 1_000_000_000}}, "at most|to 2048"),
        (
            {"spec": {"architecture": "Unet", "encoder": "resnet18", "size": 256.0}},
            r"spec\.size must be a whole",
        ),
        ({"spec": {"architecture": "Unet", "surprise": 1}}, "surprise"),
        ({"spec": {"architecture": "__import__", "encoder": "resnet18"}}, "no architecture"),
        ({"spec": {"architecture": "Unet", "encoder": "no-such"}}, "no-such"),
        ({"spec": {"architecture": "Unet", "encoder": "resnet18", "size": 100}}, "multiple of 32"),
    ],
)
def test_a_wrong_card_is_refused(tmp_path, bundle, changes, message):
    edit_card(tmp_path / "tiny", **changes)
    with pytest.raises(BundleError, match=message):
        read_bundle(tmp_path / "tiny")


@pytest.mark.parametrize(
    ("value", "name"), [({"dice": [0.5, 0.25]}, r"metrics\.dice\.1"), ({"dice": 0.25}, r"metrics\.dice")]
)
def test_a_number_too_large_for_a_card_is_refused_by_its_name(tmp_path, bundle, value, name):
    edit_card(tmp_path / "tiny", metrics=value)
    path = tmp_path / "tiny" / CARD
    path.write_text(path.read_text().replace("0.25", "1e999"))
    with pytest.raises(BundleError, match=f"tiny.*{name} is a number too large.*export the model again"):
        read_bundle(tmp_path / "tiny")


def test_the_version_can_be_checked_without_sonoloop(tmp_path, bundle):
    said = {
        name: hashlib.sha256((tmp_path / "tiny" / name).read_bytes()).hexdigest() for name in (CARD, WEIGHTS)
    }
    assert bundle.version == said[CARD]
    assert bundle.card.weights_sha256 == said[WEIGHTS]


def test_what_an_older_card_lacks_has_a_default_and_its_version_stays(tmp_path, bundle):
    folder = tmp_path / "tiny"
    edit_card(folder, normal_gate=..., libraries=...)
    card = read_card(folder)
    assert (card.normal_gate, card.libraries) == (0.9, {})
    assert card.version == hashlib.sha256((folder / CARD).read_bytes()).hexdigest()


def test_what_a_newer_minor_format_adds_is_kept(tmp_path, bundle):
    folder = tmp_path / "tiny"
    edit_card(folder, format="2.7", engine={"name": "onnx"})
    newer = read_bundle(folder)
    assert newer.card.extra == {"engine": {"name": "onnx"}}
    again = save_bundle(tmp_path / "again", newer.network, newer.card)
    assert json.loads((tmp_path / "again" / CARD).read_text()) == json.loads((folder / CARD).read_text())
    assert read_bundle(tmp_path / "again").version == again.version


def test_a_changed_card_has_another_version_than_the_one_it_was_read_from(bundle, tmp_path):
    card = read_card(tmp_path / "tiny")
    assert dataclasses.replace(card, threshold=0.4).version != card.version
    assert dataclasses.replace(card).version == card.version


def test_the_version_of_a_card_of_format_1_does_not_depend_on_how_its_file_is_written(tmp_path):
    version = "00b8f020a8f2a6265c37b0daaeef9a883b0f976d131c25cf85aa8f06271f7f71"
    # of the model that shipped first
    card = Card.from_json((Path(__file__).parent / "card_format_1.json").read_bytes())
    assert (card.format, card.version, card.model) == (1, version, "default-00b8f020")
    (tmp_path / CARD).write_text(json.dumps(json.loads(card.to_json()), indent=4))
    assert read_card(tmp_path).version == version


def test_a_model_made_of_one_of_format_1_is_of_this_format(tmp_path, network, card):
    made = save_bundle(tmp_path / "made", network, dataclasses.replace(card, format=1))
    assert made.card.format == read_card(tmp_path / "made").format == FORMAT


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": 1}', "\udcff", "[" * 5000])
def test_a_card_that_is_no_card_is_refused(tmp_path, bundle, text):
    (tmp_path / "tiny" / CARD).write_text(text, errors="surrogateescape")
    with pytest.raises(BundleError, match="tiny"):
        read_bundle(tmp_path / "tiny")


def test_another_shape_is_refused(tmp_path, bundle):
    state = state_of(tmp_path / "tiny")
    key = next(k for k, v in state.items() if v.ndim == 4)
    state[key] = torch.zeros(*state[key].shape, 2)
    replace_weights(tmp_path / "tiny", safetensors.torch.save(state))
    with pytest.raises(BundleError, match="do not fit"):
        read_bundle(tmp_path / "tiny")


def test_a_missing_tensor_is_refused(tmp_path, bundle):
    state = state_of(tmp_path / "tiny")
    state.pop(next(iter(state)))
    replace_weights(tmp_path / "tiny", safetensors.torch.save(state))
    with pytest.raises(BundleError, match="do not fit"):
        read_bundle(tmp_path / "tiny")


def test_infinite_weights_are_refused(tmp_path, bundle):
    state = state_of(tmp_path / "tiny")
    key = next(k for k, v in state.items() if v.ndim == 4)
    state[key] = torch.full_like(state[key], float("inf"))
    replace_weights(tmp_path / "tiny", safetensors.torch.save(state))
    with pytest.raises(BundleError, match="infinite"):
        read_bundle(tmp_path / "tiny")


class Canary:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_pickle_is_refused_and_not_executed(tmp_path, bundle):
    canary = tmp_path / "canary"
    replace_weights(tmp_path / "tiny", pickle.dumps(Canary(canary)))
    with pytest.raises(BundleError, match="no safetensors"):
        read_bundle(tmp_path / "tiny")
    torch.save(Canary(canary), tmp_path / "payload.pt")
    replace_weights(tmp_path / "tiny", (tmp_path / "payload.pt").read_bytes())
    with pytest.raises(BundleError, match="no safetensors"):
        read_bundle(tmp_path / "tiny")
    assert not canary.exists()
    pickle.loads(pickle.dumps(Canary(canary)))
    assert canary.exists(), "the canary itself does not work"


def test_an_unknown_model_is_named_with_those_there_are(tmp_path):
    with pytest.raises(ModelError, match=r"no model 'nowhere'.*default"):
        load_bundle("nowhere")


def test_a_specification_names_what_is_wrong():
    with pytest.raises(ValueError, match=r"multiple of 32 .* got 100"):
        ModelSpec(size=100)
    with pytest.raises(ModelError, match="no architecture 'Nonet'"):
        build_network(ModelSpec(architecture="Nonet"))


def test_a_card_says_which_value_is_out_of_range():
    with pytest.raises(ValueError, match=r"min_area must be between 0 and 0\.2, got 2"):
        Card(name="a", spec=ModelSpec(), min_area=2)
