"""What the tests of scale/ share: small corpora, and shards as comparable rows."""

from __future__ import annotations

from typing import Any

from m3index.files import Folder
from m3index.scale.manifest import ShardFolder
from m3index.scale.options import EncodeOptions
from m3index.scale.shards import reading, rows_of
from m3index.types import Row

PASSAGES: dict[str, int] = {"passage_tokens": 12, "overlap": 2}
ENCODE = EncodeOptions(**PASSAGES, shard_documents=8)


def document(number: int, words: int | None = None, **changes: Any) -> dict[str, Any]:
    """A row of JSON: its length depends on its number, so that some have several passages."""
    count = words if words is not None else 1 + (7 * number) % 40
    text = " ".join(f"w{number}x{i}" for i in range(count))
    return {"id": f"d{number}", "title": f"Title {number}", "text": text, "year": 1900 + number} | changes


def rows_in(folder: Folder) -> list[Row]:
    """All rows of a complete folder, in order."""
    shards = ShardFolder(folder)
    rows: list[Row] = []
    for entry in shards.complete()[1]:
        with reading(shards.shards, entry.file) as file:
            assert file.metadata.num_rows == entry.rows
            for batch in file.iter_batches():
                rows += rows_of(batch)
    return rows


def contents(folder: Folder) -> dict[str, Any]:
    """Rows by key, in a form that compares bit for bit."""
    return {row.passage_id: comparable(row) for row in rows_in(folder)}


def comparable(row: Row) -> tuple[Any, ...]:
    sparse = None if row.sparse is None else (row.sparse.indices.tobytes(), row.sparse.values.tobytes())
    told = (row.doc_id, row.ordinal, row.source, row.doc_hash, row.passages, row.title, row.text)
    return (*told, dict(row.metadata), dict(row.fields), row.dense.tobytes(), sparse)
