"""Verifies the index against the corpus: splits and encodes every document again, compares it with its rows,
and looks for rows without a document. Can repair the differences."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from m3index.corpus.notes import tell
from m3index.corpus.options import MaxErrors
from m3index.encoder.base import Encoder
from m3index.errors import SUCCESS, DriftError, Exit, decide
from m3index.index.batches import Batcher, Encoded
from m3index.index.collection import Collection, check_fits, find, now
from m3index.index.lock import hold
from m3index.index.options import CollectionLayout, Never, Stop, VerifyOptions
from m3index.index.plan import REPEATED_ID, Change, Corpus, DocumentChange, Planner, Window, windows_of
from m3index.index.prune import obstacle, withheld_message
from m3index.index.seen import SeenKeys
from m3index.index.sync import pipeline
from m3index.index.tenant import tenant_of
from m3index.index.write import READ_ROWS, DocumentWrite, remove, write
from m3index.progress import Progress, Reporter, Silent
from m3index.schema import metadata_json
from m3index.store.base import Store, StoredRow
from m3index.store.half_precision import ROUNDOFF
from m3index.store.rows import row_fields, row_of
from m3index.types import Rejected, Row, SparseVector, Storage, document_key, key_of_passage, passage_key
from m3index.wording import many

TOLERANCE = 1e-3
"""How far the cosine of a stored and a new vector may be from 1, in addition to the rounding error of a
collection in half precision (5e-4 in fp16, 4e-3 in bf16). Between an encoder in bf16 and one in fp32 the
cosine differs by about 1e-4, between different texts by more than 1e-2."""

MAX_DIFFERENCES = 1000
"""The maximum number of differences in a `Verification`."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference between the index and the corpus.

    kind: `missing`, `ghost` (a row or a document that should not exist), `stale` (the corpus has a bad row
    for the document, and the index an earlier version), `hash`, `count` (of passages), `text`, `metadata`
    (including declared fields) or `vector`. ordinal: the passage; None for the whole document.
    """

    kind: str
    doc_id: str
    ordinal: int | None
    detail: str

    def __str__(self) -> str:
        passage = "" if self.ordinal is None else f", passage {self.ordinal}"
        return f"{self.kind}: {self.doc_id!r}{passage}: {self.detail}"

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
    """The result of a verification; iterating yields its differences.

    checked: the number of documents compared. differing, repaired: numbers of documents. differences: the
    first 1,000. ghosts_sought: False if the corpus was not read completely. skipped: the number of files and
    folders that were not read, by reason.
    """

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
    skipped: Mapping[str, int] = field(default_factory=dict)
    storage: Storage = "fp32"
    tenant_field: str | None = None
    tenant: str | None = None
    store_count: int = 0
    seconds: float = 0.0
    exit: int = 0

    def __iter__(self) -> Iterator[Difference]:
        return iter(self.differences)

    def raise_for_differences(self) -> None:
        """Raises DriftError if unrepaired differences remain."""
        if self.differing > self.repaired:
            kinds = ", ".join(f"{count:,} {kind}" for kind, count in self.by_kind.items())
            differing = many(self.differing - self.repaired, "document differs", "documents differ")
            raise DriftError(
                f"In {self.collection!r}, {differing} from the corpus ({kinds}). If the corpus is correct, "
                "verify with repair=True."
            )

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
            "skipped": self.skipped,
            "storage": self.storage,
            "tenant_field": self.tenant_field,
            "tenant": self.tenant,
            "store_count": self.store_count,
            "seconds": self.seconds,
            "exit": self.exit,
        }


def verify(
    store: Store,
    encoder: Encoder,
    alias: str,
    corpus: Corpus,
    settings: VerifyOptions,
    *,
    tolerance: float = TOLERANCE,
    on_difference: Callable[[Difference], None] | None = None,
    reporter: Reporter | None = None,
    stop: Stop | None = None,
) -> Verification:
    """Encodes a slice of the corpus again and compares it with the index. Holds the write lock.

    on_difference: called with each difference. `settings.repair` rewrites documents that differ and removes
    ghosts, within `max_delete`. The exit code is 15 if a difference remains. Raises CollectionNotFoundError,
    LockedError, MismatchError, MissingHeadError, UsageError and StoreError.
    """
    with hold(store, alias, settings.lock_seconds, "m3index verify") as lock:
        rewrites = [settings.source] if settings.repair else []
        target = lock.lease(lambda: find(store, alias), rewrites=rewrites)
        check_fits(target, encoder.info, CollectionLayout())
        reporter, stop = reporter or Silent(), stop or Never()
        run = _Verifier(store, encoder, target, settings, tolerance, on_difference, reporter, stop)
        return run.over(corpus)


class _Verifier:
    def __init__(
        self,
        store: Store,
        encoder: Encoder,
        target: Collection,
        settings: VerifyOptions,
        tolerance: float,
        on_difference: Callable[[Difference], None] | None,
        reporter: Reporter,
        stop: Stop,
    ) -> None:
        size = target.passages
        self.store, self.target, self.settings = store, target, settings
        self.part, self.of = settings.slice
        self.repair, self.on_difference = settings.repair, on_difference
        self.tolerance, self.roundoff = tolerance, ROUNDOFF[target.spec.storage]
        self.reporter, self.stop = reporter, stop
        spec = target.spec
        self.tenant = tenant_of(spec, target.alias, settings.tenant_name)
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
        self.batcher = Batcher(store, target, encoder, settings.source, size, keeps=False)
        self.expected: dict[str, int] = {}  # number of passages of each document that differs
        self.refused = SeenKeys()  # documents that the corpus contains but that cannot be indexed
        label = "" if self.of == 1 else f"{self.part}/{self.of}"
        self.result = Verification(
            target.alias,
            encoder.info.name,
            label,
            target.generation,
            storage=spec.storage,
            tenant_field=spec.tenant,
            tenant=settings.tenant_name,
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
        ended = self.stop.exit if stopped else None
        reason = MaxErrors().refusal(result.quarantined, result.scanned + len(corpus.read_errors))
        if reason and ended is None:
            self.reporter.warning(reason)
            ended = Exit.STOPPED
        code = decide(
            stopped=ended,
            drift=result.differing > result.repaired,
            quarantined=bool(result.quarantined),
        )
        result.exit = int(code)
        if code in SUCCESS and result.ghosts_sought:
            verified = f"{now()} {result.subset}".strip()
            self.store.set_properties(self.target.name, {"last_verified": verified})
        return result

    def _in_slice(self, key: str) -> bool:
        return int(key[:8], 16) % self.of == self.part - 1

    # -- compare the corpus with the index

    def _compare_documents(self, corpus: Corpus) -> None:
        total = corpus.total_bytes
        windows = (self._slice(self.planner.window(part)) for part in windows_of(corpus))
        with closing(pipeline(windows, self.batcher, self.stop)) as encoded:
            for item in encoded:
                if isinstance(item, Window):
                    self.result.scanned += item.scanned
                    for rejected in item.rejected:
                        self._quarantine(rejected)
                        if rejected.document is not None and rejected.reason != REPEATED_ID:
                            key = document_key(self.settings.source, rejected.document.doc_id)
                            self.refused.add(bytes.fromhex(key))
                else:
                    self._compare(item)
                self.reporter.progress(
                    Progress(self.result.scanned, self.result.passages, 0, corpus.bytes_read, total)
                )
                if self.stop():
                    return
        self.result.skipped = dict(corpus.skip_counts)
        tell(corpus, self.reporter)
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
            for planned, expected in batch.documents
            for ordinal in range(max(planned.stored, len(expected.rows)))
        ]
        stored = self._read(ids)
        wrong: list[DocumentWrite[Row]] = []
        for planned, expected in batch.documents:
            self.result.checked += 1
            self.result.passages += len(expected.rows)
            differences = list(self._differences(planned, expected, stored))
            if differences:
                self.expected[planned.key] = len(expected.rows)
                self._report(differences)
                wrong.append(expected)
        if wrong and self.repair:
            refused = write(self.store, self.target.name, wrong)
            self.result.repaired += len(wrong) - len(refused)

    def _read(self, ids: Sequence[str]) -> dict[str, StoredRow]:
        fields, rows = row_fields(self.target.spec), {}
        for start in range(0, len(ids), READ_ROWS):
            rows.update(self.store.get(self.target.name, ids[start : start + READ_ROWS], fields))
        return rows

    def _differences(
        self, planned: DocumentChange, expected: DocumentWrite[Row], stored: Mapping[str, StoredRow]
    ) -> Iterator[Difference]:
        doc_id = planned.document.doc_id
        if planned.change is Change.ADDED and not any(row.passage_id in stored for row in expected.rows):
            yield Difference("missing", doc_id, None, "the document is not in the index")
            return
        for row in expected.rows:
            stored_row = stored.get(row.passage_id)
            if stored_row is None:
                yield Difference("missing", doc_id, row.ordinal, "the passage is not in the index")
            else:
                yield from self._row_differences(row, row_of(row.passage_id, stored_row, self.target.spec))
        for ordinal in range(len(expected.rows), planned.stored):
            if passage_key(planned.key, ordinal) in stored:
                yield Difference(
                    "ghost", doc_id, ordinal, f"the document has {many(len(expected.rows), 'passage')}"
                )

    def _row_differences(self, expected: Row, stored: Row) -> Iterator[Difference]:
        def difference(kind: str, detail: str) -> Difference:
            return Difference(kind, expected.doc_id, expected.ordinal, detail)

        if stored.doc_hash != expected.doc_hash:
            detail = f"{stored.doc_hash or 'none (half-written)'}, should be {expected.doc_hash}"
            yield difference("hash", detail)
        if stored.passages != expected.passages:
            yield difference("count", f"{many(stored.passages, 'passage')}, should be {expected.passages}")
        if _wording(stored) != _wording(expected):
            yield difference("text", "title, text or the place of the passage differs from the corpus")
        if _description(stored) != _description(expected):
            yield difference("metadata", "metadata or a field differs from the corpus")
        dense = float(np.dot(stored.dense, expected.dense))
        if not dense >= 1 - self.tolerance - self.roundoff:
            yield difference("vector", f"the cosine of the dense vectors is {dense:.4f}")
        if expected.sparse is not None:
            lexical = _cosine(stored.sparse, expected.sparse)
            if not lexical >= 1 - self.tolerance:
                yield difference("vector", f"the cosine of the lexical weights is {lexical:.4f}")

    def _report(self, differences: Sequence[Difference]) -> None:
        """Records the differences of one document."""
        self.result.differing += 1
        for difference in differences:
            self.result.by_kind[difference.kind] = self.result.by_kind.get(difference.kind, 0) + 1
            if len(self.result.differences) < MAX_DIFFERENCES:
                self.result.differences.append(difference)
            if self.on_difference is not None:
                self.on_difference(difference)

    # -- compare the index with the corpus

    def _find_ghosts(self, corpus: Corpus) -> None:
        """Reports the rows that belong to no document of the corpus, which a repair removes, and those of
        documents for which the corpus has only a bad row, which stay."""
        self.reporter.stage("looking for rows without a document")
        self.result.ghosts_sought = corpus.complete
        if not corpus.complete:
            self.reporter.warning(
                "The corpus could not be read completely, so rows without a document were not checked. "
                "Fix the corpus and verify again."
            )
        ghosts: dict[str, list[int]] = {}
        names: dict[str, str] = {}
        where = self.planner.rows
        rows: list[tuple[str, int, str]] = []
        for row in self.store.scan(self.target.name, where, ["ordinal", "doc_id"]):
            key = key_of_passage(row["passage_id"])
            if not self._in_slice(key):
                continue
            if self._is_stale(key):
                if row["ordinal"] == 0:
                    detail = "its row in the corpus is bad, and the index has an earlier version"
                    self._report([Difference("stale", row["doc_id"], None, detail)])
                continue
            if corpus.complete:
                rows.append((key, row["ordinal"], row["doc_id"]))
            if len(rows) == READ_ROWS:
                self._add_ghosts(rows, ghosts, names)
                rows = []
        self._add_ghosts(rows, ghosts, names)
        for key, ordinals in ghosts.items():
            if key not in self.planner:
                self._report([Difference("ghost", names[key], None, "the corpus has no such document")])
            else:
                detail = "the document has fewer passages"
                self._report([Difference("ghost", names[key], o, detail) for o in sorted(ordinals)])
        if self.repair:
            self._remove_ghosts(ghosts, corpus)

    def _is_stale(self, key: str) -> bool:
        """Whether the corpus contains the document, but only in a form that cannot be indexed."""
        digest = bytes.fromhex(key)
        return digest in self.refused or (
            digest in self.planner.protected and digest not in self.planner.seen
        )

    def _add_ghosts(
        self, rows: Sequence[tuple[str, int, str]], ghosts: dict[str, list[int]], names: dict[str, str]
    ) -> None:
        """Adds the ghosts among these rows to `ghosts` (key -> ordinals) and `names` (key -> document id)."""
        keys = {key for key, ordinal, _ in rows if ordinal and key in self.planner}
        first_rows = self.store.get(self.target.name, [passage_key(key, 0) for key in keys], ["passages"])
        passages = {key_of_passage(i): row["passages"] for i, row in first_rows.items()} | self.expected
        for key, ordinal, doc_id in rows:
            ghost = ordinal >= passages.get(key, 1) if key in self.planner else True
            if ghost and not (key in self.expected and not self.repair):
                ghosts.setdefault(key, []).append(ordinal)
                names[key] = doc_id

    def _remove_ghosts(self, ghosts: Mapping[str, Sequence[int]], corpus: Corpus) -> None:
        """Removes surplus passages, and whole documents within the guard."""
        documents = {key: ordinals for key, ordinals in ghosts.items() if key not in self.planner}
        surplus = [passage_key(k, o) for k, ordinals in ghosts.items() if k in self.planner for o in ordinals]
        if surplus:
            self.store.delete(self.target.name, surplus)
            self.result.repaired += len(ghosts) - len(documents)
        before = len(self.planner.seen) // self.of + len(documents)
        guard = self.settings.guard
        reason = obstacle(self.store, self.target.name, self.planner, corpus, guard) if documents else ""
        if message := withheld_message(len(documents), before, guard, reason):
            self.reporter.warning(message)
        elif documents:
            remove(self.store, self.target.name, self.target.spec, documents)
            self.result.repaired += len(documents)


def _wording(row: Row) -> tuple[str, ...]:
    return row.title, row.breadcrumb, row.anchor, row.text


def _description(row: Row) -> tuple[Any, ...]:
    """What a row says about its document, with arrays as lists, as the store returns them."""
    fields = {name: list(v) if isinstance(v, list | tuple) else v for name, v in row.fields.items()}
    metadata = json.loads(metadata_json(row.metadata))
    return row.doc_id, row.source, row.ordinal, metadata, fields


def _cosine(a: SparseVector | None, b: SparseVector) -> float:
    """The cosine of two sparse vectors; 1 if both are empty."""
    x, y = a.to_dict() if a is not None else {}, b.to_dict()
    if not x or not y:
        return float(not x and not y)
    dot = sum(weight * y.get(i, 0.0) for i, weight in x.items())
    return dot / float(np.linalg.norm(list(x.values())) * np.linalg.norm(list(y.values())))
