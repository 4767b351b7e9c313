"""Converts documents to token ids on disk, without duplicates, holds out texts and draws batches.

Only the files and eight bytes per text (its digest) grow with the corpus; the ids are read through a memory
map.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from m3index.corpus.cut import windows
from m3index.corpus.windows import PassageSize
from m3index.distill.options import TrainingData
from m3index.encoder.tokens import ModelTokenizer
from m3index.errors import UsageError
from m3index.types import Document, IntArray, Rejected, join_title

BLOCK = 1024
"""How many neighbouring texts stay together in the random order, which are read from disk at once."""
_POOL = 16
_PLAIN = "plain"  # metadata key that survives the split into windows
_CHARACTERS_PER_TOKEN = 4
_SPLIT = ("tokens", "long_share", "replace_words", "plain_share", "held_out", "held_out_texts")
"""The options that determine the inputs, as they enter the digest."""


@dataclass(frozen=True, slots=True)
class PreparedData:
    """The result of preparing a corpus. digest: of the ordered training texts and how they were split."""

    digest: str
    documents: int
    duplicates: int
    excluded: int
    rejected: int
    inputs: int
    tokens: int
    held_out: int


@dataclass(frozen=True, slots=True)
class HeldOut:
    text: str
    lang: str | None


def text_digest(text: str) -> int:
    """A 64-bit digest that ignores case, width and white space. It identifies texts for deduplication and
    exclusion."""
    plain = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    data = hashlib.blake2b(plain.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(data, "big")


class Tokenised:
    """The inputs of one tokenizer. The ids of input i are `ids[bounds[i]:bounds[i + 1]]`."""

    def __init__(self, path: Path) -> None:
        self.bounds: NDArray[np.int64] = np.load(path.with_suffix(".npy"))
        size = int(self.bounds[-1])
        self._ids = np.memmap(path, np.int32, "r", shape=(size,)) if size else np.zeros(0, np.int32)

    def __len__(self) -> int:
        return len(self.bounds) - 1

    @property
    def lengths(self) -> IntArray:
        return np.diff(self.bounds).astype(np.int32)

    def rows(self, places: Iterable[int]) -> list[IntArray]:
        return [np.array(self._ids[self.bounds[i] : self.bounds[i + 1]]) for i in places]


class _Writer:
    def __init__(self, path: Path) -> None:
        self.path, self.lengths = path, [0]
        self._file = path.open("wb")

    def add(self, ids: IntArray) -> None:
        self._file.write(ids.astype(np.int32, copy=False).tobytes())
        self.lengths.append(len(ids))

    def append(self, other: _Writer) -> None:
        """Moves the contents of another writer to the end of this one."""
        other._file.close()
        with other.path.open("rb") as f:
            shutil.copyfileobj(f, self._file)
        other.path.unlink()
        self.lengths += other.lengths[1:]

    def close(self) -> None:
        self._file.close()
        np.save(self.path.with_suffix(".npy"), np.cumsum(self.lengths, dtype=np.int64))


class Dataset:
    """A prepared corpus in a folder. ids[k]: the inputs of the k-th tokenizer. stages: the inputs with
    replaced words, then the plain ones."""

    def __init__(self, folder: Path) -> None:
        manifest = json.loads((folder / "data.json").read_text("utf-8"))
        self.prepared = PreparedData(**manifest["prepared"])
        self.ids = [Tokenised(folder / f"inputs{k}.bin") for k in range(manifest["tokenizers"])]
        inputs = self.prepared.inputs
        replaced = inputs - manifest["plain"]
        self.stages = [part for part in (range(replaced), range(replaced, inputs)) if part]
        with (folder / "held-out.jsonl").open(encoding="utf-8") as f:
            self.held_out = [HeldOut(**json.loads(line)) for line in f]


def prepare(
    documents: Iterable[Document | Rejected],
    folder: Path,
    tokenizers: Sequence[ModelTokenizer],
    data: TrainingData,
    *,
    exclude: Collection[int] = (),
    rejected: Callable[[Rejected], None] = lambda _: None,
    replaced: Callable[[str, int], str] | None = None,
) -> Dataset:
    """Streams a corpus into `folder`, once for all tokenizers. The first tokenizer defines the windows.

    replaced: returns the new words for a training text that is not plain, from the (joined) text and the
    digest of its last part. exclude: digests (`text_digest`) of texts to neither train on nor hold out, such
    as those of test collections. Raises UsageError if nothing is left to train on.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    writers = [_Writer(folder / f"inputs{k}.bin") for k in range(len(tokenizers))]
    sieve = _Sieve(documents, data, frozenset(exclude), rejected, replaced)
    first, *others = tokenizers
    plain = [_Writer(folder / f"plain{k}.bin") for k in range(len(tokenizers))]
    size = min(data.tokens, *(t.limit for t in tokenizers))
    with (folder / "held-out.jsonl").open("w", encoding="utf-8") as held_out:
        sieve.held_out = lambda text: held_out.write(json.dumps(asdict(text), ensure_ascii=False) + "\n")
        for document, passages in windows(sieve, first, PassageSize(size, 0, "tokens"), sieve.reject):
            texts = [join_title(document.title, p.breadcrumb, p.text) for p in passages]
            rows = [[p.token_ids for p in passages], *(t.document_ids(texts) for t in others)]
            for versions in zip(*rows, strict=True):
                # Leave out inputs for which another tokenizer needs more tokens than its model takes.
                if all(len(ids) <= t.limit for ids, t in zip(versions, tokenizers, strict=True)):
                    targets = plain if document.metadata[_PLAIN] else writers
                    for writer, ids in zip(targets, versions, strict=True):
                        writer.add(ids)
    for writer, last in zip(writers, plain, strict=True):
        writer.append(last)
        writer.close()
    inputs, tokens = len(writers[0].lengths) - 1, sum(writers[0].lengths)
    if inputs < 2 or not sieve.kept_out:
        raise UsageError(f"The corpus is too small: {inputs} inputs to train on, {sieve.kept_out} held out.")
    sieve.digest.update(json.dumps({name: getattr(data, name) for name in _SPLIT}, sort_keys=True).encode())
    prepared = PreparedData(
        digest=sieve.digest.hexdigest(),
        documents=sieve.documents,
        duplicates=sieve.duplicates,
        excluded=sieve.excluded,
        rejected=sieve.rejected,
        inputs=inputs,
        tokens=tokens,
        held_out=sieve.kept_out,
    )
    manifest = {
        "prepared": asdict(prepared), "tokenizers": len(tokenizers), "plain": len(plain[0].lengths) - 1,
    }  # fmt: skip
    (folder / "data.json").write_text(json.dumps(manifest, indent=1) + "\n", "utf-8")
    return Dataset(folder)


class _Sieve:
    """The training documents of a stream, without duplicates, excluded texts and held-out texts."""

    def __init__(
        self,
        documents: Iterable[Document | Rejected],
        data: TrainingData,
        exclude: frozenset[int],
        rejected: Callable[[Rejected], None],
        replaced: Callable[[str, int], str] | None,
    ) -> None:
        self._documents, self._data = documents, data
        self._exclude, self._rejected, self._replaced = exclude, rejected, replaced
        self._seen: set[int] = set()
        self.held_out: Callable[[HeldOut], object] = lambda _: None
        self.digest = hashlib.blake2b(digest_size=16)
        self.documents = self.duplicates = self.excluded = self.rejected = self.kept_out = 0

    def reject(self, item: Rejected) -> None:
        self.rejected += 1
        self._rejected(item)

    def __iter__(self) -> Iterator[Document]:
        pending: list[str] = []
        digest = 0
        room = self._data.tokens * _CHARACTERS_PER_TOKEN
        for document, digest in self._fresh():
            # The digest decides, so the choice does not depend on the rest of the corpus.
            if digest % 10_000 < self._data.long_share * 10_000:
                pending.append(join_title(document.title, "", document.text))
                if sum(map(len, pending)) < room:
                    continue
                document, pending = Document(document.doc_id, "\n".join(pending)), []
            yield self._prepared(document, digest)
        if pending:
            yield self._prepared(Document("joined", "\n".join(pending)), digest)

    def _prepared(self, document: Document, digest: int) -> Document:
        text, plain = document.text, False
        if self._replaced is not None:
            plain = digest // 100_000_000 % 10_000 < self._data.plain_share * 10_000
            text = text if plain else self._replaced(text, digest)
        return replace(document, text=text, metadata={_PLAIN: plain})

    def _fresh(self) -> Iterator[tuple[Document, int]]:
        for item in self._documents:
            if isinstance(item, Rejected):
                self.reject(item)
                continue
            self.documents += 1
            text = join_title(item.title, "", item.text)
            digest = text_digest(text)
            if digest in self._seen:
                self.duplicates += 1
            elif digest in self._exclude or text_digest(item.text) in self._exclude:
                self.excluded += 1
            else:
                self._seen.add(digest)
                if self._is_held_out(digest):
                    self.kept_out += 1
                    lang = item.metadata.get("lang")
                    self.held_out(HeldOut(text, lang if isinstance(lang, str) else None))
                else:
                    self.digest.update(digest.to_bytes(8, "big"))
                    yield item, digest

    def _is_held_out(self, digest: int) -> bool:
        share = self._data.held_out * 10_000
        return self.kept_out < self._data.held_out_texts and digest // 10_000 % 10_000 < share


@dataclass(frozen=True, slots=True)
class Batches:
    """The endless order of batches, one epoch after the other, each determined by (seed, epoch) alone.

    lengths: tokens of each input. inputs: which inputs to use. budget: tokens per batch; a longer input gets
    its own batch. Blocks of neighbours are drawn at random. `_POOL` blocks at a time are mixed, sorted by
    length and split into batches, which are shuffled. Inputs of a batch thus have similar lengths, and few
    stretches of the disk are read at a time.
    """

    lengths: IntArray
    inputs: range
    budget: int
    seed: int

    def epoch(self, number: int) -> list[NDArray[np.int64]]:
        rng = np.random.default_rng((self.seed, number))
        starts = rng.permutation(np.array(self.inputs[::BLOCK]))
        planned: list[NDArray[np.int64]] = []
        for first in range(0, len(starts), _POOL):
            blocks = [np.arange(s, min(s + BLOCK, self.inputs.stop)) for s in starts[first : first + _POOL]]
            pool = rng.permutation(np.concatenate(blocks))
            pool = pool[np.argsort(self.lengths[pool], kind="stable")]
            batches = self._cut(pool)
            planned += [batches[i] for i in rng.permutation(len(batches))]
        return planned

    def _cut(self, pool: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        batches, start, tokens = [], 0, 0
        for place, length in enumerate(self.lengths[pool].tolist()):
            if tokens and tokens + length > self.budget:
                batches.append(pool[start:place])
                start, tokens = place, 0
            tokens += length
        return [*batches, pool[start:]]

    def from_(self, epoch: int, place: int) -> Iterator[tuple[int, int, NDArray[np.int64]]]:
        """Yields (epoch, place after the batch, batch), starting at the given position."""
        while True:
            planned = self.epoch(epoch)
            for i in range(place, len(planned)):
                yield epoch, i + 1, planned[i]
            epoch, place = epoch + 1, 0
