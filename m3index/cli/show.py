"""Search results for people (a table that fits 80 columns, plain when piped) and for programs."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from m3index.search.explain import Explanation, RankRange
from m3index.search.hits import hit_json
from m3index.search.searcher import SearchResult
from m3index.search.snippet import snippet
from m3index.types import Hit

_LINES = 3


def console() -> Console:
    """Standard output: as wide as the terminal, 80 columns where there is none."""
    width = shutil.get_terminal_size((80, 24)).columns
    return Console(highlight=False, width=width, soft_wrap=False)


def table(result: SearchResult) -> None:
    out = console()
    if not result.hits:
        typer.echo("No hits.")
        return
    for position, hit in enumerate(result.hits):
        _hit(out, hit, result.query.text)
        if result.explanations:
            _explanation(out, result.explanations[position], result)
    seconds = result.timings.get("total")
    if seconds is not None:
        parts = " ".join(f"{name} {value:.3f}" for name, value in result.timings.items() if name != "total")
        count = "1 hit" if len(result.hits) == 1 else f"{len(result.hits)} hits"
        out.print(Text(f"{count} in {seconds:.3f} s ({parts})", style="dim"))


def _hit(out: Console, hit: Hit, query: str) -> None:
    head = Text.assemble((f"{hit.rank:>2}. ", "bold"), (hit.title or hit.doc_id, "bold"))
    out.print(head, overflow="ellipsis", no_wrap=True)
    about = [hit.doc_id] if hit.title else []
    if hit.ordinal:
        about.append(f"passage {hit.ordinal}")
    if hit.rerank_score is not None:
        about.append(f"rerank {hit.rerank_score:.4f} (was {hit.fused_rank})")
    about.append(f"score {hit.score:.4f}")
    about += [f"{name} #{leg.rank} ({leg.score:.3f})" for name, leg in hit.legs.items()]
    out.print(Text("    " + " · ".join(about), style="cyan"), overflow="fold")
    shown = snippet(hit.text, query, width=(out.width - 4) * _LINES - 8)
    body = Text(shown.text)
    for start, end in shown.spans:
        body.stylize("bold yellow", start, end)
    for line in body.wrap(out, out.width - 4)[:_LINES]:
        line.rstrip()
        out.print(Text("    ") + line, no_wrap=True)
    out.print()


def _explanation(out: Console, explanation: Explanation, result: SearchResult) -> None:
    lines: list[str] = []
    if explanation.matches:
        matched = [
            m.token
            if m.score is None
            else f"{m.token} {m.score:.3f} ({m.query_weight:.2f} x {m.passage_weight:.2f})"
            for m in explanation.matches[:8]
        ]
        lines.append("matched: " + ", ".join(matched))
    if explanation.leg is not None and explanation.share is not None:
        for crossing in explanation.crossings[:3]:
            verb = "overtakes" if crossing.overtakes else "falls behind"
            other = result.hits[crossing.other - 1]
            lines.append(f"{verb} {other.doc_id} when {explanation.leg} > {crossing.share:.2f}")
        if len(explanation.ranks) > 1:
            lines.append(f"rank by the weight of {explanation.leg}: {_ranks(explanation.ranks)}")
    for line in lines:
        out.print(Text("    " + line, style="green"), overflow="fold")
    if lines:
        out.print()


def _ranks(ranks: Sequence[RankRange]) -> str:
    """Where a hit is without the second leg, at its best, and with that leg alone."""
    best = min(ranks, key=lambda r: r.rank)
    shown = {ranks[0]: f"{ranks[0].rank} at 0", best: f"{best.rank} from {best.start:.2f} to {best.end:.2f}"}
    return ", ".join((shown | {ranks[-1]: f"{ranks[-1].rank} at 1"}).values())


def jsonl(result: SearchResult) -> None:
    for position, hit in enumerate(result.hits):
        explanation = result.explanations[position] if result.explanations else None
        record(hit_json(hit, explanation=explanation))


def record(line: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")


def trec(result: SearchResult) -> None:
    for hit in result.hits:
        typer.echo(f"{result.query.query_id or 'q'} Q0 {hit.doc_id} {hit.rank} {hit.score!r} m3index")


def pairs(rows: Sequence[tuple[str, str]]) -> None:
    """Names and values, one to a line."""
    out = console()
    indent = max((cell_len(name) for name, _ in rows), default=0) + 2
    for name, value in rows:
        first = Text.assemble((name, "bold"), " " * (indent - cell_len(name)))
        for line in Text(value).wrap(out, max(out.width - indent, 20), overflow="fold") or [Text()]:
            line.rstrip()
            out.print(first + line, no_wrap=True, overflow="ignore", crop=False)
            first = Text(" " * indent)
