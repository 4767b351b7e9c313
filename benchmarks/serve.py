#!/usr/bin/env python3
"""Throughput of `m3index serve` with 1, 4 and 16 clients, each asking as soon as it has its answer; or how
honest clients fare beside attackers.

    python benchmarks/serve.py [--seconds 10] [--rounds 3] [--clients 1 4 16]
    python benchmarks/serve.py --attack [--seconds 20]
    python benchmarks/serve.py --parts [--documents 10000] [--encoder offline]

Indexes examples/corpus.jsonl with the encoder offline-en into Milvus Lite, starts `m3index serve` as a
process, and asks it the queries of examples/queries.jsonl over HTTP. Prints searches/s and latency, the
median over rounds in which the numbers of clients take turns.

--attack: two honest clients on kept connections ask at most ten times a second each, first alone, then beside
a process that keeps 1,100 idle connections, 300 half heads that drip and 50 slow bodies open, and sends 20
requests with a wrong token and two filters of 100,000 values a second. Prints latencies, what was not
answered, the memory of the server after each half of the attack, and the size of its log.

--parts: one client on a kept connection asks ten times a second. Prints where the time of an answer goes:
encoding the query, the legs in the store, the rest of the search, and what is outside of it (HTTP and JSON on
both sides). --documents adds sentences of the corpus, numbered, until there are so many passages.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import random
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
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


TOKEN = "a-token-of-the-benchmark"
_CLIENTS, _PAUSE = 2, 0.1


def honest(port: int, queries: list[str], seconds: float) -> tuple[list[float], list[float], int]:
    """Latencies, the part of each that is not the search itself, and how many were not answered with hits."""
    end = time.perf_counter() + seconds
    latencies: list[float] = []
    outside: list[float] = []
    failures = 0

    def client(number: int) -> None:
        nonlocal failures
        kept = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        headers = {"content-type": "application/json", "authorization": f"Bearer {TOKEN}"}
        asked = number
        while time.perf_counter() < end:
            body = json.dumps({"query": queries[asked % len(queries)], "k": 10, "legs": False})
            asked += _CLIENTS
            started = time.perf_counter()
            try:
                kept.request("POST", "/search", body, headers)
                answer = json.load(kept.getresponse())
                latencies.append(time.perf_counter() - started)
                outside.append(latencies[-1] - answer["timings"]["total"])
            except (OSError, http.client.HTTPException, ValueError, KeyError):
                failures += 1
                kept.close()
            time.sleep(_PAUSE)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(_CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return latencies, outside, failures


async def attack(port: int) -> None:
    """Runs until it is cancelled."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    heads = b"GET /search HTTP/1.1\r\nhost: localhost\r\n"
    post = b"POST /search HTTP/1.1\r\nhost: localhost\r\n"
    slow = post + b"authorization: Bearer %s\r\ncontent-length: 900\r\n\r\n{"

    async def hold(first: bytes, drip: bytes) -> None:
        """Keeps one connection open, as long as the server lets it, again and again."""
        while True:
            with suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(first)
                with suppress(TimeoutError):
                    while not reader.at_eof():
                        if drip:
                            writer.write(drip)
                        with suppress(TimeoutError):
                            await asyncio.wait_for(reader.read(1024), 2)
                writer.close()
            await asyncio.sleep(random.uniform(0.5, 1.5))

    async def ask(request: bytes, pause: float) -> None:
        while True:
            with suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(request)
                await asyncio.wait_for(reader.read(), 60)
                writer.close()
            await asyncio.sleep(pause)

    body = json.dumps({"query": "sea", "where": {"ordinal": list(range(100_000))}}).encode()
    post = b"POST /search HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
    big = post + b"authorization: Bearer %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
    wrong = (
        b"GET /info HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nauthorization: Bearer wrong\r\n\r\n"
    )
    token = TOKEN.encode()
    await asyncio.gather(
        *(hold(b"", b"") for _ in range(1_100)),
        *(hold(heads, b"x") for _ in range(300)),
        *(hold(slow % token, b" ") for _ in range(50)),
        *(ask(big % (token, len(body), body), 1.0) for _ in range(2)),
        *(ask(wrong, 0.5) for _ in range(10)),
    )


def parts(port: int, queries: list[str], rounds: int) -> None:
    kept = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"content-type": "application/json", "authorization": f"Bearer {TOKEN}"}
    rows: list[dict[str, float]] = []
    for number in range(-20, rounds):
        body = json.dumps({"query": queries[number % len(queries)], "k": 10, "legs": False})
        started = time.perf_counter()
        kept.request("POST", "/search", body, headers)
        answer = json.load(kept.getresponse())
        whole, timings = time.perf_counter() - started, answer["timings"]
        encode, dense, bm25 = (timings.get(name, 0) for name in ("encode", "dense", "sparse"))
        legs = max(encode + dense, bm25)  # BM25 needs no vector, and starts at once
        rows.append({
            "whole answer": whole, "encode": encode, "dense": dense, "bm25": bm25, "encode and legs": legs,
            "rest of the search": timings["total"] - legs, "outside": whole - timings["total"],
        })  # fmt: skip
        time.sleep(_PAUSE)
    for name in rows[0]:
        print(f"{name:20} {statistics.median(row[name] for row in rows[20:]) * 1e3:7.2f} ms")


def enlarged(corpus: Path, documents: int) -> Iterator[dict[str, object]]:
    """The corpus, and numbered sentences of it, until there are so many."""
    rows = [json.loads(line) for line in corpus.open(encoding="utf-8")]
    yield from rows
    sentences = [part for row in rows for part in re.split(r"(?<=[.!?。])\s*", row["text"]) if len(part) > 20]
    for number in range(len(rows), documents):
        yield {"id": f"s{number}", "text": f"{sentences[number % len(sentences)]} {number}"}


def memory(process: subprocess.Popen[bytes]) -> float:
    """MiB in memory."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


def under_attack(
    port: int, queries: list[str], seconds: float, process: subprocess.Popen[bytes], log: Path
) -> None:
    honest(port, queries, 5)
    rows = [("alone", honest(port, queries, seconds))]
    attacker = subprocess.Popen([sys.executable, __file__, "--attacker", str(port)])
    try:
        rows.append(("beside attackers, first half", honest(port, queries, seconds)))
        before = memory(process)
        rows.append(("second half", honest(port, queries, seconds)))
    finally:
        attacker.kill()
        attacker.wait()
    after = memory(process)
    print(f"{'':29} searches  unanswered  median ms  p99 ms  outside the search, median ms")
    for name, (latencies, outside, failures) in rows:
        every = sorted(latencies)
        p99 = every[int(0.99 * (len(every) - 1))]
        print(
            f"{name:29} {len(every):8}  {failures:10}  {statistics.median(every) * 1e3:9.1f}  "
            f"{p99 * 1e3:6.1f}  {statistics.median(outside) * 1e3:5.1f}"
        )
    print(f"memory of the server: {before:.0f} MiB, {after:.0f} MiB; its log: {log.stat().st_size:,} bytes")


def ready(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        try:
            connect(url, TOKEN).search("warm", k=1)
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
    parser.add_argument("--attack", action="store_true")
    parser.add_argument("--parts", action="store_true")
    parser.add_argument("--documents", type=int, default=0)
    parser.add_argument("--encoder", default="offline-en")
    parser.add_argument("--attacker", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.attacker:
        asyncio.run(attack(options.attacker))
    queries = [json.loads(line)["text"] for line in (EXAMPLES / "queries.jsonl").open(encoding="utf-8")]
    with tempfile.TemporaryDirectory() as folder:
        uri = f"{folder}/serve.db"
        with Index("almanac", uri=uri, encoder=options.encoder) as index:
            index.ingest(enlarged(EXAMPLES / "corpus.jsonl", options.documents))
        command = [sys.executable, "-m", "m3index", "serve", "--uri", uri, "-c", "almanac"]
        environment = os.environ | ({"M3INDEX_SERVE_TOKEN": TOKEN} if options.attack or options.parts else {})
        log = Path(folder) / "log"
        with log.open("wb") as errors:
            process = subprocess.Popen(
                [*command, "--port", str(options.port)], env=environment, stderr=errors
            )
        url = f"http://127.0.0.1:{options.port}"
        try:
            ready(url, process)
            if options.parts:
                parts(options.port, queries, 100)
                return
            if options.attack:
                under_attack(options.port, queries, options.seconds, process, log)
                return
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
