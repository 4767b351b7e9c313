"""What the encoder must give, written a second time: padded batches of transformers, and numpy.

Nothing of m3index.encoder is used here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoModel

LEFT_PADDED = ("mistral", "llama", "qwen2")


@dataclass
class Reference:
    dense: np.ndarray
    lexical: list[dict[int, float]] | None
    multi_vector: list[np.ndarray] | None


@torch.no_grad()
def encode(directory: Path, texts: Sequence[str], prompt: str = "", dim: int | None = None) -> Reference:
    """All texts in one padded batch, eager attention, float32."""
    config = json.loads((directory / "config.json").read_text())
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    rows = [tokenizer.encode(prompt + t).ids for t in texts]
    left = config["model_type"] in LEFT_PADDED
    ids, mask = _pad(rows, config.get("pad_token_id") or 0, left)
    model = AutoModel.from_pretrained(str(directory), attn_implementation="eager", dtype=torch.float32).eval()
    extra = {}
    if left:
        extra["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
    hidden = model(input_ids=ids, attention_mask=mask, **extra).last_hidden_state.numpy()
    kept = [hidden[i][mask[i].bool().numpy()] for i in range(len(texts))]
    return Reference(
        dense=_dense(directory, kept, dim),
        lexical=_lexical(directory, rows, kept),
        multi_vector=_multi(directory, kept),
    )


def _pad(rows: Sequence[list[int]], pad: int, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(len(r) for r in rows)
    ids = torch.full((len(rows), width), pad)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        at = slice(width - len(row), width) if left else slice(0, len(row))
        ids[i, at] = torch.tensor(row)
        mask[i, at] = 1
    return ids, mask


def _dense(directory: Path, hidden: list[np.ndarray], dim: int | None) -> np.ndarray:
    path = directory / "1_Pooling/config.json"
    config = json.loads(path.read_text()) if path.is_file() else {"pooling_mode_cls_token": True}
    out = []
    for h in hidden:
        position = np.arange(1, len(h) + 1)[:, None]
        modes = {
            "cls_token": h[0],
            "max_tokens": h.max(0),
            "mean_tokens": h.mean(0),
            "mean_sqrt_len_tokens": h.sum(0) / np.sqrt(len(h)),
            "weightedmean_tokens": (h * position).sum(0) / position.sum(),
            "lasttoken": h[-1],
        }
        out.append(np.concatenate([v for k, v in modes.items() if config.get(f"pooling_mode_{k}")]))
    pooled = np.stack(out)
    if (directory / "2_Dense").is_dir():
        w = load_file(str(directory / "2_Dense/model.safetensors"))
        pooled = np.tanh(pooled @ w["linear.weight"].numpy().T + w["linear.bias"].numpy())
    pooled = pooled[:, :dim]
    return pooled / np.linalg.norm(pooled, axis=1, keepdims=True)


def _lexical(
    directory: Path, rows: Sequence[list[int]], hidden: list[np.ndarray]
) -> list[dict[int, float]] | None:
    path = directory / "sparse_linear.pt"
    if not path.is_file():
        return None
    head = {k: v.numpy() for k, v in torch.load(path, weights_only=True).items()}
    out = []
    for row, h in zip(rows, hidden, strict=True):
        best: dict[int, float] = {}
        for token, weight in zip(row, h @ head["weight"][0] + head["bias"][0], strict=True):
            if token not in (0, 1, 2, 3) and weight > 0:
                best[token] = max(best.get(token, 0.0), float(weight))
        out.append(best)
    return out


def _multi(directory: Path, hidden: list[np.ndarray]) -> list[np.ndarray] | None:
    path = directory / "colbert_linear.pt"
    if not path.is_file():
        return None
    head = {k: v.numpy() for k, v in torch.load(path, weights_only=True).items()}
    vectors = [h[1:] @ head["weight"].T + head["bias"] for h in hidden]
    return [v / np.linalg.norm(v, axis=1, keepdims=True) for v in vectors]
