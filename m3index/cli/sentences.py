"""The counts of a run as sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from m3index.errors import Exit
from m3index.wording import many

_COUNTS = ("added", "updated", "metadata_only", "unchanged", "deleted", "quarantined")


def sentences(record: Mapping[str, Any]) -> Iterator[str]:
    """The sentences for a record of `Summary`, `Verification`, `RecallReport` or `ReindexPlan`."""
    if "recall" in record:
        return _measured(record)
    if "encodes" in record:
        return _reindexed(record)
    if record["command"] == "delete":
        return _deleted(record)
    return _verified(record) if "checked" in record else _run(record)


def _reindexed(record: Mapping[str, Any]) -> Iterator[str]:
    how = "encoding all documents again" if record["encodes"] else "keeping the vectors; nothing is encoded"
    rows = many(record["rows"], "passage")
    yield f"{record['collection']}: generation {record['generation']} would be built from {rows}, {how}."


def _verified(record: Mapping[str, Any]) -> Iterator[str]:
    part = "" if record["subset"] in ("", "1/1") else f" (slice {record['subset']})"
    part += f" of tenant {record['tenant']}" if record["tenant"] else ""
    yield (
        f"{record['collection']}: {many(record['checked'], 'document')} "
        f"and {many(record['passages'], 'passage')} "
        f"compared{part} in {record['seconds']:.1f} s."
    )
    bad = record["quarantined"]
    if not record["differing"]:
        yield "The index matches the corpus." + (f" {many(bad, 'bad row')} not compared." if bad else "")
        return
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in record["by_kind"].items())
    stale = record["by_kind"].get("stale", 0)
    repair = (
        f"Repaired: {record['repaired']:,}."
        if record["repaired"]
        else "Correct the bad rows of the corpus and sync."
        if stale == record["differing"]
        else "If the corpus is correct, repair them with --repair."
    )
    differ = "differs" if record["differing"] == 1 else "differ"
    yield f"{many(record['differing'], 'document')} {differ} ({kinds}). {repair}"


def _measured(record: Mapping[str, Any]) -> Iterator[str]:
    rows, least = record["recall"], record["min_recall"]
    if least is None:
        return
    low = [row for row in rows if row["mean"] < least]
    if not low:
        yield f"{record['collection']}: every recall is at least {least:g}."
        return
    worst = min(low, key=lambda row: row["mean"])
    yield (
        f"{record['collection']}: {len(low)} of {many(len(rows), 'recall')} below {least:g}; the lowest is "
        f"{worst['mean']:.4f} ({worst['leg']}{', filtered' if worst['filtered'] else ''}). Build an index "
        "that searches more widely: m3index reindex --index dense.search.ef=512 (docs/scale.md)."
    )


def _deleted(record: Mapping[str, Any]) -> Iterator[str]:
    action = "would be removed" if record["dry_run"] else "removed"
    absent = record["scanned"] - record["deleted"]
    others = f"; {absent:,} not found" if absent and record["exit"] == Exit.OK else ""
    yield f"{record['collection']}: {many(record['deleted'], 'document')} {action}{others}."
    yield from _stopped(record)


def _run(record: Mapping[str, Any]) -> Iterator[str]:
    planned, pruning = record["dry_run"], record["command"] == "prune"
    always = ("deleted",) if pruning else ("added", "unchanged")
    never = ("added", "unchanged") if pruning else ()
    counts = ", ".join(
        f"{record[name]:,} {name.replace('_', ' ')}"
        for name in _COUNTS
        if (record[name] and name not in never) or name in always
    )
    would = "; this would be: " if planned else ", "
    yield f"{record['collection']}: {many(record['scanned'], 'document')} read{would}{counts}."
    tokens, passages, seconds = record["tokens"], record["passages"], record["seconds"]
    if not record["scanned"]:
        yield "No document was read." if record["quarantined"] else "The corpus is empty."
    elif pruning:
        pass
    elif planned and tokens:
        time = f", about {seconds:.0f} s at the last run's rate" if seconds is not None else ""
        new = passages - record["passages_kept"]
        yield f"To encode: about {tokens:,} tokens in {many(new, 'passage')}{time}."
    elif tokens:
        rate = tokens / max(seconds, 1e-9)
        written = f"{many(passages, 'passage')} written{_kept(record)}"
        yield f"{written}, {tokens:,} tokens encoded in {seconds:.1f} s ({rate:,.0f} tokens/s)."
    elif planned:
        yield "Nothing to encode."
    elif passages:
        written = many(passages, "passage")
        yield f"{written} written with stored vectors; nothing was encoded ({seconds:.1f} s)."
    else:
        yield f"Nothing was encoded ({seconds:.1f} s)."
    yield from _stopped(record)
    if record["deletes_withheld"]:
        yield f"{many(record['deletes_withheld'], 'deletion')} withheld; see the warning above."


def _kept(record: Mapping[str, Any]) -> str:
    """How many passages needed no encoding."""
    return f" ({record['passages_kept']:,} with stored vectors)" if record["passages_kept"] else ""


def _stopped(record: Mapping[str, Any]) -> Iterator[str]:
    if (stopped := record["exit"]) == Exit.STOPPED:
        yield "The run failed; see the warning above. Written documents are kept."
    elif stopped in (Exit.INTERRUPTED, Exit.TERMINATED):
        yield "Stopped early. The next run continues from here."
