"""Rows to documents: what is taken, what is refused and why."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3index import schema
from m3index.corpus.hash import digests
from m3index.corpus.mapping import FieldMapping, RowError, declared, typed_cell
from m3index.corpus.memory import Documents
from m3index.types import Document, Place

MAPPING = FieldMapping()
VALIDATOR = jsonschema.Draft202012Validator(schema.load("document.schema.json"))


def document(**row: Any) -> Document:
    return MAPPING.document({"id": "1", "text": "x", **row})


def refused(row: dict[str, Any], mapping: FieldMapping = MAPPING) -> RowError:
    with pytest.raises(RowError) as caught:
        mapping.document(row)
    return caught.value


def test_the_usual_keys() -> None:
    place = Place("f", 1)
    row = {"_id": "a", "contents": "b", "title": "c", "metadata": {"lang": "de"}, "year": 2001}
    assert MAPPING.document(row, place) == Document("a", "b", "c", {"lang": "de", "year": 2001}, place)


@pytest.mark.parametrize("key", ["id", "_id", "docid", "doc_id"])
def test_id_keys(key: str) -> None:
    assert MAPPING.document({key: "a", "text": "b"}) == Document("a", "b")


@pytest.mark.parametrize("key", ["text", "contents", "page_content", "content"])
def test_text_keys(key: str) -> None:
    assert MAPPING.document({"id": "a", key: "b"}) == Document("a", "b")


def test_of_several_keys_the_first_counts_and_the_others_are_metadata() -> None:
    row = {"docid": "two", "id": "one", "content": "four", "text": "three"}
    assert MAPPING.document(row) == Document("one", "three", "", {"docid": "two", "content": "four"})


def test_null_is_absent_in_a_known_key_and_a_value_in_others() -> None:
    row = {"id": None, "_id": "a", "text": "b", "title": None, "metadata": None, "year": None}
    assert MAPPING.document(row) == Document("a", "b", "", {"year": None})


def test_mapped_keys_take_the_place_of_the_defaults() -> None:
    mapping = FieldMapping.named(id="pk", text="body", title="head", metadata="extra")
    row = {"pk": 7, "body": "b", "head": "h", "extra": {"a": 1}, "id": "x", "text": "y", "metadata": [1]}
    expected = {"a": 1, "id": "x", "text": "y", "metadata": [1]}
    assert mapping.document(row) == Document("7", "b", "h", expected)
    assert "'pk'" in refused({"id": "x", "body": "b"}, mapping).reason


@pytest.mark.parametrize(
    ("given_id", "expected"), [(0, "0"), (-5, "-5"), (10**30, "1" + "0" * 30), (" a ", " a ")]
)
def test_good_ids(given_id: Any, expected: str) -> None:
    assert document(id=given_id).doc_id == expected


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (True, "true or false"),
        (1.0, "a decimal number"),
        (["a"], "a list"),
        ({}, "an object"),
        ("", "is empty"),
        (" \n", "is empty"),
        ("a\0b", "NUL"),
        ("a\ud800", "lone surrogate"),
        ("x" * 65_536, "65,535 bytes"),
        ("é" * 32_768, "65,535 bytes"),
    ],
)
def test_bad_ids(bad: Any, says: str) -> None:
    error = refused({"id": bad, "text": "x"})
    assert says in error.reason
    assert error.doc_id is None


def test_an_id_is_never_cut_or_changed() -> None:
    nasty = 'x"] or passage_id in ["\\\n👩‍👧'
    assert document(id=nasty).doc_id == nasty
    assert document(id="é" * 32_767).doc_id == "é" * 32_767


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({}, "no text"),
        ({"text": ""}, "no text"),
        ({"text": " \n\t\u3000"}, "no text"),
        ({"text": 5}, "'text' is a number"),
        ({"text": ["a"]}, "a list"),
        ({"text": "a\udfff"}, "lone surrogate (half a character) at character 1"),
        ({"text": "a", "title": 1984}, "'title' is a number"),
        ({"text": "a", "title": "\ud83d"}, "lone surrogate"),
        ({"text": "a", "title": "é" * 32_768}, "title has more than 65,535 bytes"),
        ({"text": "a", "metadata": ["x"]}, "'metadata' is a list, not an object"),
        ({"text": "a", "metadata": "x"}, "does not hold a JSON object"),
        ({"text": "a", "metadata": "[1]"}, "a list, not an object"),
        ({"text": "a", "metadata": {"k": "\ud800"}}, "lone surrogate"),
        ({"text": "a", "metadata": {"\ud800": 1}}, "lone surrogate"),
        ({"text": "a", "k": float("nan")}, "'k' holds NaN"),
        (
            {"text": "a", "j": 1, "metadata": {"k": [{"x": float("-inf")}]}},
            "'k[0].x' holds NaN",
        ),
        ({"text": "a", "j": 1, "k": [2**63]}, "'k[0]' holds a whole number beyond 64 bits"),
        ({"text": "a", "j": "b", "k": ["\ud800"]}, "'k[0]' holds a lone surrogate"),
        ({"text": "a", "j": "b", "k": {1, 2}}, "'k' holds a set, which is not JSON"),
        ({"text": "a", "k": [float("-inf")]}, "infinite"),
        ({"text": "a", "k": 2**63}, "beyond 64 bits"),
        ({"text": "a", "metadata": {"k": [{"n": -(2**63) - 1}]}}, "beyond 64 bits"),
        ({"text": "a", "k": "x" * 70_000}, "70,008 bytes as JSON; the limit is 65,536"),
        ({"text": "a", "lang": "de", "metadata": {"lang": "en"}}, "with different values"),
    ],
)
def test_bad_rows_keep_their_id(row: dict[str, Any], says: str) -> None:
    error = refused({"id": "the id", **row})
    assert says in error.reason
    assert error.doc_id == "the id"


def test_metadata_may_be_as_large_as_the_store_takes() -> None:
    filler = "é" * ((65_536 - len('{"k":""}')) // 2)
    assert document(k=filler).metadata == {"k": filler}
    assert "the limit is" in refused({"id": "1", "text": "x", "k": filler + "é"}).reason


def test_metadata_nested_too_deep() -> None:
    value: Any = 1
    for _ in range(99):
        value = [value]
    assert document(k=value).metadata == {"k": value}
    assert "nested" in refused({"id": "1", "text": "x", "k": [[value]]}).reason
    for _ in range(100_000):
        value = {"k": value}
    assert "nested" in refused({"id": "1", "text": "x", "k": value}).reason


def test_what_is_stored_is_what_was_given() -> None:
    text = "NUL \0, quotes \" ', \\ , \r\n, 👩‍👩‍👧, \u2028, é é, " + "long " * 60_000
    metadata = {"\0": "\0", "n": 2**63 - 1, "m": -(2**63), "f": 0.1, "d": {"": None}, "l": [True, "x"]}
    found = document(text=text, title=" t\0 ", metadata=metadata)
    assert (found.text, found.title, found.metadata) == (text, " t\0 ", metadata)


def test_metadata_as_a_string_of_json() -> None:
    assert document(metadata='{"a": [1]}').metadata == {"a": [1]}
    assert document(metadata=" ").metadata == {}


def test_the_same_value_twice_is_no_conflict() -> None:
    assert document(lang="de", metadata={"lang": "de"}).metadata == {"lang": "de"}


def test_declared() -> None:
    found = document(metadata={"lang": "de", "year": 1999, "tags": ["a"], "x": 1})
    fields = {"lang": "str", "year": "int", "tags": "str[]", "gone": "bool"}
    assert declared(found, fields) == {"lang": "de", "year": 1999, "tags": ("a",), "gone": None}  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'year' is declared str"):
        declared(found, {"year": "str"})


@pytest.mark.parametrize(
    ("cell", "kind", "value"),
    [
        ("007", "int", 7),
        ("1_000", "int", "1_000"),
        ("x", "int", "x"),
        ("1.5", "float", 1.5),
        ("TRUE", "bool", True),
        ("0", "bool", False),
        ("maybe", "bool", "maybe"),
        ('["a", "b"]', "str[]", ["a", "b"]),
        ("a", "str[]", "a"),
        ("7", "str", "7"),
    ],
)
def test_typed_cells(cell: str, kind: Any, value: Any) -> None:
    assert typed_cell(cell, kind) == value
    assert type(typed_cell(cell, kind)) is type(value)


SMALL = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from(["", " ", "a", "é b", "a\0", "{}", '{"k":1}']),
    st.sampled_from([[], {}, {"k": "v"}, 1.5]),
)
KEYS = [
    "id",
    "_id",
    "docid",
    "doc_id",
    "text",
    "contents",
    "page_content",
    "content",
    "title",
    "metadata",
    "other",
]


@settings(deadline=None, max_examples=400)
@given(st.dictionaries(st.sampled_from(KEYS), SMALL, max_size=6))
def test_the_schema_says_what_the_reader_does(row: dict[str, Any]) -> None:
    reason = ""
    try:
        MAPPING.document(row)
    except RowError as error:
        reason = error.reason
    # What no JSON Schema can say: the JSON inside a string.
    assert VALIDATOR.is_valid(row) == (not reason or "does not hold a JSON object" in reason)


@pytest.mark.parametrize(
    "line",
    [
        '{"id": "1", "text": "Hello"}',
        '{"_id": 7, "title": "T", "text": "Grüße", "metadata": {"lang": "de"}, "year": 2001}',
        '{"page_content": "x", "metadata": {"source": "y"}, "docid": "z"}',
    ],
)
def test_examples_are_valid(line: str) -> None:
    VALIDATOR.validate(json.loads(line))
    MAPPING.document(json.loads(line))


def test_the_example_corpus_is_valid() -> None:
    for line in (Path(__file__).parents[2] / "examples" / "corpus.jsonl").read_text("utf-8").splitlines():
        VALIDATOR.validate(json.loads(line))
        MAPPING.document(json.loads(line))


def test_mappings_of_any_type_are_objects() -> None:
    nested = MappingProxyType({"a": MappingProxyType({"b": [1]})})
    found = MAPPING.document({"id": "1", "text": "x", "metadata": nested, "o": nested})
    assert json.loads(schema.metadata_json(found.metadata)) == {"a": {"b": [1]}, "o": {"a": {"b": [1]}}}
    plain = MAPPING.document({"id": "1", "text": "x", "metadata": {"a": {"b": [1]}, "o": {"a": {"b": [1]}}}})
    assert digests(found) == digests(plain)
    assert document(metadata=found.metadata).metadata == found.metadata


def test_rows_of_a_program_may_change_afterwards() -> None:
    """What is stored, hashed and declared is what the row said when it was given."""
    tags = ["a"]

    def rows() -> Iterator[dict[str, Any]]:
        yield {"id": "1", "text": "x", "tags": tags}
        tags.append("b")
        yield {"id": "2", "text": "x", "tags": tags}

    first, second = Documents(rows())
    assert isinstance(first, Document)
    assert isinstance(second, Document)
    assert declared(first, {"tags": "str[]"}) == {"tags": ("a",)}
    assert schema.metadata_json(first.metadata) == '{"tags":["a"]}'
    assert digests(first) == digests(document(tags=["a"])) != digests(second)
