"""The gate's reasons, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sonoloop_training.gate.decide import Verdict
    from sonoloop_training.gate.decision import Side

# more test groups than anybody will collect
_MOST = 1000
_TITLES = {
    "missed_malignant": "missed malignant lesions",
    "false_alarms": "false alarms on normals",
    "auc": "AUC",
}
_ABOUT = {
    "missed_malignant": "a malignant lesion",
    "false_alarms": "a frame without a lesion",
    "auc": "a benign or malignant lesion",
}
_ABSENT = {
    "missed_malignant": "No malignant lesion judges, so missed ones were not compared.",
    "false_alarms": "No frame without a lesion judges, so false alarms were not compared.",
    "auc": "Not both benign and malignant lesions judge, so AUC was not compared.",
}


def explain(found: Verdict, *, fewest: int) -> str:
    """Say why a verdict was given, in a few sentences.

    Parameters
    ----------
    found : Verdict
        Its reason is not read.
    fewest : int
        Groups with a lesion, below which nothing is promoted.
    """
    sides = {name: getattr(found, name) for name in _TITLES}
    if found.verdict == "promote":
        told = [f"Better: {_dice(found)}, and nothing else is worse by more than its margin."]
        told += [_ABSENT[name] for name, side in sides.items() if side.state == "unknown"]
    elif found.verdict == "refuse":
        told = [f"Worse: {text}." for text in _faults(found, sides)]
    else:
        told = _doubts(found, sides, fewest)
    return " ".join(told)


def _faults(found: Verdict, sides: dict[str, Side]) -> list[str]:
    faults = []
    if found.interval is not None and found.interval[1] < 0:
        faults.append(_dice(found))
    faults += [_side(name, side) for name, side in sides.items() if side.state == "worse"]
    return faults


def _doubts(found: Verdict, sides: dict[str, Side], fewest: int) -> list[str]:
    if found.difference is None:
        return ["Nothing to go by: no frame with a lesion judges."]
    told = [f"Not clear: {_dice(found)}."]
    if found.groups < fewest:
        told.append(f"At least {fewest} groups with a lesion have to judge before a model is promoted.")
    better = found.interval is not None and found.interval[0] > 0
    opened = {name: side for name, side in sides.items() if side.state == "open"}
    for name, side in opened.items():
        told.append(f"Worse by more than its margin, which may be chance: {_side(name, side)}.")
        if better and found.groups >= fewest and side.needed:
            told.append(f"{_more(side.needed, _ABOUT[name])} would tell.")
    if better and found.groups >= fewest:
        return told
    if found.groups_needed is None:
        told.append("The two do the same.")
    elif found.groups_needed > _MOST:
        told.append(f"No difference to be found: it would take {_thousands(found.groups_needed)}.")
    else:
        told.append(f"{_more(found.groups_needed, 'a lesion')} would tell, if the difference stays as it is.")
    return told


def _more(count: int, what: str) -> str:
    # two digits: the estimate has no more
    rounded = round(count, -1) if count >= 100 else count
    plural = "" if rounded == 1 else "s"
    return f"About {rounded} more test group{plural} with {what}"


def _thousands(count: int) -> str:
    thousands = round(count, -3)
    return "a thousand test groups more" if thousands <= _MOST else "thousands of test groups more"


def _dice(found: Verdict) -> str:
    text = f"mean Dice {found.difference:+.3f}"
    if found.interval is not None:
        text += f" [{found.interval[0]:+.3f}, {found.interval[1]:+.3f}]"
    return f"{text} on {_count(found.frames, 'frame')} with a lesion from {_count(found.groups, 'group')}"


def _side(name: str, side: Side) -> str:
    title = _TITLES[name]
    if side.candidate is None or side.incumbent is None or side.difference is None:
        return title
    if name == "auc":
        text = f"{title} {side.candidate:.3f}, before {side.incumbent:.3f}"
    else:
        after, before = (round(share * side.frames) for share in (side.candidate, side.incumbent))
        text = f"{title}, {after} of {side.frames}, before {before}"
    return f"{text} ({side.difference:+.3f}, margin {side.margin:g})"


def _count(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")
