from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import models
import numpy as np
import pytest
import torch

from m3index.distill.network import Network, frozen, same_tokens, trainable
from m3index.encoder import backbone, layout
from m3index.encoder.load import load
from m3index.encoder.tokens import ModelTokenizer

TEXTS = ["the quick brown fox", "le chien", "敏捷的棕色狐狸跳过懒狗 and reads a book about search"]


def built(path: Path, kind: str) -> Network:
    read = layout.read(path)
    return trainable(read) if kind == "trainable" else frozen(read, torch.device("cpu"), "fp32")


@pytest.mark.parametrize("kind", ["trainable", "frozen"])
@pytest.mark.parametrize("family", ["m3", "bert", "mistral", "dense"])
def test_outputs_are_the_encoders(tmp_path: Path, kind: str, family: str) -> None:
    write = {
        "m3": models.write_m3,
        "bert": models.write_sentence_bert,
        "mistral": models.write_sentence_mistral,
        "dense": lambda path: models.write_sentence_bert(
            path, dense=12, prompts={"document": "the dog "}, include_prompt=False
        ),
    }[family]
    path = write(tmp_path / "model")
    network, encoder = built(path, kind), load(str(path), device="cpu", precision="fp32")
    rows = network.tokenizer.document_ids(TEXTS)
    batch = network.batch(rows)
    out = network(batch)
    expected = encoder.encode_ids(rows, lexical=encoder.info.lexical, multi_vector=encoder.info.multi_vector)
    np.testing.assert_allclose(out.dense.detach(), expected.dense, atol=2e-5)
    if encoder.info.multi_vector:
        ends = np.cumsum([len(r) for r in rows])[:-1]
        for found, vectors in zip(np.split(out.vectors.detach(), ends), expected.multi_vector, strict=True):
            np.testing.assert_allclose(found[1:], vectors, atol=2e-5)
    if encoder.info.lexical:
        for i, row in enumerate(rows):
            start = sum(map(len, rows[:i]))
            weights = torch.relu(out.weights[start : start + len(row)]).detach().numpy()
            heaviest = {int(t): max(weights[row == t]) for t in set(row) - set(network.tokenizer.silent_ids)}
            stored = expected.lexical.row(i).to_dict()
            assert {t: w for t, w in heaviest.items() if w > 0} == pytest.approx(stored, abs=2e-5)


@pytest.mark.parametrize("way", ["packed", "single"])
@pytest.mark.parametrize("write", [models.write_m3, models.write_sentence_mistral])
def test_watched_layers_are_those_of_the_model(
    tmp_path: Path, write: Callable[[Path], Path], way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "single":
        monkeypatch.setattr(backbone, "PackedBackbone", _refused)
    read = layout.read(write(tmp_path))
    network = frozen(read, torch.device("cpu"), "fp32", modules=True)
    network.watch([0])
    rows = network.tokenizer.document_ids(TEXTS)
    for _ in range(2):  # what was watched before is forgotten
        (found,) = network(network.batch(rows)).layers
    expected = []
    plain = backbone.load_model(read, "fp32")
    for row in rows:
        states = plain(torch.from_numpy(row).long()[None], output_hidden_states=True).hidden_states
        expected.append(states[1][0])
    torch.testing.assert_close(found, torch.cat(expected), atol=2e-5, rtol=1e-4)


def _refused(model: object) -> object:
    raise ValueError("not packed")


def test_special_tokens_are_not_spoken(tmp_path: Path) -> None:
    network = built(models.write_m3(tmp_path), "trainable")
    batch = network.batch(network.tokenizer.document_ids(TEXTS[:2]))
    first = len(network.tokenizer.document_ids(TEXTS[:1])[0])
    assert batch.spoken.tolist() == [*range(1, first - 1), *range(first + 1, batch.tokens - 1)]
    assert batch.texts == 2


def test_gradients_reach_every_layer_and_dropout_is_off(tmp_path: Path) -> None:
    network = built(models.write_m3(tmp_path), "trainable")
    network.requires_grad_(True)
    batch = network.batch(network.tokenizer.document_ids(TEXTS))
    assert torch.equal(network(batch).dense, network(batch).dense)
    (network(batch).dense[:, 0].sum() + network(batch).weights.sum()).backward()
    for layer in network.model.encoder.layer:
        assert layer.attention.self.query.weight.grad.abs().sum() > 0


def test_tokenizers_are_compared_by_what_they_do(tmp_path: Path) -> None:
    m3 = ModelTokenizer(layout.read(models.write_m3(tmp_path / "m3")))
    again = ModelTokenizer(layout.read(models.write_sentence_xlmr(tmp_path / "xlmr")))
    bert = ModelTokenizer(layout.read(models.write_sentence_bert(tmp_path / "bert")))
    assert same_tokens(m3, again)
    assert not same_tokens(m3, bert)
