"""A run's counts as sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_COUNTS = ("added", "updated", "metadata_only", "unchanged", "deleted", "quarantined")


def sentences(record: Mapping[str, Any]) -> Iterator[str]:
    """For `Summary` and `Plan` records."""
    planned = "count_ok" not in record
    counts = [
        f"{record[name]:,} {name.replace('_', ' ')}"
        for name in _COUNTS
        if record[name] or name in ("added", "unchanged")
    ]
    would = "would be " if planned else ""
    yield f"{record['collection']}: {record['scanned']:,} documents read, {would}{', '.join(counts)}."
    if not record["scanned"]:
        yield "There was nothing in the corpus."
    elif planned:
        yield f"To encode: about {record['tokens']:,} tokens in {record['passages']:,} passages{_duration(record)}."
    elif record["tokens"]:
        rate = record["tokens"] / max(record["seconds"], 1e-9)
        yield (
            f"{record['passages']:,} passages written, {record['tokens']:,} tokens encoded "
            f"in {record['seconds']:.1f} s ({rate:,.0f} tokens/s)."
        )
    elif not (record["updated"] or record["added"]):
        yield f"Nothing was encoded ({record['seconds']:.1f} s)."
    if record["deletes_withheld"]:
        yield f"{record['deletes_withheld']:,} deletions were withheld; see the warning above."


def _duration(record: Mapping[str, Any]) -> str:
    seconds = record["seconds"]
    if seconds is None:
        return ""
    return f", about {seconds:.0f} s at the last run's rate" if record["tokens"] else ""
