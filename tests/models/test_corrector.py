"""Repairing one lesion of a mask by prompts, with a network that claims what it is told to."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sonoloop.errors import BundleError, EngineError, ModelError
from sonoloop.imaging.grey import frame_from_array
from sonoloop.imaging.phantom import phantom
from sonoloop.models.bundle import read_bundle, save_bundle
from sonoloop.models.card import Card, ModelSpec, read_card, read_graph, shipped_card, shipped_folder
from sonoloop.models.corrector import Corrector, find_lesion, load_corrector
from sonoloop.models.engines import Engine, load_engine
from sonoloop.models.engines.torch import TorchEngine
from sonoloop.models.engines.unprompted import Unprompted
from sonoloop.models.graph import make_graph, prove_graph
from sonoloop.models.graph_check import check_graph
from sonoloop.models.networks import build_network
from sonoloop.models.predictor import Predictor
from sonoloop.models.prompts import Prompts

SPEC = ModelSpec(
    encoder="tu-test_efficientnet",
    size=64,
    dropout=0.0,
    arguments={"decoder_channels": [32, 16, 8, 8, 4], "prompts": "discs"},
)
CARD = Card(name="clicks", spec=SPEC)


class Claiming(Engine):
    """Claims what is bright, whatever is pointed at, and keeps what it was shown."""

    def __init__(self) -> None:
        super().__init__(CARD)
        self.shown: list[np.ndarray] = []

    @classmethod
    def load(cls, folder: Path, device: str = "auto") -> Claiming:
        raise NotImplementedError

    def run(self, images):
        self.shown.append(images)
        return (images[:, :1] > 0).astype(np.float32), np.zeros((len(images), 3), np.float32)


@pytest.fixture
def engine() -> Claiming:
    return Claiming()


def scene(*boxes: tuple[int, int, int, int], shape=(128, 128)):
    """A dark frame with bright rectangles."""
    pixels = np.zeros(shape, np.uint8)
    for top, left, bottom, right in boxes:
        pixels[top:bottom, left:right] = 255
    return frame_from_array(pixels, name="scene")


def test_a_click_repairs_the_lesion_at_hand_and_no_other(engine) -> None:
    frame = scene((20, 20, 60, 60), (90, 90, 110, 110))
    mask = np.zeros(frame.shape, np.uint8)
    mask[20:60, 20:40], mask[100:120, 90:110] = 1, 2
    made = Corrector(engine).correct(frame, mask, Prompts().click(40, 50))
    # it touches no lesion, so that a new one would be made of it: which one is meant is said
    assert set(np.unique(made)) == {0, 1, 2, 3}
    made = Corrector(engine).correct(frame, mask, Prompts().click(40, 50), lesion=1)
    assert np.array_equal(made == 2, mask == 2)
    assert np.array_equal(made == 1, frame.pixels > 0) or (made[20:60, 20:60] == 1).mean() > 0.97
    assert not (made[:15] > 0).any()
    assert mask[40, 50] == 0


def test_kept_pixels_stay_as_they_are(engine) -> None:
    frame = scene((20, 20, 60, 60))
    mask = np.zeros(frame.shape, np.uint8)
    mask[20:60, 20:40], mask[10:14, 10:14] = 1, 1
    kept = np.zeros(frame.shape, np.bool_)
    kept[10:14, 10:14], kept[20:60, 50:] = True, True
    made = Corrector(engine).correct(frame, mask, Prompts().click(40, 45).click(40, 55), lesion=1, kept=kept)
    assert np.array_equal(made[kept], mask[kept])
    assert (made[25:55, 25:49] == 1).all()


def test_a_click_ends_inside_or_outside_whatever_the_network_says(engine) -> None:
    frame = scene((40, 40, 80, 80))
    mask = np.where(frame.pixels > 0, np.uint8(1), np.uint8(0))
    prompts = Prompts().click(60, 60, inside=False).click(90, 60)
    made = Corrector(engine).correct(frame, mask, prompts, lesion=1)
    assert made[60, 60] == 0
    assert made[90, 60] == 1
    # the later one holds
    again = Corrector(engine).correct(frame, mask, prompts.click(60, 60), lesion=1)
    assert again[60, 60] == 1


def test_a_click_never_takes_a_pixel_of_another_lesion(engine) -> None:
    frame = scene((20, 20, 60, 60))
    mask = np.zeros(frame.shape, np.uint8)
    mask[20:60, 40:60] = 2
    made = Corrector(engine).correct(frame, mask, Prompts().click(40, 41).click(40, 30), lesion=1)
    assert np.array_equal(made == 2, mask == 2)
    assert (made[22:58, 22:39] == 1).all()


def test_a_lesion_that_is_none_goes_with_a_negative_click(engine) -> None:
    frame = scene((80, 80, 120, 120))
    mask = np.zeros(frame.shape, np.uint8)
    mask[10:30, 10:30] = 1
    assert not (Corrector(engine).correct(frame, mask, Prompts().click(20, 20, inside=False)) == 1).any()


def test_the_network_is_shown_mask_and_prompts_and_what_was_shown_is_kept(engine) -> None:
    frame = scene((60, 60, 100, 100), shape=(128, 256))
    mask = np.where(frame.pixels > 0, np.uint8(1), np.uint8(0))
    corrector = Corrector(engine)
    corrector.correct(frame, mask, Prompts().click(80, 200), lesion=1)
    (shown,) = engine.shown
    # 256 pixels wide come to 64, with 16 black ones above and below
    assert (shown[0, 0, :16] == -1).all()
    assert 100 <= shown[0, 1].sum() <= 144
    assert (shown[0, 0][shown[0, 1] > 0] > -0.1).all()
    rows, columns = np.nonzero(shown[0, 2])
    assert (rows.mean(), columns.mean()) == (36, 50)
    before = corrector._shown[frame.pixels_hash]
    corrector.correct(frame, mask, Prompts().click(80, 200).click(10, 10, inside=False), lesion=1)
    assert corrector._shown[frame.pixels_hash] is before
    assert np.array_equal(engine.shown[1][0, 0], shown[0, 0])


def test_the_lesion_that_is_touched_is_meant() -> None:
    mask = np.zeros((50, 50), np.uint8)
    mask[5:10, 5:10], mask[20:40, 20:40] = 3, 7
    assert find_lesion(mask, Prompts().click(0, 0).click(7, 7, inside=False)) == 3
    assert find_lesion(mask, Prompts().enclose(0, 0, 35, 35)) == 7
    assert find_lesion(mask, Prompts().click(45, 45)) == 1


def test_negative_clicks_alone_make_no_lesion(engine) -> None:
    frame = scene((80, 80, 120, 120))
    mask = np.zeros(frame.shape, np.uint8)
    assert not Corrector(engine).correct(frame, mask, Prompts().click(20, 20, inside=False)).any()


def test_a_box_over_the_edge_is_cut_off(engine) -> None:
    frame = scene((100, 100, 128, 128), (10, 10, 20, 20))
    mask = np.zeros(frame.shape, np.uint8)
    made = Corrector(engine).correct(frame, mask, Prompts().enclose(95, 95, 140, 300))
    assert made[105:, 105:].all()
    assert not made[:90].any()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"mask": np.zeros((9, 9), np.uint8)}, r"mask must be uint8 \(128, 128\)"),
        ({"mask": np.zeros((128, 128), np.int64)}, "mask must be uint8"),
        ({"prompts": Prompts()}, "there is no prompt"),
        ({"prompts": Prompts().click(128, 3)}, "row 128, column 3 lies outside the image of 128 x 128"),
        ({"prompts": Prompts().enclose(-9, 3, -4, 9)}, "lies outside the image of 128 x 128"),
        ({"prompts": Prompts().enclose(3, 128, 9, 140)}, "lies outside the image of 128 x 128"),
        ({"kept": np.zeros((128, 128), np.uint8)}, "kept must be bool"),
        ({"lesion": 0}, "lesion must be a number from 1 to 255, got 0"),
    ],
)
def test_what_does_not_fit_is_named(engine, changes, told) -> None:
    frame = scene((20, 20, 60, 60))
    given = {"mask": np.zeros(frame.shape, np.uint8), "prompts": Prompts().click(3, 3), **changes}
    with pytest.raises(ValueError, match=told):
        Corrector(engine).correct(frame, given.pop("mask"), given.pop("prompts"), **given)


def test_an_answer_that_is_no_number_is_told(engine) -> None:
    engine.run = lambda images: (np.full_like(images[:, :1], np.nan), np.zeros((1, 3), np.float32))
    with pytest.raises(ModelError, match="answers scene with what is no number"):
        Corrector(engine).correct(
            scene((20, 20, 60, 60)), np.zeros((128, 128), np.uint8), Prompts().click(30, 30)
        )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a small real network that takes prompts, with its graph."""
    torch.manual_seed(0)
    network = build_network(SPEC).half().float().eval()
    place = tmp_path_factory.mktemp("clicks") / "clicks"
    save_bundle(place, network, CARD, graph=make_graph(network, SPEC))
    return place


@pytest.mark.slow
def test_engines_answer_prompts_as_torch_does(folder) -> None:
    bundle = read_bundle(folder)
    assert bundle.card.format == "2.3"
    images = np.random.default_rng(0).random((2, 5, 64, 64), np.float32)
    exact = TorchEngine(bundle, "cpu", "float32")
    expected = exact.fetch(exact.run(exact.put(images))[0])
    for name, apart in (("onnx", 1e-4), ("openvino", 0.05)):
        pytest.importorskip({"onnx": "onnxruntime"}.get(name, name))
        engine = load_engine(name, folder, "cpu")
        assert np.abs(engine.run(images)[0] - expected).max() < apart
    prove_graph((folder / "graph.onnx").read_bytes(), bundle.network, bundle.card)
    drawn = phantom("benign", seed=1, shape=(96, 128))
    frame, mask = frame_from_array(drawn.image, name="phantom"), (drawn.mask > 0).astype(np.uint8)
    made = Corrector(exact).correct(frame, mask, Prompts().click(50, 60))
    other = Corrector(load_engine("onnx", folder, "cpu")).correct(frame, mask, Prompts().click(50, 60))
    assert np.mean(made != other) < 0.001


def test_a_predictor_and_a_corrector_refuse_each_others_models(folder, network, card) -> None:
    bundle = read_bundle(folder)
    with pytest.raises(ModelError, match=rf"{bundle.card.model} repairs masks by clicks"):
        Predictor(bundle, device="cpu")
    automatic = replace(bundle, card=card, network=network)
    with pytest.raises(ModelError, match="predicts by itself, and knows no clicks"):
        Corrector(automatic, device="cpu")


def test_without_a_prompt_it_predicts_as_any_other(folder) -> None:
    engine = TorchEngine(read_bundle(folder), "cpu", "float32")
    drawn = phantom("benign", seed=1, shape=(96, 128))
    frame = frame_from_array(drawn.image, name="phantom")
    predictor = Predictor(Unprompted(engine), views=1)
    square = predictor._box(frame).apply(frame.pixels.astype(np.float32) / 255) * 2 - 1
    images = np.concatenate([square[None], np.zeros((4, 64, 64), np.float32)])[None]
    expected = engine.fetch(engine.run(engine.put(images))[0])[0, 0]
    assert np.abs(predictor.see([frame])[0][0, 0].numpy() - expected).max() < 0.02


@pytest.mark.parametrize("value", ["arrows", True, ["discs"], None])
def test_a_card_says_how_prompts_are_shown_or_is_refused(folder, tmp_path, value) -> None:
    values = json.loads((folder / "card.json").read_text())
    values["spec"]["arguments"]["prompts"] = value
    (tmp_path / "card.json").write_text(json.dumps(values))
    with pytest.raises(BundleError, match=r"arguments.prompts must be one of discs"):
        read_bundle(tmp_path)


def test_a_graph_of_images_alone_is_none_of_a_card_with_prompts(folder) -> None:
    shipped = shipped_card()
    arguments = {**shipped.spec.arguments, "prompts": "discs"}
    prompted = replace(shipped, spec=replace(shipped.spec, arguments=arguments))
    with pytest.raises(EngineError, match="images is of the shape"):
        check_graph(read_graph(shipped_folder(), shipped), prompted)
    check_graph((folder / "graph.onnx").read_bytes(), CARD)


def test_a_corrector_is_loaded_by_its_folder(folder) -> None:
    assert load_corrector(folder, device="cpu", engine="onnx").model == read_card(folder).model
    with pytest.raises(ModelError, match="knows no clicks"):
        load_corrector("default", device="cpu", engine="onnx")
