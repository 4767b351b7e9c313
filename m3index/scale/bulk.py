"""Shards -> a new generation by the server's own bulk import, for what is too much for upserts.

Bulk import does not look for equal keys: only a new generation is loaded so, what is repeated is left out
before, and a file is imported once. The journal in the folder of the files says which jobs were begun, so
that a load which died goes on where it was.
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
from m3index.index.collection import Target
from m3index.index.lock import hold
from m3index.index.settings import Never, Stop
from m3index.index.summary import Summary, Tally
from m3index.progress import Progress, Reporter, Silent
from m3index.scale.load import LoadSettings, Shards, is_building, open_target, rejected_of, rows_for, serve
from m3index.scale.repeated import Repeated, documents_of, repeated
from m3index.scale.shards import reading, rows_of
from m3index.store.base import Store
from m3index.store.bulk import BulkFile, Importer
from m3index.types import Rejected, Row

FILE_BYTES = 900_000_000
"""Uncompressed bytes after which a file ends; servers take files of up to some GB."""

JOB_FILES = 16
JOBS_AT_ONCE = 4
_JOURNAL = "journal.json"


@dataclass(frozen=True, slots=True)
class BulkSettings:
    """workers: shards that are rewritten at a time. poll: seconds between two looks at the jobs."""

    workers: int = 4
    poll: float = 5.0


def bulk_load(
    store: Store,
    importer: Importer,
    alias: str,
    folders: Sequence[Folder],
    files: Folder,
    settings: LoadSettings,
    bulk: BulkSettings | None = None,
    *,
    reporter: Reporter | None = None,
    stop: Stop | None = None,
) -> Summary:
    """As `load.load` with `fresh`. files: a folder in the bucket that the server itself reads from.

    Raises StoreError where a job failed (a failed job leaves nothing behind; run again), UsageError where
    `alias` has a collection and `settings.fresh` is not set.
    """
    reporter, stop, bulk = reporter or Silent(), stop or Never(), bulk or BulkSettings()
    shards = Shards.open(folders)
    with hold(store, alias, settings.retry_lock, "m3index load --bulk") as lock:
        target = open_target(store, alias, shards, settings, lock)
        if not is_building(target):
            raise UsageError(
                f"{alias!r} is there already, and bulk import goes into a new generation only: add --fresh."
            )
        reporter.stage("looking for repeated documents")
        again = repeated(shards.parts)
        here = files.sub(target.properties["uuid"])
        run = _Bulk(target, shards, again, here, importer, bulk, reporter, stop)
        run.over()
        if run.tally.stopped is not None:
            return run.summary(None, count_ok=None)
        count = store.count(target.name)
        if count != run.tally.rows:
            reporter.warning(
                f"Generation {target.generation} has {count:,} rows, {run.tally.rows:,} were imported: it "
                "does not serve. Indexes may still be built: load again, which imports nothing twice."
            )
            return run.summary(count, count_ok=False)
        serve(store, target, shards, settings.keep)
        return run.summary(count, count_ok=True)


class _Bulk:
    def __init__(
        self,
        target: Target,
        shards: Shards,
        again: Repeated,
        files: Folder,
        importer: Importer,
        settings: BulkSettings,
        reporter: Reporter,
        stop: Stop,
    ) -> None:
        self.target, self.shards, self.repeated, self.files = target, shards, again, files
        self.importer, self.settings = importer, settings
        self.reporter, self.stop = reporter, stop
        self.tally = Tally()
        self._told = threading.Lock()

    def over(self) -> None:
        """Writes all files and imports them."""
        self.reporter.stage(f"writing files to import into {self.files}")
        written: dict[str, int] = {}
        there = self.files.sizes()
        with ThreadPoolExecutor(self.settings.workers, thread_name_prefix="m3index-bulk") as pool:
            for files, refused in pool.map(lambda i: self._shard(i, there), range(len(self.shards.parts))):
                written |= files
                self.tally.quarantined += refused
        self.tally.rows = self.tally.passages = sum(written.values())
        self.tally.scanned = self.shards.documents - len(self.repeated)
        self.tally.added = self.tally.scanned - self.tally.quarantined
        if self.tally.stopped is None:
            self._import(sorted(name for name, rows in written.items() if rows))

    def _shard(self, index: int, there: Mapping[str, int]) -> tuple[dict[str, int], int]:
        """Writes a shard's files, unless they are there. Their rows by name, and how many documents
        were refused."""
        told = f"{index:09d}.json"
        if told in there and (line := self.files.read(told)):
            known = json.loads(line)
            return known["files"], known["refused"]
        if self.tally.stopped is not None or self.stop():
            self.tally.stopped = self.stop.exit
            return {}, 0
        folder, entry = self.shards.parts[index]
        rejected: list[Rejected] = []
        with reading(folder.shards, entry.file) as file:
            rows = (row for batch in file.iter_batches(batch_size=1024) for row in rows_of(batch))
            documents = documents_of(rows, self.repeated.of_shard(index))
            files = self._write(index, self._good(documents, rejected), rejected)
        self.files.write(told, json.dumps({"files": files, "refused": len(rejected)}).encode())
        with self._told:
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
        self.reporter.stage(f"importing {len(names):,} files in {total:,} jobs")
        running: list[str] = []
        while waiting or running:
            while waiting and len(running) < JOBS_AT_ONCE and not self.stop():
                running.append(journal.begin(waiting.pop(0)))
            still = []
            for job in map(self.importer.job, running):
                if job.state == "failed":
                    journal.forget(job.job_id)
                    raise StoreError(f"Import job {job.job_id} failed: {job.reason}. Nothing of it is kept.")
                if job.state == "running":
                    still.append(job.job_id)
                else:
                    finished += 1
            running = still
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
    """Which jobs were begun. A job is written down before it is asked for, without its id, and after it
    with; a load that died between the two finds the job among the server's own."""

    def __init__(self, folder: Folder, importer: Importer, collection: str) -> None:
        self._folder, self._importer, self._collection = folder, importer, collection
        data = folder.read(_JOURNAL)
        self._jobs: dict[str, str | None] = json.loads(data) if data else {}
        unknown = [key for key, job_id in self._jobs.items() if job_id is None]
        if unknown:
            found = sorted(set(importer.jobs(collection)) - {j for j in self._jobs.values() if j})
            if len(found) > 1:
                raise StoreError(
                    f"{collection!r} is being imported into by somebody else ({', '.join(found)}). "
                    f"Wait for that, delete {folder}, and load again."
                )
            if found:
                self._jobs[unknown[0]] = found[0]
            else:
                del self._jobs[unknown[0]]
            self._save()

    def begin(self, files: Sequence[str]) -> str:
        """The id of the job for these files: the one that was begun once, or a new one."""
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
