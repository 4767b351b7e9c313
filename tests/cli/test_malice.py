"""Ids and texts made to do harm, through the whole path, on Milvus Lite as a file and over gRPC: they do
what a user expects, and no other document is ever touched."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import lite_server
from terminal import Command, write_jsonl

IDS = [
    'x"] or passage_id in ["',
    '"',
    "'",
    "\\",
    '\\"',
    'a" or "1" == "1',
    "a' or '1' == '1",
    "line\nbreak\r\n\ttab",
    "😀 👩‍👩‍👧‍👦 𠮷野家",
    "\u2028\u202e\u200f",
    "%(x)s {x} $meta ${HOME} `id`",
    "../../etc/passwd",
    "--help",
    "x" * 5_000,
]
TEXTS = [
    'quotes " and \' and \\ and \\" at once',
    "lines\nand\r\ncarriage\rreturns\tand tabs",
    "emoji 😀👩‍👩‍👧‍👦 and 𠮷野家 and ﷽",
    "nothing \u200b \u2028 \u2029 \ufeff to see",
    "e\u0301 is not é",
    '{"json": ["in", null]} <b>and</b> <script>alert(1)</script> -- \'; drop table x',
]
BYSTANDER = {"id": "bystander", "text": "the quick brown fox stands by", "safe": True}

Commands = Callable[..., Any]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with lite_server(tmp_path_factory.mktemp("server") / "data") as uri:
        yield uri


@pytest.fixture(params=["file", "grpc"])
def store(
    request: pytest.FixtureRequest, m3index: Command, dense_model: Path, monkeypatch: pytest.MonkeyPatch
) -> Commands:
    """`m3index ... --uri` of a store of this kind, with a collection of the test's own."""
    monkeypatch.setattr("m3index.index.lock.SETTLE_SECONDS", 0.0)
    uri = "malice.db" if request.param == "file" else request.getfixturevalue("server")
    name = f"m{abs(hash(request.node.name))}"

    def run(command: str, *arguments: object, **more: Any) -> Any:
        encoder = ["-e", dense_model] if command == "ingest" and "-e" not in arguments else []
        return m3index(command, *arguments, *encoder, "--uri", uri, "-c", name, "--json", **more)

    return run


def everything(store: Commands, **options: str) -> dict[str, dict[str, Any]]:
    """Every document of the collection by id, as a search gives it back."""
    hits = store("search", "fox", "--mode", "dense", "-k", 1000).hits
    kept = ("passage_id", "source", "title", "text", "metadata")
    return {hit["doc_id"]: {name: hit[name] for name in kept} for hit in hits}


def test_ids_and_texts_come_back_and_touch_nobody(store: Commands, tmp_path: Path) -> None:
    rows = [{"id": i, "title": i[:20], "text": f"fox {n}", "metadata": {"m": i}} for n, i in enumerate(IDS)]
    rows += [{"id": f"text-{n}", "text": text, "metadata": {text: [text]}} for n, text in enumerate(TEXTS)]
    corpus = write_jsonl(tmp_path / "c.jsonl", [BYSTANDER, *rows])
    done = store("ingest", corpus)
    assert (done.code, done.summary["added"]) == (0, len(rows) + 1), done
    found = everything(store)
    assert set(found) == {row["id"] for row in rows} | {"bystander"}
    for row in rows:
        hit = found[row["id"]]
        assert hit["text"] == row["text"]
        assert hit["title"] == row.get("title", "")
        assert hit["metadata"] == row["metadata"]

    assert store("ingest", corpus).summary["unchanged"] == len(rows) + 1

    changed = [{**row, "text": row["text"] + " changed"} for row in rows]
    write_jsonl(corpus, [BYSTANDER, *changed])
    summary = store("ingest", corpus).summary
    assert (summary["updated"], summary["unchanged"], summary["count_ok"]) == (len(rows), 1, True)
    assert everything(store)["bystander"] == found["bystander"]

    for row in rows:
        near = store("search", f"--similar={row['id']}", "-k", 2)
        assert near.code == 0, near
        assert row["id"] not in [hit["doc_id"] for hit in near.hits]

    write_jsonl(corpus, [BYSTANDER])
    summary = store("sync", corpus, "--max-delete", "100%").summary
    assert (summary["deleted"], summary["unchanged"], summary["store_count"]) == (len(rows), 1, 1)
    assert set(everything(store)) == {"bystander"}


def test_deleting_some_leaves_the_others(store: Commands) -> None:
    bad = IDS[:7]
    rows = [BYSTANDER, *({"id": i + end, "text": f"fox {i}"} for i in bad for end in ("", "2"))]
    store("ingest", "-", stdin="".join(json.dumps(row) + "\n" for row in rows))
    done = store("delete", *bad, "--yes")
    assert (done.code, done.summary["deleted"]) == (0, len(bad)), done
    assert set(everything(store)) == {"bystander", *(i + "2" for i in bad)}


def test_filters_take_user_strings_as_they_are(store: Commands) -> None:
    values = [*IDS[:7], "plain"]
    rows = [{"id": str(n), "text": "fox", "who": value} for n, value in enumerate(values)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    assert store("ingest", "-", "--field", "who:str", stdin=lines).code == 0
    for n, value in enumerate(values):
        done = store("search", "fox", "--where", f"who={value}", "--mode", "dense")
        assert [hit["doc_id"] for hit in done.hits] == [str(n)], (value, done)


def test_sources_are_told_apart(store: Commands) -> None:
    line = json.dumps({"id": "same", "text": "fox"}) + "\n"
    for source in ("one", 'two" or source != "'):
        assert store("ingest", "-", "--source", source, stdin=line).summary["added"] == 1
    found = store("search", "fox", "--mode", "dense", "--source", 'two" or source != "').hits
    assert [hit["source"] for hit in found] == ['two" or source != "']


def test_what_cannot_be_stored_is_quarantined_with_its_reason(store: Commands) -> None:
    lines = [
        json.dumps(BYSTANDER),
        '{"id": "nul \\u0000 id", "text": "fox"}',
        '{"id": "lone \\ud800 id", "text": "fox"}',
        '{"id": "lone", "text": "half \\ud83d a pair"}',
        '{"id": "title", "title": "half \\ud83d a pair", "text": "fox"}',
        json.dumps({"id": "i" * 70_000, "text": "fox"}),
        json.dumps({"id": "meta", "text": "fox", "metadata": {"m": "x" * 70_000}}),
        json.dumps({"id": "umeta", "text": "fox", "metadata": {"m": "語" * 25_000}}),
        json.dumps({"id": "long title", "title": "t " * 40_000, "text": "fox"}),
        json.dumps({"id": "field", "text": "fox", "lang": "x" * 70_000}),
    ]
    done = store("ingest", "-", "--field", "lang:str", stdin="\n".join(lines) + "\n")
    assert done.code == 3, done
    reasons = {line["line"]: line["message"] for line in done.lines if line["type"] == "error"}
    assert set(reasons) == set(range(2, 11)), reasons
    assert "NUL" in reasons[2]
    assert "surrogate" in reasons[3] and "surrogate" in reasons[4] and "surrogate" in reasons[5]  # noqa: PT018
    assert "bytes" in reasons[7]
    assert set(everything(store)) == {"bystander"}
    assert done.summary["count_ok"] is True


def test_metadata_up_to_the_limit(store: Commands) -> None:
    value = "x" * (65_536 - len(json.dumps({"m": ""})))
    done = store("ingest", "-", stdin=json.dumps({"id": "1", "text": "fox", "metadata": {"m": value}}) + "\n")
    assert (done.code, done.summary["added"]) == (0, 1), done.lines
    assert everything(store)["1"]["metadata"] == {"m": value}


def test_a_nul_in_a_text(store: Commands) -> None:
    """It is text as any other, or it is told of; it is not cut there in silence."""
    done = store("ingest", "-", stdin='{"id": "1", "text": "before \\u0000 after"}\n')
    if done.code == 0:
        assert everything(store)["1"]["text"] == "before \0 after"
    else:
        assert done.code == 3


@pytest.mark.parametrize("unit", ["word ", "😀"])
def test_300_000_characters(store: Commands, unit: str) -> None:
    text = (unit * 300_000)[:300_000]
    lines = [json.dumps(BYSTANDER), json.dumps({"id": "long", "text": text, "title": "T"})]
    done = store("ingest", "-", "--passage-tokens", "128", "--overlap", "0", stdin="\n".join(lines) + "\n")
    assert (done.code, done.summary["added"], done.summary["count_ok"]) == (0, 2, True), done.lines[-1]
    hits = store("search", "fox", "--mode", "dense", "--passages", "-k", 10_000, "--depth", 16_384).hits
    parts = {hit["ordinal"]: hit["text"] for hit in hits if hit["doc_id"] == "long"}
    assert "".join(parts[i] for i in range(len(parts))) == text
    assert {hit["doc_id"] for hit in hits} == {"long", "bystander"}


QUERIES = ['x"] or passage_id in ["', "\\", "'; drop", "😀", "a\nb", "((((", '"', "%s {0}", "語" * 50]


@pytest.mark.parametrize("sparse", ["lexical", "bm25"])
def test_queries(store: Commands, m3_model: Path, sparse: str) -> None:
    line = json.dumps(BYSTANDER) + "\n"
    assert store("ingest", "-", "-e", m3_model, "--sparse", sparse, stdin=line).code == 0
    for query in QUERIES:
        done = store("search", query, "--explain")
        assert done.code == 0, (query, done)
        assert [hit["doc_id"] for hit in done.hits] == ["bystander"], query
    too_long = store("search", "fox " * 200)
    assert too_long.code == 2
    assert "128" in too_long.lines[0]["message"]
