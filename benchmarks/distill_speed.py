#!/usr/bin/env python3
"""Training speed at BGE-M3's real shape, 24 layers to 8, with random weights; made for a CUDA device.

    python benchmarks/distill_speed.py                     # one GPU, minutes
    python benchmarks/distill_speed.py --check             # the same logic on tiny models, on a CPU

A random model has the speed of the real one. The vocabulary is that of the tests' tokenizer: an embedding
look-up costs nothing, whatever its size. Prints training tokens/s, peak memory, the share of the device's
own bf16 matmul rate, the student's speed-up in encoding, and what 10 million texts would take.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parents[1])]

import models  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

from m3index.distill import output  # noqa: E402
from m3index.distill.checkpoint import Checkpoint  # noqa: E402
from m3index.distill.data import Tokenised  # noqa: E402
from m3index.distill.layers import spread  # noqa: E402
from m3index.distill.loop import Step, train  # noqa: E402
from m3index.distill.network import Network, keep, stack, trainable  # noqa: E402
from m3index.distill.options import RECIPES, Learning  # noqa: E402
from m3index.distill.teachers import FrozenModel, Online  # noqa: E402
from m3index.encoder import hardware, layout  # noqa: E402
from m3index.encoder.load import load  # noqa: E402

REAL = {"num_hidden_layers": 24, "hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096}
TINY = {"num_hidden_layers": 6, "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128}
TEXTS = 10_000_000


def inputs(folder: Path, number: int, limit: int) -> Tokenised:
    """Random ids of log-normal lengths: median 120 tokens, a tenth beyond 380."""
    draw = np.random.default_rng(0)
    lengths = np.clip(draw.lognormal(np.log(120), 0.9, number), 8, limit).astype(np.int64)
    draw.integers(4, 100, lengths.sum(), dtype=np.int32).tofile(folder / "ids.bin")
    np.save(folder / "ids.npy", np.concatenate([[0], lengths.cumsum()]))
    return Tokenised(folder / "ids.bin")


def layer_parameters(network: Network) -> int:
    holder, name = stack(network.model)
    return sum(p.numel() for p in getattr(holder, name).parameters())


def matmul_rate(device: torch.device, size: int) -> float:
    """FLOP/s of square bf16 products, the best of ten."""
    a = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    best = 0.0
    for _ in range(10):
        synchronise(device)
        began = time.perf_counter()
        a @ a
        synchronise(device)
        best = max(best, 2 * size**3 / (time.perf_counter() - began))
    return best


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def encoding_rate(path: Path, rows: list[np.ndarray], device: torch.device, rounds: int = 3) -> float:
    encoder = load(str(path), device=str(device))
    encoder.encode_ids(rows, lexical=True)
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        encoder.encode_ids(rows, lexical=True)
        seconds.append(time.perf_counter() - began)
    return len(rows) / statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch-tokens", type=int, default=32_768)
    args = parser.parse_args()
    device = hardware.devices("cpu" if args.check else "auto")[0]
    shape, limit, count = (TINY, 512, 3) if args.check else (REAL, 8192, 8)
    budget, steps = (2048, 6) if args.check else (args.batch_tokens, args.steps)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        teacher_layout = layout.read(models.write_m3(work / "teacher", limit=limit, **shape))
        data = inputs(work, 200 if args.check else 50_000, limit)
        network = trainable(teacher_layout)
        teacher_parameters = layer_parameters(network)
        keep(network.model, spread(shape["num_hidden_layers"], count))
        output.write(network, work / "student")
        student_parameters = layer_parameters(network)
        network.to_device(device).requires_grad_(True)
        network.model.embeddings.requires_grad_(False)
        teacher = FrozenModel(teacher_layout, device, hardware.precision("auto", device))
        rates: list[float] = []

        def note(step: Step) -> None:
            synchronise(device)
            rates.append(step["tokens_per_second"])

        learning = Learning(steps=steps, batch_tokens=budget, save_every=10**9)
        checkpoint = Checkpoint(work / "checkpoint.pt", {})
        train(
            network,
            Online(teacher, data),
            data,
            [range(len(data))],
            RECIPES["m3"],
            learning,
            checkpoint=checkpoint,
            report=note,
        )
        tokens = statistics.median(rates[len(rates) // 3 :])
        # Per token: 2 P of the teacher (forward), 6 P of the student (and backward); attention left out.
        work_done = tokens * (2 * teacher_parameters + 6 * student_parameters)
        print(f"training: {tokens:,.0f} tokens/s on {device}, {budget:,} tokens a batch")
        if device.type == "cuda":
            print(f"peak memory: {torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB")
        peak = matmul_rate(device, 512 if args.check else 8192)
        print(f"share of the bf16 matmul rate ({peak / 1e12:.1f} TFLOP/s): {work_done / peak:.0%}")
        days = TEXTS * float(data.lengths.mean()) / tokens / 86_400
        print(f"10 million texts of {data.lengths.mean():.0f} tokens: {days:.2f} days")
        rows = data.rows(range(50 if args.check else 2000))
        slow, fast = (encoding_rate(work / name, rows, device) for name in ("teacher", "student"))
        print(f"encoding: teacher {slow:,.0f} texts/s, student {fast:,.0f}: {fast / slow:.2f} times as fast")


if __name__ == "__main__":
    main()
