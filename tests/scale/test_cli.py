"""shards encode, load and export and models bench as commands, with a tiny model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from models import write_m3
from scale_support import contents, document
from typer.testing import CliRunner

from m3index.cli import app
from m3index.corpus import apart
from m3index.encoder.hardware import cpu_multiplies_int8
from m3index.files import Folder

Run = Callable[..., tuple[int, list[dict[str, Any]]]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_m3(tmp_path_factory.mktemp("model")))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    rows = (json.dumps(document(n)) for n in range(30))
    (tmp_path / "corpus.jsonl").write_text("\n".join(rows))

    def invoke(*arguments: str) -> tuple[int, list[dict[str, Any]]]:
        done = CliRunner().invoke(app, [*arguments, "--json"])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.exit_code, [json.loads(line) for line in done.stdout.splitlines()]

    return invoke


def test_encode_load_export(run: Run, model: str) -> None:
    shared = ("corpus.jsonl", "-o", "shards", "-e", model, "--passage-tokens", "40", "--shard-documents", "8")
    for index in range(2):
        code, lines = run("shards", "encode", *shared, "--shard", f"{index}/2")
        assert (code, lines[-1]["written"], lines[-1]["shards"]) == (0, 2, 4)
    code, lines = run("shards", "load", "shards", "--uri", "docs.db", "--field", "year:int")
    assert (code, lines[-1]["added"], lines[-1]["count_ok"]) == (0, 30, True)
    code, lines = run("shards", "export", "-o", "again", "--uri", "docs.db")
    assert (code, lines[-1]["documents"]) == (0, 30)
    assert contents(Folder("again")) == contents(Folder("shards"))
    code, lines = run("ingest", "corpus.jsonl", "--uri", "docs.db", "-e", model)
    assert (code, lines[-1]["unchanged"], lines[-1]["tokens"]) == (0, 30, 0)


def test_workers_read_large_files_and_change_nothing(
    run: Run, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever cuts in processes reads in one too, whatever the command; the hashes are the same."""
    purposes: list[str] = []

    class Watched(apart.Process):
        def __init__(self, target: str, purpose: str) -> None:
            super().__init__(target, purpose)
            purposes.append(purpose)

    monkeypatch.setattr(apart, "LEAST", 0)
    monkeypatch.setattr(apart, "Process", Watched)
    shared = ("corpus.jsonl", "-e", model, "--passage-tokens", "40")
    ways = (
        ("shards", "encode", *shared, "-o", "shards", "--shard-documents", "8"),
        ("ingest", *shared, "--uri", "docs.db"),
        ("verify", "corpus.jsonl", "-e", model, "--uri", "docs.db"),
    )
    for way in ways:
        assert run(*way, "--workers", "0")[0] == 0
        assert purposes == []
    code, lines = run(*ways[0], "--workers", "1")
    assert (code, lines[-1]["kept"], lines[-1]["written"]) == (0, 4, 0)
    assert purposes.pop() == "reads the corpus"
    code, lines = run(*ways[1], "--workers", "1")
    assert (code, lines[-1]["unchanged"]) == (0, 30)
    assert purposes.pop() == "reads the corpus"
    assert run(*ways[2], "--workers", "1")[0] == 0
    assert set(purposes) == {"reads the corpus"}


def test_the_cache_spares_the_second_ingest(run: Run, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from m3index.encoder.engine import Engine

    shared = ("corpus.jsonl", "-e", model, "--cache", "cache")
    assert run("ingest", *shared, "--uri", "a.db")[0] == 0
    monkeypatch.setattr(Engine, "launch", None)  # whoever calls it fails
    code, lines = run("ingest", *shared, "--uri", "b.db")
    assert (code, lines[-1]["added"]) == (0, 30)
    assert run("shards", "encode", *shared, "-o", "shards")[1][-1]["documents"] == 30


@pytest.mark.parametrize("shard", ["2/2", "a/b", "1", "-1/2"])
def test_a_share_that_is_none_is_a_usage_error(run: Run, model: str, shard: str) -> None:
    code, lines = run("shards", "encode", "corpus.jsonl", "-o", "out", "-e", model, f"--shard={shard}")
    assert code == 2
    assert lines[0]["message"].startswith("--shard takes a worker such as 0/8, counted from 0, not ")


def test_a_folder_without_shards_is_not_found(run: Run) -> None:
    code, lines = run("shards", "load", "nothing", "--uri", "docs.db")
    assert (code, lines[-1]["exit"]) == (10, 10)


def test_bench_says_what_the_machine_does(run: Run, model: str) -> None:
    for corpus in ([], ["corpus.jsonl"]):
        code, lines = run("models", "bench", *corpus, "-e", model, "--seconds", "0.3")
        [measured] = [line for line in lines if line["type"] == "bench"]
        assert code == 0
        assert measured["texts"] > 0
        assert measured["tokens_s"] == pytest.approx(measured["tokens"] / measured["seconds"], rel=0.01)
        assert measured["padded_tokens"] >= 1


@pytest.mark.skipif(not cpu_multiplies_int8(), reason="this CPU has no int8 products")
def test_bench_says_how_near_int8_is_to_fp32(run: Run, model: str) -> None:
    code, lines = run(
        "models", "bench", "corpus.jsonl", "-e", model, "--precision", "int8", "--seconds", "0.3"
    )
    [measured] = [line for line in lines if line["type"] == "bench"]
    assert code == 0
    assert measured["recall"]["texts"] > 1
    assert measured["recall"]["cosine"] >= 0.999


def test_counts_of_one_are_singular(run: Run, model: str) -> None:
    del run  # only its folder
    arguments = ["shards", "encode", "corpus.jsonl", "-o", "shards", "-e", model, "--shard-documents", "8"]
    done = CliRunner().invoke(app, [*arguments, "--shard", "3/4"])
    assert done.exit_code == 0
    assert "shards: 1 shard written, 0 kept, of 4." in done.stderr
