"""Tiny runs through the command line, in this process or in one of their own, and what is left of them on disk."""

import contextlib
import functools
import io
import json
import operator
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

from tests import xla
from tests.forked import Forked

ROOT = Path(__file__).resolve().parent.parent
WORDS = [
    "the",
    "sea",
    "wind",
    "carries",
    "old",
    "songs",
    "over",
    "cold",
    "stone",
    "and",
    "bright",
    "naïve",
    *"海风吹过",
]

# One layer, and every hook and several checkpoints within 20 steps. No two settings of the model are equal.
SETTINGS = {
    "model.layers": 1,
    "model.d-model": 32,
    "model.heads": 2,
    "model.head-dim": 12,
    "model.d-ff": 48,
    "train.seq-len": 16,
    "train.batch-size": 8,
    "train.steps": 20,
    "train.log-every": 1,
    "train.eval-every": 8,
    "train.eval-batches": 3,
    "train.sample-every": 8,
    "train.sample-tokens": 4,
    "optimizer.warmup-steps": 2,
    "optimizer.peak-lr": 0.003,
    "checkpoint.every": 5,
    "checkpoint.keep": 50,
}

# For runs whose samples no test looks at: what decodes takes as long to compile as what trains.
SILENT = {"train.sample-tokens": 0}


@contextlib.contextmanager
def guarded():
    """Inside, a loop that moves data between host and device without saying so fails, in the loader's thread too; its
    hooks, of which sampling is driven by the host, may."""
    import jax

    from chinchilla_jax.training import loop

    def under(guard, function):
        def call(*args):
            before = jax.config.jax_transfer_guard
            jax.config.update("jax_transfer_guard", guard)
            try:
                return function(*args)
            finally:
                jax.config.update("jax_transfer_guard", before)

        return call

    go, evaluate = loop.Run.go, loop.Run.evaluate
    loop.Run.go, loop.Run.evaluate = under("disallow", go), under("allow", evaluate)
    try:
        yield
    finally:
        loop.Run.go, loop.Run.evaluate = go, evaluate


# What decides the compiled functions of a run.
COMPILED = operator.attrgetter(
    *("model", "objective", "adversarial", "corruption", "optimizer", "sparsity", "tune", "task"),
    *("train.steps", "train.seq_len", "train.batch_size", "train.microbatches", "train.seed"),
)
PROGRAMS: dict = {}


@contextlib.contextmanager
def compiled_once():
    """Inside, runs that compile the same take one another's programs, and trace and load nothing again.

    Not for tests that replace something which is compiled.
    """
    import pytest

    from chinchilla_jax.inference import text
    from chinchilla_jax.training.program import Program

    init = Program.__init__

    def noted(program, *args, **how):
        init(program, *args, **how)
        program.own = how.get("make"), str(how.get("heads"))

    def kept(make):
        def call(program, rows):
            key = make, COMPILED(program.config), program.mesh, rows, getattr(program, "own", program)
            if key not in PROGRAMS:
                PROGRAMS[key] = make(program, rows)
            return PROGRAMS[key]

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Program, "__init__", noted)
        patch.setattr(Program, "step", kept(Program.step))
        patch.setattr(Program, "evaluate", kept(Program.evaluate))
        patch.setattr(text, "Engine", engine)
        yield


@functools.cache
def engine(*args):
    """The engine of a model's shape; it keeps nothing of the texts that it writes."""
    from chinchilla_jax.inference.engine import Engine

    return Engine(*args)


# Code that kills a run behind the metrics of step 13, with what was saved by then complete.
KILL = """
import os, signal
from chinchilla_jax.training import loop
log = loop.Run.log
def kill(self, pending, waited):
    log(self, pending, waited)
    if pending and pending[0] == 13:
        self.checkpoints.wait()
        os.kill(os.getpid(), signal.SIGKILL)
loop.Run.log = kill
"""


def write_text(folder: Path, seed: int = 0, documents: int = 12) -> None:
    """A folder with some made-up documents."""
    draw = random.Random(seed)
    folder.mkdir(parents=True)
    for number in range(documents):
        lines = (" ".join(draw.choices(WORDS, k=draw.randint(1, 12))) for _ in range(60))
        (folder / f"{number:02}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def prepare(folder: Path, seed: int = 0) -> Path:
    """A token store made of such a text."""
    write_text(folder / "text", seed)
    flags = {"data.sources": folder / "text", "data.store": folder / "store", "data.vocab-size": 320}
    code, said = call("prepare", **flags, **{"data.valid-fraction": 0.15})
    assert code == 0, said
    return folder / "store"


def arguments(settings: dict) -> list[str]:
    """{"train.steps": 5} -> ["--train.steps", "5"]; None is a flag without a value."""
    pairs = [[f"--{name}"] if value is None else [f"--{name}", str(value)] for name, value in settings.items()]
    return [word for pair in pairs for word in pair]


def call(command: str, *words: str, **settings) -> tuple[int, str]:
    """Run a command in this process: exit code, and what it said on both streams."""
    from chinchilla_jax.__main__ import main

    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = main([command, *words, *arguments(settings)])
    return code, said.getvalue()


def ask(command: str, *words: str, **settings) -> dict:
    """The report of a command with --json, which must be all that is on standard output."""
    from chinchilla_jax.__main__ import main

    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()) as chatter:
        code = main([command, *words, *arguments(settings), "--json"])
    assert code == 0, chatter.getvalue()
    return json.loads(said.getvalue())


def pretrain(run_dir: Path, store: Path, *words: str, **changes) -> tuple[int, str]:
    """`pretrain` of the tiny run with some settings changed, in this process."""
    return call("pretrain", *words, **{**SETTINGS, "data.store": store, "run-dir": run_dir, **changes})


def trained(run_dir: Path, store: Path, *words: str, **changes) -> Path:
    """`pretrain`, which must succeed."""
    code, said = pretrain(run_dir, store, *words, **changes)
    assert code == 0, said
    return run_dir


def fresh(*arguments: str) -> subprocess.CompletedProcess:
    """A command in an interpreter of its own."""
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )


def environment(devices: int) -> dict[str, str]:
    """What a process of so many devices wants set beside the tests' own environment."""
    return {"XLA_FLAGS": xla.flags(devices), "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


def start(command: list[str], devices: int, **popen) -> subprocess.Popen:
    """`python ...` in a process of its own, with so many devices."""
    return subprocess.Popen(
        [sys.executable, *command],
        env=os.environ | environment(devices),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **popen,
    )


def start_pretrain(run_dir: Path, store: Path, *words: str, devices=1, wrap="", **changes) -> Forked:
    """`pretrain` of the tiny run in a process of its own; `wrap` is Python to run before it."""
    settings = {**SETTINGS, "data.store": store, "run-dir": run_dir, **changes}
    return Forked(wrap, ["pretrain", *words, *arguments(settings)], environment(devices))


def finish(process: subprocess.Popen | Forked, code: int = 0, seconds: float = 240) -> str:
    """Wait for a process that is to end with `code` within `seconds`; what it said."""
    try:
        said = process.communicate(timeout=seconds)[0]
    finally:
        process.kill()  # nothing outlives its test
    assert process.returncode == code, said
    return said


def rows(run_dir: Path, name: str = "metrics") -> list[dict]:
    """The rows of a .jsonl file."""
    return [json.loads(line) for line in (run_dir / f"{name}.jsonl").read_text().splitlines()]


def losses(run_dir: Path) -> dict[int, float]:
    """Training loss by step."""
    return {row["step"]: row["loss"] for row in rows(run_dir) if "loss" in row}


def saved(run_dir: Path) -> list[int]:
    """The steps of the checkpoints."""
    return sorted(int(path.name) for path in (run_dir / "checkpoints").iterdir() if path.name.isdecimal())


def leaves(run_dir: Path, step: int) -> dict:
    """Shape, type and fingerprint of every leaf of a checkpoint."""
    return json.loads((run_dir / "checkpoints" / str(step) / "manifest.json").read_text())["leaves"]


def config(run_dir: Path):
    """The settings of a run."""
    from chinchilla_jax.commands import config_files

    return config_files.load(run_dir / "config.json")


def naive_loss(run_dir: Path, store: Path, params) -> tuple[float, int]:
    """Mean loss of a token over the validation stream, and how many there are: the plain forward pass, in float64.

    Windows and documents are cut here once more, from the files alone.
    """
    import jax
    import numpy as np

    from chinchilla_jax.types import Batch

    cfg, length = config(run_dir).model, config(run_dir).train.seq_len
    tokens = np.fromfile(store / "valid.bin", "<u2").astype(np.int32)
    starts = set(np.load(store / "valid.idx.npy").tolist())
    total, count = 0.0, 0
    with jax.enable_x64(True):
        exact = jax.tree.map(lambda leaf: jax.numpy.asarray(leaf, "float64"), params)
        summed = plain_loss(cfg)
        for begin in range(0, len(tokens) - 1, length):
            row = Batch(*(np.zeros((1, length), kind) for kind in ("i4", "i4", "f8", "i4", "i4")))
            segment, position = 1, -1
            for column, place in enumerate(range(begin, min(begin + length, len(tokens) - 1))):
                new = column > 0 and place in starts
                segment, position = (segment + 1, 0) if new else (segment, position + 1)
                for field, value in zip(vars(row), (tokens[place], tokens[place + 1], 1, segment, position)):
                    getattr(row, field)[0, column] = value
            total, count = total + float(summed(exact, row)), count + int(row.weights.sum())
    return total / count, count


@functools.cache
def plain_loss(cfg):
    """loss(params, batch) of the plain forward pass, compiled."""
    import jax

    from tests.model import twin

    return jax.jit(functools.partial(twin.loss, cfg=cfg))


def state(run_dir: Path, step: int | None = None):
    """The state of a checkpoint (the newest for None), as numpy."""
    import jax
    import numpy as np

    from chinchilla_jax.training import restore
    from chinchilla_jax.training.program import Program

    program = Program(config(run_dir))
    found = restore.newest(run_dir / "checkpoints", program.abstract, level="full", step=step)
    return jax.tree.map(np.asarray, found.state)


def forget(run_dir: Path, step: int) -> None:
    """Remove the checkpoints after `step`, as if the run had been killed before them."""
    for newer in saved(run_dir):
        if newer > step:
            shutil.rmtree(run_dir / "checkpoints" / str(newer))


def assert_same_run(found: Path, expected: Path, step: int = 20) -> None:
    """The same bytes of metrics.jsonl, and the same bits of the whole state after `step`."""
    assert (found / "metrics.jsonl").read_bytes() == (expected / "metrics.jsonl").read_bytes()
    assert leaves(found, step) == leaves(expected, step)


def signal_when(monkeypatch, owner, name: str, due, number: int) -> None:
    """Send this process a signal when `owner.name` is called for the first time with arguments that `due` accepts."""
    called, sent = getattr(owner, name), []

    def wrapper(*args, **kwargs):
        if not sent and due(*args, **kwargs):
            sent.append(os.kill(os.getpid(), number))
        return called(*args, **kwargs)

    monkeypatch.setattr(owner, name, wrapper)
