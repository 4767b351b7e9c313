"""`distill`: turns a teacher and a corpus into a student's directory with its certificate."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from m3index.corpus.notes import tell
from m3index.corpus.readers import open_corpus, read
from m3index.distill import cache as caches
from m3index.distill import card, certificate, losses, output
from m3index.distill.checkpoint import Checkpoint, Cursor
from m3index.distill.curves import Curves
from m3index.distill.data import Batches, Dataset, prepare, text_digest
from m3index.distill.fit import LeastSquares
from m3index.distill.loop import Step, train
from m3index.distill.network import Network, keep, same_tokens, stack, token_embeddings, trainable
from m3index.distill.options import DistillOptions, Head, Learning, Objective
from m3index.distill.replace import Replacer
from m3index.distill.retrieval import read_collections
from m3index.distill.teachers import Bm25, FrozenModel, Online, Teacher
from m3index.distill.world import World, joined
from m3index.encoder import hardware
from m3index.encoder import layout as layouts
from m3index.encoder.layout import Layout
from m3index.encoder.load import load
from m3index.encoder.model import ModelEncoder
from m3index.encoder.options import Device
from m3index.encoder.source import locate
from m3index.encoder.tokens import ModelTokenizer
from m3index.errors import MismatchError, MissingHeadError, UsageError
from m3index.progress import Reporter, Silent
from m3index.types import Document, join_title
from m3index.wording import many

_SCORED_TEXTS = 500
_FIT_TOKENS = 200_000
_SAME_TRAINING = ("steps", "epochs", "warmup", "clip", "batch_tokens", "accumulate", "optimizer", "seed")


@dataclass(frozen=True, slots=True)
class Distilled:
    """The result of a run. certificate: None if there was no teacher to compare with."""

    out: Path
    cursor: Cursor
    certificate: dict[str, Any] | None


def distill(
    options: DistillOptions,
    device: Device,
    *,
    reporter: Reporter | None = None,
    on_step: Callable[[Step], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> Distilled:
    """Prepares the data, trains, measures, and writes `options.out`, which appears only once it is complete.

    Under torchrun every process calls this, and the first one writes. Raises UsageError if models or
    files do not fit the options, MissingHeadError if the teacher lacks a head, MismatchError for a stale
    cache or the checkpoint of another run, `loop.Stopped` if `stop` returned true.
    """
    reporter = reporter or Silent()
    chosen = hardware.devices(device.device)[0]
    with joined(chosen) as world:
        own, told = world.device(chosen), reporter if world.first else Silent()
        job = _Job(options, world, own, device.precision, told)
        distilled = job.run(on_step if world.first else lambda _: None, stop)
        world.wait()
        return distilled


class _Job:
    """One run. Its stages share models and data."""

    def __init__(
        self, options: DistillOptions, world: World, device: torch.device, precision: str, reporter: Reporter
    ) -> None:
        self.options, self.world, self.reporter = options, world, reporter
        self.device, self.precision = device, precision
        self.out = Path(options.out)
        if self.out.exists() and (not self.out.is_dir() or any(self.out.iterdir())):
            raise UsageError(f"{self.out} already exists. Use another --out or remove it.")
        self.folder = options.folder
        self.teacher = _layout(options.teacher_name)
        own = _layout(options.student)
        student = self.teacher if own is None else own
        assert student is not None
        self.student: Layout = student
        self.objective = _trained_objective(options, self.teacher)
        self.tokenizer = ModelTokenizer(self.student)
        self.teacher_tokenizer = ModelTokenizer(self.teacher) if self.teacher else self.tokenizer
        self.same_tokens = same_tokens(self.tokenizer, self.teacher_tokenizer)
        _check_pair(self.objective, self.teacher, self.student, self.same_tokens)
        self.pairs = certificate.read_pair_sets(options.eval_pairs)
        self.collections = read_collections(options.eval_retrieval)

    def run(self, on_step: Callable[[Step], None], stop: Callable[[], bool]) -> Distilled:
        options = self.options
        dataset = self._dataset()
        teacher = self._teacher(dataset)
        network, kept = self._network(dataset, teacher)
        if self.world.first:
            output.write(network, self.folder / "untrained")
        curves = None
        if options.log_dir and self.world.first:
            curves = Curves(Path(options.log_dir), resume=options.resume)
        self.reporter.stage(f"training on {dataset.prepared.inputs:,} inputs")

        def report(step: Step) -> None:
            if curves:
                curves(step)
            on_step(step)

        cursor = train(
            network,
            teacher,
            dataset.ids[0],
            dataset.stages,
            self.objective,
            options,
            checkpoint=Checkpoint(self.folder / "checkpoint.pt", self._settings(dataset, kept)),
            world=self.world,
            report=report,
            stop=stop,
        )
        if curves and not curves.draw(cursor.history):
            self.reporter.note("No plot of the loss: matplotlib is missing. Run pip install 'm3index[eval]'.")
        if not self.world.first:
            return Distilled(self.out, cursor, None)
        return Distilled(self.out, cursor, self._finish(network, dataset, cursor, kept))

    # -- data

    def _dataset(self) -> Dataset:
        folder = self.folder / "data"
        if self.world.first and not (self.options.resume and (folder / "data.json").is_file()):
            self.reporter.stage("reading the corpus")
            tokenizers = [self.tokenizer, *[self.teacher_tokenizer] * (not self.same_tokens)]
            corpus = open_corpus(list(self.options.corpus), self.options)
            dataset = prepare(
                corpus, folder, tokenizers, self.options,
                exclude=self._excluded(), rejected=self.reporter.rejected, replaced=self._replaced(),
            )  # fmt: skip
            if corpus.read_errors:
                raise UsageError(
                    f"{corpus.read_errors[0].place} cannot be read: {corpus.read_errors[0].reason}."
                )
            tell(corpus, self.reporter)
            counts = dataset.prepared
            self.reporter.note(
                f"{many(counts.documents, 'document')} ({counts.duplicates:,} duplicates, "
                f"{counts.excluded:,} excluded, {counts.rejected:,} rejected): "
                f"{counts.inputs:,} inputs of {counts.tokens:,} tokens, {counts.held_out:,} held out"
            )
        self.world.wait()
        return Dataset(folder)

    def _replaced(self) -> Callable[[str, int], str] | None:
        if not self.options.replace_words:
            return None
        embeddings = token_embeddings(self.student, trust_remote_code=self.options.trust_remote_code)
        return Replacer(self.tokenizer.pieces, embeddings, self.options.replace_words)

    def _excluded(self) -> set[int]:
        digests = {
            text_digest(text)
            for pairs in self.pairs.values()
            for pair in pairs
            for text in (pair.first, pair.second)
        }
        for collection in self.collections:
            digests |= {text_digest(query.text) for query in collection.queries}
            digests |= {d for document in collection.documents for d in _digests(document)}
        if self.options.exclude_corpus:
            others = read(list(self.options.exclude_corpus), self.options.mapping)
            digests |= {d for item in others if isinstance(item, Document) for d in _digests(item)}
        return digests

    # -- models

    def _teacher(self, dataset: Dataset) -> Teacher:
        inputs = dataset.ids[-1]
        if self.teacher is None:
            return Bm25(inputs, self.tokenizer.vocabulary, self.tokenizer.silent_ids, self.device)
        precision = hardware.precision(self.precision, self.device)
        model = FrozenModel(
            self.teacher,
            self.device,
            precision,
            modules=bool(self.objective.layers),
            trust_remote_code=self.options.trust_remote_code,
        )
        if self.options.cache is None:
            return Online(model, inputs)
        stated = caches.manifest(
            layouts.space_digest(self.teacher), dataset.prepared.digest, inputs,
            bool(self.objective.lexical), precision,
        )  # fmt: skip
        folder, budget = Path(self.options.cache), self.options.batch_tokens
        build = partial(caches.build, folder, stated, model, inputs, budget=budget)
        if self.world.first:
            self.reporter.stage("writing the teacher's outputs")
            build()
        self.world.wait()
        return build()

    def _network(self, dataset: Dataset, teacher: Teacher) -> tuple[Network, tuple[int, ...] | None]:
        """The untrained student, and the teacher's layers that it keeps (None for a --student)."""
        network = trainable(self.student, trust_remote_code=self.options.trust_remote_code)
        network.to_device(self.device)
        kept = None
        if self.options.student is None:
            kept = self._choose(network, dataset, teacher)
            keep(network.model, kept)
            if self.objective.layers:
                # The output of a student layer should match the input of the next teacher layer it keeps.
                assert isinstance(teacher, Online)
                network.watch(range(len(kept) - 1))
                teacher.model.watch([following - 1 for following in kept[1:]])
        if not self.options.heads_only:
            # An untrained head would no longer fit the trained backbone.
            network.lexical = network.lexical if self.objective.lexical else None
            network.multi_vector = network.multi_vector if self.objective.multi_vector else None
        self._initialise_heads(network, dataset, teacher)
        self._unfreeze(network)
        return network, kept

    def _choose(self, network: Network, dataset: Dataset, teacher: Teacher) -> tuple[int, ...]:
        """The set of layers whose untrained student agrees best with the teacher."""
        sets = self.options.layer_choice.sets(network.model.config.num_hidden_layers)
        if len(sets) == 1:
            return sets[0]
        self.reporter.stage(f"scoring {len(sets)} sets of layers")
        scores = dict.fromkeys(sets, 0.0)
        holder, name = stack(network.model)
        all_layers = getattr(holder, name)
        for places in _first_batches(dataset, self.options, texts=_SCORED_TEXTS):
            target = teacher.outputs(places).dense
            assert target is not None
            batch = network.batch(dataset.ids[0].rows(places))
            for chosen in sets:
                setattr(holder, name, torch.nn.ModuleList(all_layers[i] for i in chosen))
                with torch.no_grad():
                    scores[chosen] += float((network(batch).dense * target).sum())
        setattr(holder, name, all_layers)
        best = max(sets, key=lambda chosen: scores[chosen])
        self.reporter.note(f"layers {', '.join(map(str, best))} agree best with the teacher before training")
        return best

    def _initialise_heads(self, network: Network, dataset: Dataset, teacher: Teacher) -> None:
        """Fits heads and a projection that cannot be copied by least squares."""
        needed = {
            "lexical": bool(self.objective.lexical) and network.lexical is None,
            "multi_vector": bool(self.objective.multi_vector) and network.multi_vector is None,
            "projection": self.teacher is not None
            and self.objective.same_width
            and network.dim != self.teacher.dim,
        }
        fits = {name: LeastSquares() for name, required in needed.items() if required}
        if not fits:
            return
        for places in _first_batches(dataset, self.options, tokens=_FIT_TOKENS):
            batch, target = network.batch(dataset.ids[0].rows(places)), teacher.outputs(places)
            with torch.no_grad():
                out = network(batch)
            hidden = out.hidden[batch.spoken]
            if "lexical" in fits and target.weights is not None:
                fits["lexical"].add(hidden, target.weights[batch.spoken, None])
            if "multi_vector" in fits and target.vectors is not None:
                fits["multi_vector"].add(hidden, target.vectors[batch.spoken])
            if "projection" in fits and target.dense is not None:
                fits["projection"].add(out.dense, target.dense)
        for name, fit in fits.items():
            setattr(network, name, fit.solve())

    def _unfreeze(self, network: Network) -> None:
        heads = {
            network.lexical: self.objective.lexical,
            network.multi_vector: self.objective.multi_vector,
            network.projection: True,
        }
        for head, weight in heads.items():
            if head is not None and weight:
                head.requires_grad_(True)
        if self.options.heads_only:
            return
        network.model.requires_grad_(True)
        if not self.options.train_embeddings:
            model = network.model
            embeddings = getattr(model, "embeddings", None) or model.get_input_embeddings()
            embeddings.requires_grad_(False)

    # -- results

    def _settings(self, dataset: Dataset, kept: tuple[int, ...] | None) -> dict[str, Any]:
        """What must be the same to resume, under the names that checkpoints have."""
        options = self.options
        return {
            "teacher": layouts.space_digest(self.teacher) if self.teacher else None,
            "student": layouts.space_digest(self.student),
            "layers": kept,
            "data": dataset.prepared.digest,
            "corpus": list(options.corpus),
            "objective": asdict(self.objective),
            "training": {
                **{name: getattr(options, name) for name in _SAME_TRAINING},
                "rate": options.learning_rate,
                "decay": options.weight_decay,
                "precision": options.train_precision,
            },
            "embeddings": options.train_embeddings,
            "heads_only": options.heads_only,
            "cache": options.cache is not None,
            "processes": self.world.size,
        }

    def _finish(
        self, network: Network, dataset: Dataset, cursor: Cursor, kept: tuple[int, ...] | None
    ) -> dict[str, Any] | None:
        options = self.options
        self.reporter.stage("measuring")
        folder = self.folder / "student"
        shutil.rmtree(folder, ignore_errors=True)
        output.write(network, folder)
        student = self._load(str(folder))
        size = min(options.tokens, self.tokenizer.limit, self.teacher_tokenizer.limit)
        training = {
            "objective": losses.describe(self.objective),
            "layers": None if kept is None else list(kept),
            "trained_length": size,
            "steps": cursor.step,
            "tokens": cursor.tokens,
            "seconds": round(cursor.seconds, 1),
            "loss": cursor.history[-1]["loss"],
            "learning_rate": options.learning_rate,
            "batch_tokens": options.batch_tokens * options.accumulate * self.world.size,
            "optimizer": options.optimizer,
            "replaced_words": options.replace_words,
            "plain_share": options.plain_share if options.replace_words else 1.0,
            "embeddings_trained": options.train_embeddings and not options.heads_only,
            "heads_only": options.heads_only,
            "hardware": certificate.hardware(),
        }
        data = asdict(dataset.prepared)
        described = certificate.describe(student, layouts.read(folder), options.student or str(self.out))
        finished = None
        if options.teacher_name is not None and self.teacher is not None:
            teacher = self._load(options.teacher_name)
            trial = certificate.Trial(
                teacher, self._load(str(self.folder / "untrained")), student,
                dataset.held_out, size, self.pairs, self.collections,
            )  # fmt: skip
            finished = certificate.certificate(
                certificate.describe(teacher, self.teacher, options.teacher_name),
                described, training, data, certificate.measure(trial),
            )  # fmt: skip
            certificate.write(finished, folder)
            text = card.of_certificate(finished)
        else:
            text = card.of_heads(described, training, data)
        (folder / "README.md").write_text(text, "utf-8")
        if self.out.exists():
            shutil.rmtree(self.out)
        self.out.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(folder, self.out)
        if options.work is None:
            shutil.rmtree(self.folder)
        return finished

    def _load(self, name: str) -> ModelEncoder:
        return load(
            name,
            device=str(self.device),
            precision=self.precision,
            trust_remote_code=self.options.trust_remote_code,
        )


def _layout(name: str | None) -> Layout | None:
    if name is None:
        return None
    source = locate(name)
    return layouts.read(source.directory, preset=source.preset)


def _trained_objective(options: DistillOptions, teacher: Layout | None) -> Objective:
    """The terms for the heads to train. Raises MissingHeadError if the teacher lacks one of them."""
    available: list[Head] = ["dense"]
    if teacher is None or teacher.lexical is not None:
        available.append("lexical")
    if teacher is not None and teacher.multi_vector is not None:
        available.append("colbert")
    heads = tuple(available) if options.head_names is None else options.head_names
    missing = [head for head in heads if head not in available]
    if missing:
        name = options.teacher_name or "BM25"
        raise MissingHeadError(f"{name} has no {missing[0]} head to learn from. Remove it from --heads.")
    objective = options.objective
    if "lexical" not in heads:
        objective = objective.without("lexical")
    if "colbert" not in heads:
        objective = objective.without("multi_vector")
    if "dense" not in heads or options.heads_only:
        objective = objective.without("cosine", "mse", "similarity", "hidden", "layers")
    if not any(objective.weights().values()):
        raise UsageError("There is nothing to train: none of the requested heads has a weighted loss.")
    if options.cache is not None and (objective.multi_vector or objective.hidden or objective.layers):
        raise UsageError("--cache holds only dense vectors and token weights. Use --heads dense,lexical.")
    return objective


def _check_pair(objective: Objective, teacher: Layout | None, student: Layout, same: bool) -> None:
    """Raises MismatchError if the two models have outputs that cannot be compared."""
    if teacher is None:
        return
    if objective.per_token and not same:
        raise MismatchError(
            "The student's tokenizer differs from the teacher's, so their tokens cannot be compared. "
            "Use --heads dense, or --recipe mse or pair-cosine."
        )
    widths = [layouts.hidden_size(layout.config) for layout in (teacher, student)]
    if objective.hidden and widths[0] != widths[1]:
        raise MismatchError(f"Hidden states of {widths[1]} and {widths[0]} dimensions cannot be compared.")


def _first_batches(
    dataset: Dataset, learning: Learning, *, texts: int | None = None, tokens: int | None = None
) -> Iterator[Any]:
    """Batches of the first epoch, until they reach the given number of texts or tokens."""
    lengths = dataset.ids[0].lengths
    seen_texts = seen_tokens = 0
    for places in Batches(lengths, dataset.stages[0], learning.batch_tokens, learning.seed).epoch(0):
        yield places
        seen_texts += len(places)
        seen_tokens += int(lengths[places].sum())
        if (texts is not None and seen_texts >= texts) or (tokens is not None and seen_tokens >= tokens):
            return


def _digests(document: Document) -> Iterator[int]:
    return map(text_digest, {document.text, join_title(document.title, "", document.text)})
