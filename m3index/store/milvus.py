"""The Store on pymilvus: Milvus Lite at a local path, `milvus-lite server`, and any Milvus server."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any, Literal, TypeAlias, TypeVar

import grpc
from pymilvus import AnnSearchRequest, Function, FunctionType, MilvusClient
from pymilvus.client.cache import GlobalCache
from pymilvus.exceptions import MilvusException
from pymilvus.grpc_gen import milvus_pb2_grpc

from m3index.addresses import is_own, redacted
from m3index.errors import (
    CollectionNotFoundError,
    M3IndexError,
    StoppedError,
    StoreError,
    UnreachableError,
    UsageError,
)
from m3index.schema import STORAGES, CollectionSpec, IndexChoice
from m3index.store import milvus_errors as errors
from m3index.store import retry
from m3index.store.analyzer import STEMS, analyzers, bm25_text
from m3index.store.base import LEASE, QueryVector, StoredRow
from m3index.store.deadline import Deadline
from m3index.store.definition import (
    IndexDefinition,
    bm25_limit,
    from_milvus,
    index_params,
    indexes,
    keeps_rows_on_disk,
    to_milvus,
)
from m3index.store.fence import Check, Fences
from m3index.store.filter import Filter, In, render
from m3index.store.half_precision import pack
from m3index.store.lite import LiteFile
from m3index.store.options import check_uri, is_server
from m3index.store.queries import check
from m3index.store.request import upsert_request
from m3index.store.rows import (
    NOT_STORED,
    WireRow,
    batches,
    changed,
    checked,
    csr_row,
    from_wire,
    reason,
    refusal,
    refused,
    row_fields,
    row_of,
)
from m3index.types import JOINED, AnyRow, Candidate, Leg, Row, RowUpdate, Storage, joined
from m3index.wording import many

Kind: TypeAlias = Literal["lite", "lite-server", "server"]
T = TypeVar("T")

PREFIX = "m3index."
SERVER_TIMEOUT, LITE_TIMEOUT, CONNECT_TIMEOUT = 60.0, 600.0, 10.0
TENANTS_SINCE = (2, 4)  # milvus issue 30607
MERGES_SINCE = (2, 6, 2)  # before milvus pull request 44197, nullable fields could be merged wrongly
KEYS_PER_CALL = 500
CANDIDATES_PER_CALL = 200_000
QUERIES_PER_CALL = 1_000
PAGE_OF_KEYS, PAGE_OF_ROWS = 10_000, 500
_HEAVY = frozenset({*JOINED, "anchor", "metadata", "dense", "lexical"})
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")


class MilvusStore:
    """See Store for the contract of each method.

    On Milvus Lite one lock orders all calls: Lite swaps its write buffer without a lock, and a read
    during the swap would miss rows. `warnings` holds the warnings of Lite's engine since it was opened.
    """

    def __init__(self, uri: str, token: str, db: str, timeout: float | None, lite: LiteFile | None) -> None:
        self._uri, self._token, self._db, self._lite = uri, token, db, lite
        self._timeout = timeout or (SERVER_TIMEOUT if lite is None else LITE_TIMEOUT)
        self._deadline = Deadline()
        self._specs: dict[str, CollectionSpec] = {}
        self._weighing: dict[str, bool] = {}
        self._uuids: dict[str, str | None] = {}
        self._closed = False
        self._fences = Fences()
        self._gate: threading.RLock | None = None
        self._client = self._connect()
        self._version = str(
            self._call("asking for the version", lambda t: self._client.get_server_version(timeout=t))
        )
        lite_engine = self._version.lower().replace("-", "_").startswith("milvus_lite")
        self._merges = lite_engine or _is_at_least(self._version, MERGES_SINCE)
        self.kind: Kind = "lite" if lite is not None else "lite-server" if lite_engine else "server"
        if lite_engine:
            self._gate = threading.RLock()

    @classmethod
    def open(
        cls,
        uri: str,
        token: str | None = None,
        db: str | None = None,
        *,
        timeout: float | None = None,
        create: bool = True,
    ) -> MilvusStore:
        """Opens `path.db` in this process, or a server by `http://`, `https://`, `tcp://` or `unix:`.

        timeout: the seconds that one call may take, including retries; by default 60 on servers and 600
        on a local file, which may be slow but always answers. create: whether to create a missing local
        file; if not, a missing file is a CollectionNotFoundError.
        """
        _quieten()
        check_uri(uri)
        if is_server(uri):
            return cls(uri, token or "", db or "", timeout, None)
        lite = LiteFile(uri, create=create)
        try:
            return cls(uri, token or "", db or "", timeout, lite)
        except BaseException:
            lite.release()
            raise

    @property
    def uri(self) -> str:
        return redacted(self._uri)

    @property
    def warnings(self) -> list[str]:
        """Milvus Lite's warnings: rows that it lost, files that it could not keep in order."""
        return [] if self._lite is None else list(self._lite.warnings.messages)

    def default_analyzer(self) -> str:
        return "icu" if self.kind == "server" else STEMS

    # -- collections and aliases

    def collections(self) -> list[str]:
        return sorted(self._call("listing collections", lambda t: self._client.list_collections(timeout=t)))

    def create(self, name: str, spec: CollectionSpec, properties: Mapping[str, str]) -> None:
        _check_name(name)
        lite = self.kind != "server"
        if lite:
            _check_for_lite(spec)
        elif spec.tenant is not None and _older(self._version, TENANTS_SINCE):
            raise UsageError(
                f"Milvus {self._version} puts rewritten rows into the wrong partition, where a search of "
                "their tenant does not find them. --tenant-field needs Milvus 2.4 or later."
            )
        if spec.sparse == "bm25":
            spec = replace(spec, analyzer=self._analyzer(spec.analyzer))
            properties = {**properties, "analyzer": str(spec.analyzer)}
        if spec.index != IndexChoice():
            properties = {**properties, "index": spec.index.to_json()}
        if self._call("looking for a collection", lambda t: self._client.has_collection(name, timeout=t)):
            raise StoreError(f"The collection {name!r} already exists.")
        built = to_milvus(spec, lite=lite)
        written: dict[str, Any] = {PREFIX + key: value for key, value in properties.items()}
        if keeps_rows_on_disk(spec):
            written["mmap.enabled"] = True
        # Set the properties at creation: if the run ends here, nothing else shows who owns the collection.
        self._once(
            f"creating the collection {name!r}",
            lambda t: self._client.create_collection(
                name, schema=built, consistency_level="Strong", properties=written, timeout=t
            ),
            lambda: self.properties(name) == properties,
        )
        try:
            # There is nothing to index yet, so do not wait (pymilvus sleeps for half a second).
            for index in indexes(spec, lite=lite).values():
                self._index(name, index, spec)
            self._load(name)
        except M3IndexError:
            with suppress(M3IndexError):
                self.drop(name)
            raise

    def drop(self, name: str) -> None:
        if name not in self.collections():
            return
        answer = self._call("listing aliases", lambda t: self._client.list_aliases(name, timeout=t))
        if aliases := answer.get("aliases"):
            raise StoreError(
                f"The collection {name!r} is not dropped: it is in use by the alias {', '.join(aliases)}."
            )
        self._call(
            f"dropping {name!r}",
            self._fences.guarded(name, lambda t: self._client.drop_collection(name, timeout=t)),
        )
        self._forget(name)

    def spec(self, name: str) -> CollectionSpec:
        if name not in self._specs:
            self._specs[name] = from_milvus(name, self._describe(name))
        return self._specs[name]

    def _storage(self, name: str, fields: Sequence[str]) -> Storage:
        """How the dense vectors among these fields are stored."""
        return self.spec(name).storage if "dense" in fields else "fp32"

    def properties(self, name: str) -> dict[str, str]:
        stored = self._describe(name).get("properties") or {}
        return {
            key.removeprefix(PREFIX): str(value) for key, value in stored.items() if key.startswith(PREFIX)
        }

    def set_properties(self, name: str, properties: Mapping[str, str]) -> None:
        if not properties:
            return
        written = {PREFIX + key: value for key, value in properties.items()}

        def attempt(seconds: float) -> None:
            self._client.alter_collection_properties(name, written, timeout=seconds)

        self._call(
            "writing the collection's properties",
            attempt if set(properties) == {LEASE} else self._fences.guarded(name, attempt),
        )

    def resolve(self, alias: str) -> str | None:
        _check_name(alias)
        if alias in self.collections():
            raise UsageError(
                f"{alias!r} is a plain collection at {self.uri}, and m3index needs that name for an alias. "
                "Rename or drop the collection, or choose another name with -c."
            )
        return self._target(alias)

    def point(self, alias: str, name: str) -> None:
        _check_name(alias)
        if name not in self.collections():
            raise CollectionNotFoundError(f"There is no collection {name!r} at {self.uri}.")
        change = self._client.create_alias if self._target(alias) is None else self._client.alter_alias
        self._once(
            f"pointing {alias!r} to {name!r}",
            self._fences.guarded(alias, lambda t: change(name, alias, timeout=t)),
            lambda: self._target(alias) == name,
        )

    def drop_alias(self, alias: str) -> None:
        if self._target(alias) is not None:
            self._call(
                f"dropping the alias {alias!r}",
                self._fences.guarded(alias, lambda t: self._client.drop_alias(alias, timeout=t)),
            )

    def fence(self, alias: str, check: Check | None) -> None:
        self._fences.set(alias, check)

    def limit(self, seconds: float) -> AbstractContextManager[None]:
        return self._deadline.within(seconds)

    # -- rows

    def upsert(self, name: str, rows: Sequence[Row]) -> None:
        if reasons := self._write_all(name, rows):
            raise refused(reasons)

    def update(self, name: str, updates: Sequence[RowUpdate]) -> None:
        good, reasons = checked(updates, self.spec(name), bm25_limit=self._bm25_limit)
        whole = self._written_whole(name, [wire.row for wire in good])
        for batch in batches(wire for wire in good if wire.row.passage_id not in whole):
            reasons |= self._write(name, batch)
        for part in _slices([wire.row for wire in good if wire.row.passage_id in whole], KEYS_PER_CALL):
            reasons |= self._write_back(name, part)
        if reasons:
            raise refused(reasons)

    def refusal(self, name: str, row: Row | RowUpdate) -> str:
        return refusal(row, self.spec(name), bm25_limit=self._bm25_limit)

    @property
    def _bm25_limit(self) -> int:
        return bm25_limit(lite=self.kind != "server")

    def delete(self, name: str, passage_ids: Sequence[str]) -> None:
        for keys in _slices(list(dict.fromkeys(passage_ids)), KEYS_PER_CALL):
            self._delete_keys(name, keys)

    def get(self, name: str, passage_ids: Sequence[str], fields: Sequence[str]) -> dict[str, StoredRow]:
        rows: dict[str, StoredRow] = {}
        for keys in _slices(list(dict.fromkeys(passage_ids)), KEYS_PER_CALL):
            for entity in self._query_keys(name, keys, fields):
                rows[entity["passage_id"]] = from_wire(entity, fields, self._storage(name, fields))
        return rows

    def scan(self, name: str, where: Filter | None, fields: Sequence[str]) -> Iterator[StoredRow]:
        heavy = not _HEAVY.isdisjoint(fields)
        if heavy and self.kind != "server":
            # Each page costs Lite a pass over all rows; a read by key does not.
            for page in self._pages(name, where, [], PAGE_OF_KEYS):
                yield from self.get(name, [entity["passage_id"] for entity in page], fields).values()
            return
        before = self.count(name, where) if self.kind == "server" else 0
        seen = 0
        for page in self._pages(name, where, fields, PAGE_OF_ROWS if heavy else PAGE_OF_KEYS):
            seen += len(page)
            for entity in page:
                yield from_wire(entity, fields, self._storage(name, fields))
        if self.kind == "server" and seen < min(before, self.count(name, where)):
            raise StoreError(
                f"{self.uri} listed {seen} of at least {many(before, 'row')} of {name!r}. Run again."
            )

    def count(self, name: str, where: Filter | None = None) -> int:
        if where is not None and self.kind != "server":
            # For a count with a filter Lite reads the matching rows in full, including vectors.
            return sum(1 for _ in self.scan(name, where, ()))
        expression = "" if where is None else render(where)
        answer = self._call(
            "counting rows",
            lambda t: self._client.query(
                name, filter=expression, output_fields=["count(*)"], consistency_level="Strong", timeout=t
            ),
            name,
            filtered=where is not None,
        )
        return int(answer[0]["count(*)"])

    def flush(self, name: str) -> None:
        self._check_disk(0)
        try:
            self._raw_call(lambda t: self._client.flush(name, timeout=t), name)
        except (MilvusException, grpc.RpcError) as error:
            # Acknowledged writes are in the server's log; they are just not yet in their final form.
            if errors.code(error) != errors.RATE_LIMIT and "wait for flush timeout" not in errors.words(
                error
            ):
                raise self._translated(error, "flushing", write=True) from error

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
        spec = self.spec(name)
        searchable = check(spec, leg, queries, limit)
        outputs = _outputs(fields)
        lists = [field for field in fields if spec.fields.get(field) == "str[]"]
        results: list[list[Candidate]] = [[] for _ in queries]
        for numbers in _slices(searchable, max(1, min(QUERIES_PER_CALL, CANDIDATES_PER_CALL // limit))):
            data = _query_data(leg, [queries[i] for i in numbers], spec)
            for i, hits in zip(numbers, self._search(name, leg, data, limit, where, outputs), strict=True):
                results[i] = _candidates(hits, leg, fields, lists)
        return results

    def hybrid(
        self,
        name: str,
        queries: Mapping[Leg, Sequence[QueryVector]],
        weights: Mapping[Leg, float] | None,
        *,
        depth: int,
        limit: int,
        k: float,
        where: Filter | None = None,
    ) -> list[list[Candidate]]:
        """Reciprocal rank fusion in the server; search/server_fusion.py describes the contract.

        Candidates with equal scores in a leg are ranked in the server's own order.
        """
        spec = self.spec(name)
        searchable = {leg: set(check(spec, leg, vectors, depth)) for leg, vectors in queries.items()}
        results: list[list[Candidate]] = [[] for _ in next(iter(queries.values()))]
        by_legs: dict[tuple[Leg, ...], list[int]] = {}
        for i in range(len(results)):
            by_legs.setdefault(tuple(leg for leg in queries if i in searchable[leg]), []).append(i)
        for legs, members in by_legs.items():
            for numbers in _slices(members if legs else [], max(1, CANDIDATES_PER_CALL // depth)):
                data = {leg: _query_data(leg, [queries[leg][i] for i in numbers], spec) for leg in legs}
                params: dict[str, Any] = {"reranker": "rrf", "k": k}
                if weights is not None:
                    params["weights"] = [weights[leg] for leg in legs]
                answers = self._hybrid(name, data, params, depth, limit, where)
                for i, hits in zip(numbers, answers, strict=True):
                    results[i] = _candidates(hits, Leg.DENSE)
        return results

    def weighs_legs(self, name: str) -> bool:
        """Whether `hybrid` honours weights: servers before 3.0.1 and Milvus Lite silently ignore them. The
        check searches for a stored passage, which is first in both legs. With one leg weighted 0, its
        score is that of one leg if weights are honoured, else that of both."""
        if name not in self._weighing:
            self._weighing[name] = self._try_weights(name)
        return self._weighing[name]

    def _try_weights(self, name: str) -> bool:
        spec = self.spec(name)
        sparse = Leg.LEXICAL if spec.sparse == "lexical" else Leg.BM25
        first = next(self.scan(name, None, []), None)
        if first is None:
            return False
        fields = ["dense", "lexical"] if sparse is Leg.LEXICAL else ["dense", *JOINED]
        row = self.get(name, [first["passage_id"]], fields)[first["passage_id"]]
        vector = row["lexical"] if sparse is Leg.LEXICAL else joined(row)
        try:
            [hits] = self.hybrid(
                name,
                {Leg.DENSE: [row["dense"]], sparse: [vector]},
                {Leg.DENSE: 1.0, sparse: 0.0},
                depth=10,
                limit=1,
                k=60,
            )
        except StoreError:
            return False
        return bool(hits) and hits[0].score < 1.5 / 61

    # -- the connection

    def describe(self) -> Mapping[str, Any]:
        return {
            "kind": self.kind,
            "version": self._version,
            "uri": self.uri,
            "db": self._db or "default",
            "dense_index": "FLAT" if self.kind != "server" else "HNSW",
            "storages": list(STORAGES) if self.kind == "server" else ["fp32"],
            "analyzers": [a for a in analyzers() if self.kind == "server" or a == STEMS],
            "default_analyzer": self.default_analyzer(),
            "warnings": self.warnings,
        }

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._client.close()
        if self._lite is not None:
            self._lite.release()

    # -- calls

    def _connect(self) -> MilvusClient:
        options: dict[str, Any] = {}
        address = self._uri
        if self._lite is not None:
            address = self._lite.address
            # Lite's own server rejects the pings that pymilvus sends over an idle connection.
            options["grpc_options"] = {"grpc.keepalive_time_ms": 2**31 - 1}
        if self._lite is not None or is_own(self._uri):
            options.setdefault("grpc_options", {})["grpc.enable_http_proxy"] = 0

        def attempt(seconds: float) -> MilvusClient:
            return MilvusClient(
                address, token=self._token, db_name=self._db, timeout=seconds, dedicated=True, **options
            )

        try:
            client = retry.call(attempt, min(self._timeout, self._deadline.left, CONNECT_TIMEOUT))
        except (MilvusException, grpc.RpcError) as error:
            raise errors.translate(error, "connecting", self._uri) from error
        connection = client._get_connection()
        GlobalCache.schema.invalidate_db(connection.server_address, self._db)
        connection._final_channel = grpc.intercept_channel(connection._final_channel, self._deadline)
        connection._stub = milvus_pb2_grpc.MilvusServiceStub(connection._final_channel)
        connection._prepare_row_upsert_request = partial(_dated, connection)
        return client

    def _raw_call(self, attempt: Callable[[float], T], name: str | None) -> T:
        with self._deadline.within(self._timeout), self._turn():
            try:
                return self._repeated(attempt)
            except MilvusException as error:
                if name is None or not errors.is_not_loaded(error):
                    raise
            self._load(name)
            return self._repeated(attempt)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Waits on Milvus Lite until the call of another thread is over; the wait counts as part of the call.
        Raises UnreachableError if the time is over before the call is sent."""
        if not self._deadline.left:
            raise UnreachableError(f"{self.uri} did not answer in time. Try again, or increase --timeout.")
        if self._gate is None:
            yield
            return
        if not self._gate.acquire(timeout=min(self._timeout, self._deadline.left)):
            raise UnreachableError(f"{self.uri} does not answer the call of another thread.")
        try:
            yield
        finally:
            self._gate.release()

    def _repeated(self, attempt: Callable[[float], T]) -> T:
        return retry.call(attempt, self._deadline.left)

    def _call(
        self,
        doing: str,
        attempt: Callable[[float], T],
        name: str | None = None,
        *,
        filtered: bool = False,
        write: bool = False,
    ) -> T:
        try:
            return self._raw_call(attempt, name)
        except (MilvusException, grpc.RpcError) as error:
            raise self._translated(error, doing, filtered=filtered, write=write) from error

    def _once(self, doing: str, attempt: Callable[[float], Any], done: Callable[[], bool]) -> None:
        """A call that engines refuse the second time: if its answer was lost, it may have succeeded."""
        try:
            self._call(doing, attempt)
        except UnreachableError:
            raise
        except StoreError:
            with suppress(M3IndexError):
                if done():
                    return
            raise

    def _translated(
        self, error: BaseException, doing: str, *, filtered: bool = False, write: bool = False
    ) -> M3IndexError:
        if self._closed:
            return StoreError(f"{self.uri} has been closed.")
        if write and self._lite is not None and errors.code(error) == errors.UNEXPECTED:
            return self._reopen(self._lite, error)
        return errors.translate(error, doing, self._uri, filtered=filtered)

    def _reopen(self, lite: LiteFile, error: BaseException) -> M3IndexError:
        """After a failed write, Lite's memory, log and files may differ. Reopening makes them agree again."""
        with self._turn():
            self._client.close()
            with suppress(Exception):  # a full disk may prevent it
                lite.restart()
                self._client = self._connect()
        reason = f"Milvus Lite failed to write to {lite.path} ({errors.words(error)})."
        if errors.is_full(error):
            return StoppedError(f"{reason} Free some space and run the same command again.")
        return StoreError(f"{reason} Run the same command again to continue from there.")

    def _index(self, name: str, index: IndexDefinition, spec: CollectionSpec) -> None:
        params = index_params(index, lite=self.kind != "server")
        try:
            self._once(
                f"indexing {name!r}",
                lambda t: self._client.create_index(name, params, timeout=t, sync=False),
                lambda: (
                    index.column
                    in self._call(
                        "listing indexes", lambda t: self._client.list_indexes(name, index.column, timeout=t)
                    )
                ),
            )
        except UnreachableError:
            raise
        except StoreError as error:
            if spec.index == IndexChoice():
                raise
            raise StoreError(
                f"{error} This is the index {index.type} of --index-class {spec.index.size} for "
                f"{index.column!r}, on Milvus {self._version}. Choose another class, or another index with "
                f"--index {'dense' if index.column == 'dense' else 'sparse'}.type=..."
            ) from error

    def _load(self, name: str) -> None:
        self._call(f"loading {name!r}", lambda t: self._client.load_collection(name, timeout=t))

    def _describe(self, name: str) -> Mapping[str, Any]:
        try:
            described: Mapping[str, Any] = self._call(
                f"reading the definition of {name!r}",
                lambda t: self._client.describe_collection(name, timeout=t),
            )
        except CollectionNotFoundError:
            self._forget(name)
            raise
        uuid = (described.get("properties") or {}).get(f"{PREFIX}uuid")
        if self._uuids.get(name, uuid) != uuid:
            self._forget(name)
        self._uuids[name] = uuid
        return described

    def _forget(self, name: str) -> None:
        """Drops what is remembered of a collection that is gone or was replaced by another of its name."""
        self._uuids.pop(name, None)
        self._specs.pop(name, None)
        self._weighing.pop(name, None)
        GlobalCache.schema.invalidate_db(self._client._get_connection().server_address, self._db)

    def _target(self, alias: str) -> str | None:
        try:
            answer = self._raw_call(lambda t: self._client.describe_alias(alias, timeout=t), None)
        except (MilvusException, grpc.RpcError) as error:
            if errors.is_not_found(error):
                return None
            raise self._translated(error, f"looking for the alias {alias!r}") from error
        return str(answer["collection_name"])

    def _analyzer(self, asked: str | None) -> str:
        name = asked or self.default_analyzer()
        if name not in analyzers():
            raise UsageError(f"There is no analyzer {name!r}; choose one of {', '.join(analyzers())}.")
        if self.kind != "server" and name != STEMS:
            raise UsageError(f"Milvus Lite does not have the analyzer {name!r}; use {STEMS!r}.")
        return name

    def _delete_keys(self, name: str, keys: Sequence[str]) -> None:
        self._check_disk(64 * len(keys))
        where = render(In("passage_id", keys))
        self._call(
            "deleting rows",
            self._fences.guarded(name, lambda t: self._client.delete(name, filter=where, timeout=t)),
            name,
            write=True,
        )

    def _pages(
        self, name: str, where: Filter | None, fields: Sequence[str], size: int
    ) -> Iterator[Sequence[Mapping[str, Any]]]:
        """All rows that match, by ascending key. Each page is a separate call."""
        expression = "" if where is None else render(where)
        filtered = where is not None
        iterator = self._call(
            "reading rows",
            lambda t: self._client.query_iterator(
                name, batch_size=size, filter=expression, output_fields=_outputs(fields), timeout=t
            ),
            name,
            filtered=filtered,
        )
        try:
            while page := self._call("reading rows", lambda _: iterator.next(), name, filtered=filtered):
                yield page
        finally:
            iterator.close()

    def _indexes(self, name: str) -> Mapping[Leg, IndexDefinition]:
        return indexes(self.spec(name), lite=self.kind != "server")

    def _search(
        self, name: str, leg: Leg, data: Any, limit: int, where: Filter | None, outputs: list[str]
    ) -> Sequence[Any]:
        expression = "" if where is None else render(where)
        params = self._indexes(name)[leg].searched(limit)
        answers: Sequence[Any] = self._call(
            "searching",
            lambda t: self._client.search(
                name,
                data=data,
                anns_field=str(leg.value),
                filter=expression,
                limit=limit,
                output_fields=outputs,
                search_params=params,
                consistency_level="Strong",
                timeout=t,
            ),
            name,
            filtered=where is not None,
        )
        return answers

    def _hybrid(
        self,
        name: str,
        data: Mapping[Leg, Any],
        params: Mapping[str, Any],
        depth: int,
        limit: int,
        where: Filter | None,
    ) -> Sequence[Any]:
        expression = None if where is None else render(where)
        known = self._indexes(name)
        legs = [
            AnnSearchRequest(queries, leg.value, known[leg].searched(depth), depth, expr=expression)
            for leg, queries in data.items()
        ]
        ranker = Function(
            name="rrf", input_field_names=[], function_type=FunctionType.RERANK, params=dict(params)
        )
        answers: Sequence[Any] = self._call(
            "searching",
            lambda t: self._client.hybrid_search(
                name,
                legs,
                ranker,
                limit=limit,
                output_fields=_outputs([]),
                consistency_level="Strong",
                timeout=t,
            ),
            name,
            filtered=where is not None,
        )
        return answers

    def _query_keys(self, name: str, keys: Sequence[str], fields: Sequence[str]) -> list[Mapping[str, Any]]:
        """Rows by key. The keys are split in half if the rows are too large for one message."""
        where = render(In("passage_id", keys))
        try:
            return list(
                self._raw_call(
                    lambda t: self._client.query(
                        name,
                        filter=where,
                        output_fields=_outputs(fields),
                        consistency_level="Strong",
                        timeout=t,
                    ),
                    name,
                )
            )
        except (MilvusException, grpc.RpcError) as error:
            if not errors.is_too_large(error) or len(keys) == 1:
                raise self._translated(error, "reading rows") from error
        half = len(keys) // 2
        return self._query_keys(name, keys[:half], fields) + self._query_keys(name, keys[half:], fields)

    def _write_all(self, name: str, rows: Sequence[Row]) -> dict[str, str]:
        """Returns the reasons for the refused rows by passage_id."""
        good, reasons = checked(rows, self.spec(name), bm25_limit=self._bm25_limit)
        for batch in batches(good):
            reasons |= self._write(name, batch)
        return reasons

    def _written_whole(self, name: str, updates: Sequence[RowUpdate]) -> set[str]:
        """The keys of the rows that the engine cannot change in part: all of them if it does not merge rows,
        otherwise those that change hands, because the tenant's field is the partition key."""
        keys, tenant = [update.passage_id for update in updates], self.spec(name).tenant
        if not self._merges:
            return set(keys)
        if tenant is None:
            return set()
        stored = self.get(name, keys, [tenant])
        return {
            update.passage_id
            for update in updates
            if (row := stored.get(update.passage_id)) and row[tenant] != update.fields[tenant]
        }

    def _write_back(self, name: str, updates: Sequence[RowUpdate]) -> dict[str, str]:
        """Reads the rows, changes them, and writes them whole. Returns the reasons for the refused ones."""
        spec = self.spec(name)
        stored = self.get(name, [update.passage_id for update in updates], row_fields(spec))
        rows: list[Row] = []
        reasons: dict[str, str] = {}
        for update in updates:
            if row := stored.get(update.passage_id):
                rows.append(changed(row_of(update.passage_id, row, spec), update))
            else:
                reasons[update.passage_id] = reason(update, NOT_STORED)
        return reasons | self._write_all(name, rows)

    def _write(self, name: str, batch: Sequence[WireRow[AnyRow]]) -> dict[str, str]:
        """Writes the rows; a row that is refused for its contents does not affect its neighbours.

        A batch that is too large, or refused for its contents, is halved and written again.
        Returns the reasons for the refused rows by passage_id.
        """
        self._check_disk(sum(row.size for row in batch))
        request = upsert_request(name, batch, self.spec(name), lite=self.kind != "server")
        try:
            self._raw_call(self._fences.guarded(name, lambda t: self._upsert(request, t)), name)
            return {}
        except (MilvusException, grpc.RpcError) as error:
            if not (errors.is_content(error) or errors.is_too_large(error)):
                raise self._translated(error, "writing rows", write=True) from error
            if len(batch) == 1:
                row = batch[0].row
                return {row.passage_id: reason(row, errors.words(error))}
        half = len(batch) // 2
        return self._write(name, batch[:half]) | self._write(name, batch[half:])

    def _upsert(self, request: Any, seconds: float) -> None:
        """Sends a finished request by the method of pymilvus that repeats calls and checks the answer."""
        connection, context = self._client._get_connection(), self._client._generate_call_context()
        connection.upsert_rows(request.collection_name, request, timeout=seconds, context=context)

    def _check_disk(self, batch_bytes: int) -> None:
        if self._lite is not None:
            self._lite.check_disk(batch_bytes)


# ------------------------------------------------------------------ pieces


def _dated(connection: Any, name: str, request: Any, _: str | None, timeout: float, **call: Any) -> Any:
    """A request with the time of the schema that pymilvus knows, in place of one that it builds from rows."""
    request.schema_timestamp = connection._get_schema(name, timeout=timeout, **call)[1]
    return request


def _quieten() -> None:
    """pymilvus logs each failed call with its stack trace; failures already reach the caller as errors."""
    logger = logging.getLogger("pymilvus")
    if logger.level == logging.WARNING:
        logger.setLevel(logging.CRITICAL)


def _older(version: str, than: tuple[int, ...]) -> bool:
    """Compares versions such as `v2.6.4` or `2.6.4-dev`; an unreadable one counts as new."""
    numbers = _numbers(version)
    return bool(numbers) and numbers < than


def _is_at_least(version: str, than: tuple[int, ...]) -> bool:
    """An unreadable version counts as old."""
    return _numbers(version) >= than


def _numbers(version: str) -> tuple[int, ...]:
    match = re.match(r"v?(\d+(?:\.\d+)+)", version)
    return tuple(int(number) for number in match[1].split(".")) if match else ()


def _check_for_lite(spec: CollectionSpec) -> None:
    """Milvus Lite would refuse the storage and silently ignore the index."""
    if spec.storage != "fp32":
        raise UsageError(
            f"Milvus Lite keeps dense vectors as fp32 only; --storage {spec.storage} needs a Milvus server."
        )
    if spec.index != IndexChoice():
        raise UsageError(
            f"Milvus Lite has one index, an exact scan; {spec.index.options} needs a Milvus server."
        )


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is not a valid collection name. Use up to 255 letters, digits and _; "
            "the first character is not a digit."
        )


def _slices(items: Sequence[T], size: int) -> Iterator[list[T]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])


def _outputs(fields: Sequence[str]) -> list[str]:
    """Never empty: without named fields Lite also sends the vectors."""
    return list(dict.fromkeys(["passage_id", *fields]))


def _query_data(leg: Leg, queries: Sequence[Any], spec: CollectionSpec) -> Any:
    match leg:
        case Leg.DENSE:
            return [pack(query, spec.storage) for query in queries]
        case Leg.LEXICAL:
            if len(queries) == 1:
                return [queries[0].to_dict()]
            return [csr_row(query) for query in queries]
        case Leg.BM25:
            # An undecodable byte on the command line must not prevent the search.
            decodable = (query.encode("utf-8", "ignore").decode("utf-8") for query in queries)
            return [bm25_text(query, spec.analyzer or STEMS) for query in decodable]


def _candidates(
    hits: Any, leg: Leg, fields: Sequence[str] = (), lists: Sequence[str] = ()
) -> list[Candidate]:
    """Best first. BM25 scores are never negative, but Milvus Lite returns them negated. lists: those of the
    fields that hold lists."""
    sign = abs if leg is Leg.BM25 else float
    candidates: list[Candidate] = []
    for hit in hits:
        values = {}
        if fields:
            values = hit["entity"]  # made for this answer: 20,000 copies would take longer than to count them
            values.pop("passage_id", None)
            for field in lists:
                values[field] = None if values[field] is None else tuple(values[field])
        candidates.append(Candidate(str(hit["passage_id"]), sign(float(hit["distance"])), values))
    return sorted(candidates, key=lambda c: (-c.score, c.passage_id))
