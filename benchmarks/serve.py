#!/usr/bin/env python3
"""Throughput of `m3index serve` with 1, 4 and 16 clients, each asking as soon as it has its answer.

    python benchmarks/serve.py [--seconds 10] [--rounds 3] [--clients 1 4 16]

Indexes examples/corpus.jsonl with the encoder offline-en into Milvus Lite, starts `m3index serve` as a
process, and asks it the queries of examples/queries.jsonl over HTTP. Prints searches/s and latency, the
median over rounds in which the numbers of clients take turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from itertools import count
from pathlib import Path

from m3index import Index, connect
from m3index.errors import M3IndexError

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def search(url: str, query: str) -> None:
    """Ten hits, without the rankings of the legs."""
    body = json.dumps({"query": query, "k": 10, "legs": False}).encode()
    headers = {"content-type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(f"{url}/search", body, headers)) as answer:
        assert json.load(answer)["hits"], query


def ask(url: str, queries: list[str], clients: int, seconds: float) -> list[float]:
    """The latencies of all the searches that ended in time."""
    end = time.perf_counter() + seconds
    numbers = count()
    latencies: list[float] = []

    def client() -> None:
        while True:
            started = time.perf_counter()
            if started >= end:
                return
            search(url, queries[next(numbers) % len(queries)])
            latencies.append(time.perf_counter() - started)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return latencies


def ready(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        try:
            connect(url).search("warm", k=1)
            return
        except M3IndexError:
            if process.poll() is not None:
                sys.exit("the server ended")
            time.sleep(0.2)
    sys.exit("the server did not come up")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, nargs="*", default=[1, 4, 16])
    parser.add_argument("--port", type=int, default=18_077)
    options = parser.parse_args()
    queries = [json.loads(line)["text"] for line in (EXAMPLES / "queries.jsonl").open(encoding="utf-8")]
    with tempfile.TemporaryDirectory() as folder:
        uri = f"{folder}/serve.db"
        with Index("almanac", uri=uri, encoder="offline-en") as index:
            index.ingest(EXAMPLES / "corpus.jsonl")
        command = [sys.executable, "-m", "m3index", "serve", "--uri", uri, "-c", "almanac"]
        process = subprocess.Popen([*command, "--port", str(options.port)])
        url = f"http://127.0.0.1:{options.port}"
        try:
            ready(url, process)
            found: dict[int, list[list[float]]] = {n: [] for n in options.clients}
            for _ in range(options.rounds):
                for clients in options.clients:
                    found[clients].append(ask(url, queries, clients, options.seconds))
        finally:
            process.terminate()
            process.wait()
    print("clients  searches/s  median ms  p95 ms")
    for clients, rounds in found.items():
        rate = statistics.median(len(latencies) / options.seconds for latencies in rounds)
        every = sorted(latency for latencies in rounds for latency in latencies)
        p95 = every[int(0.95 * (len(every) - 1))]
        print(f"{clients:7}  {rate:10.1f}  {statistics.median(every) * 1e3:9.1f}  {p95 * 1e3:6.1f}")


if __name__ == "__main__":
    main()
