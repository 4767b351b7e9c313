"""Dense vectors equal sentence-transformers' on a random model of every architecture, and on a real one."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest

from m3index.encoder.cross import CrossEncoder
from m3index.encoder.load import load

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("default")]
TEXTS = ["the quick brown fox", "", "le renard brun saute, le chien lit", "敏捷的棕色狐狸 book", "a b " * 15]
DATA = Path(os.environ.get("M3INDEX_DATA", "../shared/data"))
WRITERS: dict[str, Callable[..., Path]] = {
    "bert": models.write_sentence_bert,
    "xlmr": models.write_sentence_xlmr,
    "mistral": models.write_sentence_mistral,
}


def theirs(path: Path, **options: Any) -> Any:
    st = pytest.importorskip("sentence_transformers", reason="tests/oracle/requirements.txt is not installed")
    return st.SentenceTransformer(str(path), device="cpu", **options)


def agrees(path: Path, *, dim: int | None = None, texts: list[str] = TEXTS) -> None:
    model = theirs(path, truncate_dim=dim)
    mine = load(str(path), precision="fp32", dim=dim)
    for got, expected in (
        (mine.encode_documents(texts).dense, model.encode_document(texts, normalize_embeddings=True)),
        (mine.encode_queries(texts).dense, model.encode_query(texts, normalize_embeddings=True)),
    ):
        np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("family", WRITERS)
@pytest.mark.parametrize(
    "pooling", ["cls", "mean", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
)
def test_families_and_pooling(tmp_path: Path, family: str, pooling: str) -> None:
    agrees(WRITERS[family](tmp_path, pooling=pooling))


@pytest.mark.parametrize("family", WRITERS)
def test_dense_prompts_and_matryoshka(tmp_path: Path, family: str) -> None:
    prompts = {"query": "query: ", "document": "le livre: "}
    agrees(WRITERS[family](tmp_path, dense=12, prompts=prompts), dim=5)


@pytest.mark.parametrize("family", WRITERS)
@pytest.mark.parametrize("pooling", ["mean", "cls", "weightedmean", "max"])
def test_a_prompt_outside_the_pooling(tmp_path: Path, family: str, pooling: str) -> None:
    prompts = {"query": "the book: ", "document": "le livre: "}
    path = WRITERS[family](tmp_path, pooling=pooling, prompts=prompts, include_prompt=False)
    agrees(path, texts=[t for t in TEXTS if t])


def test_a_default_prompt(tmp_path: Path) -> None:
    prompts = {"both": "the book: "}
    path = models.write_sentence_xlmr(tmp_path, prompts=prompts, default_prompt_name="both")
    expected = theirs(path).encode(TEXTS)
    mine = load(str(path), precision="fp32")
    np.testing.assert_allclose(mine.encode_documents(TEXTS).dense, expected, atol=1e-5)
    np.testing.assert_allclose(mine.encode_queries(TEXTS).dense, expected, atol=1e-5)


def test_a_default_prompt_for_queries_is_not_put_before_documents(tmp_path: Path) -> None:
    prompts = {"query": "the book: "}
    agrees(models.write_sentence_xlmr(tmp_path, prompts=prompts, default_prompt_name="query"))


@pytest.mark.parametrize("activation", ["Identity", "Tanh", "GELU", "ReLU", "SiLU", "Sigmoid"])
def test_activations_of_dense(tmp_path: Path, activation: str) -> None:
    agrees(models.write_sentence_bert(tmp_path, dense=9, activation=f"torch.nn.{activation}"))


@pytest.mark.parametrize("name", ["offline", "offline-en"])
def test_the_offline_models_on_real_texts(name: str) -> None:
    if not (DATA / "scifact").is_dir():
        pytest.skip("M3INDEX_DATA has no scifact")
    with gzip.open(DATA / "scifact/corpus.jsonl.gz", "rt", encoding="utf-8") as f:
        texts = [json.loads(line)["text"][:600] for line, _ in zip(f, range(40), strict=False)]
    mine = load(name, precision="fp32")
    kept = [t for t in texts if len(mine.tokenizer.document_ids([t])[0]) <= mine.info.limit]
    model = theirs(Path(mine._layout.root))
    expected = model.encode([mine.tokenizer.document_prompt + t for t in kept], normalize_embeddings=True)
    np.testing.assert_allclose(mine.encode_documents(kept).dense, expected, atol=1e-5)


def test_cross_encoder(tmp_path: Path) -> None:
    st = pytest.importorskip("sentence_transformers", reason="tests/oracle/requirements.txt is not installed")
    path = models.write_cross_encoder(tmp_path)
    torch = pytest.importorskip("torch")
    model = st.CrossEncoder(str(path), device="cpu", activation_fn=torch.nn.Identity())
    texts = [t for t in TEXTS if t]
    expected = model.predict([("the brown book", t) for t in texts])
    got = CrossEncoder.load(str(path), precision="fp32").score("the brown book", texts)
    np.testing.assert_allclose(got, expected, atol=1e-5)
