"""CPU seconds and memory of one-shot processes: a command that cannot work, and the first text of a model.

    python benchmarks/start.py --rounds 5

The model has the shape and files of BGE-M3 (a pickle of 2.27 GB, random weights) and the tokenizer of
`offline`. It is in a temporary folder, and so is its prepared form: 3.4 GB. One thread, warm page cache.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from m3index.encoder import e5
from m3index.encoder.weights import shapes

COMMANDS = (
    "ingest nofile.jsonl",
    "sync --changes nofile.jsonl",
    "verify nofile.jsonl",
    "reindex nofile.jsonl",
    "shards encode nofile.jsonl --out shards",
    "ingest --nonsense",
    "search --server http://127.0.0.1:9 bees",
)
CONFIG = {
    "model_type": "xlm-roberta", "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16,
    "intermediate_size": 4096, "vocab_size": 250002, "max_position_embeddings": 8194, "type_vocab_size": 1,
    "layer_norm_eps": 1e-5, "hidden_act": "gelu", "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2,
}  # fmt: skip
ENCODE = """
import resource, sys
from m3index.encoder.load import load
encoder = load(sys.argv[1], device="cpu", precision=sys.argv[2], no_prepare=sys.argv[3] == "no")
encoder.encode_queries(["why does the sea rise"])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", default="bf16")
    args = parser.parse_args()
    root = str(Path(__file__).resolve().parents[1])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": root}
        for words in COMMANDS:
            command = [sys.executable, "-m", "m3index", *words.split()]
            runs = [cpu(command, folder, environment)[0] for _ in range(args.rounds)]
            print(f"{statistics.median(runs):.2f} CPU s  {words}", flush=True)
        write_model(folder / "bge-m3")
        environment["XDG_CACHE_HOME"] = name
        for title, prepare, rounds in (
            ("the original (--no-prepare)", "no", args.rounds),
            ("the first run, which prepares", "yes", 1),
            ("prepared", "yes", args.rounds),
        ):
            command = [sys.executable, "-c", ENCODE, str(folder / "bge-m3"), args.precision, prepare]
            measured = [cpu(command, folder, environment) for _ in range(rounds)]
            seconds, memory = (statistics.median(values) for values in zip(*measured, strict=True))
            print(f"{seconds:.2f} CPU s, {memory:.0f} MiB  {args.precision}, {title}", flush=True)


def cpu(command: list[str], folder: Path, environment: dict[str, str]) -> tuple[float, int]:
    """The CPU seconds of a process, and the number that it prints last."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    last = done.stdout.split()[-1:] or ["0"]
    seconds = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return seconds, int(last[0]) if last[0].isdigit() else 0


def write_model(folder: Path) -> None:
    folder.mkdir()
    torch.manual_seed(0)
    weights = {}
    for name, shape in shapes(CONFIG).items():
        weights[name] = torch.ones(shape) if "LayerNorm.weight" in name else torch.zeros(shape)
        if len(shape) > 1:
            weights[name].uniform_(-0.05, 0.05)
    torch.save(weights, folder / "pytorch_model.bin")
    for head, outputs in (("sparse_linear", 1), ("colbert_linear", 1024)):
        linear = torch.nn.Linear(1024, outputs)
        torch.save(dict(linear.state_dict()), folder / f"{head}.pt")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    shutil.copy(e5.directory() / "tokenizer.json", folder)
    tokens = json.loads((e5.directory() / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(tokens | {"model_max_length": 8192}))


if __name__ == "__main__":
    main()
