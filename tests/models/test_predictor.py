"""Frames in, predictions out, on a small network."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import special

from sonoloop.batch import Failed, Predicted, predict_images
from sonoloop.errors import ConstantImageError, DeviceError, ModelError, NotFiniteImageError
from sonoloop.imaging.grey import frame_from_array
from sonoloop.imaging.image_files import FoundImage
from sonoloop.imaging.phantom import phantom
from sonoloop.models.bundle import Bundle
from sonoloop.models.devices import autocast_dtype, choose_device
from sonoloop.models.predictor import Predictor
from sonoloop.models.tta import average_classes


def frames(*shapes: tuple[int, int]):
    return [
        frame_from_array(phantom("benign", seed=i, shape=shape).image, name=f"{i}.png")
        for i, shape in enumerate(shapes)
    ]


def with_card(bundle: Bundle, **changes: object) -> Bundle:
    return Bundle(dataclasses.replace(bundle.card, **changes), bundle.network)


class Fixed(torch.nn.Module):
    """Sees a lesion where the image is bright, and always the same class."""

    def __init__(self, classes: tuple[float, float, float]) -> None:
        super().__init__()
        self.classes = torch.nn.Parameter(torch.tensor(classes))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return images * 20, self.classes.repeat(len(images), 1)


def fixed(bundle: Bundle, classes: tuple[float, float, float] = (0.0, 5.0, 0.0), **changes: object) -> Bundle:
    return Bundle(dataclasses.replace(bundle.card, **changes), Fixed(classes))


def bright_square(shape: tuple[int, int] = (90, 150)) -> np.ndarray:
    pixels = np.zeros(shape, np.uint8)
    pixels[30:60, 40:90] = 255
    return pixels


@pytest.mark.parametrize("views", [1, 2, 4])
def test_a_prediction_is_on_the_frames_grid(bundle, views):
    [frame] = frames((120, 170))
    prediction = Predictor(bundle, device="cpu", views=views).predict(frame)
    assert prediction.frame_id == frame.id
    assert prediction.model == bundle.model
    assert prediction.mask.shape == prediction.lesion.shape == prediction.uncertainty.shape == (120, 170)
    assert (prediction.mask.dtype, prediction.lesion.dtype) == (np.uint8, np.float32)
    assert 0 <= prediction.lesion.min() <= prediction.lesion.max() <= 1
    assert 0 <= prediction.uncertainty.min() <= prediction.uncertainty.max() <= 1 + 1e-6
    assert prediction.classes.sum() == pytest.approx(1, abs=1e-5)
    assert 0 <= prediction.expected_dice <= 1


def test_a_batch_of_any_sizes_gives_what_each_gives_alone(bundle):
    some = frames((100, 140), (140, 100), (64, 300), (200, 200), (100, 141))
    predictor = Predictor(bundle, device="cpu", batch=3)
    for alone, together in zip(map(predictor.predict, some), predictor.predict_batch(some), strict=True):
        assert alone.frame_id == together.frame_id
        np.testing.assert_allclose(alone.lesion, together.lesion, atol=0.02)


def test_the_mask_lies_where_the_lesion_is(bundle):
    frame = frame_from_array(bright_square(), name="a")
    prediction = Predictor(fixed(bundle), device="cpu").predict(frame)
    truth = bright_square() > 0
    assert prediction.lesions == 1
    assert 2 * ((prediction.mask > 0) & truth).sum() / (truth.sum() + (prediction.mask > 0).sum()) > 0.95


def test_a_frame_called_normal_with_confidence_has_no_lesion(bundle):
    frame = frame_from_array(bright_square(), name="a")
    sure = Predictor(fixed(bundle, (9.0, 0.0, 0.0), normal_gate=0.9), device="cpu").predict(frame)
    assert not sure.mask.any()
    assert sure.label == "normal"
    # an empty mask is worth what the model gives to there being none
    assert sure.expected_dice == pytest.approx(float(sure.classes[0]))
    unsure = Predictor(fixed(bundle, (1.0, 0.0, 0.0), normal_gate=0.9), device="cpu").predict(frame)
    assert unsure.mask.any()


def test_the_temperature_softens_the_classes(bundle):
    frame = frame_from_array(bright_square(), name="a")
    hot = Predictor(fixed(bundle, temperature=5.0), device="cpu").predict(frame)
    cold = Predictor(fixed(bundle, temperature=1.0), device="cpu").predict(frame)
    assert hot.classes[1] == pytest.approx(np.e / (np.e + 2), abs=1e-5)
    assert cold.classes[1] > hot.classes[1]


def test_the_expected_dice_follows_the_cards_line(bundle):
    frame = frame_from_array(bright_square(), name="a")
    line = {"2": {"x": [0.0, 1.0], "y": [0.3, 0.3]}}
    assert Predictor(fixed(bundle, agreement=line), device="cpu").predict(
        frame
    ).expected_dice == pytest.approx(0.3)


def test_the_expected_dice_is_read_from_how_sure_the_mask_is_where_the_card_says_so(bundle):
    frame = frame_from_array(bright_square(), name="a")
    line = {"1": {"x": [0.0, 1.0], "y": [0.0, 0.5]}}
    # the line of agreement is of an older Sonoloop, and is not asked
    card = {"foreground": line, "agreement": {"1": {"x": [0.0], "y": [0.9]}}}
    prediction = Predictor(fixed(bundle, **card), device="cpu", views=1).predict(frame)
    inside = float(prediction.lesion[prediction.mask > 0].mean())
    assert inside > 0.5
    assert prediction.expected_dice == pytest.approx(inside / 2)
    # no line of two views: how sure it is, as it is
    two = Predictor(fixed(bundle, **card), device="cpu", views=2).predict(frame)
    assert two.expected_dice == pytest.approx(float(two.lesion[two.mask > 0].mean()))


def test_an_empty_mask_whose_map_sees_a_lesion_comes_early_in_the_review(bundle):
    frame = frame_from_array(bright_square(), name="a")
    line = {"2": {"x": [0.0, 1.0], "y": [0.0, 1.0]}}
    gated = Predictor(fixed(bundle, (9.0, 0.0, 0.0), foreground=line, normal_gate=0.9), device="cpu")
    prediction = gated.predict(frame)
    assert not prediction.mask.any()
    surest = float(prediction.lesion.max())
    assert surest > 0.9
    assert prediction.expected_dice == pytest.approx(float(prediction.classes[0]) * (1 - surest), abs=1e-6)


def test_uncertainty_is_entropy_in_bits(bundle):
    prediction = Predictor(bundle, device="cpu").predict(frames((80, 80))[0])
    p = prediction.lesion.astype(np.float64).clip(1e-12, 1 - 1e-12)
    np.testing.assert_allclose(
        prediction.uncertainty, -(p * np.log2(p) + (1 - p) * np.log2(1 - p)), atol=1e-4
    )


def test_frames_with_nothing_to_see_are_refused(bundle):
    predictor = Predictor(bundle, device="cpu")
    with pytest.raises(ConstantImageError, match="flat"):
        predictor.predict(frame_from_array(np.full((50, 50), 3, np.uint8), name="flat"))
    bad = np.ones((50, 50), np.float32)
    bad[2, 2] = np.nan
    with pytest.raises(NotFiniteImageError):
        predictor.predict(frame_from_array(bad, name="bad"))


class Odd(torch.nn.Module):
    """Answers with `value` where an image has a white corner."""

    def __init__(self, head: str, value: float) -> None:
        super().__init__()
        self.head, self.value = head, value

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        lesion, classes = images * 20, torch.zeros(len(images), 3)
        odd = images[:, 0, 0, 0] > 0
        (lesion if self.head == "lesion" else classes)[odd] = self.value
        return lesion, classes


def with_corner(corner: int) -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, 99, (64, 64), np.uint8)
    pixels[:9, :9] = corner
    return pixels


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("head", ["lesion", "classes"])
def test_an_answer_that_is_no_number_fails_that_image_by_its_name(bundle, head, value):
    predictor = Predictor(Bundle(bundle.card, Odd(head, value)), device="cpu", views=1)
    good, bad = (frame_from_array(with_corner(c), name=f"{c}.png") for c in (0, 255))
    with pytest.raises(ModelError, match=r"answer of the model tiny-\w+ to 255\.png holds what is no number"):
        predictor.predict_batch([good, bad])
    assert np.isfinite(predictor.predict(good).lesion).all()
    found = [FoundImage(Path(name), Path(name)) for name in ("0", "255", "1")]
    outcomes = predict_images(
        found,
        predictor,
        batch=8,
        read=lambda path: frame_from_array(with_corner(int(path.name)), name=f"{path}.png"),
    )
    assert [type(outcome) for outcome in outcomes] == [Predicted, Failed, Predicted]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 1, 8, 8), "answers in the shapes"),
        ((1, 1, 64), "answers in the shapes"),
        (None, "cannot compute"),
    ],
)
def test_an_engine_that_answers_otherwise_is_told_by_the_models_name(bundle, monkeypatch, shape, message):
    predictor = Predictor(bundle, device="cpu", views=1)

    def run(_):
        if shape is None:
            raise IndexError("index out of range in self")
        return torch.zeros(shape), torch.zeros(1, 3)

    monkeypatch.setattr(predictor.engine, "run", run)
    with pytest.raises(ModelError, match=f"the model tiny-.*{message}"):
        predictor.predict(frames((64, 64))[0])


def test_what_overflows_in_reduced_precision_is_computed_again_in_float32(bundle):
    class Overflowing(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            reduced = torch.is_autocast_enabled("cpu")
            return images * (torch.inf if reduced else 20), torch.zeros(len(images), 3)

    predictor = Predictor(Bundle(bundle.card, Overflowing()), device="cpu")
    predictor.engine._dtype = torch.float16
    assert predictor.predict(frame_from_array(bright_square(), name="a")).lesions == 1


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize("temperature", [0.01, 1.0, 100.0])
@pytest.mark.parametrize(
    "logits", [[3e38, -3e38, 0], [3e38, 3e38, 3e38], [-3e38, -3e38, -3e38], [0, 1e-45, 1]]
)
def test_classes_of_extreme_logits_are_probabilities(kind, temperature, logits):
    classes = np.asarray(average_classes(kind(np.float32([[logits]])), temperature))
    assert np.isfinite(classes).all()
    assert classes.min() >= 0
    assert classes.sum() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_classes_beside_extreme_ones_keep_every_bit(kind):
    logits = np.random.default_rng(0).normal(scale=4, size=(4, 9, 3)).astype(np.float32)
    beside = logits.copy()
    beside[:, 8] = 3e38, -3e38, 0
    plain = torch.from_numpy(logits) / 0.7 if kind is not np.asarray else logits / np.float32(0.7)
    softmax = plain.softmax(-1).mean(0) if kind is not np.asarray else special.softmax(plain, -1).mean(0)
    assert np.array_equal(average_classes(kind(beside), 0.7)[:8], softmax[:8])


@pytest.mark.parametrize(
    "setting",
    [{"views": 3}, {"threshold": 0.0}, {"threshold": 1.0}, {"batch": 0}],
    ids=lambda s: next(iter(s)),
)
def test_a_setting_out_of_range_is_named(bundle, setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        Predictor(bundle, device="cpu", **setting)


def test_out_of_memory_halves_the_batch_and_says_so(bundle, monkeypatch):
    notices: list[str] = []
    predictor = Predictor(bundle, device="cpu", batch=8, on_notice=notices.append)
    whole = predictor.engine.run

    def scarce(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if len(images) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(images)

    monkeypatch.setattr(predictor.engine, "run", scarce)
    some = frames(*[(64, 64 + i) for i in range(5)])
    predictions = predictor.predict_batch(some)
    assert [p.frame_id for p in predictions] == [f.id for f in some]
    assert [p.mask.shape for p in predictions] == [f.shape for f in some]
    # two views each: eight frames are sixteen images, then eight, then four
    assert predictor.batch == 2
    assert len(notices) == 2
    assert "batches of 4" in notices[0]


def test_out_of_memory_on_the_cpu_with_one_frame_is_an_error(bundle, monkeypatch):
    predictor = Predictor(bundle, device="cpu", batch=1)

    def none_left(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        # as torch says it on a CPU
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(predictor.engine, "run", none_left)
    with pytest.raises(ModelError, match=r"not enough memory to predict 0\.png"):
        predictor.predict(frames((64, 64))[0])


def test_a_device_that_is_not_there_is_named():
    with pytest.raises(DeviceError, match="no device 'tpu'"):
        choose_device("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="no usable cuda"):
            choose_device("cuda")


def test_autocast_is_settled_once_for_a_device():
    assert autocast_dtype(torch.device("cpu")) in (None, torch.bfloat16)
    assert autocast_dtype(torch.device("cpu")) is autocast_dtype(torch.device("cpu"))


@pytest.mark.cuda
def test_cuda_agrees_with_the_cpu(bundle):
    some = frames((100, 140), (140, 100))
    here = Predictor(bundle, device="cpu").predict_batch(some)
    there = Predictor(bundle, device="cuda").predict_batch(some)
    for one, other in zip(here, there, strict=True):
        np.testing.assert_allclose(one.lesion, other.lesion, atol=0.05)


@pytest.mark.cuda
def test_a_full_gpu_goes_on_on_the_cpu(bundle):
    notices: list[str] = []
    predictor = Predictor(bundle, device="cuda", batch=4, on_notice=notices.append)
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(1e6 / total)
    try:
        assert len(predictor.predict_batch(frames((300, 300), (310, 300)))) == 2
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert predictor.device == "cpu"
    assert "CPU" in notices[-1]
