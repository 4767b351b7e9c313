"""Programs that the test of Ray starts and kills: a cluster of its own (`head`), and an encode (`run`)."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from m3index.corpus.options import Input
from m3index.encoder.options import Model
from m3index.files import Folder
from m3index.scale.on_ray import CorpusInput, encode_on_ray
from m3index.scale.options import Cluster, EncodeOptions

ENCODE = EncodeOptions(passage_tokens=40, overlap=4, shard_documents=128)


def source(corpus: str) -> CorpusInput:
    """corpus: a folder, here or in an object store."""
    named = [corpus] if "://" in corpus else [str(path) for path in sorted(Path(corpus).glob("*.jsonl"))]
    return CorpusInput(named, Input(), os.getcwd())


def tiny(model: str) -> Model:
    return Model(encoder=model, device="cpu", precision="fp32", batch_tokens="16384")


def head() -> None:
    import ray

    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    print(ray.get_runtime_context().gcs_address, flush=True)
    sys.stdin.read()  # until the test closes it
    ray.shutdown()


def run(address: str, corpus: str, model: str, out: str) -> None:
    cluster = Cluster(engine="ray", ray_address=address, actors=2)
    summary = encode_on_ray(source(corpus), Folder(out), tiny(model).load, ENCODE, cluster)
    print(json.dumps(summary.to_json()), flush=True)


if __name__ == "__main__":
    {"head": head, "run": run}[sys.argv[1]](*sys.argv[2:])
