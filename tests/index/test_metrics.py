from __future__ import annotations

import re
from pathlib import Path

import pytest
from index.support import doc, run

from m3index.errors import UsageError
from m3index.index.metrics import write_metrics
from m3index.store.memory import MemoryStore

LINE = re.compile(r'm3index_[a-z_]+\{collection="[^"\n]*(?:\\.[^"\n]*)*",command="\w+"\} -?[0-9.e+-]+')


def values(path: Path) -> dict[str, float]:
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    assert all(LINE.fullmatch(line) for line in lines)
    return {line.partition("{")[0]: float(line.rpartition(" ")[2]) for line in lines}


def test_written_after_each_run(tmp_path: Path) -> None:
    path = tmp_path / "m3index.prom"
    summary = run(MemoryStore(), [doc("a"), doc("b")]).to_json()
    write_metrics(path, summary)
    first = values(path)
    assert (first["m3index_added"], first["m3index_exit"], first["m3index_count_ok"]) == (2, 0, 1)
    assert first["m3index_last_success_timestamp_seconds"] > 1_700_000_000
    write_metrics(path, {"command": "sync", "collection": 'd"o\\c\ns', "exit": 20, "seconds": 0.5})
    second = values(path)
    assert second["m3index_exit"] == 20
    assert "m3index_added" not in second
    assert second["m3index_last_success_timestamp_seconds"] == first["m3index_last_success_timestamp_seconds"]
    assert [p.name for p in tmp_path.iterdir()] == ["m3index.prom"]


def test_every_metric_has_help_and_type(tmp_path: Path) -> None:
    path = tmp_path / "m3index.prom"
    write_metrics(path, run(MemoryStore(), [doc("a")]).to_json())
    text = path.read_text()
    for name in values(path):
        assert f"# HELP {name} " in text
        assert f"# TYPE {name} gauge\n" in text


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"folder\.prom cannot be written"):
        write_metrics(tmp_path / "no" / "such" / "folder.prom", {"exit": 0})
