"""What single changes to the default recipe are worth, each on the same small budget.

    python benchmarks/ideas.py run --data FOLDER --work FOLDER [--only NAME ...] [--threads N]
    python benchmarks/ideas.py left-out --data FOLDER --work FOLDER --hospital NAME --seed N [--only NAME ...]
    python benchmarks/ideas.py summarise --work FOLDER

Every idea is `default-base` at 192 pixels for eight epochs of 1,040 images, with one setting changed, trained
on BUSI and BUS-BRA. It is compared with the unchanged recipe, image by image, on the groups that train
neither, validation and test; `seed` is the recipe unchanged with another seed, and says how much is chance.
Threshold, temperature and gate were fitted on validation, each model's own, but for ideas that need no
training: those keep the recipe's.
Ideas that need no training of their own are tried on the unchanged recipe's model. A scanner that is left out
is compared with the unchanged recipe too, on those of its images that did not train that one.

`left-out` trains on all hospitals of the data but one, and judges an idea and the unchanged recipe of the
same seed on that one: what counts for a hospital that nobody trained on. Threshold, temperature and gate are
fitted on validation images of the hospitals that trained.

Figures go to WORK/NAME/figures.json, where a hospital is left out to WORK/HOSPITAL/NAME-SEED/figures.json.
`summarise` puts them into benchmarks/results/ideas.json, which `docs/results.py` reads, beside what other
folders gave. A training that was broken off goes on; what is there is not made again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sonoloop.atomic import write_whole
from sonoloop.jobs.events import drain
from sonoloop.models.bundle import Bundle, read_bundle
from sonoloop.models.predictor import Predictor
from sonoloop_training.datasets import Sample, find_datasets
from sonoloop_training.evaluation.scores import assess
from sonoloop_training.evaluation.summary import compare, summarise
from sonoloop_training.fit.fitting import mix
from sonoloop_training.splits import SplitConfig, apply_split

RESULTS = Path(__file__).parent / "results" / "ideas.json"
REFERENCE, SEED = "reference", "seed"
BUDGET = ("model.size=192", "fit.epochs=8", "fit.draws=1040")
KEYS = ("lesion_dice", "missed", "false_alarms", "auc", "accuracy")
# AdamW knows no scale: a head of this weight still learns, but the encoder does not heed it
_UNHEEDED = "0.000001"


@dataclass(frozen=True, slots=True)
class Idea:
    """A change to the recipe, or to how its model is used.

    Parameters
    ----------
    what : str
        In words.
    settings : tuple of str
        As `sonoloop train --set` takes them.
    left_out : str
        A scanner that does not train.
    """

    what: str
    settings: tuple[str, ...] = ()
    left_out: str = ""


TRAINED = {
    REFERENCE: Idea("unchanged"),
    SEED: Idea("another seed", ("fit.seed=1",)),
    "focal-tversky": Idea(
        "focal Tversky in place of soft Dice", ('fit.loss="cross-entropy + focal tversky"',)
    ),
    "cross-entropy": Idea("cross-entropy alone", ('fit.loss="cross-entropy"',)),
    "mask-alone": Idea("the encoder learns for the mask alone", (f"fit.class_weight={_UNHEEDED}",)),
    "class-alone": Idea("the encoder learns for the class alone", (f"fit.lesion_weight={_UNHEEDED}",)),
    "class-heavy": Idea("the class weighs as much as the mask", ("fit.class_weight=1.0",)),
    "no-average": Idea("no averaged weights (EMA)", ("fit.ema=0",)),
    "strong-augment": Idea(
        "stronger augmentation, overlays and sectors",
        (
            "augment.rotation=15.0",
            "augment.scale=[0.65, 1.4]",
            "augment.shear=8.0",
            "augment.elastic=0.3",
            "augment.resolution=0.2",
            "augment.sector=0.1",
            "augment.overlay=0.3",
        ),
    ),
    "no-speckle": Idea(
        "geometry alone is augmented",
        tuple(f"augment.{name}=0" for name in ("gamma", "gain", "speckle", "blur", "contrast")),
    ),
    "strips": Idea("some images cut to strips", ("fit.strips=0.12",)),
    "no-phantoms": Idea("no simulated images", ("fit.phantoms=0",)),
    "even-draws": Idea(
        "all images drawn equally often",
        tuple(f"fit.weights.{name}=1.0" for name in ("busi/normal", "busi", "busbra", "phantom")),
    ),
    "depthwise": Idea("depthwise kernels learn too", ("fit.freeze_depthwise=false",)),
    "from-random": Idea(
        "no ImageNet weights, and depthwise kernels learn",
        ("fit.pretrained=false", "fit.freeze_depthwise=false"),
    ),
    "lite1": Idea("EfficientNet-Lite1", ("model.encoder=tu-tf_efficientnet_lite1",)),
    "lite2": Idea("EfficientNet-Lite2", ("model.encoder=tu-tf_efficientnet_lite2",)),
    "256-px": Idea("256 pixels", ("model.size=256",)),
    "128-px": Idea("128 pixels", ("model.size=128",)),
    "longer": Idea("twice as many epochs", ("fit.epochs=16",)),
    "zoom-out": Idea("zoomed out to 0.4: lesions get small and deep", ("augment.scale=[0.4,1.3]",)),
    "instance-norm": Idea(
        "instance normalisation in the decoder", ('model.arguments.decoder_use_norm="instancenorm"',)
    ),
    "paint-out": Idea("lesions painted out of a quarter of the images", ("fit.paint_out=0.25",)),
    "put-in": Idea("another image's lesion put into 40 % of the images", ("fit.put_in=0.4",)),
    "look": Idea("another image's low frequencies in 30 % of the images", ("fit.look=0.3",)),
    "site-balance": Idea("each hospital drawn equally often", ('fit.balance="site"',)),
    "class-light": Idea("the class weighs a fifth of the mask", ("fit.class_weight=0.2",)),
    "negatives": Idea(
        "lesions painted out of a quarter, put into 20 %, another's low frequencies in 20 %",
        ("fit.paint_out=0.25", "fit.put_in=0.2", "fit.look=0.2"),
    ),
    "miss": Idea("a price for missing a lesion as a whole", ("fit.miss_weight=0.3",)),
    "without-logiq-7": Idea("GE Logiq 7", left_out="GE Logiq 7"),
    "without-logiq-5": Idea("GE Logiq 5", left_out="GE Logiq 5"),
}
USED = {
    "one-view": "one view, and not two (no test-time flip)",
    "four-views": "four views: mirrored, and at two scales",
    "soup": "weights of two seeds averaged",
    "ensemble": "outputs of two seeds averaged",
}
VIEWS = {"one-view": 1, "four-views": 4}


class Ensemble(torch.nn.Module):
    """The mean of what two networks say."""

    def __init__(self, one: torch.nn.Module, other: torch.nn.Module) -> None:
        super().__init__()
        self.one, self.other = one, other

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Average the logits of both heads."""
        return tuple((a + b) / 2 for a, b in zip(self.one(images), self.other(images), strict=True))


def main() -> None:
    """Make what is missing, or write down what is there."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("run", "left-out", "summarise"))
    parser.add_argument("--data", type=Path, help="BUSI and BUS-BRA; for left-out all hospitals")
    parser.add_argument("--hospital", help="the dataset that is left out, as busi, busbra or breast-usg")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=(*TRAINED, *USED), default=(*TRAINED, *USED))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if options.what == "summarise":
        write_results(options.work)
        return
    torch.set_num_threads(options.threads)
    if options.what == "left-out":
        leave_out(options)
        return
    for name in options.only:
        figures = options.work / name / "figures.json"
        if figures.is_file():
            continue
        if name in TRAINED:
            train(name, options)
        figures.parent.mkdir(parents=True, exist_ok=True)
        write_whole(figures, json.dumps(measure(name, options), indent=1) + "\n")
        print(name, flush=True)


def leave_out(options: argparse.Namespace) -> None:
    """Train without a hospital and judge on it; the unchanged recipe of the same seed comes first."""
    work = options.work / options.hospital
    left_out = ("split.method=leave-dataset", f'split.left_out="{options.hospital}"')
    images = [s for s in find_datasets(options.data) if s.dataset == options.hospital]
    for name in dict.fromkeys((REFERENCE, *(name for name in options.only if name in TRAINED))):
        folder = work / f"{name}-{options.seed}"
        if (folder / "figures.json").is_file() or TRAINED[name].left_out or name == SEED:
            continue
        train(name, options, folder=folder, more=(*left_out, f"fit.seed={options.seed}"))
        bundles = [read_bundle(f / "bundle") for f in (work / f"{REFERENCE}-{options.seed}", folder)]
        measured = compare_bundles(name, images, *bundles)
        write_whole(folder / "figures.json", json.dumps(measured, indent=1) + "\n")
        print(options.hospital, name, options.seed, flush=True)


def train(
    name: str, options: argparse.Namespace, *, folder: Path | None = None, more: Sequence[str] = ()
) -> None:
    """Train an idea's model, unless it is there."""
    folder = folder or options.work / name
    if (folder / "bundle").is_dir():
        return
    idea = TRAINED[name]
    settings = [f"name=idea-{name}", *BUDGET, *idea.settings, *more]
    if idea.left_out:
        settings += ["split.method=leave-scanner", f'split.left_out="{idea.left_out}"']
    command = [sys.executable, "-m", "sonoloop_training", "train", "default-base"]
    command += ["--data", str(options.data), "--out", str(folder), "--threads", str(options.threads)]
    for setting in settings:
        command += ["--set", setting]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "events.jsonl").open("a") as log:
        subprocess.run(command, check=True, stdout=log)


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Compare an idea with the unchanged recipe, on images that train neither."""
    reference = read_bundle(options.work / REFERENCE / "bundle")
    bundle = find_bundle(name, options.work, reference)
    images = choose_images(options.data, TRAINED[name].left_out if name in TRAINED else "")
    return compare_bundles(name, images, reference, bundle)


def compare_bundles(name: str, images: Sequence[Sample], reference: Bundle, bundle: Bundle) -> dict[str, Any]:
    """Give figures of both and their differences, each dataset for itself."""
    predictors = [
        Predictor(reference, device="cpu"),
        Predictor(bundle, device="cpu", views=VIEWS.get(name)),
    ]
    old, new = drain(assess(images, predictors, identified=False, stage=name)).scores
    measured: dict[str, Any] = {"minutes": bundle.card.snapshot.get("minutes")}
    for dataset in sorted({score.dataset for score in old}):
        pair = [[score for score in scores if score.dataset == dataset] for scores in (old, new)]
        before, after = (summarise(scores, keys=KEYS) for scores in pair)
        differences = compare(*pair)
        measured[dataset] = {
            "images": len(pair[0]),
            "reference": {key: before[key] for key in KEYS},
            "idea": {key: after[key] for key in KEYS},
            "difference": {key: differences[key] for key in KEYS},
        }
    return measured


def find_bundle(name: str, work: Path, reference: Bundle) -> Bundle:
    """Give the model of an idea: its own, or one made of those that are there."""
    if name in TRAINED:
        return read_bundle(work / name / "bundle")
    if name in VIEWS:
        return reference
    other = read_bundle(work / SEED / "bundle")
    if name == "ensemble":
        return Bundle(reference.card, Ensemble(reference.network, other.network).eval())
    soup = read_bundle(work / REFERENCE / "bundle").network
    soup.load_state_dict(mix(soup.state_dict(), other.network.state_dict(), 0.5))
    return Bundle(reference.card, soup.eval())


def choose_images(data: Path, left_out: str) -> Sequence[Sample]:
    """Give those that did not train the unchanged recipe, of the scanner that is left out if there is one."""
    parts = apply_split(SplitConfig(), find_datasets(data))
    judging = [*parts["validation"], *parts["test"]]
    return [sample for sample in judging if not left_out or sample.scanner == left_out]


def write_results(work: Path) -> None:
    """Write down what there is, in the order above, beside what was written down before."""
    results: dict[str, Any] = {"recipe": "default-base", "settings": BUDGET, "ideas": {}, "left_out": []}
    if RESULTS.is_file():
        results |= json.loads(RESULTS.read_text(encoding="utf-8"))
    earlier, results["ideas"] = results["ideas"], {}
    for name, what in {**{n: idea.what for n, idea in TRAINED.items()}, **USED}.items():
        figures = work / name / "figures.json"
        if figures.is_file():
            facts: dict[str, Any] = {"what": what, "trained": name in TRAINED}
            if name in TRAINED:
                facts |= {"settings": TRAINED[name].settings, "left_out": TRAINED[name].left_out}
            results["ideas"][name] = facts | json.loads(figures.read_text(encoding="utf-8"))
        elif name in earlier:
            results["ideas"][name] = earlier[name]
    rows = {(row["hospital"], row["name"], row["seed"]): row for row in results["left_out"]}
    rows |= {(row["hospital"], row["name"], row["seed"]): row for row in read_left_out(work)}
    order = list(TRAINED)
    ranked = sorted(rows, key=lambda key: (key[0], order.index(key[1]), key[2]))
    results["left_out"] = [rows[key] for key in ranked]
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def read_left_out(work: Path) -> list[dict[str, Any]]:
    """Read what was measured on hospitals that were left out."""
    found = []
    for figures in work.glob("*/*-*/figures.json"):
        name, _, seed = figures.parent.name.rpartition("-")
        if name in TRAINED:
            facts = {"hospital": figures.parent.parent.name, "name": name, "seed": int(seed)}
            told = {"what": TRAINED[name].what, "settings": TRAINED[name].settings}
            found.append(facts | told | json.loads(figures.read_text(encoding="utf-8")))
    return found


if __name__ == "__main__":
    main()
