"""`--workers`: the documents of every way to index are cut in as many processes as were asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from terminal import ROWS, Command

import m3index
from m3index.corpus.cut import cut
from m3index.encoder import pool
from m3index.encoder.load import load
from m3index.encoder.tokens import ModelTokenizer

COMMANDS = {
    "ingest": ("ingest", "--uri", "memory:"),
    "ingest with a cache": ("ingest", "--uri", "memory:", "--cache", "vectors"),
    "sync": ("sync", "--uri", "memory:"),
    "shards encode": ("shards", "encode", "--out", "shards"),
}


class InPlace:
    """A process of the pool, but in this one."""

    started: int
    tasks: int

    def __init__(self, layout: Any) -> None:
        self._tokenizer = ModelTokenizer(layout)
        InPlace.started += 1

    def send(self, message: Any) -> None:
        texts, size = message
        self._cuts = cut(texts, self._tokenizer, size)
        InPlace.tasks += 1

    def receive(self) -> Any:
        return self._cuts

    def close(self) -> None: ...


@pytest.fixture(autouse=True)
def _no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    InPlace.started = InPlace.tasks = 0
    monkeypatch.setattr(pool, "_started", InPlace)


@pytest.mark.parametrize(("asked", "processes"), [(("--workers", "3"), 3), (("--workers", "0"), 0), ((), 0)])
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_commands(
    m3index: Command, corpus: Path, dense_model: Path, command: Sequence[str], asked: Sequence[str],
    processes: int,
) -> None:  # fmt: skip
    """`auto` is 0 on a CPU."""
    done = m3index(*command, corpus, "-e", dense_model, "--device", "cpu", *asked)
    assert done.code == 0, done.err
    assert InPlace.started == processes
    assert (InPlace.tasks > 0) == (processes > 0)


def by_index(model: str, corpus: Path) -> None:
    with m3index.Index("docs", uri="memory:", encoder=model, device="cpu", workers=2) as index:
        assert index.ingest(corpus).added == len(ROWS)


def by_encoder(model: str, corpus: Path) -> None:
    with m3index.Index("docs", uri="memory:", encoder=load(model, device="cpu", workers=2)) as index:
        assert index.ingest(corpus).added == len(ROWS)


@pytest.mark.parametrize("way", [by_index, by_encoder])
def test_the_library(corpus: Path, dense_model: Path, way: Callable[[str, Path], None]) -> None:
    way(str(dense_model), corpus)
    assert InPlace.started == 2
    assert InPlace.tasks > 0
