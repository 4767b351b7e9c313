"""A process that cuts documents into passages for another one, until that one closes the pipe or ends.

Messages are pickles of a few large objects: a list of texts in, the flat arrays of `Cuts` out.
"""

from __future__ import annotations

import os
import pickle
import struct
import sys
from typing import IO, Any

_LENGTH = struct.Struct("<Q")


def send(pipe: IO[bytes], message: Any) -> None:
    data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    pipe.write(_LENGTH.pack(len(data)))
    pipe.write(data)
    pipe.flush()


def receive(pipe: IO[bytes]) -> Any:
    """The next message. Raises EOFError if the other process has ended."""
    (length,) = _LENGTH.unpack(_exactly(pipe, _LENGTH.size))
    return pickle.loads(_exactly(pipe, length))  # noqa: S301  (from our own process)


def _exactly(pipe: IO[bytes], count: int) -> bytes:
    data = pipe.read(count)
    if len(data) < count:
        raise EOFError
    return data


def _portable(error: Exception) -> Exception:
    """The error, or what it says if it cannot be sent."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def main() -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is not an answer
    from m3index.corpus.windows import cut
    from m3index.encoder.tokens import ModelTokenizer

    try:
        tokenizer = ModelTokenizer(receive(sys.stdin.buffer))
        while True:
            texts, size = receive(sys.stdin.buffer)
            try:
                answer: Any = cut(texts, tokenizer, size)
            except Exception as error:
                answer = _portable(error)
            send(answers, answer)
    except (EOFError, BrokenPipeError):
        os._exit(0)  # the other process has ended


if __name__ == "__main__":
    main()
