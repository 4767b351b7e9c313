from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import models
import pytest
import torch
from safetensors.torch import save_file

from m3index.distill import run
from m3index.distill.options import DistillOptions
from m3index.distill.run import Distilled
from m3index.encoder.options import Device

WIDTH = 56


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """XLM-R of 6 layers with both heads, weights drawn at initializer_range 0.1."""
    from transformers import XLMRobertaModel

    shape = {"num_hidden_layers": 6, "hidden_size": WIDTH, "intermediate_size": 2 * WIDTH}
    path = models.write_m3(tmp_path_factory.mktemp("teacher"), **shape)
    vocabulary = models.unigram_tokenizer().get_vocab_size()
    config = models.xlmr_config(vocabulary, **shape, initializer_range=0.1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = XLMRobertaModel(config)
    tensors = {name: t.contiguous() for name, t in model.state_dict().items()}
    save_file(tensors, str(path / "model.safetensors"), metadata={"format": "pt"})
    torch.save(_lexical_head(model), path / "sparse_linear.pt")
    return path


def _lexical_head(model: Any) -> dict[str, torch.Tensor]:
    """A head that gives most tokens a weight, each its own, as a trained one does: blind to what all
    hidden states share, 1 on the mean."""
    ids = torch.randint(4, model.config.vocab_size, (8, 32), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        hidden = model.eval()(ids).last_hidden_state.flatten(0, 1)
    mean = hidden.mean(0)
    weight = torch.randn(WIDTH, generator=torch.Generator().manual_seed(6))
    weight -= weight @ mean / (mean @ mean) * mean
    return {"weight": weight[None] * (0.5 / (hidden @ weight).std()), "bias": torch.ones(1)}


def sentences(number: int, seed: int = 0) -> list[dict[str, Any]]:
    """Documents of 4 to 40 words, each in one of the languages of the tiny vocabulary."""
    draw = random.Random(seed)
    rows = []
    for i in range(number):
        k = draw.randrange(6)
        words = models.LINES[k].split()
        text = " ".join(draw.choice(words) for _ in range(draw.randint(4, 40)))
        rows.append({"id": str(i), "text": text, "lang": ("en", "fr", "de", "ru", "es", "zh")[k]})
    return rows


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in sentences(1500)), "utf-8")
    return path


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "corpus.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in sentences(200, seed=1)), "utf-8")
    return path


def distill(
    teacher: Path | None,
    corpus: Path,
    out: Path,
    *,
    stop: Callable[[], bool] = lambda: False,
    **changes: Any,
) -> Distilled:
    """A run of seconds: 6 -> 3 layers, float32 on the CPU."""
    options: dict[str, Any] = {
        "teacher": None if teacher is None else str(teacher),
        "corpus": [str(corpus)],
        "out": out,
        "layers": "3",
        "tokens": 64,
        "held_out": 0.1,
        "steps": 100,
        "learning_rate": 3e-3,
        "batch_tokens": 512,
        "train_precision": "fp32",
    }
    device = Device(device="cpu", precision="fp32")
    return run.distill(DistillOptions(**(options | changes)), device, stop=stop)
