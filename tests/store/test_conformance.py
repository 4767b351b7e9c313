"""One suite that every store passes: in memory, Milvus Lite as a file and over gRPC, any server."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store.material import (
    BM25,
    DENSE,
    DIM,
    FIELDS,
    LEXICAL,
    MALICIOUS,
    NUMBERED,
    TENANTS,
    keys,
    row,
    sparse,
    update,
    vector,
)

from m3index import schema
from m3index.dates import stored
from m3index.errors import (
    CollectionNotFoundError,
    FilterError,
    RowRefusedError,
    StoreError,
    UsageError,
)
from m3index.schema import CollectionSpec, IndexChoice
from m3index.store import filter as filters
from m3index.store.base import Store
from m3index.store.filter import All, Compare, Expression, In, bind
from m3index.store.half_precision import rounded
from m3index.store.rows import changed, row_fields, row_of
from m3index.types import JOINED, Leg, Row, Storage

Fresh = Callable[[CollectionSpec], str]


# ------------------------------------------------------------ collections and aliases


SPECS = {"bm25": BM25, "lexical": LEXICAL, "none": DENSE, "tenants": TENANTS, "numbered": NUMBERED}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_a_collection_says_what_it_was_made_from(store: Store, fresh: Fresh, spec: CollectionSpec) -> None:
    name = fresh(spec)
    analyzer = store.default_analyzer() if spec.sparse == "bm25" else None
    assert store.spec(name) == replace(spec, analyzer=analyzer)
    assert name in store.collections()
    assert store.properties(name)["uuid"] == name
    assert store.properties(name).get("analyzer") == analyzer
    assert store.count(name) == 0
    assert list(store.scan(name, None, ["doc_id"])) == []


def test_an_existing_collection_is_not_made_again(store: Store, fresh: Fresh) -> None:
    name = fresh(DENSE)
    with pytest.raises(StoreError, match="already exists"):
        store.create(name, DENSE, {})


@pytest.mark.parametrize("name", ["", "a b", "a-b", "ü", "1a", "a" * 300, "a;drop", "../a"])
def test_a_bad_name_is_refused(store: Store, name: str) -> None:
    with pytest.raises(UsageError, match="letters, digits and _"):
        store.create(name, DENSE, {})
    with pytest.raises(UsageError, match="letters, digits and _"):
        store.resolve(name)


def test_what_is_not_there_is_said_so(store: Store) -> None:
    for call in (
        lambda: store.spec("nowhere"),
        lambda: store.properties("nowhere"),
        lambda: store.set_properties("nowhere", {"a": "b"}),
        lambda: store.count("nowhere"),
        lambda: store.get("nowhere", ["a-0"], []),
        lambda: list(store.scan("nowhere", None, [])),
        lambda: store.upsert("nowhere", [row("a")]),
        lambda: store.search("nowhere", Leg.DENSE, [vector("a")], 1),
        lambda: store.point("alias_to_nowhere", "nowhere"),
    ):
        with pytest.raises(CollectionNotFoundError):
            call()
    store.drop("nowhere")
    store.drop_alias("nowhere")


def test_properties_of_any_text_survive_and_leave_the_others(store: Store, fresh: Fresh) -> None:
    name = fresh(DENSE)
    odd = {f"p{i}": text for i, text in enumerate(MALICIOUS)}
    odd["json"] = json.dumps({"lang": "str", "ü": ['"', "\\"]})
    odd["long"] = "x" * 30_000
    store.set_properties(name, odd)
    store.set_properties(name, {"uuid": "changed"})
    store.set_properties(name, {})
    assert store.properties(name) == {**odd, "uuid": "changed"}


def test_an_alias_is_made_moved_and_dropped(store: Store, fresh: Fresh) -> None:
    first, second = fresh(DENSE), fresh(DENSE)
    alias = f"alias_{first}"
    assert store.resolve(alias) is None
    store.point(alias, first)
    store.point(alias, first)
    assert store.resolve(alias) == first
    store.upsert(first, [row("a", spec=DENSE)])
    assert store.count(alias) == 1
    with pytest.raises(StoreError, match="in use by the alias"):
        store.drop(first)
    store.drop(alias)
    assert store.count(first) == 1
    store.point(alias, second)
    assert store.resolve(alias) == second
    assert store.count(alias) == 0
    assert alias not in store.collections()
    store.drop_alias(alias)
    store.drop_alias(alias)
    assert store.resolve(alias) is None


def test_a_plain_collection_is_no_alias(store: Store, fresh: Fresh) -> None:
    name = fresh(DENSE)
    with pytest.raises(UsageError, match="choose another name"):
        store.resolve(name)


# ------------------------------------------------------------------------------ rows

WHOLE = ["doc_id", "ordinal", "source", "doc_hash", "passages", *JOINED, "anchor", "metadata"]


@pytest.mark.parametrize("text", [*MALICIOUS, "界" * 21_845, "x" * 65_535], ids=lambda t: repr(t)[:24])
def test_any_text_comes_out_as_it_went_in(store: Store, fresh: Fresh, text: str) -> None:
    name = fresh(BM25)
    written = row(
        text,
        ordinal=3,
        source=text[:200],
        passages=9,
        title=text[:100],
        text=text,
        metadata={"k": text[:1000], text[:100]: [text[:100], None, True]},
        fields={"lang": text, "tags": [text[:100], "", text[:100]]},
    )
    other = row("another")
    store.upsert(name, [written, other])
    stored = store.get(name, [written.passage_id], [*WHOLE, *FIELDS])[written.passage_id]
    assert {key: stored[key] for key in WHOLE} == {key: getattr(written, key) for key in WHOLE}
    assert stored["lang"] == text
    assert stored["tags"] == [text[:100], "", text[:100]]
    assert stored["year"] is None
    store.delete(name, [written.passage_id])
    assert set(store.get(name, [written.passage_id, other.passage_id], [])) == {other.passage_id}


def test_metadata_keep_their_types_and_order(store: Store, fresh: Fresh) -> None:
    name = fresh(DENSE)
    metadata = {
        "z": 1, "a": 1.0, "m": -0.5, "big": 2**63 - 1, "small": -(2**63), "tiny": 1e-300, "no": None,
        "yes": True, "list": [1, [2, {"x": []}]], "empty": {}, "": "empty key", "text": "\u0000 ü 😀 \\ \"",
        "number as text": "00012", "float": 0.1 + 0.2,
    }  # fmt: skip
    written = row("a", spec=DENSE, metadata=metadata)
    store.upsert(name, [written])
    read = store.get(name, keys([written]), ["metadata"])[written.passage_id]["metadata"]
    assert json.dumps(read) == json.dumps(metadata)


@pytest.mark.parametrize(
    "values",
    [
        {"lang": "de", "year": 2**63 - 1, "score": -1e300, "open": False, "tags": []},
        {"lang": "", "year": -(2**63), "score": 0.1, "open": True, "tags": ["b", "a", "b"]},
        {"lang": None, "year": None, "score": None, "open": None, "tags": None},
        {"year": 0, "score": 3},
        {},
    ],
)
def test_declared_fields_keep_their_values_and_null(
    store: Store, fresh: Fresh, values: dict[str, object]
) -> None:
    name = fresh(BM25)
    written = row("a", fields=values)
    store.upsert(
        name, [row("a", fields={"lang": "old", "year": 1, "score": 1.0, "open": True, "tags": ["old"]})]
    )
    store.upsert(name, [written])
    stored = store.get(name, keys([written]), list(FIELDS))[written.passage_id]
    assert {key: stored[key] for key in FIELDS} == {key: values.get(key) for key in FIELDS}


def test_vectors_come_back_bit_for_bit(store: Store, fresh: Fresh) -> None:
    name = fresh(LEXICAL)
    rows = [
        row("a", spec=LEXICAL, sparse=sparse({0: 1e-3, 7: 0.25, 250_001: 3.5})),
        row("empty", spec=LEXICAL, sparse=sparse({})),
    ]
    store.upsert(name, rows)
    stored = store.get(name, keys(rows), ["dense", "lexical"])
    for r in rows:
        assert stored[r.passage_id]["dense"].dtype == np.float32
        np.testing.assert_array_equal(stored[r.passage_id]["dense"], r.dense)
        np.testing.assert_array_equal(stored[r.passage_id]["lexical"].indices, r.sparse.indices)
        np.testing.assert_array_equal(stored[r.passage_id]["lexical"].values, r.sparse.values)
    scanned = {s["passage_id"]: s for s in store.scan(name, None, ["dense", "lexical"])}
    assert len(scanned[rows[1].passage_id]["lexical"]) == 0
    np.testing.assert_array_equal(scanned[rows[0].passage_id]["dense"], rows[0].dense)


def test_the_last_of_equal_keys_wins(store: Store, fresh: Fresh) -> None:
    name = fresh(DENSE)
    rows = [row("a", spec=DENSE, text=f"version {i}") for i in range(3)]
    store.upsert(name, [*rows, row("b", spec=DENSE)])
    assert store.count(name) == 2
    assert store.get(name, keys(rows), ["text"])[rows[0].passage_id]["text"] == "version 2"
    store.upsert(name, [rows[0]])
    assert store.count(name) == 2
    assert store.get(name, keys(rows), ["text"])[rows[0].passage_id]["text"] == "version 0"


REFUSED = {
    "surrogate in text": {"text": "a \ud800 b"},
    "surrogate in the id": {"doc_hash": "\udfff"},
    "surrogate in metadata": {"metadata": {"a": "\ud800"}},
    "text too long in bytes": {"text": "界" * 21_846},
    "title too long": {"title": "x" * 65_536},
    "hash too long": {"doc_hash": "x" * 129},
    "metadata of 70 KB": {"metadata": {"a": "x" * 70_000}},
    "NaN in metadata": {"metadata": {"a": math.nan}},
    "number beyond 64 bits": {"metadata": {"a": [2**63]}},
    "no JSON": {"metadata": {"a": object()}},
    "undeclared field": {"fields": {"nosuch": 1}},
    "text for a number": {"fields": {"year": "2020"}},
    "one text for a list": {"fields": {"tags": "a"}},
    "infinite number": {"fields": {"score": math.inf}},
    "NaN in dense": {"dense": np.full(DIM, np.nan, np.float32)},
    "infinite dense": {"dense": np.full(DIM, np.inf, np.float32)},
    "dense of zeros": {"dense": np.zeros(DIM, np.float32)},
    "dense of another width": {"dense": np.ones(DIM + 1, np.float32)},
    "lexical missing": {"sparse": None},
    "negative token id": {"sparse": sparse({-1: 1.0})},
    "reserved dimension": {"sparse": sparse({2**31 - 1: 1.0})},
    "weight of zero": {"sparse": sparse({1: 0.0})},
    "weight NaN": {"sparse": sparse({1: math.nan})},
}


@pytest.mark.parametrize("bad", REFUSED.values(), ids=REFUSED)
def test_a_bad_row_is_named_and_costs_no_neighbour(
    store: Store, fresh: Fresh, bad: dict[str, object]
) -> None:
    name = fresh(LEXICAL)
    rows = [row(f"doc {i}", spec=LEXICAL) for i in range(5)]
    culprit = row("doc 2", spec=LEXICAL, **bad)
    with pytest.raises(RowRefusedError, match="document 'doc 2', passage 0: ") as refusal:
        store.upsert(name, [*rows[:2], culprit, *rows[3:]])
    assert refusal.value.passage_ids == (culprit.passage_id,)
    assert list(refusal.value.reasons) == [culprit.passage_id]
    assert set(store.get(name, keys(rows), [])) == set(keys(rows)) - {culprit.passage_id}
    foreseen = store.refusal(name, culprit)
    assert bool(foreseen) == bad.keys().isdisjoint({"dense", "sparse"}), "before it is encoded"
    assert foreseen in str(refusal.value)
    assert not store.refusal(name, rows[0])


# ---------------------------------------------------------------------------- updates


def described(store: Store, name: str, rows: list[Row]) -> dict[str, str]:
    """Each stored row with all that it has, vectors bit for bit."""
    spec = store.spec(name)
    stored = store.get(name, keys(rows), row_fields(spec))
    with np.printoptions(floatmode="unique", threshold=10_000):
        return {key: repr(row_of(key, found, spec)) for key, found in stored.items()}


FILLED = {
    "lang": "en", "year": 2020, "score": 0.5, "open": True, "tags": ["a", "b"],
    "author__born": schema.field_value("born", "date", "1815-12-10"),
}  # fmt: skip
CHANGED = {"lang": "de", "year": None, "score": 3.0, "open": False, "tags": [], "author__born": None}


@pytest.mark.parametrize("flushed", [False, True])
@pytest.mark.parametrize("kind", ["bm25", "lexical", "tenants"])
def test_an_update_changes_these_fields_and_no_other(
    store: Store, fresh: Fresh, kind: str, flushed: bool
) -> None:
    spec = SPECS[kind]
    name = fresh(spec)
    given = [FILLED, {}, {"year": 7}, {**FILLED, "tags": None}, FILLED]
    owner = {"org": "acme"} if spec.tenant else {}
    rows = [
        row(
            f"d{i}",
            i % 2,
            spec=spec,
            title=f"title {i}",
            breadcrumb="Guide > Install",
            anchor="install",
            text=f"lions and word{i}",
            metadata={"z": i, "list": [1, {"ü": None}]},
            fields={**fields, **owner},
            **({"sparse": sparse({1: 0.3, 7 + i: 0.25} if i else {})} if spec.sparse == "lexical" else {}),
        )
        for i, fields in enumerate(given)
    ]
    compared = fresh(spec)  # gets whole rows
    for each in (name, compared):
        store.upsert(each, rows)
        if flushed:
            store.flush(each)
    before = described(store, name, rows)

    updates = [
        update(rows[0], doc_hash="new.m", passages=9, metadata={"only": "this"}, fields=CHANGED | owner),
        update(rows[1], doc_hash="", metadata={}, fields=FILLED | owner),
        update(rows[2], metadata={"a": ["ü", 0.1 + 0.2]}, fields=owner),
        update(rows[3], doc_hash="new.m", fields={**FILLED, "year": None} | owner),
    ]
    expected = [changed(r, u) for r, u in zip(rows, updates, strict=False)]
    word = sparse({1: 1.0}) if spec.sparse == "lexical" else "lions"
    legs = {Leg.DENSE: rows[1].dense, Leg.LEXICAL if spec.sparse == "lexical" else Leg.BM25: word}
    for _ in range(2):  # to repeat them changes nothing
        store.update(name, updates)
        store.upsert(compared, expected)
        assert described(store, name, rows) == described(store, compared, rows)
        assert described(store, name, rows)[rows[4].passage_id] == before[rows[4].passage_id]
        assert store.count(name) == 5
        for leg, query in legs.items():
            for where, least, most in (
                (None, 4, 5),  # one has no lexical tokens
                (Compare("lang", "==", "en"), 3, 3),
                (Compare("year", "==", 7), 0, 0),
            ):
                [hits] = store.search(name, leg, [query], 9, where)
                assert least <= len(hits) <= most
                assert {c.passage_id: c.score for c in hits} == pytest.approx(
                    {c.passage_id: c.score for c in store.search(compared, leg, [query], 9, where)[0]}
                )


def test_the_update_of_a_row_that_is_not_stored_makes_no_row(store: Store, fresh: Fresh) -> None:
    name = fresh(BM25)
    rows = [row(f"d{i}", fields=FILLED) for i in range(5)]
    store.upsert(name, [*rows[:2], *rows[3:]])
    updates = [update(r, metadata={"new": i}) for i, r in enumerate(rows)]
    with pytest.raises(RowRefusedError, match=f"the change of the row {rows[2].passage_id}: ") as refusal:
        store.update(name, updates)
    assert refusal.value.passage_ids == (rows[2].passage_id,)
    with pytest.raises(RowRefusedError):
        store.update(name, [updates[2]])
    stored = store.get(name, keys(rows), ["metadata", "text"])
    assert {key: found["metadata"] for key, found in stored.items()} == {
        u.passage_id: u.metadata for u in updates if u is not updates[2]
    }
    assert store.count(name) == 4
    assert len(store.search(name, Leg.DENSE, [rows[2].dense], 9)[0]) == 4
    store.delete(name, keys(rows[:1]))
    with pytest.raises(RowRefusedError):
        store.update(name, [updates[0]])
    assert store.get(name, keys(rows[:1]), ["text"]) == {}


BAD_UPDATES = {what: bad for what, bad in REFUSED.items() if bad.keys() <= {"doc_hash", "metadata", "fields"}}


@pytest.mark.parametrize("bad", BAD_UPDATES.values(), ids=BAD_UPDATES)
def test_a_bad_update_is_named_and_costs_no_neighbour(
    store: Store, fresh: Fresh, bad: dict[str, object]
) -> None:
    name = fresh(LEXICAL)
    rows = [row(f"d{i}", spec=LEXICAL) for i in range(3)]
    store.upsert(name, rows)
    culprit = update(rows[1], **bad)
    with pytest.raises(RowRefusedError) as refusal:
        store.update(name, [culprit, *(update(r, metadata={"new": 1}) for r in (rows[0], rows[2]))])
    assert refusal.value.passage_ids == (culprit.passage_id,)
    stored = store.get(name, keys(rows), ["metadata"])
    assert [stored[key]["metadata"] for key in keys(rows)] == [{"new": 1}, {}, {"new": 1}]
    foreseen = store.refusal(name, culprit)
    assert foreseen
    assert foreseen in str(refusal.value)
    assert not store.refusal(name, update(rows[0]))


def test_many_updates_at_once_and_the_last_of_equal_keys(store: Store, fresh: Fresh) -> None:
    name = fresh(DENSE)
    rows = [row(f"d{i}", spec=DENSE) for i in range(1_203)]
    store.upsert(name, rows)
    store.update(name, [])
    store.update(name, [update(r, metadata={"n": n}) for n in (1, 2) for r in rows])
    assert {s["metadata"]["n"] for s in store.scan(name, None, ["metadata"])} == {2}
    assert store.count(name) == 1_203
    with pytest.raises(CollectionNotFoundError):
        store.update("nowhere", [update(rows[0])])


def test_a_row_that_changes_hands(store: Store, fresh: Fresh) -> None:
    name = fresh(TENANTS)
    rows = [row(f"d{i}", spec=TENANTS, fields={"org": "acme"}) for i in range(4)]
    store.upsert(name, rows)
    store.update(name, [update(r, fields={"org": "globex", "year": 1}) for r in rows[:2]])
    store.update(name, [update(r, fields={"org": "acme", "year": 1}) for r in rows[2:]])
    for org, owned in (("globex", rows[:2]), ("acme", rows[2:])):
        found = store.search(name, Leg.DENSE, [rows[0].dense], 9, Compare("org", "==", org))[0]
        assert {c.passage_id for c in found} == set(keys(owned))
    assert store.count(name) == 4
    with pytest.raises(RowRefusedError, match="no value for the tenant field"):
        store.update(name, [update(rows[0], fields={})])


def test_a_key_that_could_break_a_filter_is_refused(store: Store, fresh: Fresh) -> None:
    name = fresh(DENSE)
    bad = replace(row("a", spec=DENSE), passage_id='x"] or passage_id in ["')
    with pytest.raises(RowRefusedError, match="letters, digits"):
        store.upsert(name, [bad])


@pytest.mark.parametrize("key", MALICIOUS[:8], ids=repr)
def test_a_malicious_key_touches_no_other_row(store: Store, fresh: Fresh, key: str) -> None:
    name = fresh(DENSE)
    rows = [row(f"d{i}", spec=DENSE) for i in range(3)]
    store.upsert(name, rows)
    assert store.get(name, [key, f'{key}", "{rows[0].passage_id}'], ["text"]) == {}
    store.delete(name, [key, f'{key}", "{rows[0].passage_id}', f'"]) or (passage_id != "{key}'])
    assert store.count(name) == 3


def test_many_keys_at_once(store: Store, fresh: Fresh) -> None:
    name = fresh(DENSE)
    rows = [row(f"d{i}", spec=DENSE) for i in range(1_203)]
    store.upsert(name, rows)
    store.upsert(name, [])
    assert store.count(name) == 1_203
    asked = [*keys(rows), "missing-0", rows[0].passage_id]
    found = store.get(name, asked, ["doc_id"])
    assert {key: found[key]["doc_id"] for key in found} == {r.passage_id: r.doc_id for r in rows}
    store.delete(name, [*keys(rows)[:1_100], "missing-0", rows[0].passage_id])
    store.delete(name, [])
    assert {s["passage_id"] for s in store.scan(name, None, [])} == set(keys(rows)[1_100:])
    assert store.count(name) == 103
    assert store.get(name, [], ["doc_id"]) == {}


def test_a_scan_is_complete_over_pages_updates_and_deletes(
    store: Store, fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("m3index.store.milvus.PAGE_OF_KEYS", 7)
    monkeypatch.setattr("m3index.store.milvus.PAGE_OF_ROWS", 3)
    name = fresh(BM25)
    rows = [row(f"d{i}", fields={"year": i}) for i in range(40)]
    store.upsert(name, rows)
    store.flush(name)
    store.upsert(name, [replace(r, text="changed") for r in rows[10:20]])
    store.delete(name, keys(rows)[:5])
    seen = [s["passage_id"] for s in store.scan(name, None, [])]
    assert sorted(seen) == sorted(keys(rows)[5:])
    texts = {s["passage_id"]: s["text"] for s in store.scan(name, Compare("year", "<", 15), ["text", "year"])}
    assert set(texts) == set(keys(rows)[5:15])
    assert texts[rows[12].passage_id] == "changed"
    assert store.count(name) == 35
    assert store.count(name, Compare("year", "<", 15)) == 10
    assert store.count(name, In("year", [1, 20, 39])) == 2


def test_what_was_written_is_read(store: Store, fresh: Fresh) -> None:
    name = fresh(DENSE)
    for i in range(15):
        written = row(f"d{i}", spec=DENSE, text=f"n{i}")
        store.upsert(name, [written])
        assert store.get(name, keys([written]), ["text"])[written.passage_id]["text"] == f"n{i}"
        assert store.count(name) == i + 1
        if i % 5 == 4:
            store.flush(name)
            store.flush(name)


def test_reads_beside_a_writer_miss_nothing(store: Store, fresh: Fresh) -> None:
    name = fresh(DENSE)
    kept = [row(f"kept {i}", spec=DENSE) for i in range(20)]
    store.upsert(name, kept)
    failures: list[object] = []

    def write() -> None:
        try:
            for i in range(12):
                store.upsert(name, [row(f"new {i} {j}", spec=DENSE) for j in range(20)])
                store.flush(name)
        except Exception as error:
            failures.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    rounds = 0
    while writer.is_alive() or rounds < 3:
        missing = set(keys(kept)) - set(store.get(name, keys(kept), []))
        if missing:
            failures.append(missing)
        rounds += 1
    writer.join()
    assert failures == []
    assert store.count(name) == 260


# ---------------------------------------------------------------------------- search


def test_dense_search_is_exact(store: Store, fresh: Fresh) -> None:
    name = fresh(DENSE)
    rows = [row(f"d{i}", spec=DENSE) for i in range(200)]
    store.upsert(name, rows[:150])
    store.flush(name)
    store.upsert(name, rows[150:])
    queries = [vector(f"q{i}") for i in range(7)]
    matrix = np.stack([r.dense for r in rows])
    found = store.search(name, Leg.DENSE, queries, 10)
    for query, candidates in zip(queries, found, strict=True):
        scores = matrix @ query
        best = sorted(range(200), key=lambda i: (-scores[i], rows[i].passage_id))[:10]
        assert [c.passage_id for c in candidates] == [rows[i].passage_id for i in best]
        np.testing.assert_allclose([c.score for c in candidates], scores[best], atol=1e-5)
        assert candidates[0].values == {}
        assert candidates[0].key == candidates[0].passage_id.rpartition("-")[0]


def test_ties_are_by_key(store: Store, fresh: Fresh) -> None:
    name = fresh(LEXICAL)
    same = vector("same")
    rows = [row(f"d{i}", spec=LEXICAL, dense=same, sparse=sparse({5: 0.5})) for i in range(20)]
    store.upsert(name, rows)
    for leg, query in ((Leg.DENSE, same), (Leg.LEXICAL, sparse({5: 2.0}))):
        found = store.search(name, leg, [query], 20)[0]
        assert [c.passage_id for c in found] == sorted(keys(rows))
        assert len({c.score for c in found}) == 1


def test_lexical_search_is_the_inner_product(store: Store, fresh: Fresh) -> None:
    name = fresh(LEXICAL)
    a = row("a", spec=LEXICAL, sparse=sparse({3: 0.5, 10: 0.25, 99: 4.0}))
    b = row("b", spec=LEXICAL, sparse=sparse({3: 0.125, 250_001: 1.0}))
    c = row("c", spec=LEXICAL, sparse=sparse({7: 1.0}))
    empty = row("empty", spec=LEXICAL, sparse=sparse({}))
    store.upsert(name, [a, b, c, empty])
    queries = [sparse({3: 2.0, 10: 1.0, 8: 9.0}), sparse({}), sparse({250_001: 0.5}), sparse({12: 1.0})]
    first, second, third, fourth = store.search(name, Leg.LEXICAL, queries, 10)
    assert [(x.passage_id, x.score) for x in first] == [(a.passage_id, 1.25), (b.passage_id, 0.25)]
    assert second == []
    assert [(x.passage_id, x.score) for x in third] == [(b.passage_id, 0.5)]
    assert fourth == []


def test_bm25_search_ranks_as_bm25_does(store: Store, fresh: Fresh) -> None:
    name = fresh(BM25)
    texts = {
        "rare": "the quick Zebra",
        "twice": "zebra zebra the the the the the the the the the",
        "common": "the lion and the tiger",
        "titled": "nothing here",
        "none": "?!",
        "void": "",
    }
    rows = [row(i, text=text, title="On Lions" if i == "titled" else "") for i, text in texts.items()]
    store.upsert(name, rows)
    names = {r.passage_id: r.doc_id for r in rows}

    def ask(query: str, limit: int = 10) -> list[str]:
        found = store.search(name, Leg.BM25, [query], limit)[0]
        assert all(c.score > 0 for c in found)
        assert [c.score for c in found] == sorted((c.score for c in found), reverse=True)
        return [names[c.passage_id] for c in found]

    assert ask("ZEBRA") == ["rare", "twice"] or ask("ZEBRA") == ["twice", "rare"]
    assert ask("the zebra quick")[0] == "rare"
    assert ask("lions") == ["titled"]
    assert ask("zebra", 1) == ask("zebra")[:1]
    assert ask("elephant") == []
    empty, blank, marks, surrogate = store.search(name, Leg.BM25, ["", "  ", "?!", "lions \udcff"], 5)
    assert (empty, blank, marks) == ([], [], [])
    assert [names[c.passage_id] for c in surrogate] == ["titled"]


SENTENCES = {
    "zh": ("今天北京的天气非常好", "上海是一座很大的城市", "北京天气"),
    "ja": ("東京都の人口は多い", "大阪は食べ物がおいしい", "東京の人口"),
    "ko": ("서울은 대한민국의 수도이다", "부산은 바다가 아름답다", "대한민국 수도"),
    "th": ("กรุงเทพมหานครเป็นเมืองหลวงของประเทศไทย", "เชียงใหม่อยู่ทางภาคเหนือ", "เมืองหลวงของไทย"),
    "hi": ("दिल्ली भारत की राजधानी है", "मुंबई समुद्र के किनारे है", "भारत की राजधानी"),
    "km": ("ភ្នំពេញជារាជធានីនៃប្រទេសកម្ពុជា", "សៀមរាបមានប្រាសាទអង្គរវត្ត", "រាជធានីកម្ពុជា"),
    "ar": ("القاهرة عاصمة مصر", "الرياض مدينة كبيرة", "عَاصِمَة مصر"),
    "tr": ("İstanbul büyük bir şehirdir", "Ankara başkenttir", "istanbul şehirdir"),
    "de": ("Die STRASSE ist lang", "Das Haus ist hoch", "straße"),
    "el": ("Η Αθήνα είναι πρωτεύουσα", "Η Πάτρα έχει λιμάνι", "ΑΘΉΝΑ"),
}


@pytest.mark.parametrize("language", SENTENCES)
def test_bm25_works_in(store: Store, fresh: Fresh, language: str) -> None:
    right, wrong, query = SENTENCES[language]
    name = fresh(BM25)
    rows = [row("right", text=right), row("wrong", text=wrong), row("other", text="nothing of the kind")]
    store.upsert(name, rows)
    found = store.search(name, Leg.BM25, [query], 3)[0]
    assert found[0].passage_id == rows[0].passage_id


def test_filters_hold_and_values_come_with_in_every_leg(store: Store, fresh: Fresh) -> None:
    for spec, leg, query in ((BM25, Leg.BM25, "word"), (LEXICAL, Leg.LEXICAL, sparse({1: 1.0}))):
        name = fresh(spec)
        rows = [
            row(
                f"d{i}",
                spec=spec,
                text="word " * (i + 1),
                sparse=None if leg is Leg.BM25 else sparse({1: i + 1.0}),
                fields={"lang": "en" if i % 2 else "de", "year": i},
            )
            for i in range(12)
        ]
        store.upsert(name, rows)
        wanted = {r.passage_id: r for r in rows if r.fields["lang"] == "en" and r.fields["year"] > 3}
        where = All([Compare("lang", "==", "en"), Compare("year", ">", 3)])
        for answers in (
            store.search(name, leg, [query, query], 12, where, ["year", "lang"]),
            store.search(name, Leg.DENSE, [vector("q"), vector("r")], 12, where, ["year", "lang"]),
        ):
            for found in answers:
                assert {c.passage_id for c in found} == set(wanted)
                for c in found:
                    assert c.values == {"year": wanted[c.passage_id].fields["year"], "lang": "en"}
        assert store.search(name, Leg.DENSE, [vector("q")], 3, Compare("year", ">", 99)) == [[]]


def test_dates_are_found_by_period(store: Store, fresh: Fresh) -> None:
    name = fresh(BM25)
    born = {"a": "1815-12-10", "b": "1815-12-10T23:59:59+01:00", "c": "1816", "d": "2026-11-28T16:00Z"}
    rows = [row(n, fields={"author__born": schema.field_value("b", "date", d)}) for n, d in born.items()]
    store.upsert(name, [*rows, row("none")])
    assert store.spec(name).fields["author__born"] == "date"
    for condition, found in {
        "author.born=1815": "ab",
        "author.born=1815-12-10": "ab",
        "author.born=1815-12-10T22": "b",
        "author.born!=1815-12": "cd",
        "author.born in 1816-01-01,2026": "cd",
        "author.born<=1815": "ab",
        "author.born>1815": "cd",
        "author.born<1815-12-10T12": "a",
        "author.born>=1815-12-10T22:59:59": "bcd",
        "author.born<now": "abcd",
    }.items():
        where = bind([condition, "source=default"], FIELDS)
        keys_found = {s["passage_id"] for s in store.scan(name, where, [])}
        assert keys_found == {r.passage_id for r in rows if r.doc_id in found}, condition
        candidates = store.search(name, Leg.DENSE, [vector("q")], 9, where, ["author__born"])[0]
        assert {c.passage_id: c.values["author__born"] for c in candidates} == {
            r.passage_id: r.fields["author__born"] for r in rows if r.doc_id in found
        }


def test_many_queries_come_back_in_their_order(
    store: Store, fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("m3index.store.milvus.QUERIES_PER_CALL", 4)
    name = fresh(BM25)
    rows = [row(f"d{i}", text=f"n{i}") for i in range(10)]
    store.upsert(name, rows)
    asked = [f"n{i}" if i % 3 else "" for i in range(10)]
    found = store.search(name, Leg.BM25, asked, 2)
    assert [[c.passage_id for c in f] for f in found] == [
        [rows[i].passage_id] if i % 3 else [] for i in range(10)
    ]
    dense = store.search(name, Leg.DENSE, [r.dense for r in rows], 1)
    assert [f[0].passage_id for f in dense] == keys(rows)
    assert store.search(name, Leg.DENSE, [], 1) == []


def test_what_cannot_be_searched_is_a_usage_error(store: Store, fresh: Fresh) -> None:
    name = fresh(BM25)
    store.upsert(name, [row("a")])
    for limit in (0, -1, 16_385):
        with pytest.raises(UsageError, match="from 1 to 16384"):
            store.search(name, Leg.DENSE, [vector("q")], limit)
    assert len(store.search(name, Leg.DENSE, [vector("q")], 16_384)[0]) == 1
    with pytest.raises(UsageError, match="dimensions"):
        store.search(name, Leg.DENSE, [vector("q", DIM + 1)], 1)
    with pytest.raises(UsageError, match="finite"):
        store.search(name, Leg.DENSE, [np.full(DIM, np.nan, np.float32)], 1)
    with pytest.raises(UsageError, match="no lexical leg"):
        store.search(name, Leg.LEXICAL, [sparse({1: 1.0})], 1)
    with pytest.raises(UsageError, match="cannot be searched with"):
        store.search(name, Leg.DENSE, ["text"], 1)


def test_an_empty_collection_finds_nothing(store: Store, fresh: Fresh) -> None:
    name = fresh(BM25)
    assert store.search(name, Leg.DENSE, [vector("q")], 5) == [[]]
    assert store.search(name, Leg.BM25, ["word"], 5) == [[]]


# --------------------------------------------------------------------------- filters


@pytest.mark.parametrize(
    "text",
    ["nosuch == 1", "year ==", 'lang == "x', "year > 1)", "((year > 1)", "", "  ", "lang == 5 and", "\0"],
)
def test_a_bad_expression_is_a_filter_error(store: Store, fresh: Fresh, text: str) -> None:
    name = fresh(BM25)
    store.upsert(name, [row("a")])
    with pytest.raises(FilterError) as error:
        store.count(name, Expression(text))
    with pytest.raises(FilterError):
        list(store.scan(name, Expression(text), ["text"]))
    with pytest.raises(FilterError):
        store.search(
            name, Leg.DENSE, [vector("q")], 1, All([Compare("source", "==", "default"), Expression(text)])
        )
    assert "Traceback" not in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_field_of_a_built_filter_is_a_filter_error(store: Store, fresh: Fresh) -> None:
    name = fresh(BM25)
    store.upsert(name, [row("a")])
    with pytest.raises(FilterError, match="nosuch"):
        store.count(name, Compare("nosuch", "==", 1))


odd_text = st.one_of(
    st.sampled_from([t for t in MALICIOUS if "\0" not in t]),
    st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=6),
)
instants = st.integers(2024, 2026).map(lambda year: stored(str(year)))
values = st.fixed_dictionaries(
    {
        "lang": st.none() | odd_text,
        "year": st.none() | st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3),
        "score": st.none()
        | st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False)
        | st.just(0.5),
        "open": st.none() | st.booleans(),
        "tags": st.none() | st.lists(odd_text, max_size=3),
        "author__born": st.none() | instants,
    }
)


@st.composite
def conditions(draw: st.DrawFn, rows: list[dict[str, object]]) -> filters.Filter:
    def one() -> filters.Filter:
        field = draw(st.sampled_from(list(FIELDS)))
        if field == "author__born":
            spans = draw(st.lists(st.tuples(instants, instants), min_size=1, max_size=3))
            return filters.Within(field, spans, outside=draw(st.booleans()))
        present = [r[field] for r in rows if r[field] not in (None, [])]
        new = {"lang": odd_text, "tags": odd_text, "open": st.booleans(), "year": st.integers(-3, 3)}
        strategy = new.get(field, st.floats(-2, 2, allow_subnormal=False))
        value = draw(st.sampled_from(present) if present and draw(st.booleans()) else strategy)
        if isinstance(value, list):
            value = value[0]
        if draw(st.integers(0, 3)) == 0 and field != "open":
            return In(field, (value, draw(strategy)), array=field == "tags")
        ops = ["==", "!="] if field in ("tags", "open") else ["==", "!=", "<", "<=", ">", ">="]
        return Compare(field, draw(st.sampled_from(ops)), value, array=field == "tags")

    parts = [one() for _ in range(draw(st.integers(1, 3)))]
    return parts[0] if len(parts) == 1 else All(parts)


@given(data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_rendered_filter_selects_what_it_means(store: Store, fresh: Fresh, data: st.DataObject) -> None:
    contents = data.draw(st.lists(values, min_size=1, max_size=6))
    name = fresh(BM25)
    rows = [row(f"d{i}", fields=c) for i, c in enumerate(contents)]
    store.upsert(name, rows)
    for _ in range(8):
        where = data.draw(conditions(contents))
        meant = {r.passage_id for r in rows if filters.matches(where, {**dict.fromkeys(FIELDS), **r.fields})}
        assert {s["passage_id"] for s in store.scan(name, where, [])} == meant
        found = store.search(name, Leg.DENSE, [vector("q")], 10, where)[0]
        assert {c.passage_id for c in found} == meant
    store.drop(name)


# --------------------------------------------------------------------------- tenants


def org(number: int) -> str:
    return f"org {number}"


def test_a_tenant_has_its_own_rows(store: Store, fresh: Fresh) -> None:
    """More tenants than there are partitions, so that some share one."""
    name = fresh(TENANTS)
    rows = [row(f"d{i}", spec=TENANTS, fields={"org": org(i % 40), "year": i}) for i in range(200)]
    store.upsert(name, rows)
    store.flush(name)
    assert store.count(name) == 200
    for number in (0, 1, 39):
        where = Compare("org", "==", org(number))
        own = set(keys(rows[number::40]))
        assert {s["passage_id"] for s in store.scan(name, where, ["year"])} == own
        assert store.count(name, where) == len(own) == 5
        for leg, query in ((Leg.DENSE, vector("q")), (Leg.LEXICAL, rows[number].sparse)):
            found = store.search(name, leg, [query], 50, where, fields=["org"])[0]
            assert {c.passage_id for c in found} <= own
            assert {c.values["org"] for c in found} == {org(number)}
        assert len(store.search(name, Leg.DENSE, [vector("q")], 50, where)[0]) == 5
    assert set(store.get(name, keys(rows), [])) == set(keys(rows))


def test_a_row_that_changes_its_tenant_is_there_once(store: Store, fresh: Fresh) -> None:
    name = fresh(TENANTS)
    rows = [row(f"d{i}", spec=TENANTS, fields={"org": org(i)}) for i in range(30)]
    store.upsert(name, rows)
    store.flush(name)
    moved = [replace(r, fields={"org": org(i + 1)}) for i, r in enumerate(rows)]
    store.upsert(name, moved)
    assert store.count(name) == 30
    assert store.count(name, Compare("org", "==", org(0))) == 0
    assert store.count(name, Compare("org", "==", org(30))) == 1
    assert store.get(name, keys(rows[:1]), ["org"])[rows[0].passage_id]["org"] == org(1)
    assert len(store.search(name, Leg.DENSE, [rows[0].dense], 30)[0]) == 30
    store.delete(name, keys(rows[:10]))
    assert store.count(name) == 20


@pytest.mark.parametrize("value", MALICIOUS[:8], ids=repr)
def test_any_name_of_a_tenant(store: Store, fresh: Fresh, value: str) -> None:
    name = fresh(TENANTS)
    rows = [row("a", spec=TENANTS, fields={"org": value}), row("b", spec=TENANTS, fields={"org": "other"})]
    store.upsert(name, rows)
    assert [s["passage_id"] for s in store.scan(name, Compare("org", "==", value), [])] == keys(rows[:1])


def test_tenants_by_number_and_a_row_of_nobody(store: Store, fresh: Fresh) -> None:
    name = fresh(NUMBERED)
    rows = [row(f"d{i}", spec=NUMBERED, fields={"org": i - 1}) for i in range(3)]
    store.upsert(name, rows)
    assert store.count(name, Compare("org", "==", -1)) == 1
    nobody = row("nobody", spec=NUMBERED)
    with pytest.raises(RowRefusedError, match="no value for the tenant field 'org'"):
        store.upsert(name, [nobody, row("d3", spec=NUMBERED, fields={"org": 7})])
    assert store.count(name) == 4


# --------------------------------------------------------------- storage and indexes


@pytest.mark.parametrize("storage", ["fp16", "bf16"])
def test_halves_come_back_rounded_or_are_refused(store: Store, fresh: Fresh, storage: Storage) -> None:
    spec = replace(LEXICAL, storage=storage)
    if storage not in store.describe()["storages"]:
        with pytest.raises(UsageError, match=f"--storage {storage} needs a Milvus server"):
            fresh(spec)
        return
    name = fresh(spec)
    assert store.spec(name) == spec
    rows = [row(f"d{i}", spec=spec) for i in range(20)]
    store.upsert(name, rows)
    read = store.get(name, keys(rows), ["dense", "lexical"])
    for r in rows:
        kept = read[r.passage_id]["dense"]
        assert kept.dtype == np.float32
        np.testing.assert_array_equal(kept, rounded(r.dense, storage))
    again = [replace(r, dense=read[r.passage_id]["dense"]) for r in rows]
    store.upsert(name, again)
    scanned = {s["passage_id"]: s["dense"] for s in store.scan(name, None, ["dense"])}
    for r in again:
        np.testing.assert_array_equal(scanned[r.passage_id], r.dense)
    found = store.search(name, Leg.DENSE, [rows[3].dense], 20)[0]
    assert found[0].passage_id == rows[3].passage_id
    assert found[0].score == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("size", ["large", "huge"])
def test_an_index_class_is_kept_or_refused(store: Store, fresh: Fresh, size: str) -> None:
    spec = replace(LEXICAL, index=IndexChoice.parse(size))
    if store.describe()["kind"] in ("lite", "lite-server"):
        with pytest.raises(UsageError, match=f"--index-class {size}.* needs a Milvus server"):
            fresh(spec)
        return
    try:
        name = fresh(spec)
    except StoreError as error:
        if f"--index-class {size}" not in str(error):
            raise
        pytest.skip(f"a server that is too old: {error}")
    assert store.spec(name) == spec
    rows = [row(f"d{i}", spec=spec) for i in range(20)]
    store.upsert(name, rows)
    assert store.search(name, Leg.DENSE, [rows[3].dense], 5)[0][0].passage_id == rows[3].passage_id


# ------------------------------------------------------------------------ connection


def test_a_store_says_what_it_is(store: Store) -> None:
    said = store.describe()
    assert said["kind"] in ("memory", "lite", "lite-server", "server")
    assert {
        "version",
        "uri",
        "db",
        "dense_index",
        "analyzers",
        "default_analyzer",
        "warnings",
        "storages",
    } <= said.keys()
    assert said["default_analyzer"] in said["analyzers"]
    assert said["uri"] == store.uri
    assert store.warnings == []
