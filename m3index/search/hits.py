"""Hits as JSON: the `hit` lines of `schemas/hit.schema.json`."""

from __future__ import annotations

from typing import Any

from m3index.search.result import Explanation
from m3index.types import Hit


def hit_json(
    hit: Hit, *, query_id: str | None = None, explanation: Explanation | None = None, text: bool = True
) -> dict[str, Any]:
    """A hit as a mapping for one line of JSON. Missing values are left out, never null.

    text: include title, text, metadata and the place in the document.
    """
    line: dict[str, Any] = {"type": "hit"}
    if query_id is not None:
        line["query_id"] = query_id
    line |= {
        "rank": hit.rank,
        "doc_id": hit.doc_id,
        "passage_id": hit.passage_id,
        "ordinal": hit.ordinal,
        "source": hit.source,
        "score": hit.score,
    }
    if hit.rerank_score is not None:
        line["rerank_score"] = hit.rerank_score
    if hit.boosted_score is not None:
        line["boosted_score"] = hit.boosted_score
    if hit.rerank_score is not None or hit.fused_rank != hit.rank:
        line["fused_rank"] = hit.fused_rank
    if hit.group is not None:
        line["group"] = hit.group
    if text:
        line["title"] = hit.title
        if hit.breadcrumb:
            line["breadcrumb"] = hit.breadcrumb
        if hit.anchor:
            line["anchor"] = hit.anchor
        line |= {"text": hit.text, "metadata": dict(hit.metadata)}
    line["legs"] = {
        name: {"rank": leg.rank, "score": leg.score, "contribution": leg.contribution}
        | ({} if leg.by_chance is None else {"by_chance": leg.by_chance})
        for name, leg in hit.legs.items()
    }
    if explanation is not None:
        line["explanation"] = explanation_json(explanation)
    return line


def explanation_json(explanation: Explanation) -> dict[str, Any]:
    line: dict[str, Any] = {
        "matches": [
            {"token": match.token}
            if match.score is None
            else {
                "token": match.token,
                "query_weight": match.query_weight,
                "passage_weight": match.passage_weight,
                "score": match.score,
            }
            for match in explanation.matches
        ]
    }
    if explanation.leg is not None:
        line |= {
            "leg": explanation.leg,
            "share": explanation.share,
            "crossings": [
                {"hit": c.other, "share": c.share, "overtakes": c.overtakes} for c in explanation.crossings
            ],
            "ranks": [{"from": r.start, "to": r.end, "rank": r.rank} for r in explanation.ranks],
        }
    if explanation.boosts:
        line["boosts"] = [{"boost": b.boost, "factor": b.factor} for b in explanation.boosts]
    return line
