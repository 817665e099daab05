"""Runs a ladder with the project's own trainer and keeps one row per final loss.

    runs/sweep/  ladder.json  runs.jsonl  trunks/CLUSTER/...  RUN_ID/...

A branch is its cluster's trunk up to the fork, whose checkpoint is linked into the branch's own run directory, and the
cooldown after it: the same numbers as the whole run, since data are a function of (seed, step) alone. Killed anywhere,
the same call goes on: every run resumes by itself, and a run whose row is there is not repeated.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from chinchilla_jax.config import Config, require
from chinchilla_jax.data.store import TokenStore
from chinchilla_jax.disk import write_json
from chinchilla_jax.errors import Preempted
from chinchilla_jax.evaluation.likelihood import Likelihood
from chinchilla_jax.parallel.collectives import from_first
from chinchilla_jax.planning import ladder
from chinchilla_jax.planning.ladder import Ladder, Run
from chinchilla_jax.scaling import counts
from chinchilla_jax.training.commits import PARTIAL
from chinchilla_jax.training.hooks import Hook
from chinchilla_jax.training.loop import pretrain
from chinchilla_jax.training.metrics import Terminal, append, read, take_back

ROWS, PLAN = "runs.jsonl", "ladder.json"


def sweep(plan: Ladder, store: TokenStore, folder: Path, terminal: Terminal) -> list[dict[str, Any]]:
    """Run what `folder` has no row of yet; all rows, in the schema of `scaling.runs`.

    Raises `UserError` where `folder` holds another ladder, and what `pretrain` raises.
    """
    _remember(plan, folder)
    if jax.process_index() == 0:
        take_back(folder / ROWS, float("inf"))  # but for a torn line, which a kill leaves
    for number, run in enumerate(plan.runs, 1):
        if from_first(run.run_id in {row["run_id"] for row in read(folder / ROWS)}):
            continue
        terminal.say(f"run {number} of {len(plan.runs)}: {run.run_id}, {run.config.train.steps} steps")
        if run.fork:
            _branch(plan, run, store, folder)
        last = _quietly(run.config, folder / run.run_id, store, _validation)
        require("valid_loss" in last, f"the validation of {run.run_id} failed; run the same command again")
        if jax.process_index() == 0:
            append(folder / ROWS, row(run, store, last["valid_loss"]))
        terminal.say(f"{run.run_id}: {last['valid_loss']:.4f} nats a token")
        jax.clear_caches()  # or the programs of every run would stay to the end
    return read(folder / ROWS)


def _remember(plan: Ladder, folder: Path) -> None:
    told = [{"run_id": run.run_id, "fork": run.fork, "tokens": run.tokens, "params": run.params} for run in plan.runs]
    path = folder / PLAN
    folder.mkdir(parents=True, exist_ok=True)
    if path.exists():
        same = json.loads(path.read_text()) == told
        require(same, f"{folder} holds another ladder; choose another --run-dir, or give the options it was begun with")
        return
    if jax.process_index() == 0:
        write_json(path, told)


def _branch(plan: Ladder, run: Run, store: TokenStore, folder: Path) -> None:
    """Bring the trunk to the fork and put its checkpoint and its metrics into the branch's run directory."""
    own = folder / run.run_id
    if from_first((own / "checkpoints" / str(run.fork)).exists() or (own / "config.json").exists()):
        return
    forks = [other.fork for other in plan.runs if other.cluster_id == run.cluster_id]
    trunk = folder / "trunks" / run.cluster_id
    if from_first(not (trunk / "checkpoints" / str(run.fork)).exists()):
        _grow(trunk, ladder.trunk_of(run.config, max(forks)), run.fork, store)
    if jax.process_index() == 0:
        link(trunk, own, run.fork)
    from_first(None)  # the others go on when it is there


def _grow(trunk: Path, config: Config, fork: int, store: TokenStore) -> None:
    """Train the trunk up to `fork`, and no further: what it saves later would replace that checkpoint."""
    rang = False

    def alarm(done: int) -> str | None:
        nonlocal rang
        rang = done == fork
        return "the fork" if rang else None

    try:
        _quietly(config, trunk, store, lambda *_: [], alarm)
    except Preempted:
        if not rang:
            raise


def link(trunk: Path, branch: Path, step: int) -> None:
    """The trunk's run directory as it was after `step`, as the branch's: the checkpoint last and in one rename."""
    partial = branch / "checkpoints" / f"{step}{PARTIAL}"
    shutil.rmtree(branch, ignore_errors=True)
    partial.parent.mkdir(parents=True)
    for name in ("metrics.jsonl", "timing.jsonl"):
        if (trunk / name).exists():
            shutil.copyfile(trunk / name, branch / name)
    source = trunk / "checkpoints" / str(step)
    try:
        shutil.copytree(source, partial, copy_function=os.link)
    except (OSError, shutil.Error):  # a file system without hard links
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(source, partial)
    os.rename(partial, partial.with_name(str(step)))


def _quietly(config: Config, run_dir: Path, store: TokenStore, hooks: Callable, *alarm: Callable) -> dict[str, Any]:
    """`pretrain` without a word."""
    named = {"alarm": alarm[0]} if alarm else {}
    return pretrain(config, run_dir, store, hooks, Terminal(active=False), **named)


def _validation(program, store: TokenStore) -> list[Hook]:
    """The whole validation set, at the end only."""

    def run(state, poll):
        return {"valid_loss": Likelihood(program, store.valid)(program.evaluated(state), poll)["loss_nats_per_token"]}

    return [Hook(0, run, "validation")]


def row(run: Run, store: TokenStore, loss: float) -> dict[str, Any]:
    """A run in the schema of `scaling.runs`; `loss` in nats a token over the whole validation set."""
    config, model, train = run.config, run.config.model, run.config.train
    total = counts.parameters(model)
    return {
        "run_id": run.run_id,
        "cluster_id": run.cluster_id,
        "seed": train.seed,
        "n_total": total,
        "n_nonembed": counts.non_embedding(model),
        "n_matmul": counts.matmul_parameters(model),
        "n_active": total,
        "tokens": run.tokens,
        "unique_tokens": min(run.tokens, store.manifest["splits"]["train"]["tokens"]),
        "batch_tokens": train.batch_size * train.seq_len,
        "steps": train.steps,
        **{f"flops_{name}": run.tokens * counts.flops(model, train.seq_len, name) for name in counts.ACCOUNTINGS},
        "loss": loss,
        "loss_kind": "val",
        "unit": "nats_token",
        "bytes_per_token": store.valid.bytes_per_token,
        "schedule": config.optimizer.schedule,
        "decayed": True,
        "lr": config.optimizer.peak_lr,
        "optimizer": "adamw",
        "dataset": Path(config.data.store).name,
        "tokenizer": store.manifest["tokenizer"]["sha256"][:12],
    }
