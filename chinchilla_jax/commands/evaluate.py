"""Evaluate a run on the whole validation set of its token store; with --attack, on faulty and hostile input too.

With --task it does the task that a run was tuned on, and with --lm-eval those of lm-evaluation-harness; neither needs a
token store. --task --attack says what of the task is still right under attack.
"""

from pathlib import Path

from chinchilla_jax.commands import cli, hints
from chinchilla_jax.config import flag, require

SECTIONS = (
    "data.store", "mesh", "train.batch_size", "train.microbatches", "train.seq_len", "checkpoint.verify",
    "task.kind", "task.test", "task.text", "task.label", "task.divider", "task.template", "task.style",
    "task.max_answer", "task.max_new_tokens", "task.data_dir",
)  # fmt: skip
ATTACK = ("attack_tokens", "radii", "typo_rates", "restarts", "attack_seed")
CLUSTER = True


def options(parser) -> None:
    """Flags of this command."""
    add = parser.add_argument
    add("--task", action="store_true", help="do the task of a tuned run on --task.test FILE, else on the examples that "
        "it knows: evaluated.json, evaluated_predictions.jsonl, evaluated.md")  # fmt: skip
    add("--lm-eval", nargs="+", metavar="TASK", help="answer tasks of lm-evaluation-harness: shakespeare_lines, "
        "shakespeare_words, shakespeare_bits, YAML files, or its own by name: lm_eval.json")  # fmt: skip
    add("--limit", type=int, metavar="N", help="with --lm-eval: only the first N documents of a task [all]")
    add("--shots", type=int, metavar="N", help="with --lm-eval: examples before a question [as the task says]")
    add("--attack", action="store_true", help="measure the loss under attack too: attack.json, attack.png; with --task "
        "what is still right under attack, for tasks with a head of their own")  # fmt: skip
    add("--radii", type=float, nargs="+", metavar="R", help="sizes of the attack, in norms of the token's own "
        "embedding [0.025 0.05 0.1 0.2]")  # fmt: skip
    add("--attack-tokens", type=int, metavar="N", help="tokens attacked, spread over the set; a report takes a million "
        "or more [8192]")  # fmt: skip
    add("--typo-rates", type=float, nargs="+", metavar="Q", help="shares of characters, and of tokens, that are wrong "
        "[0.01 0.02 0.05 0.1]")  # fmt: skip
    add("--restarts", type=int, metavar="N", help="starts of an attack, of which the worst counts [2]")
    add("--attack-seed", type=int, metavar="N", help="decides random starts and mistakes [0]")


def run(config, args) -> dict:
    """Measure the best or newest checkpoint on the whole validation set; evaluation.json keeps the figures."""
    given = {name: getattr(args, name) for name in ATTACK if getattr(args, name) is not None}
    asked = {name for name in vars(args) if name.startswith("task.")}
    check(args, given, asked)
    if args.task:
        return tuned_task(config, args, asked, attack_of(args, given))
    if args.lm_eval:
        return harness_tasks(config, args)

    from chinchilla_jax.data.store import TokenStore
    from chinchilla_jax.evaluation.compression import bits_per_byte
    from chinchilla_jax.evaluation.likelihood import Likelihood
    from chinchilla_jax.parallel import host
    from chinchilla_jax.tasks import kept
    from chinchilla_jax.training.load import load, run_folder

    attack = attack_of(args, given)
    host.keep_freed_memory()
    folder, named = run_folder(args.run_dir), "data.store" in vars(args) or args.config
    require(
        bool(named) or not (folder / kept.FILE).exists(),
        f"{args.run_dir} was tuned on examples: evaluate it with --task, or on text with --data.store STORE",
    )
    store = TokenStore.open(config.data.store)
    loaded = load(config, args.run_dir, whole_mesh=True)
    require(
        store.tokenizer_sha256 == loaded.tokenizer.sha256,
        f"{config.data.store} was made with another tokenizer than the run's; prepare it again with "
        f"--data.tokenizer {args.run_dir}",
    )
    likelihood = Likelihood(loaded.program, store.valid)
    figures = likelihood(loaded.params)
    report = {
        "step": loaded.step,
        **figures,
        **left_out(loaded.params, figures["tokens"], len(store.valid.tokens) - 1),
        "bytes": store.valid.bytes,
        "documents": len(store.valid.starts),
        **bits_per_byte(store.valid_text),
    }
    for note in loaded.notes:
        print(f"warning: {note}")
    for name, value in report.items():
        print(f"{name:<22} {value:,.4f}" if isinstance(value, float) else f"{name:<22} {value:,}")
    for name, loss in likelihood.by_source.items():
        print(f"{'loss of ' + name:<22} {loss:,.4f}")
    report |= {"loss_by_source": likelihood.by_source} if likelihood.by_source else {}
    report |= zeros(loaded.params, Path(args.run_dir), loaded.step) | {"store": config.data.store}
    wrote = cli.keep(Path(args.run_dir, "evaluation.json"), report)
    attacked, more = under_attack(loaded, store, attack, Path(args.run_dir)) if attack else ({}, [])
    return {**report, **attacked, "wrote": [*wrote, *more], "next": hints.use(loaded.program.config, args.run_dir)}


def check(args, given: dict, asked: set[str]) -> None:
    """Refuse flags that do not belong together: `given` are those of --attack, `asked` those of --task."""
    for name in given:
        require(args.attack, f"{flag(name)} belongs to --attack; add it")
    for name in ("limit", "shots"):
        value = getattr(args, name)
        require(value is None or bool(args.lm_eval), f"--{name} belongs to --lm-eval; add it")
        require(value is None or value >= (name == "limit"), f"--{name} {value} is too few")
    require(args.task or not asked, f"{flag(min(asked, default=''))} belongs to --task; add it")
    unread = "data.store" in vars(args) and (args.task or args.lm_eval)
    require(
        not unread, f"--data.store is not read with {'--task' if args.task else '--lm-eval'}; leave one of them out"
    )
    several = (args.task or args.attack) and args.lm_eval
    require(not several, "--lm-eval is an evaluation apart from --task and --attack; run them one after the other")


def left_out(params, counted: int, there: int) -> dict[str, int]:
    """Says how many of the tokens that are there a soft prompt leaves no place for, if any."""
    from chinchilla_jax.model.adapted import prefix

    soft = len(prefix(params["embed"]["table"]))
    if not soft or counted == there:
        return {}
    print(
        f"note: {there - counted:,} of {there:,} tokens are left out: a soft prompt of {soft} stands before each "
        "document, and what it pushes out of a window is not read; a larger --train.seq-len leaves out less"
    )
    return {"tokens_left_out": there - counted}


def harness_tasks(config, args) -> dict:
    """The figures of tasks of lm-evaluation-harness, printed and kept in lm_eval.json."""
    from chinchilla_jax.evaluation import harness
    from chinchilla_jax.parallel import host
    from chinchilla_jax.training.load import load

    host.keep_freed_memory()
    loaded = load(config, args.run_dir, whole_mesh=True)
    source = loaded.program.config.task.source
    require(
        source == "causal",
        f"{args.run_dir} does not read its inputs from left to right (--task.source {source}), as tasks of lm-eval are "
        "scored; evaluate it with --task",
    )
    for note in loaded.notes:
        print(f"warning: {note}")
    found = harness.run(loaded, args.lm_eval, args.limit, args.shots)
    for task, figures in found.items():
        for name, value in figures.items():
            error = figures.get(f"{name}_stderr")
            if not name.endswith("_stderr"):
                print(f"{task:<22} {name:<18} {value:,.6g}{'' if error is None else f' +- {error:.3g}'}")
    report = {"step": loaded.step, "lm_eval": found}
    wrote = cli.keep(Path(args.run_dir, "lm_eval.json"), report)
    following = hints.use(loaded.program.config, args.run_dir)
    return {**report, "wrote": wrote, "next": following}


def tuned_task(config, args, given: set[str], attack) -> dict:
    """The run's own task on other examples, and under attack where that is asked for."""
    from chinchilla_jax.parallel import host
    from chinchilla_jax.training.load import run_folder
    from chinchilla_jax.training.metrics import Terminal
    from chinchilla_jax.tuning.examine import NAME, examine

    host.keep_freed_memory()
    folder = run_folder(args.run_dir)
    cli.writable(folder, "--run-dir")
    found = examine(config, folder, folder, given, attack, Terminal())
    for line in found["examples"]:
        print(line)
    for name, value in found.items():
        if name.startswith("test_"):
            print(f"{name:<28} {value:,.4f}")
    for line in found.pop("under_attack", []):
        print(line)
    for note in found.get("attack", {}).get("notes", []):
        print(f"warning: {note}")
    wrote = [str(folder / f"{NAME}{end}") for end in (".json", "_predictions.jsonl", ".md")]
    return {**found, "wrote": wrote, "next": hints.line("report", "--run-dir", args.run_dir)}


def zeros(params, run_dir: Path, step: int) -> dict:
    """The figures of a model that holds zeros, printed but for those of every layer; nothing of a dense one."""
    from chinchilla_jax.evaluation import density
    from chinchilla_jax.optim.sparsefile import FILE

    found = density.figures(params)
    if not found["zeros"]:
        return {}
    found["stored_bytes"] = density.stored_bytes(run_dir, step)
    print(f"{'density':<22} {found['density']:.4f} ({found['zeros']:,} zeros)")
    hint = "" if (run_dir / FILE).exists() else " (export --format sparse leaves the zeros out)"
    print(f"{'bytes on disk':<22} {found['stored_bytes']:,}{hint}")
    return found


def attack_of(args, given: dict):
    """The settings of --attack, if it is there."""
    from chinchilla_jax.evaluation.attack import Attack

    told = {FIELDS[name]: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    return Attack(**told) if args.attack else None


FIELDS = dict(zip(ATTACK, ("tokens", "radii", "typos", "restarts", "seed")))


def under_attack(loaded, store, attack, run_dir: Path) -> tuple[dict, list[str]]:
    """The figures of the protocol as {"attack": ...}, printed and written down; and what was written."""
    from chinchilla_jax.evaluation.attack import draw, measure, table
    from chinchilla_jax.training.metrics import Terminal

    terminal = Terminal()
    found = {"step": loaded.step, **measure(loaded, store, attack, terminal.say, terminal.show)}
    terminal.say(table(found))
    for note in found["notes"]:
        print(f"warning: {note}")
    wrote, picture = cli.keep(run_dir / "attack.json", found), run_dir / "attack.png"
    if wrote:
        draw(found, picture)
        wrote.append(str(picture))
    return {"attack": found}, wrote
