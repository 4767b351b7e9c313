"""Files to documents, through the public `read`."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import random
import subprocess
import sys
import tracemalloc
from collections.abc import Iterable, Iterator
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from m3index.corpus.mapping import FieldMapping
from m3index.corpus.readers import FileCorpus, read
from m3index.errors import UsageError
from m3index.types import Document, Place, Rejected

GOOD = '{"id": "1", "text": "one"}\n'
TWO = GOOD + '{"id": "2", "text": "two"}\n'

DOCUMENTS = [
    Document("1", "Grüße aus 東京 👩‍👧", "Titel", {"lang": "de", "n": "1"}),
    Document('2"] or x', 'quotes " and , ; \t and\r\nlines\n\nand \\ ', "", {"lang": "en"}),
    Document("3", "NUL \0 and \u2028", "T\n2", {"deep": {"a": [1, None, {"b": 0.5}]}}),
]


def split(corpus: Iterable[Document | Rejected]) -> tuple[list[Document], list[Rejected]]:
    items = list(corpus)
    return [i for i in items if isinstance(i, Document)], [i for i in items if isinstance(i, Rejected)]


def bare(documents: Iterable[Document]) -> list[Document]:
    return [Document(d.doc_id, d.text, d.title, d.metadata) for d in documents]


def rows() -> Iterator[dict[str, Any]]:
    for d in DOCUMENTS:
        yield {"id": d.doc_id, "title": d.title, "text": d.text, "metadata": json.dumps(d.metadata)}


def write(path: Path, documents: list[Document] = DOCUMENTS) -> Path:
    del documents
    name = path.name
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(list(rows())), path, row_group_size=2)
        return path
    if ".csv" in name:
        out = io.StringIO()
        writer = csv.DictWriter(out, ["id", "title", "text", "metadata"])
        writer.writeheader()
        writer.writerows(rows())
        data = out.getvalue().encode()
    else:
        data = b"".join(
            json.dumps({**row, "metadata": json.loads(row["metadata"])}, ensure_ascii=False).encode() + b"\n"
            for row in rows()
        )
    if name.endswith(".gz"):
        data = gzip.compress(data)
    if name.endswith(".zst"):
        data = pa.compress(data, codec="zstd", asbytes=True)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "name",
    [
        "c.jsonl",
        "c.ndjson",
        "c.jsonl.gz",
        "c.jsonl.zst",
        "c.parquet",
        "c.csv",
        "c.csv.gz",
        "c.csv.zst",
    ],
)
def test_every_format_gives_the_same_documents(tmp_path: Path, name: str) -> None:
    corpus = read([write(tmp_path / name)])
    documents, rejected = split(corpus)
    assert bare(documents) == DOCUMENTS
    assert not rejected
    assert corpus.complete
    assert corpus.documents == 3
    assert corpus.total_bytes == corpus.bytes_read == (tmp_path / name).stat().st_size


ROW = st.fixed_dictionaries(
    {
        "id": st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=9),
        "text": st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    }
).filter(lambda row: row["id"].strip() and row["text"].strip())


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ROW, min_size=1, max_size=6))
@example([{"id": ",\n0", "text": "0"}])
@example([{"id": ",\n", "text": "0"}])  # the second line, `","0"`, is no row by itself
@example([{"id": "1", "text": "Main Street 5\nBerlin, 10115"}])
@example([{"id": "1", "text": "one\n,\n,"}])
def test_what_is_written_is_read(tmp_path: Path, table: list[dict[str, str]]) -> None:
    expected = [Document(row["id"], row["text"]) for row in table]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table)
    (tmp_path / "a.jsonl").write_text(lines, encoding="utf-8", newline="")
    out = io.StringIO()
    writer = csv.DictWriter(out, ["id", "text"], quoting=csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerows(table)
    (tmp_path / "a.csv").write_text(out.getvalue(), encoding="utf-8", newline="")
    pq.write_table(pa.Table.from_pylist(table), tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.csv", "a.parquet"):
        assert bare(split(read([tmp_path / name]))[0]) == expected


# ------------------------------------------------------------------- JSONL


VALUE = st.recursive(
    st.none() | st.integers() | st.text(max_size=5), lambda x: st.dictionaries(st.text(max_size=9), x)
)


def jsonl(
    tmp_path: Path, data: bytes | str, **options: Any
) -> tuple[list[Document], list[Rejected], FileCorpus]:
    path = tmp_path / "c.jsonl"
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    corpus = read([path], **options)
    return *split(corpus), corpus


def test_bad_lines_are_rejected_alone(tmp_path: Path) -> None:
    bad = [
        b'{"id": "x", "text": "cut',
        b'{"id": "x", "text": "caf\xe9"}',
        b"[1]",
        b'"a"',
        b"{}",
        b'{"id": "9", "text": " "}',
    ]
    documents, rejected, corpus = jsonl(tmp_path, GOOD.encode() + b"\n".join(bad) + b"\n  \n" + GOOD.encode())
    assert [d.place.line for d in documents if d.place] == [1, 9]
    assert [r.place for r in rejected] == [Place(str(tmp_path / "c.jsonl"), n) for n in range(2, 8)]
    assert [r.reason.split(":")[0] for r in rejected] == [
        "not JSON", "not UTF-8 at byte 25 of the line", "not JSON", "not JSON", "no id", "no text"
    ]  # fmt: skip
    assert [r.doc_id for r in rejected] == [None] * 5 + ["9"]
    assert rejected[1].raw == r'{"id": "x", "text": "caf\xe9"}'
    assert rejected[0].raw == bad[0].decode()
    assert not corpus.complete
    assert corpus.rejected == 6


def test_a_bad_row_with_an_id_leaves_the_pass_complete(tmp_path: Path) -> None:
    _, rejected, corpus = jsonl(tmp_path, '{"id": "9"}\n')
    assert len(rejected) == 1
    assert corpus.complete


def test_not_complete_before_the_end(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text(TWO)
    corpus = read([path])
    assert not corpus.complete
    stream = iter(corpus)
    next(stream)
    assert not corpus.complete
    assert len(list(stream)) == 1
    assert corpus.complete
    assert len(list(corpus)) == 2, "a corpus of files can be read again"
    assert corpus.documents == 2


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbf" + TWO.encode(),
        TWO.replace("\n", "\r\n").encode(),
        b"\n\n" + TWO.encode() + b"\r\n \t\n",
        TWO.strip().encode(),
    ],
    ids=["BOM", "CRLF", "blank lines", "no last newline"],
)
def test_what_is_tolerated(tmp_path: Path, data: bytes) -> None:
    documents, rejected, _ = jsonl(tmp_path, data)
    assert [d.doc_id for d in documents] == ["1", "2"]
    assert not rejected


def test_deep_nesting_and_huge_numbers(tmp_path: Path) -> None:
    deep, digits = "[" * 200_000 + "]" * 200_000, "9" * 5000
    lines = [f'{{"id": "1", "text": "x", "k": {deep}}}', f'{{"id": "1", "text": "x", "k": {digits}}}']
    lines += ['{"id": "1", "text": "x", "k": NaN}', '{"id": "1", "text": "x", "k": 1e999}']
    _, rejected, _ = jsonl(tmp_path, "\n".join(lines))
    assert [r.reason for r in rejected][:1] == ["not JSON: nested too deep"]
    assert [r.reason for r in rejected][2:] == ["'k' holds NaN or an infinite number, which is not JSON"] * 2
    assert len(rejected) == 4


def test_a_repeated_key_counts_last(tmp_path: Path) -> None:
    documents, _, _ = jsonl(tmp_path, '{"id": "1", "text": "a", "text": "b"}')
    assert documents[0].text == "b"


def test_a_line_that_is_too_long(tmp_path: Path) -> None:
    long = json.dumps({"id": "2", "text": "x" * 5_000_000})
    documents, rejected, corpus = jsonl(tmp_path, f"{GOOD}{long}\n{GOOD}", max_line=100_000)
    assert len(documents) == 2
    assert documents[1].place == Place(str(tmp_path / "c.jsonl"), 3)
    assert rejected[0].reason == "longer than 100,000 bytes"
    assert rejected[0].truncated
    assert len(rejected[0].raw) <= 1 << 20
    assert not corpus.complete


@pytest.mark.parametrize("size", [-1, 0, 1])
def test_the_bound_of_a_line_is_exact(tmp_path: Path, size: int) -> None:
    line = GOOD.strip()
    for end in ("", "\n"):
        documents, rejected, _ = jsonl(tmp_path, line + end, max_line=len(line) - size)
        assert (len(documents), len(rejected)) == ((1, 0) if size <= 0 else (0, 1))


def test_a_long_bad_row_is_kept_in_part(tmp_path: Path) -> None:
    _, rejected, _ = jsonl(tmp_path, json.dumps({"id": "1", "text": 5, "k": "x" * 2_000_000}))
    assert rejected[0].truncated
    assert len(rejected[0].raw) == 1 << 20
    assert rejected[0].doc_id == "1"


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.sampled_from([GOOD.strip().encode(), b"", b" \r", b'{"id":1,"text":"\\ud800"}']),
            st.sampled_from([b'{"m3index_quarantine":1}', b'{"m3index_quarantine":1,"raw":"{}"}']),
            ROW.map(lambda row: json.dumps(row).encode()[:-1]),
            VALUE.map(lambda value: json.dumps(value).encode()),
        ),
        max_size=8,
    )
)
def test_any_bytes_are_accounted_for(tmp_path: Path, lines: list[bytes]) -> None:
    data = b"\n".join(lines)
    if data[:2] in (b"\x1f\x8b", b"\xff\xfe", b"\xfe\xff") or data[:4] == b"\x28\xb5\x2f\xfd":
        return
    documents, rejected, corpus = jsonl(tmp_path, data)
    if b"\0" in data[:4] and corpus.read_errors:  # as UTF-16 and UTF-32 begin
        assert "convert it to UTF-8" in corpus.read_errors[0].reason
        return
    places = sorted(i.place.line or 0 for i in [*documents, *rejected] if i.place)
    data = data.removeprefix(b"\xef\xbb\xbf")
    assert places == [n for n, line in enumerate(data.split(b"\n"), 1) if line and not line.isspace()]
    assert corpus.bytes_read == corpus.total_bytes
    assert not corpus.read_errors


# --------------------------------------------------------------- CSV, TSV


def table(
    tmp_path: Path, data: str | bytes, name: str = "c.csv", **options: Any
) -> tuple[list[Document], list[Rejected], FileCorpus]:
    path = tmp_path / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    corpus = read([path], **options)
    return *split(corpus), corpus


def test_csv_cells(tmp_path: Path) -> None:
    data = '\ufeffid, text ,year,note,\n1,"a ""b""\n\nc",2001,,\n,,,,\n\n2,x\n'
    documents, rejected, _ = table(tmp_path, data, fields={"year": "int"})
    assert not rejected
    assert bare(documents) == [Document("1", 'a "b"\n\nc', "", {"year": 2001}), Document("2", "x")]
    assert [d.place.line for d in documents if d.place] == [2, 7]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("name", ["c.csv", "c.tsv"])
def test_the_delimiter_is_seen_in_the_header(tmp_path: Path, delimiter: str, name: str) -> None:
    documents, _, _ = table(tmp_path, f"text{delimiter}id\na b{delimiter}1\n", name)
    assert bare(documents) == [Document("1", "a b")]


def test_bad_csv_rows_are_rejected_alone(tmp_path: Path) -> None:
    data = b'id,text\n1,one\n2,caf\xe9\n3,a,b\n4,"x"y\n,no id\n6,\n7,"never closed\n8,eight\n'
    documents, rejected, corpus = table(tmp_path, data)
    assert [d.doc_id for d in documents] == ["1", "8"], "the row behind a quote that is never closed too"
    assert [(r.place.line, r.doc_id) for r in rejected] == [
        (3, None),
        (4, None),
        (5, None),
        (6, None),
        (7, "6"),
        (8, None),
    ]
    assert [r.reason.split(":")[0] for r in rejected] == [
        "not UTF-8; if Excel made it, set --encoding (cp1252 in western Europe), or save it as CSV UTF-8",
        "3 cells in a table of 2 columns", "not CSV", "no id", "no text", "not CSV"
    ]  # fmt: skip
    assert rejected[0].raw == r"2,caf\xe9"
    assert rejected[5].raw == '7,"never closed'
    assert json.loads(rejected[4].raw) == {"id": "6"}
    assert not corpus.complete


def test_tsv_has_no_quotes(tmp_path: Path) -> None:
    """The words of a cell may begin with a quotation mark; it says nothing about the lines that follow."""
    texts = ['"quoted', "plain", '"a" and "b', 'end"', '"', '""', "x\\"]
    rows = [(str(i), text) for i, text in enumerate(texts)]
    data = "id\ttext\n" + "".join(f"{doc_id}\t{text}\n" for doc_id, text in rows)
    documents, rejected, corpus = table(tmp_path, data, "c.tsv")
    assert [(d.doc_id, d.text) for d in documents] == rows
    assert not rejected
    assert corpus.complete


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_stray_quote_in_csv_costs_its_own_row_only(tmp_path: Path, end: str) -> None:
    lines = ["id,lang,text", "1,en,one", '2,en,"a stray quote', "3,en,three", '4,en,"another', "5,en,five"]
    documents, rejected, corpus = table(tmp_path, end.join([*lines, "6,en,six", ""]))
    assert [d.doc_id for d in documents] == ["1", "3", "5", "6"]
    assert [(r.place.line, r.doc_id) for r in rejected] == [(3, None), (5, None)]
    assert rejected[0].reason.startswith(("a stray quote", "not CSV"))
    assert not corpus.complete, "a row without id: nothing may be taken for gone"


def test_a_stray_quote_that_is_closed_far_below(tmp_path: Path) -> None:
    """The rows between are whole rows, so the quotes cannot be those of one cell."""
    between = [f"{i},row {i}" for i in range(3, 9)]
    lines = ["id,text", "1,one", '2,"begins here', *between, '9,ends here"', "10,ten"]
    documents, rejected, _ = table(tmp_path, "\n".join([*lines, ""]))
    assert [d.doc_id for d in documents] == ["1", *map(str, range(3, 11))]
    assert [r.place.line for r in rejected] == [3]
    assert documents[-2].text == 'ends here"'


def test_cells_of_several_lines_are_believed(tmp_path: Path) -> None:
    """Where the lines that are joined are no rows: fewer or more cells than the header has."""
    data = 'id,text,lang\n1,"two\nlines",en\n2,"a, b\nc, d, e\nf",de\n3,three,fr\n4,"x\n\ny",en\n'
    documents, rejected, _ = table(tmp_path, data)
    assert [d.text for d in documents] == ["two\nlines", "a, b\nc, d, e\nf", "three", "x\n\ny"]
    assert not rejected


def test_csv_bounds(tmp_path: Path) -> None:
    long = "1," + "x" * 200_000 + "\n"
    quoted = '2,"' + "id,text\n" * 20_000 + '"\n'
    documents, _, _ = table(tmp_path, f"id,text\n{long}{quoted}3,three\n")
    assert [len(d.text) for d in documents] == [200_000, 160_000, 5]
    for record, line in ((long, 3), (quoted, 3)):
        documents, rejected, corpus = table(tmp_path, f"id,text\n0,zero\n{record}3,three\n", max_line=100_000)
        assert [d.doc_id for d in documents] == ["0"], "what follows may be the inside of a quoted cell"
        assert not rejected
        assert f"the record at line {line} is longer than 100,000 bytes" in corpus.read_errors[0].reason
        assert not corpus.complete


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("a,b\n1,2\n", "no column 'id', '_id', 'docid' or 'doc_id' for the id; its columns are: a, b"),
        ("id,b\n1,2\n", "for the text"),
        ("id,text,id\n1,2,3\n", "two columns have the name 'id'"),
        ("ID;b\n1;2\n", "for the text; its columns are: ID, b. Name the right one with --text-field"),
        (b"id,text,\xe9\n1,2,3\n", "the header is not UTF-8; if Excel made it, set --encoding (cp1252 in"),
    ],
)
def test_a_table_without_the_columns_is_a_read_error(tmp_path: Path, data: str | bytes, says: str) -> None:
    documents, rejected, corpus = table(tmp_path, data)
    assert not documents
    assert not rejected
    assert says in corpus.read_errors[0].reason
    assert not corpus.complete


def test_columns_have_the_names_of_keys_without_regard_to_case(tmp_path: Path) -> None:
    documents, _, _ = table(
        tmp_path, "ID;Titel; TEXT ;Year;Text2\n7;T;a b;2011;x\n", fields={"year": "int"},
        mapping=FieldMapping.named(title="titel"),
    )  # fmt: skip
    assert bare(documents) == [Document("7", "a b", "T", {"year": 2011, "Text2": "x"})]
    documents, _, _ = table(tmp_path, "Id,id,ID,text\n1,2,3,a\n")
    assert bare(documents) == [Document("2", "a", "", {"Id": "1", "ID": "3"})], "the exact name is first"
    path = tmp_path / "c.parquet"
    pq.write_table(pa.table({"Id": [1], "TEXT": ["a"], "Lang": ["en"]}), path)
    assert bare(split(read([path], fields={"lang": "str"}))[0]) == [Document("1", "a", "", {"lang": "en"})]


def test_a_table_of_excel(tmp_path: Path) -> None:
    """Western European: semicolons, and no UTF-8."""
    data = "ID;Text;Größe\r\n1;Grüße – für 5 €;10\r\n2;ohne;11\r\n"
    documents, rejected, _ = table(tmp_path, data.encode("cp1252"), encoding="cp1252")
    assert not rejected
    assert bare(documents) == [
        Document("1", "Grüße – für 5 €", "", {"Größe": "10"}), Document("2", "ohne", "", {"Größe": "11"})
    ]  # fmt: skip
    documents, _, _ = table(tmp_path, "sep=|\r\nid|text\r\n1|a, b; c\r\n")
    assert [(d.text, d.place) for d in documents] == [("a, b; c", Place(str(tmp_path / "c.csv"), 3))]
    _, rejected, _ = table(tmp_path, b"id,text\n1,caf\x81\n", encoding="cp1252")
    assert [item.reason for item in rejected] == ["not cp1252"]
    (tmp_path / "a.txt").write_bytes("Grüße".encode("cp1252"))
    [text] = read([tmp_path / "a.txt"], encoding="cp1252")
    assert isinstance(text, Document)
    assert text.text == "Grüße"


def test_an_empty_table(tmp_path: Path) -> None:
    for data in ("", "\n", "id,text\n"):
        assert table(tmp_path, data)[2].complete


# ----------------------------------------------------------------- Parquet


def test_parquet_values(tmp_path: Path) -> None:
    path = tmp_path / "c.parquet"
    schema = pa.schema(
        [
            ("id", pa.int64()),
            ("text", pa.large_string()),
            ("metadata", pa.map_(pa.string(), pa.string())),
            ("day", pa.date32()),
            ("at", pa.timestamp("us", tz="UTC")),
            ("price", pa.decimal128(9, 2)),
            ("tags", pa.list_(pa.string())),
            ("more", pa.struct([("a", pa.int32()), ("b", pa.string())])),
            ("kind", pa.dictionary(pa.int32(), pa.string())),
            ("gone", pa.null()),
        ]
    )
    row = {
        "id": 7, "text": "x", "metadata": [("k", "v")],
        "day": date(2001, 2, 3), "at": datetime(2001, 2, 3, 4, 5),
        "price": Decimal("1.50"), "tags": ["a", None], "more": {"a": 1, "b": None}, "kind": "z", "gone": None,
    }  # fmt: skip
    pq.write_table(pa.Table.from_pylist([row, {"id": 8, "text": "y"}], schema), path)
    documents, rejected = split(read([path]))
    assert not rejected
    assert bare(documents) == [
        Document("7", "x", "", {
            "k": "v", "day": "2001-02-03", "at": "2001-02-03T04:05:00+00:00", "price": "1.50",
            "tags": ["a", None], "more": {"a": 1, "b": None}, "kind": "z",
        }),
        Document("8", "y"),
    ]  # fmt: skip
    assert documents[1].place == Place(str(path), 2)


def test_bad_parquet_rows_are_rejected_alone(tmp_path: Path) -> None:
    path = tmp_path / "c.parquet"
    text = pa.array([b"one", b"caf\xe9", None, b"four"], pa.binary()).view(pa.string())
    extra = pa.array([None, None, None, b"\xff"], pa.binary())
    pq.write_table(pa.table({"id": ["1", "2", "3", "4"], "text": text, "extra": extra}), path)
    documents, rejected = split(read([path]))
    assert [d.doc_id for d in documents] == ["1"]
    assert [(r.place.line, r.doc_id) for r in rejected] == [(2, "2"), (3, "3"), (4, "4")]
    assert rejected[0].reason.startswith("column 'text' (string) has a value that JSON cannot hold")
    assert "--exclude-field" not in rejected[0].reason
    assert "no text" in rejected[1].reason
    assert json.loads(rejected[2].raw) == {"id": "4", "text": "four", "extra": None}


@pytest.mark.parametrize(
    ("column", "name"),
    [
        (pa.array([b"\xff\xd8", None], pa.binary()), "binary"),
        (pa.array([timedelta(seconds=5), None]), "duration[us]"),
        (pa.array([[{"a": b"x"}], None]), "list<element: struct<a: binary>>"),
        (pa.array([2**60, None], pa.timestamp("us")), "timestamp[us]"),
    ],
)
def test_a_parquet_column_that_json_cannot_hold(tmp_path: Path, column: pa.Array, name: str) -> None:
    path = tmp_path / "c.parquet"
    pq.write_table(pa.table({"pk": [7, 8], "body": ["cats", "dogs"], "img": column}), path)
    documents, rejected = split(read([path], FieldMapping.named(id="pk", text="body")))
    assert [d.doc_id for d in documents] == ["8"]
    assert [r.doc_id for r in rejected] == ["7"]
    assert rejected[0].reason.startswith(f"column 'img' ({name}) has a value that JSON cannot hold: ")
    assert rejected[0].reason.endswith("; leave it out with --exclude-field img")
    assert json.loads(rejected[0].raw) == {"pk": 7, "body": "cats", "img": None}
    left_out = FieldMapping.named(id="pk", text="body", exclude=["img"])
    documents, rejected = split(read([path], left_out))
    assert bare(documents) == [Document("7", "cats"), Document("8", "dogs")]
    assert rejected == []


def test_excluded_fields_in_every_format(tmp_path: Path) -> None:
    row = {"id": "a", "text": "x", "drop": "1", "keep": "2"}
    pq.write_table(pa.table({k: [v] for k, v in row.items()}), tmp_path / "a.parquet")
    (tmp_path / "b.jsonl").write_text(json.dumps(row))
    (tmp_path / "c.csv").write_text("id,text,drop,keep\na,x,1,2\n")
    documents, _ = split(read([tmp_path], FieldMapping.named(exclude=["drop"])))
    assert bare(documents) == [Document("a", "x", metadata={"keep": "2"})] * 3


def test_an_embedding_is_left_out_with_a_note_unless_it_is_asked_for(tmp_path: Path) -> None:
    vectors = [[0.5] * 64, [0.25] * 64]
    pq.write_table(
        pa.table({"id": ["a", "b"], "text": ["x", "y"], "v": pa.array(vectors, pa.list_(pa.float32()))}),
        tmp_path / "a.parquet",
    )
    (tmp_path / "b.jsonl").write_text(json.dumps({"id": "c", "text": "z", "v": [*vectors[0][1:], 1]}))
    corpus = read([tmp_path])
    documents, _ = split(corpus)
    assert bare(documents) == [Document("a", "x"), Document("b", "y"), Document("c", "z")]
    assert corpus.notes == [
        "'v' holds an embedding in 3 rows (64 or more decimal numbers), which is left out of the metadata. "
        "Keep it with --include-field v."
    ]
    corpus = read([tmp_path], FieldMapping.named(include=["v"]))
    documents, _ = split(corpus)
    assert [d.metadata["v"] for d in documents[:2]] == vectors
    assert corpus.notes == []
    corpus = read([tmp_path], FieldMapping.named(exclude=["v"]))
    assert [d.metadata for d in split(corpus)[0]] == [{}] * 3
    assert corpus.notes == []


def test_skipped_entries_are_counted_and_named_by_reason(tmp_path: Path) -> None:
    corp, real = tmp_path / "corp", tmp_path / "real"
    corp.mkdir()
    real.mkdir()
    (corp / "x.md").write_text("text")
    (corp / "current").symlink_to(real)
    for name in "abcde":
        (corp / f"{name}.exe").write_text("<p>")
    corpus = read([corp])
    assert corpus.notes == []
    for _ in range(2):
        assert len(list(corpus)) == 1
        assert corpus.notes == [
            f"6 entries were skipped: {corp}/a.exe, {corp}/b.exe, {corp}/c.exe and 2 others (unknown "
            f"type); {corp}/current (a link to a directory). --verbose lists them all."
        ]
        assert corpus.skip_counts == {"unknown type": 5, "a link to a directory": 1}


def test_parquet_without_the_columns(tmp_path: Path) -> None:
    path = tmp_path / "c.parquet"
    pq.write_table(pa.table({"a": [1]}), path)
    corpus = read([path])
    assert list(corpus) == []
    assert "for the id" in corpus.read_errors[0].reason


def test_parquet_progress_is_by_row_groups(tmp_path: Path) -> None:
    path = tmp_path / "c.parquet"
    pq.write_table(
        pa.table({"id": [str(i) for i in range(100)], "text": ["x"] * 100}), path, row_group_size=10
    )
    corpus = read([path])
    seen = [corpus.bytes_read for _ in corpus]
    assert seen == sorted(seen)
    assert len(set(seen)) == 10


# -------------------------------------------------------------- plain text


def test_plain_text(tmp_path: Path) -> None:
    (tmp_path / "notes" / "deep").mkdir(parents=True)
    (tmp_path / "notes" / "b.txt").write_bytes(b"\xef\xbb\xbfone\r\n\r\ntwo \n")
    (tmp_path / "notes" / "deep" / "A note.md.gz").write_bytes(gzip.compress("Grüße".encode()))
    (tmp_path / "notes" / "empty.txt").write_text(" \n")
    (tmp_path / "notes" / "latin.txt").write_bytes(b"caf\xe9")
    mapping = FieldMapping.named(id="pk")
    corpus = read([tmp_path / "notes"], mapping)
    documents, rejected = split(corpus)
    assert [(d.doc_id, d.text, d.title) for d in documents] == [
        ("b.txt", "one\r\n\r\ntwo \n", "b"),
        ("deep/A note.md.gz", "Grüße", "A note"),
    ]
    os.utime(tmp_path / "notes" / "b.txt", (0, 1.9))
    [again, _], _ = split(corpus)
    assert again.metadata == {"path": "b.txt", "type": "text", "modified": "1970-01-01T00:00:01Z"}
    assert [(r.doc_id, r.reason) for r in rejected] == [
        ("empty.txt", "it has no text"),
        ("latin.txt", "not UTF-8 at byte 4; set --encoding, such as cp1252"),
    ]
    assert corpus.complete, "all of them are known by their ids"


def test_a_text_that_is_too_long(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x" * 1001)
    _, rejected = split(read([tmp_path / "a.txt"], max_line=1000))
    assert rejected[0].reason == "longer than 1,000 bytes"
    assert len(split(read([tmp_path / "a.txt"], max_line=1001))[0]) == 1


# ------------------------------------------------------- files that are broken


def broken(tmp_path: Path, name: str, data: bytes) -> FileCorpus:
    (tmp_path / "a.jsonl").write_text(TWO)
    (tmp_path / name).write_bytes(data)
    (tmp_path / "z.jsonl").write_text(TWO)
    return read([tmp_path / "a.jsonl", tmp_path / name, tmp_path / "z.jsonl"])


RANDOM = random.Random(0)
MANY = "".join(
    json.dumps({"id": str(i), "text": RANDOM.randbytes(50).hex()}) + "\n" for i in range(5000)
).encode()
GZ = gzip.compress(MANY, mtime=0)
ZST = pa.compress(MANY, codec="zstd", asbytes=True)


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("b.jsonl.gz", GZ[:-9], "gzip data ends too early (after line"),
        ("b.jsonl.gz", GZ[:100_000] + b"\0" * 50_000 + GZ[150_000:], "(after line"),
        ("b.jsonl.gz", GZ[:-8] + b"\0" * 8, "CRC check failed"),
        ("b.jsonl.gz", b"", "its name ends in .gz"),
        ("b.jsonl.gz", MANY, "its name ends in .gz"),
        ("b.jsonl.gz", GZ + b"trailing", "gzip"),
        ("b.jsonl.zst", ZST[:-9], "Truncated"),
        ("b.jsonl.zst", ZST[:100_000] + b"\0" * 50_000 + ZST[150_000:], "ZSTD"),
        ("b.jsonl.zst", b"\x28\xb5\x2f\xfd", ""),
        ("b.parquet", b"PAR1 no parquet PAR1", "cannot be read as Parquet"),
        ("b.parquet", b"", "cannot be read as Parquet"),
        ("b.jsonl", TWO.encode("utf-16"), "iconv -f UTF-16 "),
        ("b.jsonl", TWO.encode("utf-16-le"), "iconv -f UTF-16LE "),
        ("b.jsonl", TWO.encode("utf-16-be"), "iconv -f UTF-16BE "),
        ("b.jsonl", TWO.encode("utf-32"), "iconv -f UTF-32 "),
        ("b.jsonl", b"\0\0\xfe\xff" + TWO.encode("utf-32-be"), "iconv -f UTF-32 "),
        ("b.jsonl", TWO.encode("utf-32-le"), "iconv -f UTF-32LE "),
        ("b.jsonl", TWO.encode("utf-32-be"), "iconv -f UTF-32BE "),
        ("b.csv", b"a,b\n", "for the id"),
    ],
)
def test_a_broken_file_ends_and_the_next_one_follows(
    tmp_path: Path, name: str, data: bytes, says: str
) -> None:
    corpus = broken(tmp_path, name, data)
    documents, rejected = split(corpus)
    assert [d.place.path[-7:] for d in documents if d.place][:2] == ["a.jsonl"] * 2
    assert [d.place.path[-7:] for d in documents if d.place][-2:] == ["z.jsonl"] * 2
    # gzip may notice damage late: what it unpacked before is garbled, and rejected row by row
    assert len(rejected) <= 1 or name.endswith(".gz")
    [error] = corpus.read_errors
    assert error.place.path == str(tmp_path / name)
    assert says in error.reason
    assert not corpus.complete
    assert corpus.bytes_read == corpus.total_bytes


def test_what_was_read_of_a_broken_file_counts(tmp_path: Path) -> None:
    corpus = broken(tmp_path, "b.jsonl.gz", GZ[: len(GZ) // 2])
    assert len(split(corpus)[0]) > 2000


def test_a_parquet_file_that_breaks_in_the_middle(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([json.loads(line) for line in MANY.splitlines()])
    pq.write_table(table, tmp_path / "good.parquet", row_group_size=1000)
    data = bytearray((tmp_path / "good.parquet").read_bytes())
    data[len(data) // 2 : len(data) // 2 + 20_000] = b"\0" * 20_000
    corpus = broken(tmp_path, "b.parquet", bytes(data))
    documents, _ = split(corpus)
    assert len(corpus.read_errors) == 1
    assert documents[-1].place == Place(str(tmp_path / "z.jsonl"), 2)


def test_a_file_that_has_gone_and_one_that_is_closed_to_us(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl", "c.jsonl"):
        (tmp_path / name).write_text(GOOD)
    corpus = read([str(tmp_path / "*.jsonl")])
    (tmp_path / "b.jsonl").unlink()
    (tmp_path / "b.jsonl").mkdir()
    documents, _ = split(corpus)
    assert len(documents) == 2
    assert len(corpus.read_errors) == 1


def test_what_a_directory_skips_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(GOOD)
    for i in range(1100):
        (tmp_path / f"{i:04}.exe").touch()
    corpus = read([tmp_path])
    assert len(list(corpus)) == 1
    assert corpus.skip_counts == {"unknown type": 1100}
    assert [Path(entry.path).name for entry in corpus.skips()] == [f"{i:04}.exe" for i in range(1100)]
    assert corpus.complete


def test_a_missing_path_is_said_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(GOOD)
    with pytest.raises(UsageError, match="gone"):
        read([tmp_path / "a.jsonl", tmp_path / "gone.jsonl"])


# ------------------------------------------------------------------- stdin


@pytest.mark.parametrize(
    "data",
    [TWO.encode(), gzip.compress(TWO.encode()), pa.compress(TWO.encode(), codec="zstd", asbytes=True)],
    ids=["plain", "gzip", "zstd"],  # the bytes of a gzip have the time in them
)
def test_stdin(data: bytes) -> None:
    corpus = read(["-"], stdin=io.BytesIO(data))
    documents, _ = split(corpus)
    assert [d.place for d in documents] == [Place("-", 1), Place("-", 2)]
    assert corpus.complete
    assert corpus.total_bytes is None
    assert corpus.bytes_read == len(data)
    with pytest.raises(UsageError, match="only once"):
        list(corpus)


SCRIPT = """
import re
from m3index.corpus.readers import read
corpus = read(["-"])
n = sum(1 for _ in corpus)
print(n, corpus.total_bytes, corpus.bytes_read, corpus.complete,
      int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1]) // 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from /proc")
def test_a_real_pipe_of_200_mb_in_bounded_memory() -> None:
    process = subprocess.Popen([sys.executable, "-c", SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    line = json.dumps({"id": "1", "text": "word " * 400}).encode() + b"\n"
    block = line * 500
    for _ in range(200):
        process.stdin.write(block)
    out, _ = process.communicate()
    n, total, done, complete, megabytes = out.split()
    assert (n, total, done, complete) == (b"100000", b"None", str(200 * len(block)).encode(), b"True")
    assert 200 * len(block) > 200_000_000
    assert int(megabytes) < 120


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the script reads /proc")
def test_stdin_from_a_file_has_a_size(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text(TWO)
    with (tmp_path / "c.jsonl").open("rb") as file:
        out = subprocess.run(
            [sys.executable, "-c", SCRIPT], stdin=file, stdout=subprocess.PIPE, check=True
        ).stdout
    assert out.split()[:4] == [b"2", str(len(TWO)).encode(), str(len(TWO)).encode(), b"True"]


def test_a_slow_pipe_is_read_as_it_comes() -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as source, os.fdopen(writer, "wb", buffering=0) as sink:
        stream = iter(read(["-"], stdin=source))
        for i in range(3):
            sink.write(json.dumps({"id": i, "text": "x" * 10}).encode() + b"\n")
            item = next(stream)
            assert isinstance(item, Document)
            assert item.doc_id == str(i)


# ------------------------------------------------------------------ memory


def peak(corpus: FileCorpus) -> int:
    tracemalloc.start()
    try:
        for _ in corpus:
            pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["c.jsonl.gz", "c.csv", "c.parquet"])
def test_memory_is_bounded_by_a_row_and_a_buffer(tmp_path: Path, name: str) -> None:
    """20,000 documents of 1 KB, 20 MB: less than 8 MB at any time."""
    path, text = tmp_path / name, "word " * 200
    if name.endswith("parquet"):
        pq.write_table(
            pa.table({"id": [str(i) for i in range(20_000)], "text": [text] * 20_000}),
            path,
            row_group_size=5000,
        )
    elif name.endswith("gz"):
        path.write_bytes(
            gzip.compress(
                b"".join(b'{"id": "%d", "text": "%b"}\n' % (i, text.encode()) for i in range(20_000)), 1
            )
        )
    else:
        path.write_bytes(b"id,text\n" + b"".join(b"%d,%b\n" % (i, text.encode()) for i in range(20_000)))
    corpus = read([path])
    assert peak(corpus) < 8_000_000
    assert corpus.documents == 20_000


def test_a_decompression_bomb_is_one_bad_line(tmp_path: Path) -> None:
    """300 MB of one line out of 300 KB, with a bound of 1 MB: less than 8 MB at any time."""
    path = tmp_path / "bomb.jsonl.gz"
    with gzip.open(path, "wb", 1) as file:
        for _ in range(300):
            file.write(b"x" * 1_000_000)
    corpus = read([path], max_line=1_000_000)
    assert peak(corpus) < 8_000_000
    assert corpus.rejected == 1


def test_reading_jsonl_imports_neither_pyarrow_nor_a_model_library() -> None:
    code = (
        "import sys; from m3index.corpus.readers import read; list(read(['-']));"
        "print([m for m in ('pyarrow', 'torch', 'pymilvus', 'transformers') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], input=b"", stdout=subprocess.PIPE, check=True)
    assert run.stdout.strip() == b"[]"
