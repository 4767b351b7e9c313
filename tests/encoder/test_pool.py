from __future__ import annotations

from pathlib import Path

import models
import numpy as np

from m3index.encoder.load import load


def test_processes_give_what_one_gives_in_order(m3: Path) -> None:
    texts = [f"{line} {i}" for i in range(20) for line in models.LINES]
    with_pool, without = load(str(m3), tokenizer_processes=2), load(str(m3))
    try:
        for _ in range(2):
            got = with_pool.tokenizer.documents(texts)
            for mine, expected in zip(got, without.tokenizer.documents(texts), strict=True):
                np.testing.assert_array_equal(mine.ids, expected.ids)
                np.testing.assert_array_equal(mine.offsets, expected.offsets)
        assert len(with_pool.tokenizer.documents(texts[:3])) == 3
    finally:
        with_pool.close()
