"""Ray Data: the same shards as without it, whatever dies on the way."""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="needs m3index[ray]")
psutil = pytest.importorskip("psutil")

TESTS = Path(__file__).resolve().parent.parent
DOCUMENTS, PASSAGES = 8_000, 50_000


def environment() -> dict[str, str]:
    """With what the fixture of the object store has put into it."""
    own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(TESTS), "RAY_AUTH_MODE": "disabled"}
    return os.environ | own


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """As the actors have it: the last bits of a vector depend on how many threads add it up."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def head(s3: str) -> Iterator[tuple[int, str]]:
    """A Ray cluster of this test: the process that started it, and its address."""
    process = subprocess.Popen(
        [sys.executable, str(TESTS / "scale_ray.py"), "head"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env=environment(),
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    yield process.pid, process.stdout.readline().strip()
    process.stdin.close()
    process.wait(60)
    process.stdout.close()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_shards_equal_those_without_ray_though_a_worker_and_the_driver_are_killed(
    head: tuple[int, str], tmp_path: Path
) -> None:
    from models import write_m3
    from scale_ray import ENCODE, source, tiny
    from scale_support import contents, document

    from m3index.files import Folder
    from m3index.scale.encode import encode

    seed = random.SystemRandom().randrange(10**6)
    dice = random.Random(seed)
    print(f"seed {seed}")
    corpus, model = tmp_path / "corpus", tmp_path / "model"
    corpus.mkdir()
    write_m3(model)
    for part in range(5):
        numbers = range(part, DOCUMENTS, 5)
        lines = (json.dumps(document(n)) for n in numbers)
        (corpus / f"{part}.jsonl").write_text("\n".join(lines), "utf-8")
    out, alone = Folder(tmp_path / "out"), Folder(tmp_path / "alone")

    pid, address = head
    command = [sys.executable, str(TESTS / "scale_ray.py"), "run", address, str(corpus), str(model)]
    log = tmp_path / "driver.log"

    def finished() -> int:
        return len(out.sub("manifest").sizes())

    def reach(shards: int, driver: subprocess.Popen[str]) -> None:
        while finished() < shards:
            assert driver.poll() is None, log.read_text()
            time.sleep(0.02)

    with log.open("w") as told:
        driver = subprocess.Popen(
            [*command, out.location], stdout=told, stderr=told, text=True, env=environment()
        )
    reach(dice.randint(2, 10), driver)
    workers = [
        p
        for p in psutil.Process(pid).children(recursive=True)
        if "".join(p.cmdline()).startswith("ray::MapWorker")
    ]
    assert len(workers) >= 2
    dice.choice(workers).kill()
    reach(finished() + dice.randint(5, 20), driver)
    driver.kill()
    driver.wait()
    before = finished()
    assert before < 63

    done = subprocess.run(
        [*command, out.location], capture_output=True, text=True, env=environment(), check=False
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert before <= summary["kept"] < summary["shards"] == 63  # a shard may end after the driver

    encode(source(str(corpus)).open(), alone, tiny(str(model)).load(), ENCODE)
    expected = contents(alone)
    assert len(expected) > PASSAGES
    assert contents(out) == expected


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_from_and_to_an_object_store(s3: str, head: tuple[int, str], tmp_path: Path) -> None:
    import boto3
    from models import write_m3
    from scale_ray import ENCODE, source, tiny
    from scale_support import contents, document

    from m3index.files import Folder
    from m3index.scale.encode import encode

    model = tmp_path / "model"
    write_m3(model)
    client = boto3.client("s3")
    for part in range(3):
        lines = "".join(json.dumps(document(n)) + "\n" for n in range(part, 900, 3))
        client.put_object(
            Bucket=s3.removeprefix("s3://"), Key=f"ray/{part}.jsonl.gz", Body=gzip.compress(lines.encode())
        )
    client.close()
    out, alone = Folder(f"{s3}/ray-shards"), Folder(tmp_path / "alone")
    command = [sys.executable, str(TESTS / "scale_ray.py"), "run", head[1], f"{s3}/ray", str(model)]

    def run() -> dict[str, int]:
        done = subprocess.run(
            [*command, out.location], capture_output=True, text=True, env=environment(), check=False
        )
        assert done.returncode == 0, done.stderr
        summary: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
        return summary

    assert (run()["written"], len(out.sub("manifest").sizes())) == (8, 8)
    encode(source(f"{s3}/ray").open(), alone, tiny(str(model)).load(), ENCODE)
    assert contents(out) == contents(alone)
    out.sub("manifest").delete("000000003.json")
    assert (run()["written"], run()["kept"]) == (1, 8), "what is missing, and nothing else"
    assert contents(out) == contents(alone)
