"""Small tokenizer.json files of every kind, trained by the library on the corpus of the data room's tests."""

import json
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers

from tests.data.conftest import story

CONTROLS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
TEXTS = [story(number) for number in range(30)]


def byte_level(add_prefix_space: bool = False, size: int = 500) -> tokenizers.Tokenizer:
    """GPT-2's kind, digits one by one as SmolLM has them."""
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)]
    )
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(vocab_size=size, special_tokens=CONTROLS, initial_alphabet=alphabet, show_progress=False),
    )
    return made


def fallback(kind: str = "BPE", prefix: bool = False) -> tokenizers.Tokenizer:
    """Llama 2's kind, BPE or unigram; with bos before every text where it prefixes a space too."""
    trained = tokenizers.Tokenizer(models.BPE(unk_token="<unk>") if kind == "BPE" else models.Unigram())
    trained.normalizer = normalizers.Replace(" ", "\u2581")
    special = ["<unk>", "<s>", "</s>"]
    cut = pre_tokenizers.Split("\n", "isolated")
    trained.pre_tokenizer = pre_tokenizers.Sequence([cut, pre_tokenizers.Split("\u2581", "merged_with_next")])
    trainer = (
        trainers.BpeTrainer(vocab_size=300, special_tokens=special, show_progress=False)
        if kind == "BPE"
        else trainers.UnigramTrainer(vocab_size=200, special_tokens=special, unk_token="<unk>", show_progress=False)
    )
    trained.train_from_iterator(TEXTS, trainer)
    learned = json.loads(trained.to_str())["model"]
    if kind == "BPE":
        pieces = [*special, *BYTES, *(p for p in learned["vocab"] if p not in special)]
        vocab = {piece: i for i, piece in enumerate(pieces)}
        merges = [tuple(m) for m in learned["merges"]]
        made = tokenizers.Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    else:
        scores = [(piece, 0.0) for piece in special] + [(piece, -1e6) for piece in BYTES]
        scores += [(p, s) for p, s in learned["vocab"] if p not in special]
        made = tokenizers.Tokenizer(models.Unigram(scores, unk_id=0, byte_fallback=True))
    spaces = normalizers.Replace(" ", "\u2581")
    made.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), spaces]) if prefix else spaces
    ends = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    made.decoder = decoders.Sequence([*ends, decoders.Strip(" ", 1, 0)] if prefix else ends)
    made.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    if prefix:
        made.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    return made


def write(folder: Path, made: tokenizers.Tokenizer, **told) -> Path:
    """The folder with a tokenizer.json, and tokenizer_config.json where anything is `told`."""
    folder.mkdir(parents=True, exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    if told:
        (folder / "tokenizer_config.json").write_text(json.dumps(told))
    return folder
