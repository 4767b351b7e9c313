from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator, ValidationError
from search.corpus import TIDES, Doc, collection

from m3index import schema
from m3index.search.hits import hit_json
from m3index.search.options import SearchOptions
from m3index.search.result import SearchResult
from m3index.search.searcher import Searcher

VALIDATOR = Draft202012Validator(schema.load("hit.schema.json"))


def lines(result: SearchResult, **more: Any) -> list[dict[str, Any]]:
    explanations: Sequence[Any] = result.explanations or [None] * len(result.hits)
    found = [hit_json(h, explanation=e, **more) for h, e in zip(result.hits, explanations, strict=True)]
    for line in found:
        VALIDATOR.validate(line)
        assert json.loads(json.dumps(line)) == line
    return found


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(schema.load("hit.schema.json"))
    with pytest.raises(ValidationError):
        VALIDATOR.validate({"type": "hit", "rank": 0})


@pytest.mark.parametrize("sparse", ["lexical", "bm25", "none"])
@pytest.mark.parametrize("explain", [False, True])
def test_every_line_is_valid(sparse: Any, explain: bool) -> None:
    found = lines(Searcher(collection(TIDES, sparse)).search("salt sea", SearchOptions(explain=explain)))
    assert len(found) == len(TIDES)
    assert ("explanation" in found[0]) == explain
    assert found[0]["legs"].keys() <= {"dense", "sparse"}
    assert "query_id" not in found[0]


def test_a_line_of_a_run() -> None:
    result = Searcher(collection(TIDES)).search("yeast", SearchOptions(k=1))
    [line] = lines(result, query_id="q7", text=False)
    assert line["query_id"] == "q7"
    assert "text" not in line
    [line] = lines(result)
    assert (line["doc_id"], line["text"], line["metadata"]) == (
        "bread",
        "flour water salt yeast",
        {"kind": "recipe"},
    )


@pytest.mark.parametrize(
    ("kind", "value"), [("str", "de"), ("int", 3), ("bool", True), ("str[]", ["a", "b"])]
)
def test_groups(kind: Any, value: Any) -> None:
    docs = [Doc("a", ["red"], fields={"f": value}), Doc("b", ["blue"])]
    searcher = Searcher(collection(docs, fields={"f": kind}))
    first, second = lines(searcher.search("red", SearchOptions(group_by="f")))
    assert first["group"] == value
    assert "group" not in second


def test_a_reranked_line_has_both_ranks() -> None:
    class Reverse:
        name = "reverse"

        def score(self, query: str, texts: Sequence[str]) -> Any:
            return np.arange(len(texts), dtype=np.float32)

    [line, *_] = lines(Searcher(collection(TIDES)).search("salt", SearchOptions(rerank=Reverse())))
    assert (line["rank"], line["fused_rank"], line["rerank_score"]) == (1, 5, 4.0)
