"""Everything about one CUDA device in one command of at most 8 minutes: correctness first, then rates.

    PYTHONPATH=. python benchmarks/gpu.py --out gpu.jsonl
    PYTHONPATH=. python benchmarks/gpu.py --only rates,profile --seconds 200
    PYTHONPATH=. python benchmarks/gpu.py --check            # every section at toy size, on a CPU

Runs from a source tree on a machine that has torch 2.10+, transformers 5, tokenizers, safetensors, pyarrow,
rich and typer; pytest is used if it is there. No network. The models have BGE-M3's real shape (24 layers; the
student its first 8) and random weights, which are as fast as real ones. Their tokenizer is small unless
--tokenizer names a `tokenizer.json`.

Each section is a process of its own and prints one JSON line when it is done. One that fails, or takes longer
than its time, prints its error with what it had found, and the next one runs.
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import json
import multiprocessing
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
if "--check" in sys.argv:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

import models  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from m3index.distill.checkpoint import Checkpoint  # noqa: E402
from m3index.distill.data import Tokenised  # noqa: E402
from m3index.distill.layers import spread  # noqa: E402
from m3index.distill.loop import Step, train  # noqa: E402
from m3index.distill.network import keep, trainable  # noqa: E402
from m3index.distill.options import RECIPES, Learning  # noqa: E402
from m3index.distill.teachers import FrozenModel, Online  # noqa: E402
from m3index.encoder import attention, backbone, hardware, layout, memory, packing  # noqa: E402
from m3index.encoder.attention import Spans  # noqa: E402
from m3index.encoder.bert import shapes  # noqa: E402
from m3index.encoder.load import load  # noqa: E402
from m3index.encoder.model import ModelEncoder  # noqa: E402

LIMIT = 8192
Note = Callable[[str, Any], None]


@dataclass(frozen=True)
class Bench:
    """What all sections share. toy: on a CPU, at a size that says nothing about speed."""

    toy: bool
    folder: Path
    tokenizer: Path | None

    @property
    def device(self) -> torch.device:
        return torch.device("cpu") if self.toy else torch.device("cuda", 0)

    @property
    def half(self) -> torch.dtype:
        return torch.float32 if self.toy else torch.float16

    @property
    def shape(self) -> dict[str, int]:
        if self.toy:
            return {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128}
        return {"hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096}

    @property
    def layers(self) -> dict[str, int]:
        return {"student": 2, "teacher": 4} if self.toy else {"student": 8, "teacher": 24}

    @property
    def pack(self) -> int:
        """The tokens of a full pack."""
        return 512 if self.toy else 65_536

    def encoder(self, name: str, precision: str = "auto", **options: Any) -> ModelEncoder:
        chosen = "fp32" if self.toy and precision == "auto" else precision
        encoder = load(str(self.folder / name), device=str(self.device), precision=chosen, **options)
        encoder.prepare()
        return encoder

    def rows(self, lengths: Sequence[int], seed: int = 0) -> list[np.ndarray]:
        vocabulary = json.loads((self.folder / "student/config.json").read_text())["vocab_size"]
        draw = np.random.default_rng(seed)
        return [
            np.array([0, *draw.integers(4, vocabulary - 2, max(0, n - 2)), 2][:n], np.int32) for n in lengths
        ]

    def flops(self, lengths: Sequence[int], layers: int) -> float:
        """Of the products in the layers, attention included."""
        width, inner = self.shape["hidden_size"], self.shape["intermediate_size"]
        return sum(n * layers * (8 * width**2 + 4 * width * inner + 4 * n * width) for n in map(int, lengths))


def spread_lengths(tokens: int, seed: int = 0) -> list[int]:
    """Log-normal: median 120 tokens, a tenth beyond 380, at most 512."""
    draw = np.random.default_rng(seed).lognormal(np.log(120), 0.9, max(4, tokens // 60))
    lengths = np.clip(draw, 6, 512).astype(int)
    return lengths[: int(np.searchsorted(np.cumsum(lengths), tokens)) + 1].tolist()


def synchronise() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def median(
    work: Callable[..., object], *inputs: Any, rounds: int = 7, warm: int = 2, **options: Any
) -> float:
    """The seconds of work(*inputs, **options)."""
    for _ in range(warm):
        work(*inputs, **options)
    seconds = []
    for _ in range(rounds):
        synchronise()
        began = time.perf_counter()
        work(*inputs, **options)
        synchronise()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def peak(bench: Bench) -> float:
    """FLOP/s of square products in half precision, which shares are of."""
    size = 256 if bench.toy else 8192
    x = torch.randn(size, size, device=bench.device, dtype=bench.half)
    return 2 * size**3 / median(torch.matmul, x, x)


@contextlib.contextmanager
def forwards(bench: Bench) -> Iterator[list[Callable[[], float]]]:
    """Times each forward pass on the device: the seconds between its first and its last kernel."""
    found: list[Callable[[], float]] = []
    plain = backbone.FusedBackbone.__call__

    def timed(self: Any, *inputs: Any) -> Any:
        if bench.toy:
            began = time.perf_counter()
            out = plain(self, *inputs)
            seconds = time.perf_counter() - began
            found.append(lambda: seconds)
            return out
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        out = plain(self, *inputs)
        end.record()
        found.append(lambda: start.elapsed_time(end) / 1e3)
        return out

    backbone.FusedBackbone.__call__ = timed
    try:
        yield found
    finally:
        backbone.FusedBackbone.__call__ = plain
        synchronise()


# -------------------------------------------------------------------- sections


def prepare(bench: Bench, note: Note) -> None:
    """Writes the models. The student is the first layers of the teacher's file."""
    note("layers", bench.layers)
    text = bench.tokenizer.read_text() if bench.tokenizer else models.unigram_tokenizer().to_str()
    pieces = json.loads(text)["model"]["vocab"]
    vocabulary = max(models.Tokenizer.from_str(text).get_vocab_size(), len(pieces))
    note("vocabulary", vocabulary)
    random_numbers = torch.Generator(device=bench.device).manual_seed(0)

    def draw(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=random_numbers, device=bench.device)

    def write(name: str, layers: int, **changes: Any) -> Path:
        folder = bench.folder / name
        folder.mkdir()
        config = models.xlmr_config(
            vocabulary, limit=LIMIT, num_hidden_layers=layers, **bench.shape, **changes
        )
        config.architectures = ["XLMRobertaModel"]
        described = config.to_dict() | {"dtype": "float16"}
        (folder / "config.json").write_text(json.dumps(described, default=str))
        (folder / "tokenizer.json").write_text(text)
        tokens = models.XLMR_TOKENS | {"model_max_length": LIMIT}
        (folder / "tokenizer_config.json").write_text(json.dumps(tokens))
        weights: dict[str, torch.Tensor] = {}
        if name != "student":
            for key, size in shapes(described).items():
                if key.endswith("LayerNorm.weight"):
                    weights[key] = torch.ones(size)
                elif len(size) == 1:
                    weights[key] = draw(*size) * 0.05
                else:
                    weights[key] = draw(*size) * (1.0 if "embeddings" in key else 1.1 / size[1] ** 0.5)
            halves = {key: value.cpu().half().contiguous() for key, value in weights.items()}
            save_file(halves, str(folder / "model.safetensors"), metadata={"format": "pt"})
        width = bench.shape["hidden_size"]
        for file, outputs in (("sparse_linear.pt", 1), ("colbert_linear.pt", width)):
            head = {"weight": draw(outputs, width).cpu() / width**0.5, "bias": torch.full((outputs,), 0.1)}
            torch.save(head, folder / file)
        return folder

    write("teacher", bench.layers["teacher"])
    student = write("student", bench.layers["student"])
    (student / "model.safetensors").symlink_to(bench.folder / "teacher/model.safetensors")
    overflowing = write("overflowing", 2, hidden_act="relu")
    file = str(overflowing / "model.safetensors")
    tensors = load_file(file)
    for part in (
        "weight",
        "bias",
    ):  # up by 2^14 between two products: beyond fp16 in the states, not in the file
        tensors[f"encoder.layer.0.intermediate.dense.{part}"] *= 2**14
    tensors["encoder.layer.0.output.dense.weight"] *= 2**-6
    save_file(tensors, file, metadata={"format": "pt"})


def environment(bench: Bench, note: Note) -> None:
    note("torch", torch.__version__)
    note("python", sys.version.split()[0])
    note("cores", os.cpu_count())
    note("commit", _commit())
    if bench.toy:
        return
    from torch.nn.attention import varlen

    note("cuda", torch.version.cuda)
    note("device", torch.cuda.get_device_name())
    note("devices", torch.cuda.device_count())
    note("capability", hardware.capability(bench.device))
    note("free GiB", round(torch.cuda.mem_get_info()[0] / 2**30, 1))
    note("bf16", hardware.computes_bf16(bench.device))
    note("varlen_attn", str(inspect.signature(varlen.varlen_attn)))
    runs = attention._varlen_runs(bench.device, torch.float16, 64)
    path = attention.path(hardware.capability(bench.device), torch.float16, 64)
    note("attention", path if runs else "runs")


def _commit() -> str | None:
    done = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or None


def with_path(*folders: Path) -> dict[str, str]:
    """The environment of a process that finds modules in these folders first."""
    before = filter(None, [os.environ.get("PYTHONPATH")])
    return os.environ | {"PYTHONPATH": os.pathsep.join([*map(str, folders), *before])}


def tests(bench: Bench, note: Note) -> None:
    """`make test-gpu`, without what the settings of the project need beyond pytest itself."""
    import importlib.util

    if importlib.util.find_spec("pytest") is None:
        note("skipped", "pytest is not installed")
        return
    files = ["tests/encoder/test_gpu.py", "tests/encoder/test_gpu_training.py"]
    command = [
        sys.executable, "-m", "pytest", "-c", os.devnull, "--rootdir", str(ROOT), "--import-mode=importlib",
        "-p", "no:cacheprovider", "-q", "-rs", "--tb=short", "-m", "gpu", *files,
    ]  # fmt: skip
    settings = with_path(ROOT, ROOT / "tests")
    if bench.toy:
        settings["CUDA_VISIBLE_DEVICES"] = ""
    done = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, check=False)
    note("returncode", done.returncode)
    note("output", done.stdout.strip().splitlines()[-15:] + done.stderr.strip().splitlines()[-3:])


def precision(bench: Bench, note: Note) -> None:
    """Half precision beside fp32 on the device, at lengths of 2 to 8,192, and fp32 beside the CPU's."""
    lengths = [8, 2, 3, 7, 33, 128, 500, 512, 512, *([] if bench.toy else [2048, 8192])]
    rows = bench.rows(lengths, seed=5)
    for name in bench.layers:
        exact = bench.encoder(name, "fp32")
        expected = exact.encode_ids(rows, lexical=True, multi_vector=True)
        assert expected.lexical is not None
        assert expected.multi_vector is not None
        exact.close()
        if name == "student":
            on_cpu = load(str(bench.folder / name), device="cpu", precision="fp32")
            found = on_cpu.encode_ids(rows[:6], lexical=True).dense
            note("fp32 to the CPU, least cosine", float((found * expected.dense[:6]).sum(1).min()))
        for half in ("fp16", "bf16"):
            if half == "bf16" and not bench.toy and not hardware.computes_bf16(bench.device):
                note(f"{name} bf16", "not native on this card")
                continue
            encoder = bench.encoder(name, half)
            got = encoder.encode_ids(rows, lexical=True, multi_vector=True)
            assert got.lexical is not None
            assert got.multi_vector is not None
            alone = np.stack([encoder.encode_ids([row], lexical=True).dense[0] for row in rows])
            heaviest = [
                abs(got.lexical.row(i).values.max(initial=0) - expected.lexical.row(i).values.max(initial=0))
                for i in range(len(rows))
            ]
            pairs = zip(got.multi_vector, expected.multi_vector, strict=True)
            note(
                f"{name} {half}",
                {
                    "least cosine to fp32": float((got.dense * expected.dense).sum(1).min()),
                    "least cosine of multi-vectors": min(float((a * b).sum(1).min()) for a, b in pairs),
                    "heaviest token, greatest difference": float(max(heaviest)),
                    "alone and in a batch, greatest difference": float(abs(alone - got.dense).max()),
                },
            )
            encoder.close()


def faults(bench: Bench, note: Note) -> None:
    """Memory that really does not suffice, and states that really overflow."""
    rows = bench.rows(spread_lengths(bench.pack), seed=7)
    encoder = bench.encoder("student")
    expected = encoder.encode_ids(rows, lexical=True).dense
    if not bench.toy:
        released: list[float] = []
        plain = memory.release

        def release() -> None:
            plain()
            released.append(torch.cuda.memory_allocated() / 2**20)

        memory.release = release
        torch.cuda.empty_cache()
        used, whole = torch.cuda.memory_allocated(), torch.cuda.mem_get_info()[1]
        for room in (1.0, 0.3):
            released.clear()
            torch.cuda.set_per_process_memory_fraction(min(1.0, (used + room * 2**30) / whole))
            try:
                got = encoder.encode_ids(rows, lexical=True).dense
                difference = float(abs(got - expected).max())
                note(f"{room} GiB free", {"failures": len(released), "greatest difference": difference})
            except Exception as e:
                note(f"{room} GiB free", f"{type(e).__name__}: {e}"[:300])
            note(f"{room} GiB free, MiB held after each failure", [round(x, 1) for x in released[:8]])
            note(f"{room} GiB free, MiB held by the model", round(used / 2**20, 1))
        torch.cuda.set_per_process_memory_fraction(1.0)
        memory.release = plain
    encoder.close()
    exact = bench.encoder("overflowing", "fp32").encode_ids(rows[:50], lexical=True).dense
    narrow = bench.encoder("overflowing", "fp16")
    began = time.perf_counter()
    got = narrow.encode_ids(rows[:50], lexical=True).dense
    note("overflow, seconds with the wider weights", round(time.perf_counter() - began, 2))
    note("overflow, least cosine to fp32", float((got * exact).sum(1).min()))


def rates(bench: Bench, note: Note) -> None:
    """`encode_ids` by lengths and budget, with the share of the measured rate of square products."""
    limit = peak(bench)
    note("square products, TFLOP/s", round(limit / 1e12, 1))
    for name, packs in (("student", 12), ("teacher", 5)):
        for kind in ("128", "512", "2048", "spread"):
            n = min(int(kind), bench.pack) if kind.isdigit() else 0
            tokens = bench.pack * (2 if bench.toy else packs)
            lengths = [n] * (tokens // n) if n else spread_lengths(tokens)
            rows = bench.rows(lengths)
            wide = name == "student" and kind == "spread" and not bench.toy
            for budget in (16_384, 65_536, 131_072) if wide else ("auto",):
                encoder = bench.encoder(name, batch_tokens=budget)
                encoder.encode_ids(rows[: max(1, len(rows) // 4)], lexical=True)
                with forwards(bench) as log:
                    began = time.perf_counter()
                    encoder.encode_ids(rows, lexical=True)
                    seconds = time.perf_counter() - began
                busy, work = sum(each() for each in log), bench.flops(lengths, bench.layers[name])
                found = {
                    "ktokens/s": round(sum(lengths) / seconds / 1e3, 1),
                    "share of square products": round(work / seconds / limit, 3),
                    "forward passes": len(log),
                    "share of time in forward passes": round(busy / seconds, 3),
                    "share of square products in forward passes": round(work / busy / limit, 3),
                }
                if not bench.toy:
                    found["peak GiB"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
                note(f"{name} {kind} budget {budget}", found)
                encoder.close()
        encoder = bench.encoder(name)
        some = bench.rows(spread_lengths(bench.pack))
        seconds = median(encoder.encode_ids, some, rounds=3, warm=1, lexical=True, multi_vector=True)
        note(f"{name} spread with multi-vectors, ktokens/s", round(sum(map(len, some)) / seconds / 1e3, 1))
        encoder.close()


def queries(bench: Bench, note: Note) -> None:
    """One query at a time, in milliseconds."""
    for name in bench.layers:
        encoder = bench.encoder(name)
        seconds = median(encoder.encode_ids, bench.rows([16]), rounds=30, warm=5, lexical=True)
        note(f"{name}, 16 tokens", round(seconds * 1e3, 3))
        text = [" ".join(models.LINES[0].split()[:8])]
        seconds = median(encoder.encode_queries, text, rounds=30, warm=5)
        note(f"{name}, a text of 8 words, tokenised too", round(seconds * 1e3, 3))
        encoder.close()


def profile(bench: Bench, note: Note) -> None:
    """The time of each kernel in one forward pass."""
    from torch.profiler import ProfilerActivity, profile

    on_device = torch.autograd.DeviceType.CPU if bench.toy else torch.autograd.DeviceType.CUDA
    kinds = [ProfilerActivity.CPU, *([] if bench.toy else [ProfilerActivity.CUDA])]
    for name, tokens in (("student", bench.pack), ("student", bench.pack // 32), ("teacher", bench.pack)):
        found = layout.read(bench.folder / name)
        precision: hardware.Precision = "fp32" if bench.toy else "fp16"
        forward = backbone.load(found, precision, bench.device)
        inputs = on_the_device(bench, bench.rows(spread_lengths(tokens)))
        with torch.inference_mode():
            seconds = median(forward, *inputs, rounds=5)
            synchronise()
            began = time.perf_counter()
            forward(*inputs)
            launching = time.perf_counter() - began
            synchronise()
            with profile(activities=kinds) as recorded:
                forward(*inputs)
                synchronise()
        kernels: dict[str, list[float]] = defaultdict(list)
        for event in recorded.events() or ():
            if event.device_type == on_device:
                kernels[event.name[:80]].append(event.time_range.elapsed_us())
        top = sorted(((sum(us), len(us), kernel) for kernel, us in kernels.items()), reverse=True)[:10]
        note(
            f"{name}, {len(inputs[0])} tokens",
            {
                "milliseconds": round(seconds * 1e3, 2),
                "of the host, launching": round(launching * 1e3, 2),
                "kernels": sum(map(len, kernels.values())),
                "of kernels": round(sum(map(sum, kernels.values())) / 1e3, 2),
                "top": [[round(us / 1e3, 2), times, kernel] for us, times, kernel in top],
            },
        )


def on_the_device(bench: Bench, rows: Sequence[np.ndarray]) -> tuple[Any, Any, None, Spans]:
    pack = packing.pack(rows, 1)
    ids, positions, bounds = (
        torch.from_numpy(x).to(bench.device) for x in (pack.ids, pack.positions, pack.bounds)
    )
    return ids, positions, None, Spans.of(pack, bounds)


def parts(bench: Bench, note: Note) -> None:
    """The rates of the parts of a layer at the tokens of a full pack."""
    width, inner, heads = (
        bench.shape["hidden_size"], bench.shape["intermediate_size"], bench.shape["num_attention_heads"],
    )  # fmt: skip
    tokens, device, half = bench.pack, bench.device, bench.half
    x = {n: torch.randn(tokens, n, device=device, dtype=half) for n in (width, inner)}
    for name, inputs, outputs in (
        ("qkv", width, 3 * width), ("out", width, width), ("up", width, inner), ("down", inner, width),
    ):  # fmt: skip
        weight = torch.randn(outputs, inputs, device=device, dtype=half)
        bias = torch.randn(outputs, device=device, dtype=half)
        seconds = median(F.linear, x[inputs], weight, bias)
        note(f"linear {name}, TFLOP/s", round(2 * tokens * inputs * outputs / seconds / 1e12, 1))
    size = x[width].element_size()
    one = torch.ones(width, device=device, dtype=half)
    for name, moved, work in (
        ("gelu", 2 * inner, partial(F.gelu, x[inner])),
        ("add", 3 * width, partial(torch.add, x[width], x[width])),
        ("layer norm", 2 * width, partial(F.layer_norm, x[width], (width,), one, one)),
    ):
        note(f"{name}, GB/s", round(tokens * moved * size / median(work) / 1e9, 1))
    qkv = torch.randn(tokens, 3, heads, width // heads, device=device, dtype=half).unbind(1)
    for n in (64, 128, 512, 2048, 8192):
        if n > tokens:
            continue
        bounds = torch.arange(0, tokens + 1, n, dtype=torch.int32, device=device)
        spans = Spans(((0, tokens // n, n),), bounds, n)
        with torch.inference_mode():
            seconds = median(attention.attend, *qkv, spans, rounds=5)
        note(f"attention at {n}, TFLOP/s", round(4 * tokens * n * width / seconds / 1e12, 1))


def pipeline(bench: Bench, note: Note) -> None:
    """`m3index shards encode` as a whole: reading, cutting, encoding, Parquet, with and without workers."""
    texts = 40 if bench.toy else 30_000
    corpus, draw = bench.folder / "corpus.jsonl", random.Random(0)
    words = [word for line in models.LINES for word in line.split()]
    with corpus.open("w") as file:
        for i in range(texts):
            count = max(3, min(400, round(draw.lognormvariate(np.log(90), 0.9))))
            text = " ".join(draw.choices(words, k=count))
            file.write(json.dumps({"id": f"d{i}", "text": text}) + "\n")
    command = [sys.executable, "-m", "m3index", "shards", "encode"]
    settings = with_path(ROOT)
    numbers = ("0", "2" if bench.toy else str(max(2, (os.cpu_count() or 4) - 4)))
    for name in ("student",) if bench.toy else ("student", "teacher"):
        for number in numbers:
            workers = ["--workers", number]
            out = bench.folder / "shards"
            began = time.perf_counter()
            done = subprocess.run(
                [*command, str(corpus), "--out", str(out), "--encoder", str(bench.folder / name),
                 "--device", str(bench.device), "--json", *workers],
                cwd=ROOT, env=settings, capture_output=True, text=True, check=False,
            )  # fmt: skip
            seconds = time.perf_counter() - began
            shutil.rmtree(out, ignore_errors=True)
            label = " ".join([name, *workers])
            if done.returncode:
                note(label, {"exit": done.returncode, "error": done.stderr.strip()[-500:]})
                continue
            summary = json.loads(done.stdout.strip().splitlines()[-1])
            rate = summary["tokens"] / summary["seconds"] / 1e3
            kept = {k: summary[k] for k in ("passages", "tokens", "seconds")}
            note(label, {**kept, "ktokens/s": round(rate, 1), "with the start, seconds": round(seconds, 1)})


def compiled(bench: Bench, note: Note) -> None:
    """The token-wise half of a layer and the whole student: eager, compiled, and as a CUDA graph."""
    found = layout.read(bench.folder / "student")
    forward = backbone.load(found, "fp32" if bench.toy else "fp16", bench.device)
    assert isinstance(forward, backbone.FusedBackbone)
    width, inner = bench.shape["hidden_size"], bench.shape["intermediate_size"]

    def draw(*size: int) -> torch.Tensor:
        return torch.randn(size, device=bench.device, dtype=bench.half) / (size[-1] ** 0.5)

    out, up, down = draw(width, width), draw(inner, width), draw(width, inner)
    bias, inner_bias = draw(width), draw(inner)

    def rest(mixed: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        x = F.layer_norm(F.linear(mixed, out, bias) + x, (width,), bias, bias, 1e-5)
        middle = F.linear(F.gelu(F.linear(x, up, inner_bias)), down, bias)
        return F.layer_norm(middle + x, (width,), bias, bias, 1e-5)

    with torch.inference_mode():
        for tokens in (bench.pack, bench.pack // 16):
            seconds = median(rest, draw(tokens, width), draw(tokens, width))
            note(f"half a layer, {tokens} tokens, eager, ms", round(seconds * 1e3, 3))
        for tokens in (bench.pack, bench.pack // 32, 64):
            inputs = on_the_device(bench, bench.rows([min(128, tokens // 4)] * max(4, tokens // 128)))
            label = f"student, {len(inputs[0])} tokens"
            note(f"{label}, eager, ms", round(median(forward, *inputs) * 1e3, 3))
            if bench.toy:
                continue
            with attempted(note, f"{label}, CUDA graph"):
                graph, side = torch.cuda.CUDAGraph(), torch.cuda.Stream()
                side.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(side):
                    forward(*inputs)
                torch.cuda.current_stream().wait_stream(side)
                with torch.cuda.graph(graph):
                    forward(*inputs)
                note(f"{label}, CUDA graph, ms", round(median(graph.replay) * 1e3, 3))
                del graph
        if bench.toy:
            return
        fused = torch.compile(rest, dynamic=True)
        for tokens in (bench.pack, bench.pack // 16):
            label = f"half a layer, {tokens} tokens"
            with attempted(note, f"{label}, compiled"):
                mixed, x = draw(tokens, width), draw(tokens, width)
                began = time.perf_counter()
                fused(mixed, x)
                synchronise()
                note(f"{label}, compiling, s", round(time.perf_counter() - began, 1))
                note(f"{label}, compiled, ms", round(median(fused, mixed, x) * 1e3, 3))


@contextlib.contextmanager
def attempted(note: Note, label: str) -> Iterator[None]:
    """What need not work everywhere, such as a compiler: its error is noted, and the section goes on."""
    try:
        yield
    except Exception as e:
        note(f"{label}, failed", f"{type(e).__name__}: {e}"[:300])


def distill(bench: Bench, note: Note) -> None:
    """Training steps of a student by its teacher, and what they wait for."""
    limit, steps = peak(bench), 3 if bench.toy else 30
    work = bench.folder / "distill"
    work.mkdir()
    lengths = spread_lengths(bench.pack * (2 if bench.toy else 20))
    np.concatenate(bench.rows(lengths)).tofile(work / "ids.bin")
    np.save(work / "ids.npy", np.cumsum([0, *lengths]))
    inputs = Tokenised(work / "ids.bin")
    found = layout.read(bench.folder / "teacher")
    network = trainable(found)
    keep(network.model, spread(bench.layers["teacher"], bench.layers["student"]))
    network.to_device(bench.device).requires_grad_(True)
    network.model.embeddings.requires_grad_(False)
    teacher = FrozenModel(found, bench.device, hardware.precision("auto", bench.device))
    reported: list[Step] = []
    roomy = not bench.toy and torch.cuda.mem_get_info()[1] > 40 * 2**30
    budget = 512 if bench.toy else 32_768 if roomy else 8192
    learning = Learning(steps=steps, batch_tokens=budget, save_every=10**9)
    with warnings.catch_warnings(record=True) as waits:
        warnings.simplefilter("always")
        if not bench.toy:
            torch.cuda.set_sync_debug_mode("warn")
        train(
            network, Online(teacher, inputs), inputs, [range(len(inputs))], RECIPES["m3"], learning,
            checkpoint=Checkpoint(work / "checkpoint.pt", {}), report=reported.append,
        )  # fmt: skip
        if not bench.toy:
            torch.cuda.set_sync_debug_mode("default")
    rate = statistics.median(step["tokens_per_second"] for step in reported[len(reported) // 3 :])
    layers = bench.layers["teacher"] + 3 * bench.layers["student"]  # a backward pass is two forward passes
    share = rate * bench.flops(lengths, layers) / sum(lengths) / limit
    note("ktokens/s", round(rate / 1e3, 1))
    note("share of square products", round(share, 3))
    note("loss, first and last", [round(reported[i]["loss"], 4) for i in (0, -1)])
    if not bench.toy:
        note("peak GiB", round(torch.cuda.max_memory_allocated() / 2**30, 2))
        places = [f"{Path(w.filename).name}:{w.lineno}" for w in waits if "synchroniz" in str(w.message)]
        note("waits in all steps", {place: places.count(place) for place in sorted(set(places))})
        note("steps", steps)


# Each with the most seconds that it may take.
SECTIONS: dict[str, tuple[Callable[[Bench, Note], None], int]] = {
    "prepare": (prepare, 60),
    "environment": (environment, 20),
    "tests": (tests, 110),
    "precision": (precision, 60),
    "faults": (faults, 40),
    "rates": (rates, 100),
    "queries": (queries, 25),
    "pipeline": (pipeline, 90),
    "profile": (profile, 40),
    "distill": (distill, 60),
    "parts": (parts, 25),
    "compiled": (compiled, 60),
}


def child(run: Callable[[Bench, Note], None], bench: Bench, said: Connection) -> None:
    """A section in its own process: sends (name, value) for what it finds, then None."""
    try:
        run(bench, lambda name, value: said.send((name, value)))
    except BaseException as e:
        said.send(("error", f"{type(e).__name__}: {e}"[:1000]))
        said.send(("where", traceback.format_exc().strip().splitlines()[-7:-1]))
    said.send(None)
    said.close()


def run(name: str, bench: Bench, seconds: float) -> dict[str, Any]:
    """What a section found, with its error if it failed or was stopped after `seconds`."""
    found: dict[str, Any] = {}
    here, there = multiprocessing.Pipe(duplex=False)
    # Forked, so that torch is imported once: this process never uses a device itself.
    process = multiprocessing.get_context("fork").Process(
        target=child, args=(SECTIONS[name][0], bench, there)
    )
    began = time.monotonic()
    process.start()
    there.close()
    try:
        while here.poll(max(0.0, began + seconds - time.monotonic())):
            message = here.recv()
            if message is None:
                break
            found[message[0]] = message[1]
        else:
            found["error"] = f"stopped after {seconds:.0f} s"
    except EOFError:
        process.join()
        found["error"] = f"the process ended with {process.exitcode}"
    process.join(5)
    if process.is_alive():
        process.kill()
        process.join()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--check", action="store_true", help="toy sizes on a CPU")
    parser.add_argument("--only", help="sections, separated by commas: " + ", ".join(SECTIONS))
    parser.add_argument("--seconds", type=float, default=470, help="of all sections together")
    parser.add_argument("--tokenizer", type=Path, help="a tokenizer.json of the XLM-R kind")
    parser.add_argument("--out", type=Path, help="a file to write the lines to as well")
    args = parser.parse_args()
    wanted = args.only.split(",") if args.only else list(SECTIONS)
    if unknown := set(wanted) - set(SECTIONS):
        parser.error(f"no section {', '.join(sorted(unknown))}")
    if args.check:
        args.seconds = 3600
    began, failed = time.monotonic(), 0
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(args.check, Path(folder), args.tokenizer)
        for name in SECTIONS:
            if name not in wanted and name != "prepare":
                continue
            start = time.monotonic()
            left = args.seconds - (start - began)
            most = left if bench.toy else min(left, SECTIONS[name][1])
            found = run(name, bench, most) if left > 2 else {"error": "no time left"}
            failed += "error" in found
            line = {"section": name, "took": round(time.monotonic() - start, 1), **found}
            print(json.dumps(line, default=str, ensure_ascii=False), flush=True)
            if args.out:
                with args.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line, default=str, ensure_ascii=False) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
