"""Over a real socket: what a client gets, for good requests and bad ones."""

from __future__ import annotations

import http.client
import json
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jsonschema
import pytest
from fakes import FakeEncoder
from serving import EVIL, Server, build, serving

from m3index.errors import M3IndexError
from m3index.options import options_of
from m3index.schema import load
from m3index.search.options import RankingOptions, SearchOptions
from m3index.serve.answer import answer_schema
from m3index.serve.guard import MAX_BODY, Access, access
from m3index.serve.request import AnswerRequest
from m3index.types import EncodedBatch


def ask(
    server: Server, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> tuple[int, Any, dict[str, str]]:
    data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        server.url + path, data, {"content-type": "application/json", **(headers or {})}
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            code, text, got = answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        with error:
            code, text, got = error.code, error.read(), error.headers
    kind = got.get("content-type", "")
    return code, json.loads(text) if "json" in kind else text.decode(), dict(got)


def test_an_answer_keeps_its_contract(server: Server) -> None:
    words = {"query": "tides of the sea", "k": 5, "snippets": True, "pool": 20, "explain": True}
    code, answer, headers = ask(server, "/search", words)
    assert code == 200
    jsonschema.validate(answer, answer_schema())
    assert len(answer["hits"]) == len(answer["snippets"]) == 5
    assert answer["hits"][0]["doc_id"].startswith("en-")
    assert set(answer["legs"]) == {"dense", "sparse"}
    shown = {p for leg in answer["legs"].values() for p in leg["passages"][:20]}
    assert set(answer["pool"]) == shown
    marked = [part["text"] for part in answer["snippets"][0] if part["match"]]
    assert "tides" in marked
    assert headers["x-content-type-options"] == "nosniff"


def test_an_answer_has_the_votes_of_its_legs(server: Server) -> None:
    """With them, a client can fuse again: the contributions of the hits follow."""
    _, answer, _ = ask(server, "/search", {"query": "tides of the sea", "k": 20})
    legs = answer["legs"]
    assert answer["fusion"] == "evidence"
    for hit in answer["hits"]:
        for name, found in hit["legs"].items():
            leg, place = legs[name], found["rank"] - 1
            assert found["by_chance"] == leg["by_chance"][place]
            times = 1.0
            if name == "dense":
                unseen = leg["ids"][place] not in legs["sparse"]["ids"]
                times = 2.0 if unseen else 2.0 - legs["sparse"]["trust"]
            assert found["contribution"] == pytest.approx(times * leg["votes"][place])


def test_the_written_contract_refers_to_the_hits(server: Server) -> None:
    assert load("answer.schema.json")["properties"]["hits"]["items"] == {"$ref": "hit.schema.json"}
    assert answer_schema()["properties"]["hits"]["items"] == load("hit.schema.json")


def test_get_and_post_are_the_same(server: Server) -> None:
    posted = {
        "query": "sea tides", "k": 3, "weights": {"dense": 0.7, "sparse": 0.3}, "where": ["lang=en", "n<5"],
        "legs": False,
    }  # fmt: skip
    url = (
        "/search?query=sea+tides&k=3&weights=dense%3D0.7,sparse%3D0.3&where=lang%3Den&where=n%3C5&legs=false"
    )
    (code, by_post, _), (also, by_get, _) = ask(server, "/search", posted), ask(server, url)
    assert code == also == 200
    assert by_post.pop("timings").keys() == by_get.pop("timings").keys()
    assert by_post == by_get
    assert [h["metadata"]["lang"] for h in by_get["hits"]] == ["en"] * 3
    assert "legs" not in by_get


def test_similar_and_documents(server: Server) -> None:
    code, answer, _ = ask(server, "/search", {"similar": 'a"b', "k": 2})
    assert code == 200
    assert 'a"b' not in [hit["doc_id"] for hit in answer["hits"]]
    code, document, _ = ask(server, "/document?doc_id=long&start=1&count=2")
    assert code == 200
    assert document["passages"] > 3
    assert [text["ordinal"] for text in document["texts"]] == [1, 2]
    code, refusal, _ = ask(server, "/document?doc_id=nobody")
    assert (code, refusal["exit"]) == (404, 10)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("doc_id=long&count=1000", "count takes a whole number from 1 to 100, not '1000'."),
        ("doc_id=long&count=some", "count takes a whole number from 1 to 100, not 'some'."),
        ("doc_id=long&start=-1", "start takes a whole number from 0 up, not '-1'."),
        ("doc_id=", "doc_id takes a non-empty text, not ''."),
        ("doc_id=long&source=", "source takes a non-empty text, not ''."),
        ("start=1", "doc_id is required."),
        ("doc_id=long&tenant=acme", "Collection 'notes' has no tenant field"),
        (
            "doc_id=long&tenat=acme",
            "There is no option 'tenat'. The options are count, doc_id, ",
        ),
    ],
)
def test_bad_requests_of_documents(server: Server, url: str, says: str) -> None:
    code, answer, _ = ask(server, f"/document?{url}")
    assert (code, answer["exit"]) == (400, 2)
    assert answer["error"].startswith(says)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ({}, 400, "exactly one of query and similar"),
        ({"query": None, "similar": None}, 400, "exactly one of query and similar"),
        ({"query": ""}, 400, "The query is empty"),
        ({"query": "  "}, 400, "The query is empty"),
        ({"query": "a", "similar": "b"}, 400, "exactly one of query and similar"),
        ({"query": 5}, 400, "query takes a text, not 5."),
        ({"query": "sea", "like": "b"}, 400, "There is no option 'like'. The options are"),
        ({"query": "sea", "k": 0}, 400, "k takes a whole number from 1 to 16,384, not 0."),
        ({"query": "sea", "k": 99_999}, 400, "16,384"),
        ({"query": "sea", "k": "many"}, 400, "k takes a whole number from 1 to 16,384, not 'many'."),
        ({"query": "sea", "kk": 3}, 400, "There is no option 'kk'. The options are"),
        ({"query": "sea", "mode": "magic"}, 400, "mode takes hybrid, dense or sparse, not 'magic'."),
        ({"query": "sea", "where": ["colour=red"]}, 400, "colour"),
        ({"query": "sea", "where": []}, 400, "where is empty"),
        ({"query": "sea", "where": {}}, 400, "where is empty"),
        ({"query": "sea", "where": ""}, 400, "is not a condition"),
        ({"query": "sea", "source": ""}, 400, "source takes a non-empty text, not ''."),
        ({"query": "sea", "tenant": "acme"}, 400, "no tenant field"),
        ({"query": "sea", "tenant": ""}, 400, "tenant is empty. Name a tenant, or omit"),
        ({"query": "sea", "filter": 'lang == "en") or (1 == 1'}, 400, "parenthesis"),
        ({"query": "sea", "weights": {"dense": 0, "sparse": 0}}, 400, "All weights are 0"),
        ({"query": "sea", "weights": {"dense": float("nan"), "sparse": 1}}, 400, "weight"),
        ({"query": "sea", "rerank": "/etc/passwd"}, 400, "no reranker '/etc/passwd'"),
        ({"query": "sea", "rrf_k": -1}, 400, "rrf_k takes a number from 0 up, not -1."),
        ({"query": "x " * 50_000}, 400, "too long"),
        ({"query": "\ud800"}, 400, "Unicode"),
        ({"similar": "nobody"}, 404, "nobody"),
        ({"query": "sea", "pool": 10_000}, 400, "pool takes a whole number from 0 to 500, not 10000."),
        ([], 400, "The body is not a JSON object. Send a JSON object"),
        (b"{", 400, "JSON"),
    ],
)  # fmt: skip
def test_bad_requests_are_answered_plainly(server: Server, words: Any, code: int, says: str) -> None:
    got, answer, _ = ask(server, "/search", words)
    assert got == code, answer
    assert set(answer) - {"kind"} == {"error", "exit"}
    assert says.lower() in answer["error"].lower()
    assert answer["exit"] == {400: 2, 404: 10}[code]


@pytest.mark.parametrize("name", ["wheer", "like", "top_k", "K", "Where", "options", "self"])
def test_an_unknown_name_is_refused_wherever_it_stands(server: Server, name: str) -> None:
    """A misspelt filter must not be a search without one."""
    for asked in (
        ask(server, "/search", {"query": "sea", name: "lang=de"}),
        ask(server, "/search", {"query": "sea", name: None}),
        ask(server, f"/search?query=sea&{name}=lang%3Dde"),
        ask(server, f"/document?doc_id=long&{name}=lang%3Dde"),
    ):
        code, refusal, _ = asked
        assert (code, refusal["exit"], refusal["kind"]) == (400, 2, "UsageError")
        assert refusal["error"].startswith(f"There is no option {name!r}. The options are ")


def test_null_stands_for_what_is_left_out(server: Server) -> None:
    nothing = {declared.name: None for declared in options_of(AnswerRequest)}
    _, plain, _ = ask(server, "/search", {"query": "sea"})
    code, nulled, _ = ask(server, "/search", {**nothing, "query": "sea"})
    assert code == 200
    assert {**nulled, "timings": 0} == {**plain, "timings": 0}
    code, similar, _ = ask(server, "/search", {**nothing, "similar": "en-3"})
    assert (code, "en-3" in [hit["doc_id"] for hit in similar["hits"]]) == (200, False)


WRONG: list[dict[str, Any]] = [
    {"k": 0}, {"k": "many"}, {"depth": 3}, {"mode": "magic"}, {"fusion": "magic"}, {"weights": "dense"},
    {"weights": {"dense": 0, "sparse": 0}}, {"weights": {"dense": 1, "colour": 1}}, {"rrf_k": -1},
    {"where": []}, {"where": ["colour=red"]}, {"where": {"n": "x"}}, {"where": 5}, {"filter": ""},
    {"source": ""}, {"tenant": ""}, {"tenant": "acme"}, {"group_by": "colour"}, {"passages": "yes"},
    {"passages": True, "group_by": "lang"}, {"rerank_depth": 0}, {"rerank_weights": "m3"},
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_what_is_wrong_is_said_as_in_python(server: Server, wrong: dict[str, Any]) -> None:
    with pytest.raises(M3IndexError) as here:
        server.warm.index.search("sea", SearchOptions(**wrong))
    code, answer, _ = ask(server, "/search", {"query": "sea", **wrong})
    assert (code, answer["error"], answer["exit"]) == (400, str(here.value), int(here.value.exit_code))
    if all(isinstance(value, str | int) and not isinstance(value, bool) for value in wrong.values()):
        name, value = next(iter(wrong.items()))
        if name != "where":  # in a URL it is a text
            assert ask(server, f"/search?query=sea&{name}={value}")[1]["error"].startswith(
                str(here.value).split(", not ")[0]
            )


def test_a_refusal_names_its_class(server: Server) -> None:
    for asked, kind in (
        ({"query": " "}, "QueryError"),
        ({"query": "sea", "where": "colour=red"}, "FilterError"),
        ({"query": "sea", "k": 0}, "UsageError"),
        ({"similar": "nobody"}, "NotFoundError"),
    ):
        assert ask(server, "/search", asked)[1]["kind"] == kind


def test_unknown_paths_methods_and_sizes(server: Server) -> None:
    assert ask(server, "/nowhere")[:2] == (
        404,
        {"error": "There is nothing at /nowhere. GET /openapi.json lists the paths.", "exit": 2},
    )
    assert ask(server, "/health", {})[0] == 405


@pytest.mark.parametrize("length_is_known", [True, False])
def test_too_large_a_request_is_refused(server: Server, length_is_known: bool) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    piece = b"x" * 65536
    whole = piece * (MAX_BODY // len(piece) + 4)
    try:
        body = whole if length_is_known else iter([piece] * (len(whole) // len(piece)))
        connection.request("POST", "/search", body, {"content-type": "application/json"})
    except (BrokenPipeError, ConnectionResetError):
        pass  # it hangs up before all is sent; the answer is there
    try:
        assert connection.getresponse().status == 413
    finally:
        connection.close()


def test_strangers_host_names_are_refused_without_a_token(server: Server) -> None:
    """A page of a stranger cannot read the index by pointing its own name at 127.0.0.1."""
    code, answer, _ = ask(server, "/search?query=sea", headers={"host": "evil.example:8080"})
    assert code == 421
    assert "evil.example" in answer["error"]
    assert ask(server, "/health/live", headers={"host": "localhost:1"})[0] == 200


def test_a_token_is_wanted_where_there_is_one() -> None:
    with serving(build(), Access("correct horse battery", None)) as server:
        assert ask(server, "/health")[0] == 200
        assert ask(server, "/")[0] == 200
        for path in ("/search?query=sea", "/info", "/metrics", "/document?doc_id=ar", "/nowhere"):
            code, answer, headers = ask(server, path)
            assert (code, answer["exit"], headers["www-authenticate"]) == (401, 12, "Bearer")
        for wrong in ("Bearer correct horse batter", "Basic correct horse battery", "Bearer ", "Bearer ü"):
            value = wrong.encode().decode("latin-1")
            assert ask(server, "/info", headers={"authorization": value})[0] == 401
        right = {"authorization": "Bearer correct horse battery", "host": "any.example"}
        assert ask(server, "/info", headers=right)[0] == 200


def test_who_needs_a_token() -> None:
    for host in ("127.0.0.1", "localhost", "::1", "127.1.2.3"):
        assert access(host, None).token is None
    for host in ("0.0.0.0", "::", "192.168.1.5", "example.org", ""):
        made = access(host, None)
        assert made.generated
        assert len(made.token or "") > 40
        assert access(host, None).token != made.token
    assert access("0.0.0.0", "0123456789abcdef").token == "0123456789abcdef"
    for bad in ("short", "0123456789abcde\n", "0123456789abcdefü"):
        with pytest.raises(M3IndexError):
            access("127.0.0.1", bad)


def test_metrics_count_by_code_and_know_the_steps(server: Server) -> None:
    ask(server, "/search?query=sea")
    ask(server, "/search")
    ask(server, "/made/up/path")
    text = ask(server, "/metrics")[1]
    assert 'm3index_requests_total{code="200",method="GET",path="/search"}' in text
    assert 'm3index_requests_total{code="400",method="GET",path="/search"}' in text
    assert 'path="other"' in text
    assert "made/up" not in text
    for step in ("encode", "dense", "sparse", "fuse", "fetch", "total"):
        assert f'm3index_step_seconds_count{{step="{step}"}}' in text
    assert "m3index_encode_batch_queries_count" in text
    assert "m3index_ready 1.0" in text
    assert 'm3index_request_seconds_bucket{le="0.1",path="/search"}' in text


def test_openapi_names_the_words_and_the_contract(server: Server) -> None:
    code, api, _ = ask(server, "/openapi.json")
    assert code == 200
    paths = {"/search", "/why", "/document", "/info", "/health", "/status", "/health/live", "/metrics"}
    assert paths == set(api["paths"])
    parameters = {p["name"]: p for p in api["paths"]["/search"]["get"]["parameters"]}
    properties = api["components"]["schemas"]["Body"]["properties"]
    body = api["paths"]["/search"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/Body"}
    assert api["components"]["schemas"]["Body"]["additionalProperties"] is False
    for declared in options_of(SearchOptions):
        described = properties[declared.name]
        assert described["description"] == parameters[declared.name]["description"] == declared.help
        assert {k: described[k] for k in declared.kind.schema} == declared.kind.schema
        assert described.get("default") == declared.default
    asked = {"query", "similar", "legs", "snippets", "pool"}
    assert properties.keys() == parameters.keys() == {o.name for o in options_of(SearchOptions)} | asked
    why = api["components"]["schemas"]["WhyBody"]["properties"]
    assert why.keys() == {o.name for o in options_of(RankingOptions)} | {"query", "doc_id"}
    read = {p["name"]: p for p in api["paths"]["/document"]["get"]["parameters"]}
    assert read.keys() == {"doc_id", "source", "tenant", "start", "count"}
    assert all(p["description"] for p in read.values())
    schema = api["paths"]["/search"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert schema["properties"]["hits"]["items"]["title"] == "A hit"
    assert ask(server, "/docs")[0] == 404


def test_why_a_document_is_missing(server: Server) -> None:
    code, answer, _ = ask(server, "/why", {"query": "tides of the sea", "doc_id": "nobody", "k": 1})
    assert (code, answer["stage"], answer["k"]) == (200, "absent", 1)
    jsonschema.validate(answer, load("why.schema.json"))
    code, answer, _ = ask(server, "/why", {"query": "tides and moons 3 of the sea", "doc_id": "en-3"})
    assert (code, answer["stage"]) == (200, "found")
    for body, says in (
        ({"query": "sea"}, "doc_id is required"),
        ({"doc_id": "en-3"}, "query is required"),
        ({"query": "", "doc_id": "en-3"}, "The query is empty"),
        ({"query": "sea", "doc_id": "en-3", "quarantine": "/etc/passwd"}, "no option 'quarantine'"),
        ({"query": "sea", "doc_id": "en-3", "rerank": "other/model"}, "no reranker 'other/model'"),
    ):
        code, answer, _ = ask(server, "/why", body)
        assert (code, says in answer["error"]) == (400, True), answer


def test_sixteen_clients_at_once_get_their_own_answers(server: Server) -> None:
    def one(n: int) -> None:
        lang, subject = (("en", "tides and moons"), ("de", "Ebbe und Flut"))[n % 2]
        code, answer, _ = ask(server, "/search", {"query": f"{subject} {n % 12} of the sea", "k": 1})
        assert code == 200
        assert answer["hits"][0]["doc_id"] == f"{lang}-{n % 12}"

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(one, range(64)))


def test_health_tells_loading_from_ready_and_says_why() -> None:
    gate = threading.Event()

    class Slow(FakeEncoder):
        def encode_queries(self, texts, *, lexical, multi_vector=False) -> EncodedBatch:
            gate.wait(10)
            return super().encode_queries(texts, lexical=lexical, multi_vector=multi_vector)

    with serving(build(Slow()), loaded=False) as server:
        assert ask(server, "/health/live")[0] == 200
        code, answer, _ = ask(server, "/health")
        assert (code, answer["status"]) == (503, "not ready")
        code, answer, headers = ask(server, "/search?query=sea")
        assert (code, headers["retry-after"]) == (503, "2")
        assert "still loading" in answer["error"]
        gate.set()
        while not server.warm.loaded:
            pass
        assert ask(server, "/health")[:2] == (200, {"status": "ready"})


def not_ready(server: Server, code: int) -> None:
    """Waits until the server has checked for itself."""
    end = time.monotonic() + 20
    while (found := ask(server, "/health"))[0] != 503 or found[1]["exit"] != code:
        assert time.monotonic() < end, found
        time.sleep(0.05)


def test_health_sees_a_collection_that_is_gone_or_of_another_encoder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("m3index.serve.served.CHECK_SECONDS", 0.05)
    index = build()
    with serving(index) as server:
        name = index.current().name
        index.store.set_properties(name, {"space_id": "another"})
        index.store.point("other", name)
        server.warm.index._current = None
        not_ready(server, 13)
        assert ask(server, "/search?query=sea")[0] == 409
        index.store.drop_alias("notes")
        not_ready(server, 10)
        assert ask(server, "/search?query=sea")[0] == 404


def test_the_page_lets_only_its_own_script_run(server: Server) -> None:
    code, html, headers = ask(server, "/")
    assert code == 200
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert policy.count("'sha256-") == 2
    for outside in (
        "http://",
        "https://",
        "//cdn",
        "innerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
    ):
        assert outside not in html.replace("http://www.w3.org/", "")


def test_malice_comes_back_as_it_is_and_only_as_json(server: Server) -> None:
    code, answer, headers = ask(server, "/search", {"query": "malice", "k": 1, "snippets": True})
    assert code == 200
    assert headers["content-type"] == "application/json"
    assert answer["hits"][0]["title"] == EVIL
    assert "".join(part["text"] for part in answer["snippets"][0]) == f"malice {EVIL} sea malice"


def test_an_unexpected_error_tells_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(build()) as server:

        def broken(*_: object) -> None:
            raise RuntimeError("password=hunter2")

        monkeypatch.setattr(server.warm, "search", broken)
        code, answer, _ = ask(server, "/search?query=sea")
        assert (code, answer["exit"]) == (500, 1)
        assert "hunter2" not in answer["error"]


JSON = {"content-type": "application/json"}
SEND = 'Send a JSON object such as {"query": "..."} with the header content-type: application/json.'


@pytest.mark.parametrize(
    ("body", "headers", "message"),
    [
        (b'{"query": "sea"}', {"content-type": "text/plain"}, f"The content type is text/plain. {SEND}"),
        (b"query=sea", {"content-type": "application/x-www-form-urlencoded"}, f"urlencoded. {SEND}"),
        (b'{"query": "sea"}', {"content-type": ""}, f"The content type is missing. {SEND}"),
        (b'{"query": "sea"', JSON, "The body is not JSON: Expecting ',' delimiter at character 15. Send"),
        (b'"sea"', JSON, f"The body is not a JSON object. {SEND}"),
        (b"", JSON, f"The request has no body. {SEND}"),
        (b"\xff", JSON, f"The body cannot be read. {SEND}"),
        (b'{"query": "sea", "k": "ten"}', JSON, "k takes a whole number from 1 to 16,384, not 'ten'."),
    ],
)
def test_a_wrong_body_is_named_with_the_content_type(
    server: Server, body: bytes, headers: dict[str, str], message: str
) -> None:
    code, answer, _ = ask(server, "/search", body, headers)
    assert (code, answer["exit"]) == (400, 2)
    assert message in answer["error"]


def test_a_wrong_method(server: Server) -> None:
    code, answer, _ = ask(server, "/info", {})
    assert (code, answer["error"]) == (405, "/info does not take POST.")


def test_an_answer_has_facets_and_what_was_searched(server: Server) -> None:
    said = {"query": '"tides and" -Flut', "facets": ["lang"], "k": 2, "snippets": True}
    code, answer, _ = ask(server, "/search", said)
    assert code == 200
    jsonschema.validate(answer, answer_schema())
    assert (answer["query"], answer["searched"]) == ('"tides and" -Flut', "tides and")
    assert answer["facets"]["lang"]["values"] == [{"value": "en", "count": 12}]
    assert answer["notes"][0] == 'With the phrase "tides and": 12 of 40 documents found.'
    marked = {part["text"].lower() for parts in answer["snippets"] for part in parts if part["match"]}
    assert marked == {"tides"}
    by_url = ask(server, "/search?query=sea&facets=lang&facets=n&facets_over=filter&where=n>=99")[1]
    assert by_url["facets"]["n"]["documents"] == 4
    code, refused, _ = ask(server, "/search", {"query": "-sea"})
    assert (code, refused["kind"]) == (400, "QueryError")
    plain = ask(server, "/search", {"query": "-sea", "syntax": "plain"})[1]
    assert plain["searched"] == "-sea"
