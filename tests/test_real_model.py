"""Real weights with all three heads, from model to hits: `offline`, with a lexical head fitted to it."""

from __future__ import annotations

import json
from pathlib import Path

import models
import pytest

from m3index import Index
from m3index.distill.options import DistillOptions
from m3index.distill.run import distill
from m3index.encoder.load import load
from m3index.encoder.options import Device

EXAMPLES = Path(__file__).resolve().parents[1] / "examples" / "corpus.jsonl"
ABOUT = ("geography-", "nature-02")
GERMAN = "Warum ist der Baikalsee so tief?"  # only an English and a Russian note tell


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lines = EXAMPLES.read_text("utf-8").splitlines()
    kept = [line for line in lines if json.loads(line)["id"].split("-", 1)[1].startswith(ABOUT)]
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    path.write_text("\n".join(kept), "utf-8")
    return path


@pytest.fixture(scope="module")
def model(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with dense, lexical and multi-vector heads."""
    models.needs_offline()
    out = tmp_path_factory.mktemp("model") / "m3"
    distill(
        DistillOptions(
            out=str(out), student="offline", heads_only=True, corpus=[str(corpus)], steps=2, tokens=256,
            learning_rate=1e-4, held_out=0.15,
        ),
        Device(device="cpu"),
    )  # fmt: skip
    return out


@pytest.fixture(scope="module")
def index(model: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Index:
    index = Index(
        "real", uri=str(tmp_path_factory.mktemp("store") / "m.db"), encoder=str(model), device="cpu"
    )
    summary = index.sync(str(corpus), fields={"lang": str})
    assert summary.added == len(corpus.read_text("utf-8").splitlines())
    return index


def first(index: Index, query: str, **options: object) -> str:
    return str(index.search(query, k=3, **options)[0].doc_id)  # type: ignore[arg-type]


def test_a_fitted_head_makes_a_model_with_all_three(model: Path) -> None:
    info = load(str(model), device="cpu").info
    assert info.lexical
    assert info.multi_vector
    assert info.dim == 384


@pytest.mark.parametrize("mode", ["dense", "sparse", "hybrid"])
def test_every_leg_finds_words_and_meanings(index: Index, mode: str) -> None:
    assert first(index, "how do bees find flowers", mode=mode) == "en-nature-02"
    assert first(index, "Vulkane in der Eifel", mode=mode) == "de-geography-01"


def test_late_interaction_finds_across_languages_what_words_cannot(index: Index) -> None:
    assert first(index, GERMAN, mode="sparse").startswith("de-")
    assert first(index, GERMAN, rerank="colbert", rerank_depth=20) == "en-geography-08"


def test_the_three_scores_together(index: Index) -> None:
    hits = index.search("how do bees find flowers", k=3, rerank="m3", rerank_depth=5)
    assert hits[0].doc_id == "en-nature-02"
    assert [hit.rank for hit in hits] == [1, 2, 3]
