"""Milvus Lite 2.5.1, Milvus's own core in C++, as a second opinion on what a search means."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engines.servers import LITE_2_5, lite_2_5
from fakes import FakeEncoder
from integration.corpora import LANGUAGES
from integration.proxy import Proxy, proxied
from pymilvus import AnnSearchRequest, MilvusClient, RRFRanker
from pymilvus.grpc_gen import common_pb2, milvus_pb2
from store.material import BM25, DENSE, LEXICAL, keys, row, sparse, vector

from m3index import schema
from m3index.evaluate.options import RecallOptions
from m3index.evaluate.recall import measure
from m3index.schema import CollectionSpec, IndexChoice
from m3index.search.plan import SearchTarget
from m3index.store.filter import All, Compare, Filter, In
from m3index.store.memory import MemoryStore
from m3index.store.milvus import MilvusStore
from m3index.types import Candidate, Leg, Row, Storage

pytestmark = [
    pytest.mark.engines,
    pytest.mark.skipif(not LITE_2_5.exists(), reason="milvus-lite 2.5.1 is installed by `make engines`"),
]


class Named(Proxy):
    """Answers for the engine, which has no call for its version."""

    version = "milvus_lite-2.5.1"

    def _answer(self, path: str, request: bytes, context: Any) -> bytes:
        if path.endswith("/GetVersion"):
            answer = milvus_pb2.GetVersionResponse(status=common_pb2.Status(), version=self.version)
            return bytes(answer.SerializeToString())
        return super()._answer(path, request, context)


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusStore]:
    with pytest.MonkeyPatch.context() as patch:
        # The limit of a server, which this engine holds to; Milvus Lite 3 has none.
        patch.setitem(schema.collection()["sparse"]["bm25"]["input"], "lite_max_length", 65_535)
        yield from _core(tmp_path_factory)


def _core(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusStore]:
    with lite_2_5(tmp_path_factory.mktemp("core")) as uri, proxied(uri, kind=Named) as way:
        store = MilvusStore.open(way.uri, timeout=20)
        yield store
        store.close()


def material(spec: CollectionSpec, number: int = 60) -> list[Row]:
    """Rows whose weights and texts overlap; every fifth has the same vectors as its neighbour: ties."""
    chance = np.random.default_rng(7)
    words = " ".join(LANGUAGES.values()).split()
    made = []
    for i in range(number):
        twin = i - 1 if i % 5 == 1 else i
        text = " ".join(np.random.default_rng(twin).choice(words, 6))
        weights = {int(t): 0.25 + (twin * t) % 8 / 8 for t in np.random.default_rng(twin).choice(40, 6)}
        more: dict[str, Any] = {"sparse": sparse(weights)} if spec.sparse == "lexical" else {}
        made.append(replace(row(f"d{i}", spec=spec, text=text, dense=vector(f"v{twin}"), **more), fields={}))
    chance.shuffle(made)  # type: ignore[arg-type]  # a list is a sequence
    return made


@pytest.fixture(scope="module", params=[LEXICAL, DENSE, BM25], ids=lambda spec: spec.sparse)
def both(request: pytest.FixtureRequest, core: MilvusStore) -> tuple[MilvusStore, MemoryStore, str]:
    # the engine has no nullable fields
    spec, memory = replace(request.param, fields={}), MemoryStore()
    name = f"core_{spec.sparse}"
    for store in (core, memory):
        store.create(name, spec, {"uuid": name})
        store.upsert(name, material(spec))
        store.upsert(name, material(spec)[:10])
        store.delete(name, keys(material(spec)[40:45]))
        store.flush(name)
    return core, memory, name


Both = tuple[MilvusStore, MemoryStore, str]


def test_upserts_replace_and_deletes_remove(both: Both) -> None:
    core, memory, name = both
    assert core.count(name) == memory.count(name) == 55
    asked = keys(material(core.spec(name)))
    assert set(core.get(name, asked, [])) == set(memory.get(name, asked, []))


def test_the_recall_of_its_indexes_is_whole(both: Both) -> None:
    core, _, name = both
    report = measure(SearchTarget(core, name, core.spec(name), FakeEncoder), 55, RecallOptions())
    legs = {"dense"} if core.spec(name).sparse == "none" else {"dense", "sparse", "fused"}
    assert {row.leg for row in report} == legs
    assert [row for row in report if row.mean < 1] == []


@pytest.mark.parametrize(
    "where",
    [None, Compare("source", "==", "default"), Compare("ordinal", ">", 0), In("doc_id", ("d3", "d4")),
     All((Compare("doc_id", "!=", "d3"), Compare("ordinal", "==", 0))),
     Compare("doc_id", "==", "\" or \"\" == \"")],
    ids=str,
)  # fmt: skip
def test_dense_scores_order_and_filters_are_those_of_the_exact_store(
    both: Both, where: Filter | None
) -> None:
    core, memory, name = both
    queries = [vector(f"q{i}") for i in range(5)]
    _same(core, memory, name, Leg.DENSE, queries, where)


def test_sparse_scores_and_order_are_those_of_the_exact_store(both: Both) -> None:
    core, memory, name = both
    if core.spec(name).sparse == "lexical":
        queries: list[Any] = [sparse({1: 1.0, 7: 0.5, 20: 2.0}), sparse({39: 0.125}), sparse({3_999: 1.0})]
        _same(core, memory, name, Leg.LEXICAL, queries, None)
    elif core.spec(name).sparse == "bm25":
        _same(core, memory, name, Leg.BM25, ["the moon", "sea sea", "луны", "潮汐", "qqq"], None)


def _same(
    core: MilvusStore, memory: MemoryStore, name: str, leg: Leg, queries: list[Any], where: Filter | None
) -> None:
    """All scores equal, and the order with ties by key: every row is asked for, so no tie is cut."""
    for found, meant in zip(
        core.search(name, leg, queries, 100, where),
        memory.search(name, leg, queries, 100, where),
        strict=True,
    ):
        scores = {c.passage_id: c.score for c in meant}
        assert {c.passage_id: c.score for c in found} == pytest.approx(scores, rel=1e-4, abs=1e-6)
        rounded = sorted(found, key=lambda c: (-round(c.score, 4), c.passage_id))
        assert [c.passage_id for c in rounded] == [
            c.passage_id for c in sorted(meant, key=lambda c: (-round(c.score, 4), c.passage_id))
        ]


def test_fusion_in_the_core_is_reciprocal_rank_without_weights(both: Both) -> None:
    """Its ranks start at 1, and it is asked by RRFRanker: the newer way of asking it does not know."""
    core, _, name = both
    if core.spec(name).sparse != "lexical":
        pytest.skip("one case of hybrid search is enough")
    assert not core.weighs_legs(name)
    queries: dict[Leg, Any] = {Leg.DENSE: [vector("q0")], Leg.LEXICAL: [sparse({1: 1.0, 7: 0.5})]}
    requests = [
        AnnSearchRequest(
            asked if leg is Leg.DENSE else [asked[0].to_dict()], leg.value, {"metric_type": "IP"}, 100
        )
        for leg, asked in queries.items()
    ]
    client = MilvusClient(core.uri, dedicated=True)
    try:
        [hits] = client.hybrid_search(
            name, requests, RRFRanker(60), limit=100, output_fields=["passage_id"], timeout=20
        )
    finally:
        client.close()
    found = [Candidate(str(hit["passage_id"]), float(hit["distance"])) for hit in hits]
    legs = [core.search(name, leg, asked, 100)[0] for leg, asked in queries.items()]
    low, high = ({} for _ in range(2))  # ties may be ranked either way by the core
    for leg in legs:
        for candidate in leg:
            above = sum(c.score > candidate.score + 1e-6 for c in leg)
            upto = sum(c.score > candidate.score - 1e-6 for c in leg)
            high[candidate.passage_id] = high.get(candidate.passage_id, 0.0) + 1 / (60 + above + 1)
            low[candidate.passage_id] = low.get(candidate.passage_id, 0.0) + 1 / (60 + upto)
    assert {c.passage_id for c in found} == set(low)
    for candidate in found:
        key = candidate.passage_id
        assert low[key] - 1e-6 <= candidate.score <= high[key] + 1e-6


def test_a_fake_space_is_searched_as_in_memory(both: Both) -> None:
    """Vectors as an encoder makes them, unit norm, as queries of many at once."""
    core, memory, name = both
    dim = core.spec(name).dim
    encoded = FakeEncoder(dim).encode_queries(list(LANGUAGES.values()), lexical=False)
    _same(core, memory, name, Leg.DENSE, list(encoded.dense), None)


# ------------------------------------------------------------------------------ halves


class Server(Named):
    """The engine as a server, which may keep halves."""

    version = "v2.5.1"


@pytest.mark.parametrize("storage", ["fp16", "bf16"])
def test_halves_are_kept_and_searched(storage: Storage, tmp_path: Path) -> None:
    """FLOAT16_VECTOR and BFLOAT16_VECTOR in Milvus's own core; it has no HNSW."""
    spec = replace(DENSE, storage=storage, index=IndexChoice.parse("small", ["dense.type=FLAT"]))
    rows, memory = material(spec), MemoryStore()
    with lite_2_5(tmp_path) as uri, proxied(uri, kind=Server) as way:
        store = MilvusStore.open(way.uri, timeout=20)
        for one in (store, memory):
            one.create("halves", spec, {"uuid": "halves"})
            one.upsert("halves", rows)
        assert store.spec("halves").storage == storage
        read, kept = (one.get("halves", keys(rows), ["dense"]) for one in (store, memory))
        for key, stored in kept.items():
            np.testing.assert_array_equal(read[key]["dense"], stored["dense"])
        _same(store, memory, "halves", Leg.DENSE, [vector(f"q{i}") for i in range(5)], None)
        store.close()
