"""How often the gate promotes what it should not, and how often what it should.

    python benchmarks/gate_error_rates.py pairs --scores FOLDER [--subsamples 400] [--counts 10 20 40 ...]
    python benchmarks/gate_error_rates.py simulate [--scores FOLDER] [--repeats 1000] [--counts 10 20 40 ...]
    python benchmarks/gate_error_rates.py plot

FOLDER holds NAME.jsonl for each model, as `score_models.py` writes them, and pairs.json: a list of
``{"incumbent", "candidate", "kind"}``. A pair with ``"labels": "swapped"`` is judged by NAME.swapped.jsonl,
while its truth is that of the right masks.

`pairs` draws groups without replacement and asks the gate; the truth of a pair is its figures on all groups.
Subsamples overlap: near the number of all groups they hardly differ, so counts beyond two thirds of it are
left out. `simulate` asks for Dice alone. It draws groups with replacement from the differences of each pair,
some more often than others (exponential tilting) so that the true difference is the one wanted, and from
three made-up kinds of differences; rare failures behind small gains are the worst that could be found.

Results go to benchmarks/results/gate_error_rates.json, the plot to docs/images/gate-error-rates.png.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray
from scipy.optimize import brentq

from sonoloop.store.metrics import FrameScore
from sonoloop_training.gate.decision import cost_of_a_miss, decide, estimate
from sonoloop_training.page import new_figure

RESULTS = Path(__file__).parent / "results" / "gate_error_rates.json"
PLOT = Path(__file__).parents[1] / "docs" / "images" / "gate-error-rates.png"
COUNTS = (10, 15, 20, 30, 40, 60, 80, 120, 160, 200, 300)
TRUE = (-0.02, 0.0, 0.02, 0.05)
ALLOWED = 0.05
# of really trained pairs: differences of Dice that are none
NEAR = 0.005
# of a mask that is found, and so what a failure costs
FOUND = 0.8
ROLES = ("candidate", "incumbent")
CALM, JUMPS, FAILURES = "even differences", "many zeros, rare jumps", "small gains, rare failures"

Drawn = tuple[NDArray[np.float64], NDArray[np.str_]]
Draw = Callable[[np.random.Generator, float, int], Drawn]


def main() -> None:
    """Measure, or draw what was measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("pairs", "simulate", "plot"))
    parser.add_argument("--scores", type=Path)
    parser.add_argument("--subsamples", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--plot", type=Path, default=PLOT)
    options = parser.parse_args()
    results = json.loads(options.results.read_text("utf-8")) if options.results.is_file() else {}
    if options.what == "pairs":
        results["pairs"] = measure_pairs(options.scores, options.counts, options.subsamples, options.seed)
    elif options.what == "simulate":
        results["simulated"] = simulate(options.scores, options.counts, options.repeats, options.seed)
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    for line in summarise(results):
        print(line)
    draw_plot(results, options.plot)


def read_scores(folder: Path, name: str) -> list[FrameScore]:
    """Read what a model did, an image a line; further keys do not matter."""
    lines = (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [read_outcome(json.loads(line)) for line in lines]


def read_outcome(row: Mapping[str, Any]) -> FrameScore:
    """Take what the gate asks for from what is known of an image."""
    return FrameScore(**{key: row[key] for key in FrameScore.__dataclass_fields__ if key in row})


def by_group(outcomes: Sequence[FrameScore]) -> list[list[int]]:
    """Give the places of each group's images."""
    places: dict[str, list[int]] = {}
    for place, one in enumerate(outcomes):
        places.setdefault(one.group, []).append(place)
    return list(places.values())


def pair_up(
    folder: Path, pair: dict[str, Any], labels: str = ""
) -> tuple[list[FrameScore], list[FrameScore]]:
    """Read candidate and incumbent on the images that both were scored on."""
    ending = f".{labels}" if labels else ""
    both = [{one.frame: one for one in read_scores(folder, pair[who] + ending)} for who in ROLES]
    frames = sorted(both[0].keys() & both[1].keys())
    return [both[0][frame] for frame in frames], [both[1][frame] for frame in frames]


def measure_pairs(folder: Path, counts: Sequence[int], subsamples: int, seed: int) -> list[dict[str, Any]]:
    """Ask the gate about every pair on many draws of few groups."""
    measured = []
    for pair in json.loads((folder / "pairs.json").read_text("utf-8")):
        truth = decide(*pair_up(folder, pair))
        candidate, incumbent = pair_up(folder, pair, pair.get("labels", ""))
        groups = by_group(candidate)
        rng = np.random.default_rng(seed)
        rates = []
        for count in (count for count in counts if count <= len(groups) * 2 / 3):
            said: list[str] = []
            for _ in range(subsamples):
                chosen = rng.choice(len(groups), count, replace=False)
                drawn = [place for group in chosen for place in groups[group]]
                said.append(decide([candidate[p] for p in drawn], [incumbent[p] for p in drawn]).verdict)
            rates.append(
                {"groups": count, **rate(said, "promote"), "refuse": said.count("refuse") / subsamples}
            )
            sys.stderr.write(f"\r{pair['incumbent']} -> {pair['candidate']}: {count} groups   ")
        sides = {name: getattr(truth, name) for name in ("missed_malignant", "false_alarms", "auc")}
        measured.append(
            {
                **pair,
                "groups": len(groups),
                "lesion_groups": truth.groups,
                "difference": truth.difference,
                "interval": truth.interval,
                **{name: side.difference for name, side in sides.items()},
                "truly": name_truth(pair["kind"], truth.difference or 0.0, sides.values()),
                "subsamples": subsamples,
                "rates": rates,
            }
        )
    sys.stderr.write("\n")
    return measured


def name_truth(kind: str, difference: float, sides: Any) -> str:  # noqa: ANN401 - sides of a verdict
    """Say what a pair truly is: "equal" may be known from how it was made, the rest from all groups.

    "mixed" has the better Dice, and another figure that is worse by more than its margin, perhaps by chance.
    """
    states = {side.state for side in sides}
    if difference <= -NEAR or "worse" in states:
        return "worse"
    if kind.startswith("equal") or difference < NEAR:
        return "equal"
    return "mixed" if "open" in states else "better"


def rate(said: Sequence[str], word: str) -> dict[str, Any]:
    """Share of a verdict with its 95 % interval (Wilson 1927)."""
    n, hits = len(said), sum(one == word for one in said)
    z2 = 1.96**2
    middle, reach = (hits + z2 / 2) / (n + z2), 1.96 / (n + z2) * np.sqrt(hits * (n - hits) / n + z2 / 4)
    low, high = max(0.0, middle - reach), min(1.0, middle + reach)
    return {word: hits / n, "ci95": [round(float(low), 4), round(float(high), 4)]}


def simulate(folder: Path | None, counts: Sequence[int], repeats: int, seed: int) -> list[dict[str, Any]]:
    """Ask for the interval of Dice alone, with a true difference that is known."""
    sources: dict[str, tuple[Draw, float]] = {
        CALM: (even, FOUND),
        JUMPS: (jumps, FOUND),
        FAILURES: (failures, FOUND),
    }
    if folder is not None:
        for pair in json.loads((folder / "pairs.json").read_text("utf-8")):
            name = f"as from {pair['incumbent']} to {pair['candidate']}"
            candidate, incumbent = pair_up(folder, pair)
            sources[name] = (
                tilted(candidate, incumbent),
                cost_of_a_miss([one.dice for one in incumbent if one.lesion]),
            )
    measured = []
    for name, (draw, case) in sources.items():
        for true in TRUE:
            rng = np.random.default_rng(seed)
            rates = []
            for count in counts:
                said = ["promote" if passes(*draw(rng, true, count), case) else "" for _ in range(repeats)]
                rates.append({"groups": count, **rate(said, "promote")})
            measured.append({"source": name, "difference": true, "repeats": repeats, "rates": rates})
            sys.stderr.write(f"\r{name}: {true:+.2f}          ")
    sys.stderr.write("\n")
    return measured


def passes(differences: NDArray[np.float64], groups: NDArray[np.str_], case: float) -> bool:
    """Whether the interval of the mean difference lies above zero."""
    found = estimate(lambda counts: counts @ differences / counts.sum(1), groups, case=case)
    return found is not None and found.low > 0


def tilted(candidate: Sequence[FrameScore], incumbent: Sequence[FrameScore]) -> Draw:
    """Draw groups of a real pair, with weights that make the mean of their differences the one wanted."""
    members: dict[str, list[float]] = {}
    for new, old in zip(candidate, incumbent, strict=True):
        if new.lesion:
            members.setdefault(new.group, []).append(new.dice - old.dice)
    groups = [np.array(own) for own in members.values()]
    sums, sizes = np.array([own.sum() for own in groups]), np.array([len(own) for own in groups])
    known: dict[float, NDArray[np.float64]] = {}

    def weigh(slope: float) -> NDArray[np.float64]:
        weights = np.exp(slope * sums / sizes)
        return np.asarray(weights / weights.sum())

    def draw(rng: np.random.Generator, true: float, count: int) -> Drawn:
        if true not in known:
            slope = brentq(lambda s: (weigh(s) @ sums) / (weigh(s) @ sizes) - true, -100, 100)
            known[true] = weigh(slope)
        chosen = rng.choice(len(groups), count, p=known[true])
        names = np.repeat(np.arange(count).astype(str), sizes[chosen])
        return np.concatenate([groups[place] for place in chosen]), names

    return draw


def even(rng: np.random.Generator, true: float, count: int) -> Drawn:
    """Draw differences that spread evenly, by 0.1."""
    return rng.normal(true, 0.1, count), np.arange(count).astype(str)


def jumps(rng: np.random.Generator, true: float, count: int) -> Drawn:
    """Draw two thirds without a difference, one in fifty lost, one won, the others near the mean."""
    kind = rng.random(count)
    values = np.where(kind < 0.64, 0.0, rng.normal(true / 0.32, 0.05, count))
    values = np.where(kind >= 0.98, FOUND, np.where(kind >= 0.96, -FOUND, values))
    return values, np.arange(count).astype(str)


def failures(rng: np.random.Generator, true: float, count: int) -> Drawn:
    """Draw a small gain on most, and failures so rare that one set in twenty holds none."""
    share = min(3 / count, 0.25)
    lost = rng.random(count) < share
    gain = (true + share * FOUND) / (1 - share)
    return np.where(lost, -FOUND, rng.normal(gain, 0.05, count)), np.arange(count).astype(str)


def summarise(results: dict[str, Any]) -> list[str]:
    """Name the highest rate of each kind of error, and the power."""
    lines = []
    for entry in results.get("pairs", ()):
        curve = ", ".join(f"{r['groups']}: {r['promote']:.3f}" for r in entry["rates"])
        lines.append(
            f"{entry['incumbent']} -> {entry['candidate']} ({entry['kind']}; truly {entry['truly']}, "
            f"{entry['difference']:+.3f}): promoted {curve}"
        )
    for entry in results.get("simulated", ()):
        curve = ", ".join(f"{r['groups']}: {r['promote']:.3f}" for r in entry["rates"])
        lines.append(f"{entry['source']}, truly {entry['difference']:+.2f}: {curve}")
    return lines


_INK = {"better": "#009E73", "equal": "#0072B2", "worse": "#D55E00", "mixed": "#767676"}
_POWER_INK = {-0.02: "#D55E00", 0.0: "#0072B2", 0.02: "#767676", 0.05: "#009E73"}
_LINES = {CALM: "o-", JUMPS: "s--", FAILURES: "^:"}
_MARKERS = "osD^vP*X<>hd"


def draw_plot(results: dict[str, Any], path: Path) -> None:
    """Draw the share that is promoted over the number of groups, on white."""
    panels = [name for name in ("pairs", "simulated") if results.get(name)]
    if not panels:
        return
    with new_figure(5.4 * len(panels), 5.6) as figure:
        for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            axes.axhline(ALLOWED, color="#404040", lw=0.8)
            (draw_pairs if panel == "pairs" else draw_simulated)(axes, results[panel])
            axes.set_xscale("log")
            ticks = sorted({r["groups"] for entry in results[panel] for r in entry["rates"]})
            axes.set_xticks(ticks, [str(tick) for tick in ticks])
            axes.minorticks_off()
            # the errors lie below 0.05, and have to be seen
            axes.set_yscale("function", functions=(lambda y: np.sqrt(np.maximum(y, 0)), np.square))
            axes.set_ylim(0, 1.02)
            shown = (0, 0.01, ALLOWED, 0.2, 0.4, 0.6, 0.8, 1)
            axes.set_yticks(shown, [f"{share:.0%}" for share in shown])
            axes.set_xlabel("test groups")
            axes.set_ylabel("promoted (square-root scale)")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, facecolor="white", dpi=130, metadata={"Software": None})


def draw_pairs(axes: Any, entries: Sequence[dict[str, Any]]) -> None:  # noqa: ANN401 - matplotlib's
    """Draw really trained pairs, a line each, with intervals over subsamples."""
    axes.set_title("Really trained pairs, groups drawn without replacement", loc="left")
    for entry, marker in zip(entries, cycle(_MARKERS), strict=False):
        line = {"better": "-", "equal": "--", "worse": ":", "mixed": "-."}[entry["truly"]]
        curve(
            axes,
            entry["rates"],
            f"{entry['kind']}: truly {entry['truly']}, {entry['difference']:+.3f}"
            + (f"; test labels {entry['labels']}" if entry.get("labels") else ""),
            color=_INK[entry["truly"]],
            fmt=f"{marker}{line}",
        )
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.14), fontsize=8)


def draw_simulated(axes: Any, entries: Sequence[dict[str, Any]]) -> None:  # noqa: ANN401 - matplotlib's
    """Draw simulations by their true difference: the real pairs' range, and the made-up ones as lines."""
    axes.set_title("Simulated, Dice alone: what is promoted by its true difference", loc="left")
    known: list[Any] = []
    for true in TRUE:
        own = [entry for entry in entries if entry["difference"] == true]
        colour = _POWER_INK[true]
        real = [[r["promote"] for r in entry["rates"]] for entry in own if entry["source"] not in _LINES]
        if real:
            counts = [r["groups"] for r in own[0]["rates"]]
            low, high = np.min(real, axis=0), np.max(real, axis=0)
            axes.fill_between(counts, low, high, color=colour, alpha=0.25, lw=0)
        for entry in own:
            if entry["source"] in _LINES:
                curve(axes, entry["rates"], "", color=colour, fmt=_LINES[entry["source"]])
        known.append(Line2D([], [], color=colour, lw=4, label=f"truly {true:+.2f}"))
    known += [
        Line2D([], [], color="#404040", marker=style[0], ls=style[1:], ms=4, label=name)
        for name, style in _LINES.items()
    ]
    if any(entry["source"] not in _LINES for entry in entries):
        known.append(Patch(color="#404040", alpha=0.25, lw=0, label="differences of real pairs"))
    axes.legend(handles=known, loc="upper left", bbox_to_anchor=(0, -0.14), fontsize=8, ncols=2)


def curve(axes: Any, rates: Sequence[dict[str, Any]], label: str, *, color: str, fmt: str) -> None:  # noqa: ANN401
    """Draw a line with its intervals."""
    share = np.array([r["promote"] for r in rates])
    bounds = np.array([r["ci95"] for r in rates]).reshape(-1, 2)
    axes.errorbar(
        [r["groups"] for r in rates],
        share,
        yerr=np.clip([share - bounds[:, 0], bounds[:, 1] - share], 0, None),
        fmt=fmt,
        color=color,
        ms=4,
        lw=1.2,
        elinewidth=0.8,
        capsize=2,
        label=label,
    )


if __name__ == "__main__":
    main()
