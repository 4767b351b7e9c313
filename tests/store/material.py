"""Rows to store: every one follows from its document's id."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from m3index.schema import CollectionSpec
from m3index.types import FieldType, Row, RowUpdate, SparseVector, document_key, passage_key

DIM = 8
FIELDS: Mapping[str, FieldType] = {
    "lang": "str",
    "year": "int",
    "score": "float",
    "open": "bool",
    "tags": "str[]",
    "author__born": "date",
}
BM25 = CollectionSpec(DIM, "bm25", FIELDS)
LEXICAL = CollectionSpec(DIM, "lexical", FIELDS)
DENSE = CollectionSpec(DIM, "none", {})
TENANTS = CollectionSpec(DIM, "lexical", {**FIELDS, "org": "str"}, tenant="org")
NUMBERED = CollectionSpec(DIM, "none", {"org": "int"}, tenant="org")

MALICIOUS = [
    'x"] or passage_id in ["',
    '"',
    "'",
    "\\",
    '\\"',
    'a" or "1" == "1',
    "line\nbreak\r\n\ttab",
    "😀 👩‍👩‍👧‍👦 𠮷野家",
    "nul \0 inside",
    "\u2028\u202e\ufeff\x01\x1f\x7f",
    "%(x)s {x} $meta",
    "",
    " ",
]


def vector(seed: str, dim: int = DIM) -> np.ndarray:
    number = int.from_bytes(
        hashlib.blake2b(seed.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big"
    )
    v = np.random.default_rng(number).standard_normal(dim)
    return (v / np.linalg.norm(v)).astype(np.float32)


def sparse(weights: Mapping[int, float]) -> SparseVector:
    ids = sorted(weights)
    return SparseVector(np.array(ids, np.int32), np.array([weights[i] for i in ids], np.float32))


def row(
    doc_id: str, ordinal: int = 0, *, spec: CollectionSpec = BM25, source: str = "default", **values: Any
) -> Row:
    lexical = values.pop("sparse", sparse({len(doc_id) + 1: 0.5}) if spec.sparse == "lexical" else None)
    defaults: dict[str, Any] = {
        "doc_hash": "h.m",
        "passages": 1,
        "title": "",
        "breadcrumb": "",
        "anchor": "linux",
        "text": f"text of {doc_id}" if doc_id.isprintable() else "text",
        "metadata": {},
        "fields": {},
        "dense": vector(f"{doc_id}-{ordinal}", spec.dim),
    }
    return Row(
        passage_id=passage_key(document_key(source, doc_id), ordinal),
        doc_id=doc_id,
        ordinal=ordinal,
        source=source,
        sparse=lexical,
        **{**defaults, **values},
    )


def update(stored: Row, **values: Any) -> RowUpdate:
    """An update of a row. values: those that it changes."""
    kept = {name: getattr(stored, name) for name in ("doc_hash", "passages", "metadata", "fields")}
    return RowUpdate(stored.passage_id, **{**kept, **values})


def keys(rows: Sequence[Row]) -> list[str]:
    return [r.passage_id for r in rows]
