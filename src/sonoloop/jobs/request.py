"""What a long job is asked for, one frozen value a job.

Its fields are the only list of a job's options: the command line (`sonoloop.cli.options`), the flags of
``python -m sonoloop_training`` and the panel's form (`sonoloop.gui.train.form`) are made from them, and the
process of the job gets the value itself, as JSON.
"""

from __future__ import annotations

import json
import re
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, get_args, get_origin

from sonoloop.errors import SonoloopError
from sonoloop.jobs.wire import build, type_hints, without_none

DEVICES = ("auto", "cpu", "cuda", "mps")
DEFAULT_WHO = "command line"


@dataclass(frozen=True, slots=True, kw_only=True)
class InForm:
    """How a panel asks for a field: by a label and a tip, a value to begin with, whole bounds."""

    label: str
    tip: str
    value: Any = None
    least: int | None = None
    most: int | None = None
    unit: str = ""
    nothing: str | None = None  # what is shown for None, before the choices that the panel gives


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """How a field is asked for.

    `flag` is ``--field-name`` unless given, and "--on/--off" for both; an `argument` has none. One that is
    not `typed` is for programs. `settled`: whoever goes on with a job may leave it out, and not change it.
    """

    help: str
    flag: str = ""
    metavar: str | None = None
    argument: bool = False
    choices: tuple[str, ...] = ()  # where its type does not list them
    least: float | None = None
    most: float | None = None
    blank: bool = True
    typed: bool = True
    settled: bool = False
    form: InForm | None = None


def option(help: str, /, default: Any = None, **more: Any) -> Any:  # noqa: A002, ANN401 - as `field`
    """Make a field of a request that may be left out; see `Option`."""
    return field(default=default, metadata={"option": Option(help=help, **more)})


required = partial(option, default=MISSING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The base of every request."""

    command: ClassVar[str]
    about: ClassVar[str]
    # packages of the extra "train" without which the job cannot be done
    needs: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        """Refuse what is no number; every bound lets it pass."""
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, float) and not isfinite(value):
                raise SonoloopError(
                    f"--{each.name.replace('_', '-')} is {value}; give a number, or leave it out"
                )


R = TypeVar("R", bound=Request)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A field of a request: its name, the type of one value, what it is if not given, its option."""

    name: str
    kind: type
    default: Any
    option: Option
    choices: tuple[Any, ...] = ()

    @property
    def required(self) -> bool:
        """Whether it has to be given."""
        return self.default is MISSING

    @property
    def repeated(self) -> bool:
        """Whether it may be given several times."""
        return isinstance(self.default, tuple)


def asked_of(request: type[Request]) -> list[Asked]:
    """List what a request asks for, in the order of its fields."""
    hints = type_hints(request)  # type: ignore[arg-type]  # mypy takes no dataclass for hashable
    return [_read(each, hints[each.name]) for each in fields(request)]


def _read(each: Field[Any], hint: Any) -> Asked:  # noqa: ANN401 - a type
    option: Option = each.metadata["option"]
    kind, choices = without_none(hint), option.choices
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        kind = type(choices[0])
    elif get_origin(kind) is tuple:
        kind = get_args(kind)[0]
    if not option.argument and not option.flag:
        option = replace(option, flag=f"--{each.name.replace('_', '-')}")
    return Asked(name=each.name, kind=kind, default=each.default, option=option, choices=choices)


def values_of(request: Request) -> dict[str, Any]:
    """Give what a request holds, by the names of its fields."""
    return {each.name: getattr(request, each.name) for each in fields(request)}


_PAGES = ("matplotlib", "jinja2")
_NETWORKS = (
    "torch",
    "torchvision",
    "timm",
    "segmentation_models_pytorch",
    "lightning",
    "monai",
    "onnx",
    "onnxscript",
    *_PAGES,
)
_STORE = "The corrections; the default store if not given."
_THREADS = "CPU threads; all cores if not given."
_RUN_DEVICE = "Where to run; auto takes a GPU if there is one."
_ENGINE = "What computes: torch, onnx, openvino; auto takes torch for a GPU, else the quickest."
_DATA = "Folder with one dataset or several, or a pack of them; see docs/datasets.md."
_MINUTES = "Make the epochs that fit into this time."


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRequest(Request):
    """A recipe and data to a model."""

    command = "train"
    about = "make a model from a recipe and data"
    needs = _NETWORKS

    recipe: str = required(
        "Name of a shipped recipe, such as unet (docs/training.md lists them), or a TOML file.",
        argument=True,
        metavar="RECIPE",
    )
    data: Path = required(_DATA)
    out: Path | None = option("Folder for checkpoint, figures and the model; runs/RECIPE if not given.")
    settings: tuple[str, ...] = option(
        "Change the recipe, such as epochs=2; repeatable.", default=(), flag="--set", metavar="KEY=VALUE"
    )
    split: str | None = option(
        "Test on a hospital that no image trains from: the name of its dataset, or several with commas.",
        metavar="leave-out:HOSPITAL",
    )
    fold: int | None = option("Test this fold; the recipe then splits by folds.", least=1)
    seed: int | None = option("Of everything random.", least=0)
    max_minutes: float | None = option(_MINUTES, least=0.1)
    operating_point: tuple[Path, ...] = option(
        "A finished run in which a hospital of the data had no part: the model's threshold, gate and "
        "temperature are fitted on that hospital, and not at home; repeatable.",
        default=(),
        metavar="RUN",
    )
    resume: bool = option("Go on with a run that broke off; refuse to begin a new one.", default=False)
    leaky: bool = option("Split by image, twins on both sides; every result is marked leaked.", default=False)
    show_augment: bool = option("Only draw 32 augmented pairs, to OUT/augmentation.png.", default=False)
    device: str = option("Where to train; auto takes a GPU if there is one.", default="auto", choices=DEVICES)
    threads: int | None = option(_THREADS, least=1, most=1024)
    workers: int | None = option(
        "Processes that augment images; on a GPU the cores left, on a CPU none if not given.",
        least=0,
        most=256,
    )

    @property
    def folder(self) -> Path:
        """Where it writes; each hospital that is left out has a folder of its own."""
        without = re.sub(r"[^\w.-]+", "-", (self.left_out or "").lower())
        recipe = Path(self.recipe).stem
        return self.out or Path("runs") / (f"{recipe}-without-{without}" if without else recipe)

    @property
    def left_out(self) -> str | None:
        """The hospitals that `split` leaves out, with commas between."""
        if self.split is None:
            return None
        kind, _, names = self.split.partition(":")
        if kind != "leave-out" or not names.strip():
            raise SonoloopError(
                f"--split is {self.split!r}; write leave-out:HOSPITAL, such as leave-out:busi (other splits "
                "are the recipe's: --set split.method=...)"
            )
        return names.strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneRequest(Request):
    """A store's corrections to a better model, or to none."""

    command = "finetune"
    about = "learn from a store's corrections, and have the new model judged"
    needs = _NETWORKS

    store: str | None = option(_STORE, metavar="URL")
    snapshot: str | None = option(
        "Learn from this one; one is taken if not given.",
        metavar="NAME",
        settled=True,
        form=InForm(
            label="Snapshot",
            tip="What to learn from: all corrections as they stand, or a snapshot of them",
            nothing="All accepted",
        ),
    )
    start: str | None = option(
        "Start from this model (an id, a version or a folder); from the one in use if not given.",
        flag="--from",
        metavar="MODEL",
    )
    base_data: Path | None = option(
        "The data that trained the model, or a pack of them; some of it is shown again.",
        metavar="DIR",
        settled=True,
    )
    max_minutes: float | None = option(
        _MINUTES,
        least=0.1,
        settled=True,
        form=InForm(
            label="Budget",
            tip="Time to read and to learn; fewer epochs are made where it does not suffice",
            value=5,
            least=1,
            most=24 * 60,
            unit=" min",
        ),
    )
    promote: bool = option("Use the new model if the gate finds it better.", default=False)
    settings: tuple[str, ...] = option(
        "Change the recipe, such as replay=0.5; repeatable.", default=(), flag="--set", metavar="KEY=VALUE"
    )
    job: Path | None = option("Work in this folder, and go on with what broke off there.", metavar="DIR")
    skip_missing: bool = option("Go on without the images whose files are gone.", default=False)
    judged: bool = option(
        "Whether the new model is judged against the one in use.", default=True, flag="--gate/--no-gate"
    )
    who: str | None = option("Pseudonym of whoever starts it.", metavar="NAME", blank=False)
    device: str | None = option("Where to train; auto if not given.", choices=DEVICES, settled=True)
    threads: int | None = option(_THREADS, least=1, most=1024)
    recipe_name: str | None = option("A shipped recipe's name, or a TOML file.", flag="--recipe", typed=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRequest(Request):
    """A model against the one in use, on the frames of a store that judge."""

    command = "gate"
    about = "judge a model against the one in use, on the frames of a store that judge"
    needs = _NETWORKS

    model: str | None = option(
        "The candidate, as `sonoloop models list` names it.", argument=True, metavar="[MODEL]"
    )
    store: str | None = option(_STORE, metavar="URL")
    against: str | None = option("The model in use if not given.", metavar="MODEL")
    promote: bool = option("Use the candidate if it is found better.", default=False)
    every_model: bool = option(
        "Compare nothing: score all models on today's test set, for `sonoloop models list`.", default=False
    )
    out: Path | None = option("Folder for the pictures; beside the store if not given.", metavar="DIR")
    who: str = option("Your pseudonym, for the record.", default=DEFAULT_WHO, metavar="NAME")
    device: str = option(_RUN_DEVICE, default="auto", choices=DEVICES)
    threads: int | None = option(_THREADS, least=1, most=1024)

    def __post_init__(self) -> None:
        if (self.model is None) is not self.every_model:
            raise SonoloopError("name the MODEL to judge, or give --every-model, and not both")
        if not self.who.strip():
            raise SonoloopError("--who is empty; give your pseudonym, or leave it out")


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrateRequest(Request):
    """A model's numbers, fitted on the frames of a store that judge."""

    command = "calibrate"
    about = "fit a model's threshold, gate and temperature on the frames of a store that judge"

    model: str | None = option(
        "The model, as `sonoloop models list` names it; the one in use if not given.",
        argument=True,
        metavar="[MODEL]",
    )
    store: str | None = option(_STORE, metavar="URL")
    who: str = option("Your pseudonym, for the record.", default=DEFAULT_WHO, metavar="NAME", blank=False)
    device: str = option(_RUN_DEVICE, default="auto", choices=DEVICES)
    engine: str = option(_ENGINE, default="auto", blank=False)
    threads: int | None = option(_THREADS, least=1, most=1024)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateRequest(Request):
    """A model and data to figures and a report."""

    command = "evaluate"
    about = "judge a model, or compare two, on images with known masks and classes"
    needs = _NETWORKS

    data: Path = required(_DATA)
    model: str | None = option("Name or folder of a model; the shipped one if not given.")
    versus: str | None = option("Another model, compared with it on the same images.")
    part: Literal["all", "validation", "test"] = option("Which part of the split judges.", default="all")
    split: Path | None = option("split.json that says the parts, if the model's does not.")
    out: Path | None = option("Folder to write to; evaluation/MODEL-PART if not given.")
    device: str = option(_RUN_DEVICE, default="auto", choices=DEVICES)
    # figures are compared with those of other days
    engine: str = option(_ENGINE, default="torch", blank=False)
    views: Literal[1, 2, 4] | None = option("Views of each image to average.")
    batch: int = option("Images at a time.", default=8, least=1, most=256)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportRequest(Request):
    """Existing masks into a store, as corrections."""

    command = "import"
    about = "bring a dataset's masks into a store as corrections"

    folder: Path = required("The dataset's folder.", argument=True, metavar="FOLDER")
    layout: Literal["busi", "busbra"] = required("How it is laid out; see docs/datasets.md.", flag="--format")
    annotator: str | None = option(
        "Who drew the masks; the dataset if not given.", metavar="NAME", blank=False
    )
    split: Literal["auto", "train", "test"] = option(
        "The role of new groups; auto draws it, as for every other image.", default="auto"
    )
    store: str | None = option(_STORE, metavar="URL")
    accept_odd: bool = option(
        "Store masks that look odd as they are; without it they are named and nothing is stored.",
        default=False,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRequest(Request):
    """What a dataset holds, and what must be mended before it trains."""

    command = "check"
    about = "say what a dataset holds and what must be mended before it trains"
    needs = _PAGES

    folder: Path = required(_DATA, argument=True, metavar="DIR")
    out: Path | None = option("Folder for report.html and groups.json; DIR-check here if not given.")


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpackRequest(Request):
    """A dataset as downloaded to a plain folder."""

    command = "unpack"
    about = "unpack a dataset as downloaded: BUSI's zip file, or Hugging Face's Parquet files"

    source: Path = required(
        "A zip file, a Parquet file, or a folder with these.", argument=True, metavar="SOURCE"
    )
    out: Path = required("Folder to make.")


@dataclass(frozen=True, slots=True, kw_only=True)
class PackRequest(Request):
    """Datasets to one file that travels in one copy."""

    command = "pack"
    about = "write datasets, resized, to one file that trains and judges as they do"

    folders: tuple[Path, ...] = option(
        "Folders with one dataset or several; see docs/datasets.md.",
        default=(),
        argument=True,
        metavar="DIR...",
    )
    out: Path = required("The file to make, such as breasts.pack; an earlier pack of that name is replaced.")
    size: int = option("The longest side of an image, in pixels.", default=320, least=32, most=2048)
    lossless: bool = option(
        "Keep every grey level, in nearly twice the room; else none is off by more than 2 of 255.",
        default=False,
    )
    keep_names: bool = option(
        "Keep names of files, patients and columns of your own datasets, which may name people.",
        default=False,
    )

    def __post_init__(self) -> None:
        if not self.folders:
            raise SonoloopError("name the folders to pack: sonoloop data pack DIR... --out PACK")
        if not 32 <= self.size <= 2048:
            raise SonoloopError(f"--size is {self.size}; give 32 to 2048")


def read_request(kind: type[R], text: str) -> R:
    """Read a request as `sonoloop.jobs.wire.to_json` wrote it."""
    try:
        return build(kind, json.loads(text), strict=True)
    except (ValueError, TypeError, RecursionError) as error:
        raise SonoloopError(f"this is no request for {kind.command} ({error})") from error
