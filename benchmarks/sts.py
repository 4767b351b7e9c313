#!/usr/bin/env python3
"""How well the cosines of a model agree with people: Spearman's correlation on the dev splits of STS.

    python benchmarks/sts.py [--data ../shared/data/sts] [--encoder offline]

For each file NAME-dev.tsv (score, sentence, sentence): both sentences are encoded as queries.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from m3index.encoder.load import load


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data/sts"))
    parser.add_argument("--encoder", default="offline")
    options = parser.parse_args()
    encoder = load(options.encoder)
    print(f"{'':16} pairs  Spearman  cosine: least  median  CPU seconds")
    for path in sorted(options.data.glob("*-dev.tsv")):
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]
        started = time.process_time()
        first, second = (encoder.encode_queries([row[i] for row in rows]).dense for i in (1, 2))
        seconds = time.process_time() - started
        cosines = (first * second).sum(axis=1)
        found = spearmanr(cosines, [float(row[0]) for row in rows]).statistic
        print(
            f"{path.stem:16} {len(rows):5} {found:9.4f} {cosines.min():14.3f} {np.median(cosines):7.3f} "
            f"{seconds:12.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
