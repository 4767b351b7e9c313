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


def test_a_boosted_line_has_both_scores_and_the_factors() -> None:
    docs = [Doc("a", ["red apple"], fields={"lang": "en"}), Doc("b", ["red"], fields={"lang": "de"})]
    options = SearchOptions(boost=["lang=en: 100", "lang=de: 0.5"], explain=True, fusion="rrf")
    first, second = lines(Searcher(collection(docs, fields={"lang": "str"})).search("red", options))
    assert (first["doc_id"], first["rank"], first["fused_rank"]) == ("a", 1, 2)
    assert first["boosted_score"] == 100 * first["score"]
    assert [b["factor"] for b in first["explanation"]["boosts"]] == [100, 1]
    assert [b["boost"] for b in second["explanation"]["boosts"]] == ["lang=en: 100", "lang=de: 0.5"]
    plain = lines(Searcher(collection(TIDES)).search("sea", SearchOptions(explain=True)))
    assert all("boosts" not in line["explanation"] and "boosted_score" not in line for line in plain)
    assert all("fused_rank" not in line for line in plain)


def test_a_sorted_line_has_the_rank_of_the_fusion() -> None:
    docs = [Doc("a", ["red apple"], fields={"n": 2}), Doc("b", ["red"], fields={"n": 1})]
    target = collection(docs, fields={"n": "int"})
    first, second = lines(Searcher(target).search("red apple", SearchOptions(sort="n")))
    assert [(line["doc_id"], line["fused_rank"]) for line in (first, second)] == [("b", 2), ("a", 1)]


def test_a_reranked_line_has_both_ranks() -> None:
    class Reverse:
        name = "reverse"

        def score(self, query: str, texts: Sequence[str]) -> Any:
            return np.arange(len(texts), dtype=np.float32)

    [line, *_] = lines(Searcher(collection(TIDES)).search("salt", SearchOptions(rerank=Reverse())))
    assert (line["rank"], line["fused_rank"], line["rerank_score"]) == (1, 5, 4.0)
