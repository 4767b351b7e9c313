"""What a process of `TokenizerPool` runs: cuts texts into passages."""

from __future__ import annotations

import os
from typing import Any

from m3index.corpus.cut import cut
from m3index.encoder.tokens import ModelTokenizer
from m3index.process import Channel, portable


def cut_texts(channel: Channel) -> None:
    """Takes a Layout, then texts with the size of their passages; answers with flat arrays, or an error."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    tokenizer = ModelTokenizer(channel.receive())
    while True:
        texts, size = channel.receive()
        try:
            answer: Any = cut(texts, tokenizer, size)
        except Exception as error:
            answer = portable(error)
        channel.send(answer)
