"""The kept inputs of the fuzzers, and some hundred new ones by Hypothesis; `make fuzz` looks for longer."""

from __future__ import annotations

import gzip
import importlib.util
import io
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

HERE = Path(__file__).parent
KEPT = sorted(path for path in (HERE / "corpus").glob("*/*") if path.is_file())


def load() -> Any:
    spec = importlib.util.spec_from_file_location("fuzz_properties", HERE / "properties.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


properties = load()


def test_each_target_has_inputs() -> None:
    assert {path.parent.name for path in KEPT} == set(properties.TARGETS)


@pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_kept_inputs(path: Path) -> None:
    properties.TARGETS[path.parent.name](path.read_bytes())


PIECES = [
    b'{"id": "1", "text": "one"}\n',
    b'{"id": "1", "text": "\\ud800"}\n',
    b'{"m3index_quarantine": 1, "raw": "{}"}\n',
    b'{"m3index_quarantine": 1, "row": {"m3index_quarantine": 1, "row": {}}}\n',
    b"id,text,year\n1,one,2001\n",
    b'"',
    b"\xef\xbb\xbf",
    b"\x00",
    b'{"id": 1e400, "text": NaN}\n',
    b'{"id": "a", "text": "b", "metadata": {"x": 1e999}}\n',
]
LINES = st.lists(st.binary(max_size=40) | st.sampled_from(PIECES), max_size=6).map(b"".join)


@settings(deadline=None, max_examples=300)
@given(kind=st.integers(0, 3), content=LINES, packed=st.booleans(), cut=st.integers(0, 30))
def test_any_rows(kind: int, content: bytes, packed: bool, cut: int) -> None:
    if packed:
        content = gzip.compress(content)[: -cut or None]
    properties.rows(bytes([kind]) + content)


TYPES = [
    pa.date32(),
    pa.date64(),
    pa.timestamp("us"),
    pa.timestamp("us", "UTC"),
    pa.duration("s"),
    pa.time64("us"),
    pa.decimal128(20, 2),
]


def as_parquet(ids: list[str], kind: pa.DataType, values: list[int]) -> bytes:
    stored = pa.int32() if kind == pa.date32() else pa.int64()
    column = pa.array([value % 2**31 for value in values] if kind == pa.date32() else values, stored)
    column = column.cast(kind, safe=False) if pa.types.is_decimal(kind) else column.view(kind)
    out = io.BytesIO()
    pq.write_table(pa.table({"id": ids, "text": ids, "value": column}), out)
    return out.getvalue()


@settings(deadline=None, max_examples=150)
@given(
    rows=st.lists(st.tuples(st.text(max_size=3), st.integers(-(2**63), 2**63 - 1)), min_size=1, max_size=4),
    kind=st.sampled_from(TYPES),
    change=st.none() | st.tuples(st.integers(0, 2000), st.integers(0, 255)),
)
def test_any_parquet(rows: list[tuple[str, int]], kind: pa.DataType, change: tuple[int, int] | None) -> None:
    """Values beyond Python's dates among them, and files with one byte changed."""
    try:
        data = bytearray(as_parquet([name for name, _ in rows], kind, [value for _, value in rows]))
    except pa.ArrowInvalid:
        return  # Arrow itself does not write it
    if change:
        data[change[0] % len(data)] = change[1]
    properties.parquet(bytes(data))


NAMES = st.sampled_from(["lang", "year", "score", "open", "tags", "doc_id", "x"])
SIGNS = st.sampled_from(["=", "==", "!=", "<", ">=", " in ", ")", ""])
QUOTED = st.text(alphabet="\"\\')([]{},ab\n\0é", max_size=12) | st.text(max_size=8)


@settings(deadline=None, max_examples=500)
@given(st.tuples(NAMES, SIGNS, QUOTED).map("".join) | QUOTED)
@example("(}")
@example("([)]")
@example("a[0] in {x}) or (1 == 1")
def test_any_filter(text: str) -> None:
    properties.filters(text.encode("utf-8", "replace"))
