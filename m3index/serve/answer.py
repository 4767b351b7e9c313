"""A search result as JSON: `schemas/answer.schema.json`."""

from __future__ import annotations

from typing import Any

from m3index import schema
from m3index.api import Index
from m3index.search.fusion import Ranking
from m3index.search.hits import hit_json
from m3index.search.searcher import SearchResult
from m3index.search.snippet import snippet
from m3index.serve.words import Words

_CARD = ("doc_id", "ordinal", "source", "title", "text", "metadata")


def answer_schema() -> Any:
    """The contract with the hit's own put in its place, as OpenAPI wants it."""
    answer = {k: v for k, v in schema.load("answer.schema.json").items() if not k.startswith("$")}
    hits = {**answer["properties"]["hits"], "items": schema.load("hit.schema.json")}
    return {**answer, "properties": {**answer["properties"], "hits": hits}}


def answer_json(index: Index, words: Words, result: SearchResult) -> dict[str, Any]:
    explanations = result.explanations or (None,) * len(result.hits)
    query = result.query.text
    answer: dict[str, Any] = {
        "query": query,
        "k": words.k,
        "fusion": words.fusion,
        "rrf_k": words.rrf_k,
        "weights": dict(result.weights),
        "hits": [
            hit_json(hit, explanation=explanation, text=words.texts)
            for hit, explanation in zip(result.hits, explanations, strict=True)
        ],
        "timings": dict(result.timings),
        "notes": list(result.notes),
    }
    if words.legs:
        answer["legs"] = {name: _ranking(ranking) for name, ranking in result.legs.items()}
    if words.snippets:
        answer["snippets"] = [snippet_json(hit.text, query) for hit in result.hits]
    if words.pool:
        answer["pool"] = _pool(index, result, words.pool)
    return answer


def snippet_json(text: str, query: str) -> list[dict[str, Any]]:
    """The snippet as parts in order. Offsets are left out on purpose: every language counts
    characters in its own way."""
    found = snippet(text, query)
    parts: list[dict[str, Any]] = []
    end = 0
    for start, stop in found.spans:
        if start > end:
            parts.append({"text": found.text[end:start], "match": False})
        parts.append({"text": found.text[start:stop], "match": True})
        end = stop
    if end < len(found.text):
        parts.append({"text": found.text[end:], "match": False})
    return parts


def _ranking(ranking: Ranking) -> dict[str, Any]:
    return {
        "ids": list(ranking.ids),
        "scores": [float(score) for score in ranking.scores],
        "passages": list(ranking.passages),
        "metric": ranking.metric,
    }


def _pool(index: Index, result: SearchResult, depth: int) -> dict[str, Any]:
    """By passage id what a person sees of it, for the first `depth` of each leg."""
    keys = dict.fromkeys(key for ranking in result.legs.values() for key in ranking.passages[:depth])
    rows = index.store.get(index.target().name, list(keys), _CARD)
    return {
        key: {
            "doc_id": row["doc_id"],
            "ordinal": row["ordinal"],
            "source": row["source"],
            "title": row["title"],
            "metadata": dict(row["metadata"]),
            "snippet": snippet_json(row["text"], result.query.text),
        }
        for key, row in rows.items()
    }
