"""Sum up the runs of `learning_curve.py` and `retraining.py`: figures, plot, and the tables of the page.

python benchmarks/learning_curve_results.py --work FOLDER

Writes benchmarks/results/learning_curve.json, docs/images/learning-curve.png, and the tables between the
marks of docs/learning-curve.md.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from learning_curve import COUNTS, read_runs

from sonoloop.store.metrics import draw_groups, percentile_interval

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "learning_curve.json"
PLOT = ROOT / "docs" / "images" / "learning-curve.png"
PAGE = ROOT / "docs" / "learning-curve.md"
# what the page calls the settings of a run, in its order
CURVE = {
    "base": "not tuned",
    "default": "tuned",
    "retrained": "trained anew",
    "both": "trained on all of both",
}
SETTINGS = {
    "default": "as shipped: rates 1e-3, encoder 3e-4",
    "fastest": "twice these rates",
    "slow": "rates 2e-4, encoder 1e-4",
    "slow-encoder": "these, only the encoder learns",
    "slow-shallow": "these, only its half next to the image learns",
    "slow-decoder": "these, only the decoder learns",
    "alone": "as shipped, without base data, nothing holds the weights",
    "alone-blend-0.3": "the same, averaged with 0.3 of the start",
    "alone-blend-0.5": "the same, averaged with 0.5 of the start",
    "alone-l2sp-10": "the same, L2-SP of 10",
}
# a run with three times as many steps, and the one that it is compared with
LONGER, USUAL = "longer-random-0-80", "default-random-0-80"


def main() -> None:
    """Write all three."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, required=True)
    results = summarise(read_runs(parser.parse_args().work))
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    plot(results)
    page = PAGE.read_text(encoding="utf-8")
    for mark, rows in (("curve", curve(results)), ("settings", settings(results))):
        block = re.compile(f"(<!-- {mark} -->\\n).*?(<!-- /{mark} -->)", re.DOTALL)
        page = block.sub(rf"\1\n{rows}\n\n\2", page)
    PAGE.write_text(page, encoding="utf-8")
    print(curve(results), settings(results), sep="\n\n")


def summarise(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Give each point of each curve, seeds averaged; and what other settings make of 20 corrections."""
    ends = {run["name"]: run for run in runs if run["arm"] in ("base", "both")}
    compared = [run for run in runs if (run.get("order"), run.get("seed"), run["count"]) == ("random", 0, 20)]
    results: dict[str, Any] = {"points": _points(runs, ends), "settings": _points(compared, ends)}
    by_name = {run["name"]: run for run in runs}
    if LONGER in by_name:
        results["longer"] = change([by_name[LONGER]], by_name[USUAL], "away")
    return results


def _points(runs: Sequence[Mapping[str, Any]], ends: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    floor, ceiling = (lesion_dice([ends[name]], "away")[0] for name in ("base", "both"))
    points = []
    for key in sorted({_point(run) for run in runs}):
        same = [run for run in runs if _point(run) == key]
        arm, order, count = key
        point: dict[str, Any] = {"arm": arm, "order": order, "count": count, "seeds": len(same)}
        for place in ("away", "home"):
            value, interval = lesion_dice(same, place)
            point[place] = {"dice": round(value, 4), "ci95": interval}
        point["home_change"] = change(same, ends["base"], "home")
        point["gap_closed"] = round((point["away"]["dice"] - floor) / (ceiling - floor), 3)
        if seconds := [run["seconds"] for run in same if "seconds" in run]:
            point["seconds"] = round(float(np.mean(seconds)), 1)
        points.append(point)
    return points


def lesion_dice(runs: Sequence[Mapping[str, Any]], place: str) -> tuple[float, list[float] | None]:
    """Mean Dice over images with a lesion, seeds averaged, and its interval over groups."""
    groups, dices = _matrix(runs, place)
    return _mean_and_interval(groups, dices.mean(0))


def change(runs: Sequence[Mapping[str, Any]], base: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Mean change of Dice against another model on the same images, and its interval over groups."""
    groups, dices = _matrix(runs, place)
    _, before = _matrix([base], place)
    value, interval = _mean_and_interval(groups, dices.mean(0) - before[0])
    return {"dice": round(value, 4), "ci95": interval}


def curve(results: Mapping[str, Any]) -> str:
    """Write the points of the curves as a Markdown table."""
    order = list(CURVE)
    points = [p for p in results["points"] if p["arm"] in CURVE]
    points.sort(key=lambda p: (order.index(p["arm"]), p["order"], p["count"]))
    names = [f"{CURVE[p['arm']]}{', ' if p['order'] else ''}{p['order']} order".strip() for p in points]
    names = [name if p["order"] else CURVE[p["arm"]] for name, p in zip(names, points, strict=True)]
    return table("", names, points)


def settings(results: Mapping[str, Any]) -> str:
    """Write what other settings make of 20 corrections as a Markdown table."""
    points = {point["arm"]: point for point in results["settings"]}
    there = [arm for arm in SETTINGS if arm in points]
    return table("settings", [SETTINGS[arm] for arm in there], [points[arm] for arm in there])


def table(title: str, names: Sequence[str], points: Sequence[Mapping[str, Any]]) -> str:
    """Write points as the rows of a Markdown table."""
    head = f"| {title} | corrections | seeds | Dice there | gap closed | change of Dice at home |"
    rows = [head, "|" + "---|" * (head.count("|") - 1)]
    for name, p in zip(names, points, strict=True):
        low, high = p["away"]["ci95"]
        cells = [name, p["count"], p["seeds"], f"{p['away']['dice']:.3f} [{low:.3f}, {high:.3f}]"]
        cells.append(f"{p['gap_closed']:.0%}")
        low, high = p["home_change"]["ci95"]
        cells.append(f"{p['home_change']['dice']:+.3f} [{low:+.3f}, {high:+.3f}]")
        rows.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(rows)


def plot(results: Mapping[str, Any]) -> None:
    """Draw Dice at the other hospital, and its change at home, over the number of corrections."""
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("Agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415

    points = results["points"]
    ends = {p["arm"]: p for p in points if p["arm"] in ("base", "both")}
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharex=True, layout="constrained")
    styles = {
        ("default", "random"): ("tuned, random order", {"color": "#0072b2", "marker": "o"}),
        ("default", "review"): ("tuned, review order", {"color": "#d55e00", "marker": "s", "ls": "--"}),
        ("retrained", "random"): ("trained anew", {"color": "#009e73", "marker": "D", "ls": ""}),
    }
    for axis, figure_of, title in (
        (axes[0], "away", "Dice at the other hospital"),
        (axes[1], "home_change", "Change of Dice at home"),
    ):
        for name, words in (("base", "no correction"), ("both", "trained on all of both")):
            height = ends[name][figure_of]["dice"]
            axis.axhline(height, color="0.5", lw=1, ls=":" if name == "base" else "-.")
            beside = {"xycoords": ("axes fraction", "data"), "va": "bottom"}
            if figure_of == "away":
                axis.annotate(words, (0.01, height), fontsize=8, color="0.35", **beside)
        for shift, (key, (label, style)) in enumerate(styles.items()):
            curve = [p for p in points if (p["arm"], p["order"]) == key]
            if not curve:
                continue
            x = np.array([p["count"] for p in curve]) * (1 + 0.03 * shift)
            y = np.array([p[figure_of]["dice"] for p in curve])
            spread = np.abs(np.array([p[figure_of]["ci95"] for p in curve]).T - y)
            axis.errorbar(x, y, spread, capsize=2, label=label, **style)
        axis.set(xscale="log", xlabel="corrections (patients)", title=title)
        axis.set_xticks(COUNTS, [str(count) for count in COUNTS])
        axis.minorticks_off()
        axis.grid(alpha=0.25)
    axes[0].set_ylabel("mean over images with a lesion")
    axes[0].legend(loc="center right", bbox_to_anchor=(1, 0.3), fontsize=8)
    figure.savefig(PLOT, dpi=150)


def _point(run: Mapping[str, Any]) -> tuple[str, str, int]:
    return run["arm"], run.get("order", ""), run["count"]


def _matrix(runs: Sequence[Mapping[str, Any]], place: str) -> tuple[np.ndarray, np.ndarray]:
    rows = [[s for s in run[place] if s["lesion"]] for run in runs]
    names = [[s["frame"] for s in row] for row in rows]
    assert all(name == names[0] for name in names), "the runs were scored on different images"
    return np.array([s["group"] for s in rows[0]]), np.array([[s["dice"] for s in row] for row in rows])


def _mean_and_interval(groups: np.ndarray, values: np.ndarray) -> tuple[float, list[float] | None]:
    counts = draw_groups(groups)
    return float(values.mean()), percentile_interval(counts @ values / counts.sum(1))


if __name__ == "__main__":
    main()
