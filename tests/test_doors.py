"""A filter has one meaning in every interface and every spelling, and wrong filters are refused everywhere.

The interfaces ("doors") are the command line, `Index` (search and deletion), a remote index, HTTP by POST and
by URL, the MCP tool, and the retrievers of three libraries.
"""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeEncoder
from hypothesis import given, settings
from hypothesis import strategies as st
from terminal import Command, write_jsonl

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from serving import Server, serving

from m3index import Index
from m3index.encoder.options import Model
from m3index.errors import M3IndexError, UsageError
from m3index.index.options import IngestOptions
from m3index.options import options_of
from m3index.search.options import SearchOptions
from m3index.serve.request import SearchRequest
from m3index.serve.served import ServedIndex
from m3index.service import IndexService
from m3index.store.memory import MemoryStore

ROWS = [
    {"id": f"{org}-{lang}-{year}", "text": f"sea {org} {lang} {year}", "org": org, "lang": lang, "year": year}
    for org in ("acme", "globex")
    for lang in ("en", "de")
    for year in (2007, 2008, 2009)
]  # fmt: skip
FIELDS = {"lang": str, "year": int}
ALL = {row["id"] for row in ROWS}


def of(**values: Any) -> set[str]:
    """The ids of the rows with these values; a set matches any of its values."""
    return {
        row["id"]
        for row in ROWS
        if all(row[name] in (v if isinstance(v, set) else {v}) for name, v in values.items())
    }


# A name, the options as keywords, and the rows they select.
SPELLINGS: list[tuple[str, dict[str, Any], set[str]]] = [
    ("list", {"where": ["org=acme"]}, of(org="acme")),
    ("text", {"where": "org=acme"}, of(org="acme")),
    ("mapping", {"where": {"org": "acme"}}, of(org="acme")),
    ("conditions", {"where": ["org=acme", "year>=2008"]}, of(org="acme", year={2008, 2009})),
    ("in", {"where": "lang in de,fr"}, of(lang="de")),
    ("values", {"where": {"org": "acme", "year": [2008, 2009]}}, of(org="acme", year={2008, 2009})),
    ("number as text", {"where": {"year": "2008"}}, of(year=2008)),
    ("not", {"where": ["org!=acme"]}, of(org="globex")),
    ("expression", {"filter": 'org == "acme" and year > 2007'}, of(org="acme", year={2008, 2009})),
    ("both", {"where": ["year=2007"], "filter": 'lang == "de"'}, of(year=2007, lang="de")),
    ("tenant", {"tenant": "acme"}, of(org="acme")),
    ("tenant and where", {"tenant": "acme", "where": {"lang": "en"}}, of(org="acme", lang="en")),
    ("tenant against where", {"tenant": "acme", "where": {"org": "globex"}}, set()),
    ("source", {"source": "default"}, ALL),
    ("other source", {"source": "other"}, set()),
    ("none", {}, ALL),
]

WRONG: list[tuple[str, dict[str, Any]]] = [
    ("empty text", {"where": ""}),
    ("blank text", {"where": "  "}),
    ("empty list", {"where": []}),
    ("empty mapping", {"where": {}}),
    ("no condition", {"where": ["org"]}),
    ("one of two is none", {"where": ["org=acme", ""]}),
    ("no values", {"where": {"org": []}}),
    ("a null value", {"where": {"org": None}}),
    ("nested", {"where": {"org": {"eq": "acme"}}}),
    ("nested list", {"where": [["org=acme"]]}),
    ("numbers", {"where": [1, 2]}),
    ("a number", {"where": 5}),
    ("true", {"where": True}),
    ("unknown field", {"where": {"colour": "red"}}),
    ("unknown field in text", {"where": "colour=red"}),
    ("wrong type", {"where": {"year": "acme"}}),
    ("wrong type of number", {"where": {"year": 2008.5}}),
    ("true for a number", {"where": {"year": True}}),
    ("empty expression", {"filter": ""}),
    ("blank expression", {"filter": "  "}),
    ("open parenthesis", {"filter": "(org"}),
    ("expression of another type", {"filter": ["org"]}),
    ("empty tenant", {"tenant": ""}),
    ("tenant of another type", {"tenant": ["acme"]}),
    ("empty source", {"source": ""}),
    ("unknown option", {"wheer": ["org=acme"]}),
]

Door = Callable[..., set[str]]
"""Searches with these options and returns the ids of the hits. Raises M3IndexError."""


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    path = tmp_path_factory.mktemp("doors") / "docs.db"
    with Index("docs", uri=str(path), encoder=FakeEncoder()) as index:
        index.ingest(ROWS, fields=FIELDS, tenant_field="org")
        yield index


@pytest.fixture(scope="module")
def server(index: Index) -> Iterator[Server]:
    service = index._service
    with serving(IndexService(_Open(service.store), "docs", Model(encoder=FakeEncoder()))) as running:
        yield running


class _Open:
    """A shared store, closed only by its owner."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def close(self) -> None: ...


def ids(result: Any) -> set[str]:
    return {hit.doc_id for hit in result}


def door_search(index: Index, **said: Any) -> set[str]:
    return ids(index.search("the sea", k=50, **said))


def door_similar(index: Index, **said: Any) -> set[str]:
    """All ids except that of the document, which is of `acme`; another tenant or source finds nothing."""
    return ids(index.similar("acme-en-2007", k=50, **said)) | {"acme-en-2007"}


def door_search_many(index: Index, **said: Any) -> set[str]:
    [result] = index.search_many(["the sea"], k=50, **said)
    return ids(result)


def door_fused_by_milvus(index: Index, **said: Any) -> set[str]:
    result = index.search("the sea", k=50, fusion="server", passages=True, **said)
    assert result.notes == ("Fused by Milvus.",)
    return ids(result)


def door_async(index: Index, **said: Any) -> set[str]:
    return ids(asyncio.run(index.asearch("the sea", k=50, **said)))


def over_http(request: urllib.request.Request | str) -> set[str]:
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return {hit["doc_id"] for hit in json.load(answer)["hits"]}
    except urllib.error.HTTPError as error:
        if error.code != 400:
            raise
        raise UsageError(json.load(error)["error"]) from None


def door_post(server: Server, **said: Any) -> set[str]:
    body = json.dumps({"query": "the sea", "k": 50, **said}).encode()
    return over_http(
        urllib.request.Request(server.url + "/search", body, {"content-type": "application/json"})
    )


def door_url(server: Server, **said: Any) -> set[str]:
    return over_http(
        f"{server.url}/search?" + urllib.parse.urlencode({"query": "the sea", "k": 50, **said}, doseq=True)
    )


def door_remote(server: Server, **said: Any) -> set[str]:
    return ids(server.client().search("the sea", k=50, **said))


def door_tool(index: Index, **said: Any) -> set[str]:
    pytest.importorskip("mcp", reason="the extra `mcp` is not installed")
    import anyio
    from mcp import Client

    from m3index.serve.mcp import tools

    served = ServedIndex(IndexService(_Open(index._service.store), "docs", Model(encoder=FakeEncoder())))
    served.load()

    async def call() -> Any:
        async with Client(tools(served)) as client:
            return await client.call_tool("search", {"query": "the sea", "k": 50, **said})

    answer = anyio.run(call)
    if answer.is_error:
        raise UsageError(answer.content[0].text)
    return {hit["doc_id"] for hit in answer.structured_content["hits"]}


def door_langchain(index: Index, **said: Any) -> set[str]:
    pytest.importorskip("langchain_core", reason="langchain-core is not installed")
    from m3index.integrations.langchain import M3Retriever

    found = M3Retriever(index, k=50).invoke("the sea", **said)
    made = M3Retriever(index, k=50, **said).invoke("the sea")
    assert [d.id for d in found] == [d.id for d in made]
    return {document.metadata["m3index_doc_id"] for document in found}


def door_llamaindex(index: Index, **said: Any) -> set[str]:
    pytest.importorskip("llama_index.core", reason="llama-index-core is not installed")
    from m3index.integrations.llamaindex import M3Retriever

    return {n.node.metadata["m3index_doc_id"] for n in M3Retriever(index, k=50, **said).retrieve("the sea")}


def door_haystack(index: Index, **said: Any) -> set[str]:
    pytest.importorskip("haystack", reason="haystack-ai is not installed")
    from m3index.integrations.haystack import M3Retriever

    retriever = M3Retriever("docs", search={"k": 50})
    retriever._index = index
    documents = retriever.run("the sea", search=said)["documents"]
    return {document.meta["m3index_doc_id"] for document in documents}


HERE: list[Door] = [
    door_search, door_fused_by_milvus, door_similar, door_search_many, door_async, door_tool, door_langchain,
    door_llamaindex, door_haystack,
]  # fmt: skip
THERE: list[Door] = [door_post, door_url, door_remote]


def cases(table: list[Any]) -> Any:
    return pytest.mark.parametrize("case", [row[1:] for row in table], ids=[row[0] for row in table])


def sayable_in_a_url(said: Mapping[str, Any]) -> bool:
    """The texts of a value, as a URL or a command line gives it."""
    where = said.get("where", "x")
    return isinstance(where, str) or (isinstance(where, list) and bool(where) and isinstance(where[0], str))


@cases(SPELLINGS)
@pytest.mark.parametrize("door", HERE, ids=lambda d: d.__name__)
def test_every_spelling_means_the_same(index: Index, door: Door, case: Any) -> None:
    said, expected = case
    if door is door_similar:
        if said.get("source") == "other":
            return  # the document is not in that source
        expected = expected | {"acme-en-2007"}
    assert door(index, **said) == expected


@cases(SPELLINGS)
@pytest.mark.parametrize("door", THERE, ids=lambda d: d.__name__)
def test_every_spelling_means_the_same_at_a_server(server: Server, door: Door, case: Any) -> None:
    said, expected = case
    if door is door_url and not sayable_in_a_url(said):
        pytest.skip("a URL has no mappings")
    assert door(server, **said) == expected


@pytest.mark.parametrize("door", [*HERE, *THERE], ids=lambda d: d.__name__)
def test_null_is_an_option_left_out(index: Index, server: Server, door: Door) -> None:
    if door is door_url:
        pytest.skip("a URL has no null")
    names = [declared.name for declared in options_of(SearchOptions)]
    said = dict.fromkeys({*names} - {"k", "passages", "fusion"})
    if door is door_tool:
        said = {name: None for name in said if name not in ("explain", "texts")}
    assert door(server if door in THERE else index, **said) == ALL


@pytest.mark.parametrize("door", [*HERE, *THERE], ids=lambda d: d.__name__)
@pytest.mark.parametrize(
    "unknown", [{"expr": 'org == "acme"'}, {"limit": 3}, {"top_k": 3}, {"expr": None}], ids=str
)
def test_an_unknown_option_is_refused_with_the_names_of_the_known(
    index: Index, server: Server, door: Door, unknown: dict[str, Any]
) -> None:
    if door is door_url and None in unknown.values():
        pytest.skip("a URL has no null")
    with pytest.raises((UsageError, TypeError), match=f"no option '{min(unknown)}'.* options are .*where"):
        door(server if door in THERE else index, **unknown)


@pytest.mark.parametrize("door", [*HERE, *THERE], ids=lambda d: d.__name__)
def test_an_offset_skips_hits(index: Index, server: Server, door: Door) -> None:
    if door is door_similar:
        similar = [hit.doc_id for hit in index.similar("acme-en-2007", k=50)]
        hits = [*similar[7:], "acme-en-2007"]
    elif door is door_fused_by_milvus:
        hits = [hit.doc_id for hit in index.search("the sea", k=50, fusion="server", passages=True)][7:]
    else:
        hits = [hit.doc_id for hit in index.search("the sea", k=50)][7:]
    assert len(hits) == 5
    assert door(server if door in THERE else index, offset=7) == set(hits)


@pytest.mark.parametrize("door", [*HERE, *THERE], ids=lambda d: d.__name__)
@pytest.mark.parametrize(
    "more",
    [
        {"boost": ["year: gauss(2009, scale=0.5)", "org=acme: 3"]},
        {"boost": "lang=de: 1000"},
        {"sort": "year:desc"},
        {"diversity": 0.9},
    ],
    ids=str,
)
def test_boosts_sorting_and_diversity_order_the_hits(
    index: Index, server: Server, door: Door, more: dict[str, Any]
) -> None:
    """Of a part of the list, each door has those that a search in this process has."""
    if door is door_fused_by_milvus and "diversity" not in more:
        [note] = index.search("the sea", fusion="server", passages=True, **more).notes
        assert note.startswith("Fused by m3index: Milvus ")
        return
    same: dict[str, Any] = {"k": 50, **more}
    if door is door_similar:
        whole = [*(hit.doc_id for hit in index.similar("acme-en-2007", **same)), "acme-en-2007"]
    elif door is door_fused_by_milvus:
        whole = [hit.doc_id for hit in index.search("the sea", fusion="server", passages=True, **same)]
    else:
        whole = [hit.doc_id for hit in index.search("the sea", **same)]
    assert len(whole) == len(ALL)
    rest = door(server if door in THERE else index, offset=7, **more)
    assert rest == set(whole[7:]) | ({"acme-en-2007"} if door is door_similar else set())


@pytest.mark.parametrize("door", [*HERE, *THERE], ids=lambda d: d.__name__)
@pytest.mark.parametrize(
    ("said", "says"),
    [
        ({"boost": ["lang=en"]}, "is not a boost"),
        ({"boost": ["colour=red: 2"]}, "no field 'colour' to boost by"),
        ({"sort": "colour"}, "no field 'colour' to sort by"),
        ({"sort": "year", "diversity": 0.5}, "sort and diversity cannot be combined"),
        ({"diversity": 2}, "diversity takes a number from 0 to 1"),
        ({"page": 2, "offset": 3}, "page and offset cannot be combined"),
    ],
    ids=str,
)
def test_wrong_orders_are_refused(
    index: Index, server: Server, door: Door, said: dict[str, Any], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        door(server if door in THERE else index, **said)


@pytest.mark.parametrize("door", [*HERE, *THERE], ids=lambda d: d.__name__)
def test_facets_are_of_declared_fields_or_refused(index: Index, server: Server, door: Door) -> None:
    retrievers = {door_langchain, door_llamaindex, door_haystack}
    there = server if door in THERE else index
    said: dict[str, Any] = {"facets": ["lang", "year"]}
    if door in retrievers:
        with pytest.raises(UsageError, match="returns documents only, not facets"):
            door(there, **said)
    elif door is not door_fused_by_milvus:  # m3index fuses then, and says so
        assert door(there, **said) == ALL
    with pytest.raises(UsageError, match=r"facets|colour"):
        door(there, facets=["colour"])


@pytest.mark.parametrize("door", [*HERE, *THERE], ids=lambda d: d.__name__)
def test_a_path_is_not_taken_from_a_search(index: Index, server: Server, door: Door) -> None:
    with pytest.raises((UsageError, TypeError), match="no option 'synonyms'"):
        door(server if door in THERE else index, synonyms="/etc/passwd")


@cases(WRONG)
@pytest.mark.parametrize("door", HERE, ids=lambda d: d.__name__)
def test_wrong_filters_are_refused(index: Index, door: Door, case: Any) -> None:
    [said] = case
    with pytest.raises((M3IndexError, TypeError)):
        door(index, **said)


@cases(WRONG)
@pytest.mark.parametrize("door", THERE, ids=lambda d: d.__name__)
def test_wrong_filters_are_refused_at_a_server(server: Server, door: Door, case: Any) -> None:
    [said] = case
    if door is door_url and (said.get("where") in ([], {}) or not sayable_in_a_url(said)):
        pytest.skip("a URL has text only")
    if door is door_url and isinstance(said.get("filter", said.get("tenant")), list):
        pytest.skip("a URL has text only")
    with pytest.raises((M3IndexError, TypeError)):
        door(server, **said)


@cases(SPELLINGS)
def test_a_deletion_takes_the_same_filter(index: Index, case: Any) -> None:
    said, expected = case
    if "where" in said or "filter" in said:
        planned = index.delete(dry_run=True, **said)
        assert (planned.deleted, planned.dry_run) == (len(expected), True)
    else:
        with pytest.raises(UsageError):
            index.delete(dry_run=True, **said)


@cases(WRONG)
def test_a_deletion_refuses_wrong_filters(index: Index, case: Any) -> None:
    [said] = case
    before = index.status().documents
    with pytest.raises((M3IndexError, TypeError)):
        index.delete(**said)
    assert index.status().documents == before == len(ROWS)


def test_the_command_line(m3index: Command, dense_model: Path, tmp_path: Path) -> None:
    corpus = write_jsonl(tmp_path / "corpus.jsonl", ROWS)
    done = m3index(
        "ingest", corpus, "-e", dense_model, "--field", "lang", "--field", "year:int", "--tenant-field", "org"
    )
    assert done.code == 0, done.err

    def words(said: Mapping[str, Any]) -> list[str]:
        flags: list[str] = []
        for name, value in said.items():
            for one in value if isinstance(value, list) else [value]:
                flags += [f"--{name}", str(one)]
        return flags

    for name, said, expected in SPELLINGS:
        if sayable_in_a_url(said):
            done = m3index("search", "the", "sea", "-k", 50, "--format", "ids", *words(said))
            assert done.code == 0, (name, done.err)
            assert set(done.out.split()) == expected, name
    for name, said in WRONG:
        text = said.get("where", said.get("filter", said.get("tenant", "")))
        if sayable_in_a_url(said) and (isinstance(text, str) or "where" in said):
            done = m3index("search", "the", "sea", "--format", "ids", *words(said))
            assert (done.code, done.out) == (2, ""), (name, done.err)


# ------------------------------------------------- no row of another tenant

_PIECES = ("org", "lang", "year", "=", "!=", ">=", " in ", "acme", "globex", ",", '"', "or", "(", ")", " ")
_text = st.lists(st.sampled_from(_PIECES), max_size=8).map("".join)
_condition = st.one_of(
    st.builds(
        lambda f, o, v: f"{f}{o}{v}",
        st.sampled_from(["org", "lang", "year", "doc_id", "source"]),
        st.sampled_from(["=", "!=", ">=", "<", " in "]),
        st.sampled_from(["acme", "globex", "en", "2008", "acme,globex", "default"]),
    ),
    _text,
)
_scalar = st.one_of(
    st.sampled_from(["acme", "globex", "en", "2008", ""]), st.integers(2006, 2010), st.booleans()
)
_where = st.one_of(
    st.none(),
    _condition,
    st.lists(_condition, max_size=3),
    st.dictionaries(
        st.sampled_from(["org", "lang", "year", "doc_id", "nothing"]),
        st.one_of(_scalar, st.lists(_scalar, max_size=3)),
        max_size=3,
    ),
    st.recursive(_scalar, lambda inner: st.lists(inner, max_size=2), max_leaves=4),
)
_options = st.fixed_dictionaries(
    {},
    optional={
        "mode": st.sampled_from(["hybrid", "dense", "sparse"]),
        "passages": st.booleans(),
        "group_by": st.sampled_from(["lang", "year", "org"]),
        "source": st.sampled_from(["default", "other"]),
        "fusion": st.sampled_from(["rrf", "minmax", "server"]),
        "boost": st.sampled_from([["org=globex: 100"], ["year: exp(2008, scale=1)"]]),
        "sort": st.sampled_from(["org:desc", "year"]),
        "diversity": st.sampled_from([0.5, 1.0]),
        "facets": st.just(["org", "lang"]),
        "facets_over": st.sampled_from(["found", "filter"]),
    },
)


@pytest.fixture(scope="module")
def services() -> tuple[IndexService, ServedIndex]:
    service = IndexService(MemoryStore(), "docs", Model(encoder=FakeEncoder()))
    service.update(ROWS, IngestOptions(fields={"lang": str, "year": int}, tenant_field="org"))
    served = ServedIndex(service, tenant="acme")
    served.load()
    return service, served


@settings(max_examples=300, deadline=None)
@given(where=_where, options=_options)
def test_no_door_shows_a_row_of_another_tenant(
    services: tuple[IndexService, ServedIndex], where: Any, options: dict[str, Any]
) -> None:
    """All hits and all rows of every leg belong to the tenant that is named or that the server serves."""
    service, served = services
    theirs = of(org="acme")
    given = options if where is None else {**options, "where": where}
    doors: list[Callable[[], Any]] = [
        lambda: service.search("the sea", SearchOptions(k=50, tenant="acme", **given)),
        lambda: service.similar("acme-en-2007", SearchOptions(k=50, tenant="acme", **given)),
        lambda: served.search(SearchRequest(query="the sea", k=50, **given)),
        lambda: served.search(SearchRequest(query="the sea", k=50, tenant="acme", **given)),
        lambda: served.search(SearchRequest(similar="acme-de-2009", k=50, **given)),
    ]
    passages = {
        row["passage_id"]
        for row in service.store.scan("docs__g1", None, ["doc_id"])
        if row["doc_id"] in theirs
    }
    for door in doors:
        try:
            result = door()
        except M3IndexError:
            continue
        assert ids(result) <= theirs
        for ranking in result.legs.values():
            assert set(ranking.passages) <= passages
        for field, facet in result.facets.items():
            counted = {(found.value, found.count) for found in facet.values}
            assert facet.documents <= len(theirs)
            assert field != "org" or counted <= {("acme", facet.documents)}
