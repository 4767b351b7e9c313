"""CPU seconds and memory of one-shot processes: commands that cannot work, a model's first text, searches.

    python benchmarks/start.py --rounds 5

The model has the shape and files of BGE-M3 (a pickle of 2.27 GB, random weights) and the tokenizer of
`offline`. It is in a temporary folder, and so are its prepared form and the databases: 3.5 GB. One thread,
warm page cache. What `import torch` costs is measured too: nothing that needs torch is faster.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from m3index.encoder import e5
from m3index.encoder.bert import shapes

ROOT = Path(__file__).resolve().parents[1]
M3INDEX = [sys.executable, "-m", "m3index"]
COMMANDS = (
    "ingest nofile.jsonl",
    "sync --changes nofile.jsonl",
    "ingest --nonsense",
    "search --server http://127.0.0.1:9 bees",
)
CONFIG = {
    "model_type": "xlm-roberta", "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16,
    "intermediate_size": 4096, "vocab_size": 250002, "max_position_embeddings": 8194, "type_vocab_size": 1,
    "layer_norm_eps": 1e-5, "hidden_act": "gelu", "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2,
}  # fmt: skip
ENCODE = """
import os, sys
from m3index import one_shot
from m3index.encoder.load import load
if sys.argv[4] == "brief":  # as in a command that answers one question
    one_shot.take()
    one_shot.be_brief()
encoder = load(sys.argv[1], device="cpu", precision=sys.argv[2], no_prepare=sys.argv[3] == "no")
encoder.encode_queries(["why does the sea rise"])
os._exit(0)  # as the command line ends
"""
DOCUMENTS = 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--folder", type=Path, help="keeps the model and the databases for the next time")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = (args.folder or Path(name)).absolute()
        folder.mkdir(exist_ok=True)
        bench = Bench(folder, args.rounds)
        bench.median("import torch", [sys.executable, "-c", "import os, torch; os._exit(0)"])
        for words in COMMANDS:
            bench.median(words, [*M3INDEX, *words.split()])
        model = str(folder / "bge-m3")
        if not Path(model).is_dir():
            # In a process of its own: the greatest memory of a child begins with that of its parent.
            writer = multiprocessing.get_context("spawn").Process(target=write_model, args=(Path(model),))
            writer.start()
            writer.join()
        encode = [sys.executable, "-c", ENCODE, model, args.precision]
        bench.median("one text, the original (--no-prepare)", [*encode, "no", "long"])
        bench.once("one text, the first time: prepares", [*encode, "yes", "long"])
        bench.median("one text, prepared, with torch", [*encode, "yes", "long"])
        bench.median("one text, prepared, as `search` does", [*encode, "yes", "brief"])
        corpus = folder / "corpus.jsonl"
        lines = (ROOT / "examples" / "corpus.jsonl").read_text("utf-8").splitlines(keepends=True)
        corpus.write_text("".join(lines[:DOCUMENTS]), "utf-8")
        for title, encoder in (("BGE-M3's shape", model), ("offline", "offline")):
            uri = ["--uri", f"{title[:3].lower()}.db"]
            bench.once(f"ingest of {DOCUMENTS} documents, {title}", [
                *M3INDEX, "ingest", str(corpus), "-e", encoder, "--precision", args.precision, *uri
            ])  # fmt: skip
            precision = ["--precision", args.precision]
            bench.median(f"search, {title}", [*M3INDEX, "search", "why does the sea rise", *precision, *uri])
            bench.median(f"status, {title}", [*M3INDEX, "status", *uri])


class Bench:
    """Runs processes in a folder and prints what they cost."""

    def __init__(self, folder: Path, rounds: int) -> None:
        self._folder, self._rounds = folder, rounds
        self._environment = os.environ | {
            "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(folder)
        }  # fmt: skip

    def median(self, title: str, command: list[str]) -> None:
        """The median of several runs, after one that is not counted: the page cache is warm."""
        self._cost(command)
        measured = [self._cost(command) for _ in range(self._rounds)]
        self._show(title, *(statistics.median(values) for values in zip(*measured, strict=True)))

    def once(self, title: str, command: list[str]) -> None:
        self._show(title, *self._cost(command))

    def _show(self, title: str, seconds: float, memory: float) -> None:
        print(f"{seconds:6.2f} CPU s {memory:6,.0f} MiB  {title}", flush=True)

    def _cost(self, command: list[str]) -> tuple[float, float]:
        """CPU seconds, and the greatest resident memory in MiB."""
        quiet = subprocess.DEVNULL
        run = subprocess.Popen(
            command, cwd=self._folder, env=self._environment, stdin=quiet, stdout=quiet, stderr=quiet
        )
        _, _, usage = os.wait4(run.pid, 0)
        return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


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
