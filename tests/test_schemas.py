"""The schemas in schemas/ are valid, are shipped and match the code."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from datetime import datetime
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from terminal import REPOSITORY

from m3index import schema
from m3index.errors import UsageError
from m3index.schema import CollectionSpec, check_field, field_value, parse_field

FILES = sorted((REPOSITORY / "schemas").glob("*.json"))
SCHEMAS = [path for path in FILES if path.name.endswith(".schema.json")]


@pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: path.name)
def test_the_schemas_are_valid(path: Path) -> None:
    loaded = schema.load(path.name)
    Draft202012Validator.check_schema(loaded)
    assert loaded["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert loaded["title"]


STAMP = {"time": "2026-01-01T00:00:00.000Z", "run": "0123456789ab"}
COLLECTION = STAMP | {
    "type": "collection",
    "name": "docs",
    "serving": 1,
    "generations": 1,
    "encoder": "offline",
    "sparse": "bm25",
    "rows": 3,
    "last_success": None,
}
SETTING = STAMP | {"type": "setting", "name": "k", "value": 5, "from": "m3index.toml", "commands": ["search"]}
SUMMARY = STAMP | {"type": "summary", "command": "sync", "seconds": None, "exit": 0}


@pytest.mark.parametrize(
    "line",
    [
        COLLECTION,
        COLLECTION | {"serving": None, "last_success": "2026-01-01T00:00:00+00:00"},
        SETTING,
        SETTING | {"value": ["lang:str"], "from": "default"},
        SUMMARY | {"dry_run": True, "generation": None},
        SUMMARY | {"dry_run": False, "generation": 2},
        STAMP | {"type": "generation", "name": "docs__g1"},
    ],
)
def test_valid_event_lines(line: dict[str, object]) -> None:
    Draft202012Validator(schema.load("event.schema.json")).validate(line)


@pytest.mark.parametrize(
    "line",
    [
        COLLECTION | {"rows": -1},
        COLLECTION | {"sparse": "splade"},
        COLLECTION | {"more": 1},
        {name: value for name, value in COLLECTION.items() if name != "serving"},
        {name: value for name, value in SETTING.items() if name != "commands"},
        SUMMARY | {"dry_run": None},
        SUMMARY | {"generation": "1"},
        STAMP | {"type": "summary", "command": "sync"},
        STAMP | {"name": "docs"},
        {name: value for name, value in SUMMARY.items() if name != "run"},
        SUMMARY | {"time": "yesterday"},
    ],
)
def test_invalid_event_lines(line: dict[str, object]) -> None:
    assert not Draft202012Validator(schema.load("event.schema.json")).is_valid(line)


def test_a_missing_schema() -> None:
    with pytest.raises(FileNotFoundError, match=r"nothere\.json"):
        schema.load("nothere.json")


def test_collection_json_and_the_code_agree() -> None:
    definition = schema.collection()
    names = {field["name"] for field in definition["fields"]}
    assert definition["primary_key"] in names
    vectors = {definition["dense"]["field"]["name"], definition["sparse"]["lexical"]["field"]["name"]}
    bm25 = definition["sparse"]["bm25"]
    assert names | vectors | {bm25["field"]["name"], bm25["input"]["name"]} == schema.BASE_FIELDS
    assert (bm25["function"]["input"], bm25["function"]["output"]) == (
        bm25["input"]["name"],
        bm25["field"]["name"],
    )
    assert set(schema.FIELD_TYPES) == {"str", "int", "float", "bool", "date", "str[]"}
    assert schema.version() == definition["version"] >= 1
    assert definition["declared_field"]["nullable"] is True
    assert (
        definition["dense"]["metric_type"] == definition["sparse"]["lexical"]["index"]["metric_type"] == "IP"
    )
    assert set(definition["dense"]["storage"]) == set(schema.STORAGES)
    assert set(definition["index_classes"]) == {"lite", *schema.INDEX_CLASSES}
    for of_class in definition["index_classes"].values():
        assert of_class["dense"] in definition["dense"]["indexes"]
        assert set(of_class["mmap"]) <= {"rows", "dense", "sparse"}
    for index in definition["dense"]["indexes"].values():
        assert index.get("depth") in {None, *index["search"]}


def test_a_row_has_the_fields_of_the_definition() -> None:
    """The fields of types.Row match the columns of the collection."""
    from dataclasses import fields

    from m3index.types import Row

    row = {field.name for field in fields(Row)} - {"fields", "sparse"}
    assert row == {field["name"] for field in schema.collection()["fields"]} | {"dense"}


@pytest.mark.parametrize("sparse", ["lexical", "bm25", "none"])
def test_pymilvus_takes_the_definition(sparse: str) -> None:
    from m3index.store.definition import to_milvus

    spec = CollectionSpec(8, sparse, {"lang": "str", "tags": "str[]"}, "stems" if sparse == "bm25" else None)  # type: ignore[arg-type]
    made = to_milvus(spec, lite=True)
    assert {field.name for field in made.fields} >= {"passage_id", "text", "dense", "lang", "tags"}


def test_index_changes() -> None:
    told = ["dense.search.ef=512", " dense.type = HNSW_SQ ", "dense.M=8", "dense.M=24", "rows.mmap=true"]
    choice = schema.IndexChoice.parse("large", told)
    assert choice.changes == ("dense.M=24", "dense.search.ef=512", "dense.type=HNSW_SQ", "rows.mmap=true")
    assert choice.part("dense") == {"type": "HNSW_SQ", "M": 24}
    assert choice.part("dense.search") == {"ef": 512}
    assert choice.part("rows") == {"mmap": True}
    assert choice.part("sparse") == {}
    assert schema.IndexChoice.from_json(choice.to_json()) == choice
    assert schema.IndexChoice.from_json("") == schema.IndexChoice() == schema.IndexChoice.parse("small")
    assert str(schema.IndexChoice.parse("huge", ["sparse.mmap=false"])) == "huge, sparse.mmap=false"


@pytest.mark.parametrize("change", ["", "M=24", "dense.M", "dense.=1", "rows.M=1", "bm25.x=1", "dense.a.b=1"])
def test_an_invalid_index_change(change: str) -> None:
    with pytest.raises(UsageError, match=r"LEG\.NAME=VALUE"):
        schema.IndexChoice.parse("small", [change])
    with pytest.raises(UsageError, match="there are small, large, huge"):
        schema.IndexChoice.parse("tiny")


def test_the_tenant_field_is_declared() -> None:
    assert schema.with_tenant({"lang": "str"}, None) == ({"lang": "str"}, None)
    assert schema.with_tenant({"lang": "str"}, "org") == ({"lang": "str", "org": "str"}, "org")
    assert schema.with_tenant({"org": "int"}, "org") == ({"org": "int"}, "org")
    assert schema.with_tenant({}, "org:int") == ({"org": "int"}, "org")
    with pytest.raises(UsageError, match="declared int and str"):
        schema.with_tenant({"org": "int"}, "org:str")
    with pytest.raises(UsageError, match="must be str or int"):
        schema.with_tenant({"org": "str[]"}, "org")
    with pytest.raises(UsageError, match="field of every collection"):
        schema.with_tenant({}, "source")
    assert schema.tenant_value("org", "str", "7") == "7"
    assert schema.tenant_value("org", "int", "7") == 7
    with pytest.raises(UsageError, match="whole numbers"):
        schema.tenant_value("org", "int", "seven")


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("lang:str", ("lang", "str")),
        ("year : int", ("year", "int")),
        ("lang", ("lang", "str")),
        ("t:str[]", ("t", "str[]")),
        ("published:date", ("published", "date")),
        ("author.name:str", ("author__name", "str")),
    ],
)  # fmt: skip
def test_declarations(text: str, parsed: tuple[str, str]) -> None:
    assert parse_field(text) == parsed


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a b",
        "1a",
        "_a",
        "ä",
        "text",
        "dense",
        "bm25_input",
        "a" * 256,
        'x"',
        "a-b",
        "a..b",
        ".a",
        "a.",
        ".",
    ],
)
def test_invalid_field_names(name: str) -> None:
    with pytest.raises(UsageError):
        check_field(name, "str")


@pytest.mark.parametrize(
    ("kind", "given", "stored"),
    [
        ("str", "x", "x"), ("str", None, None), ("int", 5, 5), ("int", -(2**63), -(2**63)), ("float", 5, 5.0),
        ("float", 0.5, 0.5), ("bool", True, True), ("str[]", ["a", "b"], ("a", "b")), ("str[]", [], ()),
        ("date", "2026-11", "2026-11-01T00:00:00.000000Z"),
        ("date", "2026-11-28T16:00:00+01:00", "2026-11-28T15:00:00.000000Z"),
        ("date", datetime(2026, 11, 28, 16), "2026-11-28T16:00:00.000000Z"),
    ],
)  # fmt: skip
def test_valid_values(kind: str, given: object, stored: object) -> None:
    found = field_value("x", kind, given)  # type: ignore[arg-type]
    assert found == stored
    assert type(found) is type(stored)


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("str", 5), ("str", ["a"]), ("str", "\ud800"), ("str", "ä" * 32_768), ("int", "5"), ("int", 5.0),
        ("int", True), ("int", 2**63), ("float", "0.5"), ("float", True), ("float", float("nan")),
        ("float", float("inf")), ("float", 10**400), ("bool", 1), ("bool", "true"), ("str[]", "a"),
        ("str[]", [1]), ("str[]", ["a"] * 4097), ("str[]", [None]),
        ("date", 2026), ("date", "28.11.2026"), ("date", "2026-02-30"), ("date", ""), ("date", "now"),
        ("date", "0001-01-01T00:00:00+01:00"),
    ],
    ids=lambda value: str(value)[:12].encode("ascii", "replace").decode(),
)  # fmt: skip
def test_invalid_values(kind: str, given: object) -> None:
    with pytest.raises(ValueError, match="field 'x'"):
        field_value("x", kind, given)  # type: ignore[arg-type]


def test_the_example_corpus_follows_the_document_schema() -> None:
    validator = Draft202012Validator(schema.load("document.schema.json"))
    lines = (REPOSITORY / "examples" / "corpus.jsonl").read_text("utf-8").splitlines()
    assert len(lines) > 200
    for line in lines:
        validator.validate(json.loads(line))


@pytest.mark.slow
def test_the_wheel_has_the_schemas_and_a_fresh_environment_reads_them(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--quiet",
        "-w",
        str(tmp_path),
        str(REPOSITORY),
    ]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("m3index-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "installed")
    assert {f"m3index/schemas/{path.name}" for path in FILES} <= set(names)
    assert "m3index/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith("tests/")]
    program = "import m3index.schema as s; print(s.__file__, s.version())"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path / "installed",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [
        str(tmp_path / "installed" / "m3index" / "schema.py"),
        str(schema.version()),
    ]


WORDS = ("in", "like", "not", "exists", "is", "null", "or", "and", "true", "False", "AND")


@pytest.mark.parametrize("name", WORDS)
def test_a_word_of_the_filter_language_is_no_field(name: str) -> None:
    """`true=true` would match every document, for `delete` too."""
    with pytest.raises(UsageError, match="a word of Milvus's filters"):
        check_field(name, "str")


@pytest.mark.parametrize("name", ["id", "docid", "contents", "content", "page_content"])
def test_a_key_that_the_row_itself_uses_is_no_field(name: str) -> None:
    with pytest.raises(UsageError, match="a key that a row's"):
        check_field(name, "str")


def test_words_that_only_look_reserved_are_fields() -> None:
    for name in ("order", "select", "limit", "type", "language", "inn", "isnull", "year"):
        assert check_field(name, "str") == (name, "str")


@pytest.mark.parametrize(
    ("metadata", "value"),
    [
        ({"author": {"name": "Ada"}}, "Ada"),
        ({"author.name": "Ada"}, "Ada"),
        ({"author__name": "Ada", "author": {"name": "Bob"}}, "Ada"),
        ({"author": [{"name": "Ada"}, {"born": 1815}, {"name": ["Bob", "Cy"]}]}, ["Ada", "Bob", "Cy"]),
        ({"author": "Ada"}, None),
        ({"author": []}, None),
        ({"author": {"name": None}}, None),
        ({"name": "Ada"}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_nested_values(metadata: dict[str, object], value: object) -> None:
    assert schema.value_at(metadata, "author__name") == value
    assert schema.value_at({"a": {"b": {"c": 1}}}, "a__b__c") == 1
