"""Loads shards into a new generation with the server's bulk import, for amounts too large for upserts.

Bulk import does not detect equal keys. Therefore it only loads new generations, repeated documents are left
out, and each file is imported once. The journal in the folder of the files records the jobs that were
started, so that an interrupted load continues.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

from m3index.errors import StoreError, UsageError
from m3index.files import Folder
from m3index.index.collection import Collection
from m3index.index.lock import hold
from m3index.index.options import Never, Stop
from m3index.index.summary import Summary, Tally
from m3index.progress import Progress, Reporter, Silent
from m3index.scale.load import Shards, is_building, open_target, rejected_of, rows_for, serve
from m3index.scale.options import LoadOptions
from m3index.scale.repeated import Repeated, documents_of, repeated
from m3index.scale.shards import reading, rows_of
from m3index.store.base import Store
from m3index.store.bulk import BulkFile, Importer
from m3index.types import Rejected, Row
from m3index.wording import many

FILE_BYTES = 900_000_000
"""Uncompressed bytes after which a file ends; servers accept files of several GB."""

JOB_FILES = 16
JOBS_AT_ONCE = 4
_JOURNAL = "journal.json"


@dataclass(frozen=True, slots=True)
class BulkSettings:
    """workers: number of shards converted in parallel. poll: seconds between checks of the jobs."""

    workers: int = 4
    poll: float = 5.0


def bulk_load(
    store: Store,
    importer: Importer,
    alias: str,
    folders: Sequence[Folder],
    files: Folder,
    settings: LoadOptions,
    bulk: BulkSettings | None = None,
    *,
    reporter: Reporter | None = None,
    stop: Stop | None = None,
) -> Summary:
    """Like `load.load` with `fresh`. files: a folder in the bucket that the server reads from.

    Raises StoreError if a job fails (it leaves nothing behind; run again), UsageError if the collection
    exists and `settings.fresh` is not set, and the errors of `load.load`.
    """
    reporter, stop, bulk = reporter or Silent(), stop or Never(), bulk or BulkSettings()
    shards = Shards.open(folders)
    with hold(store, alias, settings.lock_seconds, "m3index shards load --bulk") as lock:
        target = open_target(store, alias, shards, settings, lock)
        if not is_building(target):
            raise UsageError(
                f"{alias!r} exists, and bulk import can only fill a new generation. Add --fresh."
            )
        reporter.stage("looking for repeated documents")
        duplicates = repeated(shards.parts)
        folder = files.sub(target.properties["uuid"])
        run = _BulkLoad(target, shards, duplicates, folder, importer, bulk, reporter, stop)
        run.run(settings)
        if run.tally.stopped is not None:
            return run.summary(None, count_ok=None)
        count = store.count(target.name)
        if count != run.tally.rows:
            reporter.warning(
                f"Generation {target.generation} has {many(count, 'row')}, but {run.tally.rows:,} were "
                "imported. "
                "It does not serve. Its indexes may still be building: load again; nothing is imported twice."
            )
            return run.summary(count, count_ok=False)
        serve(store, target, shards, settings.keep)
        return run.summary(count, count_ok=True)


class _BulkLoad:
    def __init__(
        self,
        target: Collection,
        shards: Shards,
        duplicates: Repeated,
        files: Folder,
        importer: Importer,
        settings: BulkSettings,
        reporter: Reporter,
        stop: Stop,
    ) -> None:
        self.target, self.shards, self.duplicates, self.files = target, shards, duplicates, files
        self.importer, self.settings = importer, settings
        self.reporter, self.stop = reporter, stop
        self.tally = Tally()
        self._report_lock = threading.Lock()

    def run(self, settings: LoadOptions) -> None:
        """Writes all files and imports them, unless too many rows are bad."""
        self.reporter.stage(f"writing files to import into {self.files}")
        written: dict[str, int] = {}
        existing = self.files.sizes()
        with ThreadPoolExecutor(self.settings.workers, thread_name_prefix="m3index-bulk") as pool:
            for files, rejected in pool.map(
                lambda i: self._shard(i, existing), range(len(self.shards.parts))
            ):
                written |= files
                self.tally.quarantined += rejected
        self.tally.rows = self.tally.passages = sum(written.values())
        self.tally.scanned = self.shards.documents - len(self.duplicates)
        self.tally.added = self.tally.scanned - self.tally.quarantined
        most = settings.most_errors
        self.tally.fail(most.refusal(self.tally.quarantined, self.tally.scanned), self.reporter)
        if self.tally.stopped is None:
            self._import(sorted(name for name, rows in written.items() if rows))

    def _shard(self, index: int, existing: Mapping[str, int]) -> tuple[dict[str, int], int]:
        """Writes the files of a shard, unless they exist. Returns their numbers of rows by name, and the
        number of rejected documents."""
        report_file = f"{index:09d}.json"
        if report_file in existing and (line := self.files.read(report_file)):
            report = json.loads(line)
            return report["files"], report["refused"]
        if self.tally.stopped is not None or self.stop():
            self.tally.stopped = self.stop.exit
            return {}, 0
        folder, entry = self.shards.parts[index]
        rejected: list[Rejected] = []
        with reading(folder.shards, entry.file) as file:
            rows = (row for batch in file.iter_batches(batch_size=1024) for row in rows_of(batch))
            documents = documents_of(rows, self.duplicates.of_shard(index))
            files = self._write(index, self._good(documents, rejected), rejected)
        self.files.write(report_file, json.dumps({"files": files, "refused": len(rejected)}).encode())
        with self._report_lock:
            for item in rejected:
                self.reporter.rejected(item)
        return files, len(rejected)

    def _good(self, documents: Iterator[list[Row]], rejected: list[Rejected]) -> Iterator[Sequence[Row]]:
        for document in documents:
            try:
                yield rows_for(document, self.target.spec)
            except ValueError as error:
                rejected.append(rejected_of(document, str(error)))

    def _write(
        self, index: int, documents: Iterator[Sequence[Row]], rejected: list[Rejected]
    ) -> dict[str, int]:
        files: dict[str, int] = {}
        done = False
        while not done:
            name = f"{index:09d}-{len(files):03d}.parquet"
            with ExitStack() as stack:
                file = BulkFile(stack.enter_context(self.files.writing(name)), self.target.spec)
                done = True
                for document in documents:
                    reasons = file.add(document)
                    if reasons:
                        rejected.append(rejected_of(document, next(iter(reasons.values()))))
                    if file.bytes >= FILE_BYTES:
                        done = False
                        break
                file.close()
            files[name] = file.rows
        return files

    def _import(self, names: Sequence[str]) -> None:
        journal = _Journal(self.files, self.importer, self.target.name)
        waiting = [list(names[i : i + JOB_FILES]) for i in range(0, len(names), JOB_FILES)]
        total, finished = len(waiting), 0
        self.reporter.stage(f"importing {many(len(names), 'file')} in {many(total, 'job')}")
        running: list[str] = []
        while waiting or running:
            while waiting and len(running) < JOBS_AT_ONCE and not self.stop():
                running.append(journal.start(waiting.pop(0)))
            unfinished = []
            for job in map(self.importer.job, running):
                if job.state == "failed":
                    journal.forget(job.job_id)
                    raise StoreError(
                        f"Import job {job.job_id} failed: {job.reason}. Nothing of it is kept; load again."
                    )
                if job.state == "running":
                    unfinished.append(job.job_id)
                else:
                    finished += 1
            running = unfinished
            self.reporter.progress(Progress(finished, total=total, unit="jobs"))
            if self.stop() and not running:
                self.tally.stopped = self.stop.exit
                return
            if running:
                time.sleep(self.settings.poll)

    def summary(self, count: int | None, *, count_ok: bool | None) -> Summary:
        target, name = self.target, self.shards.fingerprint.encoder.name
        return self.tally.summary("load", target.alias, name, target.generation, count, count_ok=count_ok)


class _Journal:
    """The jobs that were started. A job is recorded without its id before it is submitted, and with it
    afterwards. After a crash between the two, the job is found in the server's list."""

    def __init__(self, folder: Folder, importer: Importer, collection: str) -> None:
        self._folder, self._importer, self._collection = folder, importer, collection
        data = folder.read(_JOURNAL)
        self._jobs: dict[str, str | None] = json.loads(data) if data else {}
        unknown = [key for key, job_id in self._jobs.items() if job_id is None]
        if unknown:
            unrecorded = sorted(set(importer.jobs(collection)) - {j for j in self._jobs.values() if j})
            if len(unrecorded) > 1:
                raise StoreError(
                    f"Another process is importing into {collection!r} ({', '.join(unrecorded)}). "
                    f"Wait until it ends, delete {folder}, and load again."
                )
            if unrecorded:
                self._jobs[unknown[0]] = unrecorded[0]
            else:
                del self._jobs[unknown[0]]
            self._save()

    def start(self, files: Sequence[str]) -> str:
        """The id of the job for these files: a recorded one, or a new one. Raises StoreError."""
        key = files[0]
        known = self._jobs.get(key)
        if known is not None:
            return known
        self._jobs[key] = None
        self._save()
        job_id = self._importer.submit(self._collection, [self._folder.in_bucket(f) for f in files])
        self._jobs[key] = job_id
        self._save()
        return job_id

    def forget(self, job_id: str) -> None:
        self._jobs = {key: known for key, known in self._jobs.items() if known != job_id}
        self._save()

    def _save(self) -> None:
        self._folder.write(_JOURNAL, json.dumps(self._jobs).encode())
