"""Prints search results for people (a table that fits 80 columns, plain in a pipe) and for programs."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import typer
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.text import Text

from m3index.errors import UsageError
from m3index.progress import json_line, printable
from m3index.search.hits import hit_json
from m3index.search.result import Explanation, RankRange, SearchResult
from m3index.search.snippet import snippet
from m3index.types import Hit
from m3index.wording import many

_LINES = 3


class Piped(Console):
    """Raises BrokenPipeError for a closed pipe, like other writes. Rich itself would exit with code 1, which
    means an unexpected error."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def console() -> Console:
    """Standard output, as wide as the terminal, or 80 columns without one."""
    width = shutil.get_terminal_size((80, 24)).columns
    return Piped(highlight=False, width=width, soft_wrap=False)


def table(result: SearchResult) -> None:
    out = console()
    if not result.hits:
        typer.echo("No hits.")
        facets(result)
        return
    for position, hit in enumerate(result.hits):
        _hit(out, hit, result.searched or result.query.text)
        if result.explanations:
            _explanation(out, hit, result.explanations[position], result)
    facets(result)
    seconds = result.timings.get("total")
    if seconds is not None:
        parts = [f"{name} {value:.3f}" for name, value in result.timings.items() if name != "total"]
        _lines(
            out, f"{many(len(result.hits), 'hit')} in {seconds:.3f} s ({', '.join(parts)})", "dim", indent=0
        )


def facets(result: SearchResult) -> None:
    """Prints the facets as a table."""
    if not result.facets:
        return
    values: list[tuple[str, str, str]] = []
    for name, facet in result.facets.items():
        at_least = "at least " if facet.is_lower_bound else ""
        lines = [(_value(found.value), f"{at_least}{found.count:,}") for found in facet.values]
        if facet.others:
            lines.append((f"and {many(facet.others, 'other value')}", ""))
        first = [name] + [""] * len(lines)
        values += [(title, *line) for title, line in zip(first, lines or [("no values", "")], strict=False)]
    rows(["facet", "value", "documents"], values, right=["documents"])
    typer.echo()


def facet_lines(result: SearchResult) -> Iterator[str]:
    """A line for each facet, for formats that have no place for it."""
    for name, facet in result.facets.items():
        parts = [f"{_value(found.value)} {found.count:,}" for found in facet.values]
        if facet.others:
            parts.append(f"and {many(facet.others, 'other value')}")
        bound = ", counted in part" if facet.is_lower_bound else ""
        yield f"{name} ({many(facet.documents, 'document')}{bound}): {', '.join(parts) or 'no values'}"


def _value(value: str | float) -> str:
    """A value of a field as a person writes it in a filter."""
    return str(value).lower() if isinstance(value, bool) else _one_line(str(value))


def _one_line(text: str) -> str:
    return printable(text).replace("\n", " ").replace("\t", " ")


def _lines(out: Console, text: str, style: str, indent: int = 4) -> None:
    """Prints text wrapped to the width of the terminal and indented."""
    for line in Text(_one_line(text), style).wrap(out, out.width - indent):
        line.rstrip()
        out.print(Text(" " * indent) + line, no_wrap=True)


def _hit(out: Console, hit: Hit, query: str) -> None:
    head = _one_line(f"{hit.rank:>2}. {hit.title or hit.doc_id}")
    out.print(Text(head, "bold"), overflow="ellipsis", no_wrap=True)
    if hit.breadcrumb:
        _lines(out, hit.breadcrumb, "bold dim")
    about = [hit.place] if hit.title or hit.anchor else []
    if hit.ordinal:
        about.append(f"passage {hit.ordinal}")
    about += _scores(hit)
    about += [f"{name} #{leg.rank} ({leg.score:.3f})" for name, leg in hit.legs.items()]
    _lines(out, " · ".join(about), "cyan")
    excerpt = snippet(hit.text, query, width=(out.width - 4) * _LINES - 8)
    body = Text(printable(excerpt.text))
    for start, end in excerpt.spans:
        body.stylize("bold yellow", start, end)
    for line in body.wrap(out, out.width - 4)[:_LINES]:
        line.rstrip()
        out.print(Text("    ") + line, no_wrap=True)
    out.print()


def _scores(hit: Hit) -> list[str]:
    """The scores of a hit, the one that counts first, with the rank before where it was another."""
    named = {"boosted": hit.boosted_score, "rerank": hit.rerank_score, "score": hit.score}
    first, *others = [f"{name} {score:.4f}" for name, score in named.items() if score is not None]
    is_moved = hit.rerank_score is not None or hit.fused_rank != hit.rank
    return [f"{first} (was {hit.fused_rank})" if is_moved else first, *others]


def _explanation(out: Console, hit: Hit, explanation: Explanation, result: SearchResult) -> None:
    lines: list[str] = []
    for name, leg in hit.legs.items():
        if leg.by_chance is not None:
            lines.append(f"{name}: {by_chance(leg.by_chance)}, a vote of {leg.contribution:.2f}")
    if explanation.matches:
        matched = [
            m.token
            if m.score is None
            else f"{m.token} {m.score:.3f} ({m.query_weight:.2f} x {m.passage_weight:.2f})"
            for m in explanation.matches[:8]
        ]
        lines.append("matched: " + ", ".join(matched))
    lines += [f"boost {b.boost} -> x {b.factor:.4g}" for b in explanation.boosts]
    if explanation.leg is not None and explanation.share is not None:
        for crossing in explanation.crossings[:3]:
            verb = "overtakes" if crossing.overtakes else "falls behind"
            other = result.hits[crossing.other - result.hits[0].rank]
            lines.append(f"{verb} {other.doc_id} when {explanation.leg} > {crossing.share:.2f}")
        if len(explanation.ranks) > 1:
            lines.append(f"rank by the weight of {explanation.leg}: {_ranks(explanation.ranks)}")
    for line in lines:
        _lines(out, line, "green")
    if lines:
        out.print()


def by_chance(documents: float) -> str:
    """What a vote says, in words."""
    number = f"{documents:.0f}" if documents >= 10 else f"{documents:.2g}"
    if documents < 0.0001:
        number = "less than 0.0001"
    return f"by chance {number} {'document' if number == '1' else 'documents'} would match this well"


def _ranks(ranks: Sequence[RankRange]) -> str:
    """The rank of a hit without the second leg, at its best, and with that leg only."""
    best = min(ranks, key=lambda r: r.rank)
    parts = {ranks[0]: f"{ranks[0].rank} at 0", best: f"{best.rank} from {best.start:.2f} to {best.end:.2f}"}
    return ", ".join((parts | {ranks[-1]: f"{ranks[-1].rank} at 1"}).values())


def hits(result: SearchResult) -> Iterator[dict[str, Any]]:
    """The hits as JSON."""
    for position, hit in enumerate(result.hits):
        explanation = result.explanations[position] if result.explanations else None
        yield hit_json(hit, explanation=explanation)


def jsonl(result: SearchResult) -> None:
    for hit in hits(result):
        sys.stdout.write(json_line(hit) + "\n")


def trec(result: SearchResult, tag: str) -> None:
    from m3index.evaluate.runs import trec_lines

    for line in trec_lines(result.query.query_id or "q", result.hits, tag):
        typer.echo(line)


def ids(result: SearchResult) -> None:
    """Prints one id per line. Raises UsageError for an id with a line break."""
    for hit in result.hits:
        if len(hit.doc_id.splitlines()) > 1:
            raise UsageError(f"The id {hit.doc_id!r} has a line break. Use --format jsonl.")
    for hit in result.hits:
        typer.echo(hit.doc_id)


def block(content: RenderableType) -> None:
    """Prints a rich layout without trailing spaces."""
    out = console()
    for segments in out.render_lines(content, pad=False):
        line = Text.assemble(*((segment.text, segment.style or "") for segment in segments))
        line.rstrip()
        out.print(line, no_wrap=True, overflow="ignore", crop=False)


def rows(
    columns: Sequence[str],
    values: Sequence[Sequence[str]],
    *,
    right: Sequence[str] = (),
    whole: Sequence[str] = (),
) -> None:
    """Prints a table. right: right-aligned columns. whole: columns that are never wrapped."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(
            name,
            justify="right" if name in right else "left",
            no_wrap=name in right or name in whole,
            overflow="fold",
        )
    for row in values:
        table.add_row(*row)
    block(table)


def pairs(rows: Sequence[tuple[str, str]]) -> None:
    """Prints names and values, one pair per line."""
    out = console()
    indent = max((cell_len(name) for name, _ in rows), default=0) + 2
    for name, value in rows:
        first = Text.assemble((name, "bold"), " " * (indent - cell_len(name)))
        for line in Text(value).wrap(out, max(out.width - indent, 20), overflow="fold") or [Text()]:
            line.rstrip()
            out.print(first + line, no_wrap=True, overflow="ignore", crop=False)
            first = Text(" " * indent)
