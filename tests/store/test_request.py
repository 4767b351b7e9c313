"""The request built by column is the one that pymilvus builds from rows, byte for byte."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pymilvus.client.prepare import Prepare
from store.material import BM25, DENSE, LEXICAL, NUMBERED, TENANTS, row, sparse

from m3index.schema import CollectionSpec
from m3index.store.definition import to_milvus
from m3index.store.request import upsert_request
from m3index.store.rows import csr_row, to_wire
from m3index.types import Row, SparseVector

FULL = {"lang": "de", "year": -(2**63), "score": 0.1, "open": True, "tags": ("a", "b"), "org": "acme"}
BARE = {"lang": None, "year": None, "score": None, "open": None, "tags": None, "org": "b"}
EMPTY = {"tags": (), "lang": "", "org": "c"}


def rows_of(spec: CollectionSpec) -> list[Row]:
    made = []
    for number, fields in enumerate((FULL, BARE, EMPTY, BARE)):
        known = {name: 7 if kind == "int" and name == "org" else fields.get(name)
                 for name, kind in spec.fields.items()}  # fmt: skip
        weights = sparse({3: 0.25, 40 + number: 1.5, 250_001: 3e-5} if number else {})
        made.append(
            row(f"d{number}", spec=spec, title="T 東京", metadata={"ключ": [1, {"a": None}]}, fields=known,
                sparse=weights if spec.sparse == "lexical" else None)
        )  # fmt: skip
    return made


@pytest.mark.parametrize("storage", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("spec", [BM25, LEXICAL, DENSE, TENANTS, NUMBERED], ids=str)
@pytest.mark.parametrize("count", [1, 4])
def test_the_request_is_that_of_pymilvus(spec: CollectionSpec, storage: Any, count: int) -> None:
    spec = replace(spec, storage=storage, dim=200)  # a length of several bytes
    wires = [to_wire(one, spec, bm25_limit=65_535) for one in rows_of(spec)[-count:]]
    entities = []
    for wire in wires:
        entity = dict(wire.entity)
        if isinstance(weights := entity.get("lexical"), SparseVector):
            entity["lexical"] = csr_row(weights)
        entities.append(entity)
    fields = to_milvus(spec, lite=False).to_dict()["fields"]
    theirs = Prepare.row_upsert_param("docs__g1", entities, "", fields)
    ours = upsert_request("docs__g1", wires, spec, lite=False)
    assert ours == theirs
    assert ours.SerializeToString(deterministic=True) == theirs.SerializeToString(deterministic=True)


def test_no_number_of_a_vector_becomes_an_object() -> None:
    """No number of a vector becomes an object of Python."""
    spec = replace(LEXICAL, dim=1024, fields={})
    wires = [to_wire(row(f"d{i}", spec=spec), spec, bm25_limit=65_535) for i in range(4)]

    class Vector(np.ndarray):
        def tolist(self) -> Any:
            raise AssertionError

        def __iter__(self) -> Any:
            raise AssertionError

    guarded = [replace(w, entity={**w.entity, "dense": w.entity["dense"].view(Vector)}) for w in wires]
    assert upsert_request("docs__g1", guarded, spec, lite=False) == upsert_request(
        "docs__g1", wires, spec, lite=False
    )
