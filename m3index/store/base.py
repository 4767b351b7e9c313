"""The Store protocol: everything that index/ and search/ need from a vector database.

One conformance suite (tests/store/test_conformance.py) checks every implementation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeAlias

from m3index.schema import CollectionSpec
from m3index.store.fence import Check
from m3index.store.filter import Filter
from m3index.types import Candidate, FloatArray, Leg, Row, RowUpdate, SparseVector

StoredRow: TypeAlias = Mapping[str, Any]
"""A row as read: the requested fields by name. `dense` is a float32 array, `lexical` a SparseVector,
`metadata` a dict, declared fields their values (str[] a list) or None."""

QueryVector: TypeAlias = "FloatArray | SparseVector | str"
"""The query of a leg: an array (dim,) for dense, a SparseVector for lexical, the text itself for bm25."""


LEASE = "lease"
"""The property that says which run may write."""

MAX_LIMIT = 16_384
"""The most results that Milvus returns for one search."""


class Store(Protocol):
    """Collections of rows, addressed by their concrete names (`docs__g1`); aliases point to them.

    Reads are strongly consistent: they see every acknowledged write. Every write is idempotent, so a
    call that failed halfway can be repeated. Errors are those of
    m3index.errors: UnreachableError after retries, NotAuthorisedError, LockedError,
    CollectionNotFoundError, FilterError, RowRefusedError (the store refuses the rows named in its
    `passage_ids`; the other rows of the call are written), StoppedError (disk nearly full, quota),
    StoreError for everything else. A collection's rows can also be addressed by an alias.
    """

    @property
    def uri(self) -> str: ...

    @property
    def warnings(self) -> list[str]:
        """The engine's warnings since it was opened (Milvus Lite: rows that it lost). Callers show them
        as errors."""
        ...

    def default_analyzer(self) -> str:
        """The analyzer of a new bm25 collection if none is requested: `icu` on servers, `stems` (folded
        by the client) on Milvus Lite."""
        ...

    # -- collections and aliases

    def collections(self) -> list[str]:
        """The names of the concrete collections, sorted."""
        ...

    def create(self, name: str, spec: CollectionSpec, properties: Mapping[str, str]) -> None:
        """Creates and loads an empty collection. An existing one of that name is a StoreError. If
        spec.analyzer is None, a bm25 collection gets the default; the property `analyzer` is set."""
        ...

    def drop(self, name: str) -> None:
        """A missing collection is not an error; one that an alias points to is a StoreError."""
        ...

    def spec(self, name: str) -> CollectionSpec:
        """Read back from the store. MismatchError if m3index did not make the collection."""
        ...

    def properties(self, name: str) -> dict[str, str]:
        """The `m3index.*` properties, without that prefix."""
        ...

    def set_properties(self, name: str, properties: Mapping[str, str]) -> None:
        """Writes these (named without the prefix) and keeps the others."""
        ...

    def resolve(self, alias: str) -> str | None:
        """The collection behind an alias; None if there is no such alias. A plain collection of that
        name, which prevents the alias, is a UsageError that names the remedy."""
        ...

    def point(self, alias: str, name: str) -> None:
        """Creates or moves the alias, in one step."""
        ...

    def drop_alias(self, alias: str) -> None:
        """A missing alias is not an error."""
        ...

    def fence(self, alias: str, check: Check | None) -> None:
        """Calls `check` right before every write to the alias and its generations: each part of a large
        write, and each repetition. An error of it refuses the write. None ends this. Leases are exempt."""
        ...

    def limit(self, seconds: float) -> AbstractContextManager[None]:
        """Within it, the calls of this context take at most `seconds` together, with those of the threads
        that a search starts. For requests with a deadline, and for the end of a run, when the store may have
        fallen silent."""
        ...

    # -- rows

    def upsert(self, name: str, rows: Sequence[Row]) -> None:
        """Writes all rows, split into calls by bytes and count. Of rows with equal keys, the last wins.
        A row that is too large by itself is refused with RowRefusedError."""
        ...

    def update(self, name: str, updates: Sequence[RowUpdate]) -> None:
        """Changes stored rows, which keep their texts and vectors, in calls like those of `upsert`. An engine
        that cannot change part of a row gets whole rows, which are read back for it. The update of a row that
        is not stored is refused with RowRefusedError. Of updates with equal keys, the last wins."""
        ...

    def refusal(self, name: str, row: Row | RowUpdate) -> str:
        """Why `upsert` refuses any row with this content, whatever its vectors, or why `update` refuses this
        update of any row; empty if it does not."""
        ...

    def delete(self, name: str, passage_ids: Sequence[str]) -> None:
        """By primary key; missing keys are not an error."""
        ...

    def get(self, name: str, passage_ids: Sequence[str], fields: Sequence[str]) -> dict[str, StoredRow]:
        """By primary key, any number of them; missing ones are left out."""
        ...

    def scan(self, name: str, where: Filter | None, fields: Sequence[str]) -> Iterator[StoredRow]:
        """All rows that match, each with `passage_id` and the requested fields, in no particular order."""
        ...

    def count(self, name: str, where: Filter | None = None) -> int: ...

    def flush(self, name: str) -> None:
        """Makes all writes durable and searchable at full speed. Called once, at the end of a run."""
        ...

    # -- search

    def search(
        self,
        name: str,
        leg: Leg,
        queries: Sequence[QueryVector],
        limit: int,
        where: Filter | None = None,
        fields: Sequence[str] = (),
    ) -> list[list[Candidate]]:
        """For each query its best `limit` passages, by score descending, then passage_id ascending.

        Only ids, scores and the values of `fields` are transferred.
        A query without lexical tokens has no candidates. A limit over 16,384 is a UsageError.
        """
        ...

    # -- the connection

    def describe(self) -> Mapping[str, Any]:
        """For status and doctor: kind, version, uri (without secrets), and the server's capabilities."""
        ...

    def close(self) -> None:
        """Releases the connection and, for a local file, its lock. Can be called twice."""
        ...
