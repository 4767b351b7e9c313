"""`distill`: from a teacher, a corpus and a choice to a student's directory with its certificate."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from m3index.corpus.readers import read
from m3index.distill import cache as caches
from m3index.distill import card, certificate, layers, losses, output
from m3index.distill.checkpoint import Checkpoint, Cursor
from m3index.distill.curves import Curves
from m3index.distill.data import Batches, Dataset, prepare, text_digest
from m3index.distill.fit import LeastSquares
from m3index.distill.loop import Step, Training, train
from m3index.distill.network import Network, frozen, same_tokens, token_embeddings, trainable
from m3index.distill.replace import Replacer
from m3index.distill.request import Request, check, check_pair, trained_objective
from m3index.distill.retrieval import read_collection
from m3index.distill.teachers import Bm25, Cached, Online, Teacher
from m3index.distill.world import World, joined
from m3index.encoder import hardware
from m3index.encoder import layout as layouts
from m3index.encoder.layout import Layout
from m3index.encoder.load import load
from m3index.encoder.model import ModelEncoder
from m3index.encoder.source import locate
from m3index.encoder.tokens import ModelTokenizer
from m3index.errors import UsageError
from m3index.progress import Reporter, Silent
from m3index.types import Document, join_title

_SCORED_TEXTS = 500
_FIT_TOKENS = 200_000


@dataclass(frozen=True, slots=True)
class Distilled:
    """certificate: None where there was no teacher to be compared with."""

    out: Path
    cursor: Cursor
    certificate: dict[str, Any] | None


def distill(
    request: Request,
    *,
    reporter: Reporter | None = None,
    on_step: Callable[[Step], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> Distilled:
    """Prepares the data, trains, measures, writes `request.out`, which appears only when it is whole.

    Under torchrun every process calls this; the first one writes. Raises UsageError for what cannot be
    asked, MissingHeadError for a head that the teacher has not, MismatchError for a stale cache or
    another run's checkpoint, `loop.Stopped` where `stop` said so.
    """
    reporter = reporter or Silent()
    device = hardware.devices(request.device)[0]
    with joined(device) as world:
        job = _Job(request, world, world.device(device), reporter if world.first else Silent())
        distilled = job.run(on_step if world.first else lambda _: None, stop)
        world.wait()
        return distilled


class _Job:
    """One run: the stages share its models and data."""

    def __init__(self, request: Request, world: World, device: torch.device, reporter: Reporter) -> None:
        self.request, self.world, self.device, self.reporter = request, world, device, reporter
        check(request)
        self.teacher = _layout(request.teacher)
        own = _layout(request.student)
        student = self.teacher if own is None else own
        assert student is not None
        self.student: Layout = student
        self.objective = trained_objective(request, self.teacher)
        self.tokenizer = ModelTokenizer(self.student)
        self.teacher_tokenizer = ModelTokenizer(self.teacher) if self.teacher else self.tokenizer
        self.same_tokens = same_tokens(self.tokenizer, self.teacher_tokenizer)
        check_pair(self.objective, self.teacher, self.student, self.same_tokens)
        self.pairs = certificate.read_pairs(request.eval_pairs) if request.eval_pairs else []
        self.collection = read_collection(request.eval_retrieval) if request.eval_retrieval else None

    def run(self, on_step: Callable[[Step], None], stop: Callable[[], bool]) -> Distilled:
        request = self.request
        dataset = self._dataset()
        teacher = self._teacher(dataset)
        network, kept = self._network(dataset, teacher)
        if self.world.first:
            output.write(network, request.folder / "untrained")
        curves = (
            Curves(request.log_dir, resume=request.resume) if request.log_dir and self.world.first else None
        )
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
            request.training,
            checkpoint=Checkpoint(request.folder / "checkpoint.pt", self._settings(dataset, kept)),
            resume=request.resume,
            world=self.world,
            report=report,
            stop=stop,
        )
        if curves and not curves.draw(cursor.history):
            self.reporter.note("No picture of the loss: pip install 'm3index[eval]' for matplotlib.")
        if not self.world.first:
            return Distilled(request.out, cursor, None)
        return Distilled(request.out, cursor, self._finish(network, dataset, cursor, kept))

    # -- data

    def _dataset(self) -> Dataset:
        folder = self.request.folder / "data"
        if self.world.first and not (self.request.resume and (folder / "data.json").is_file()):
            self.reporter.stage("reading the corpus")
            tokenizers = [self.tokenizer, *[self.teacher_tokenizer] * (not self.same_tokens)]
            corpus = read(list(self.request.corpus), self.request.mapping)
            made = prepare(
                corpus, folder, tokenizers, self.request.data,
                exclude=self._excluded(), rejected=self.reporter.rejected, replaced=self._replaced(),
            )  # fmt: skip
            if corpus.read_errors:
                raise UsageError(
                    f"{corpus.read_errors[0].place} cannot be read: {corpus.read_errors[0].reason}."
                )
            p = made.prepared
            self.reporter.note(
                f"{p.documents:,} documents ({p.duplicates:,} duplicates, {p.excluded:,} excluded, "
                f"{p.rejected:,} rejected): {p.inputs:,} inputs of {p.tokens:,} tokens, "
                f"{p.held_out:,} held out"
            )
        self.world.wait()
        return Dataset(folder)

    def _replaced(self) -> Callable[[str, int], str] | None:
        if not self.request.data.replace_words:
            return None
        embeddings = token_embeddings(self.student, trust_remote_code=self.request.trust_remote_code)
        return Replacer(self.tokenizer.pieces, embeddings, self.request.data.replace_words)

    def _excluded(self) -> set[int]:
        digests = {text_digest(text) for pair in self.pairs for text in (pair.first, pair.second)}
        if self.collection is not None:
            digests |= {text_digest(query.text) for query in self.collection.queries}
            digests |= {d for document in self.collection.documents for d in _digests(document)}
        if self.request.exclude:
            others = read(list(self.request.exclude), self.request.mapping)
            digests |= {d for item in others if isinstance(item, Document) for d in _digests(item)}
        return digests

    # -- models

    def _teacher(self, dataset: Dataset) -> Teacher:
        inputs = dataset.ids[-1]
        if self.teacher is None:
            return Bm25(inputs, self.tokenizer.vocabulary, self.tokenizer.silent_ids, self.device)
        precision = hardware.precision(self.request.precision, self.device)
        network = frozen(
            self.teacher,
            self.device,
            precision,
            modules=bool(self.objective.layers),
            trust_remote_code=self.request.trust_remote_code,
        )
        if self.request.cache is None:
            return Online(network, inputs)
        stated = caches.manifest(
            layouts.space_digest(self.teacher), dataset.prepared.digest, inputs,
            bool(self.objective.lexical), precision,
        )  # fmt: skip
        budget = self.request.training.batch_tokens
        if self.world.first:
            self.reporter.stage("writing the teacher's outputs")
            caches.build(self.request.cache, stated, network, inputs, budget=budget)
        self.world.wait()
        return Cached(caches.build(self.request.cache, stated, network, inputs, budget=budget), self.device)

    def _network(self, dataset: Dataset, teacher: Teacher) -> tuple[Network, tuple[int, ...] | None]:
        """The student before training, and which of the teacher's layers it has (None for a --student)."""
        network = trainable(self.student, trust_remote_code=self.request.trust_remote_code)
        network.to_device(self.device)
        kept = None
        if self.request.student is None:
            kept = self._choose(network, dataset, teacher)
            layers.keep(network.model, kept)
            if self.objective.layers:
                # What comes out of a layer of the student goes into the next of the teacher's that it has.
                assert isinstance(teacher, Online)
                if len(kept) == 1:
                    raise UsageError("--w-layers compares layers before the last: keep two, or leave it out.")
                network.watch(range(len(kept) - 1))
                teacher.network.watch([following - 1 for following in kept[1:]])
        if not self.request.heads_only:
            # A head that is not trained would no longer fit the backbone that is.
            network.lexical = network.lexical if self.objective.lexical else None
            network.multi_vector = network.multi_vector if self.objective.multi_vector else None
        self._begin_heads(network, dataset, teacher)
        self._unfreeze(network)
        return network, kept

    def _choose(self, network: Network, dataset: Dataset, teacher: Teacher) -> tuple[int, ...]:
        """The set of layers whose untrained student is nearest to the teacher."""
        sets = self.request.layers.sets(network.model.config.num_hidden_layers)
        if len(sets) == 1:
            return sets[0]
        self.reporter.stage(f"scoring {len(sets)} sets of layers")
        scores = dict.fromkeys(sets, 0.0)
        holder, name = layers.stack(network.model)
        every = getattr(holder, name)
        for places in _first_batches(dataset, self.request.training, texts=_SCORED_TEXTS):
            target = teacher.outputs(places).dense
            assert target is not None
            batch = network.batch(dataset.ids[0].rows(places))
            for chosen in sets:
                setattr(holder, name, torch.nn.ModuleList(every[i] for i in chosen))
                with torch.no_grad():
                    scores[chosen] += float((network(batch).dense * target).sum())
        setattr(holder, name, every)
        best = max(sets, key=lambda chosen: scores[chosen])
        self.reporter.note(f"layers {', '.join(map(str, best))} agree best with the teacher untrained")
        return best

    def _begin_heads(self, network: Network, dataset: Dataset, teacher: Teacher) -> None:
        """Heads and projection that cannot be copied begin at their least-squares solution."""
        asked = {
            "lexical": bool(self.objective.lexical) and network.lexical is None,
            "multi_vector": bool(self.objective.multi_vector) and network.multi_vector is None,
            "projection": self.teacher is not None
            and self.objective.same_width
            and network.dim != self.teacher.dim,
        }
        fits = {name: LeastSquares() for name, wanted in asked.items() if wanted}
        if not fits:
            return
        for places in _first_batches(dataset, self.request.training, tokens=_FIT_TOKENS):
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
        for name, found in fits.items():
            setattr(network, name, found.solve())

    def _unfreeze(self, network: Network) -> None:
        heads = {
            network.lexical: self.objective.lexical,
            network.multi_vector: self.objective.multi_vector,
            network.projection: True,
        }
        for head, wanted in heads.items():
            if head is not None and wanted:
                head.requires_grad_(True)
        if self.request.heads_only:
            return
        network.model.requires_grad_(True)
        if not self.request.embeddings:
            model = network.model
            embeddings = getattr(model, "embeddings", None) or model.get_input_embeddings()
            embeddings.requires_grad_(False)

    # -- the end

    def _settings(self, dataset: Dataset, kept: tuple[int, ...] | None) -> dict[str, Any]:
        training = {k: v for k, v in asdict(self.request.training).items() if k != "save_every"}
        return {
            "teacher": layouts.space_digest(self.teacher) if self.teacher else None,
            "student": layouts.space_digest(self.student),
            "layers": kept,
            "data": dataset.prepared.digest,
            "corpus": list(self.request.corpus),
            "objective": asdict(self.objective),
            "training": training,
            "embeddings": self.request.embeddings,
            "heads_only": self.request.heads_only,
            "cache": self.request.cache is not None,
            "processes": self.world.size,
        }

    def _finish(
        self, network: Network, dataset: Dataset, cursor: Cursor, kept: tuple[int, ...] | None
    ) -> dict[str, Any] | None:
        request = self.request
        self.reporter.stage("measuring")
        folder = request.folder / "student"
        shutil.rmtree(folder, ignore_errors=True)
        output.write(network, folder)
        student = self._load(str(folder))
        size = min(request.data.tokens, self.tokenizer.limit, self.teacher_tokenizer.limit)
        training = {
            "objective": losses.describe(self.objective),
            "layers": None if kept is None else list(kept),
            "trained_length": size,
            "steps": cursor.step,
            "tokens": cursor.tokens,
            "seconds": round(cursor.seconds, 1),
            "loss": cursor.history[-1]["loss"],
            "learning_rate": request.training.rate,
            "batch_tokens": request.training.batch_tokens * request.training.accumulate * self.world.size,
            "optimizer": request.training.optimizer,
            "replaced_words": request.data.replace_words,
            "plain_share": request.data.plain_share if request.data.replace_words else 1.0,
            "embeddings_trained": request.embeddings and not request.heads_only,
            "heads_only": request.heads_only,
            "hardware": certificate.hardware(),
        }
        data = asdict(dataset.prepared)
        described = certificate.describe(student, layouts.read(folder), request.student or str(request.out))
        made = None
        if request.teacher is not None and self.teacher is not None:
            teacher = self._load(request.teacher)
            trial = certificate.Trial(
                teacher, self._load(str(request.folder / "untrained")), student,
                dataset.held_out, size, self.pairs, self.collection,
            )  # fmt: skip
            made = certificate.certificate(
                certificate.describe(teacher, self.teacher, request.teacher),
                described, training, data, certificate.measure(trial),
            )  # fmt: skip
            certificate.write(made, folder)
            text = card.of_certificate(made)
        else:
            text = card.of_heads(described, training, data)
        (folder / "README.md").write_text(text, "utf-8")
        if request.out.exists():
            shutil.rmtree(request.out)
        request.out.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(folder, request.out)
        if request.work is None:
            shutil.rmtree(request.folder)
        return made

    def _load(self, name: str) -> ModelEncoder:
        return load(
            name,
            device=str(self.device),
            precision=self.request.precision,
            trust_remote_code=self.request.trust_remote_code,
        )


def _layout(name: str | None) -> Layout | None:
    if name is None:
        return None
    source = locate(name)
    return layouts.read(source.directory, preset=source.preset)


def _first_batches(
    dataset: Dataset, training: Training, *, texts: int | None = None, tokens: int | None = None
) -> Iterator[Any]:
    """Batches of the first epoch, until there are so many texts or tokens."""
    lengths = dataset.ids[0].lengths
    seen_texts = seen_tokens = 0
    for places in Batches(lengths, dataset.stages[0], training.batch_tokens, training.seed).epoch(0):
        yield places
        seen_texts += len(places)
        seen_tokens += int(lengths[places].sum())
        if (texts is not None and seen_texts >= texts) or (tokens is not None and seen_tokens >= tokens):
            return


def _digests(document: Document) -> Iterator[int]:
    return map(text_digest, {document.text, join_title(document.title, document.text)})
