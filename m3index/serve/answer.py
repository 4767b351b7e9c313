"""A search result as JSON: `schemas/answer.schema.json`."""

from __future__ import annotations

from typing import Any

from m3index import schema
from m3index.search.fusion import Ranking
from m3index.search.hits import facets_json, hit_json
from m3index.search.result import SearchResult
from m3index.search.snippet import snippet
from m3index.serve.request import AnswerRequest
from m3index.service import IndexService
from m3index.types import Leg, StoredDocument

_POOL_FIELDS = ("doc_id", "ordinal", "source", "title", "breadcrumb", "anchor", "text", "metadata")


def answer_schema() -> Any:
    """The schema of an answer with the schema of hits inlined, as OpenAPI requires."""
    answer = {k: v for k, v in schema.load("answer.schema.json").items() if not k.startswith("$")}
    hits = {**answer["properties"]["hits"], "items": schema.load("hit.schema.json")}
    return {**answer, "properties": {**answer["properties"], "hits": hits}}


def why_schema() -> Any:
    """The schema of the answer of `POST /why`, as OpenAPI requires."""
    return {k: v for k, v in schema.load("why.schema.json").items() if not k.startswith("$")}


def answer_json(index: IndexService, request: AnswerRequest, result: SearchResult) -> dict[str, Any]:
    explanations = result.explanations or (None,) * len(result.hits)
    answer: dict[str, Any] = {
        "query": result.query.text,
        "searched": result.searched,
        "k": request.k,
        "fusion": request.fusion or request.method,
        "rrf_k": request.rank_constant,
        "weights": dict(result.weights),
        "hits": [
            hit_json(hit, explanation=explanation, text=request.texts)
            for hit, explanation in zip(result.hits, explanations, strict=True)
        ],
        "timings": dict(result.timings),
        "notes": list(result.notes),
    }
    if result.facets:
        answer["facets"] = facets_json(result.facets)
    if request.legs:
        answer["legs"] = {name: _ranking(ranking) for name, ranking in result.legs.items()}
    if request.snippets:
        answer["snippets"] = [snippet_json(hit.text, result.searched) for hit in result.hits]
    if request.pool:
        answer["pool"] = _pool(index, result, request.pool)
    return answer


def snippet_json(text: str, query: str) -> list[dict[str, Any]]:
    """The snippet as a list of parts. It has no offsets, because programming languages count characters
    differently."""
    excerpt = snippet(text, query)
    parts: list[dict[str, Any]] = []
    end = 0
    for start, stop in excerpt.spans:
        if start > end:
            parts.append({"text": excerpt.text[end:start], "match": False})
        parts.append({"text": excerpt.text[start:stop], "match": True})
        end = stop
    if end < len(excerpt.text):
        parts.append({"text": excerpt.text[end:], "match": False})
    return parts


def _ranking(ranking: Ranking) -> dict[str, Any]:
    line: dict[str, Any] = {
        "ids": list(ranking.ids),
        "scores": [float(score) for score in ranking.scores],
        "passages": list(ranking.passages),
        "leg": str(ranking.leg),
        "depth": ranking.depth,
        "trust": ranking.trust,
    }
    if ranking.leg is Leg.DENSE:
        line["unseen"] = ranking.unseen
    if (chance := ranking.chance) is not None:
        line["by_chance"] = [chance.expected(score) for score in ranking.scores]
        line["votes"] = [ranking.trust * chance.vote(score) for score in ranking.scores]
    return line


def _pool(index: IndexService, result: SearchResult, depth: int) -> dict[str, Any]:
    """What a client shows of a passage, by passage id, for the first `depth` passages of each leg."""
    keys = dict.fromkeys(key for ranking in result.legs.values() for key in ranking.passages[:depth])
    rows = index.store.get(index.current().name, list(keys), _POOL_FIELDS)
    return {
        key: {
            "doc_id": row["doc_id"],
            "ordinal": row["ordinal"],
            "source": row["source"],
            "title": row["title"],
            "breadcrumb": row["breadcrumb"],
            "anchor": row["anchor"],
            "metadata": dict(row["metadata"]),
            "snippet": snippet_json(row["text"], result.searched),
        }
        for key, row in rows.items()
    }


def document_json(document: StoredDocument) -> dict[str, Any]:
    """A document as returned by `GET /document` and the tool `get_document`."""
    return {
        "doc_id": document.doc_id,
        "source": document.source,
        "title": document.title,
        "metadata": dict(document.metadata),
        "passages": document.passage_count,
        "texts": [
            {"ordinal": passage.ordinal, "passage_id": passage.passage_id, "text": passage.text}
            for passage in document.passages
        ],
    }
