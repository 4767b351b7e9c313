"""The client of a server: same options, same results. Uses only the standard library."""

from __future__ import annotations

import http.client
import io
import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol
from urllib.parse import urlencode

from m3index.addresses import check_secrecy, is_own
from m3index.errors import QueryError, StoreError, UnreachableError, UsageError
from m3index.index.state import Status
from m3index.options import Number, Text, check, options_of
from m3index.search.fusion import Ranking
from m3index.search.options import RankingOptions, SearchOptions, Sought, WhyOptions
from m3index.search.result import BoostFactor, Crossing, Explanation, Match, RankRange, SearchResult
from m3index.search.stages import Why
from m3index.searchable import ReadOptions, Searchable
from m3index.serve.http_errors import MAX_BODY, error_of
from m3index.serve.options import ServerUrl
from m3index.types import MAX_PASSAGES, Hit, Leg, LegRank, Query, StoredDocument, StoredPassage

TIMEOUT = 60.0
"""Seconds to wait for a response of a server: for all of it."""

MAX_ANSWER = 256 << 20
"""The bytes up to which a response is read. The largest ones have thousands of hits with long texts."""


def connect(
    url: str, token: str | None = None, *, timeout: float | None = None, insecure: bool = False
) -> RemoteIndex:
    """An index behind `m3index serve`, to search and read like a local one.

        remote = m3index.connect("http://127.0.0.1:8080")
        for hit in remote.search("honey bees", k=5):
            print(hit.rank, hit.doc_id)

    url: `http://host:port`, with the path prefix if there is one. token: that of the server. timeout:
    seconds to wait for a response, by default 60. insecure: send the token over `http://` to another machine
    too. Connects on the first call. Raises UsageError for an invalid argument.
    """
    return RemoteIndex(url, token, timeout=timeout, insecure=insecure)


class RemoteIndex(Searchable):
    """An index behind `m3index serve`, created by `connect`.

    Its methods raise UnreachableError if the server does not respond, NotAuthorisedError for a wrong
    token, and the errors that the search on the server raised.
    """

    def __init__(
        self, url: str, token: str | None = None, *, timeout: float | None = None, insecure: bool = False
    ) -> None:
        self._url: str = check("url", ServerUrl(), url).rstrip("/")
        self._token: str | None = None if token is None else check("token", Text(), token)
        if token is not None and not (token.isascii() and token.isprintable()):
            raise UsageError("A token must consist of printable ASCII characters.")
        check_secrecy(self._url, has_token=token is not None, insecure=insecure)
        self._timeout: float = check("timeout", Number(0.1), TIMEOUT if timeout is None else timeout)
        # A redirect could send the token to another server.
        proxies = urllib.request.ProxyHandler({} if is_own(self._url) else None)
        self._opener = urllib.request.build_opener(_NoRedirects, _Http, _Https, proxies)

    def __repr__(self) -> str:
        return f"m3index.connect({self._url!r})"

    def info(self) -> dict[str, Any]:
        """The collection, its fields, and the values of the search options. Raises StoreError."""
        return self._request("/info")

    def status(self) -> Status:
        """The state of the collection. Raises StoreError, UsageError from a server of one tenant."""
        answer = self._request("/status")
        try:
            return Status(**{name: value for name, value in answer.items() if name != "type"})
        except TypeError:
            raise StoreError(
                f"{self._url} runs another version of m3index. Upgrade one of the two."
            ) from None

    def _search(self, query: str, options: SearchOptions) -> SearchResult:
        return _result(self._post("/search", {"query": query, **_changes(options, SearchOptions)}))

    def _similar(self, doc_id: str, options: SearchOptions) -> SearchResult:
        return _result(self._post("/search", {"similar": doc_id, **_changes(options, SearchOptions)}))

    def _why(self, query: str, options: WhyOptions) -> Why:
        if options.quarantine is not None:
            raise UsageError("A server does not read quarantine files. Leave out quarantine.")
        answer = self._post("/why", {"query": query, **_changes(options, Sought)})
        try:
            return Why.from_json(answer)
        except (KeyError, TypeError, ValueError) as error:
            raise _invalid(error) from error

    def _search_many(self, queries: Iterable[Query], options: SearchOptions) -> Iterator[SearchResult]:
        for query in queries:
            try:
                result = self._search(query.text, options)
            except QueryError as error:
                yield SearchResult(query, notes=(str(error),))
            else:
                yield replace(result, query=query)

    def _get(self, doc_id: str, options: ReadOptions) -> StoredDocument:
        first = self._page(doc_id, options, options.start, options.count)
        passages = [*first["texts"]]
        end: int = first["passages"]
        if options.count is not None:
            end = min(end, options.start + options.count)
        for start in range(options.start + MAX_PASSAGES, end, MAX_PASSAGES):
            passages += self._page(doc_id, options, start, end - start)["texts"]
        return StoredDocument(
            doc_id=first["doc_id"],
            source=first["source"],
            title=first["title"],
            metadata=first["metadata"],
            passage_count=first["passages"],
            passages=tuple(StoredPassage(p["ordinal"], p["passage_id"], p["text"]) for p in passages),
        )

    def _page(self, doc_id: str, options: ReadOptions, start: int, count: int | None) -> dict[str, Any]:
        """Passages of a document, at most as many as a response holds."""
        size = MAX_PASSAGES if count is None else min(count, MAX_PASSAGES)
        parameters = {"doc_id": doc_id, "source": options.source, "start": start, "count": size}
        if options.tenant_name is not None:
            parameters["tenant"] = options.tenant_name
        return self._request(f"/document?{urlencode(parameters)}")

    def _post(self, path: str, request: Mapping[str, Any]) -> dict[str, Any]:
        try:
            payload = json.dumps(request, allow_nan=False).encode()
        except (TypeError, ValueError):
            raise UsageError(
                "The options contain a value that JSON cannot express. Use texts and finite numbers."
            ) from None
        if len(payload) > MAX_BODY:
            raise QueryError(f"The query is too long: a server accepts at most {MAX_BODY:,} bytes.")
        return self._request(path, payload)

    def _request(self, path: str, payload: bytes | None = None) -> dict[str, Any]:
        headers = {"accept": "application/json", "content-type": "application/json"}
        if self._token:
            headers["authorization"] = f"Bearer {self._token}"
        request = urllib.request.Request(self._url + path, payload, headers)  # noqa: S310  (checked above)
        try:
            try:
                with self._opener.open(request, timeout=self._timeout) as response:
                    body = self._read(response)
            except urllib.error.HTTPError as error:
                with error:
                    raise self._refusal(error.code, self._read(error)) from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise UnreachableError(
                f"{self._url} does not respond: {reason}. Is `m3index serve` running?"
            ) from None
        try:
            parsed = json.loads(body)
        except ValueError:
            parsed = None
        if not isinstance(parsed, dict):
            raise StoreError(f"The response of {self._url} is not that of an m3index server. Check the URL.")
        return parsed

    def _read(self, response: Readable) -> bytes:
        """The whole body, if a server of m3index can have sent it. Raises StoreError."""
        body = response.read(MAX_ANSWER + 1)
        if len(body) > MAX_ANSWER:
            raise StoreError(
                f"The response of {self._url} is larger than {MAX_ANSWER >> 20} MiB, which m3index never "
                "sends. Check the URL."
            )
        return body

    def _refusal(self, code: int, body: bytes) -> Exception:
        try:
            answer = json.loads(body)
            return error_of(str(answer["error"]), int(answer["exit"]), answer.get("kind"))
        except (ValueError, KeyError, TypeError):
            return StoreError(
                f"{self._url} responded with HTTP {code}, but is not an m3index server. Check the URL."
            )


class Readable(Protocol):
    def read(self, amt: int, /) -> bytes: ...


class _Timed(io.RawIOBase):
    """Reads from a socket until a point in time, however slowly the bytes arrive. The timeout of a socket
    alone starts anew with each byte."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, end: float) -> None:
        self._raw, self._socket, self._end = raw, sock, end

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._socket.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """A response of which every part arrives before the end."""

    def __init__(self, sock: socket.socket, *args: Any, **named: Any) -> None:
        super().__init__(sock, *args, **named)
        end = time.monotonic() + (sock.gettimeout() or TIMEOUT)
        self.fp = io.BufferedReader(_Timed(self.fp.detach(), sock, end))


class _Connection(http.client.HTTPConnection):
    response_class = _Response


class _SecureConnection(http.client.HTTPSConnection):
    response_class = _Response


class _Http(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Connection, req)


class _Https(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_SecureConnection, req)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def _changes(options: RankingOptions, group: type[RankingOptions]) -> dict[str, Any]:
    """The options of the group that differ from their defaults. Raises UsageError for values that cannot be
    sent."""
    values: dict[str, Any] = {}
    for declared in options_of(group):
        value = getattr(options, declared.name)
        if value == declared.default:
            continue
        if declared.name == "rerank" and not isinstance(value, str):
            raise UsageError("rerank must be a name: the server loads the reranker itself.")
        if declared.name == "where" and not isinstance(value, str | Mapping | Sequence):
            raise UsageError("where must be conditions as text, or a mapping: a built filter cannot be sent.")
        values[declared.name] = value
    return values


def _result(answer: Mapping[str, Any]) -> SearchResult:
    try:
        return SearchResult(
            query=Query("", answer["query"]),
            hits=tuple(_hit(hit) for hit in answer["hits"]),
            legs={name: _ranking(ranking) for name, ranking in answer.get("legs", {}).items()},
            weights=answer["weights"],
            timings=answer["timings"],
            notes=tuple(answer["notes"]),
            explanations=tuple(_explanation(h["explanation"]) for h in answer["hits"] if "explanation" in h),
        )
    except (KeyError, TypeError) as error:
        raise _invalid(error) from error


def _invalid(error: Exception) -> StoreError:
    return StoreError(f"The response of the server is not valid ({error!r}). Does it run this version?")


def _hit(hit: Mapping[str, Any]) -> Hit:
    group = hit.get("group")
    return Hit(
        rank=hit["rank"],
        doc_id=hit["doc_id"],
        passage_id=hit["passage_id"],
        ordinal=hit["ordinal"],
        source=hit["source"],
        score=hit["score"],
        title=hit.get("title", ""),
        text=hit.get("text", ""),
        metadata=hit.get("metadata", {}),
        legs={name: LegRank(**leg) for name, leg in hit["legs"].items()},
        rerank_score=hit.get("rerank_score"),
        boosted_score=hit.get("boosted_score"),
        fused_rank=hit.get("fused_rank", hit["rank"]),  # omitted if equal to the rank
        group=tuple(group) if isinstance(group, list) else group,
        breadcrumb=hit.get("breadcrumb", ""),
        anchor=hit.get("anchor", ""),
    )


def _ranking(ranking: Mapping[str, Any]) -> Ranking:
    return Ranking(
        tuple(ranking["ids"]),
        tuple(ranking["scores"]),
        tuple(ranking["passages"]),
        Leg(ranking["leg"]),
        ranking["depth"],
        ranking["trust"],
    )


def _explanation(explanation: Mapping[str, Any]) -> Explanation:
    crossings: Sequence[Mapping[str, Any]] = explanation.get("crossings", ())
    ranks: Sequence[Mapping[str, Any]] = explanation.get("ranks", ())
    return Explanation(
        matches=tuple(
            Match(m["token"], m.get("query_weight"), m.get("passage_weight")) for m in explanation["matches"]
        ),
        leg=explanation.get("leg"),
        share=explanation.get("share"),
        crossings=tuple(Crossing(c["hit"], c["share"], c["overtakes"]) for c in crossings),
        ranks=tuple(RankRange(r["from"], r["to"], r["rank"]) for r in ranks),
        boosts=tuple(BoostFactor(b["boost"], b["factor"]) for b in explanation.get("boosts", ())),
    )
