"""The gate asked about every pair of many really trained models, by how much better one truly is.

    python benchmarks/gate_many_pairs.py pairs --curve FOLDER [--pairs 60] [--draws 40]
    python benchmarks/gate_many_pairs.py intervals [--repeats 2000]

`pairs` takes the models that `learning_curve.py` tuned in FOLDER, and the one that they were tuned from, with
the Dice of every image of patients that trained none of them. What all these patients say is a pair's truth;
the gate then sees so many of them at a time, drawn with replacement, as if they came anew. A pair is made
equal beyond doubt by exchanging the two models on half of the patients, at random. Rates are over pairs;
their intervals draw models, since pairs share them (all share the patients, which no interval shows).

`intervals` compares the gate's interval with the usual ones on equal candidates that are made to deceive: a
small gain on most images, and failures so rare that a test set may hold none of them.

Results go to benchmarks/results/gate_many_pairs.json, and are printed as tables.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
from gate_error_rates import FOUND, by_group, passes, read_outcome
from learning_curve import read_runs
from numpy.typing import NDArray
from scipy import stats

from sonoloop.store.metrics import FrameScore, percentile_interval
from sonoloop_training.gate.decision import decide

RESULTS = Path(__file__).parent / "results" / "gate_many_pairs.json"
COUNTS = (10, 20, 40, 80, 120)
# true differences of mean Dice, from and to
KINDS = {
    "worse by 0.01 or more": (-1.0, -0.01),
    "equal (within 0.003)": (-0.003, 0.003),
    "better by 0.015 to 0.025": (0.015, 0.025),
    "better by 0.04 to 0.06": (0.04, 0.06),
    "better by 0.15 or more": (0.15, 1.0),
}
EXCHANGED = "equal (exchanged at random)"
RESAMPLES = 1000
# failures among so many groups as judge, on average; what deceives a method most is reported
EXPECTED = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0)
# spread of the small gains
CALM = 0.05

Groups = Sequence[Sequence[int]]


def main() -> None:
    """Measure, and print what was measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("pairs", "intervals"))
    parser.add_argument("--curve", type=Path, help="where learning_curve.py worked")
    parser.add_argument("--pairs", type=int, default=60, help="of each kind, at most")
    parser.add_argument("--draws", type=int, default=40, help="of a pair, for each number of groups")
    parser.add_argument("--repeats", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    results = json.loads(RESULTS.read_text("utf-8")) if RESULTS.is_file() else {}
    if options.what == "pairs":
        results["pairs"] = measure_pairs(options.curve, options.pairs, options.draws, rng)
    else:
        results["intervals"] = measure_intervals(options.repeats, rng)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(tabulate(results[options.what]))


def measure_pairs(curve: Path, pairs: int, draws: int, rng: np.random.Generator) -> dict[str, Any]:
    """Ask the gate about some pairs of each kind."""
    models = read_models(curve)
    truths = {
        (old, new): float(np.mean([b.dice - a.dice for a, b in zip(*ours, strict=True) if a.lesion]))
        for old, new in permutations(models, 2)
        for ours in [(models[old], models[new])]
    }
    kinds = {
        kind: [pair for pair, true in truths.items() if low <= true <= high]
        for kind, (low, high) in KINDS.items()
    }
    kinds[EXCHANGED] = [pair for pair in truths if pair[0] < pair[1]]
    measured: dict[str, Any] = {"models": len(models), "draws": draws, "kinds": {}}
    for kind, members in kinds.items():
        if not members:
            continue
        chosen = [members[i] for i in rng.permutation(len(members))[:pairs]]
        rates = []
        for count in COUNTS:
            said = []
            for number, (old, new) in enumerate(chosen):
                sys.stderr.write(f"\r{kind}: {count} groups, pair {number + 1} of {len(chosen)}   ")
                ours, theirs, mixed = models[new], models[old], kind == EXCHANGED
                groups = by_group(ours)
                said.append([ask(ours, theirs, groups, count, rng, exchange=mixed) for _ in range(draws)])
            rates.append({"groups": count} | average(np.array(said), chosen, rng))
        measured["kinds"][kind] = {
            "pairs": len(chosen),
            "of": len(members),
            "difference": None if kind == EXCHANGED else mean([truths[pair] for pair in chosen]),
            "rates": rates,
        }
    sys.stderr.write("\n")
    return measured


def mean(values: Sequence[float]) -> float:
    """Average, to four places."""
    return round(float(np.mean(values)), 4)


def read_models(curve: Path) -> dict[str, list[FrameScore]]:
    """Read what the base and the models tuned by the default recipe did, image by image."""
    return {
        run["name"]: [read_outcome(row) for row in [*run["away"], *run["home"]]]
        for run in read_runs(curve)
        if run["arm"] in ("base", "default")
    }


def ask(
    candidate: Sequence[FrameScore],
    incumbent: Sequence[FrameScore],
    groups: Groups,
    count: int,
    rng: np.random.Generator,
    *,
    exchange: bool,
) -> tuple[bool, bool, bool, bool]:
    """Draw groups; tell whether the gate promotes, refuses, passes Dice alone, and minds the AUC."""
    new: list[FrameScore] = []
    old: list[FrameScore] = []
    for number, group in enumerate(rng.integers(len(groups), size=count)):
        ours, theirs = (candidate, incumbent)
        if exchange and rng.random() < 0.5:
            ours, theirs = theirs, ours
        # one that is drawn twice counts as two
        new += [replace(ours[place], group=str(number)) for place in groups[group]]
        old += [replace(theirs[place], group=str(number)) for place in groups[group]]
    found = decide(new, old)
    better = found.interval is not None and found.interval[0] > 0
    return found.verdict == "promote", found.verdict == "refuse", better, found.auc.state in ("open", "worse")


def average(
    said: NDArray[np.bool_], pairs: Sequence[tuple[str, str]], rng: np.random.Generator
) -> dict[str, Any]:
    """Average answers (pairs, draws, 4) with the interval over models of what is promoted."""
    means = said.mean(1)
    shares = [mean(answers) for answers in means.T]
    named = dict(zip(("promote", "refuse", "dice_alone", "auc_minded"), shares, strict=True))
    names = sorted({name for pair in pairs for name in pair})
    old, new = (np.array([names.index(pair[side]) for pair in pairs]) for side in (0, 1))
    # how often each model is drawn; a pair as often as both together
    counts = rng.multinomial(len(names), [1 / len(names)] * len(names), size=RESAMPLES)
    weights = counts[:, old] * counts[:, new]
    kept = weights[weights.any(1)]
    again = kept @ means[:, 0] / kept.sum(1)
    return named | {"ci95": percentile_interval(again), "worst_pair": mean([means[:, 0].max()])}


def measure_intervals(repeats: int, rng: np.random.Generator) -> dict[str, Any]:
    """Promote equal candidates by each interval, where differences deceive most."""
    methods: dict[str, Callable[[NDArray[np.float64], np.random.Generator], bool]] = {
        "the gate's": lambda x, _: passes(x, np.arange(len(x)).astype(str), FOUND),
        "percentile bootstrap": percentile,
        "bootstrap-t": bootstrap_t,
        "t": lambda x, _: bool(x.mean() > stats.t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / len(x) ** 0.5),
    }
    measured: dict[str, Any] = {"draws": repeats, "failures": EXPECTED, "kinds": {}}
    for name, method in methods.items():
        rates = []
        for count in COUNTS:
            sys.stderr.write(f"\r{name}: {count} groups   ")
            shares = {
                expected: mean([method(deceive(rng, expected, count), rng) for _ in range(repeats)])
                for expected in EXPECTED
            }
            worst = max(shares, key=lambda expected: shares[expected])
            rates.append({"groups": count, "promote": shares[worst], "failures": worst})
        measured["kinds"][name] = {"rates": rates}
    sys.stderr.write("\n")
    return measured


def deceive(rng: np.random.Generator, expected: float, count: int) -> NDArray[np.float64]:
    """Draw differences of a truly equal candidate that gains a little on most and fails now and then."""
    share = expected / count
    gain = share * FOUND / (1 - share)
    return np.where(rng.random(count) < share, -FOUND, rng.normal(gain, CALM, count))


def percentile(values: NDArray[np.float64], rng: np.random.Generator) -> bool:
    """Whether the bootstrap's percentile interval of the mean lies above zero."""
    means = values[rng.integers(len(values), size=(RESAMPLES, len(values)))].mean(1)
    return bool(np.quantile(means, 0.025) > 0)


def bootstrap_t(values: NDArray[np.float64], rng: np.random.Generator) -> bool:
    """Whether the studentised bootstrap's interval of the mean lies above zero (Efron 1979)."""
    drawn = values[rng.integers(len(values), size=(RESAMPLES, len(values)))]
    spread = np.maximum(drawn.std(1, ddof=1), 1e-9)
    highest = np.quantile((drawn.mean(1) - values.mean()) / spread, 0.975)
    return bool(values.mean() > highest * values.std(ddof=1))


def tabulate(measured: dict[str, Any]) -> str:
    """Write what is promoted as a table."""
    head = ["", *(f"{count}" for count in COUNTS)]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for kind, entry in measured["kinds"].items():
        shares = [f"{100 * rate['promote']:.1f} %" for rate in entry["rates"]]
        lines.append("| " + " | ".join([kind, *shares]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
