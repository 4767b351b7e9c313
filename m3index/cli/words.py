"""A run's counts as sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from m3index.errors import Exit

_COUNTS = ("added", "updated", "metadata_only", "unchanged", "deleted", "quarantined")


def sentences(record: Mapping[str, Any]) -> Iterator[str]:
    """For the records of `Summary`, `Plan`, `Verification` and `ReindexPlan`."""
    if "encodes" in record:
        return _reindexed(record)
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
    yield f"{_many(record['differing'], 'document')} differing ({kinds}); {record['repaired']:,} were mended."


def _run(record: Mapping[str, Any]) -> Iterator[str]:
    planned = "count_ok" not in record
    counts = ", ".join(
        f"{record[name]:,} {name.replace('_', ' ')}"
        for name in _COUNTS
        if record[name] or name in ("added", "unchanged")
    )
    would = "; this would be: " if planned else ", "
    met = "asked for" if record["command"] == "delete" else "read"
    yield f"{record['collection']}: {_many(record['scanned'], 'document')} {met}{would}{counts}."
    tokens, passages, seconds = record["tokens"], record["passages"], record["seconds"]
    if not record["scanned"]:
        yield "There was nothing in the corpus."
    elif record["command"] in ("delete", "prune"):
        return
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
    if (stopped := record["exit"]) == Exit.STOPPED:
        yield "Stopped early: more bad rows than --max-errors allows. What was written stays."
    elif stopped in (Exit.INTERRUPTED, Exit.TERMINATED):
        yield "Stopped early. The next run goes on from here."
    if record["deletes_withheld"]:
        yield f"{record['deletes_withheld']:,} deletions were withheld; see the warning above."


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
