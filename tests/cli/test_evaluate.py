"""eval, tune and the gate: what their means are over, and what they say about the rest."""

from __future__ import annotations

from pathlib import Path

import pytest
from terminal import ROWS, Command, write_jsonl

QUERIES = [{"_id": f"q{i}", "text": row["text"]} for i, row in enumerate(ROWS)]


def judge(path: str, lines: dict[str, list[str]]) -> str:
    rows = [f"{query}\t{id_}\t1" for query, ids in lines.items() for id_ in ids]
    Path(path).write_text("\n".join(["query-id\tcorpus-id\tscore", *rows]) + "\n", "utf-8")
    return path


@pytest.fixture
def docs(m3index: Command, dense_model: Path, corpus: Path) -> Command:
    """The commands, with a collection, seven queries and their judgements (`all.jsonl`, `qrels.tsv`), and
    two of the queries (`two.jsonl`)."""
    done = m3index("ingest", corpus, "-e", dense_model, "--field", "year:int")
    assert done.code == 0, done.err
    write_jsonl(Path("all.jsonl"), QUERIES)
    write_jsonl(Path("two.jsonl"), QUERIES[:2])
    judge("qrels.tsv", {f"q{i}": [str(row["id"])] for i, row in enumerate(ROWS)})
    return m3index


NOT_ASKED = "warning: two.jsonl lacks 5 of the 7 judged queries; the mean is without them.\n"


def words(text: str) -> str:
    return " ".join(text.split())


def test_a_mean_is_over_the_queries_that_were_asked(docs: Command) -> None:
    asked = ["eval", "--queries", "two.jsonl", "--mode", "sparse", "-m", "MRR@10", "--json"]
    done = docs(*asked, "--qrels", "qrels.tsv")
    judge("two.tsv", {"q0": ["fox-en"], "q1": ["fox-fr"]})
    same = docs(*asked, "--qrels", "two.tsv")
    report = done.lines[-2]
    assert report["runs"] == same.lines[-2]["runs"]
    assert report["runs"]["sparse"]["MRR@10"]["mean"] == 1.0
    assert (report["queries"], report["not_asked"], report["not_judged"]) == (2, 5, 0)
    assert words(NOT_ASKED) in words(done.err)
    assert "without them" not in same.err
    complete = docs(*asked, "--qrels", "qrels.tsv", "--complete").lines[-2]
    assert (complete["queries"], complete["runs"]["sparse"]["MRR@10"]["mean"]) == (7, pytest.approx(2 / 7))


def test_an_asked_query_without_hits_counts_as_0(docs: Command) -> None:
    write_jsonl(Path("q.jsonl"), [QUERIES[0], {"_id": "q1", "text": "zzzz"}, {"_id": "q2", "text": " "}])
    done = docs(
        "eval", "--queries", "q.jsonl", "--qrels", "qrels.tsv", "--mode", "sparse", "-m", "MRR@10", "--json"
    )
    report = done.lines[-2]
    assert (report["queries"], report["runs"]["sparse"]["MRR@10"]["mean"]) == (3, pytest.approx(1 / 3))
    assert "warning: query q2 counts as 0." in words(done.err)


def test_a_query_without_judgements_is_said(docs: Command) -> None:
    judge("one.tsv", {"q0": ["fox-en"]})
    done = docs("eval", "--queries", "two.jsonl", "--qrels", "one.tsv", "--mode", "sparse")
    assert "The judgements lack 1 of the 2 queries of two.jsonl; the mean is without them." in words(done.err)
    judge("none.tsv", {"z": ["fox-en"]})
    for command in ("eval", "tune"):
        done = docs(command, "--queries", "two.jsonl", "--qrels", "none.tsv")
        assert done.code == 2
        assert "No query of two.jsonl has judgements: it has 'q0', 'q1', the judgements 'z'." in words(
            done.err
        )


def test_a_run_file_is_measured_as_by_trec_eval(docs: Command) -> None:
    Path("r.trec").write_text("q0 Q0 fox-en 1 1.0 r\nq1 Q0 fox-de 1 1.0 r\n", "utf-8")
    asked = ["eval", "--run", "r.trec", "--qrels", "qrels.tsv", "-m", "AP", "-m", "Recall@5", "--json"]
    done = docs(*asked)
    report = done.lines[-2]
    assert (report["queries"], report["runs"]["r"]["AP"]["mean"]) == (2, 0.5)
    assert "r.trec lacks 5 of the 7 judged queries; the mean is without them." in words(done.err)
    assert "r has at most 1 document for a query, fewer than the 5 of Recall@5." in words(done.err)
    done = docs(*asked, "--complete")
    report = done.lines[-2]
    assert (report["queries"], report["runs"]["r"]["AP"]["mean"]) == (7, pytest.approx(1 / 7))
    assert "r has no documents for 5 of the 7 queries; the mean counts them as 0." in words(done.err)
    Path("s.trec").write_text("q0 Q0 fox-en 1 1.0 r\nq2 Q0 fox-de 1 1.0 r\n", "utf-8")
    both = docs(*asked, "--run", "s.trec").lines[-2]  # on the same queries: q0, q1, q2
    assert both["queries"] == 3
    assert [both["runs"][r]["AP"]["mean"] for r in ("r", "s")] == [pytest.approx(1 / 3), pytest.approx(2 / 3)]


def test_judgements_of_another_corpus(docs: Command) -> None:
    judge("half.tsv", {"q0": ["fox-en"], "q1": ["elsewhere"]})
    asked = ["--queries", "two.jsonl", "--qrels"]
    done = docs("eval", *asked, "half.tsv", "--mode", "sparse")
    assert done.code == 0
    assert (
        "The collection lacks 1 of the 2 documents that are judged relevant, and no search can find them: "
        "'elsewhere'." in words(done.err)
    )
    judge("other.tsv", {"q0": ["nowhere"], "q1": ["elsewhere"]})
    for command in (["eval"], ["tune"]):
        done = docs(*command, *asked, "other.tsv")
        assert done.code == 2
        assert "No document that is judged relevant (2 in all) is in the collection" in words(done.err)
    Path("r.trec").write_text("q0 Q0 fox-en 1 1.0 r\n", "utf-8")
    done = docs("eval", "--run", "r.trec", "--qrels", "other.tsv")
    assert "r has no document that is judged relevant." in words(done.err)


def test_tune_finds_the_documents_of_any_source(docs: Command, corpus: Path) -> None:
    asked = ["--queries", "all.jsonl", "--qrels", "qrels.tsv", "--json"]
    before = docs("tune", *asked, "--folds", "2").lines[-2]
    assert docs("delete", "--where", "year>0", "--yes").code == 0
    assert docs("ingest", corpus, "--source", "notes").code == 0
    after = docs("tune", *asked, "--folds", "2").lines[-2]
    assert after["best"]["value"] == before["best"]["value"] > 0


def test_eval_tune_and_search_rank_the_same(docs: Command) -> None:
    asked = ["--queries", "all.jsonl", "--qrels", "qrels.tsv", "--json"]
    report = docs("eval", *asked, "--mode", "hybrid", "-m", "AP", "-m", "nDCG@10").lines[-2]
    assert (report["k"], report["depth"]) == (100, 100)
    for measure in ("AP", "nDCG@10"):
        tuned = docs("tune", *asked, "--folds", "2", "-m", measure).lines[-2]
        named = {"AP": "AP@100"}.get(measure, measure)
        assert (tuned["measure"], tuned["baseline"]["depth"]) == (named, 100)
        assert tuned["baseline"]["value"] == pytest.approx(report["runs"]["hybrid"][named]["mean"])
    assert docs("search", "--queries", "all.jsonl", "-o", "run.trec").code == 0
    run = docs("eval", "--run", "run.trec", "--qrels", "qrels.tsv", "-m", "AP", "--json").lines[-2]
    assert run["runs"]["run"]["AP"]["mean"] == report["runs"]["hybrid"]["AP@100"]["mean"]
    shown = docs("eval", *asked[:-1], "--mode", "hybrid").out
    assert "Each query: 100 hits, 100 documents from each leg." in shown


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["eval", "-k", "10"], "Recall@100 needs 100 hits for each query, but k is 10."),
        (["tune", "-m", "Recall@1000"], "Recall@1000 needs 1,000 documents, but depth is 200."),
    ],
)
def test_a_measure_that_would_be_cut_short_is_refused(docs: Command, command: list[str], says: str) -> None:
    done = docs(*command, "--queries", "all.jsonl", "--qrels", "qrels.tsv")
    assert done.code == 2
    assert says in words(done.err)


def test_a_gate_measures_only_what_it_asks(docs: Command) -> None:
    """1.0 on the two queries; over all seven that are judged, it would be 0.29."""
    asked = ["reindex", "--field", "lang", "--force", "corpus.jsonl", "--queries", "two.jsonl"]
    done = docs(*asked, "--qrels", "qrels.tsv", "--gate", "MRR@10>=0.9")
    assert (done.code, "MRR@10 is 1.0000: the gate MRR@10>=0.9" in words(done.err)) == (0, True)
    assert words(NOT_ASKED) in words(done.err)
    judge("other.tsv", {"q0": ["nowhere"]})
    done = docs(*asked, "--qrels", "other.tsv", "--gate", "nDCG@10>=old-0.02")
    assert done.code == 2
    assert "No document that is judged relevant (1 in all) is in the collection" in words(done.err)
    done = docs(*asked, "--qrels", "other.tsv", "--gate", "nDCG@10>=0")
    assert done.code == 16
    assert "The alias 'docs' was not moved." in words(done.err)
    for gate, says in (("nDGC@10>=0.5", "There is no measure 'nDGC@10'"), ("AP>=0", "AP@100 is ")):
        done = docs(*asked, "--qrels", "qrels.tsv", "--gate", gate)
        assert says in words(done.err), done.err


def test_a_collection_is_measured_without_labels(m3index: Command, dense_model: Path) -> None:
    texts = [" ".join(f"word{i * j % 97}" for j in range(1, 14)) for i in range(1, 61)]
    write_jsonl(Path("many.jsonl"), [{"id": f"d{i}", "text": text} for i, text in enumerate(texts)])
    done = m3index("ingest", "many.jsonl", "-e", dense_model, "--no-calibrate")
    assert "mean reciprocal rank" not in done.err
    measured = m3index("tune", "--without-labels")
    assert measured.out.startswith("The dense leg found the documents of 60 queries made of passages")
    line = m3index("tune", "--without-labels", "--json").lines[-2]
    assert (line["type"], line["queries"], line["rows"]) == ("calibration", 60, 60)
    again = m3index("ingest", "many.jsonl", "-e", dense_model)  # it is measured already
    assert "mean reciprocal rank" not in again.err
    [hit] = m3index("search", "word3", "-k", 1, "--json").hits
    [plain] = m3index("search", "word3", "-k", 1, "--json", "--mode", "dense").hits
    assert hit["legs"]["dense"]["contribution"] != plain["legs"]["dense"]["contribution"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--without-labels"], "fewer than 50 documents"),
        (["--without-labels", "--queries", "all.jsonl"], "takes no queries"),
        (["--without-labels", "--write"], "takes no queries"),
        ([], "Give --queries FILE, or --without-labels."),
        (["--queries", "all.jsonl"], "Give --qrels FILE"),
    ],
)
def test_tunings_that_cannot_be(docs: Command, options: list[str], says: str) -> None:
    done = docs("tune", *options)
    assert done.code == 2
    assert says in words(done.err)
