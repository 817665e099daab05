"""A run behind lm-evaluation-harness: its tasks, and ours from local files, without a network."""

import math
from collections.abc import Callable, Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from lm_eval import simple_evaluate
from lm_eval.api.model import TemplateLM
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from chinchilla_jax.config import require
from chinchilla_jax.errors import UserError
from chinchilla_jax.evaluation.scoring import Scorer
from chinchilla_jax.inference.sampling import Sampling
from chinchilla_jax.inference.text import Completer
from chinchilla_jax.training.load import Loaded

OURS = resources.files("chinchilla_jax.evaluation") / "lm_tasks"
NEW_TOKENS, ROWS, SEED = 256, 8, 1234
LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
SETTINGS = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")


class Harness(TemplateLM):
    """A loaded run as lm-eval asks for one.

    A text is encoded as `transformers` encodes it with the exported folder: nothing stands before it but the
    bos of an imported model that has one. What has no context follows the bos that the tokenizer names, if any.
    """

    def __init__(self, loaded: Loaded):
        super().__init__()
        self.tok, cfg = loaded.tokenizer, loaded.program.config
        self.scorer = Scorer(loaded.program, loaded.params)
        self.max_length = cfg.context - len(self.scorer.soft)
        self.completer = Completer(cfg.model, self.tok, Sampling(0.0))
        self.params, self.weights = loaded.params, None
        self.begin = list(self.tok.start) if self.tok.adds_bos else []

    @property
    def eot_token_id(self) -> int:
        """What ends a document."""
        return self.tok.closing

    @property
    def prefix_token_id(self) -> int:
        """What stands before one."""
        return self.tok.opening

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs) -> list[int]:
        """Text -> ids."""
        begin = {None: self.begin, True: list(self.tok.start), False: []}[add_special_tokens]
        return begin + self.tok.encode(string)

    def _loglikelihood_tokens(self, requests, disable_tqdm: bool = False, **kwargs) -> list[tuple[float, bool]]:
        """(log p, greedy) of requests ((context, continuation), their ids); a context too long loses its beginning."""
        pairs = []
        for _, context, continuation in requests:
            room = self.max_length + 1 - len(continuation)
            require(room > 0, f"a continuation has {len(continuation)} tokens, and the model reads {self.max_length}")
            pairs.append((context[-room:], continuation))
        found = self.scorer(pairs)
        for (names, *_), one in zip(requests, found):
            self.cache_hook.add_partial("loglikelihood", names, one)
        return found

    def loglikelihood_rolling(self, requests, disable_tqdm: bool = False) -> list[float]:
        """log p of whole texts, every token once, in windows that begin with the last token of the one before."""
        windows, owners = [], []
        for number, request in enumerate(requests):
            ids = self.tok.encode(request.args[0])
            each = get_rolling_token_windows(ids, self.prefix_token_id, self.max_length, 1)
            windows += map(make_disjoint_window, each)
            owners += [number] * (len(windows) - len(owners))
        found = [0.0] * len(requests)
        for number, (log_p, _) in zip(owners, self.scorer(windows)):
            found[number] += log_p
        for request, log_p in zip(requests, found):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, log_p)
        return found

    def generate_until(self, requests, disable_tqdm: bool = False) -> list[str]:
        """Texts up to the first of their stop strings, the end of the document, or the most tokens."""
        found, alike = {}, {}
        for number, request in enumerate(requests):
            alike.setdefault(repr(sorted(request.args[1].items())), []).append(number)
        self.weights = self.weights or self.completer.prepare(self.params)
        for numbers in alike.values():
            stops, new, self.completer.how = generation(requests[numbers[0]].args[1])
            room = self.max_length - new
            require(room > 0, f"a task asks for {new} new tokens, and the model reads {self.max_length} in all")
            prompts = {i: (self.tok_encode(requests[i].args[0]) or [self.prefix_token_id])[-room:] for i in numbers}
            order = sorted(numbers, key=lambda i: -len(prompts[i]))
            for chosen in (order[at : at + ROWS] for at in range(0, len(order), ROWS)):
                rows = [*chosen, *[chosen[0]] * (ROWS - len(chosen))]  # always as many, so that they share a program
                ids, seeds = [prompts[i] for i in rows], [SEED + i for i in rows]
                found |= zip(chosen, self.completer.complete(self.weights, ids, new, seeds, stops=stops))
        texts = [found[number] for number in range(len(requests))]
        for request, text in zip(requests, texts):
            self.cache_hook.add_partial("generate_until", request.args, text)
        return texts


def generation(asked: dict[str, Any]) -> tuple[list[str], int, Sampling]:
    """Stop strings, most tokens and sampling of a task's generation_kwargs.

    Greedy unless it says do_sample, or gives a temperature above 0 and does not say.
    """
    asked = {name: value for name, value in asked.items() if value is not None}
    until = asked.pop("until", None) or []
    new = [asked.pop(name) for name in LIMITS if name in asked]
    samples = asked.pop("do_sample", asked.get("temperature", 0.0) > 0)
    unknown = {*asked} - {*SETTINGS}
    require(not unknown, f"generation_kwargs {', '.join(sorted(unknown))}: known are until, {', '.join(LIMITS)}, "
            f"do_sample, {', '.join(SETTINGS)}")  # fmt: skip
    how = Sampling(**asked) if samples else Sampling(0.0)
    return [until] if isinstance(until, str) else until, int((new or [NEW_TOKENS])[0]), how


def run(loaded: Loaded, tasks: Sequence[str], limit: int | None, shots: int | None) -> dict[str, dict[str, Any]]:
    """{task: {metric: value}} of tasks: names of ours, YAML files, or names of lm-eval's own."""
    found = [tried(task, specification, task) for task in tasks]
    named = [task for task in found if isinstance(task, str)]
    manager = TaskManager(include_defaults=bool(named))
    for name in named:
        require(name in manager.all_tasks, f"--lm-eval {name} is no task of lm-eval, no YAML file, and none of ours: "
                f"{', '.join(sorted(ours()))}")  # fmt: skip
    found = [task for name, one in zip(tasks, found) for task in tried(name, manager.load, one)["tasks"].values()]
    results = simple_evaluate(Harness(loaded), tasks=found, limit=limit, num_fewshot=shots, bootstrap_iters=0,
                              task_manager=manager)  # fmt: skip
    return {name: figures(row, results["samples"].get(name, [])) for name, row in results["results"].items()}


def tried(task: str, read: Callable, told: Any) -> Any:
    """What `read` makes of what is told of a task; a `UserError` for whatever its file or its documents have wrong."""
    try:
        return read(told)
    except UserError:
        raise
    except Exception as error:
        why = f"{type(error).__name__}: {str(error)[:200]}"
        raise UserError(
            f"--lm-eval {task} could not be read ({why}); correct its YAML file or its documents"
        ) from error


def ours() -> dict[str, Path]:
    """The tasks that come with the package, by name."""
    return {Path(path.name).stem: Path(str(path)) for path in OURS.iterdir() if path.name.endswith(".yaml")}


def specification(task: str) -> str | dict[str, Any]:
    """A task of a YAML file, whose data files lie beside it, as lm-eval takes it; another one by its name."""
    path = ours().get(task, Path(task))
    if not path.is_file():
        return task
    found = load_yaml(path, resolve_func=True)
    require(isinstance(found, dict) and "task" in found, f"{path} names no task")
    kwargs = found.get("dataset_kwargs") or {}
    if files := kwargs.get("data_files"):
        found["dataset_kwargs"] = {**kwargs, "data_files": beside(path.parent.resolve(), files)}
    return found


def beside(folder: Path, files: Any) -> Any:
    """A file in a folder, or each of a list, or of a table of them."""
    if isinstance(files, dict):
        return {split: beside(folder, file) for split, file in files.items()}
    return [beside(folder, file) for file in files] if isinstance(files, list) else str(folder / files)


def figures(row: dict[str, Any], samples: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The metrics of a task, with the standard error of those that are means of one number a document.

    A task that reads its answers in several ways has a sample and a metric for each: `exact_match,strict-match`.
    """
    samples = list(samples)
    documents = len({sample["doc_id"] for sample in samples})
    found: dict[str, Any] = {"documents": documents} if samples else {}
    keys = {key: key.split(",", 1) for key, value in row.items() if "," in key and isinstance(value, (int, float))}
    metrics = [metric for metric, _ in keys.values()]
    for key, (metric, way) in keys.items():
        name = metric if metrics.count(metric) == 1 else key
        found[name] = float(row[key])
        each = [sample[metric] for sample in samples if sample["filter"] == way and is_number(sample.get(metric))]
        if len(each) == documents > 1 and math.isclose(np.mean(each), row[key], abs_tol=1e-9):
            found[f"{name}_stderr"] = float(np.std(each, ddof=1) / math.sqrt(documents))
    return found


def is_number(value: Any) -> bool:
    """Whether a document's own part of a metric is a number."""
    return isinstance(value, (bool, int, float))
