"""Small collections in memory for the tests of search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fakes import FakeEncoder

from m3index.encoder.base import Encoder
from m3index.schema import CollectionSpec
from m3index.search.plan import SearchTarget
from m3index.store.base import Store
from m3index.store.memory import MemoryStore
from m3index.types import DEFAULT_SOURCE, FieldType, Row, SparseKind, document_key, join_title, passage_key


@dataclass
class Doc:
    doc_id: str
    passages: Sequence[str]
    title: str = ""
    source: str = DEFAULT_SOURCE
    metadata: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return document_key(self.source, self.doc_id)


def rows_of(doc: Doc, encoder: Encoder, lexical: bool) -> list[Row]:
    texts = [join_title(doc.title, "", text) for text in doc.passages]
    ids = [tokens.ids for tokens in encoder.tokenizer.documents(texts)]
    batch = encoder.encode_ids(ids, lexical=lexical)
    return [
        Row(
            passage_id=passage_key(doc.key, i),
            doc_id=doc.doc_id,
            ordinal=i,
            source=doc.source,
            doc_hash="hash",
            passages=len(doc.passages),
            title=doc.title,
            breadcrumb="",
            anchor="",
            text=text,
            metadata=doc.metadata,
            fields=doc.fields,
            dense=batch.dense[i],
            sparse=batch.lexical.row(i) if batch.lexical is not None else None,
        )
        for i, text in enumerate(doc.passages)
    ]


def collection(
    docs: Sequence[Doc],
    sparse: SparseKind = "lexical",
    *,
    encoder: FakeEncoder | None = None,
    store: Store | None = None,
    name: str = "docs__g1",
    fields: Mapping[str, FieldType] | None = None,
) -> SearchTarget:
    """A collection of these documents, ready to be searched."""
    encoder = encoder or FakeEncoder()
    store = store or MemoryStore()
    spec = CollectionSpec(encoder.info.dim, sparse, fields or {})
    store.create(name, spec, {})
    for doc in docs:
        store.upsert(name, rows_of(doc, encoder, sparse == "lexical"))
    return SearchTarget(store, name, spec, lambda: encoder)


TIDES = [
    Doc("tide", ["the moon pulls the sea", "twice a day the sea comes in"], title="Tides"),
    Doc("moon", ["the moon has no air", "the moon goes round the earth"]),
    Doc("bread", ["flour water salt yeast"], metadata={"kind": "recipe"}),
    Doc("soup", ["water salt leek"], metadata={"kind": "recipe"}),
    Doc("sea", ["the sea is salt water", "ships cross the sea", "fish live in the sea"]),
]
