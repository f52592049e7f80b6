"""Networks that are not ours: their files and descriptions become bundles that answer as they do."""

from __future__ import annotations

import copy
import os
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from own_networks import FLOAT, SIZE, TOML, build, segmenter, tensor
from sonoloop.errors import BundleError, ModelError
from sonoloop.imaging.grey import frame_from_array
from sonoloop.models.bundle import read_bundle
from sonoloop.models.card import CARD, GRAPH, read_card, read_graph
from sonoloop.models.engines import load_engine
from sonoloop.models.engines.auto import describe_engine, open_engine
from sonoloop.models.engines.onnx import OnnxEngine
from sonoloop.models.library import Library
from sonoloop.models.own.description import parse_description, read_description, write_description
from sonoloop.models.own.model import make_own
from sonoloop.models.own.own_file import describe, read_own
from sonoloop.models.own.proposal import propose
from sonoloop.models.own.trial import try_card
from sonoloop.models.predictor import Predictor


@pytest.fixture
def place(tmp_path):
    """Write a network and its description; gives the path of the network."""

    def write(model, toml=TOML, name="theirs.onnx"):
        path = tmp_path / name
        path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
        if toml is not None:
            path.with_suffix(".toml").write_text(toml, encoding="utf-8")
        return path

    return write


def make(path: Path, folder: Path | None = None):
    own = read_own(path)
    folder = folder or path.parent / "made"
    description = describe(own)
    card = make_own(own, description, folder)
    return folder, card, try_card(folder, card, description, own.path.name)


def run_theirs(model, images):
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip(("map", "kind"), session.run(None, {session.get_inputs()[0].name: images}), strict=False))


def softmax(values, axis):
    raised = np.exp(values - values.max(axis, keepdims=True))
    return raised / raised.sum(axis, keepdims=True)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(1)
    return rng.uniform(-1, 1, (2, 1, SIZE, SIZE)).astype(np.float32)


def doubled(maps):
    """Resize (B, H, W) to twice the sides as ONNX's half_pixel does."""
    from sonoloop.models.preprocess import resize

    return resize(maps[:, None].astype(np.float32), SIZE, SIZE)


def test_a_graph_answers_as_the_network_and_its_description(place, images):
    model = segmenter()
    folder, card, _ = make(place(model))
    lesion, classes = OnnxEngine(card, read_graph(folder, card)).run(images)
    grey = np.repeat((images + 1) / 2, 3, axis=1)
    mean, std = (np.float32(each).reshape(1, 3, 1, 1) for each in ([0.5, 0.4, 0.3], [0.2, 0.25, 0.5]))
    theirs = run_theirs(model, (grey - mean) / std)
    np.testing.assert_allclose(lesion, doubled(softmax(theirs["map"], 1)[:, 1]), atol=1e-5)
    np.testing.assert_allclose(classes[:, [2, 1]], theirs["kind"], atol=1e-4)
    # it knows no normals
    assert (classes[:, 0] == -100).all()
    assert (card.name, card.spec.library, card.spec.heads) == ("theirs", "onnx", ("lesion", "classes"))


def test_the_same_file_gives_the_same_version(place, tmp_path):
    path = place(segmenter())
    assert make(path, tmp_path / "a")[1].version == make(path, tmp_path / "b")[1].version


def replaced(**told):
    """The description with other lines."""
    lines = TOML
    for old, new in told.values():
        assert old in lines
        lines = lines.replace(old, new)
    return lines


@pytest.mark.parametrize(
    ("model", "toml"),
    [
        (segmenter(batch=1), TOML),
        (segmenter(size=None), TOML),
        (segmenter(opset=13), TOML),
        (segmenter(opset=21), TOML),
        (segmenter(kind=TensorProto.FLOAT16), TOML),
        (segmenter(size=72), TOML.replace("size = 64", "size = 72")),
        (
            segmenter(),
            TOML.replace('softmax"\nchannels', 'sigmoid"\nchannels').replace("= 1\n\n", "= [0, 1]\n\n"),
        ),
    ],
    ids=["fixed batch", "dynamic size", "old set", "new set", "float16", "no multiple of 32", "two sigmoids"],
)
def test_a_network_of_another_form_is_taken(place, model, toml):
    folder, card, trial = make(place(model, toml))
    prediction = Predictor(OnnxEngine(card, read_graph(folder, card))).predict(
        frame_from_array(np.arange(80 * 90, dtype=np.uint16).reshape(80, 90), name="ramp")
    )
    assert np.isfinite(prediction.lesion).all()
    assert card.spec.size % 32 == 0
    assert trial.seconds > 0


def test_channels_last_answers_as_channels_first(place, images, tmp_path):
    inside = segmenter()
    nodes = [helper.make_node("Transpose", ["last"], ["x"], perm=[0, 3, 1, 2]), *inside.graph.node]
    nodes.append(helper.make_node("Transpose", ["map"], ["out"], perm=[0, 2, 3, 1]))
    model = build(
        nodes,
        [*inside.graph.initializer],
        {"last": ["n", SIZE, SIZE, 3]},
        {"out": ["n", SIZE // 2, SIZE // 2, 2], "kind": ["n", 2]},
    )
    first, last = segmenter(), model
    toml = TOML.replace("channels = 3", 'channels = 3\nlayout = "NHWC"').replace('"map"', '"out"')
    answers = []
    for number, (each, told) in enumerate(((first, TOML), (last, toml))):
        folder, card, _ = make(place(each, told, f"n{number}.onnx"), tmp_path / f"made{number}")
        answers.append(OnnxEngine(card, read_graph(folder, card)).run(images))
    for one, other in zip(*answers, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def telling(value):
    """A network that says one number of whatever image."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "value"], ["flat"]),
        helper.make_node("Reshape", ["flat", "shape"], ["kind"]),
    ]
    stored = [tensor("zero", 0.0), tensor("value", value), tensor("shape", [-1, 1], np.int64)]
    return build(nodes, stored, {"x": ["n", 1, SIZE, SIZE]}, {"kind": ["n", 1]})


TELLING = '[input]\nsize = 64\n[classes]\nactivation = "{}"\norder = ["benign", "malignant"]'


@pytest.mark.parametrize("logit", [3.0, -2.0])
def test_logits_of_classes_that_are_called_probabilities_are_refused(place, logit):
    with pytest.raises(
        BundleError, match=r"for the classes is below 0 or above 1 and is no probability; set \[classes\]"
    ):
        make(place(telling(logit), TELLING.format("none")))


@pytest.mark.parametrize(
    ("activation", "logits", "wanted"),
    [("sigmoid", 1.5, 1.5), ("none", 0.8, np.log(0.8 / 0.2))],
)
def test_one_number_is_the_second_class(place, images, activation, logits, wanted):
    folder, card, trial = make(place(telling(logits), TELLING.format(activation)))
    lesion, classes = OnnxEngine(card, read_graph(folder, card)).run(images)
    np.testing.assert_allclose(classes[:, 0], -100, atol=2)
    np.testing.assert_allclose(classes[:, 2] - classes[:, 1], [wanted] * 2, atol=1e-4)
    assert not lesion.any()
    assert card.spec.heads == ("classes",)
    assert "it tells no mask" in trial.notes[0]


def test_a_network_without_classes_gives_each_a_third(place):
    model = segmenter()
    del model.graph.output[1]
    _, card, trial = make(place(model, TOML[: TOML.index("[classes]")]))
    assert card.spec.heads == ("lesion",)
    assert trial.answers[0][2] == pytest.approx((1 / 3,) * 3)
    assert "it tells no classes: each is given a third" in trial.notes


def test_images_are_stretched_where_the_network_was_trained_so(place):
    folder, card, _ = make(place(segmenter(), TOML.replace("size = 64", 'size = 64\nresize = "stretch"')))
    predictor = Predictor(OnnxEngine(card, read_graph(folder, card)), views=1)
    frame = frame_from_array(np.random.default_rng(0).integers(0, 255, (64, 128), np.uint8), name="wide")
    maps, _ = predictor.see([frame])
    assert predictor._box(frame).content == (0, 0, 64, 64)
    assert predictor.predict(frame).lesion.shape == (64, 128)
    # no border is black
    assert maps[0, 0, 0].std() > 0


def test_weights_written_as_numbers_and_a_dropout_are_taken(place, images):
    model = segmenter()
    weights = numpy_helper.to_array(model.graph.initializer[0])
    listed = helper.make_tensor("w", FLOAT, weights.shape, weights.ravel().tolist())
    assert listed.float_data
    model.graph.initializer[0].CopyFrom(listed)
    model.graph.node[0].output[0] = "before"
    model.graph.node.insert(1, helper.make_node("Dropout", ["before"], ["map"]))
    # as old exporters do
    model.graph.input.append(helper.make_tensor_value_info("w", FLOAT, weights.shape))
    folder, card, _ = make(place(model))
    plain, other, _ = make(place(segmenter(), name="plain.onnx"), folder.parent / "plain")
    for one, two in zip(
        OnnxEngine(card, read_graph(folder, card)).run(images),
        OnnxEngine(other, read_graph(plain, other)).run(images),
        strict=True,
    ):
        np.testing.assert_array_equal(one, two)


def with_node(kind, domain=""):
    model = segmenter()
    model.graph.node.append(helper.make_node(kind, ["map"], ["more"], domain=domain))
    return model


def outside():
    model = segmenter()
    weights = model.graph.initializer[0]
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="../../etc/weights.bin")
    return model


def without_map():
    model = segmenter()
    del model.graph.output[0]
    return model


def overflowing():
    model = segmenter()
    model.graph.initializer[0].CopyFrom(tensor("w", np.full((2, 3, 3, 3), 3e38)))
    return model


def with_nan():
    model = segmenter()
    model.graph.initializer[0].CopyFrom(tensor("w", np.full((2, 3, 3, 3), np.nan)))
    return model


def one_at_a_time():
    model = segmenter(batch=1)
    model.graph.node[2].CopyFrom(helper.make_node("Reshape", ["pooled", "one"], ["flat"]))
    model.graph.initializer.append(tensor("one", [1, 2], np.int64))
    return model


def picked():
    model = segmenter()
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    return model


def two_inputs():
    model = segmenter()
    model.graph.input.append(helper.make_tensor_value_info("age", FLOAT, ["n", 1]))
    return model


def with_graph():
    model = segmenter()
    attribute = model.graph.node[0].attribute.add()
    attribute.CopyFrom(helper.make_attribute("inner", helper.make_graph([], "inner", [], [])))
    return model


REFUSED_ONNX = {
    "its operators are of ONNX's set 12": lambda: segmenter(opset=12),
    "its input x has 1 channels, and [input] says channels = 3": lambda: segmenter(channels=1),
    "its input x is 96 x 96 pixels, and [input] says size = 64": lambda: segmenter(size=96),
    "it has the operator NonZero, which Sonoloop does not run": lambda: with_node("NonZero"),
    "it has operators of com.microsoft, and ONNX's own alone are run": lambda: with_node(
        "Relu", "com.microsoft"
    ),
    "its weights lie in another file, weights.bin; write it as one file": outside,
    "it has no output map; its outputs are: kind": without_map,
    "are its weights whole?": overflowing,
    "values of the tensor 'own.w' are NaN or infinite": with_nan,
    "it computes one image and not three at once": one_at_a_time,
    "it is no ONNX file, or damaged": lambda: b"no network at all, and long enough to be read as one",
    "theirs.onnx is empty; save or export the network again": lambda: b"",
    "a part of it is of no kind that there is": lambda: b'{"network": [1, 2, 3]}',
    "it breaks off": lambda: segmenter().SerializeToString()[:-40],
    "its output map is int64, and has to be float32": picked,
    "it takes x, age, and only one image is given": two_inputs,
    "has an attribute of a kind|is of a kind that Sonoloop does not read": with_graph,
}


@pytest.mark.parametrize("told", REFUSED_ONNX)
def test_an_onnx_file_that_cannot_be_used_is_refused_in_words(place, tmp_path, told):
    path = place(REFUSED_ONNX[told]())
    library = Library(tmp_path / "models")
    with pytest.raises(BundleError) as refused:
        library.import_(path)
    assert any(part in str(refused.value) for part in told.split("|"))
    assert "theirs.onnx" in str(refused.value)
    assert not [*library.folders()]
    assert not [*library.folder.glob("*")]


REFUSED_TOML = {
    "it has no [input]; do you mean inputs?": ("[input]", "[inputs]"),
    "there is no 'activaton' in [lesion]; do you mean activation?": ("activation", "activaton"),
    "[input]: size must be a whole number, got '64'": ("size = 64", 'size = "64"'),
    "[input]: size must be from 16 to 2048, got 100000": ("size = 64", "size = 100000"),
    "[input]: channels must be 1 or 3, got 4": ("channels = 3", "channels = 4"),
    "[input]: std must be above 0": ("std = [0.2", "std = [0.0"),
    "[input]: mean must have a number for each of the 3 channels": ("0.5, 0.4, 0.3", "0.5, 0.4"),
    "[input]: mean.0 must be a number, got nan": ("mean = [0.5", "mean = [nan"),
    "[lesion] lacks activation": ('activation = "softmax"\nchannels', "channels"),
    "[lesion]: channel must be one or several of 0 to 1, got 2": ("channel = 1", "channel = 2"),
    "[lesion]: activation must be one of sigmoid, softmax, none, got 'sofmax'; do you mean softmax?": (
        '"softmax"\nchannels',
        '"sofmax"\nchannels',
    ),
    "[classes]: order must name normal, benign, malignant, or benign and malignant": ('"malignant", ', ""),
    "threshold must be between 0.01 and 0.99, got 2": ("[input]", "threshold = 2\n[input]"),
    "theirs.toml cannot be used: ": ("[input]", "[input"),
    "lesion must be a table of values, got 3": (TOML, "lesion = 3"),
    "[network] is for a safetensors file": (
        "[input]",
        '[network]\nlibrary = "smp"\narchitecture = "Unet"\n[input]',
    ),
    "its output kind gives 2 numbers, and [classes] with activation = softmax and order of 3 says 3": (
        '"malignant", ',
        '"malignant", "normal", ',
    ),
    "its output map has 2 channels, and [lesion] says channels = 5": ("channels = 2", "channels = 5"),
    "it has no output mask; its outputs are: map, kind": ('"map"', '"mask"'),
    "is no probability; set [lesion] activation": ('"softmax"\nchannels', '"none"\nchannels'),
    "theirs.toml is nested too deeply|theirs.toml cannot be used": (TOML, "a = " + "[" * 20_000),
    "theirs.toml cannot be read (it has 97.7 KiB, and at most 64 KiB are read)": (TOML, "#" * 100_000),
}


@pytest.mark.parametrize("told", REFUSED_TOML)
def test_a_description_that_is_wrong_is_refused_by_its_key(place, tmp_path, told):
    old, new = REFUSED_TOML[told]
    assert old in TOML
    library = Library(tmp_path / "models")
    with pytest.raises(BundleError) as refused:
        library.import_(place(segmenter(), TOML.replace(old, new)))
    assert any(part in str(refused.value) for part in told.split("|"))
    assert not [*library.folder.glob("*")]


def test_a_network_without_a_description_is_told_how_to_get_one(place, tmp_path):
    with pytest.raises(
        BundleError, match=r"there is no theirs\.toml beside theirs\.onnx.*check theirs\.onnx --write"
    ):
        Library(tmp_path / "models").import_(place(segmenter(), None))


def test_what_is_proposed_is_read_again_and_fits(place):
    path = place(segmenter(), None)
    proposed = propose(read_own(path))
    path.with_suffix(".toml").write_text(write_description(proposed))
    assert read_description(path.with_suffix(".toml")) == proposed
    assert (proposed.input.channels, proposed.input.size, proposed.input.name) == (3, SIZE, "x")
    assert (proposed.lesion.channels, proposed.lesion.activation, proposed.classes.output) == (
        2,
        "softmax",
        "kind",
    )
    assert make(path)[1].name == "theirs"


@pytest.mark.parametrize("name", ["network.pt", "weights.PTH", "all.pkl", "old.ckpt", "keras.h5"])
def test_what_would_be_unpickled_is_left_closed(tmp_path, name):
    path = tmp_path / name
    # as torch writes its files
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"cos\nsystem\n")
    with pytest.raises(BundleError, match=r"left closed.*safetensors\.torch\.save_file.*torch\.onnx\.export"):
        Library(tmp_path / "models").import_(path)


def test_files_that_are_none_or_too_large_are_refused(place, tmp_path):
    library = Library(tmp_path / "models")
    (tmp_path / "folder.onnx").mkdir()
    os.mkfifo(tmp_path / "pipe.onnx")
    with (tmp_path / "large.onnx").open("wb") as file:
        file.truncate(2 << 30)
    (tmp_path / "gone.onnx").symlink_to(tmp_path / "nowhere")
    wanted = {
        "pipe.onnx": r"it is a pipe, not a file",
        "large.onnx": r"it has 2 GiB, and at most 500 MiB are read",
        "gone.onnx": r"there is no file .*gone\.onnx",
        "lonely.toml": r"beside lonely\.toml lies neither lonely\.onnx nor lonely\.safetensors",
    }
    for name, told in wanted.items():
        with pytest.raises(BundleError, match=told):
            library.import_(tmp_path / name)
    with pytest.raises(BundleError):
        library.import_(tmp_path / "folder.onnx")
    place(segmenter(), name="two.onnx").with_suffix(".safetensors").write_bytes(b"")
    with pytest.raises(BundleError, match="lie both"):
        library.import_(tmp_path / "two.toml")


@pytest.fixture
def brought(place, tmp_path):
    """A library with a network of a user's own, and its folder in it."""
    library = Library(tmp_path / "models")
    return library, library.import_(place(segmenter()))


def test_a_network_of_ones_own_is_kept_carried_and_checked_like_any_other(brought, tmp_path):
    library, folder = brought
    card = read_card(folder)
    assert sorted(path.name for path in folder.iterdir()) == [CARD, GRAPH]
    assert library.check(card.version) == card
    file = library.export(card.version, tmp_path / "it.zip")
    other = Library(tmp_path / "elsewhere")
    assert read_card(other.import_(file)).version == card.version
    # given as the description, it is the same
    assert read_card(library.import_(tmp_path / "theirs.toml")).version == card.version


def test_a_graph_alone_that_is_gone_or_changed_is_named(brought, tmp_path):
    library, folder = brought
    version = read_card(folder).version
    whole = (folder / GRAPH).read_bytes()
    (folder / GRAPH).write_bytes(whole[:-1])
    with pytest.raises(ModelError, match="is not the one its card names"):
        library.check(version)
    (folder / GRAPH).unlink()
    with pytest.raises(BundleError, match=r"has no graph\.onnx, which is all of its network"):
        library.export(version, tmp_path / "it.zip")


def test_torch_says_that_it_cannot_run_or_train_it(brought):
    library, folder = brought
    version = read_card(folder).version
    for ask in (
        lambda: library.load(version),
        lambda: load_engine("torch", folder, "cpu"),
        lambda: read_bundle(folder),
    ):
        with pytest.raises(BundleError, match="brought in as a graph, which torch neither runs nor trains"):
            ask()


def test_it_runs_on_the_cpu_where_a_gpu_is_asked_for(brought):
    _, folder = brought
    told = []
    engine = open_engine(folder, "cuda", on_notice=told.append)
    assert (engine.name, engine.device) == ("onnx", "cpu")
    assert "runs on the CPU and not on cuda" in told[0]
    assert describe_engine(read_card(folder), "cuda").startswith("onnx")


def test_a_description_of_all_there_is_survives_writing(tmp_path):
    told = parse_description(
        {
            "name": "lab",
            "network": {
                "library": "smp",
                "architecture": "Unet",
                "encoder": "resnet18",
                "arguments": {"encoder_depth": 4},
            },
            "input": {"size": 128, "range": [0, 255]},
            "lesion": {"activation": "softmax", "channels": 3, "channel": [1, 2]},
        }
    )
    path = tmp_path / "lab.toml"
    path.write_text(write_description(told))
    again = read_description(path)
    assert again == replace(told, input=replace(told.input, range=(0.0, 255.0)))


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_file_is_refused_or_computes(place, tmp_path, seed):
    rng = np.random.default_rng(seed)
    data = bytearray(segmenter().SerializeToString())
    for spot in rng.integers(0, len(data), rng.integers(1, 6)):
        data[spot] = rng.integers(0, 256)
    try:
        make(place(bytes(data)))
    except BundleError as error:
        assert "theirs.onnx cannot be used" in str(error)


def test_nothing_of_onnx_is_needed_to_bring_one_in():
    # decided in 0011: strangers' bytes meet a reader of ours first
    files = [*(Path(__file__).parents[2] / "src/sonoloop/models/own").glob("*.py")]
    assert files
    for path in files:
        assert "import onnx\n" not in path.read_text()


UNET = """
[network]
library = "smp"
architecture = "Unet"
encoder = "tu-test_efficientnet"
arguments = { decoder_channels = [32, 16, 8, 8, 4] }

[input]
size = 64
channels = 3
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]

[lesion]
activation = "sigmoid"
"""


def save_weights(network, path, toml, prefix=""):
    from safetensors.torch import save_file

    save_file({prefix + key: value for key, value in network.state_dict().items()}, path)
    path.with_suffix(".toml").write_text(toml)
    return path


@pytest.fixture(scope="module")
def unet():
    import segmentation_models_pytorch as smp

    torch.manual_seed(0)
    return smp.Unet(
        "tu-test_efficientnet", encoder_weights=None, in_channels=3, decoder_channels=(32, 16, 8, 8, 4)
    ).eval()


def load(path):
    from sonoloop.models.own.named_network import load_named

    own = read_own(path)
    return load_named(describe(own), own.data, path.name)


def test_weights_of_a_named_network_answer_as_it_does(unet, tmp_path):
    images = torch.rand(1, 3, 64, 64)
    for prefix in ("", "module."):
        network = load(save_weights(unet, tmp_path / "unet.safetensors", UNET, prefix))
        with torch.inference_mode():
            torch.testing.assert_close(network(images)[0], unet(images))


REFUSED_WEIGHTS = {
    r"tensors fit\): 'encoder.*is missing": ("tu-test_efficientnet", "resnet18"),
    r"must have the shape \[32, ": ("[32, 16, 8", "[32, 32, 8"),
    r"segmentation_head.0.weight' must have the shape \[2, 4, 3, 3\], got \[1, 4, 3, 3\]": (
        'activation = "sigmoid"',
        'activation = "softmax"\nchannels = 2\nchannel = 1',
    ),
    r"\[network\]: arguments.weights is none that Unet is given": ("decoder_channels", "weights"),
    r"segmentation_models_pytorch has no architecture 'Unnet'": ('"Unet"', '"Unnet"'),
    r"\[network\]: architecture must be a plain name": ('"Unet"', '"hf-hub:them/theirs"'),
    r"\[network\]: encoder must be empty for timm": ('"smp"', '"timm"'),
    r"\[network\] lacks architecture": ('architecture = "Unet"', ""),
    r"library must be one of smp, timm, torchvision": ('"smp"', '"keras"'),
    r"unet.toml has no \[network\]": (UNET[: UNET.index("[input]")], ""),
    r"\[input\] layout is for ONNX": ("size = 64", 'size = 64\nlayout = "NHWC"'),
}


@pytest.mark.parametrize("told", REFUSED_WEIGHTS)
def test_weights_that_do_not_fit_are_told_tensor_by_tensor(unet, tmp_path, told):
    old, new = REFUSED_WEIGHTS[told]
    assert old in UNET
    path = save_weights(unet, tmp_path / "unet.safetensors", UNET.replace(old, new))
    own = read_own(path)
    with pytest.raises(ModelError, match=told):
        make_own(own, describe(own), tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_weights_that_are_nan_and_files_that_are_none_are_refused(unet, tmp_path):
    broken = copy.deepcopy(unet)
    with torch.no_grad():
        broken.segmentation_head[0].weight.fill_(torch.nan)
    with pytest.raises(BundleError, match=r"are NaN or infinite, the first in segmentation_head\.0\.weight"):
        load(save_weights(broken, tmp_path / "unet.safetensors", UNET))
    (tmp_path / "unet.safetensors").write_bytes(b"\x80\x04 a pickle under another name")
    with pytest.raises(BundleError, match=r"unet\.safetensors is no safetensors file"):
        read_own(tmp_path / "unet.safetensors")


def test_a_file_of_another_ending_is_told_which_are_read(tmp_path):
    with pytest.raises(BundleError, match=r"lab\.zip is no network .* ends in \.onnx or \.safetensors"):
        read_own(tmp_path / "lab.zip")


def test_a_description_of_weights_is_proposed_from_their_names(unet, tmp_path):
    path = save_weights(unet, tmp_path / "unet.safetensors", "")
    proposed = propose(read_own(path))
    assert (proposed.network.library, proposed.input.channels, proposed.lesion.channels) == ("smp", 3, 1)


@pytest.mark.slow
def test_named_networks_of_each_library_become_graphs(unet, tmp_path):
    import timm
    import torchvision

    torch.manual_seed(0)
    library = Library(tmp_path / "models")
    taken = '[input]\nsize = 64\nchannels = 3\n[network]\nlibrary = "{}"\narchitecture = "{}"\n'
    classes = '[classes]\nactivation = "softmax"\norder = ["benign", "malignant"]\n'
    lesion = '[lesion]\nactivation = "softmax"\nchannels = 2\nchannel = 1\n'
    segmenter = torchvision.models.segmentation.lraspp_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=2
    )
    wanted = {
        "unet": (unet, UNET, ("lesion",)),
        "kinds": (
            timm.create_model("test_resnet", num_classes=2),
            taken.format("timm", "test_resnet") + classes,
            ("classes",),
        ),
        "shuffle": (
            torchvision.models.shufflenet_v2_x0_5(weights=None, num_classes=2),
            taken.format("torchvision", "shufflenet_v2_x0_5") + classes,
            ("classes",),
        ),
        "lraspp": (segmenter, taken.format("torchvision", "lraspp_mobilenet_v3_large") + lesion, ("lesion",)),
    }
    for name, (network, toml, heads) in wanted.items():
        path = save_weights(network.eval(), tmp_path / f"{name}.safetensors", toml)
        card = read_card(library.import_(path))
        assert (card.spec.heads, card.spec.library) == (heads, "onnx")
    folder = library.import_(tmp_path / "unet.safetensors")
    images = torch.rand(2, 1, 64, 64) * 2 - 1
    card = read_card(folder)
    lesion, _ = OnnxEngine(card, read_graph(folder, card)).run(images.numpy())
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.inference_mode():
        grey = ((images + 1) / 2).repeat(1, 3, 1, 1)
        theirs = unet((grey - mean[:, None, None]) / std[:, None, None]).sigmoid()
    np.testing.assert_allclose(lesion, theirs.numpy(), atol=1e-4)


@pytest.mark.slow
def test_a_network_as_ours_are_keeps_its_weights_and_can_be_trained(tmp_path):
    import segmentation_models_pytorch as smp

    network = smp.Unet(
        "tu-test_efficientnet",
        encoder_weights=None,
        in_channels=1,
        decoder_channels=(32, 16, 8, 8, 4),
        aux_params={"classes": 3},
    )
    toml = UNET[: UNET.index("[input]")] + (
        "[input]\nsize = 64\nchannels = 1\nrange = [-1, 1]\n[lesion]\nactivation = 'sigmoid'\n"
        "[classes]\nactivation = 'softmax'\norder = ['normal', 'benign', 'malignant']\n"
    )
    library = Library(tmp_path / "models")
    card = read_card(library.import_(save_weights(network, tmp_path / "ours.safetensors", toml)))
    assert (card.spec.library, card.name) == ("smp", "ours")
    assert library.load(card.version).card == card


def test_names_and_lists_that_no_network_has_are_refused(place):
    model = segmenter()
    model.graph.input[0].name = "\x1b[2Jx"
    with pytest.raises(BundleError, match=r"an input or output is called '\\x1b\[2Jx'"):
        read_own(place(model))
    model = segmenter()
    model.graph.initializer.append(
        helper.make_tensor("many", TensorProto.INT64, [1_200_000], [1] * 1_200_000)
    )
    with pytest.raises(BundleError, match="a list of more than 1,000,000 whole numbers"):
        make(place(model))
    model = segmenter()
    for number in range(10_001):
        model.graph.node.append(helper.make_node("Relu", ["map"], [f"r{number}"]))
    with pytest.raises(BundleError, match="10,005 operations or weights, more than 10,000"):
        read_own(place(model))
