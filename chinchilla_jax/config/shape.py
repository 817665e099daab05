"""What is trained, and on which text."""

from dataclasses import dataclass
from typing import Literal

from chinchilla_jax.config.corpus import NearConfig, QualityConfig, RepetitionConfig
from chinchilla_jax.config.settings import closest, flag, require, section, setting

CLEAN = ("encoding", "controls", "html")


@dataclass(frozen=True)
class ModelConfig:
    """The transformer. Letters: N layers, D d_model, H heads, G kv_heads, K head_dim, F d_ff, V vocab_size."""

    preset: str = setting("", "named shape that the other model settings start from, such as chinchilla-44m")
    layers: int = setting(4, "N, transformer blocks")
    d_model: int = setting(256, "D, width of the residual stream")
    heads: int = setting(4, "H, query heads; heads * head_dim need not equal d_model")
    kv_heads: int = setting(0, "G, key and value heads; 0 means as many as heads")
    head_dim: int = setting(64, "K, width of a head")
    d_ff: int = setting(1024, "F, hidden width of the feed-forward layer")
    vocab_size: int = setting(0, "V, rows of the embedding table; 0 means as many as the tokenizer has pieces")
    positions: Literal["rope", "relative"] = setting("rope", "rotary, or Transformer-XL relative positions")
    mlp: Literal["swiglu", "reglu", "geglu", "gelu", "relu2"] = setting(
        "swiglu", "feed-forward: gated SiLU, gated ReLU, gated GELU, GELU, or squared ReLU"
    )
    biases: bool = setting(False, "biases on queries, keys, values and the hidden layer")
    attention_biases: bool = setting(False, "biases on queries, keys and values alone")
    qk_norm: bool = setting(False, "RMSNorm of every query and key head before its positions")
    tied: bool = setting(True, "one table for embedding and output")
    embed_scale: float = setting(1.0, "factor on the embeddings that enter the first layer")
    context: int = setting(0, "longest text that the positions are meant for; 0 means --train.seq-len")
    rope_theta: float = setting(10000.0, "base of the rotary wavelengths")
    rope_scaling: Literal["none", "linear", "llama3"] = setting(
        "none", "how rotary wavelengths are stretched beyond the length that was trained first"
    )
    rope_factor: float = setting(1.0, "stretch of the wavelengths (linear: of all, llama3: of the long ones)")
    rope_low_freq: float = setting(1.0, "llama3: waves that turn less often than this over the original length stretch")
    rope_high_freq: float = setting(4.0, "llama3: waves that turn more often than this over the original length stay")
    rope_original_len: int = setting(8192, "llama3: length in tokens before the stretch")
    norm_eps: float = setting(1e-6, "added to the mean square in RMSNorm")
    norm_offset: float = setting(0.0, "added to every norm's scale: 1 where checkpoints store scale - 1, as Gemma's do")
    init_std: float = setting(0.02, "standard deviation of the initial weights")
    dropout: float = setting(0.0, "share of the residual branches' outputs dropped in training")
    dtype: Literal["auto", "float32", "bfloat16"] = setting(
        "auto", "type of activations; auto is bfloat16 on accelerators and float32 on a CPU"
    )
    kernels: Literal["auto", "reference", "cpu", "cuda", "tpu"] = setting(
        "auto", "implementations of attention and matrix products; auto follows the platform"
    )
    remat: Literal["auto", "none", "projections", "full"] = setting(
        "auto", "what the backward pass recomputes; auto is none for short windows on a CPU, else projections"
    )
    scan_unroll: int = setting(0, "layers a scan iteration unrolls; 0: up to 32 on a CPU and NVIDIA cards, else one")
    documents: int = setting(0, "documents a row that cuDNN's packed attention is compiled for; 0 follows the text")

    def __post_init__(self):
        for name in ("layers", "d_model", "heads", "head_dim", "d_ff"):
            require(getattr(self, name) > 0, f"{flag('model.' + name)} must be at least 1")
        for name in ("kv_heads", "vocab_size", "scan_unroll", "documents", "context"):
            require(getattr(self, name) >= 0, f"{flag('model.' + name)} must not be negative")
        require(
            not self.kv_heads or self.heads % self.kv_heads == 0,
            f"--model.kv-heads {self.kv_heads} does not divide --model.heads {self.heads}",
        )
        require(self.head_dim % 2 == 0, f"--model.head-dim {self.head_dim} must be even for its positions")
        require(
            self.positions == "rope" or self.d_model % 2 == 0,
            f"--model.d-model {self.d_model} must be even for relative positions",
        )
        require(0 <= self.dropout < 1, f"--model.dropout {self.dropout} must lie in [0, 1)")
        for name in ("init_std", "embed_scale", "rope_original_len"):
            require(getattr(self, name) > 0, f"{flag('model.' + name)} must be positive")
        # Far beyond what any model has, well within what float32 can compute with.
        for name, low, high in (("rope_theta", 1, 1e12), ("rope_factor", 1e-3, 1e6), ("norm_eps", 0, 1)):
            value = getattr(self, name)
            require(low <= value <= high, f"{flag('model.' + name)} {value} must lie in [{low}, {high:g}]")
        require(
            self.rope_scaling != "none" or self.rope_factor == 1.0,
            f"--model.rope-factor {self.rope_factor} stretches nothing; set --model.rope-scaling linear or llama3",
        )
        require(
            self.positions == "rope" or self.rope_scaling == "none",
            f"--model.rope-scaling {self.rope_scaling} stretches rotary waves, of which --model.positions relative has "
            "none; leave it out",
        )
        require(
            0 < self.rope_low_freq < self.rope_high_freq,
            f"--model.rope-low-freq {self.rope_low_freq} must lie in (0, --model.rope-high-freq {self.rope_high_freq})",
        )

    @property
    def gated(self) -> bool:
        """Whether the feed-forward layer multiplies two projections (Shazeer 2020)."""
        return self.mlp in ("swiglu", "reglu", "geglu")


@dataclass(frozen=True)
class DataConfig:
    """Text in, token store out (`prepare`), and where the store is (every other command)."""

    sources: tuple[str, ...] = setting(
        ("shakespeare",),
        "files, folders or quoted patterns ('d/*.txt') of text, .jsonl, .parquet or .wet (also .gz, .zst, gs://...), "
        "tfds:NAME/CONFIG:SPLIT, or a built-in: shakespeare, debian_docs, docstrings",
    )
    fallback: str = setting("", "source in place of a built-in that cannot be downloaded; empty is an error then")
    weights: tuple[float, ...] = setting(
        (), "share of each source in training (and in what trains the tokenizer), in their order; empty is by size"
    )
    store: str = setting("", "folder of the token store, local or gs://; empty is data/ and the first source's name")
    field: str = setting("text", "key of the text in JSON records (.jsonl, .ndjson, .json) and TFDS examples")
    data_dir: str = setting("", "folder of TFDS data sets and of downloads; empty means ~/tensorflow_datasets")
    tokenizer: str = setting(
        "",
        "existing tokenizer: a tokenizer.json, a SentencePiece model, or a folder with either (also gs://...); empty "
        "trains one",
    )
    tokenizer_kind: Literal["bpe", "unigram"] = setting("bpe", "kind of SentencePiece model to train")
    vocab_size: int = setting(32000, "pieces of the tokenizer to train")
    tokenizer_sentences: int = setting(
        1_000_000, "most lines of text that tokenizer training reads (a uniform sample beyond that)"
    )
    valid_fraction: float = setting(0.01, "share of the documents held out for validation")
    clean: tuple[str, ...] = setting(
        (), "repairs of the text: encoding (UTF-8 read as Windows-1252), controls (control characters), html (tags)"
    )
    languages: tuple[str, ...] = setting(
        (), "codes such as en or zh of languages to keep (needs py3langid); empty is all"
    )
    language_sure: float = setting(0.5, "least probability of the language of a document")
    quality: QualityConfig = section(QualityConfig)  # noqa: RUF009 - a field
    repetition: RepetitionConfig = section(RepetitionConfig)  # noqa: RUF009 - a field
    near: NearConfig = section(NearConfig)  # noqa: RUF009 - a field
    decontaminate: tuple[str, ...] = setting(
        (), "files, such as evaluation sets, that no document may share words with"
    )
    decontaminate_words: int = setting(13, "words in a row that must not be shared with those files")
    deduplicate: bool = setting(True, "drop documents that are byte for byte equal to an earlier one")
    shard_mb: int = setting(2048, "most MiB of a file of tokens; a larger stream is cut into several")
    engine: Literal["local", "beam"] = setting("local", "what prepares: processes of this machine, or Apache Beam")
    beam_options: str = setting("", "options of Beam's, such as 'runner=FlinkRunner flink_master=HOST:8081'")
    workers: int = setting(0, "processes that prepare; 0 means one a core")
    seed: int = setting(0, "decides which documents are held out")

    def __post_init__(self):
        require(bool(self.sources), "--data.sources is empty; name a file, a folder or a built-in such as shakespeare")
        require(
            not self.weights or (min(self.weights) >= 0 and sum(self.weights) > 0),
            f"--data.weights {self.weights} must not be negative, and one above 0",
        )
        require(self.vocab_size >= 264, "--data.vocab-size must be at least 264 (256 bytes and the control pieces)")
        require(0 < self.valid_fraction < 1, f"--data.valid-fraction {self.valid_fraction} must lie inside (0, 1)")
        for name in self.clean:
            require(name in CLEAN, f"--data.clean {name}: none of {', '.join(CLEAN)}{closest(name, CLEAN)}")
        require(self.decontaminate_words > 0, "--data.decontaminate-words must be at least 1")
        require(0 <= self.language_sure <= 1, "--data.language-sure must lie in [0, 1]")
        require(self.shard_mb > 0, "--data.shard-mb must be at least 1")
        require(self.workers >= 0, "--data.workers must not be negative")
        require(self.tokenizer_sentences > 0, "--data.tokenizer-sentences must be positive")
        require(0 <= self.seed < 2**32, f"--data.seed {self.seed} must lie in [0, 2**32)")
