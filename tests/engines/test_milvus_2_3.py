"""A real Milvus, 2.3.5: what its proxy refuses, and what is left when it is killed during an ingest.

Its collections are dense only. The integration suite runs against it too: `make engines`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from engines.servers import MILVUS_2_3, ROOT_TOKEN, Milvus23, milvus_2_3
from index.support import FastEncoder, check_invariant
from integration.corpora import OpenIndex, documents, held, in_memory, layout
from integration.engines import Engine
from integration.test_restart import Eager
from pymilvus import MilvusClient
from pymilvus.exceptions import MilvusException
from search.corpus import Doc, rows_of
from store.material import DENSE, NUMBERED, row

from m3index.errors import Exit, StoreError, UnreachableError, UsageError
from m3index.evaluate.exact import Ask, scan
from m3index.evaluate.options import RecallOptions
from m3index.evaluate.recall import measure
from m3index.index import lock
from m3index.schema import CollectionSpec, IndexChoice
from m3index.search.options import Sought
from m3index.search.plan import SearchTarget
from m3index.search.stages import Stage
from m3index.search.why import why
from m3index.store.definition import index_params, indexes, to_milvus
from m3index.store.filter import Compare
from m3index.store.milvus import MilvusStore
from m3index.types import Leg

WORDS = [f"w{i}" for i in range(400)]

pytestmark = [
    pytest.mark.engines,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not MILVUS_2_3.exists(), reason="Milvus 2.3.5 is installed by `make engines`"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Milvus23]:
    with milvus_2_3(tmp_path_factory.mktemp("milvus") / "data") as server:
        yield server


def test_an_ingest_whose_server_is_killed_ends_equal_to_a_rebuild(
    server: Milvus23, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "SETTLE_SECONDS", 0.05)
    how = layout(Engine(server.uri, ROOT_TOKEN, "server 2.3", given=False))
    items = documents(700)
    eager = Eager(1_000, server.kill)
    with OpenIndex("killed", uri=server.uri, token=ROOT_TOKEN, timeout=5, encoder=eager) as index:
        with pytest.raises(UnreachableError) as error:
            index.ingest(items, **how)
        assert error.value.summary is not None
        written = error.value.summary["passages"]
    server.start()
    encoder = FastEncoder()
    with OpenIndex("killed", uri=server.uri, token=ROOT_TOKEN, timeout=120, encoder=encoder) as index:
        summary = index.ingest(items, **how)
        found = held(index)
    check_invariant(found)
    assert (summary.exit, summary.count_ok) == (0, True)
    assert found == held(in_memory(items, how, FastEncoder()))
    assert encoder.encoded <= summary.passages <= len(found) - written


def test_what_the_proxy_refuses_is_what_m3index_checks_first(server: Milvus23) -> None:
    """Bytes of UTF-8, not characters; finite vectors. Of equal keys in one upsert the first wins."""
    client = MilvusClient(server.uri, token=ROOT_TOKEN, dedicated=True)
    client.create_collection("raw", schema=to_milvus(DENSE, lite=False), consistency_level="Strong")
    client.create_index("raw", index_params(indexes(DENSE, lite=False)[Leg.DENSE], lite=False))
    client.load_collection("raw")
    good = row("a", spec=DENSE)
    entity = {
        **{name: getattr(good, name) for name in ("passage_id", "doc_id", "ordinal", "source", "doc_hash")},
        "passages": 1,
        "title": "",
        "text": "first",
        "metadata": {},
        "dense": good.dense,
    }
    for wrong in ({"text": "ü" * 40_000}, {"dense": np.full(DENSE.dim, np.nan, np.float32)}):
        with pytest.raises(MilvusException):
            client.upsert("raw", [{**entity, **wrong}])
    client.upsert("raw", [entity, {**entity, "text": "second"}])
    [kept] = client.query(
        "raw", filter=f'passage_id == "{good.passage_id}"', output_fields=["text"], consistency_level="Strong"
    )
    assert kept["text"] == "first"
    client.close()


@pytest.fixture
def store(server: Milvus23) -> Iterator[MilvusStore]:
    opened = MilvusStore.open(server.uri, ROOT_TOKEN, timeout=120)
    yield opened
    for name in opened.collections():
        if name.startswith("layout_"):
            opened.drop(name)
    opened.close()


def test_tenants_are_refused_for_what_this_server_does_to_them(
    store: MilvusStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upsert puts its rows into partitions by another field than the partition key; filters by the key
    then do not find them (milvus issue 30607)."""
    with pytest.raises(UsageError, match=r"needs Milvus 2\.4"):
        store.create("layout_tenants", NUMBERED, {"uuid": "1"})
    monkeypatch.setattr("m3index.store.milvus.TENANTS_SINCE", (2, 0))
    store.create("layout_tenants", NUMBERED, {"uuid": "1"})
    assert store.spec("layout_tenants") == NUMBERED
    rows = [row(f"d{i}", spec=NUMBERED, fields={"org": i % 40}) for i in range(200)]
    store.upsert("layout_tenants", rows)
    assert store.count("layout_tenants") == 200
    of_tenants = [store.count("layout_tenants", Compare("org", "==", tenant)) for tenant in range(40)]
    assert sum(of_tenants) < 100, "where this finds all 200, the refusal can go"


@pytest.mark.parametrize(
    ("size", "changes"),
    [
        ("small", []),
        ("huge", []),
        ("large", ["dense.type=IVF_SQ8", "dense.nlist=8", "dense.search.nprobe=8"]),
    ],
)
def test_indexes_are_made_and_searched(store: MilvusStore, size: str, changes: list[str]) -> None:
    """Rows enough that an index is built once they are sealed."""
    name, choice = (
        f"layout_{size}",
        IndexChoice.parse(size, ["dense.refine=false", *changes] if changes else []),
    )
    spec = replace(DENSE, dim=32, index=choice)
    store.create(name, spec, {"uuid": name})
    assert store.spec(name) == spec
    rows = [row(f"d{i}", spec=spec) for i in range(2_000)]
    store.upsert(name, rows)
    store.flush(name)
    client = MilvusClient(store.uri, token=ROOT_TOKEN, dedicated=True)
    described = client.describe_index(name, "dense")
    client.close()
    assert described["index_type"] == indexes(spec, lite=False)[Leg.DENSE].type
    found = store.search(name, Leg.DENSE, [r.dense for r in rows[:50]], 10)
    assert sum(hits[0].passage_id == r.passage_id for hits, r in zip(found, rows, strict=False)) >= 48
    assert store.count(name) == 2_000


@pytest.mark.parametrize("changes", [[], ["dense.type=HNSW_SQ"], ["dense.type=NONSENSE"]])
def test_an_index_that_it_has_not_is_told(store: MilvusStore, changes: list[str]) -> None:
    spec = replace(DENSE, index=IndexChoice.parse("large", changes))
    with pytest.raises(StoreError, match=r"--index-class large.*v2\.3\.5.*--index dense\.type="):
        store.create("layout_none", spec, {"uuid": "1"})
    assert "layout_none" not in store.collections()


@pytest.fixture(scope="module")
def coarse(server: Milvus23) -> Iterator[SearchTarget]:
    """A collection whose graph leads astray: few neighbours, chosen in haste."""
    store, encoder = MilvusStore.open(server.uri, ROOT_TOKEN, timeout=120), FastEncoder(dim=32)
    choice = IndexChoice.parse("small", ["dense.M=4", "dense.efConstruction=8", "dense.search.ef=16"])
    spec = CollectionSpec(32, "none", {}, index=choice)
    rng = random.Random(1)
    docs = [Doc(f"d{i}", [" ".join(rng.choices(WORDS, k=7))]) for i in range(5_000)]
    store.create("coarse__g1", spec, {"uuid": "coarse"})
    store.upsert("coarse__g1", [row for doc in docs for row in rows_of(doc, encoder, False)])
    store.flush("coarse__g1")
    target = SearchTarget(store, "coarse__g1", store.spec("coarse__g1"), lambda: encoder)
    end = time.monotonic() + 90
    while time.monotonic() < end and not any(r.mean < 1 for r in measure(target, 20, RecallOptions())):
        time.sleep(1)  # rows are searched exactly until their index is built
    yield target
    store.drop("coarse__g1")
    store.close()


def test_the_recall_of_a_graph_is_measured(coarse: SearchTarget) -> None:
    report = measure(coarse, 100, RecallOptions(min_recall=0.99))
    assert report.indexes == {"dense": "HNSW"}
    assert {(row.leg, row.at, row.filtered) for row in report} == {
        ("dense", at, filtered) for at in (10, 100) for filtered in (False, True)
    }
    assert report.exit == Exit.GATE
    assert all(0.1 < row.mean < 0.99 for row in report if not row.filtered)


def test_what_a_graph_loses_is_said_to_be_lost(coarse: SearchTarget) -> None:
    rng, lost = random.Random(2), 0
    for _ in range(8):
        query = " ".join(rng.choices(WORDS, k=7))
        [vector] = coarse.encoder().encode_queries([query], lexical=False).dense
        [exact] = scan(coarse.store, coarse.collection, coarse.spec, Leg.DENSE, [Ask(vector)], 2)
        rows = coarse.store.get(coarse.collection, exact.passages, ["doc_id"])
        for passage in exact.passages:
            answer = why(coarse, query, Sought(rows[passage]["doc_id"], mode="dense"))
            assert answer.stage in (Stage.FOUND, Stage.LOST)
            lost += answer.stage is Stage.LOST
    assert lost
