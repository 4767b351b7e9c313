"""Encoding speed and accuracy beside what people use instead, at real shapes with random weights.

    make bench-encode
    python benchmarks/encode.py --shape teacher --texts 32 --rounds 3
    python benchmarks/encode.py --shape teacher --texts 24 --int8 --flag-batch --st-batch
    python benchmarks/encode.py --shape student --lengths 512 --device cuda --texts 2000
    python benchmarks/encode.py --memory
    python benchmarks/encode.py --against OTHER_TREE --precision fp32 --flag-batch --st-batch --onnx-batch

All are given the same texts, in turn, in one process; the medians are printed, and our ratio to each. On a
CPU each has one thread, and its CPU seconds are what counts: they are those of a clock on a machine that does
nothing else. A random model has the speed of the real one. Beside each speed stands the accuracy of its
dense vectors on 48 of the texts, compared with ours in fp32: the least cosine, and the share of each text's
ten nearest among the others that stays the same. `make bench-encode` installs the peers in an environment
of their own (benchmarks/peers.txt); a peer that is not installed is left out. --against compares with
another source tree of m3index, in a process of its own, and says whether the vectors are equal bit for bit.
"""

from __future__ import annotations

import argparse
import atexit
import json
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TQDM_DISABLE", "1")
sys.path[:0] = [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parents[1])]

import models  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

LAYERS = {"teacher": 24, "student": 8}
WIDTH, HEADS, INNER, LIMIT = 1024, 16, 4096, 8192
MEDIAN, SPREAD, LONGEST = 120, 0.9, 2000
COMPARED = 48  # of the texts, the shortest

Encode = Callable[[list[str]], np.ndarray]


@dataclass
class Way:
    """One way to encode, and the seconds that it took in each round."""

    name: str
    encode: Encode
    seconds: list[float]
    clock: Callable[[], float] | None = None


def main() -> None:
    args = arguments()
    torch.set_num_threads(1 if args.device == "cpu" else torch.get_num_threads())
    if args.memory_budget:
        memory_of(args)
    elif args.memory:
        memory(args)
    else:
        speed(args)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=LAYERS, default="student")
    parser.add_argument("--layers", type=int, help="instead of the shape's own depth")
    parser.add_argument("--texts", type=int, default=32)
    parser.add_argument("--window", type=int, default=64, help="texts of one call; 0: all at once")
    parser.add_argument("--lengths", default="lognormal", help="lognormal, or tokens of every text")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--precision", default="auto", help="ours: auto, fp32, bf16, fp16")
    parser.add_argument(
        "--against", type=Path, metavar="TREE", help="a source tree of m3index to compare with"
    )
    parser.add_argument("--int8", action="store_true", help="ours in int8 as well (CPU)")
    parser.add_argument(
        "--flag-batch", type=int, nargs="*", default=[256], help="FlagEmbedding's batch sizes"
    )
    parser.add_argument("--st-batch", type=int, nargs="*", default=[8], help="sentence-transformers'")
    parser.add_argument("--onnx-batch", type=int, nargs="*", default=[8], help="onnxruntime's")
    parser.add_argument("--directory", type=Path, help="keep the random model here and use it again")
    parser.add_argument("--memory", action="store_true", help="peak memory at 8,192 tokens and 4 budgets")
    parser.add_argument("--memory-budget", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


# -------------------------------------------------------------------- speed


def speed(args: argparse.Namespace) -> None:
    layers = args.layers or LAYERS[args.shape]
    lengths = text_lengths(args.lengths, args.texts)
    texts = [text_of(n, i) for i, n in enumerate(lengths)]
    with tempfile.TemporaryDirectory() as temporary:
        directory = random_model(args.directory or Path(temporary), layers)
        clock = clock_for(args.device)
        ways = [ours(directory, args), *peers(directory, args)]
        if args.int8:
            ways.insert(1, ours_in_int8(directory, args, texts))
        if args.against:
            ways.insert(1, other := of_another_tree(directory, args))
            same = np.array_equal(ways[0].encode(texts), other.encode(texts))
            print(f"# bit for bit the vectors of the other tree: {'yes' if same else 'no'}", flush=True)
        compare(directory, args, texts, ways)
        window = args.window or len(texts)
        for number in range(args.rounds):
            for way in ways:
                now = way.clock or clock
                start, began = now(), time.perf_counter()
                for i in range(0, len(texts), window):
                    way.encode(texts[i : i + window])
                way.seconds.append(now() - start)
                wall = time.perf_counter() - began
                print(
                    f"# round {number + 1}: {way.name} {way.seconds[-1]:.1f} s ({wall:.1f} s of wall)",
                    flush=True,
                )
        report(args, layers, lengths, ways)


def compare(directory: Path, args: argparse.Namespace, texts: list[str], ways: list[Way]) -> None:
    """Says how near each way's vectors are to ours in fp32."""
    from m3index.encoder.load import load

    texts = sorted(texts, key=len)[:COMPARED]
    exact = load(str(directory), device=args.device, precision="fp32").encode_documents(texts).dense
    nearest = neighbours(exact)
    for way in ways:
        vectors = np.asarray(way.encode(texts), np.float32)
        cosine = float((exact * vectors).sum(1).min())
        same = np.mean([len(a & b) / len(a) for a, b in zip(nearest, neighbours(vectors), strict=True)])
        print(f"# {way.name}: least cosine to fp32 {cosine:.5f}, same neighbours {same:.1%}", flush=True)


def neighbours(vectors: np.ndarray) -> list[set[int]]:
    """The ten nearest of each vector among the others."""
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -np.inf)
    return [set(row[:10].tolist()) for row in np.argsort(-scores, axis=1, kind="stable")]


def clock_for(device: str) -> Callable[[], float]:
    return time.process_time if device == "cpu" else time.perf_counter


def text_lengths(kind: str, count: int) -> list[int]:
    if kind != "lognormal":
        return [int(kind)] * count
    drawn = np.exp(np.log(MEDIAN) + SPREAD * np.random.default_rng(0).standard_normal(count))
    return [int(n) for n in np.clip(drawn, 6, LONGEST)]


def text_of(tokens: int, seed: int) -> str:
    """So many tokens for the tokenizer of tests/models.py, special tokens counted."""
    words = sorted({w for line in models.LINES[:7] for w in line.split() if len(w) > 1})
    return " ".join(np.random.default_rng(seed).choice(words, tokens - 2))


def random_model(directory: Path, layers: int) -> Path:
    if not (directory / "model.safetensors").is_file():
        models.write_m3(
            directory, limit=LIMIT, hidden_size=WIDTH, num_hidden_layers=layers, num_attention_heads=HEADS,
            intermediate_size=INNER,
        )  # fmt: skip
        models.write_sentence_modules(directory, WIDTH, pooling="cls", limit=LIMIT)
    return directory


def ours(directory: Path, args: argparse.Namespace) -> Way:
    from m3index.encoder.load import load

    encoder = load(str(directory), device=args.device, precision=args.precision)
    return Way("m3index", lambda texts: encoder.encode_documents(texts, lexical=True).dense, [])


OTHER_TREE = """
import pickle, sys, time
import m3index, torch
from m3index.encoder.load import load
print("# the other tree:", m3index.__path__[0], file=sys.stderr)
directory, device, precision = sys.argv[1:]
if device == "cpu":
    torch.set_num_threads(1)
encoder, clock = load(directory, device=device, precision=precision), getattr(time, CLOCK)
answers, sys.stdout = sys.stdout.buffer, sys.stderr
while True:
    texts, start = pickle.load(sys.stdin.buffer), clock()
    dense = encoder.encode_documents(texts, lexical=True).dense
    pickle.dump((dense, clock() - start), answers)
    answers.flush()
"""


def of_another_tree(directory: Path, args: argparse.Namespace) -> Way:
    program = OTHER_TREE.replace("CLOCK", repr(clock_for(args.device).__name__))
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", program, str(directory), args.device, args.precision],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(args.against.absolute())},
    )
    atexit.register(process.kill)
    spent = 0.0

    def encode(texts: list[str]) -> np.ndarray:
        nonlocal spent
        pickle.dump(texts, process.stdin)
        process.stdin.flush()
        dense, seconds = pickle.load(process.stdout)
        spent += seconds
        return dense

    return Way("m3index, the other tree", encode, [], lambda: spent)


def ours_in_int8(directory: Path, args: argparse.Namespace, texts: list[str]) -> Way:
    """Its comparison with fp32 on the first texts is over before the clock starts."""
    from m3index.encoder import recall
    from m3index.encoder.load import load

    recall.SAMPLE_TOKENS = 1024
    encoder = load(str(directory), device=args.device, precision="int8")
    compared = -1
    while encoder.recall is None or encoder.recall.texts > compared:
        compared = encoder.recall.texts if encoder.recall else 0
        encoder.encode_documents(texts[:8], lexical=True)
    print(f"# int8 against fp32: {encoder.recall}", flush=True)
    return Way("m3index int8", lambda texts: encoder.encode_documents(texts, lexical=True).dense, [])


def peers(directory: Path, args: argparse.Namespace) -> list[Way]:
    found = []
    for peer in (flag_embedding, sentence_transformers, onnx_runtime):
        try:
            found += peer(directory, args)
        except ImportError as e:
            print(f"# {peer.__name__} is left out: {e}")
    return found


def flag_embedding(directory: Path, args: argparse.Namespace) -> list[Way]:
    """As its README has it: dense and lexical weights. fp32 on a CPU, fp16 on a GPU: its defaults."""
    if not args.flag_batch:
        return []
    from FlagEmbedding import BGEM3FlagModel

    model = BGEM3FlagModel(str(directory), use_fp16=args.device != "cpu", devices=args.device)

    def with_batch(size: int) -> Encode:
        def encode(texts: list[str]) -> np.ndarray:
            out = model.encode(
                texts, batch_size=size, max_length=LIMIT, return_dense=True, return_sparse=True
            )
            return out["dense_vecs"]

        return encode

    return [Way(f"FlagEmbedding, batch {n}", with_batch(n), []) for n in args.flag_batch]


def sentence_transformers(directory: Path, args: argparse.Namespace) -> list[Way]:
    """Dense alone, in bf16; it sorts by length itself."""
    if not args.st_batch:
        return []
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(directory), device=args.device, model_kwargs={"dtype": torch.bfloat16})

    def with_batch(size: int) -> Encode:
        def encode(texts: list[str]) -> np.ndarray:
            out = model.encode(texts, batch_size=size, convert_to_tensor=True, show_progress_bar=False)
            return out.float().cpu().numpy()

        return encode

    return [Way(f"sentence-transformers bf16, batch {n}", with_batch(n), []) for n in args.st_batch]


def onnx_runtime(directory: Path, args: argparse.Namespace) -> list[Way]:
    """The fp32 export, fused by onnxruntime's own optimiser; the same quantised dynamically to int8; and, for
    BGE-M3's 24 layers, the two graphs that bge-m3-lite makes of the export. CLS vectors alone, texts sorted
    by length. With 24 layers the graphs take several GiB on the disk."""
    if args.device != "cpu" or not args.onnx_batch:
        return []
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    found = []
    for name, path in onnx_graphs(directory):
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        found += [
            Way(f"{name}, batch {size}", with_session(session, directory, size), [])
            for size in args.onnx_batch
        ]
    return found


def onnx_graphs(directory: Path) -> Iterator[tuple[str, Path]]:
    """Name and file of each graph, which stay in the directory."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.transformers import optimizer
    from onnxruntime.transformers.fusion_options import FusionOptions

    folder = directory / "onnx"
    export, fused, int8 = (folder / f"{name}.onnx" for name in ("model", "optimised", "int8"))
    if not export.is_file():
        folder.mkdir(exist_ok=True)
        export_onnx(directory, export)
    if not fused.is_file():
        fusion = FusionOptions("bert")
        model = optimizer.optimize_model(
            str(export), "bert", num_heads=HEADS, hidden_size=WIDTH, optimization_options=fusion, opt_level=0
        )
        model.save_model_to_file(str(fused), use_external_data_format=True)
    yield "onnxruntime fp32", fused
    if not int8.is_file():
        quantize_dynamic(
            fused, int8, op_types_to_quantize=["MatMul", "Attention"], per_channel=True,
            weight_type=QuantType.QInt8, use_external_data_format=True,
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )  # fmt: skip
    yield "onnxruntime dynamic int8", int8
    try:
        from bge_m3_lite.fuse import fuse
        from bge_m3_lite.quantize import QuantConfig, quantize
    except ImportError as error:
        print(f"# bge-m3-lite is left out: {error}")
        return
    try:
        if not (folder / "model_fused.onnx").is_file():
            fuse(export)
        if not (folder / "lite_int8.onnx").is_file():
            # Without its calibration, which is for the activations of the real weights.
            quantize(folder / "model_fused.onnx", folder / "lite_int8.onnx", QuantConfig(smooth_alpha=None))
    except Exception as error:  # whatever its pattern matching does not know
        print(f"# bge-m3-lite is left out: {type(error).__name__}: {error}")
        return
    yield "bge-m3-lite fp32", folder / "model_fused.onnx"
    yield "bge-m3-lite int8", folder / "lite_int8.onnx"


def export_onnx(directory: Path, target: Path) -> None:
    """The transformer alone, as the repository of BGE-M3 has it: token_embeddings of ids and mask."""
    import onnx
    from transformers import AutoModel

    class Transformer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = AutoModel.from_pretrained(
                str(directory), add_pooling_layer=False, attn_implementation="eager"
            )

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            return self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state

    shape = {0: "batch", 1: "tokens"}
    torch.onnx.export(
        Transformer().eval(), (torch.ones(2, 9, dtype=torch.long),) * 2, str(target), dynamo=False,
        input_names=["input_ids", "attention_mask"], output_names=["token_embeddings"], opset_version=14,
        dynamic_axes=dict.fromkeys(("input_ids", "attention_mask", "token_embeddings"), shape),
    )  # fmt: skip
    model = onnx.load(str(target))
    for path in target.parent.iterdir():
        path.unlink()
    onnx.save_model(
        model, str(target), save_as_external_data=True, all_tensors_to_one_file=True,
        location="model.onnx_data",
    )  # fmt: skip


def with_session(session: Any, directory: Path, size: int) -> Encode:
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.enable_padding(pad_id=1, pad_token="<pad>")

    def encode(texts: list[str]) -> np.ndarray:
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        out = np.empty((len(texts), WIDTH), np.float32)
        for start in range(0, len(order), size):
            some = order[start : start + size]
            rows = tokenizer.encode_batch([texts[i] for i in some])
            inputs = {
                "input_ids": np.array([row.ids for row in rows], np.int64),
                "attention_mask": np.array([row.attention_mask for row in rows], np.int64),
            }
            out[some] = session.run(["token_embeddings"], inputs)[0][:, 0]
        return out / np.linalg.norm(out, axis=1, keepdims=True)

    return encode


def report(args: argparse.Namespace, layers: int, lengths: list[int], ways: list[Way]) -> None:
    tokens = sum(lengths)
    flops = sum(n * layers * (2 * (4 * WIDTH**2 + 2 * WIDTH * INNER) + 4 * n * WIDTH) for n in lengths)
    print(f"\n{args.shape}, {layers} layers, {args.device}, {len(lengths)} texts, {tokens} tokens (median")
    print(f"{statistics.median(lengths):.0f}, longest {max(lengths)}), {args.window or 'all'} texts a call,")
    print(f"medians of {args.rounds} rounds, torch {torch.__version__}")
    base = statistics.median(ways[0].seconds)
    for way in ways:
        seconds = statistics.median(way.seconds)
        spread = (max(way.seconds) - min(way.seconds)) / seconds
        rates = f"{len(lengths) / seconds:8.2f} texts/s {tokens / seconds:9.0f} tokens/s"
        work = f"{flops / seconds / 1e9:8.0f} GFLOP/s"
        print(f"{way.name:36} {rates} {work}  ratio {seconds / base:5.2f}  spread {spread:.0%}")
    if args.device != "cpu":
        peak = matmul_rate()
        print(f"half-precision matmul {peak / 1e12:.0f} TFLOP/s: we reach {flops / base / peak:.0%} of it; "
              f"peak memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB for all")  # fmt: skip


def matmul_rate(size: int = 8192, repeats: int = 20) -> float:
    a, b = (torch.randn(size, size, device="cuda", dtype=torch.float16) for _ in range(2))
    for _ in range(3):
        a @ b
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(repeats):
        a @ b
    torch.cuda.synchronize()
    return repeats * 2 * size**3 / (time.perf_counter() - start)


# ------------------------------------------------------------------- memory


def memory(args: argparse.Namespace) -> None:
    """Each budget in a process of its own: what its peak is over what the loaded model takes."""
    layers = args.layers or 1  # a layer's working memory is free before the next one's
    with tempfile.TemporaryDirectory() as temporary:
        directory = random_model(args.directory or Path(temporary), layers)
        print(f"{layers} layer(s), {args.texts} texts of {LIMIT} tokens, {args.device}")
        for budget in (8192, 16_384, 32_768, 65_536):
            options = {
                "--memory-budget": budget, "--directory": directory, "--texts": args.texts,
                "--device": args.device, "--precision": args.precision,
            }  # fmt: skip
            command = [sys.executable, __file__, *(str(x) for pair in options.items() for x in pair)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            extra = json.loads(done.stdout)["extra_mib"]
            print(f"budget {budget:6} tokens: {extra:6.0f} MiB over the loaded model", flush=True)


def memory_of(args: argparse.Namespace) -> None:
    from m3index.encoder.load import load

    encoder = load(
        str(args.directory), device=args.device, precision=args.precision, batch_tokens=args.memory_budget
    )
    rows = encoder.tokenizer.document_ids([text_of(LIMIT, i) for i in range(args.texts)])
    encoder.encode_documents(["a"])
    before = resting(args.device)
    encoder.encode_ids(rows, lexical=True)
    print(json.dumps({"budget": args.memory_budget, "extra_mib": (peak(args.device) - before) / 2**20}))


def resting(device: str) -> int:
    """Bytes in use now; the peak is counted anew from here."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        return int(torch.cuda.memory_allocated())
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak of resident memory begins again
    return peak(device)


def peak(device: str) -> int:
    """Most bytes in use since `resting`: resident memory of the process, or torch's on the GPU."""
    if device != "cpu":
        return int(torch.cuda.max_memory_allocated())
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


if __name__ == "__main__":
    main()
