"""What a model is fine-tuned on: files of examples, how they become tokens, and how validation looks at the result."""

from dataclasses import dataclass
from typing import Literal

from chinchilla_jax.config.settings import flag, require, setting


@dataclass(frozen=True)
class TaskConfig:
    """Examples: files, fields, template, what of them trains, augmentation, and what is measured."""

    kind: Literal[
        "auto",
        "text",
        "chat",
        "labels",
        "multilabel",
        "choice",
        "tags",
        "spans",
        "preference",
        "items",
        "translation",
        "summary",
        "answer",
    ] = setting(
        "auto", "what the records are for; auto follows the first one (prompt and answer are a chat of one turn)"
    )
    train: tuple[str, ...] = setting(
        (), "files of examples: JSON lines, JSON, CSV, TSV, text, .inter, each also .gz or .zst; or builtin:NAME"
    )
    valid: tuple[str, ...] = setting((), "files to validate on; none holds a share of the training files out")
    test: tuple[str, ...] = setting((), "files that are looked at once, after the last step, with the best parameters")
    valid_fraction: float = setting(0.1, "share held out where there is no --task.valid, at least one record")
    data_dir: str = setting("", "folder of built-in examples and downloads; empty means ~/tensorflow_datasets")
    pieces: int = setting(0, "pieces of the tokenizer of a model that starts from nothing, without --from; 0 is none")
    text: str = setting("", "field or column with the text, where its name is not a known one")
    label: str = setting("", "field or column with the label, where its name is not a known one")
    only: tuple[str, ...] = setting((), "labels whose records are kept, the others being left out; empty keeps all")
    divider: str = setting("", "what divides several labels in one field, such as a comma; <div> always does")
    conversation: str = setting(
        "", "labels: field that names the conversation of a text; each is judged behind what was said before it"
    )
    opening: bool = setting(
        True, "labels: a text begins with bos, or what parts documents, also where its tokenizer puts nothing there"
    )
    style: Literal["auto", "squad", "cmrc"] = setting(
        "auto", "whose exact match and F1 score answers: SQuAD's, or CMRC 2018's where questions are Chinese"
    )
    stride: int = setting(0, "tokens by which windows of a long context overlap; 0 means half a window")
    max_answer: int = setting(64, "most tokens of an answer that is a span of its context")
    template: str = setting(
        "auto", "how turns are written: chatml, alpaca, plain, a .json file; auto is the run's own, else by the records"
    )
    source: Literal["causal", "bidirectional", "twice"] = setting(
        "causal",
        "how inputs are read: in both directions (bidirectional, the encoder-decoder form), or twice, so that a causal "
        "model that tags words has seen the whole sentence",
    )
    turns: Literal["all", "last"] = setting("all", "answers of a dialogue that train, and that are asked for")
    epochs: float = setting(3.0, "passes over the examples, which decide --train.steps unless it is given")
    labels: tuple[str, ...] = setting(
        (), "names of the labels, in the order of their numbers; empty finds them in the examples"
    )
    metric: str = setting("auto", "figure of validation that chooses the best checkpoint; auto suits the kind")
    patience: int = setting(0, "validations in a row without a better figure that end the run; 0 never does")
    generate: int = setting(
        20, "validation examples answered by generating, with the serving decoder; a test answers all of its own"
    )
    max_new_tokens: int = setting(128, "most tokens of such an answer")
    beam: int = setting(1, "beginnings of an answer that go on side by side (beam search); 1 is greedy")
    length_penalty: float = setting(0.6, "exponent of ((5 + tokens) / 6), by which a beam's log-probability is divided")
    choose: Literal["sum", "mean"] = setting(
        "sum", "choice: a label is worth the log-probability of all its pieces, or the mean of one"
    )
    language: str = setting("auto", "language of the references, such as en or zh, which metrics cut into words by")
    sampling: float = setting(
        0.0, "augmentation: share of merges left out when cutting texts into pieces (BPE-dropout)"
    )
    deletion: float = setting(0.0, "augmentation: share of the words of a source that are deleted")
    swap: float = setting(0.0, "augmentation: share of the words of a source that change places with another")
    replacement: float = setting(0.0, "augmentation: share of the words of a source replaced by one of other sources")
    balance: bool = setting(False, "weigh labels by n / (C n_c), 10 at most, against rare ones being ignored")
    core: int = setting(
        5, "items: fewest events of a user and of an item; rarer ones go until none is left; 0 keeps all"
    )
    split: Literal["leave_one_out", "time"] = setting(
        "leave_one_out", "items: what is asked is the last item of every user, or what comes after a point in time"
    )
    preference: Literal["sigmoid", "ipo"] = setting("sigmoid", "loss of preference pairs: DPO's own, or IPO's")
    beta: float = setting(0.1, "strength of the pull towards the reference in preference tuning")
    smoothing: float = setting(0.0, "share of preference pairs taken to be labelled the wrong way (sigmoid)")

    reference: Literal["auto", "stored", "computed"] = setting(
        "auto",
        "log-probabilities of the reference in preference tuning: stored before training, or computed in every step; "
        "auto stores them where every pair is seen at least once and is not augmented",
    )

    def __post_init__(self):
        for name in ("sampling", "deletion", "swap", "replacement", "valid_fraction"):
            value = getattr(self, name)
            require(0 <= value < 1, f"{flag('task.' + name)} {value} must lie in [0, 1)")
        twice = [name for i, name in enumerate(self.labels) if name in self.labels[:i]]
        require(not twice, f"--task.labels has {', '.join(twice)} twice; name every label once")
        require(self.max_answer > 0, "--task.max-answer must be at least 1")
        for name in ("stride", "patience", "generate", "core", "pieces"):
            require(getattr(self, name) >= 0, f"--task.{name} must not be negative")
        require(self.valid_fraction > 0 or self.valid != (), "--task.valid-fraction 0 needs --task.valid FILE")
        require(self.epochs > 0, f"--task.epochs {self.epochs} must be positive")
        require(
            not (self.conversation and self.only),
            "--task.only would tear holes into a --task.conversation; leave it out",
        )
        require(
            not (self.conversation and self.source == "bidirectional"),
            "--task.conversation judges a text behind what was said before it, and --task.source bidirectional would "
            "also show what comes after; leave one of them out",
        )
        require(self.beam > 0, "--task.beam must be at least 1; 1 is greedy")
        require(self.length_penalty >= 0, f"--task.length-penalty {self.length_penalty} must not be negative")
        require(self.max_new_tokens > 0, "--task.max-new-tokens must be at least 1")
        require(self.beta > 0, f"--task.beta {self.beta} must be positive")
        require(0 <= self.smoothing < 0.5, f"--task.smoothing {self.smoothing} must lie in [0, 0.5)")
        require(
            self.reference != "stored" or not self.augmented,
            "--task.reference stored wants pairs that stay the same; leave augmentation off, or take computed",
        )
        require(
            not self.smoothing or self.preference == "sigmoid",
            "--task.smoothing belongs to --task.preference sigmoid; leave it at 0",
        )

    @property
    def augmented(self) -> bool:
        """Whether examples differ from epoch to epoch."""
        return any((self.sampling, self.deletion, self.swap, self.replacement))
