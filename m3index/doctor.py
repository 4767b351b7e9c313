"""Checks an installation and suggests remedies; each check is independent, and none is fatal."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias

from m3index import __version__
from m3index.errors import CollectionNotFoundError, Exit, M3IndexError
from m3index.index.collection import Collection
from m3index.search.server_fusion import FusingStore
from m3index.service import IndexService
from m3index.wording import many

Level: TypeAlias = Literal["ok", "note", "problem"]

LOW_DISK = 2 * 1024**3
LITE_PASSAGES = 50_000
STALE_HOURS = 36
_PACKAGES = ("torch", "transformers", "pymilvus", "milvus-lite", "pyarrow")


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. remedy: what to do; empty if all is well. exit: the exit code of a problem."""

    check: str
    level: Level
    text: str
    remedy: str = ""
    exit: int = 0

    def to_json(self) -> dict[str, Any]:
        return {"type": "finding", **asdict(self)}


def examine(connect: Callable[[], IndexService]) -> Iterator[Finding]:
    """Runs all checks in order. connect: opens the configured index; its errors become findings."""
    yield from _software()
    yield _memory_disk()
    yield _device()
    try:
        index = connect()
    except M3IndexError as error:
        yield _problem("store", error, "Check --uri and M3INDEX_TOKEN, and that Milvus is running.")
        return
    with index:
        yield from _store(index)
        yield from _collection(index)


def _problem(check: str, error: M3IndexError, remedy: str = "") -> Finding:
    return Finding(check, "problem", str(error), remedy, int(error.exit_code))


def _software() -> Iterator[Finding]:
    versions = [f"m3index {__version__}", f"Python {platform.python_version()}"]
    for name in _PACKAGES:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            yield Finding(
                "software",
                "problem",
                f"{name} is not installed.",
                f"pip install {name}",
                int(Exit.UNEXPECTED),
            )
    yield Finding("software", "ok", ", ".join(versions))


def _memory_disk() -> Finding:
    free = shutil.disk_usage(tempfile.gettempdir()).free
    text = f"{free / 1024**3:.1f} GiB free in {tempfile.gettempdir()}, {os.cpu_count()} processors"
    if free < LOW_DISK:
        return Finding("machine", "note", text, "Free some disk space for models and temporary files.")
    return Finding("machine", "ok", text)


def _device() -> Finding:
    from m3index.encoder.hardware import devices, precision

    chosen = devices("auto")
    names = ", ".join(str(device) for device in chosen)
    kind = precision("auto", chosen[0])
    text = f"encoding on {names} in {kind}"
    if chosen[0].type == "cpu":
        return Finding("device", "note", text, "A student model or a machine with a GPU is faster.")
    return Finding("device", "ok", text)


def _store(index: IndexService) -> Iterator[Finding]:
    description = index.store.describe()
    yield Finding("store", "ok", f"{description['kind']} {description['version']} at {description['uri']}")
    for warning in description.get("warnings", ()):
        yield Finding("store", "problem", warning, "Run m3index verify --repair.", int(Exit.DRIFT))
    if description["kind"] == "lite":
        free = shutil.disk_usage(Path(description["uri"]).expanduser().resolve().parent).free
        if free < LOW_DISK:
            yield Finding(
                "disk",
                "problem",
                f"{free / 1024**3:.1f} GiB free on the disk of the database; a full disk can lose rows.",
                "Free some disk space, or move the database.",
                int(Exit.STOPPED),
            )
        else:
            yield Finding("disk", "ok", f"{free / 1024**3:.1f} GiB free on the disk of the database")


def _collection(index: IndexService) -> Iterator[Finding]:
    try:
        target = index.current()
    except CollectionNotFoundError as error:
        yield Finding("collection", "note", str(error))
        return
    except M3IndexError as error:
        yield _problem("collection", error)
        return
    status = index.status()
    yield Finding(
        "collection",
        "ok",
        f"{target.name}: {many(status.documents, 'document')}, {many(status.rows, 'passage')}, "
        f"sparse vectors: {status.sparse}, encoder: {status.encoder}",
    )
    if status.unfinished:
        yield Finding(
            "collection",
            "note",
            f"An interrupted run left {many(status.unfinished, 'document')} half-written.",
            "The next sync repairs them.",
        )
    if status.locked_by:
        yield Finding(
            "lock",
            "note",
            f"{status.locked_by} is writing.",
            "If that run is dead, run m3index collections unlock, or wait 3 minutes.",
        )
    yield _freshness(status.last_success)
    if index.store.describe()["kind"] == "lite" and status.rows > LITE_PASSAGES:
        yield Finding(
            "size",
            "note",
            f"{many(status.rows, 'passage')} are many for Milvus Lite: "
            "every process rebuilds the sparse index.",
            "Search through m3index serve, or use a Milvus server.",
        )
    yield _fusion(index, target)
    yield _encoder(index, target.properties)


def _freshness(last: str | None) -> Finding:
    if last is None:
        return Finding("freshness", "note", "No run has succeeded yet.", "Run m3index sync.")
    hours = (datetime.now(UTC) - datetime.fromisoformat(last)).total_seconds() / 3600
    if hours < -0.1:
        return Finding(
            "clock",
            "note",
            f"The last success is {-hours:.1f} hours in the future: this clock or another is wrong.",
            "Synchronise the clocks with NTP; leases depend on them.",
        )
    if hours > STALE_HOURS:
        return Finding(
            "freshness", "note", f"The last success was {hours:.0f} hours ago.", "Check the cron job."
        )
    return Finding("freshness", "ok", f"last success {hours:.1f} hours ago")


def _fusion(index: IndexService, target: Collection) -> Finding:
    store = index.store
    if not isinstance(store, FusingStore) or target.spec.sparse == "none":
        return Finding("fusion", "ok", "by m3index; the store has no ranker")
    try:
        honours_weights = store.weighs_legs(target.name)
    except M3IndexError as error:
        return _problem("fusion", error)
    if honours_weights:
        return Finding("fusion", "ok", "this server applies the weights of the legs")
    text = "by m3index, with weights; this store silently ignores the weights of the legs"
    return Finding("fusion", "ok", text)


def _encoder(index: IndexService, properties: Mapping[str, str]) -> Finding:
    try:
        info = index.encoder().info
    except M3IndexError as error:
        return _problem("encoder", error, "Searching and syncing need the model.")
    if info.space_id != properties.get("space_id"):
        return Finding(
            "encoder",
            "problem",
            f"{info.name} is not the model of the collection.",
            "Omit --encoder to use the model of the collection, or run m3index reindex.",
            int(Exit.MISMATCH),
        )
    return Finding("encoder", "ok", f"{info.name}: {info.dim} dimensions, {info.limit:,} tokens")
