"""Continue prompts with a trained model, streaming to the terminal."""

import sys
from pathlib import Path

from chinchilla_jax.commands import hints, startup
from chinchilla_jax.commands.device_faults import explained
from chinchilla_jax.config import require
from chinchilla_jax.errors import UserError

SECTIONS = ("mesh", "checkpoint.verify")
LONGEST = 1_000_000  # tokens of a text with its prompt
CLUSTER = True


def options(parser) -> None:
    """Flags of this command."""
    parser.add_argument("--prompt", action="append", metavar="TEXT", help="text to continue; may be given repeatedly")
    parser.add_argument("--prompt-file", metavar="FILE", help="file whose text is a prompt")
    parser.add_argument("--interactive", action="store_true", help="read prompts from the terminal, one a line")
    parser.add_argument("--chat", action="store_true", help="talk with a model that was tuned on dialogues, in the "
        "run's own template; --prompt, if given, is said first")  # fmt: skip
    parser.add_argument("--system", default="", metavar="TEXT", help="with --chat: what the model is told before")
    parser.add_argument("--max-new-tokens", type=int, default=200, metavar="N", help="most tokens of a text [200]")
    parser.add_argument("--adapter", action="append", metavar="DIR", help="tuned run whose base is --run-dir; may be "
        "given repeatedly: each continues every prompt")  # fmt: skip
    parser.add_argument("--samples", type=int, default=1, metavar="N", help="texts a prompt [1]")
    parser.add_argument("--temperature", type=float, default=0.8, metavar="T", help="0 is greedy [0.8]")
    parser.add_argument("--top-k", type=int, default=0, metavar="K", help="draw among the K likeliest; 0 is all [0]")
    parser.add_argument("--top-p", type=float, default=0.95, metavar="P", help="draw among the likeliest P [0.95]")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="decides the draws [0]")
    parser.add_argument("--lookup", action="store_true", help="guess how a single text repeats its prompt or itself; "
        "the text stays the same")  # fmt: skip
    parser.add_argument("--weights", choices=("float", "int8"), default="float", help="form of the weights [float]")


def run(config, args) -> dict:
    """Continue what was given, then, with --interactive, what is typed."""
    import jax

    from chinchilla_jax.inference.sampling import Sampling
    from chinchilla_jax.inference.text import Completer
    from chinchilla_jax.parallel import host
    from chinchilla_jax.training.load import adapter, load

    host.keep_freed_memory()
    require(0 < args.max_new_tokens <= LONGEST, f"--max-new-tokens must lie in [1, {LONGEST:,}]")
    require(args.samples > 0, "--samples must be at least 1")
    require(0 <= args.seed < 2**32, "--seed must lie in [0, 2**32)")
    how = Sampling(args.temperature, args.top_k, args.top_p)
    require(args.chat or not args.system, "--system belongs to --chat")
    require(not (args.chat and args.interactive), "--chat reads from the terminal by itself; leave --interactive out")
    require(
        not args.chat or not (args.adapter or args.lookup or args.samples > 1),
        "--chat gives one answer by one model; leave --adapter, --lookup and --samples out, and name a tuned run by "
        "--run-dir",
    )
    prompts = given_prompts(args)
    require(
        bool(prompts) or not (args.chat and args.json), "--chat --json reads nothing from the terminal; give --prompt"
    )
    alone = len(prompts) <= 1 and args.samples == 1
    require(alone or not args.lookup, "--lookup guesses for a text that is alone; leave it out, or ask for one text")
    several = jax.process_count() > 1  # then each has a part of the parameters, and all compute every token
    typed = args.interactive or args.chat
    require(not (several and typed), "--interactive and --chat are for one process; give --prompt to several")
    loaded = load(config, args.run_dir, whole_mesh=several)
    if args.chat:
        return talk(loaded, how, args, prompts)
    completer = Completer(loaded.program.config.model, loaded.tokenizer, how, args.weights, args.lookup)
    models = {folder: adapter(config, folder, loaded) for folder in args.adapter or ()} or {"": loaded}
    both = {name: model.program.config.task.source == "bidirectional" for name, model in models.items()}
    models = {name: completer.prepare(model.params) for name, model in models.items()}
    meant = loaded.program.config.context

    def complete(prompts: list[str]) -> list[dict]:
        longest = max(len(loaded.tokenizer.encode(prompt)) for prompt in prompts) + args.max_new_tokens
        require(longest <= LONGEST, f"prompt and --max-new-tokens make {longest:,} tokens, more than {LONGEST:,}")
        note_length(longest, meant)
        rows = [prompt for prompt in prompts for _ in range(args.samples)]
        seeds = [row_seed(args.seed, row) for row in range(len(rows))]
        found = []
        for name, weights in models.items():
            print(f"--- {name} ---" if name else "", end="\n" if name else "")
            made = show(completer.stream(weights, rows, args.max_new_tokens, seeds, both=both[name]), rows)
            found += [{**row, "adapter": name} if name else row for row in made]
        return found

    done = complete(prompts) if prompts else []
    if args.interactive:
        done += chat(lambda line: complete([line]))
    following = hints.line("report", "--run-dir", args.run_dir)
    return {"step": loaded.step, "completions": done, "next": following}


def talk(loaded, how, args, prompts: list[str]) -> dict:
    """A conversation: what --prompt says, then what is typed, until it ends."""
    from chinchilla_jax.inference.chat import Conversation
    from chinchilla_jax.tasks.kept import own_template
    from chinchilla_jax.tasks.render import Renderer

    run_dir, done = Path(args.run_dir), []
    template = own_template(run_dir)
    require(
        template is not None,
        f"{run_dir} was not tuned on dialogues and has no chat template; tune it with finetune --task.train FILE",
    )
    task = loaded.program.config.task
    read = {"both": task.source == "bidirectional", "last": task.turns == "last"}
    renderer = Renderer(template, loaded.tokenizer)
    conversation = Conversation(loaded.program.config.model, renderer, how, args.system, **read, form=args.weights)
    weights = conversation.engine.prepare(loaded.params)

    def answer(text: str) -> list[dict]:
        require(bool(text.strip()), "nothing was said")
        longest = len(conversation.ids) + len(conversation.prompt(text)) + args.max_new_tokens
        note_length(longest, loaded.program.config.context)
        said = ""
        for more in conversation.ask(weights, text, args.max_new_tokens, row_seed(args.seed, len(done))):
            print(more, end="", flush=True)
            said += more
        print()
        done.append({"prompt": text, "text": said})
        return []

    for text in prompts:
        print(f"> {text}")
        answer(text)
    if not args.json:
        chat(answer)
    following = hints.line("report", "--run-dir", args.run_dir)
    return {"step": loaded.step, "completions": done, "ids": conversation.ids, "next": following}


def note_length(longest: int, meant: int) -> None:
    """Say where a text may become longer than its model is meant for."""
    if longest > meant:
        print(f"note: {longest} tokens exceed the {meant} that the model is meant for", file=sys.stderr)


def chat(complete) -> list[dict]:
    """Continue what is typed, a line at a time, until it ends; a line that cannot be continued is said and passed."""
    done = []
    while startup.lost(sys.stdout) is None:
        try:
            done += complete(input("\n> "))
        except (EOFError, KeyboardInterrupt):
            print()  # what follows does not stand behind the prompt sign
            break
        except Exception as error:
            known = error if isinstance(error, UserError) else explained(error, "generate")
            if known is None:
                raise
            print(f"error: {known}", file=sys.stderr)
    return done


def row_seed(seed: int, row: int) -> int:
    """What decides the draws of a row: no two pairs of --seed and row share it but by accident."""
    import numpy as np

    return int(np.random.SeedSequence([seed, row]).generate_state(1)[0])


def given_prompts(args) -> list[str]:
    """The prompts of the command line; none at all means the beginning of a text, unless one is going to be typed."""
    from chinchilla_jax.data import text

    prompts = list(args.prompt or [])
    if args.prompt_file:
        try:
            prompts.append(text.whole(Path(args.prompt_file)))
        except OSError as error:
            raise UserError(f"--prompt-file {args.prompt_file}: {error.strerror}") from error
    return prompts or ([] if args.interactive or args.chat else [""])


def show(stream, prompts: list[str]) -> list[dict]:
    """Print a single text as it grows, several when they are done; returns them all."""
    live, texts = len(prompts) == 1, [""] * len(prompts)
    print(prompts[0] if live else "", end="", flush=True)
    for gained in stream:
        if startup.lost(sys.stdout):
            break  # nobody reads on, as in `| head`
        texts = [text + more for text, more in zip(texts, gained)]
        if live:
            print(gained[0], end="", flush=True)
    if live:
        print()
    for number, (prompt, text) in enumerate(zip(prompts, texts)):
        if not live:
            print(f"--- {number + 1} ---\n{prompt}{text}")
    return [{"prompt": prompt, "text": text} for prompt, text in zip(prompts, texts)]
