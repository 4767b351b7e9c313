"""BM25 on Milvus Lite, alone, in twelve languages (XQuAD: 240 paragraphs, 1,190 questions each)."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from store.material import DENSE, row

from m3index.schema import CollectionSpec
from m3index.store.open import open_store
from m3index.store.options import Connection
from m3index.types import Leg

DATA = Path(os.environ.get("M3INDEX_DATA", Path(__file__).parents[3] / "shared" / "data")) / "xquad"
FLOORS = {
    "ar": 0.93, "de": 0.945, "el": 0.945, "en": 0.96, "es": 0.96, "hi": 0.95,
    "ro": 0.955, "ru": 0.94, "th": 0.96, "tr": 0.94, "vi": 0.95, "zh": 0.96,
}  # fmt: skip
ALWAYS = ("hi", "th", "zh")


def figure(folder: Path, language: str) -> float:
    """nDCG@10 of the BM25 leg."""
    pytrec_eval = pytest.importorskip("pytrec_eval")
    corpus, queries = (
        [json.loads(line) for line in (DATA / language / f"{name}.jsonl").read_bytes().splitlines()]
        for name in ("corpus", "queries")
    )
    qrels: dict[str, dict[str, int]] = {}
    for line in (DATA / language / "qrels" / "test.tsv").read_text("utf-8").splitlines()[1:]:
        query, document, grade = line.split("\t")
        qrels.setdefault(query, {})[document] = int(grade)
    store = open_store(Connection(uri=str(folder / f"{language}.db")))
    try:
        store.create("x", CollectionSpec(DENSE.dim, "bm25"), {})
        rows = [row(d["_id"], title=d.get("title", ""), text=d["text"]) for d in corpus]
        names = {r.passage_id: r.doc_id for r in rows}
        store.upsert("x", rows)
        store.flush("x")
        found = store.search("x", Leg.BM25, [q["text"] for q in queries], 10)
    finally:
        store.close()
    run = {
        q["_id"]: {names[c.passage_id]: c.score for c in hits} for q, hits in zip(queries, found, strict=True)
    }
    scores = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10"}).evaluate(run)
    return sum(s["ndcg_cut_10"] for s in scores.values()) / len(qrels)


@pytest.mark.skipif(not DATA.is_dir(), reason="M3INDEX_DATA has no xquad")
@pytest.mark.parametrize(
    "language", [lang if lang in ALWAYS else pytest.param(lang, marks=pytest.mark.slow) for lang in FLOORS]
)
def test_bm25_finds_the_paragraph(language: str, tmp_path: Path) -> None:
    found = figure(tmp_path, language)
    print(f"{language}: nDCG@10 {found:.4f}")
    assert found >= FLOORS[language]
