"""A hit says where in its document the passage is: by section, page or line, at every door."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.request import urlopen

import pytest
import samples
from fakes import FakeEncoder
from jsonschema import Draft202012Validator
from serving import serving

from m3index import schema
from m3index.cli import show
from m3index.documents import kinds
from m3index.encoder.options import Model
from m3index.index.options import SyncOptions, VerifyOptions
from m3index.integrations.answers import added
from m3index.search.hits import hit_json
from m3index.search.options import SearchOptions
from m3index.service import IndexService
from m3index.store.options import Connection
from m3index.store.rows import row_fields, row_of
from m3index.types import Hit

SIZE = SyncOptions(passage_tokens=40, overlap=0)


def words(name: str, count: int = 20) -> str:
    return " ".join(f"{name}{i}" for i in range(count))


GUIDE = f"# Guide\n\n{words('intro')}\n\n## Install\n\n{words('any')}\n\n### On `Linux`\n\n{words('tux')}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "guide.md").write_text(f"---\ntitle: The book\n---\n{GUIDE}")
    (tmp_path / "log.txt").write_text("\n".join(f"{words(f'line{i}x', 9)}." for i in range(12)))
    (tmp_path / "rows.jsonl").write_text(json.dumps({"id": "row", "text": GUIDE}))
    if kinds.is_installed("pdf"):
        (tmp_path / "pages.pdf").write_bytes(samples.pdf([words(f"p{i}x") for i in range(4)]))
    return tmp_path


@pytest.fixture
def index(folder: Path) -> Iterator[IndexService]:
    with IndexService.open(Connection(uri="memory:"), Model(encoder=FakeEncoder())) as index:
        assert index.update([folder], SIZE).exit == 0
        yield index


def found(index: IndexService, query: str) -> Hit:
    return index.search(query, SearchOptions(k=1, mode="sparse"))[0]


def test_hits_have_a_breadcrumb_and_an_anchor(index: IndexService) -> None:
    hit = found(index, "tux3 tux4")
    assert (hit.breadcrumb, hit.anchor) == ("Guide > Install > On Linux", "on-linux")
    assert hit.place == "guide.md#on-linux"
    row = index.search(words("tux", 9), SearchOptions(where="doc_id=row", mode="sparse"))[0]
    assert (row.breadcrumb, row.anchor) == ("Guide > Install > On Linux", "on-linux")
    first = found(index, "intro3 intro4")
    assert (first.breadcrumb, first.anchor) == ("Guide", "")
    line = found(index, words("line11x", 9))
    assert line.text.startswith("line")
    assert line.anchor == f"L{1 + int(line.text[4:].partition('x')[0])}"
    if kinds.is_installed("pdf"):
        assert found(index, "p2x3 p2x4").anchor == "page=3"


def test_headings_are_what_a_passage_is_found_by(index: IndexService) -> None:
    options = SearchOptions(mode="sparse", passages=True, k=2, explain=True)
    result = index.search("Install > tux3", options)
    assert {hit.anchor for hit in result} == {"on-linux"}
    assert [len(explanation.matches) for explanation in result.explanations] == [3, 3]


def test_every_door_shows_them(index: IndexService, capsys: pytest.CaptureFixture[str]) -> None:
    result = index.search("tux3 tux4", SearchOptions(k=1))
    line = hit_json(result[0])
    Draft202012Validator(schema.load("hit.schema.json")).validate(line)
    assert (line["breadcrumb"], line["anchor"]) == ("Guide > Install > On Linux", "on-linux")
    assert added(result[0])["m3index_anchor"] == "on-linux"
    show.table(result)
    printed = capsys.readouterr().out
    assert "\n    Guide > Install > On Linux\n    guide.md#on-linux · passage 2" in printed
    with serving(index) as running:
        assert running.client().search("tux3 tux4", k=1)[0] == result[0]
        with urlopen(f"{running.url}/search?query=tux3%20tux4&k=1&pool=5") as answer:
            body = json.load(answer)
    assert body["hits"][0]["breadcrumb"] == "Guide > Install > On Linux"
    assert body["pool"][result[0].passage_id]["anchor"] == "on-linux"


def test_the_first_passage_has_neither(index: IndexService) -> None:
    line = hit_json(found(index, "line0x1 line0x2"))
    assert "breadcrumb" not in line
    assert "anchor" not in line


def test_verify_knows_them(index: IndexService, folder: Path) -> None:
    assert index.verify([folder], VerifyOptions()).differing == 0
    name, key = index.current().name, found(index, "tux3 tux4").passage_id
    spec = index.store.spec(name)
    row = row_of(key, index.store.get(name, [key], row_fields(spec))[key], spec)
    index.store.upsert(name, [replace(row, anchor="elsewhere")])
    assert index.verify([folder], VerifyOptions()).by_kind == {"text": 1}
