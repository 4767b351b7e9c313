"""The Store protocol: all that index/ and search/ ask of a vector database.

One conformance suite (tests/store/test_conformance.py) holds every implementation to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from m3index.schema import CollectionSpec
from m3index.store.filter import Filter
from m3index.types import Candidate, FloatArray, Leg, Row, SparseVector

StoredRow: TypeAlias = Mapping[str, Any]
"""A row as read: the asked fields by name. `dense` is a float32 array, `lexical` a SparseVector,
`metadata` a dict, declared fields their values (str[] a list) or None."""

QueryVector: TypeAlias = "FloatArray | SparseVector | str"
"""What a leg is asked with: dense an array (dim,), lexical a SparseVector, bm25 the text itself."""


class Store(Protocol):
    """Collections of rows, reached by their concrete names (`docs__g1`); aliases point to them.

    Reads are strongly consistent: what an acknowledged write wrote is seen. Every write is
    idempotent, so a call that failed halfway may be repeated. Errors are those of
    m3index.errors: UnreachableError after retries, NotAuthorisedError, LockedError,
    CollectionNotFoundError, FilterError, RowRefusedError (the store refuses the rows named in its
    `passage_ids`; the other rows of the call are written), StoppedError (disk nearly full, quota),
    StoreError for the rest. A collection's rows may also be reached by an alias.
    """

    @property
    def uri(self) -> str: ...

    @property
    def warnings(self) -> list[str]:
        """What the engine has complained of since it was opened (Milvus Lite: rows that it lost).
        Callers show them as errors."""
        ...

    def default_analyzer(self) -> str:
        """The analyzer that a new bm25 collection gets here when none is asked for: `icu` on servers,
        `ngrams` (folded by the client) on Milvus Lite."""
        ...

    # -- collections and aliases

    def collections(self) -> list[str]:
        """The concrete collections' names, sorted."""
        ...

    def create(self, name: str, spec: CollectionSpec, properties: Mapping[str, str]) -> None:
        """Makes and loads an empty collection. An existing one of that name is a StoreError.
        Where spec.analyzer is None a bm25 collection gets the default; the property `analyzer` is set."""
        ...

    def drop(self, name: str) -> None:
        """One that is not there is no error; one that an alias points to is a StoreError."""
        ...

    def spec(self, name: str) -> CollectionSpec:
        """Read back from the store; MismatchError where it is not a collection of ours."""
        ...

    def properties(self, name: str) -> dict[str, str]:
        """The `m3index.*` properties, without that prefix."""
        ...

    def set_properties(self, name: str, properties: Mapping[str, str]) -> None:
        """Writes these (without the prefix), leaves the others."""
        ...

    def resolve(self, alias: str) -> str | None:
        """The collection behind an alias, None where there is none. A plain collection of that
        name, which can never get an alias, is a UsageError that names the remedy."""
        ...

    def point(self, alias: str, name: str) -> None:
        """Makes or moves the alias, in one step."""
        ...

    def drop_alias(self, alias: str) -> None:
        """One that is not there is no error."""
        ...

    # -- rows

    def upsert(self, name: str, rows: Sequence[Row]) -> None:
        """Writes all the rows (split into calls by bytes and count). The last of equal keys wins."""
        ...

    def delete(self, name: str, passage_ids: Sequence[str]) -> None:
        """By primary key; keys that are not there are no error."""
        ...

    def get(self, name: str, passage_ids: Sequence[str], fields: Sequence[str]) -> dict[str, StoredRow]:
        """By primary key, any number of them; missing ones are left out."""
        ...

    def scan(self, name: str, where: Filter | None, fields: Sequence[str]) -> Iterator[StoredRow]:
        """All rows that match, each with `passage_id` and the asked fields, in no order."""
        ...

    def count(self, name: str, where: Filter | None = None) -> int: ...

    def flush(self, name: str) -> None:
        """Makes what was written durable and searchable at full speed: once, at the end of a run."""
        ...

    # -- search

    def search(
        self,
        name: str,
        leg: Leg,
        queries: Sequence[QueryVector],
        limit: int,
        where: Filter | None = None,
        group_field: str | None = None,
    ) -> list[list[Candidate]]:
        """For each query its best `limit` passages, by score descending, then passage_id ascending.

        Only ids and scores travel (and `group_field`'s value as `Candidate.group` where asked).
        A query without lexical tokens has no candidates. Limits over 16,384 are a UsageError.
        """
        ...

    # -- the connection

    def describe(self) -> Mapping[str, Any]:
        """For status and doctor: kind, version, uri (no secrets), and what this server can do."""
        ...

    def close(self) -> None:
        """Releases the connection and, for a local file, its lock. May be called twice."""
        ...
