"""`m3index verify --recall`: the table, the JSON, the metrics file and the exit code of the gate."""

from __future__ import annotations

from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from terminal import ROWS, Command, configure, write_jsonl

from m3index import schema
from m3index.store.milvus import MilvusStore

EVENT = Draft202012Validator(schema.load("event.schema.json"))


@pytest.fixture
def ingested(m3index: Command, m3_model: Path, tmp_path: Path) -> Path:
    corpus = write_jsonl(tmp_path / "corpus.jsonl", [*ROWS])
    done = m3index("ingest", corpus, "-e", m3_model, "--field", "lang", "--field", "year:int")
    assert done.code == 0, done.err
    return corpus


def test_an_exact_index(m3index: Command, ingested: Path, tmp_path: Path) -> None:
    metrics = tmp_path / "m3index.prom"
    done = m3index(
        "verify", "--recall", 20, "--min-recall", "0.99", "--where", "year>=2", "--metrics-file", metrics
    )
    assert done.code == 0, done.err
    assert done.out.splitlines()[0].split() == [
        "leg", "index", "asked", "with", "filter", "recall", "95", "%", "interval"
    ]  # fmt: skip
    assert "FLAT" in done.out
    assert "every recall is at least 0.99" in done.err
    assert 'm3index_recall{collection="docs",command="verify",leg="fused",at="10",' in metrics.read_text()

    done = m3index("verify", "--recall", 5, "--recall-k", 3, "--json")
    summary = done.summary
    EVENT.validate(summary)
    assert (done.code, summary["exit"], summary["min_recall"]) == (0, 0, None)
    assert summary["indexes"] == {"dense": "FLAT", "sparse": "SPARSE_INVERTED_INDEX"}
    assert {row["at"] for row in summary["recall"] if row["leg"] == "fused"} == {3}


def test_the_gate(m3index: Command, ingested: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = MilvusStore.search

    def losing(store: MilvusStore, name: str, *rest: object) -> object:
        return [found[::2] for found in search(store, name, *rest)]  # type: ignore[arg-type]

    monkeypatch.setattr(MilvusStore, "search", losing)
    done = m3index("verify", "--recall", 20, "--min-recall", "0.9")
    assert done.code == 16
    assert "below 0.9; the lowest is 0." in done.err
    assert m3index("verify", "--recall", 20).code == 0, "without a gate it only measures"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "Give either a corpus to compare the index with, or --recall N"),
        (("CORPUS", "--recall", "5"), "Give either a corpus"),
        (("CORPUS", "--where", "lang=en"), "--where is an option of --recall N"),
        (("CORPUS", "--min-recall", "0.9"), "--min-recall is an option of --recall N"),
        (("--recall", "5", "--repair"), "--repair needs a corpus"),
        (("--recall", "0"), "--recall takes a whole number from 1 up"),
        (("--recall", "5", "--where", "colour=red"), "no field 'colour'"),
        (("--recall", "5", "-c", "nope"), "There is no collection 'nope'"),
    ],
)
def test_wrong_usage(m3index: Command, ingested: Path, words: tuple[str, ...], says: str) -> None:
    done = m3index("verify", *[str(ingested) if word == "CORPUS" else word for word in words])
    assert done.code in (2, 10)
    assert says in done.err


def test_the_source_is_that_of_the_flag(m3index: Command, ingested: Path) -> None:
    assert m3index("verify", "--recall", 5, "--source", "default").code == 0
    done = m3index("verify", "--recall", 5, "--source", "other")
    assert (done.code, "no passages to measure with" in done.err) == (2, True)
    configure('[verify]\nsource = "default"\n')
    assert m3index("verify", ingested).code == 0
