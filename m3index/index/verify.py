"""Proves the index against the corpus: every document is cut and encoded again, and compared with its
rows; every row must belong to a document. Repairs exactly what differs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from m3index.encoder.base import Encoder
from m3index.errors import Exit, UsageError
from m3index.index.batches import Batcher, Encoded
from m3index.index.collection import Target, check, find, now
from m3index.index.lock import hold
from m3index.index.plan import Change, Corpus, Planned, Planner, Window, windows_of
from m3index.index.prune import MaxDelete, kept_because, rows_of
from m3index.index.settings import Never, Stop, SyncSettings
from m3index.index.sync import pipeline
from m3index.index.tenant import tenant_of
from m3index.index.write import READ_ROWS, Rewrite, remove, row_fields, row_of, write
from m3index.progress import Progress, Reporter, Silent
from m3index.store.base import Store, StoredRow
from m3index.store.halves import ROUNDOFF
from m3index.types import Rejected, Row, SparseVector, Storage, key_of_passage, passage_key

TOLERANCE = 1e-3
"""How far the cosine of a stored and a new vector may be from 1, beside what a collection that keeps halves
rounds off (5e-4 in fp16, 4e-3 in bf16). An encoder in bf16 against one in fp32 differs by about 1e-4,
another text by more than 1e-2."""

KEPT_DIFFERENCES = 1000


@dataclass(frozen=True, slots=True)
class Difference:
    """One way in which the index is not what the corpus says.

    kind: `missing`, `ghost` (a row or a document that should not be there), `hash`, `count` (the
    number of passages), `text`, `metadata` (declared fields too), `vector`. ordinal: of the passage;
    None where it is the whole document.
    """

    kind: str
    doc_id: str
    ordinal: int | None
    detail: str

    def __str__(self) -> str:
        where = f"{self.doc_id!r}" if self.ordinal is None else f"{self.doc_id!r}, passage {self.ordinal}"
        return f"{self.kind}: {where}: {self.detail}"

    def to_json(self) -> dict[str, Any]:
        return {
            "type": "difference",
            "kind": self.kind,
            "doc_id": self.doc_id,
            "ordinal": self.ordinal,
            "detail": self.detail,
        }


@dataclass(slots=True)
class Verification:
    """What a proof found. `checked`: documents of the slice that were compared; `differing`,
    `repaired`: documents. `differences`: the first 1,000."""

    collection: str
    encoder: str
    subset: str
    generation: int
    scanned: int = 0
    checked: int = 0
    passages: int = 0
    quarantined: int = 0
    differing: int = 0
    repaired: int = 0
    by_kind: dict[str, int] = field(default_factory=dict)
    differences: list[Difference] = field(default_factory=list)
    ghosts_sought: bool = True
    storage: Storage = "fp32"
    tenant_field: str | None = None
    tenant: str | None = None
    store_count: int = 0
    seconds: float = 0.0
    exit: int = 0

    def to_json(self) -> dict[str, Any]:
        return {
            "type": "summary",
            "command": "verify",
            "collection": self.collection,
            "encoder": self.encoder,
            "subset": self.subset,
            "generation": self.generation,
            "scanned": self.scanned,
            "checked": self.checked,
            "passages": self.passages,
            "quarantined": self.quarantined,
            "differing": self.differing,
            "repaired": self.repaired,
            "by_kind": self.by_kind,
            "ghosts_sought": self.ghosts_sought,
            "storage": self.storage,
            "tenant_field": self.tenant_field,
            "tenant": self.tenant,
            "store_count": self.store_count,
            "seconds": self.seconds,
            "exit": self.exit,
        }


def parse_subset(text: str) -> tuple[int, int]:
    """`3/64` -> (3, 64): the third of 64 slices. Raises UsageError."""
    part, _, of = text.partition("/")
    if part.isdecimal() and of.isdecimal() and 1 <= int(part) <= int(of):
        return int(part), int(of)
    raise UsageError(f"--subset takes a slice such as 3/64: {text!r} is none.")


def verify(
    store: Store,
    encoder: Encoder,
    alias: str,
    corpus: Corpus,
    settings: SyncSettings,
    *,
    subset: tuple[int, int] = (1, 1),
    repair: bool = False,
    tolerance: float = TOLERANCE,
    found: Callable[[Difference], None] | None = None,
    reporter: Reporter | None = None,
    stop: Stop | None = None,
) -> Verification:
    """Compares slice i of n (by the documents' keys) with the corpus, re-encoding it.

    found: called with each difference. repair: rewrites the documents that differ and removes ghosts,
    within `settings.max_delete`. The exit is 15 where a difference remains. Holds the lock, so that no
    run is taken for a fault.
    """
    with hold(store, alias, settings.retry_lock, "m3index verify") as lock:
        target = lock.lease(lambda: find(store, alias))
        check(target, encoder.info, settings.wanted)
        told, asked = reporter or Silent(), stop or Never()
        proof = _Proof(store, encoder, target, settings, subset, repair, tolerance, found, told, asked)
        return proof.over(corpus)


class _Proof:
    def __init__(
        self,
        store: Store,
        encoder: Encoder,
        target: Target,
        settings: SyncSettings,
        subset: tuple[int, int],
        repair: bool,
        tolerance: float,
        found: Callable[[Difference], None] | None,
        reporter: Reporter,
        stop: Stop,
    ) -> None:
        size = settings.passages.resolve(encoder.tokenizer) if settings.passages else target.passages
        self.store, self.target, self.settings = store, target, settings
        self.part, self.of = subset
        self.repair, self.found = repair, found
        self.tolerance, self.roundoff = tolerance, ROUNDOFF[target.spec.storage]
        self.reporter, self.stop = reporter, stop
        spec = target.spec
        self.tenant = tenant_of(spec, target.alias, settings.tenant)
        self.planner = Planner(
            store,
            target.name,
            spec.fields,
            settings.source,
            size,
            tenant_field=spec.tenant,
            tenant=self.tenant,
            force=True,
        )
        self.batcher = Batcher(store, target, encoder, settings.source, size)
        self.expected: dict[str, int] = {}  # passages of the documents that differ
        label = "" if self.of == 1 else f"{self.part}/{self.of}"
        self.result = Verification(
            target.alias,
            encoder.info.name,
            label,
            target.generation,
            storage=spec.storage,
            tenant_field=spec.tenant,
            tenant=settings.tenant,
        )

    def over(self, corpus: Corpus) -> Verification:
        started, result = time.monotonic(), self.result
        self._compare_documents(corpus)
        stopped = self.stop()
        if not stopped:
            self._find_ghosts(corpus)
        if result.repaired:
            self.store.flush(self.target.name)
        result.store_count = self.store.count(self.target.name)
        result.seconds = round(time.monotonic() - started, 3)
        if stopped:
            result.exit = int(self.stop.exit)
        elif result.differing > result.repaired:
            result.exit = int(Exit.DRIFT)
        elif result.quarantined:
            result.exit = int(Exit.QUARANTINED)
        if result.exit in (Exit.OK, Exit.QUARANTINED) and result.ghosts_sought:
            verified = f"{now()} {result.subset}".strip()
            self.store.set_properties(self.target.name, {"last_verified": verified})
        return result

    def _in_slice(self, key: str) -> bool:
        return int(key[:8], 16) % self.of == self.part - 1

    # -- the corpus against the index

    def _compare_documents(self, corpus: Corpus) -> None:
        total = corpus.total_bytes
        windows = (self._slice(self.planner.window(part)) for part in windows_of(corpus))
        with closing(pipeline(windows, self.batcher, self.stop)) as encoded:
            for done in encoded:
                if isinstance(done, Window):
                    self.result.scanned += done.scanned
                    for rejected in done.rejected:
                        self._quarantine(rejected)
                else:
                    self._compare(done)
                self.reporter.progress(
                    Progress(self.result.scanned, self.result.passages, 0, corpus.bytes_read, total)
                )
                if self.stop():
                    return
        for error in corpus.read_errors:
            self._quarantine(error)

    def _slice(self, window: Window) -> Window:
        planned = [p for p in window.planned if self._in_slice(p.key)]
        return replace(window, planned=planned)

    def _quarantine(self, rejected: Rejected) -> None:
        self.result.quarantined += 1
        self.reporter.rejected(rejected)

    def _compare(self, batch: Encoded) -> None:
        ids = [
            passage_key(planned.key, ordinal)
            for planned, rewrite in batch.documents
            for ordinal in range(max(planned.stored, len(rewrite.rows)))
        ]
        stored = self._read(ids)
        wrong: list[Rewrite] = []
        for planned, rewrite in batch.documents:
            self.result.checked += 1
            self.result.passages += len(rewrite.rows)
            differences = list(self._differences(planned, rewrite, stored))
            if differences:
                self.expected[planned.key] = len(rewrite.rows)
                self._report(differences)
                wrong.append(rewrite)
        if wrong and self.repair:
            refused = write(self.store, self.target.name, wrong)
            self.result.repaired += len(wrong) - len(refused)

    def _read(self, ids: Sequence[str]) -> dict[str, StoredRow]:
        fields, found = row_fields(self.target.spec), {}
        for start in range(0, len(ids), READ_ROWS):
            found.update(self.store.get(self.target.name, ids[start : start + READ_ROWS], fields))
        return found

    def _differences(
        self, planned: Planned, rewrite: Rewrite, stored: Mapping[str, StoredRow]
    ) -> Iterator[Difference]:
        doc_id = planned.document.doc_id
        if planned.change is Change.ADDED and not any(row.passage_id in stored for row in rewrite.rows):
            yield Difference("missing", doc_id, None, "the document is not in the index")
            return
        for row in rewrite.rows:
            found = stored.get(row.passage_id)
            if found is None:
                yield Difference("missing", doc_id, row.ordinal, "the passage is not in the index")
            else:
                yield from self._row_differences(row, row_of(row.passage_id, found, self.target.spec))
        for ordinal in range(len(rewrite.rows), planned.stored):
            if passage_key(planned.key, ordinal) in stored:
                yield Difference("ghost", doc_id, ordinal, f"the document has {len(rewrite.rows)} passages")

    def _row_differences(self, wanted: Row, found: Row) -> Iterator[Difference]:
        def differs(kind: str, detail: str) -> Difference:
            return Difference(kind, wanted.doc_id, wanted.ordinal, detail)

        if found.doc_hash != wanted.doc_hash:
            yield differs("hash", f"{found.doc_hash or 'none (half written)'}, should be {wanted.doc_hash}")
        if found.passages != wanted.passages:
            yield differs("count", f"{found.passages} passages, should be {wanted.passages}")
        if (found.title, found.text) != (wanted.title, wanted.text):
            yield differs("text", "title or text are not those of the corpus")
        if _described(found) != _described(wanted):
            yield differs("metadata", "metadata or fields are not those of the corpus")
        dense = float(np.dot(found.dense, wanted.dense))
        if not dense >= 1 - self.tolerance - self.roundoff:
            yield differs("vector", f"the cosine of the dense vectors is {dense:.4f}")
        if wanted.sparse is not None:
            lexical = _cosine(found.sparse, wanted.sparse)
            if not lexical >= 1 - self.tolerance:
                yield differs("vector", f"the cosine of the lexical weights is {lexical:.4f}")

    def _report(self, differences: Sequence[Difference]) -> None:
        """The differences of one document."""
        self.result.differing += 1
        for difference in differences:
            self.result.by_kind[difference.kind] = self.result.by_kind.get(difference.kind, 0) + 1
            if len(self.result.differences) < KEPT_DIFFERENCES:
                self.result.differences.append(difference)
            if self.found is not None:
                self.found(difference)

    # -- the index against the corpus

    def _find_ghosts(self, corpus: Corpus) -> None:
        """Rows that belong to no document of the corpus."""
        self.reporter.stage("looking for rows that belong to no document")
        if not corpus.complete:
            self.result.ghosts_sought = False
            self.reporter.warning(
                "The corpus could not be read whole: rows without a document were not sought."
            )
            return
        ghosts: dict[str, list[int]] = {}
        names: dict[str, str] = {}
        where = rows_of(self.planner)
        rows: list[tuple[str, int, str]] = []
        for row in self.store.scan(self.target.name, where, ["ordinal", "doc_id"]):
            key = key_of_passage(row["passage_id"])
            if not self._in_slice(key):
                continue
            rows.append((key, row["ordinal"], row["doc_id"]))
            if len(rows) == READ_ROWS:
                self._sort_out(rows, ghosts, names)
                rows = []
        self._sort_out(rows, ghosts, names)
        for key, ordinals in ghosts.items():
            whole = key not in self.planner
            if whole:
                self._report([Difference("ghost", names[key], None, "the corpus has no such document")])
            else:
                told = "the document has fewer passages"
                self._report([Difference("ghost", names[key], o, told) for o in sorted(ordinals)])
        if self.repair:
            self._remove_ghosts(ghosts)

    def _sort_out(
        self, rows: Sequence[tuple[str, int, str]], ghosts: dict[str, list[int]], names: dict[str, str]
    ) -> None:
        asked = {key for key, ordinal, _ in rows if ordinal and key in self.planner}
        found = self.store.get(self.target.name, [passage_key(key, 0) for key in asked], ["passages"])
        passages = {key_of_passage(i): row["passages"] for i, row in found.items()} | self.expected
        for key, ordinal, doc_id in rows:
            ghost = ordinal >= passages.get(key, 1) if key in self.planner else True
            if ghost and not (key in self.expected and not self.repair):
                ghosts.setdefault(key, []).append(ordinal)
                names[key] = doc_id

    def _remove_ghosts(self, ghosts: Mapping[str, Sequence[int]]) -> None:
        whole = {key: ordinals for key, ordinals in ghosts.items() if key not in self.planner}
        rest = [passage_key(k, o) for k, ordinals in ghosts.items() if k in self.planner for o in ordinals]
        if rest:
            self.store.delete(self.target.name, rest)
            self.result.repaired += len(ghosts) - len(whole)
        guard = self.settings.max_delete or MaxDelete()
        refusal = guard.refuses(len(whole), len(self.planner.seen) // self.of + len(whole))
        if refusal:
            self.reporter.warning(kept_because(len(whole), refusal))
        elif whole:
            remove(self.store, self.target.name, self.target.spec, whole)
            self.result.repaired += len(whole)


def _described(row: Row) -> tuple[Any, ...]:
    """What a row says about its document; arrays as lists, in which form they are read."""
    fields = {name: list(v) if isinstance(v, list | tuple) else v for name, v in row.fields.items()}
    metadata = json.loads(json.dumps(row.metadata))
    return row.doc_id, row.source, row.ordinal, metadata, fields


def _cosine(a: SparseVector | None, b: SparseVector) -> float:
    """Of two sparse vectors; 1 where both are empty."""
    x, y = a.to_dict() if a is not None else {}, b.to_dict()
    if not x or not y:
        return float(not x and not y)
    dot = sum(weight * y.get(i, 0.0) for i, weight in x.items())
    return dot / float(np.linalg.norm(list(x.values())) * np.linalg.norm(list(y.values())))
