"""Plots of the tables in docs/performance.md and docs/results.md, as docs/figures/*.svg (`make figures`).

    python benchmarks/figures.py

A plot takes its numbers from the page's table and from nowhere else. Each file carries them too, as JSON in
its description, and a test compares those with the tables.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

DOCS = Path(__file__).parents[1] / "docs"
FOLDER = DOCS / "figures"

OURS, OTHER, THIRD, FOURTH, INK, FAINT = "#1f6fb2", "#9aa4ad", "#d9822b", "#6b4fa0", "#24292f", "#d5dae0"
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "m3index",  # the same names of elements every time
    "font.family": ["DejaVu Sans"],
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": FAINT,
    "figure.facecolor": "white",
}

NUMBER = re.compile(r"(?<![\w.])(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d*\.?\d+)")

Row = dict[str, str]
Data = list[dict[str, Any]]


def tables(page: str, heading: str) -> list[list[Row]]:
    """The tables under a heading of the second level, each row by the names of its columns. An empty first
    cell repeats the one above it."""
    text = (DOCS / page).read_text("utf-8")
    section = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if section is None:
        raise LookupError(f"{page} has no heading {heading!r}")
    found = []
    for lines in re.findall(r"^(?:\|.*\|\n)+", section[1] + "\n", re.MULTILINE):
        head, _, *rows = [
            [cell.strip() for cell in line.strip("|\n").split("|")] for line in lines.splitlines()
        ]
        above = ""
        table = []
        for cells in rows:
            above = cells[0] = cells[0] or above
            table.append(dict(zip(head, cells, strict=True)))
        found.append(table)
    if not found:
        raise LookupError(f"{page} has no table under {heading!r}")
    return found


def table(page: str, heading: str, column: str) -> list[Row]:
    """The one table under the heading that has the column."""
    (found,) = [rows for rows in tables(page, heading) if column in rows[0]]
    return found


def numbers(cell: str) -> list[float]:
    """Of `**0.7106** [0.668, 0.752]` all three, of `121 ms (194)` both; of `not measured` none."""
    return [float(n.replace(",", "")) for n in re.findall(NUMBER, cell)]


# ---------------------------------------------------------------- what is drawn


def encoding() -> Data:
    return [
        {
            "shape": row["shape"].split(",")[0],
            "encoder": f"{row['encoder'].replace(' (its best)', '')}, {row['precision'].split(' ')[0]}",
            "tokens/s": numbers(row["tokens/s"])[0],
        }
        for row in table("performance.md", "Encoding on a CPU", "tokens/s")
    ]


def memory() -> Data:
    rows = table("performance.md", "Memory", "budget, tokens")
    return [
        {"budget": numbers(r["budget, tokens"])[0], "MiB": numbers(r["MiB over the loaded model"])[0]}
        for r in rows
    ]


def search() -> Data:
    found = []
    for row in table("performance.md", "Search", "ratio"):
        for engine in ("m3index", "Milvus `hybrid_search`"):
            median, slow = numbers(row[engine])
            found.append(
                {
                    "store": row["store"].replace("`", ""),
                    "engine": engine.replace("`", ""),
                    "median": median,
                    "95th percentile": slow,
                }
            )
    return found


def serving() -> Data:
    names = ("clients", "searches/s", "median", "95th percentile")
    rows = table("performance.md", "Search", "clients")
    return [{name: numbers(row[name])[0] for name in names} for row in rows]


def night() -> Data:
    rows = table("performance.md", "A night without changes", "documents/s")
    return [
        {"store": re.sub(r"[`]| \(.*", "", row["store"])}
        | {name: numbers(row[name])[0] for name in ("documents", "documents/s", "peak memory")}
        for row in rows
    ]


def scifact() -> Data:
    found = []
    for row in table("results.md", "SciFact", "nDCG@10"):
        name = row[""]
        value = numbers(row["nDCG@10"])
        if value:
            low, high = (*value[1:], None, None)[:2]
            found.append({"system": name, "nDCG@10": value[0], "low": low, "high": high})
    return found


def languages() -> Data:
    _, ours, base, *_ = table("results.md", "BM25 in twelve languages", "zh")
    return [
        {"language": name, ours[""]: numbers(ours[name])[0], base[""]: numbers(base[name])[0]}
        for name in ours
        if name
    ]


def ways() -> Data:
    rows = table("results.md", "XQuAD in twelve languages", "en")
    return [
        {"language": language} | {row[""]: numbers(row[language])[0] for row in rows}
        for language in rows[0]
        if language
    ]


def crosslingual() -> Data:
    first = "questions \\ paragraphs"
    return [
        {"questions": row[first]} | {name: numbers(cell)[0] for name, cell in row.items() if name != first}
        for row in table("results.md", "Searching in one language what is written in another", first)
    ]


# ---------------------------------------------------------------- how it is drawn


def bars(ax: Axes, names: Sequence[str], values: Sequence[float], colours: Sequence[str], unit: str) -> None:
    """Lying bars, the first on top, each with its number."""
    places = range(len(names))
    ax.barh(places, values, color=colours, height=0.68)
    ax.set_yticks(places, names)
    ax.invert_yaxis()
    ax.tick_params(axis="y", length=0)
    ax.spines["bottom"].set_visible(False)
    ax.set_xticks([])
    for place, value in zip(places, values, strict=True):
        ax.annotate(
            f"{value:,.0f}{unit}",
            (value, place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    ax.set_xlim(0, max(values) * 1.16)


def headline(figure: Figure, text: str) -> None:
    figure.suptitle(text, x=0.01, ha="left", fontsize=11, fontweight="bold")


def title(ax: Axes, text: str) -> None:
    ax.set_title(text, loc="left", fontsize=10)


def draw_encoding(data: Data) -> Figure:
    shapes = list(dict.fromkeys(row["shape"] for row in data))
    figure = Figure(figsize=(7.6, 4.6), layout="constrained")
    for ax, shape in zip(figure.subplots(len(shapes), 1, squeeze=False)[:, 0], shapes, strict=True):
        rows = [row for row in data if row["shape"] == shape]
        colours = [OURS if row["encoder"].startswith("m3index") else OTHER for row in rows]
        bars(ax, [row["encoder"] for row in rows], [row["tokens/s"] for row in rows], colours, "")
        title(ax, shape.capitalize())
    headline(figure, "Encoding: tokens/s on one CPU thread")
    return figure


def draw_memory(data: Data) -> Figure:
    figure = Figure(figsize=(7.6, 2.3), layout="constrained")
    ax = figure.subplots()
    bars(
        ax, [f"{row['budget']:,.0f} tokens" for row in data], [row["MiB"] for row in data], [OURS] * 9, " MiB"
    )
    headline(figure, "Peak memory over the loaded model, by token budget")
    return figure


def draw_search(data: Data) -> Figure:
    stores = list(dict.fromkeys(row["store"] for row in data))
    figure = Figure(figsize=(7.6, 3.0), layout="constrained")
    ax = figure.subplots()
    names = []
    for place, row in enumerate(data):
        y = place + 0.6 * stores.index(row["store"])
        colour = OURS if row["engine"] == "m3index" else OTHER
        ax.plot([row["median"], row["95th percentile"]], [y, y], color=colour, linewidth=3, alpha=0.45)
        ax.plot(row["median"], y, "o", color=colour, markersize=9)
        ax.plot(row["95th percentile"], y, "|", color=colour, markersize=11, markeredgewidth=2)
        ax.annotate(
            f"{row['median']:.0f}",
            (row["median"], y),
            xytext=(-9, 0),
            textcoords="offset points",
            va="center",
            ha="right",
        )
        ax.annotate(
            f"{row['95th percentile']:.0f} ms",
            (row["95th percentile"], y),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
        )
        names.append((y, row["engine"]))
    for store in stores:
        first = next(y for (y, _), row in zip(names, data, strict=True) if row["store"] == store)
        ax.text(0, first - 0.62, store, fontsize=9, fontweight="bold", va="center")
    ax.set_yticks([y for y, _ in names], [name for _, name in names])
    ax.invert_yaxis()
    ax.tick_params(axis="y", length=0)
    ax.set_xlim(0, max(row["95th percentile"] for row in data) * 1.15)
    ax.set_ylim(names[-1][0] + 0.6, -1.0)
    ax.set_xlabel("ms of one search: median (dot) and 95th percentile")
    ax.grid(axis="x")
    headline(figure, "A hybrid search, fused here and fused by Milvus")
    return figure


def draw_serving(data: Data) -> Figure:
    figure = Figure(figsize=(7.6, 2.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    clients = [f"{row['clients']:.0f}" for row in data]
    for ax in (left, right):
        ax.set_xlabel("clients at the same time")
        ax.grid(axis="y")
    left.plot(clients, [row["searches/s"] for row in data], "o-", color=OURS)
    left.set_ylim(0, 1.15 * max(row["searches/s"] for row in data))
    title(left, "searches per second")
    for name, colour in (("95th percentile", OTHER), ("median", OURS)):
        values = [row[name] for row in data]
        right.plot(clients, values, "o-", color=colour)
        right.annotate(
            name,
            (len(values) - 1, values[-1]),
            xytext=(9, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    right.set_xlim(right=len(data) + 0.25)
    right.set_ylim(bottom=0)
    title(right, "latency, ms")
    headline(figure, "m3index serve on two cores")
    return figure


def draw_night(data: Data) -> Figure:
    figure = Figure(figsize=(7.6, 2.5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.1, 1))
    names = [f"{row['store']}\n{row['documents']:,.0f} documents" for row in data]
    colours = [OURS if "server" in row["store"] else THIRD for row in data]
    bars(left, names, [row["documents/s"] for row in data], colours, "")
    title(left, "documents/s")
    bars(right, [""] * len(data), [row["peak memory"] for row in data], colours, " MB")
    title(right, "peak memory")
    headline(figure, "A night without changes")
    return figure


def draw_scifact(data: Data) -> Figure:
    figure = Figure(figsize=(7.6, 5.0), layout="constrained")
    ax = figure.subplots()
    for place, row in enumerate(data):
        colour = OURS if row["system"].startswith("m3index") else OTHER
        if row["low"] is not None:
            ax.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=3, alpha=0.45)
        ax.plot(row["nDCG@10"], place, "o", color=colour, markersize=8)
        ax.annotate(
            f"{row['nDCG@10']:.3f}",
            (row["nDCG@10"], place),
            xytext=(0, 8),
            textcoords="offset points",
            ha="center",
            fontsize=9,
        )
    ax.set_yticks(range(len(data)), [textwrap.fill(row["system"].replace("`", ""), 46) for row in data])
    ax.invert_yaxis()
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(data) - 0.5, -0.8)
    ax.set_xlabel("nDCG@10; the line is the 95 % interval where there is one")
    ax.grid(axis="x")
    headline(figure, "SciFact, 300 test queries")
    return figure


def draw_languages(data: Data) -> Figure:
    figure = Figure(figsize=(7.6, 3.0), layout="constrained")
    ax = figure.subplots()
    ours, base = [name for name in data[0] if name != "language"]
    data = sorted(data, key=lambda row: row[ours] - row[base], reverse=True)
    for place, row in enumerate(data):
        ax.plot([place, place], [row[ours], row[base]], color=FAINT, linewidth=3, zorder=1)
    ax.plot([row[base] for row in data], "o", color=OTHER, markersize=8, label=base)
    ax.plot([row[ours] for row in data], "o", color=OURS, markersize=8, label=ours)
    ax.set_xticks(range(len(data)), [row["language"] for row in data])
    ax.tick_params(axis="x", length=0)
    ax.set_ylabel("nDCG@10")
    ax.grid(axis="y")
    ax.legend(frameon=False, loc="lower left", ncols=2)
    ax.set_ylim(bottom=min(min(row[ours], row[base]) for row in data) - 0.035)
    headline(figure, "BM25 on XQuAD: stems of five letters, and a stemmer for each language")
    return figure


def draw_ways(data: Data) -> Figure:
    figure = Figure(figsize=(7.6, 3.0), layout="constrained")
    ax = figure.subplots()
    names = [name for name in data[0] if name != "language"]
    for place, row in enumerate(data):
        values = [row[name] for name in names]
        ax.plot([place, place], [min(values), max(values)], color=FAINT, linewidth=3, zorder=1)
    for name, colour in zip(names, (OTHER, THIRD, FOURTH, OURS), strict=True):
        ax.plot([row[name] for row in data], "o", color=colour, markersize=8, label=name)
    ax.set_xticks(range(len(data)), [row["language"] for row in data])
    ax.tick_params(axis="x", length=0)
    ax.set_ylabel("nDCG@10")
    ax.grid(axis="y")
    ax.set_ylim(top=max(row[name] for row in data for name in names) + 0.015)
    ax.legend(frameon=False, loc="upper right", ncols=4)
    headline(figure, "XQuAD in twelve languages, multilingual-e5-small, nDCG@10")
    return figure


def draw_crosslingual(data: Data) -> Figure:
    languages = [row["questions"] for row in data]
    values = [[row[language] for language in languages] for row in data]
    figure = Figure(figsize=(7.6, 6.2), layout="constrained")
    ax = figure.subplots()
    image = ax.imshow(values, cmap="Blues", vmin=0.6, vmax=1.0)
    for y, row in enumerate(values):
        for x, value in enumerate(row):
            ax.text(
                x, y, f"{value:.2f}".removeprefix("0"), ha="center", va="center", fontsize=9,
                color="white" if value > 0.82 else INK,
            )  # fmt: skip
    ax.set_xticks(range(len(languages)), languages)
    ax.set_yticks(range(len(languages)), languages)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_xlabel("language of the paragraphs")
    ax.set_ylabel("language of the questions")
    figure.colorbar(image, ax=ax, shrink=0.7, label="nDCG@10")
    headline(figure, "XQuAD across languages, dense vectors of multilingual-e5-small")
    return figure


PLOTS: dict[str, tuple[Callable[[], Data], Callable[[Data], Figure]]] = {
    "encoding": (encoding, draw_encoding),
    "memory": (memory, draw_memory),
    "search": (search, draw_search),
    "serving": (serving, draw_serving),
    "night": (night, draw_night),
    "scifact": (scifact, draw_scifact),
    "languages": (languages, draw_languages),
    "ways": (ways, draw_ways),
    "crosslingual": (crosslingual, draw_crosslingual),
}


def main(folder: Path = FOLDER, names: Iterable[str] = PLOTS) -> None:
    folder.mkdir(exist_ok=True)
    for name in names:
        read, draw = PLOTS[name]
        data = read()
        with mpl.rc_context(STYLE):
            said = {"Date": None, "Creator": None, "Description": json.dumps(data, ensure_ascii=False)}
            draw(data).savefig(folder / f"{name}.svg", metadata=said)


if __name__ == "__main__":
    main()
