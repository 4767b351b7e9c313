"""What type checkers say about the public API. `make types` reads this file: it is never run.

Each line with an ignore is refused by mypy --strict. If it were accepted, the ignore would be unused, which
is an error too.
"""

from __future__ import annotations

from typing import assert_type

from m3index import (
    Document,
    Hit,
    Index,
    Query,
    RecallReport,
    RemoteIndex,
    SearchResult,
    StoredDocument,
    Summary,
    Why,
    connect,
)  # fmt: skip


def right(index: Index, remote: RemoteIndex) -> None:
    assert_type(index.search("honey bees", k=5), SearchResult)
    assert_type(remote.search("honey bees", k=5, where=["lang=en", "year>=2008"]), SearchResult)
    index.search("honey bees", where="lang=en", weights={"dense": 0.7, "sparse": 0.3}, mode="dense")
    index.search("honey bees", where={"lang": "en", "year": [2008, 2009]}, filter="year > 2007", tenant=7)
    for hit in index.similar("d1", k=3):
        assert_type(hit, Hit)
    assert_type(index.why("honey bees", "d1", k=5, where="lang=en"), Why)
    assert_type(remote.why("honey bees", "d1"), Why)
    assert_type(index.recall(300, min_recall=0.95), RecallReport)
    for result in index.search_many(["a", Query("q", "b")], texts=False):
        assert_type(result, SearchResult)
    assert_type(index.sync("corpus.jsonl", fields={"lang": str, "year": int}, max_delete="5%"), Summary)
    index.ingest([{"id": "d1", "text": "Tides", "lang": "en"}, Document("d2", "Moon")])
    index.delete(["d1"])
    index.delete(where={"lang": "xx"}, dry_run=True)
    index.verify("corpus.jsonl", subset="3/64").raise_for_differences()
    assert_type(index.get("d1", start=1), StoredDocument)
    assert_type(Index("docs", uri="m3index.db", encoder="offline", device="cpu"), Index)
    assert_type(connect("http://host:8080"), RemoteIndex)


async def awaited(index: Index) -> SearchResult:
    return await index.asearch("honey bees", k=5, where={"lang": "en"})


def wrong(index: Index, remote: RemoteIndex) -> None:
    index.search("q", where=5)  # type: ignore[arg-type]
    index.search("q", where=["org=acme", 5])  # type: ignore[list-item]
    index.search("q", where={"org": None})  # type: ignore[dict-item]
    index.search("q", wheer="org=acme")  # type: ignore[call-arg]
    index.search("q", filter=["org"])  # type: ignore[arg-type]
    index.search("q", k="3")  # type: ignore[arg-type]
    index.search("q", mode="both")  # type: ignore[arg-type]
    index.search(["q"])  # type: ignore[arg-type]
    index.delete(where=5)  # type: ignore[arg-type]
    index.sync("corpus.jsonl", fields=5)  # type: ignore[arg-type]
    index.sync("corpus.jsonl", subset="1/2")  # type: ignore[call-arg]
    index.ingest("corpus.jsonl", max_delete="5%")  # type: ignore[call-arg]
    index.why("q")  # type: ignore[call-arg]
    index.why("q", "d1", passages=True)  # type: ignore[call-arg]
    index.recall()  # type: ignore[call-arg]
    remote.search("q", where=5)  # type: ignore[arg-type]
    Index("docs", url="m3index.db")  # type: ignore[call-arg]
