"""The public API in memory: docstrings, methods and wrong arguments."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeEncoder
from terminal import ROWS, write_jsonl

import m3index as package
from m3index import (
    CollectionNotFoundError,
    Document,
    DriftError,
    FilterError,
    Hit,
    Index,
    M3IndexError,
    MismatchError,
    ModelNotFoundError,
    NotFoundError,
    Query,
    QueryError,
    UsageError,
)
from m3index.api import OpenOptions
from m3index.encoder.options import Model
from m3index.evaluate.options import GateOptions, RecallOptions
from m3index.index.options import DeleteOptions, IngestOptions, SyncOptions, VerifyOptions
from m3index.options import Group, options_of
from m3index.search.options import SearchOptions, WhyOptions
from m3index.searchable import ReadOptions
from m3index.service import IndexService

DOCUMENTS = [
    Document(r["id"], r["text"], r.get("title", ""), {"lang": r["lang"], "year": r["year"]}) for r in ROWS
]
FIELDS = {"lang": "str", "year": "int"}


@pytest.fixture
def index() -> Iterator[Index]:
    with Index("docs", uri="memory:", encoder=FakeEncoder()) as opened:
        opened.ingest(DOCUMENTS, fields=FIELDS)
        yield opened


# --------------------------------------------------------------- the package


def test_the_package_has_exactly_the_public_names() -> None:
    assert dir(package) == package.__all__ == sorted(package.__all__)
    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'open_store'"):
        package.open_store  # noqa: B018
    errors = {name for name, thing in vars(package.errors).items() if isinstance(thing, type)} - {"Exit"}
    public = {name for name in errors if issubclass(getattr(package.errors, name), M3IndexError)}
    assert public - {"RowRefusedError"} <= set(package.__all__)


def test_help_shows_the_options() -> None:
    for method in (Index.search, Index.sync, Index.delete, Index.reindex, Index.get, Index.asearch):
        text = inspect.getdoc(method) or ""
        parameters = inspect.signature(method).parameters
        assert "Options:" in text
        for name in list(parameters)[2:]:
            assert f"    {name}: " in text, (method.__name__, name)
    signature = inspect.signature(Index.search).parameters
    assert (signature["k"].default, signature["k"].kind) == (10, inspect.Parameter.KEYWORD_ONLY)
    assert list(inspect.signature(Index).parameters)[:1] == ["collection"]


# --------------------------------------------------------------------- write


def test_ingest_takes_documents_rows_and_paths(index: Index, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "c.jsonl", [{"id": "new", "text": "a new one"}])
    for paths in (path, str(path), [path], [str(path)]):
        assert index.ingest(paths).scanned == 1
    assert index.ingest(iter(DOCUMENTS)).unchanged == len(DOCUMENTS)
    assert index.ingest(tuple(DOCUMENTS)).unchanged == len(DOCUMENTS)
    mixed = index.ingest([{"id": "d1", "text": "Tides", "lang": "en"}, Document("d2", "Moon")])
    assert (mixed.added, mixed.exit) == (2, 0)
    assert index.search("Tides", k=1, where={"lang": "en"})[0].doc_id == "d1"
    assert index.status().documents == len(DOCUMENTS) + 3


def test_files_of_a_directory(index: Index, tmp_path: Path) -> None:
    for name in ("a.md", "drafts/b.md", "deep/c.md", "d.exe"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"# Title of {name}\n\ntext")
    options = {"root": str(tmp_path), "exclude": ["drafts/"], "source": "notes"}
    summary = index.ingest(str(tmp_path), **options)  # type: ignore[arg-type]
    assert (summary.added, summary.skipped) == (2, {"unknown type": 1, "excluded": 1})
    one = index.ingest([tmp_path / "deep" / "c.md"], root=str(tmp_path), source="notes")
    assert (one.unchanged, one.skipped) == (1, {})
    found = index.get("deep/c.md", source="notes")
    assert (found.title, found.metadata["path"]) == ("Title of deep/c.md", "deep/c.md")


def test_fields_are_declared_by_python_types() -> None:
    for fields in ({"lang": str, "year": int}, {"lang": "str", "year": "int"}, ["lang", "year:int"]):
        with Index("docs", uri="memory:", encoder=FakeEncoder()) as index:
            index.ingest(DOCUMENTS, fields=fields)
            assert index.status().fields == FIELDS
            assert {hit.doc_id for hit in index.search("fox", where=["year>=6"])} == {"fox-th", "book-en"}


def test_options_are_keywords(index: Index) -> None:
    one, two = index.ingest(DOCUMENTS[:2], source="a"), index.ingest(DOCUMENTS[:2], source="b")
    assert (one.added, two.added) == (2, 2)
    with pytest.raises(TypeError, match=r"no option 'no_such_setting'; its options are .*source"):
        index.ingest(DOCUMENTS, no_such_setting=1)
    with pytest.raises(TypeError, match="by position"):
        index.search("fox", 5)


def test_sync_delete_and_their_dry_runs(index: Index) -> None:
    planned = index.sync(DOCUMENTS[:5], dry_run=True)
    assert (planned.deleted, planned.dry_run, index.status().documents) == (2, True, 7)
    done = index.sync(DOCUMENTS[:5])
    assert (done.deleted, done.dry_run) == (2, False)
    assert index.delete(["fox-ru"]).deleted == 1
    assert index.delete(where={"lang": "zh"}, dry_run=True).deleted == 1
    assert index.delete(where={"lang": "zh"}).deleted == 1
    pruned = index.sync([*DOCUMENTS[:2], Document("unseen", "not written")], removals_only=True)
    assert (pruned.deleted, pruned.added) == (1, 0)
    assert index.status().documents == 2


def test_changes(index: Index, tmp_path: Path) -> None:
    feed = write_jsonl(
        tmp_path / "f.jsonl", [{"op": "delete", "id": "fox-en"}, {"id": "new", "text": "a new one"}]
    )
    planned = index.apply_changes(feed, dry_run=True)
    assert (planned.deleted, planned.added, index.status().documents) == (1, 1, 7)
    done = index.apply_changes(feed)
    assert (done.deleted, done.added, index.status().documents) == (1, 1, 7)


def test_verify_and_reindex(index: Index) -> None:
    index.verify(DOCUMENTS).raise_for_differences()
    index.delete(["fox-en"])
    found = index.verify(DOCUMENTS)
    assert [difference.doc_id for difference in found] == ["fox-en"]
    with pytest.raises(DriftError, match="In 'docs', 1 document differs"):
        found.raise_for_differences()
    index.verify(DOCUMENTS, repair=True).raise_for_differences()
    plan = index.reindex(None, fields={"lang": "str"}, dry_run=True)
    assert (plan.generation, plan.exit) == (2, 0)
    summary = index.reindex(DOCUMENTS, fields={"lang": "str"})
    assert (summary.generation, summary.exit) == (2, 0)
    assert index.status().fields == {"lang": "str"}
    assert index.search("the quick brown fox", k=1).hits[0].doc_id == "fox-en"
    assert [generation.current for generation in index.generations()] == [False, True]
    assert index.rollback().number == 1
    assert index.status().generation == 1


def test_a_gate_is_read_before_anything_is_built(index: Index, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="queries and qrels"):
        index.reindex(None, gate="nDCG@10>=0.5")
    queries = write_jsonl(tmp_path / "q.jsonl", [{"_id": "1", "text": "quick brown fox"}])
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n1\tfox-en\t1\n")
    done = index.reindex(
        None, fields={"lang": str}, gate="nDCG@10>=0.5", queries=queries, qrels=tmp_path / "qrels.tsv"
    )
    assert done.generation == 2


def test_bad_rows_are_counted_kept_and_logged(
    index: Index, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "c.jsonl").write_text('{"id": "x"}\nnonsense\n{"id": "y", "text": "good"}\n')
    with caplog.at_level(logging.WARNING, "m3index"):
        summary = index.ingest(tmp_path / "c.jsonl", quarantine=tmp_path / "bad.jsonl")
    assert (summary.exit, summary.added, summary.quarantined) == (3, 1, 2)
    assert [record.message.partition(": ")[0][-9:] for record in caplog.records] == ["c.jsonl:1", "c.jsonl:2"]
    assert len((tmp_path / "bad.jsonl").read_text().splitlines()) == 2
    rows = index.ingest([{"id": "z"}, {"id": "ok", "text": "fine"}])
    assert (rows.quarantined, rows.added, rows.exit) == (1, 1, 3)


def test_withheld_deletions_are_logged(index: Index, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "m3index"):
        summary = index.sync(DOCUMENTS[:1], max_delete=2)
    assert (summary.deletes_withheld, summary.exit) == (6, 14)
    assert "6 documents" in caplog.text


# -------------------------------------------------------------------- search


def test_search(index: Index) -> None:
    result = index.search("the quick brown fox", k=3)
    assert [hit.rank for hit in result] == [1, 2, 3]
    assert len(result) == 3
    assert isinstance(result[0], Hit)
    assert result[0] is result.hits[0]
    assert (result[0].doc_id, result[0].title, result[0].metadata) == (
        "fox-en",
        "Fox",
        {"lang": "en", "year": 1},
    )
    weighted = index.search("the quick brown fox", k=3, weights="dense=1,sparse=0")
    assert list(weighted.legs) == ["dense"]
    with pytest.raises(QueryError):
        index.search("   ")


def test_where(index: Index) -> None:
    found = index.search("fox", where=["year>=2", "lang in de,ru"], source="default", mode="dense")
    assert {hit.doc_id for hit in found} == {"fox-de", "fox-ru"}
    with pytest.raises(FilterError, match="lang, year"):
        index.search("fox", where=["colour=red"])


def test_similar_and_many(index: Index) -> None:
    assert "fox-en" not in [hit.doc_id for hit in index.similar("fox-en", k=3)]
    queries = [Query("a", "quick fox"), "a book", " "]
    results = list(index.search_many(queries, k=2))
    assert [result.query for result in results] == [
        Query("a", "quick fox"),
        Query("1", "a book"),
        Query("2", " "),
    ]
    assert results[0][0].doc_id == index.search("quick fox")[0].doc_id
    assert (len(results[2]), "empty" in results[2].notes[0]) == (0, True)


def test_get(index: Index) -> None:
    index.ingest([Document("long", " ".join(f"word{i}" for i in range(300)), "Long", {"lang": "en"})])
    document = index.get("long")
    assert (document.title, document.metadata["lang"]) == ("Long", "en")
    assert document.passage_count == len(document.passages) > 3
    some = index.get("long", start=1, count=2)
    assert some.passages == document.passages[1:3]
    assert some.passage_count == document.passage_count
    with pytest.raises(NotFoundError):
        index.get("nothing")
    with pytest.raises(NotFoundError):
        index.get("long", source="other")


def test_async_methods(index: Index) -> None:
    async def ask() -> list[Any]:
        return await asyncio.gather(
            index.asearch("quick fox", k=1), index.asimilar("fox-en", k=2), index.aget("fox-en")
        )

    found, similar, document = asyncio.run(ask())
    assert found[0].doc_id == index.search("quick fox", k=1)[0].doc_id
    assert [hit.doc_id for hit in similar] == [hit.doc_id for hit in index.similar("fox-en", k=2)]
    assert document == index.get("fox-en")


def test_rerankers_are_loaded_once(index: Index) -> None:
    service = index._service
    one = index.search("quick fox", rerank="colbert", k=2)
    assert one[0].rerank_score is not None
    assert service.reranker("colbert") is service.reranker("colbert")
    assert service.reranker("m3") is not service.reranker("m3", {"dense": 1.0})


def test_threads_can_search_concurrently(index: Index) -> None:
    answers: list[list[str]] = []

    def ask() -> None:
        answers.append([hit.doc_id for hit in index.search("quick brown fox")])

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 8
    assert all(answer == answers[0] for answer in answers)


# ---------------------------------------------------------- open and close


def test_a_missing_collection() -> None:
    with Index("nothere", uri="memory:", encoder=FakeEncoder()) as empty:
        for ask in (
            lambda: empty.search("x"),
            empty.status,
            lambda: empty.similar("x"),
            lambda: empty.get("x"),
        ):
            with pytest.raises(CollectionNotFoundError, match="m3index ingest -c nothere"):
                ask()


def test_an_encoder_of_another_space_is_refused(index: Index) -> None:
    other = IndexService(index._service.store, "docs", Model(encoder=FakeEncoder(name="other")))
    with pytest.raises(MismatchError, match="fake"):
        other.search("fox", SearchOptions())
    with pytest.raises(MismatchError, match="other"):
        other.update(DOCUMENTS, IngestOptions())


def test_no_model_is_loaded_before_it_is_needed(tmp_path: Path) -> None:
    with Index("docs", uri="memory:", encoder="no-such-model") as index:
        with pytest.raises(UsageError, match=r"nowhere\.jsonl"):
            index.ingest("nowhere.jsonl")  # raised before a model is loaded
        with pytest.raises(CollectionNotFoundError):
            index.status()
        with pytest.raises(ModelNotFoundError):
            index.ingest(DOCUMENTS)


def test_closing_closes_the_encoder_and_can_be_repeated() -> None:
    encoder = FakeEncoder()
    index = Index("docs", uri="memory:", encoder=encoder)
    index.close()
    assert encoder.closed
    index.close()


def test_a_database_is_created_only_on_request(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "new.db"
    with pytest.raises(CollectionNotFoundError):
        Index(uri=path, create=False)
    assert not path.parent.exists()
    Index(uri=path).close()
    assert path.is_dir()
    Index(uri=path, create=False).close()


def test_a_failed_open_releases_the_database(tmp_path: Path) -> None:
    path = str(tmp_path / "x.db")
    with pytest.raises(M3IndexError), Index(uri=path, encoder="no-such-model") as index:
        index.ingest(DOCUMENTS)
    Index(uri=path).close()


# ------------------------------------------------------------- wrong arguments


class NeverLoaded(FakeEncoder):
    """An encoder that fails when it is used."""

    def __getattribute__(self, name: str) -> Any:
        if name in ("info", "encode_ids", "encode_stream", "encode_queries_of"):
            raise AssertionError(f"the encoder was asked for {name}")
        return super().__getattribute__(name)


METHODS: dict[str, tuple[type[Group], tuple[Any, ...]]] = {
    "ingest": (IngestOptions, (DOCUMENTS,)),
    "sync": (SyncOptions, (DOCUMENTS,)),
    "apply_changes": (IngestOptions, ("feed.jsonl",)),
    "delete": (DeleteOptions, ()),
    "verify": (VerifyOptions, (DOCUMENTS,)),
    "recall": (RecallOptions, (5,)),
    "reindex": (GateOptions, (None,)),
    "search": (SearchOptions, ("fox",)),
    "similar": (SearchOptions, ("fox-en",)),
    "why": (WhyOptions, ("fox",)),
    "search_many": (SearchOptions, (["fox"],)),
    "get": (ReadOptions, ("fox-en",)),
}
REQUIRED: dict[str, dict[str, Any]] = {"why": {"doc_id": "fox-en"}}
WRONG_OF_ALL: list[Any] = [object(), b"bytes", {1, 2}, 3 + 4j]
WRONG = [
    (name, declared.name, value)
    for name, (group, _) in METHODS.items()
    for declared in options_of(group)
    for value in (*WRONG_OF_ALL, *([None] if declared.is_required else []))
]


@pytest.mark.parametrize(("method", "option", "value"), WRONG, ids=lambda v: str(v)[:20])
def test_a_wrong_type_of_every_option(index: Index, method: str, option: str, value: Any) -> None:
    """The error names the argument and is raised before a model is used or a row is written."""
    service = index._service
    service._encoder = NeverLoaded()
    with pytest.raises(UsageError, match=option):
        getattr(index, method)(*METHODS[method][1], **{**REQUIRED.get(method, {}), option: value})
    assert service.store.count("docs__g1") == len(DOCUMENTS)
    assert service.store.collections() == ["docs__g1"]


@pytest.mark.parametrize("method", ["ingest", "sync", "verify", "search", "similar", "search_many", "get"])
def test_none_is_an_option_left_out(index: Index, method: str) -> None:
    group, arguments = METHODS[method]
    nothing: dict[str, Any] = dict.fromkeys(declared.name for declared in options_of(group))

    def comparable(answer: Any) -> Any:
        if method == "search_many":
            [answer] = answer
        if method in ("search", "similar", "search_many"):
            return [(hit.doc_id, hit.score, hit.text) for hit in answer]
        return answer if method == "get" else {**answer.to_json(), "seconds": 0}

    call = getattr(index, method)
    assert comparable(call(*arguments, **nothing)) == comparable(call(*arguments))


@pytest.mark.parametrize("option", [declared.name for declared in options_of(OpenOptions)])
def test_a_wrong_type_of_every_option_of_opening(option: str) -> None:
    for value in WRONG_OF_ALL:
        with pytest.raises(UsageError, match=option):
            Index(**{"uri": "memory:", option: value})


@pytest.mark.parametrize(
    "call",
    [
        lambda index: index.search(None),
        lambda index: index.search(["fox"]),
        lambda index: index.search(5),
        lambda index: index.search_many("fox"),
        lambda index: index.search_many(None),
        lambda index: list(index.search_many([None])),
        lambda index: index.similar(None),
        lambda index: index.similar(5),
        lambda index: index.similar(""),
        lambda index: index.get(["fox-en"]),
        lambda index: index.ingest(None),
        lambda index: index.ingest(5),
        lambda index: index.ingest({"id": "a", "text": "b"}),
        lambda index: index.ingest([5]),
        lambda index: index.ingest([None]),
        lambda index: index.sync(b"corpus.jsonl"),
        lambda index: index.apply_changes(DOCUMENTS),
        lambda index: index.verify(None),
        lambda index: index.delete(),
        lambda index: index.delete(["a"], where={"lang": "en"}),
        lambda index: index.rollback("1"),
        lambda index: index.rollback(0),
        lambda index: index.rollback(True),
        lambda index: index.search("fox", k="3"),
        lambda index: index.search("fox", k=0),
        lambda index: index.search("fox", k=True),
        lambda index: index.search("fox", weights="..."),
        lambda index: index.search("fox", weights={"dense": "much"}),
        lambda index: index.search("fox", weights={"dance": 1}),
        lambda index: index.search("fox", mode="both"),
        lambda index: index.search("fox", rerank=5),
        lambda index: index.search("fox", rrf_k=float("nan")),
        lambda index: index.search("fox", depth=5),
        lambda index: index.search("fox", passages=True, group_by="lang"),
        lambda index: index.ingest(DOCUMENTS, fields={"lang": "string"}),
        lambda index: index.ingest(DOCUMENTS, fields={"lang": set}),
        lambda index: index.ingest(DOCUMENTS, fields={"source": str}),
        lambda index: index.ingest(DOCUMENTS, retry_lock="soon"),
        lambda index: index.ingest(DOCUMENTS, overlap=-1),
        lambda index: index.sync(DOCUMENTS, max_delete="half"),
        lambda index: index.sync(DOCUMENTS, max_delete="101%"),
        lambda index: index.sync(DOCUMENTS, max_delete=-1),
        lambda index: index.verify(DOCUMENTS, subset="0/4"),
        lambda index: index.verify(DOCUMENTS, subset="5/4"),
        lambda index: index.reindex(None, gate="better"),
        lambda index: Document("a", ""),
        lambda index: Document("a", "  "),
        lambda index: Document("", "text"),
        lambda index: Document(5, "text"),
        lambda index: Document("a", None),
        lambda index: Document("a", "text", metadata=[]),
        lambda index: Document("a", "text", title=None),
        lambda index: package.connect("host:8080"),
        lambda index: package.connect(None),
        lambda index: package.connect("http://host", token=5),
        lambda index: package.connect("http://host", timeout="long"),
    ],
)
def test_wrong_arguments_are_usage_errors(index: Index, call: Callable[[Index], Any]) -> None:
    with pytest.raises(UsageError) as caught:
        call(index)
    assert str(caught.value).endswith((".", "one."))
    assert index.status().documents == len(DOCUMENTS)


def test_the_message_is_that_of_the_command_line(index: Index) -> None:
    with pytest.raises(UsageError) as caught:
        index.sync(DOCUMENTS, max_delete="5x")
    assert str(caught.value) == "max_delete takes a number of documents or a percentage up to 100%, not '5x'."


def test_an_index_has_synonyms(tmp_path: Path) -> None:
    (tmp_path / "synonyms.txt").write_text("reynard => fox\n", encoding="utf-8")
    with Index("docs", uri="memory:", encoder=FakeEncoder(), synonyms=tmp_path / "synonyms.txt") as index:
        index.ingest(DOCUMENTS, fields=FIELDS)
        result = index.search("reynard", mode="sparse")
        assert (result.searched, result[0].doc_id) == ("reynard fox", "fox-en")
        assert index.why("reynard", "fox-en", mode="sparse").is_found
    with pytest.raises(UsageError, match="cannot be read"):
        Index("docs", uri="memory:", synonyms="nothing.txt")
