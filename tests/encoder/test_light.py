"""Queries without torch: their vectors are those of the model in fp32; what does not fit is left to torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import models
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from m3index import one_shot
from m3index.encoder import backbone, light
from m3index.encoder.load import load
from m3index.encoder.model import ModelEncoder
from m3index.errors import MismatchError, MissingHeadError, UsageError

TEXTS = ["the quick brown fox", "", "le renard brun saute", "빠른 갈색", "a book about search " * 5]


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(one_shot, "_brief", True)


@pytest.fixture
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the weights were loaded with torch")

    monkeypatch.setattr(ModelEncoder, "_loaded", refuse)


def stored_as(path: Path, dtype: torch.dtype) -> Path:
    file = str(path / "model.safetensors")
    save_file({name: t.to(dtype) for name, t in load_file(file).items()}, file, metadata={"format": "pt"})
    return path


def m3(path: Path) -> Path:
    """BGE-M3 with a lexical head that needs no torch."""
    models.write_m3(path)
    head = torch.load(path / "sparse_linear.pt", weights_only=True)
    save_file(head, str(path / "sparse_linear.safetensors"))
    return path


def bert(path: Path) -> Path:
    return models.write_sentence_bert(path, prompts={"query": "find: "}, include_prompt=False)


def two_poolings(path: Path) -> Path:
    return models.write_sentence_xlmr(path, pooling=["cls", "mean"])


WAYS = {"m3": m3, "bert": bert, "two poolings": two_poolings}


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("way", WAYS)
def test_the_vectors_are_those_of_fp32(
    tmp_path: Path, way: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = stored_as(WAYS[way](tmp_path / "model"), dtype)
    exact = load(str(path), precision="fp32").encode_queries(TEXTS)
    encoder = load(str(path))
    monkeypatch.setattr(ModelEncoder, "_loaded", lambda _: pytest.fail("torch"))
    encoder.prepare()
    got = encoder.encode_queries(TEXTS)
    assert got.dense.dtype == np.float32
    np.testing.assert_allclose(got.dense, exact.dense, atol=2e-5)
    np.testing.assert_array_equal(got.tokens, exact.tokens)
    assert (got.lexical is None) == (exact.lexical is None) == (way != "m3")
    if got.lexical is not None and exact.lexical is not None:
        np.testing.assert_array_equal(got.lexical.indices, exact.lexical.indices)
        np.testing.assert_allclose(got.lexical.values, exact.lexical.values, atol=2e-5)


@pytest.mark.usefixtures("brief", "without_torch")
def test_the_first_dimensions_at_unit_norm(tmp_path: Path) -> None:
    path = str(m3(tmp_path / "model"))
    short, full = (load(path, dim=dim).encode_queries(TEXTS).dense for dim in (8, None))
    expected = full[:, :8] / np.linalg.norm(full[:, :8], axis=1, keepdims=True)
    np.testing.assert_allclose(short, expected, atol=1e-6)


@pytest.mark.usefixtures("brief", "without_torch")
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(alphabet="abc xyz ф 狐", max_size=40), min_size=1, max_size=5))
def test_a_text_has_the_same_vector_beside_others(tmp_path: Path, texts: list[str]) -> None:
    path = tmp_path / "m3"
    encoder = load(str(path if path.is_dir() else m3(path)))
    together = encoder.encode_queries(texts)
    alone = np.concatenate([encoder.encode_queries([text]).dense for text in texts])
    np.testing.assert_allclose(together.dense, alone, atol=1e-5)


@pytest.mark.usefixtures("brief")
def test_pickled_weights_and_heads_once_they_are_prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = models.pickle_weights(models.write_m3(tmp_path / "m3"))
    first = load(str(path), precision="bf16").encode_queries(TEXTS)  # by torch, which prepares
    monkeypatch.setattr(ModelEncoder, "_loaded", lambda _: pytest.fail("torch"))
    second = load(str(path), precision="bf16").encode_queries(TEXTS)
    assert (first.dense * second.dense).sum(axis=1).min() > 0.999
    assert second.lexical is not None


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("name", ["gelu", "gelu_new", "gelu_pytorch_tanh", "relu"])
def test_activations(name: str) -> None:
    kind = light.ACTIVATIONS[name]
    x = torch.linspace(-12, 12, 10_001)
    np.testing.assert_allclose(
        light._FUNCTIONS[kind](x.numpy()), backbone.FUNCTIONS[kind][0](x).numpy(), atol=2e-6
    )


def used_torch(encoder: ModelEncoder) -> bool:
    return encoder._engines is not None


@pytest.mark.usefixtures("brief")
def test_what_is_left_to_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = m3(tmp_path / "m3")

    def after(encoder: ModelEncoder, *, multi_vector: bool = False) -> bool:
        assert encoder.encode_queries(TEXTS, multi_vector=multi_vector).dense.shape[0] == len(TEXTS)
        return used_torch(encoder)

    assert not after(load(str(path)))
    assert after(load(str(path)), multi_vector=True)
    assert after(load(str(path), precision="fp32"))
    assert after(load(str(path), no_prepare=True))
    assert after(load(str(models.write_sentence_xlmr(tmp_path / "dense", dense=16))))
    assert after(load(str(models.write_sentence_xlmr(tmp_path / "max", pooling="max"))))
    assert after(load(str(models.write_sentence_mistral(tmp_path / "mistral"))))
    monkeypatch.setattr(light, "_MULTIPLICATIONS", 1)
    assert after(load(str(path)))
    monkeypatch.setattr(one_shot, "_brief", False)
    assert after(load(str(path)))


@pytest.mark.usefixtures("brief")
def test_documents_are_left_to_torch(tmp_path: Path) -> None:
    encoder = load(str(m3(tmp_path / "m3")))
    encoder.encode_documents(TEXTS)
    assert used_torch(encoder)


@pytest.mark.usefixtures("brief")
def test_many_calls_import_torch_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = m3(tmp_path / "m3")
    weights = 2 * (4 * 32 * 32 + 2 * 32 * 64)
    monkeypatch.setattr(light, "_MULTIPLICATIONS", 20 * weights)
    encoder = load(str(path))
    encoder.encode_queries(["the fox"])
    assert not used_torch(encoder)
    for _ in range(10):
        encoder.encode_queries(["the fox"])
    assert used_torch(encoder)


@pytest.mark.usefixtures("brief")
def test_errors_are_the_same(tmp_path: Path) -> None:
    encoder = load(str(models.write_sentence_xlmr(tmp_path / "dense")))
    with pytest.raises(MissingHeadError, match="no lexical head"):
        encoder.encode_queries(TEXTS, lexical=True)
    with pytest.raises(UsageError, match="takes 128"):
        encoder.encode_queries(["fox " * 200])


@pytest.mark.usefixtures("brief")
def test_damaged_weights_are_reported_by_whoever_loads_them(tmp_path: Path) -> None:
    path = m3(tmp_path / "m3")
    tensors = load_file(str(path / "model.safetensors"))
    tensors["encoder.layer.1.output.dense.weight"] = torch.full((32, 64), torch.nan)
    save_file(tensors, str(path / "model.safetensors"), metadata={"format": "pt"})
    with pytest.raises(MismatchError, match="not finite"):
        load(str(path)).encode_queries(TEXTS)
    del tensors["encoder.layer.1.output.dense.weight"]
    save_file(tensors, str(path / "model.safetensors"), metadata={"format": "pt"})
    with pytest.raises(MismatchError, match=r"lacks 1 weights"):
        load(str(path)).encode_queries(TEXTS)


@pytest.mark.parametrize("sparse", ["bm25", "lexical"])
def test_a_search_from_a_shell_does_without_torch(tmp_path: Path, sparse: str) -> None:
    """In a process of its own, as users run it; the hits are those of a search with torch."""
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text(
        "".join(json.dumps({"id": f"{i}", "text": t}) + "\n" for i, t in enumerate(models.LINES))
    )
    model, uri = str(m3(tmp_path / "m3")), str(tmp_path / "index.db")
    program = (
        "import atexit, sys; from m3index.__main__ import run\n"
        "atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr)); run()"
    )

    def m3index(*words: str) -> tuple[str, bool]:
        command = [sys.executable, "-c", program, *words, "--uri", uri]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout, done.stderr.splitlines()[-1] == "True"

    assert m3index("ingest", str(corpus), "-e", model, "--sparse", sparse)[1]
    found = {}
    for precision, torch_is_used in (("auto", False), ("fp32", True)):
        out, used = m3index("search", "a lazy dog", "--json", "--precision", precision)
        assert used == torch_is_used
        lines = map(json.loads, out.splitlines())
        found[precision] = {line["doc_id"]: line["score"] for line in lines if line["type"] == "hit"}
    assert list(found["auto"]) == list(found["fp32"])
    assert found["auto"] == pytest.approx(found["fp32"], abs=1e-4)
