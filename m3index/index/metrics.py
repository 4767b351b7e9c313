"""What a run did, for Prometheus: a file for node_exporter's textfile collector."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from m3index.errors import Exit, UsageError

_HELP = {
    "scanned": "Rows of the corpus that the last run read.",
    "added": "Documents that the last run added.",
    "updated": "Documents that the last run encoded again.",
    "metadata_only": "Documents whose metadata the last run rewrote.",
    "unchanged": "Documents that the last run found unchanged.",
    "deleted": "Documents that the last run removed.",
    "quarantined": "Rows that the last run put aside as bad.",
    "deletes_withheld": "Documents that the last run would have removed, and a guard kept.",
    "passages": "Passages that the last run wrote.",
    "tokens": "Tokens that the last run encoded.",
    "seconds": "How long the last run took.",
    "store_count": "Rows of the collection after the last run.",
    "count_ok": "Whether the collection has the rows that it should have (1) or not (0).",
    "generation": "Generation of the collection that serves.",
    "exit": "Exit code of the last run.",
}
_SUCCESS = {Exit.OK, Exit.QUARANTINED}


def render(summary: Mapping[str, Any], now: float, last_success: float | None) -> str:
    """The run summary in Prometheus text format; values that are None are left out.

    now, last_success: Unix times of this run and of the last good one.
    """
    labels = ",".join(
        f'{name}="{_escaped(str(summary.get(name, "")))}"' for name in ("collection", "command")
    )
    lines: list[str] = []

    def gauge(name: str, text: str, value: float) -> None:
        metric = f"m3index_{name}"
        lines.append(f"# HELP {metric} {text}")
        lines.append(f"# TYPE {metric} gauge")
        lines.append(f"{metric}{{{labels}}} {value!r}")

    for name, text in _HELP.items():
        value = summary.get(name)
        if value is not None:
            gauge(name, text, int(value) if isinstance(value, bool | Exit) else value)
    gauge("last_run_timestamp_seconds", "When the last run ended.", int(now))
    if last_success is not None:
        gauge("last_success_timestamp_seconds", "When a run last ended well.", int(last_success))
    return "\n".join(lines) + "\n"


def write_metrics(path: str | os.PathLike[str], summary: Mapping[str, Any]) -> None:
    """Replaces the file in one step, so that it is never read half written. After a run that failed
    the time of the last good one stays. Raises UsageError where it cannot be written."""
    target, now = Path(path), time.time()
    last_success = now if summary.get("exit") in _SUCCESS else _last_success(target)
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        partial.write_text(render(summary, now, last_success), "utf-8")
        partial.replace(target)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise UsageError(f"The metrics file {target} cannot be written: {error.strerror}.") from None


def _last_success(path: Path) -> float | None:
    with suppress(OSError, ValueError):
        for line in path.read_text("utf-8").splitlines():
            if line.startswith("m3index_last_success_timestamp_seconds{"):
                return float(line.rpartition(" ")[2])
    return None


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
