from __future__ import annotations

from dataclasses import replace

import pytest
from fakes import FakeEncoder
from index.support import INGEST, PRUNE, REINDEX, ListCorpus, doc, run

from m3index.errors import LockedError, UsageError
from m3index.index.calibrate import (
    FEW_WORDS,
    LEAST_DOCUMENTS,
    MOST_WORDS,
    QUERIES,
    Calibration,
    calibrate,
    pseudo_query,
    recalibrate,
)
from m3index.index.lock import hold
from m3index.index.reindex import reindex
from m3index.progress import Silent
from m3index.store.memory import MemoryStore
from m3index.types import Document


class Notes(Silent):
    """Collects the notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def corpus(count: int) -> list[Document]:
    return [doc(f"d{i}", 8 + i % 9) for i in range(count)]


def known(store: MemoryStore) -> Calibration | None:
    return Calibration.of(store.properties("docs"))


def test_a_run_measures_the_dense_leg_once_and_again_when_the_collection_has_doubled() -> None:
    store, reporter = MemoryStore(), Notes()
    run(store, corpus(LEAST_DOCUMENTS - 1), settings=INGEST)
    rows = store.count("docs")
    assert known(store) is None
    run(store, corpus(LEAST_DOCUMENTS), settings=INGEST, reporter=reporter)
    first = known(store)
    assert first is not None
    assert (first.queries, first.rows) == (LEAST_DOCUMENTS, store.count("docs"))
    assert first.mrr > 0.9  # half of the words are enough, where every word is a document's own
    assert [note for note in reporter.notes if "mean reciprocal rank" in note] == [first.sentence]
    run(store, corpus(LEAST_DOCUMENTS + 40), settings=INGEST)
    assert known(store) == first
    run(store, corpus(3 * LEAST_DOCUMENTS), settings=INGEST)
    second = known(store)
    assert second is not None
    assert second.rows == store.count("docs") >= 2 * rows


@pytest.mark.parametrize(
    "settings", [replace(INGEST, no_calibrate=True), replace(INGEST, sparse="none"), PRUNE]
)
def test_runs_that_do_not_measure(settings: object) -> None:
    store = MemoryStore()
    run(
        store,
        corpus(60),
        settings=replace(INGEST, no_calibrate=True, sparse=getattr(settings, "sparse", None)),
    )
    run(store, corpus(60), settings=settings)  # type: ignore[arg-type]
    assert known(store) is None


def test_the_measurement_depends_on_the_documents_only() -> None:
    one, other = MemoryStore(), MemoryStore(batch=7)
    run(one, corpus(200), settings=INGEST)
    run(other, corpus(200)[::-1], settings=replace(INGEST, no_calibrate=True))
    assert known(one) == recalibrate(other, FakeEncoder(), "docs") == known(other)
    assert known(one) == calibrate(one, "docs__g1", FakeEncoder(), one.count("docs"))
    assert getattr(known(one), "queries") == QUERIES  # noqa: B009


def test_only_a_sample_of_a_large_collection_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m3index.index.calibrate.SAMPLE_DOCUMENTS", 80)
    store, read = MemoryStore(), 0
    run(store, corpus(400), settings=replace(INGEST, no_calibrate=True))
    scan = store.scan

    def counting(*arguments: object) -> object:
        nonlocal read
        for row in scan(*arguments):  # type: ignore[arg-type]
            read += row["passage_id"].endswith("-0")
            yield row

    store.scan = counting  # type: ignore[assignment,method-assign]
    assert recalibrate(store, FakeEncoder(), "docs").mrr > 0.7
    assert 50 < read < 110


def test_a_model_that_knows_nothing_is_trusted_little() -> None:
    store = MemoryStore()
    run(store, corpus(300), settings=INGEST)
    class_of = FakeEncoder(space="fake", name="fake")
    class_of.seed += 1  # its queries lie elsewhere than the documents
    found = recalibrate(store, class_of, "docs")
    assert found.mrr < 0.1
    assert found.dense_trust < 0.4


def test_the_trust_follows_the_odds_and_has_an_end() -> None:
    assert Calibration(0.75, 150, 1).dense_trust == 1
    assert Calibration(0.9, 150, 1).dense_trust == pytest.approx(3)
    assert Calibration(0.1, 150, 1).dense_trust == pytest.approx(1 / 27)
    assert Calibration(1.0, 150, 1).dense_trust == Calibration(0.93, 150, 1).dense_trust == 4
    assert 0 < Calibration(0.0, 150, 1).dense_trust < 0.01  # so that its own order breaks ties


def test_a_new_generation_is_measured_and_a_copy_keeps_what_was_measured() -> None:
    store = MemoryStore()
    run(store, corpus(70), settings=INGEST)
    before = known(store)
    reindex(store, FakeEncoder(), "docs", replace(REINDEX, fields={"lang": "str"}))
    assert store.resolve("docs") == "docs__g2"
    assert known(store) == before is not None
    new = FakeEncoder(name="other")
    sources = {"default": lambda: ListCorpus(corpus(90))}
    reindex(store, new, "docs", REINDEX, corpora=sources)
    again = known(store)
    assert again is not None
    assert again.queries == 90
    reindex(store, FakeEncoder(name="third"), "docs", replace(REINDEX, no_calibrate=True), corpora=sources)
    assert known(store) is None


def test_what_cannot_be_measured_is_told() -> None:
    store = MemoryStore()
    run(store, corpus(10), settings=INGEST)
    with pytest.raises(UsageError, match="fewer than 50 documents"):
        recalibrate(store, FakeEncoder(), "docs")
    with hold(store, "docs", 0.0, "m3index sync"), pytest.raises(LockedError):
        recalibrate(store, FakeEncoder(), "docs")


def test_pseudo_queries() -> None:
    text = "Short one. The quick brown fox jumps over the lazy dog near the river! " + "x " * 90
    chosen = {pseudo_query([text], str(seed)) for seed in range(40)}
    assert pseudo_query([text], "7") == pseudo_query([text], "7")
    assert {len(query.split()) for query in chosen} == {6, MOST_WORDS}
    words = ["The", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog", "near", "the", "river!"]
    for query in chosen:
        if "x" not in query.split():
            places = iter(words)
            assert all(word in places for word in query.split())  # in order
    assert pseudo_query(["word"], "a") == "word"
    assert len(pseudo_query(["北京大学是中国的一所综合性大学位于海淀区颐和园路。"], "a").split()) >= 3


def test_a_pseudo_query_is_no_large_part_of_its_passage() -> None:
    """Half of a document of one sentence would find it again among anything."""
    sentence = " ".join(f"word{i}" for i in range(24)) + "."
    assert len(pseudo_query([sentence], "a").split()) == FEW_WORDS
    assert len(pseudo_query([f"{sentence} {sentence}"], "a").split()) == 8  # a sixth of 48
    assert len(pseudo_query([" ".join([sentence] * 5)], "a").split()) == 12  # half of the sentence
