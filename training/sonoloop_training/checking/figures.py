"""Figures of a dataset: sizes, areas of lesions, and where in the frame they lie."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from sonoloop.values import CLASSES
from sonoloop_training.checking.survey import Survey
from sonoloop_training.figures import CLASS_COLOURS, new_figure


def draw_sizes(survey: Survey) -> Figure:
    """Draw histograms of widths and heights in pixels."""
    sides = np.array([item.shape for item in survey.readable if item.shape])
    bins = np.linspace(sides.min() - 0.5, sides.max() + 0.5, 31).tolist()
    with new_figure() as figure:
        axes = figure.subplots()
        axes.hist(sides[:, 1], bins, histtype="step", color="#0072B2", linewidth=1.6, label="width")
        axes.hist(
            sides[:, 0], bins, histtype="step", color="#D55E00", linewidth=1.6, linestyle="--", label="height"
        )
        axes.set(xlabel="side (px)", ylabel="images")
        axes.legend()
    return figure


def draw_areas(survey: Survey) -> Figure:
    """Draw a histogram of the share of the frame that lesions cover, one line a class."""
    with new_figure() as figure:
        axes = figure.subplots()
        areas = {
            label: [100 * i.area for i in survey.readable if i.sample.label == label and i.lesions]
            for label in CLASSES
        }
        highest = max((max(found) for found in areas.values() if found), default=1.0)
        bins = np.linspace(0, highest, 31).tolist()
        for style, (label, found) in zip((":", "-", "--"), areas.items(), strict=True):
            if found:
                axes.hist(
                    found,
                    bins,
                    histtype="step",
                    color=CLASS_COLOURS[label],
                    linewidth=1.6,
                    linestyle=style,
                    label=label,
                )
        axes.set(xlabel="area of the lesions (% of the frame)", ylabel="images")
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    return figure


def draw_places(survey: Survey) -> Figure:
    """Draw in how many of the images with a lesion it covers each place of the frame, one panel a class."""
    places = {
        label: np.stack(found)
        for label in CLASSES
        if (
            found := [
                item.places
                for item in survey.readable
                if item.sample.label == label and item.places is not None
            ]
        )
    }
    with new_figure(width=3.6 * max(len(places), 1) + 0.8, height=3.2) as figure:
        shares = {label: 100 * masks.mean(0) for label, masks in places.items()}
        highest = max((float(share.max()) for share in shares.values()), default=1.0)
        panels = figure.subplots(1, max(len(shares), 1), squeeze=False)[0]
        for axes, (label, share) in zip(panels, shares.items(), strict=False):
            shown = axes.imshow(share, cmap="viridis", vmin=0, vmax=highest, extent=(0, 100, 100, 0))
            axes.set(title=label, xlabel="across (% of the width)", ylabel="depth (% of the height)")
            if axes is panels[-1]:
                figure.colorbar(shown, ax=axes, label="images with a lesion there (%)")
    return figure
