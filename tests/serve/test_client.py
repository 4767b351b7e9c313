"""RemoteIndex gives what Index gives, and raises what it raises."""

from __future__ import annotations

import socket
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

import pytest
from serving import Server, build, serving

from m3index.errors import (
    MismatchError,
    NotAuthorisedError,
    NotFoundError,
    QueryError,
    StoreError,
    UnreachableError,
    UsageError,
)
from m3index.search.searcher import SearchResult
from m3index.serve.client import RemoteIndex
from m3index.serve.guard import Access


def without_times(result: SearchResult) -> SearchResult:
    return replace(result, timings={})


@pytest.mark.parametrize(
    "words",
    [
        {},
        {"k": 3, "weights": {"dense": 0.2, "sparse": 0.8}, "rrf_k": 10.0},
        {"mode": "dense", "passages": True},
        {"mode": "sparse", "explain": True},
        {"explain": True, "k": 4},
        {"fusion": "minmax", "depth": 20},
        {"group_by": "lang"},
        {"rerank": "colbert", "rerank_depth": 20},
        {"texts": False},
    ],
    ids=str,
)
def test_the_result_is_the_same_as_without_a_server(server: Server, words: dict) -> None:
    local = server.warm.index
    options = {**words, **({"rerank": local.reranker("colbert")} if "rerank" in words else {})}
    expected = local.search("tides of the sea", **options)
    assert without_times(server.client().search("tides of the sea", **words)) == without_times(expected)


def test_filters_like_and_documents(server: Server) -> None:
    client = server.client()
    hits = client.search("sea", where=["lang in en,de", "n>=5"], source="default").hits
    assert {hit.metadata["lang"] for hit in hits} == {"en", "de"}
    assert client.like('a"b', k=3).hits == server.warm.index.like('a"b', k=3).hits
    assert client.document("ar")["title"] == "المد"
    assert client.info()["fields"] == {"lang": "str", "n": "int"}


def test_errors_come_back_as_what_they_were(server: Server) -> None:
    client = server.client()
    with pytest.raises(UsageError, match="either a query"):
        client.search(" ")
    with pytest.raises(UsageError, match="colour"):
        client.search("sea", where=["colour=red"])
    with pytest.raises(UsageError, match="finite"):
        client.search("sea", rrf_k=float("nan"))
    with pytest.raises(QueryError, match="too long"):
        client.search("x" * 2_000_000)
    with pytest.raises(NotFoundError, match="nobody"):
        client.like("nobody")


def test_a_collection_of_another_encoder_is_a_mismatch() -> None:
    index = build()
    with serving(index) as server:
        index.store.set_properties(index.target().name, {"space_id": "another"})
        server.warm.index._target = None
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
    for bad in ("127.0.0.1:8080", "file:///etc/passwd", "http://", ""):
        with pytest.raises(UsageError):
            RemoteIndex(bad)


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
            with pytest.raises(StoreError, match="not as m3index"):
                client.document("x")
        finally:
            other.shutdown()
            thread.join()
    assert "/stolen" not in Elsewhere.seen
