"""RemoteIndex gives what Index gives, and raises what it raises."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar

import pytest
from serving import Server, build, serving

import m3index
from m3index.errors import (
    FilterError,
    MismatchError,
    NotAuthorisedError,
    NotFoundError,
    QueryError,
    StoreError,
    UnreachableError,
    UsageError,
)
from m3index.search.options import SearchOptions, Sought
from m3index.search.result import SearchResult
from m3index.search.synonyms import parse_synonyms
from m3index.serve.client import RemoteIndex
from m3index.serve.guard import Access
from m3index.store.filter import Compare
from m3index.types import Document, Query


def without_times(result: SearchResult) -> SearchResult:
    """Without what an answer does not carry either: the values of fields that the search used."""
    legs = {name: replace(ranking, values={}) for name, ranking in result.legs.items()}
    return replace(result, timings={}, legs=legs)


def shown(results: Iterable[SearchResult]) -> list[tuple[Any, ...]]:
    """What a person sees of them; scores of a batch may differ in the last bit."""
    return [(result.query.query_id, result.notes, [hit.passage_id for hit in result]) for result in results]


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"where": "lang=en"},
        {"where": ["lang in en,de", "n<9"]},
        {"where": {"lang": ["en", "de"], "n": 3}},
        {"source": "default", "k": 20},
        {"weights": "dense=0.2,sparse=0.8"},
        {"rerank": "m3", "rerank_weights": {"dense": 1.0, "colbert": 2.0}},
        {"k": 3, "weights": {"dense": 0.2, "sparse": 0.8}, "rrf_k": 10.0},
        {"mode": "dense", "passages": True},
        {"mode": "sparse", "explain": True},
        {"explain": True, "k": 4},
        {"fusion": "minmax", "depth": 20},
        {"group_by": "lang"},
        {"facets": ["lang", "n"]},
        {"facets": "lang", "facets_over": "filter", "where": "n<9"},
        {"rerank": "colbert", "rerank_depth": 20},
        {"texts": False},
        {"boost": ["lang=en: 2", "n: gauss(3, scale=2)"], "explain": True},
        {"boost": "lang=en: 2", "rerank": "colbert"},
        {"sort": "n:desc", "page": 2, "k": 3},
        {"diversity": 0.7},
    ],
    ids=str,
)
def test_the_result_is_the_same_as_without_a_server(server: Server, said: dict[str, Any]) -> None:
    index, client, options = server.warm.index, server.client(), SearchOptions(**said)
    expected = without_times(index.search("tides of the sea", options))
    assert without_times(client.search("tides of the sea", **said)) == expected
    assert without_times(client.search_with("tides of the sea", options)) == expected
    assert without_times(asyncio.run(client.asearch("tides of the sea", **said))) == expected
    if not options.explain:
        similar = without_times(index.similar("en-3", options))
        assert without_times(client.similar("en-3", **said)) == similar
        assert without_times(asyncio.run(client.asimilar("en-3", **said))) == similar
    queries = [Query("a", "tides of the sea"), Query("b", " "), Query("c", "Ebbe"), Query("d", "word " * 100)]
    many = [without_times(result) for result in client.search_many(queries, **said)]
    assert [result.query for result in many] == queries
    assert shown(many) == shown(index.run(queries, options))


def test_filters_similar_and_documents(server: Server) -> None:
    client, index = server.client(), server.warm.index
    hits = client.search("sea", where=["lang in en,de", "n>=5"], source="default")
    assert {hit.metadata["lang"] for hit in hits} == {"en", "de"}
    assert client.similar('a"b', k=3).hits == index.similar('a"b', SearchOptions(k=3)).hits
    assert client.get("ar") == index.get("ar", "default")
    assert client.get("ar").title == "المد"
    assert client.info()["fields"] == {"lang": "str", "n": "int"}
    assert repr(client) == f"m3index.connect({server.url!r})"


@pytest.mark.parametrize("said", [{"k": 2}, {"k": 1, "mode": "dense"}, {"where": "lang=de", "k": 1}], ids=str)
def test_why_is_answered_as_without_a_server(server: Server, said: dict[str, Any]) -> None:
    client, index = server.client(), server.warm.index
    for doc_id in ("en-3", "de-3", "nobody"):
        expected = index.why("tides of the sea", Sought(doc_id, **said))
        assert client.why("tides of the sea", doc_id, **said) == expected
        assert asyncio.run(client.awhy("tides of the sea", doc_id, **said)) == expected
    with pytest.raises(UsageError, match="does not read quarantine files"):
        client.why("sea", "en-3", quarantine="bad.jsonl")
    with pytest.raises(QueryError):
        client.why(" ", "en-3")


def test_connect_is_a_remote_index(server: Server) -> None:
    with_slash = m3index.connect(server.url + "/")
    assert isinstance(with_slash, m3index.RemoteIndex)
    assert with_slash.search("tides", k=1)[0] == server.client().search("tides", k=1)[0]


def test_texts_are_many_queries_with_their_position_as_id(server: Server) -> None:
    results = list(server.client().search_many(["tides", "", "Ebbe", "\ud800"], k=2))
    assert [result.query for result in results] == [
        Query("0", "tides"), Query("1", ""), Query("2", "Ebbe"), Query("3", "\ud800"),
    ]  # fmt: skip
    assert [len(result) for result in results] == [2, 0, 2, 0]
    assert results[1].notes == ("The query is empty. Give at least one word.",)
    assert "not valid Unicode" in results[3].notes[0]


def test_what_is_wrong_with_all_queries_ends_them(server: Server) -> None:
    with pytest.raises(FilterError, match="colour"):
        list(server.client().search_many(["tides"], where="colour=red"))
    for refused in ("tides", 5):
        with pytest.raises(QueryError):
            server.client().search_many(refused)


@pytest.fixture(scope="module")
def long_documents() -> Iterator[Server]:
    words = {"hundred": 800, "more": 2500, "exactly two pages": 1600}
    documents = [Document(name, " ".join(f"w{i}" for i in range(n)), name) for name, n in words.items()]
    with serving(build(documents=documents, passage_tokens=10)) as running:
        yield running


@pytest.mark.parametrize("doc_id", ["hundred", "more", "exactly two pages"])
def test_a_document_of_many_passages_is_read_whole(long_documents: Server, doc_id: str) -> None:
    """A server gives a hundred passages at a time."""
    client, index = long_documents.client(), long_documents.warm.index
    document = client.get(doc_id)
    assert document == index.get(doc_id, "default")
    assert document == asyncio.run(client.aget(doc_id))
    assert document.passage_count == len(document.passages) >= 100
    assert [passage.ordinal for passage in document.passages] == list(range(document.passage_count))


@pytest.mark.parametrize(
    ("start", "count"),
    [(0, 1), (0, 100), (0, 101), (50, 200), (99, 2), (250, None), (300, 500), (5000, None)],
)
def test_a_part_of_a_long_document(long_documents: Server, start: int, count: int | None) -> None:
    found = long_documents.client().get("more", start=start, count=count)
    assert found == long_documents.warm.index.get("more", "default", start=start, count=count)
    end = found.passage_count if count is None else min(start + count, found.passage_count)
    assert [passage.ordinal for passage in found.passages] == list(range(start, end))


def test_similar_to_a_long_document(long_documents: Server) -> None:
    found = long_documents.client().similar("more", k=2)
    assert without_times(found) == without_times(
        long_documents.warm.index.similar("more", SearchOptions(k=2))
    )
    assert "64 of them were compared" in found.notes[0]
    assert {hit.doc_id for hit in found} == {"hundred", "exactly two pages"}


@pytest.mark.parametrize(
    ("read", "says"),
    [
        ({"start": -1}, "start takes a whole number from 0 up, not -1."),
        ({"count": 0}, "count takes a whole number from 1 up, not 0."),
        ({"source": ""}, "source takes a non-empty text of at most 1,024 bytes, not ''."),
        ({"tenant": "acme"}, "no tenant field"),
    ],
)
def test_documents_that_cannot_be_read(server: Server, read: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        server.client().get("long", **read)


def test_a_document_of_a_tenant() -> None:
    with serving(build(tenant_field="lang")) as server:
        client = server.client()
        assert client.get("de-3", tenant="de").title == "Note 3"
        assert client.get("de-3").title == "Note 3"
        with pytest.raises(NotFoundError, match="no document 'de-3' of source 'default'"):
            client.get("de-3", tenant="en")
        assert {hit.metadata["lang"] for hit in client.search("sea", tenant="de", k=50)} == {"de"}
        with pytest.raises(NotFoundError, match="no document 'de-3' of source 'default'"):
            client.similar("de-3", tenant="en")


def test_what_cannot_be_sent_is_refused_here() -> None:
    nobody = RemoteIndex("http://127.0.0.1:9", timeout=5)
    with pytest.raises(UsageError, match="rerank must be a name"):
        nobody.search("sea", rerank=Lengths())
    with pytest.raises(UsageError, match="conditions as text, or a mapping"):
        nobody.search("sea", where=Compare("lang", "==", "en"))
    for said in ({"where": {"n": float("nan")}}, {"weights": {"dense": float("inf"), "sparse": 1.0}}):
        with pytest.raises(UsageError, match="finite numbers"):
            nobody.search("sea", **said)
    with pytest.raises(TypeError, match="has no option 'wheer'"):
        nobody.search("sea", wheer="lang=en")
    with pytest.raises(QueryError, match="A query must be a string"):
        nobody.search(5)
    with pytest.raises(UsageError, match="The id of a document must be"):
        nobody.similar("")


class Lengths:
    """A reranker of this process."""

    name = "lengths"

    def score(self, query: str, texts: Sequence[str]) -> Any:
        return [len(text) for text in texts]


def test_errors_come_back_as_what_they_were(server: Server) -> None:
    client = server.client()
    with pytest.raises(QueryError, match=r"The query is empty\. Give at least one word\."):
        client.search(" ")
    with pytest.raises(FilterError, match="colour"):
        client.search("sea", where=["colour=red"])
    with pytest.raises(UsageError, match=r"rrf_k takes a number from 0 up, not nan\."):
        client.search("sea", rrf_k=float("nan"))
    with pytest.raises(QueryError, match="the query is too long"):
        client.search("word " * 100)
    with pytest.raises(QueryError, match="too long"):
        client.search("x" * 2_000_000)
    with pytest.raises(NotFoundError, match="nobody"):
        client.similar("nobody")
    with pytest.raises(NotFoundError, match="no document 'nobody' of source 'default'"):
        client.get("nobody")


def test_a_collection_of_another_encoder_is_a_mismatch() -> None:
    index = build()
    with serving(index) as server:
        index.store.set_properties(index.current().name, {"space_id": "another"})
        server.warm.index._current = None
        with pytest.raises(MismatchError, match="cannot be compared"):
            server.client().search("sea")


def test_a_wrong_token_is_not_authorised() -> None:
    with serving(build(), Access("0123456789abcdef", None)) as server:
        with pytest.raises(NotAuthorisedError):
            server.client("fedcba9876543210").search("sea")
        assert server.client("0123456789abcdef").search("sea").hits


def test_nobody_there_and_somebody_else() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(UnreachableError, match="m3index serve"):
        RemoteIndex(f"http://127.0.0.1:{port}").search("sea")
    for bad in ("127.0.0.1:8080", "file:///etc/passwd", "http://", "http://127.0.0.1:many", ""):
        with pytest.raises(UsageError):
            RemoteIndex(bad)
    for token in ("", "ü" * 20, "0123456789abcde\n", 5):
        with pytest.raises(UsageError, match="token"):
            RemoteIndex("http://127.0.0.1:8080", token)
    for timeout in (0, -1, "soon", float("nan")):
        with pytest.raises(UsageError, match=r"timeout takes a number from 0\.1 up"):
            RemoteIndex("http://127.0.0.1:8080", timeout=timeout)


class Elsewhere(BaseHTTPRequestHandler):
    """Another kind of server, which sends its visitors away."""

    seen: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.seen.append(self.path)
        if self.path == "/info":
            self.send_response(302)
            self.send_header("location", "/stolen")
        else:
            self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"hi")

    def log_message(self, *_: object) -> None: ...


def test_another_server_is_not_believed_and_redirections_not_followed() -> None:
    with HTTPServer(("127.0.0.1", 0), Elsewhere) as other:
        thread = threading.Thread(target=other.serve_forever)
        thread.start()
        try:
            client = RemoteIndex(f"http://127.0.0.1:{other.server_port}", "secret")
            with pytest.raises(StoreError, match="302"):
                client.info()
            with pytest.raises(StoreError, match="not that of an m3index server"):
                client.get("x")
        finally:
            other.shutdown()
            thread.join()
    assert "/stolen" not in Elsewhere.seen


def test_the_status_is_that_of_the_index(server: Server) -> None:
    assert server.client().status() == server.warm.index.status()


@pytest.mark.parametrize("query", ['"Ebbe und" sea', "tides -moons sea", '"no such words"'])
def test_phrases_exclusions_and_synonyms_are_those_of_the_server(query: str) -> None:
    index = build()
    index.synonyms = parse_synonyms(["tides, Flut"])
    with serving(index) as running:
        client, here = running.client(), running.warm.index
        for options in (SearchOptions(), SearchOptions(syntax="plain"), SearchOptions(facets=["lang"])):
            assert without_times(client.search_with(query, options)) == without_times(
                here.search(query, options)
            )
        queries = [Query("a", query), Query("b", "-tides")]
        for said in ({}, {"syntax": "words"}):
            expected = shown(here.run(queries, SearchOptions(**said)))
            assert shown(client.search_many(queries, **said)) == expected
        assert client.why(query, "en-3") == here.why(query, Sought("en-3"))
        with pytest.raises(UsageError, match="no option 'synonyms'"):
            client._post("/search", {"query": "sea", "synonyms": "/etc/passwd"})
