"""Shards written by a process of their own are the same, byte for byte, and so are its errors."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeEncoder
from scale_support import ENCODE

from m3index.corpus.readers import FileCorpus
from m3index.errors import M3IndexError
from m3index.files import Folder
from m3index.scale import writers
from m3index.scale.encode import encode

MakeCorpus = Callable[..., FileCorpus]


class WithWorkers(FakeEncoder):
    workers = 1


def files(out: Folder) -> dict[str, bytes]:
    folder = Path(out.location)
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_process_writes_the_same_bytes(corpus: MakeCorpus, tmp_path: Path) -> None:
    here, apart = Folder(tmp_path / "here"), Folder(tmp_path / "apart")
    encode(corpus(), here, FakeEncoder(), ENCODE)
    encode(corpus(), apart, WithWorkers(), ENCODE)
    assert files(here) == files(apart)


def test_an_error_of_the_process_is_that_of_the_run(
    corpus: MakeCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a full disk: raised at the end of the shard, which is not there then."""

    class Broken(WithWorkers):
        def _encode(self, *args: object) -> object:  # type: ignore[override]
            encoded = super()._encode(*args)  # type: ignore[arg-type]
            assert encoded.lexical is not None
            object.__setattr__(encoded, "dense", np.zeros((0, 16), np.float32))
            return encoded

    with pytest.raises(Exception, match=r"."):
        encode(corpus(), Folder(tmp_path / "out"), Broken(), ENCODE)
    assert not list((tmp_path / "out" / "shards").glob("*.parquet"))


def test_a_process_that_is_killed_is_an_error_and_leaves_no_shard(
    corpus: MakeCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = writers._WriterApart.add

    def add(self: writers._WriterApart, batch: object) -> None:
        os.kill(self._process.pid, signal.SIGKILL)
        original(self, batch)  # type: ignore[arg-type]

    monkeypatch.setattr(writers._WriterApart, "add", add)
    with pytest.raises(M3IndexError, match="that writes shards ended"):
        encode(corpus(), Folder(tmp_path / "out"), WithWorkers(), ENCODE)
    assert not list((tmp_path / "out" / "shards").glob("*.parquet"))
