"""Writes the outcome of a run for Prometheus: a file for the textfile collector of node_exporter."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from m3index.errors import SUCCESS, Exit
from m3index.output import write_output

_HELP = {
    "scanned": "Rows of the corpus read by the last run.",
    "added": "Documents added by the last run.",
    "updated": "Documents encoded again by the last run.",
    "metadata_only": "Documents whose metadata was rewritten by the last run.",
    "unchanged": "Documents unchanged in the last run.",
    "deleted": "Documents removed by the last run.",
    "quarantined": "Rows quarantined by the last run.",
    "deletes_withheld": "Documents that the last run did not remove because deletions were withheld.",
    "skipped": "Files and folders that the last run did not read.",
    "passages": "Passages written by the last run.",
    "passages_kept": "Passages written by the last run with the vectors that they had.",
    "tokens": "Tokens encoded by the last run.",
    "seconds": "Duration of the last run in seconds.",
    "store_count": "Rows of the collection after the last run.",
    "count_ok": "Whether the collection had the expected number of rows (1) or not (0).",
    "generation": "Current generation of the collection.",
    "exit": "Exit code of the last run.",
}


_RECALL = {
    "recall": ("mean", "Mean recall of the index, against an exact scan."),
    "recall_low": ("low", "Lower end of the 95 % interval of the recall."),
    "recall_high": ("high", "Upper end of the 95 % interval of the recall."),
}


def render(summary: Mapping[str, Any], now: float, last_success: float | None) -> str:
    """The run summary in the Prometheus text format, without the values that are None.

    now, last_success: the end of this run and of the last successful one, as Unix times.
    """
    labels = ",".join(
        f'{name}="{_escaped(str(summary.get(name, "")))}"' for name in ("collection", "command")
    )
    lines: list[str] = []

    def family(name: str, text: str, values: Iterable[tuple[str, float]]) -> None:
        metric = f"m3index_{name}"
        lines.append(f"# HELP {metric} {text}")
        lines.append(f"# TYPE {metric} gauge")
        lines.extend(f"{metric}{{{labels}{more}}} {value!r}" for more, value in values)

    def gauge(name: str, text: str, value: float) -> None:
        family(name, text, [("", value)])

    for name, text in _HELP.items():
        value = summary.get(name)
        if isinstance(value, Mapping):
            value = sum(value.values())
        if value is not None:
            gauge(name, text, int(value) if isinstance(value, bool | Exit) else value)
    recalls: Sequence[Mapping[str, Any]] = summary.get("recall") or ()
    if recalls:
        for name, (key, text) in _RECALL.items():
            family(name, text, [(_labels(row), row[key]) for row in recalls])
    gauge("last_run_timestamp_seconds", "Unix time at which the last run ended.", int(now))
    if last_success is not None:
        gauge(
            "last_success_timestamp_seconds",
            "Unix time at which the last successful run ended.",
            int(last_success),
        )
    return "\n".join(lines) + "\n"


def _labels(row: Mapping[str, Any]) -> str:
    """The labels of one recall, after those of the run."""
    filtered = "yes" if row["filtered"] else "no"
    return f',leg="{row["leg"]}",at="{row["at"]}",filter="{filtered}",asked="{row["asked"]}"'


def write_metrics(path: str | os.PathLike[str], summary: Mapping[str, Any]) -> None:
    """Replaces the file atomically. A failed run keeps the time of the last success. Raises UsageError if the
    file cannot be written."""
    now = time.time()
    last_success = now if summary.get("exit") in SUCCESS else _last_success(Path(path))
    write_output(path, render(summary, now, last_success))


def _last_success(path: Path) -> float | None:
    if not path.is_file():  # a FIFO would wait for a writer
        return None
    with suppress(OSError, ValueError):
        for line in path.read_text("utf-8").splitlines():
            if line.startswith("m3index_last_success_timestamp_seconds{"):
                return float(line.rpartition(" ")[2])
    return None


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
