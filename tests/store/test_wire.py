"""What is asked of a Milvus server that Milvus Lite has not: half-precision vectors, indexes by size class.

A stand-in passes for Milvus 2.6: it takes halves off the wire and keeps them in Lite's engine as fp32.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from pymilvus.grpc_gen import common_pb2, schema_pb2
from store.faulty import Failure, Faults, Servicer, faulty_server
from store.material import BM25, DIM, FIELDS, LEXICAL, TENANTS, keys, row, update, vector

from m3index.errors import LockedError, StoreError, UnreachableError, UsageError
from m3index.schema import CollectionSpec, IndexChoice
from m3index.store.filter import Compare
from m3index.store.half_precision import ROUNDOFF, pack, rounded, unpack
from m3index.store.milvus import MilvusStore
from m3index.types import Leg, Storage

FLOAT, HALVES = schema_pb2.FloatVector, {schema_pb2.Float16Vector: "fp16", schema_pb2.BFloat16Vector: "bf16"}


class HalvesServicer(Servicer):  # type: ignore[misc]
    """Milvus Lite behind the wire format of FLOAT16_VECTOR and BFLOAT16_VECTOR."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.kinds: dict[str, int] = {}

    def CreateCollection(self, request: Any, context: Any) -> Any:  # noqa: N802
        schema = schema_pb2.CollectionSchema.FromString(request.schema)
        for field in schema.fields:
            if field.data_type in HALVES:
                self.kinds[request.collection_name] = field.data_type
                field.data_type = FLOAT
        request.schema = schema.SerializeToString()
        return super().CreateCollection(request, context)

    def DescribeCollection(self, request: Any, context: Any) -> Any:  # noqa: N802
        answer = super().DescribeCollection(request, context)
        for field in answer.schema.fields:
            if field.data_type == FLOAT:
                field.data_type = self.kinds.get(request.collection_name, FLOAT)
        return answer

    def Upsert(self, request: Any, context: Any) -> Any:  # noqa: N802
        for field in request.fields_data:
            if field.type in HALVES:
                storage = HALVES[field.type]
                data = getattr(field.vectors, "float16_vector" if storage == "fp16" else "bfloat16_vector")
                assert len(data) == 2 * DIM * request.num_rows
                field.vectors.float_vector.data.extend(unpack(data, storage))  # type: ignore[arg-type]
                field.type = FLOAT
        return super().Upsert(request, context)

    def Query(self, request: Any, context: Any) -> Any:  # noqa: N802
        answer = super().Query(request, context)
        kind = self.kinds.get(request.collection_name)
        for field in answer.fields_data if kind else ():
            if field.type == FLOAT:
                data = pack(np.array(field.vectors.float_vector.data, np.float32), HALVES[kind])  # type: ignore[arg-type, index]
                name = "float16_vector" if HALVES[kind] == "fp16" else "bfloat16_vector"  # type: ignore[index]
                setattr(field.vectors, name, data)
                field.type = kind
        return answer

    def Search(self, request: Any, context: Any) -> Any:  # noqa: N802
        group = common_pb2.PlaceholderGroup.FromString(request.placeholder_group)
        [asked] = group.placeholders
        kind = self.kinds.get(request.collection_name, FLOAT)
        if asked.type in (FLOAT, *HALVES):
            assert asked.type == kind, "a query must be of the field's type"
        if asked.type in HALVES:
            values = [unpack(value, HALVES[asked.type]).tobytes() for value in asked.values]  # type: ignore[arg-type]
            asked.type = FLOAT
            asked.values[:] = values
        request.placeholder_group = group.SerializeToString()
        return super().Search(request, context)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[MilvusStore, Faults]]:
    with faulty_server(tmp_path / "data", version="v2.6.4", servicer=HalvesServicer) as (uri, faults):
        store = MilvusStore.open(uri, timeout=5)
        yield store, faults
        store.close()


# ------------------------------------------------------------------------------ halves


@pytest.mark.parametrize("storage", ["fp16", "bf16"])
def test_halves_over_the_wire(server: tuple[MilvusStore, Faults], storage: Storage) -> None:
    store, faults = server
    spec = replace(LEXICAL, storage=storage)
    store.create("x", spec, {})
    assert store.spec("x") == spec
    rows = [row(f"d{i}", spec=spec) for i in range(30)]
    store.upsert("x", rows)
    read = store.get("x", keys(rows), ["dense", "lexical", "text"])
    scanned = {s["passage_id"]: s["dense"] for s in store.scan("x", None, ["dense"])}
    for r in rows:
        np.testing.assert_array_equal(read[r.passage_id]["dense"], rounded(r.dense, storage))
        np.testing.assert_array_equal(scanned[r.passage_id], rounded(r.dense, storage))
    found = store.search("x", Leg.DENSE, [r.dense for r in rows[:3]], 5)
    assert [hits[0].passage_id for hits in found] == keys(rows[:3])
    assert found[0][0].score == pytest.approx(1.0, abs=2 * ROUNDOFF[storage])
    assert store.search("x", Leg.LEXICAL, [rows[0].sparse], 5)[0]
    [upsert] = faults.requests["Upsert"]
    dense = next(f for f in upsert.fields_data if f.field_name == "dense")
    assert dense.type == FLOAT, "the stand-in has decoded what came as halves"


@pytest.mark.parametrize("storage", ["fp32", "fp16", "bf16"])
def test_rounding(storage: Storage) -> None:
    import ml_dtypes

    for seed in range(50):
        whole = vector(str(seed), 1024)
        kept = rounded(whole, storage)
        dtype = {"fp32": np.float32, "fp16": np.float16, "bf16": ml_dtypes.bfloat16}[storage]
        np.testing.assert_array_equal(kept, whole.astype(dtype).astype(np.float32))
        np.testing.assert_array_equal(rounded(kept, storage), kept)
        assert abs(float(kept @ whole) - 1) <= ROUNDOFF[storage] + 1e-6
    np.testing.assert_array_equal(unpack([pack(kept, "fp16")], "fp16"), rounded(kept, "fp16"))


# ----------------------------------------------------------------------------- indexes


def asked_for(faults: Faults) -> dict[str, dict[str, str]]:
    """The parameters of each index, by field, as they went over the wire."""
    return {r.field_name: {p.key: p.value for p in r.extra_params} for r in faults.requests["CreateIndex"]}


def searched(faults: Faults) -> list[dict[str, Any]]:
    found = []
    for request in faults.requests["Search"]:
        params = {p.key: p.value for p in request.search_params}
        found.append({"metric_type": params["metric_type"], **json.loads(params["params"])})
    return found


CLASSES: Mapping[str, tuple[list[str], dict[str, str], dict[str, str], dict[str, Any]]] = {
    "small": (
        [],
        {"index_type": "HNSW", "M": "32", "efConstruction": "256"},
        {"index_type": "SPARSE_INVERTED_INDEX"},
        {"ef": 300},
    ),
    "large": (
        [],
        {"index_type": "IVF_RABITQ", "nlist": "1024", "refine": "True", "refine_type": "SQ8"},
        {"index_type": "SPARSE_INVERTED_INDEX"},
        {"nprobe": 64, "refine_k": 2},
    ),
    "huge": (
        [],
        {"index_type": "DISKANN"},
        {"index_type": "SPARSE_INVERTED_INDEX", "mmap.enabled": "True"},
        {"search_list": 300},
    ),
    "large, changed": (
        ["dense.type=HNSW_SQ", "dense.M=24", "dense.search.ef=512", "sparse.inverted_index_algo=SINDI"],
        {"index_type": "HNSW_SQ", "M": "24", "efConstruction": "256", "sq_type": "SQ8"},
        {"index_type": "SPARSE_INVERTED_INDEX", "inverted_index_algo": "SINDI"},
        {"ef": 512},
    ),
    "small, of a type that is not in the table": (
        ["dense.type=IVF_PQ", "dense.m=8", "dense.search.nprobe=9", "dense.mmap=true"],
        {"index_type": "IVF_PQ", "m": "8", "mmap.enabled": "True"},
        {"index_type": "SPARSE_INVERTED_INDEX"},
        {"nprobe": 9},
    ),
}


@pytest.mark.parametrize("name", CLASSES)
def test_the_indexes_of_a_class(server: tuple[MilvusStore, Faults], name: str) -> None:
    store, faults = server
    changes, dense, sparse, search = CLASSES[name]
    spec = replace(LEXICAL, index=IndexChoice.parse(name.partition(",")[0], changes))
    store.create("x", spec, {"uuid": "1"})
    asked = asked_for(faults)
    assert asked["dense"] == {"metric_type": "IP", **dense}
    assert asked["lexical"] == {"metric_type": "IP", **sparse}
    assert store.spec("x") == spec, "the collection remembers"
    [made] = faults.requests["CreateCollection"]
    properties = {p.key: p.value for p in made.properties}
    assert properties.get("mmap.enabled") == (None if name.startswith("small") else "True")
    store.search("x", Leg.DENSE, [vector("q")], 300)
    assert searched(faults) == [{"metric_type": "IP", **search}]


def test_bm25_keeps_its_parameters_in_every_class(server: tuple[MilvusStore, Faults]) -> None:
    store, faults = server
    spec = replace(BM25, analyzer="stems", index=IndexChoice.parse("huge", ["sparse.mmap=false"]))
    store.create("x", spec, {})
    assert asked_for(faults)["bm25"] == {
        "index_type": "SPARSE_INVERTED_INDEX", "metric_type": "BM25", "bm25_k1": "1.2", "bm25_b": "0.75",
    }  # fmt: skip


def test_an_index_that_the_server_has_not(server: tuple[MilvusStore, Faults]) -> None:
    store, faults = server
    reason = "invalid parameter[expected=valid index][actual=invalid index type: IVF_RABITQ]"
    faults.times("CreateIndex", Failure(1100, reason), 1)
    with pytest.raises(StoreError) as refusal:
        store.create("x", replace(LEXICAL, index=IndexChoice.parse("large")), {})
    for words in ("invalid index type", "--index-class large", "v2.6.4", "--index dense.type="):
        assert words in str(refusal.value)
    assert store.collections() == [], "nothing half made is left behind"


# ----------------------------------------------------------------------------- tenants


def test_the_tenant_field_is_the_partition_key(server: tuple[MilvusStore, Faults]) -> None:
    store, faults = server
    store.create("x", TENANTS, {})
    [made] = faults.requests["CreateCollection"]
    fields = {f.name: f for f in schema_pb2.CollectionSchema.FromString(made.schema).fields}
    assert [name for name, field in fields.items() if field.is_partition_key] == ["org"]
    assert not fields["org"].nullable, "Milvus has no partition key that may be null"
    assert fields["lang"].nullable
    store.search("x", Leg.DENSE, [vector("q")], 3, Compare("org", "==", "acme"))
    assert [request.dsl for request in faults.requests["Search"]] == ['org == "acme"']


@pytest.mark.parametrize("version", ["v2.3.5", "2.3.12-dev", "v2.2.9"])
def test_servers_that_lose_tenants_rows_are_refused(tmp_path: Path, version: str) -> None:
    with faulty_server(tmp_path / "data", version=version) as (uri, faults):
        store = MilvusStore.open(uri, timeout=5)
        with pytest.raises(UsageError, match=f"Milvus {version} .*needs Milvus 2.4"):
            store.create("x", TENANTS, {})
        assert not faults.requests["CreateCollection"]
        store.close()


# ----------------------------------------------------------------------------- updates


def sent(faults: Faults) -> list[tuple[bool, set[str], int]]:
    """Each upsert: whether it is partial, its fields, the number of its rows."""
    return [
        (request.partial_update, {field.field_name for field in request.fields_data}, request.num_rows)
        for request in faults.requests["Upsert"]
    ]


PARTIAL = {"passage_id", "doc_hash", "passages", "metadata"}


@pytest.mark.parametrize(
    ("version", "partial"),
    [
        ("v2.6.2", True), ("2.6.15-dev", True), ("v2.10.0", True), ("v3.0.2", True),
        ("v2.5.27", False), ("2.6.1", False), ("v2.6", False), ("2.6-20260512-5849977c", False),
        ("v2.3.5", False), ("Zilliz Cloud", False), ("", False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("spec", [LEXICAL, replace(BM25, analyzer="stems")], ids=["lexical", "bm25"])
def test_part_of_a_row_is_sent_where_the_server_merges_it(
    tmp_path: Path, spec: CollectionSpec, version: str, partial: bool
) -> None:
    with faulty_server(tmp_path / "data", version=version) as (uri, faults):
        store = MilvusStore.open(uri, timeout=5)
        store.create("x", spec, {})
        rows = [row(f"d{i}", spec=spec, title="title", fields={"year": i}) for i in range(3)]
        store.upsert("x", rows)
        [(is_partial, whole, _)] = sent(faults)
        assert not is_partial
        faults.requests.clear()
        store.update("x", [update(r, doc_hash="new.m", fields={"lang": "de"}) for r in rows])
        assert sent(faults) == [(partial, PARTIAL | set(FIELDS) if partial else whole, 3)]
        assert [{*request.output_fields} > {"text"} for request in faults.requests["Query"]] == [True] * (
            not partial
        ), "texts and vectors are read back only for a whole row"
        stored = store.get("x", keys(rows), ["title", "text", "dense", "doc_hash", "lang", "year"])
        for r in rows:
            found = stored[r.passage_id]
            assert (found["title"], found["text"], found["doc_hash"]) == (r.title, r.text, "new.m")
            assert (found["lang"], found["year"]) == ("de", None)
            np.testing.assert_array_equal(found["dense"], r.dense)
        store.close()


@pytest.mark.parametrize("storage", ["fp16", "bf16"])
def test_halves_are_written_back_as_they_are(tmp_path: Path, storage: Storage) -> None:
    with faulty_server(tmp_path / "data", version="v2.5.27", servicer=HalvesServicer) as (uri, _):
        store = MilvusStore.open(uri, timeout=5)
        spec = replace(LEXICAL, storage=storage)
        store.create("x", spec, {})
        written = row("d", spec=spec)
        store.upsert("x", [written])
        store.update("x", [update(written, metadata={"new": 1})])
        found = store.get("x", keys([written]), ["dense", "metadata"])[written.passage_id]
        np.testing.assert_array_equal(found["dense"], rounded(written.dense, storage))
        assert found["metadata"] == {"new": 1}
        store.close()


def test_only_rows_that_change_hands_are_sent_whole(server: tuple[MilvusStore, Faults]) -> None:
    store, faults = server
    store.create("x", TENANTS, {})
    rows = [row(f"d{i}", spec=TENANTS, fields={"org": "acme"}) for i in range(5)]
    store.upsert("x", rows)
    faults.requests.clear()
    store.update("x", [update(r, fields={"org": "acme" if i else "globex"}) for i, r in enumerate(rows)])
    (first, fields, changed), (second, whole, moved) = sent(faults)
    assert (first, changed, second, moved) == (True, 4, False, 1)
    assert fields == PARTIAL | set(TENANTS.fields)
    assert whole > fields | {"text", "dense", "lexical"}
    assert store.count("x", Compare("org", "==", "globex")) == 1
    assert store.count("x") == 5


@pytest.mark.parametrize("version", ["v2.6.4", "v2.5.27"])
def test_lost_answers_and_repeated_updates_are_harmless(tmp_path: Path, version: str) -> None:
    with faulty_server(tmp_path / "data", version=version) as (uri, faults):
        store = MilvusStore.open(uri, timeout=5)
        store.create("x", LEXICAL, {})
        rows = [row(f"d{i}", spec=LEXICAL) for i in range(3)]
        store.upsert("x", rows)
        faults.requests.clear()
        faults.lose_answers("Upsert", Failure(grpc.StatusCode.UNAVAILABLE), 2)
        store.update("x", [update(r, metadata={"new": 1}) for r in rows])
        assert len(faults.requests["Upsert"]) == 3
        stored = store.get("x", keys(rows), ["text", "dense", "metadata"])
        for r in rows:
            assert stored[r.passage_id]["metadata"] == {"new": 1}
            assert stored[r.passage_id]["text"] == r.text
            np.testing.assert_array_equal(stored[r.passage_id]["dense"], r.dense)
        assert store.count("x") == 3
        faults.times("Upsert", Failure(8, "rate limit exceeded"), 10_000)
        with store.limit(1.0), pytest.raises(UnreachableError, match="rate limit exceeded"):
            store.update("x", [update(rows[0], metadata={"new": 2})])
        faults.plans.clear()

        def lost() -> None:
            raise LockedError("the lease is lost")

        faults.requests.clear()
        store.point("docs", "x")
        store.fence("x", lost)
        with pytest.raises(LockedError):
            store.update("x", [update(rows[0], metadata={"new": 2})])
        assert not faults.requests["Upsert"]
        store.close()


def test_a_large_call_of_updates_is_halved(tmp_path: Path) -> None:
    with faulty_server(tmp_path / "data", version="v2.6.4", max_message=100_000) as (uri, faults):
        store = MilvusStore.open(uri, timeout=5)
        store.create("x", LEXICAL, {})
        rows = [row(f"d{i}", spec=LEXICAL) for i in range(8)]
        store.upsert("x", rows)
        store.update("x", [update(r, metadata={"much": "x" * 30_000}) for r in rows])
        assert {is_partial for is_partial, *_ in sent(faults)[1:]} == {True}
        stored = store.get("x", keys(rows), ["metadata"])
        assert {len(found["metadata"]["much"]) for found in stored.values()} == {30_000}
        store.close()


def test_old_collections_have_none_of_this(server: tuple[MilvusStore, Faults]) -> None:
    store, _ = server
    spec = CollectionSpec(DIM, "none")
    store.create("x", spec, {"uuid": "1"})
    assert store.properties("x") == {"uuid": "1"}
    assert store.spec("x") == spec
