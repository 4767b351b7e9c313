"""Programs that the test of Ray starts and kills: a cluster of its own (`head`), and an encode (`run`)."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from m3index.api import EncoderChoice
from m3index.corpus.mapping import FieldMapping
from m3index.corpus.windows import PassageSettings
from m3index.files import Folder
from m3index.scale.encode import EncodeSettings
from m3index.scale.spread import Engine, Source, encode_on_ray

SETTINGS = EncodeSettings(passages=PassageSettings(40, 4), block=128)


def source(corpus: str) -> Source:
    """corpus: a folder, here or in an object store."""
    named = [corpus] if "://" in corpus else [str(path) for path in sorted(Path(corpus).glob("*.jsonl"))]
    return Source(named, FieldMapping())


def choice(model: str) -> EncoderChoice:
    return EncoderChoice(model, device="cpu", precision="fp32", batch_tokens="16384")


def head() -> None:
    import ray

    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    print(ray.get_runtime_context().gcs_address, flush=True)
    sys.stdin.read()  # until the test closes it
    ray.shutdown()


def run(address: str, corpus: str, model: str, out: str) -> None:
    engine = Engine(address=address, actors=2)
    summary = encode_on_ray(source(corpus), Folder(out), choice(model).load, SETTINGS, engine)
    print(json.dumps(summary.to_json()), flush=True)


if __name__ == "__main__":
    {"head": head, "run": run}[sys.argv[1]](*sys.argv[2:])
