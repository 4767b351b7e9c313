"""A run's counts as sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from m3index.errors import Exit

_COUNTS = ("added", "updated", "metadata_only", "unchanged", "deleted", "quarantined")


def sentences(record: Mapping[str, Any], *, planned: bool = False) -> Iterator[str]:
    """For the records of `Summary`, `Plan`, `Verification` and `ReindexPlan`. planned: of a delete that
    was not done, whose record is like that of one that was."""
    if "encodes" in record:
        return _reindexed(record)
    if record["command"] == "delete":
        return _deleted(record, planned)
    return _verified(record) if "checked" in record else _run(record)


def _reindexed(record: Mapping[str, Any]) -> Iterator[str]:
    how = "encoding every document again" if record["encodes"] else "keeping the vectors; nothing to encode"
    rows = _many(record["rows"], "passage")
    yield f"{record['collection']}: generation {record['generation']} would be built from {rows}, {how}."


def _verified(record: Mapping[str, Any]) -> Iterator[str]:
    part = "" if record["subset"] in ("", "1/1") else f" (slice {record['subset']})"
    part += f" of tenant {record['tenant']}" if record["tenant"] else ""
    yield (
        f"{record['collection']}: {_many(record['checked'], 'document')} "
        f"and {_many(record['passages'], 'passage')} "
        f"compared{part} in {record['seconds']:.1f} s."
    )
    if not record["differing"]:
        yield "The index is what the corpus says."
        return
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in record["by_kind"].items())
    mended = (
        f"{record['repaired']:,} were mended."
        if record["repaired"]
        else "If the corpus is right, mend them with --repair."
    )
    yield f"{_many(record['differing'], 'document')} differing ({kinds}). {mended}"


def _deleted(record: Mapping[str, Any], planned: bool) -> Iterator[str]:
    done = "would be removed" if planned else "removed"
    absent = record["scanned"] - record["deleted"]
    others = f"; {absent:,} not there" if absent and record["exit"] == Exit.OK else ""
    yield f"{record['collection']}: {_many(record['deleted'], 'document')} {done}{others}."
    yield from _stopped(record)


def _run(record: Mapping[str, Any]) -> Iterator[str]:
    planned, pruning = "count_ok" not in record, record["command"] == "prune"
    always = ("deleted",) if pruning else ("added", "unchanged")
    never = ("added", "unchanged") if pruning else ()
    counts = ", ".join(
        f"{record[name]:,} {name.replace('_', ' ')}"
        for name in _COUNTS
        if (record[name] and name not in never) or name in always
    )
    would = "; this would be: " if planned else ", "
    yield f"{record['collection']}: {_many(record['scanned'], 'document')} read{would}{counts}."
    tokens, passages, seconds = record["tokens"], record["passages"], record["seconds"]
    if not record["scanned"]:
        yield "There was nothing in the corpus."
    elif pruning:
        pass
    elif planned and tokens:
        time = f", about {seconds:.0f} s at the last run's rate" if seconds is not None else ""
        yield f"To encode: about {tokens:,} tokens in {_many(passages, 'passage')}{time}."
    elif tokens:
        rate = tokens / max(seconds, 1e-9)
        yield (
            f"{_many(passages, 'passage')} written, {tokens:,} tokens encoded in {seconds:.1f} s "
            f"({rate:,.0f} tokens/s)."
        )
    else:
        yield "Nothing to encode." if planned else f"Nothing was encoded ({seconds:.1f} s)."
    yield from _stopped(record)
    if record["deletes_withheld"]:
        yield f"{record['deletes_withheld']:,} deletions were withheld; see the warning above."


def _stopped(record: Mapping[str, Any]) -> Iterator[str]:
    if (stopped := record["exit"]) == Exit.STOPPED:
        yield "Stopped early: more bad rows than --max-errors allows. What was written stays."
    elif stopped in (Exit.INTERRUPTED, Exit.TERMINATED):
        yield "Stopped early. The next run goes on from here."


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
