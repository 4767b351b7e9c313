"""Real corpora that change: the counts of each step match the history."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from index.support import FastEncoder, rows

from m3index.corpus.readers import read
from m3index.index.options import SyncOptions
from m3index.index.summary import Summary
from m3index.index.sync import sync
from m3index.store.base import Store
from m3index.store.memory import MemoryStore
from m3index.store.open import open_store
from m3index.store.options import Connection

DATA = Path(os.environ.get("M3INDEX_DATA", Path(__file__).parents[2] / "../shared/data"))


def steps(corpus: str) -> tuple[Path, list[dict[str, Any]]]:
    folder = DATA / f"history_{corpus}"
    if not folder.is_dir():
        pytest.skip(f"no {folder} (set M3INDEX_DATA)")
    return folder, [json.loads(line) for line in (folder / "changes.jsonl").read_text().splitlines()]


def one_run(store: Store, encoder: FastEncoder, path: Path, max_delete: str | None = None) -> Summary:
    return sync(store, encoder, "docs", read([path]), SyncOptions(max_delete=max_delete))


SLOW = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.mark.parametrize("kind", ["memory", pytest.param("lite", marks=SLOW)])
@pytest.mark.parametrize("corpus", ["rustbook", pytest.param("tldr", marks=SLOW)])
def test_every_step_of_a_real_history(corpus: str, kind: str, tmp_path: Path) -> None:
    folder, history = steps(corpus)
    store = open_store(Connection(uri="memory:" if kind == "memory" else str(tmp_path / "history.db")))
    encoder = FastEncoder()
    first = one_run(store, encoder, folder / "v1.jsonl.gz")
    assert (first.exit, first.added, first.scanned) == (0, first.scanned, first.scanned)
    for step in history:
        path = folder / f"{step['to']}.jsonl.gz"
        guard = None
        if (step["from"], step["to"], corpus) == ("v2", "v3", "rustbook"):
            withheld = one_run(store, encoder, path)
            assert (withheld.exit, withheld.deleted, withheld.deletes_withheld) == (
                14,
                0,
                len(step["deleted"]),
            )
            assert (withheld.added, withheld.updated) == (len(step["added"]), len(step["modified"]))
            guard = "20%"
            expected_changes = 0
        else:
            expected_changes = len(step["added"]) + len(step["modified"])
        done = one_run(store, encoder, path, guard)
        assert (done.exit, done.count_ok, done.deleted) == (0, True, len(step["deleted"]))
        assert done.added + done.updated == expected_changes
        if expected_changes:
            assert (done.added, done.updated) == (len(step["added"]), len(step["modified"]))

        encoded, made = encoder.encoded, []
        if isinstance(store, MemoryStore):
            store.fail = made.append
        again = one_run(store, encoder, path)
        assert (again.exit, again.unchanged) == (0, again.scanned)
        assert encoder.encoded == encoded
        if isinstance(store, MemoryStore):
            store.fail = None
            assert set(made) == {"before set_properties", "after set_properties"}
    rebuilt = MemoryStore()
    one_run(rebuilt, FastEncoder(), path)
    assert rows(store) == rows(rebuilt)
    store.close()


def test_a_truncated_corpus_deletes_nothing(tmp_path: Path) -> None:
    folder, _ = steps("rustbook")
    store, encoder = MemoryStore(), FastEncoder()
    first = one_run(store, encoder, folder / "v1.jsonl.gz")
    whole = (folder / "v1.jsonl.gz").read_bytes()
    cut = tmp_path / "v1.jsonl.gz"
    cut.write_bytes(whole[: len(whole) // 2])
    summary = one_run(store, encoder, cut, "100%")
    assert (summary.exit, summary.deleted, summary.store_count) == (14, 0, first.store_count)
    assert summary.deletes_withheld > 0


def test_an_unreadable_file_in_the_middle_deletes_nothing(tmp_path: Path) -> None:
    folder, _ = steps("rustbook")
    store, encoder = MemoryStore(), FastEncoder()
    for name in "abc":
        lines = [json.dumps({"id": f"{name}{i}", "text": f"text {i}"}) for i in range(20)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    assert one_run(store, encoder, tmp_path).added == 60
    (tmp_path / "b.jsonl").unlink()
    (tmp_path / "b.jsonl.gz").write_bytes((folder / "v1.jsonl.gz").read_bytes()[:1000])
    (tmp_path / "c.jsonl").write_text(json.dumps({"id": "c0", "text": "all that is left"}))
    summary = one_run(store, encoder, tmp_path, "100%")
    assert (summary.exit, summary.deleted) == (14, 0)
    assert summary.store_count == 60
