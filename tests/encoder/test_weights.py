"""Weights read straight from their files: the same as transformers', whatever the files call them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import models
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from encoder import reference
from m3index.encoder import backbone, layout
from m3index.encoder.bert import shapes
from m3index.encoder.load import load
from m3index.errors import MismatchError

TEXTS = ["the quick brown fox", "", "le renard brun saute", "a " * 40]
Tensors = dict[str, torch.Tensor]


def prefixed(tensors: Tensors) -> Tensors:
    """As a checkpoint with a task's head has them."""
    return {f"roberta.{name}": t for name, t in tensors.items()} | {
        "classifier.dense.weight": torch.ones(2, 2)
    }


def of_tensorflow(tensors: Tensors) -> Tensors:
    """As the first BERT checkpoints were converted."""
    renamed = (("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta"))
    return {name.replace(*renamed[0]).replace(*renamed[1]): t for name, t in tensors.items()}


@pytest.fixture
def never_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("transformers' model was made")

    monkeypatch.setattr(backbone, "load_model", refuse)


@pytest.mark.usefixtures("never_transformers")
@pytest.mark.parametrize("write", [models.write_sentence_bert, models.write_m3])
@pytest.mark.parametrize("names", [dict, prefixed, of_tensorflow])
def test_whatever_the_files_call_them(
    tmp_path: Path, write: Callable[[Path], Path], names: Callable[[Tensors], Tensors]
) -> None:
    path = write(tmp_path)
    expected = reference.encode(path, TEXTS)
    file = str(path / "model.safetensors")
    save_file(names(load_file(file)), file, metadata={"format": "pt"})
    got = load(str(path), precision="fp32").encode_documents(TEXTS)
    np.testing.assert_allclose(got.dense, expected.dense, atol=1e-5)


@pytest.mark.usefixtures("never_transformers")
def test_files_in_parts(tmp_path: Path) -> None:
    path = models.write_sentence_bert(tmp_path)
    expected = reference.encode(path, TEXTS)
    tensors = load_file(str(path / "model.safetensors"))
    (path / "model.safetensors").unlink()
    where: dict[str, str] = {}
    for part, names in enumerate((list(tensors)[::2], list(tensors)[1::2]), 1):
        file = f"model-0000{part}-of-00002.safetensors"
        save_file({name: tensors[name] for name in names}, str(path / file), metadata={"format": "pt"})
        where |= dict.fromkeys(names, file)
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    got = load(str(path), precision="fp32").encode_documents(TEXTS)
    np.testing.assert_allclose(got.dense, expected.dense, atol=1e-5)


@pytest.mark.parametrize("write", [models.write_sentence_bert, models.write_m3])
def test_the_shapes_are_those_of_transformers_model(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    path = write(tmp_path)
    config: Mapping[str, object] = layout.read(path).config
    stored = {name: tuple(t.shape) for name, t in load_file(str(path / "model.safetensors")).items()}
    assert shapes(config) == {n: s for n, s in stored.items() if not n.startswith("pooler.")}


@pytest.mark.parametrize(
    ("write", "unlike"),
    [
        (models.write_sentence_mistral, {}),
        (models.write_sentence_bert, {"position_embedding_type": "relative_key"}),
        (models.write_sentence_bert, {"is_decoder": True}),
    ],
)
def test_other_models_are_made_by_transformers(
    tmp_path: Path, write: Callable[[Path], Path], unlike: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path)
    config = json.loads((path / "config.json").read_text()) | unlike
    (path / "config.json").write_text(json.dumps(config))
    made: list[object] = []

    def stop(*args: object, **_: object) -> None:
        made.append(args)
        raise MismatchError("seen")

    monkeypatch.setattr(backbone, "load_model", stop)
    with pytest.raises(MismatchError, match="seen"):
        load(str(path)).encode_documents(TEXTS)
    assert made


@pytest.mark.parametrize("left", [0, 4, 100, 0.5, -1])
def test_a_file_that_is_none(tmp_path: Path, left: float) -> None:
    path = models.write_sentence_bert(tmp_path)
    whole = (path / "model.safetensors").read_bytes()
    end = int(len(whole) * left) if isinstance(left, float) else left
    (path / "model.safetensors").write_bytes(whole[:end])
    with pytest.raises(MismatchError, match=r"model\.safetensors|its weights \("):
        load(str(path)).encode_documents(TEXTS)


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_the_vectors_do_not_depend_on_whether_the_weights_are_reordered(
    m3: Path, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit: neither on the first texts of a process nor on those that come later."""
    texts = [*TEXTS, "fox " * 60, "a"]

    def encode() -> list[np.ndarray]:
        encoder = load(str(m3), precision=precision)
        return [encoder.encode_documents([text]).dense for text in texts * 2]

    expected = encode()
    monkeypatch.setattr(backbone, "_UNPACKED_TOKENS", 0)
    for mine, theirs in zip(encode(), expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    monkeypatch.setattr(backbone, "_UNPACKED_TOKENS", 20)
    for mine, theirs in zip(encode(), expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_weights_are_reordered_at_once_where_that_could_be_seen(
    m3: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for agree in (True, False):
        monkeypatch.setattr(backbone, "_plain_weights_agree", lambda *_, agree=agree: agree)
        made = backbone.load(layout.read(m3), "bf16", torch.device("cpu"))
        assert isinstance(made, backbone.FusedBackbone)
        assert (made._unpacked_tokens > 0) is agree


def test_transformers_is_not_imported(tmp_path: Path) -> None:
    """Half of the time of a search from a shell."""
    path = models.write_m3(tmp_path)
    code = (
        "import sys; from m3index.encoder.load import load\n"
        f"load({str(path)!r}).encode_queries(['a fox'], lexical=True)\n"
        "print([m for m in ('transformers', 'torch._dynamo', 'sympy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
