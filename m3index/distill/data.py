"""Documents -> token ids on disk, each text once; held-out texts apart; batches under a token budget.

Nothing grows with the corpus but the files and eight bytes a text (its digest); the ids are read through
a memory map.
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

from m3index.corpus.windows import windows
from m3index.encoder.tokens import ModelTokenizer
from m3index.errors import UsageError
from m3index.types import Document, IntArray, Rejected, join_title

BLOCK = 1024
"""Neighbouring texts that stay together when the order is drawn: what is read from disk at once."""
_POOL = 16
_PLAIN = "plain"  # marks a document on its way through the windows
_CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class DataSettings:
    """tokens: the longest input of the training, special tokens counted; longer texts are cut into
    windows. long_share: so many of the texts are joined with others to inputs of about that length.
    replace_words: so many of the words make way for others of the vocabulary (`replace.Replacer`), on
    average; each text has a share of its own. plain_share: so many of the texts keep their words then,
    and come last. held_out: the share kept from training, at most `held_out_texts`.
    """

    tokens: int = 512
    long_share: float = 0.1
    replace_words: float = 0.0
    plain_share: float = 0.2
    held_out: float = 0.02
    held_out_texts: int = 1000

    def __post_init__(self) -> None:
        if self.tokens < 8:
            raise UsageError(f"--tokens {self.tokens}: inputs of at least 8 tokens.")
        shares = (self.long_share, self.replace_words, self.plain_share)
        if not all(0 <= share <= 1 for share in shares) or not 0 < self.held_out < 1:
            raise UsageError(
                "The shares of long, plain and held-out texts and of replaced words are numbers between 0 "
                "and 1."
            )


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a corpus became. digest: of the training texts in their order and how they were cut."""

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
    """64 bits of a text, blind to case, width and white space: the identity by which texts are
    deduplicated and excluded."""
    plain = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    data = hashlib.blake2b(plain.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(data, "big")


class Tokenised:
    """The inputs of one tokenizer: ids of input i are `ids[bounds[i]:bounds[i + 1]]`."""

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
        """Takes over what another one wrote."""
        other._file.close()
        with other.path.open("rb") as f:
            shutil.copyfileobj(f, self._file)
        other.path.unlink()
        self.lengths += other.lengths[1:]

    def close(self) -> None:
        self._file.close()
        np.save(self.path.with_suffix(".npy"), np.cumsum(self.lengths, dtype=np.int64))


class Dataset:
    """A prepared corpus in a folder: `ids[k]` are the inputs as the k-th tokenizer made them. stages: those
    with other words, then the plain ones."""

    def __init__(self, folder: Path) -> None:
        manifest = json.loads((folder / "data.json").read_text("utf-8"))
        self.prepared = Prepared(**manifest["prepared"])
        self.ids = [Tokenised(folder / f"inputs{k}.bin") for k in range(manifest["tokenizers"])]
        inputs = self.prepared.inputs
        strange = inputs - manifest["plain"]
        self.stages = [part for part in (range(strange), range(strange, inputs)) if part]
        with (folder / "held-out.jsonl").open(encoding="utf-8") as f:
            self.held_out = [HeldOut(**json.loads(line)) for line in f]


def prepare(
    documents: Iterable[Document | Rejected],
    folder: Path,
    tokenizers: Sequence[ModelTokenizer],
    settings: DataSettings,
    *,
    exclude: Collection[int] = (),
    rejected: Callable[[Rejected], None] = lambda _: None,
    replaced: Callable[[str, int], str] | None = None,
) -> Dataset:
    """Streams a corpus into `folder`, once for all tokenizers; the first one cuts the windows.

    replaced: what a training text that is not plain, long ones joined, becomes, given with the digest of its
    last part.
    exclude: digests (`text_digest`) of texts that are neither trained on nor held out, such as those
    of the test collections. Raises UsageError where nothing is left to train on.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    writers = [_Writer(folder / f"inputs{k}.bin") for k in range(len(tokenizers))]
    sieve = _Sieve(documents, settings, frozenset(exclude), rejected, replaced)
    first, *others = tokenizers
    plain = [_Writer(folder / f"plain{k}.bin") for k in range(len(tokenizers))]
    size = min(settings.tokens, *(t.limit for t in tokenizers))
    with (folder / "held-out.jsonl").open("w", encoding="utf-8") as held_out:
        sieve.held_out = lambda text: held_out.write(json.dumps(asdict(text), ensure_ascii=False) + "\n")
        for document, passages in windows(sieve, first, size, 0, sieve.reject):
            texts = [join_title(document.title, p.text) for p in passages]
            rows = [[p.token_ids for p in passages], *(t.document_ids(texts) for t in others)]
            for versions in zip(*rows, strict=True):
                # Another tokenizer may need more tokens than its model takes: such an input is left out.
                if all(len(ids) <= t.limit for ids, t in zip(versions, tokenizers, strict=True)):
                    taken = plain if document.metadata[_PLAIN] else writers
                    for writer, ids in zip(taken, versions, strict=True):
                        writer.add(ids)
    for writer, last in zip(writers, plain, strict=True):
        writer.append(last)
        writer.close()
    inputs, tokens = len(writers[0].lengths) - 1, sum(writers[0].lengths)
    if inputs < 2 or not sieve.kept_out:
        raise UsageError(f"{inputs} inputs to train on, {sieve.kept_out} held out: the corpus is too small.")
    sieve.digest.update(json.dumps(asdict(settings), sort_keys=True).encode())
    prepared = Prepared(
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
    """The training documents of a stream: each text once, without the excluded and the held-out ones."""

    def __init__(
        self,
        documents: Iterable[Document | Rejected],
        settings: DataSettings,
        exclude: frozenset[int],
        rejected: Callable[[Rejected], None],
        replaced: Callable[[str, int], str] | None,
    ) -> None:
        self._documents, self._settings = documents, settings
        self._exclude, self._rejected, self._replaced = exclude, rejected, replaced
        self._seen: set[int] = set()
        self.held_out: Callable[[HeldOut], object] = lambda _: None
        self.digest = hashlib.blake2b(digest_size=16)
        self.documents = self.duplicates = self.excluded = self.rejected = self.kept_out = 0

    def reject(self, item: Rejected) -> None:
        self.rejected += 1
        self._rejected(item)

    def __iter__(self) -> Iterator[Document]:
        waiting: list[str] = []
        digest = 0
        room = self._settings.tokens * _CHARACTERS_PER_TOKEN
        for document, digest in self._fresh():
            # The draw is by the digest, so it does not depend on what else is in the corpus.
            if digest % 10_000 < self._settings.long_share * 10_000:
                waiting.append(join_title(document.title, document.text))
                if sum(map(len, waiting)) < room:
                    continue
                document, waiting = Document(document.doc_id, "\n".join(waiting)), []
            yield self._made(document, digest)
        if waiting:
            yield self._made(Document("joined", "\n".join(waiting)), digest)

    def _made(self, document: Document, digest: int) -> Document:
        text, plain = document.text, False
        if self._replaced is not None:
            plain = digest // 100_000_000 % 10_000 < self._settings.plain_share * 10_000
            text = text if plain else self._replaced(text, digest)
        return replace(document, text=text, metadata={_PLAIN: plain})

    def _fresh(self) -> Iterator[tuple[Document, int]]:
        for item in self._documents:
            if isinstance(item, Rejected):
                self.reject(item)
                continue
            self.documents += 1
            text = join_title(item.title, item.text)
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
        share = self._settings.held_out * 10_000
        return self.kept_out < self._settings.held_out_texts and digest // 10_000 % 10_000 < share


@dataclass(frozen=True, slots=True)
class Batches:
    """The endless order of batches: epoch after epoch, each drawn from (seed, epoch) alone.

    lengths: tokens of each input. inputs: those that are taken. budget: tokens of a batch; an input longer
    than it is a batch alone.
    Blocks of neighbours are drawn, `_POOL` of them mixed, sorted by length and cut into batches, and
    these shuffled: batches of like lengths, from a few stretches of the disk at a time.
    """

    lengths: IntArray
    inputs: range
    budget: int
    seed: int

    def epoch(self, number: int) -> list[NDArray[np.int64]]:
        draw = np.random.default_rng((self.seed, number))
        starts = draw.permutation(np.array(self.inputs[::BLOCK]))
        planned: list[NDArray[np.int64]] = []
        for first in range(0, len(starts), _POOL):
            blocks = [np.arange(s, min(s + BLOCK, self.inputs.stop)) for s in starts[first : first + _POOL]]
            pool = draw.permutation(np.concatenate(blocks))
            pool = pool[np.argsort(self.lengths[pool], kind="stable")]
            batches = self._cut(pool)
            planned += [batches[i] for i in draw.permutation(len(batches))]
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
        """(epoch, place after it, batch), beginning at a cursor."""
        while True:
            planned = self.epoch(epoch)
            for i in range(place, len(planned)):
                yield epoch, i + 1, planned[i]
            epoch, place = epoch + 1, 0
