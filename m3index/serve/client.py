"""A search that a server answers: the same words, the same result. Only the standard library."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode, urlsplit

from m3index.errors import QueryError, StoreError, UnreachableError, UsageError
from m3index.search.explain import Crossing, Explanation, Match, RankRange
from m3index.search.fusion import Ranking
from m3index.search.searcher import SearchResult
from m3index.serve.faults import MAX_BODY, error_of
from m3index.types import Hit, LegRank, Query


class RemoteIndex:
    """An index behind `m3index serve`.

    url: `http://host:port`, a path below it if there is one. token: what the server was started
    with. timeout: seconds for one answer. Raises UnreachableError where nobody answers, and what the
    server's own search raised.
    """

    def __init__(self, url: str, token: str | None = None, *, timeout: float = 60.0) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise UsageError(f"A server is named like http://127.0.0.1:8080; {url!r} is not.")
        self._url = url.rstrip("/")
        self._token = token
        self._timeout = timeout
        # An answer that says to go elsewhere must not take the token there.
        self._opener = urllib.request.build_opener(_NoRedirects)

    def search(self, text: str, **words: Any) -> SearchResult:
        """The best hits for a text. words: as of `POST /search` (`k=5, where=["lang=en"]`)."""
        return _result(self._post({"query": text, **words}))

    def like(self, doc_id: str, source: str = "", **words: Any) -> SearchResult:
        """The documents nearest to one of the collection."""
        return _result(self._post({"like": doc_id, "source": source, **words}))

    def document(self, doc_id: str, source: str = "default") -> dict[str, Any]:
        """A document's title, metadata and passages."""
        return self._ask(f"/document?{urlencode({'doc_id': doc_id, 'source': source})}")

    def info(self) -> dict[str, Any]:
        """The collection, its fields, and what a search can choose from."""
        return self._ask("/info")

    def _post(self, words: Mapping[str, Any]) -> dict[str, Any]:
        given = {name: value for name, value in words.items() if value is not None}
        try:
            payload = json.dumps(given, allow_nan=False).encode()
        except ValueError:
            raise UsageError("A number that is sent to a server is finite.") from None
        if len(payload) > MAX_BODY:
            raise QueryError(f"The query is too long: a server reads at most {MAX_BODY:,} bytes.")
        return self._ask("/search", payload)

    def _ask(self, path: str, payload: bytes | None = None) -> dict[str, Any]:
        headers = {"accept": "application/json", "content-type": "application/json"}
        if self._token:
            headers["authorization"] = f"Bearer {self._token}"
        request = urllib.request.Request(self._url + path, payload, headers)  # noqa: S310  (checked above)
        try:
            with self._opener.open(request, timeout=self._timeout) as answer:
                body = answer.read()
        except urllib.error.HTTPError as error:
            with error:
                raise self._refusal(error.code, error.read()) from None
        except (OSError, urllib.error.URLError) as error:
            reason = getattr(error, "reason", error)
            raise UnreachableError(
                f"No answer from {self._url}: {reason}. Is `m3index serve` running?"
            ) from None
        try:
            parsed = json.loads(body)
        except ValueError:
            parsed = None
        if not isinstance(parsed, dict):
            raise StoreError(f"{self._url} answers, but not as m3index does.")
        return parsed

    def _refusal(self, code: int, body: bytes) -> Exception:
        try:
            answer = json.loads(body)
            return error_of(str(answer["error"]), int(answer["exit"]))
        except (ValueError, KeyError, TypeError):
            return StoreError(f"{self._url} answers with HTTP {code}, and not as m3index does.")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


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
        raise StoreError(f"The server's answer cannot be read ({error!r}); is it of this version?") from error


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
        fused_rank=hit.get("fused_rank", hit["rank"]),  # given where it is another
        group=tuple(group) if isinstance(group, list) else group,
    )


def _ranking(ranking: Mapping[str, Any]) -> Ranking:
    return Ranking(
        tuple(ranking["ids"]), tuple(ranking["scores"]), tuple(ranking["passages"]), ranking["metric"]
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
    )
