"""Shards -> collection -> shards: nothing encoded, nothing lost, nothing twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeEncoder
from scale_support import ENCODE, PASSAGES, contents, document

from m3index.corpus.readers import FileCorpus
from m3index.errors import DriftError, Exit, MismatchError, MissingHeadError, StoreError, UsageError
from m3index.files import Folder
from m3index.index.generations import generations
from m3index.index.options import SyncOptions
from m3index.index.sync import sync
from m3index.scale.encode import encode
from m3index.scale.export import export
from m3index.scale.load import load
from m3index.scale.options import LoadOptions
from m3index.schema import CollectionSpec, IndexChoice
from m3index.store.base import Store
from m3index.store.half_precision import rounded
from m3index.store.memory import MemoryStore
from m3index.store.open import open_store
from m3index.store.options import Connection
from m3index.store.rows import row_fields, row_of
from m3index.types import FieldType, Row, Storage

MakeCorpus = Callable[..., FileCorpus]
SYNC = SyncOptions(**PASSAGES)
FIELDS: dict[str, FieldType] = {"year": "int"}


@pytest.fixture(params=["memory", "lite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    opened = open_store(
        Connection(uri="memory:" if request.param == "memory" else str(tmp_path / "store.db"))
    )
    yield opened
    opened.close()


def stored(store: Store, alias: str = "docs") -> dict[str, Row]:
    name = store.resolve(alias)
    assert name is not None
    spec = store.spec(name)
    rows = store.scan(name, None, row_fields(spec))
    return {row["passage_id"]: row_of(row["passage_id"], row, spec) for row in rows}


def comparable(rows: dict[str, Row]) -> dict[str, Any]:
    from scale_support import comparable as one

    return {key: one(row) for key, row in rows.items()}


def test_loading_equals_ingesting(
    corpus: MakeCorpus, encoder: FakeEncoder, out: Folder, store: Store
) -> None:
    encode(corpus(), out, encoder, ENCODE)
    before = encoder.encoded
    summary = load(store, "docs", [out], LoadOptions(fields=FIELDS))
    assert encoder.encoded == before
    assert (summary.added, summary.store_count, summary.count_ok, summary.exit) == (60, before, True, 0)
    other = MemoryStore()
    sync(other, encoder, "docs", corpus(), SyncOptions(**PASSAGES, fields=FIELDS))
    assert comparable(stored(store)) == comparable(stored(other))
    assert sync(store, encoder, "docs", corpus(), SYNC).unchanged == 60


def test_encode_load_export_load_is_the_same_collection(
    corpus: MakeCorpus, encoder: FakeEncoder, out: Folder, store: Store, tmp_path: Path
) -> None:
    encode(corpus(), out, encoder, ENCODE)
    load(store, "docs", [out], LoadOptions(fields=FIELDS))
    moved = Folder(tmp_path / "moved")
    exported = export(store, "docs", moved, block=25)
    assert (exported.shards, exported.documents, exported.rows) == (3, 60, len(stored(store)))
    elsewhere = MemoryStore()
    assert load(elsewhere, "docs", [moved], LoadOptions()).exit == 0
    assert comparable(stored(elsewhere)) == comparable(stored(store))
    assert dict(elsewhere.spec("docs__g1").fields) == FIELDS
    kept = ("space_id", "encoder_id", "encoder", "sparse", "settings", "schema_version")
    here, there = store.properties("docs__g1"), elsewhere.properties("docs__g1")
    assert {k: there[k] for k in kept} == {k: here[k] for k in kept}
    assert sync(elsewhere, encoder, "docs", corpus(), SYNC).unchanged == 60
    again = export(store, "docs", moved, block=25)
    assert (again.written, again.kept) == (0, 3)


def test_a_load_that_failed_is_taken_up_and_serves_only_when_whole(
    corpus: MakeCorpus, encoder: FakeEncoder, out: Folder
) -> None:
    encode(corpus(), out, encoder, ENCODE)
    calls = {"upsert": 0, "fail_at": 3}

    def fail(event: str) -> None:
        if event == "before upsert":
            calls["upsert"] += 1
            if calls["upsert"] == calls["fail_at"]:
                raise StoreError("the store is gone")

    store = MemoryStore(fail, batch=20)
    for fail_at in (3, 1, 2):
        calls |= {"upsert": 0, "fail_at": fail_at}
        with pytest.raises(StoreError):
            load(store, "docs", [out], LoadOptions(workers=2))
        assert store.resolve("docs") is None
    calls["fail_at"] = 0
    summary = load(store, "docs", [out], LoadOptions(workers=3))
    assert summary.exit == 0
    assert summary.unchanged > 0
    assert summary.unchanged + summary.added + summary.updated == 60
    assert [g.number for g in generations(store, "docs")] == [1]
    other = MemoryStore()
    sync(other, encoder, "docs", corpus(), SYNC)
    assert comparable(stored(store)) == comparable(stored(other))


def test_into_a_collection_only_what_changed_is_written(
    corpus: MakeCorpus, encoder: FakeEncoder, out: Folder, store: Store
) -> None:
    rows = [document(n) for n in range(30)]
    sync(store, encoder, "docs", corpus(rows), SYNC)
    rows[3] |= {"text": "one passage now"}
    rows[4] |= {"text": " ".join(f"more{i}" for i in range(60))}
    encode(corpus([*rows[:5], document(99)]), out, encoder, ENCODE)
    summary = load(store, "docs", [out], LoadOptions())
    assert (summary.added, summary.updated, summary.unchanged) == (1, 2, 3)
    assert (summary.count_ok, summary.generation) == (True, 1)
    assert sync(store, encoder, "docs", corpus([*rows, document(99)]), SYNC).unchanged == 31


def test_fresh_swaps_the_generation_and_keeps_the_old_one(
    corpus: MakeCorpus, encoder: FakeEncoder, out: Folder
) -> None:
    store = MemoryStore()
    sync(store, encoder, "docs", corpus([document(n) for n in range(5)]), SYNC)
    encode(corpus([document(n) for n in range(5, 15)]), out, encoder, ENCODE)
    assert load(store, "docs", [out], LoadOptions(fresh=True)).generation == 2
    assert {row.doc_id for row in stored(store).values()} == {f"d{n}" for n in range(5, 15)}
    assert [(g.number, g.current, g.state) for g in generations(store, "docs")] == [
        (1, False, "live"), (2, True, "live"),
    ]  # fmt: skip


def test_the_first_of_repeated_documents_counts_over_all_folders(
    corpus: MakeCorpus, encoder: FakeEncoder, tmp_path: Path
) -> None:
    first, second = Folder(tmp_path / "a"), Folder(tmp_path / "b")
    rows = [document(n) for n in range(20)]
    encode(corpus([*rows, document(3, 30, title="again")]), first, encoder, ENCODE)
    encode(corpus([document(7, 2, title="again"), document(40)]), second, encoder, ENCODE)
    store = MemoryStore()
    summary = load(store, "docs", [first, second], LoadOptions(workers=4))
    assert (summary.added, summary.count_ok) == (21, True)
    titles = {row.doc_id: row.title for row in stored(store).values()}
    assert titles == {f"d{n}": f"Title {n}" for n in (*range(20), 40)}


def test_a_field_of_another_type_is_quarantined(
    corpus: MakeCorpus, encoder: FakeEncoder, out: Folder
) -> None:
    encode(corpus([document(0), document(1, year="long ago")]), out, encoder, ENCODE)
    summary = load(MemoryStore(), "docs", [out], LoadOptions(fields=FIELDS))
    assert (summary.added, summary.quarantined, summary.exit) == (1, 1, Exit.QUARANTINED)


def test_a_wrong_count_does_not_serve(corpus: MakeCorpus, encoder: FakeEncoder, out: Folder) -> None:
    class Losing(MemoryStore):
        def count(self, name: str, where: Any = None) -> int:
            return super().count(name, where) - 1

    encode(corpus(), out, encoder, ENCODE)
    store = Losing()
    summary = load(store, "docs", [out], LoadOptions())
    assert (summary.exit, summary.count_ok, store.resolve("docs")) == (Exit.DRIFT, False, None)


def test_what_does_not_fit_is_refused(
    corpus: MakeCorpus, encoder: FakeEncoder, out: Folder, tmp_path: Path
) -> None:
    store = MemoryStore()
    sync(store, encoder, "docs", corpus(), SYNC)
    plain = Folder(tmp_path / "plain")
    other = FakeEncoder(name="other")
    encode(corpus(), out, other, ENCODE)
    encode(corpus(), plain, FakeEncoder(lexical=False), ENCODE)
    with pytest.raises(MismatchError, match="cannot be compared"):
        load(store, "docs", [out], LoadOptions())
    with pytest.raises(MissingHeadError):
        load(store, "docs", [plain], LoadOptions())
    with pytest.raises(MismatchError, match="different encoders"):
        load(store, "new", [out, plain], LoadOptions())


def test_an_export_of_a_half_written_collection_is_refused(
    corpus: MakeCorpus, encoder: FakeEncoder, out: Folder
) -> None:
    store = MemoryStore()
    sync(store, encoder, "docs", corpus(), SYNC)
    [some] = [row for row in stored(store).values() if row.doc_id == "d25" and row.ordinal == 1]
    store.delete("docs__g1", [some.passage_id])
    with pytest.raises(DriftError, match="verify --repair"):
        export(store, "docs", out)


def spec_of(store: Store, alias: str = "docs") -> CollectionSpec:
    name = store.resolve(alias)
    assert name is not None
    return store.spec(name)


def of_tenants(count: int) -> list[dict[str, Any]]:
    return [document(n, org="acme" if n % 2 else "globex") for n in range(count)]


def test_tenants_go_from_collection_to_collection(
    corpus: MakeCorpus, encoder: FakeEncoder, out: Folder, store: Store, tmp_path: Path
) -> None:
    rows = of_tenants(40)
    del rows[7]["org"]
    encode(corpus(rows), out, encoder, ENCODE)
    summary = load(store, "docs", [out], LoadOptions(tenant_field="org"))
    assert (summary.added, summary.quarantined, summary.exit) == (39, 1, 3)
    assert spec_of(store).tenant == "org"
    assert {row.fields["org"] for row in stored(store).values()} == {"acme", "globex"}
    with pytest.raises(MismatchError, match="is 'org', not 'lang'"):
        load(store, "docs", [out], LoadOptions(tenant_field="lang"))
    copy = Folder(tmp_path / "copy")
    export(store, "docs", copy)
    load(store, "again", [copy], LoadOptions())
    assert spec_of(store, "again") == spec_of(store)
    assert comparable(stored(store, "again")) == comparable(stored(store))
    load(store, "typed", [copy], LoadOptions(fields={"year": "int"}))
    assert (spec_of(store, "typed").tenant, set(spec_of(store, "typed").fields)) == ("org", {"year", "org"})
    other = Folder(tmp_path / "other")
    load(store, "other", [out], LoadOptions(tenant_field="year:int"))
    assert spec_of(store, "other").tenant == "year"
    export(store, "other", other)
    with pytest.raises(UsageError, match="tenant fields org and year"):
        load(store, "both", [copy, other], LoadOptions())


@pytest.mark.parametrize("storage", ["fp16", "bf16"])
def test_halves_go_from_collection_to_collection(
    corpus: MakeCorpus, encoder: FakeEncoder, out: Folder, tmp_path: Path, storage: Storage
) -> None:
    store = MemoryStore()
    encode(corpus(), out, encoder, ENCODE)
    load(store, "whole", [out], LoadOptions())
    load(store, "docs", [out], LoadOptions(storage=storage, index_class="large"))
    assert (spec_of(store).storage, spec_of(store).index) == (storage, IndexChoice("large"))
    whole, kept = stored(store, "whole"), stored(store)
    assert all((kept[i].dense == rounded(whole[i].dense, storage)).all() for i in whole)
    copy = Folder(tmp_path / "copy")
    export(store, "docs", copy)
    load(store, "again", [copy], LoadOptions())
    assert spec_of(store, "again").storage == storage, "the storage goes along, the indexes do not"
    assert spec_of(store, "again").index == IndexChoice()
    assert comparable(stored(store, "again")) == comparable(kept)
    lite = open_store(Connection(uri=str(tmp_path / "lite.db")))
    load(lite, "docs", [copy], LoadOptions())
    assert spec_of(lite).storage == "fp32", "what Milvus Lite has not"
    assert comparable(stored(lite)) == comparable(kept)
    lite.close()


def test_an_object_store_serves_and_takes_shards(
    corpus: MakeCorpus, encoder: FakeEncoder, s3: str, tmp_path: Path
) -> None:
    there, back = Folder(f"{s3}/load"), Folder(f"{s3}/export")
    encode(corpus(), there, encoder, ENCODE)
    store = MemoryStore()
    assert load(store, "docs", [there], LoadOptions(workers=2)).added == 60
    assert export(store, "docs", back).written == 1
    assert contents(back) == contents(there)
