"""Plots of a report and of a tuning, as PNG, SVG or PDF by the file's suffix."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from m3index.errors import UsageError
from m3index.evaluate.report import Report
from m3index.evaluate.tune import Tuning
from m3index.output import output
from m3index.wording import many

_FORMATS = (".png", ".svg", ".pdf")


def plot_report(found: Report, path: str | os.PathLike[str]) -> None:
    """A group of bars for each measure, with one bar and its confidence interval for each run."""
    figure = _figure(path, width=2.0 + 1.1 * len(found.measures) * max(1.0, len(found.estimates) / 3))
    axes = figure.subplots()
    width = 0.8 / len(found.estimates)
    for n, (name, estimates) in enumerate(found.estimates.items()):
        places = [m + (n - (len(found.estimates) - 1) / 2) * width for m in range(len(found.measures))]
        values = [estimates[measure] for measure in found.measures]
        below = [max(0.0, v.mean - v.low) for v in values]
        above = [max(0.0, v.high - v.mean) for v in values]
        axes.bar(places, [v.mean for v in values], width * 0.92, label=name)
        axes.errorbar(
            places, [v.mean for v in values], yerr=[below, above], fmt="none", ecolor="black", capsize=3, lw=1
        )
    axes.set_xticks(range(len(found.measures)), found.measures)
    axes.set_ylim(0, 1)
    axes.set_title(f"{many(found.queries, 'query', 'queries')}, mean with 95 % interval")
    figure.legend(loc="outside lower center", ncols=len(found.estimates), frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def plot_tuning(found: Tuning, path: str | os.PathLike[str]) -> None:
    """The measure over the sparse leg's share and k, with the baseline and the best setting marked."""
    figure = _figure(path, width=7.5)
    axes = figure.subplots()
    picture = axes.imshow(found.surface.T, origin="lower", aspect="auto", cmap="viridis")
    figure.colorbar(picture, ax=axes, label=found.measure)
    every = max(1, len(found.shares) // 10)
    axes.set_xticks(range(0, len(found.shares), every), [f"{s:g}" for s in found.shares[::every]])
    axes.set_yticks(range(len(found.ks)), [f"{k:g}" for k in found.ks])
    axes.set_xlabel("share of the sparse leg's weight")
    axes.set_ylabel("k")
    for setting, marker, label in ((found.baseline, "o", "equal weights"), (found.best, "*", "best")):
        x, y = found.shares.index(setting.share), found.ks.index(setting.k)
        axes.plot(x, y, marker, color="white", markeredgecolor="black", markersize=12, label=label, ls="")
    axes.legend(loc="upper right")
    silver = ", silver labels" if found.labels == "silver" else ""
    axes.set_title(f"{many(found.queries, 'query', 'queries')}, depth {found.best.depth}{silver}")
    _save(figure, path)


def _figure(path: str | os.PathLike[str], width: float) -> Any:
    if Path(path).suffix.lower() not in _FORMATS:
        raise UsageError(f"{path}: the name of a plot must end in {', '.join(_FORMATS)}.")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError("Plots need matplotlib: pip install 'm3index[eval]'.") from None
    return Figure(figsize=(width, 4.5), layout="constrained")


def _save(figure: Any, path: str | os.PathLike[str]) -> None:
    with output(path) as writable:
        figure.savefig(writable, format=Path(path).suffix[1:].lower(), dpi=150)
