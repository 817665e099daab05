"""Serve a run directory over HTTP, as OpenAI's API has it."""

import ipaddress
import os
import sys
from pathlib import Path

from chinchilla_jax.config import require
from chinchilla_jax.errors import UserError

SECTIONS = ("mesh", "checkpoint.verify")
LEAVING = 2  # seconds that the scheduler's thread has to end, which it does at once unless it compiles


def options(parser) -> None:
    """Flags of this command."""
    parser.add_argument("--host", default="127.0.0.1", metavar="IP", help="address to listen on [127.0.0.1]")
    parser.add_argument("--port", type=int, default=8000, metavar="N", help="port; 0 takes a free one [8000]")
    parser.add_argument("--api-key-file", metavar="FILE", help="file with the key that requests must carry")
    parser.add_argument("--name", default="", metavar="NAME", help="name of the model [that of the folder]")
    parser.add_argument("--slots", type=int, default=8, metavar="N", help="texts decoded side by side [8]")
    parser.add_argument("--capacity", type=int, default=0, metavar="N", help="tokens of prompt and answer together "
        "[the length that the model is meant for, at most 2048]")  # fmt: skip
    parser.add_argument("--weights", choices=("float", "int8"), default="float", help="form of the weights [float]")
    parser.add_argument("--lookup", action="store_true", help="guess how a text that runs alone repeats its prompt")
    parser.add_argument("--adapter", action="append", metavar="DIR", help="tuned run whose base is --run-dir, as a "
        "model of its own, named by its folder; may be given repeatedly")  # fmt: skip
    parser.add_argument("--prefix-cache", type=int, default=256, metavar="MB", help="megabytes kept of beginnings of "
        "prompts, so that they are not read twice; 0 is none [256]")  # fmt: skip
    parser.add_argument("--queue", type=int, default=32, metavar="N", help="most requests that wait [32]")


def run(config, args) -> dict:
    """Serve until a signal ends it; running answers are finished first."""
    import asyncio
    import socket

    from chinchilla_jax.serving.limits import many_files

    require(1 <= args.slots <= 256, "--slots must lie in [1, 256]")
    require(1 <= args.queue <= 10_000, "--queue must lie in [1, 10000]")
    require(0 <= args.prefix_cache <= 1_000_000, "--prefix-cache must lie in [0, 1000000]")
    require(0 <= args.port < 65536, "--port must lie in [0, 65535]")
    key = _key(args)
    many_files()
    try:  # before the model is loaded, which may take minutes; who asks meanwhile waits
        family = socket.AF_INET6 if ":" in args.host else socket.AF_INET
        listening = socket.create_server((args.host, args.port), family=family, backlog=2048)
    except OSError as error:
        raise UserError(f"cannot listen on {args.host}:{args.port}: {error.strerror}; see --host and --port") from error
    with listening:
        service = _service(config, args, key)
        server = service.server()
        with server.capture_signals():  # from here on a signal ends it in order, also while it compiles
            host = f"[{args.host}]" if ":" in args.host else args.host
            url = f"http://{host}:{listening.getsockname()[1]}"
            service.scheduler.start()
            names = ", ".join(model.name for model in service.models)
            print(f"serving {names} on {url}/v1 (try {url}/ in a browser)", flush=True)
            print(f"next: curl {url}/v1/completions -H 'content-type: application/json' "
                  f"-d '{{\"prompt\": \"Once\"}}'", flush=True)  # fmt: skip
            with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
                runner.run(server.serve(sockets=[listening]))
            _leave(service.scheduler)
    return {"served": [model.name for model in service.models]}


def _leave(scheduler) -> None:
    """Wait for the scheduler's thread, or end without it: an interpreter that ends while XLA compiles would crash."""
    scheduler.thread.join(LEAVING)
    if scheduler.state == "failed":
        raise RuntimeError("the engine failed; its error stands above")
    if scheduler.thread.is_alive():
        sys.stdout.flush()
        os._exit(0)  # nothing is kept that an orderly end would save


def _key(args) -> str | None:
    """The key of --api-key-file; needed to listen to other machines."""
    from chinchilla_jax.data import text

    try:
        local = ipaddress.ip_address(args.host).is_loopback
    except ValueError:
        raise UserError(f"--host {args.host} is no IP address; 127.0.0.1 is this machine alone") from None
    require(
        local or bool(args.api_key_file),
        f"--host {args.host} listens to other machines; protect it with --api-key-file FILE",
    )
    if not args.api_key_file:
        return None
    try:
        key = text.whole(Path(args.api_key_file)).strip()
    except OSError as error:
        raise UserError(f"--api-key-file {args.api_key_file}: {error.strerror}") from error
    require(bool(key), f"--api-key-file {args.api_key_file} is empty")
    require(
        key.isascii() and key.isprintable() and " " not in key,
        f"--api-key-file {args.api_key_file}: a key is one line of ASCII characters without spaces, as headers hold it",
    )
    return key


def _service(config, args, key: str | None):
    """The run and its adapters behind a scheduler."""
    from chinchilla_jax.inference.engine import CHUNK, FEW_STEPS, Engine
    from chinchilla_jax.inference.scheduler import Scheduler
    from chinchilla_jax.parallel import host
    from chinchilla_jax.serving.app import Service
    from chinchilla_jax.serving.metrics import Metrics
    from chinchilla_jax.training.load import adapter, load

    host.keep_freed_memory()
    base = load(config, args.run_dir, whole_mesh=False)
    cfg, tokenizer = base.program.config.model, base.tokenizer
    capacity = args.capacity or min(2048, base.program.config.context)
    require(2 <= capacity <= 1_000_000, "--capacity must lie in [2, 1000000]")
    capacity = -(-capacity // CHUNK) * CHUNK
    engine, metrics = Engine(cfg, tokenizer.size, steps=FEW_STEPS, form=args.weights), Metrics()
    models, weights = [_model(base, args.run_dir, args.name)], {}
    weights[models[0].name] = engine.prepare(base.params)
    for folder in args.adapter or ():
        tuned = adapter(config, folder, base)
        models.append(_model(tuned, folder))
        require(
            models[-1].name not in weights, f"--adapter {folder}: there is a model of that name already; see --name"
        )
        weights[models[-1].name] = _sharing(engine.prepare(tuned.params), weights[models[0].name])
    scheduler = Scheduler(engine, weights, slots=args.slots, capacity=capacity, queue=args.queue,
                          prefixes=args.prefix_cache << 20, lookup=args.lookup, seen=metrics.seen)  # fmt: skip
    return Service(models, scheduler, tokenizer, metrics, key)


def _model(loaded, folder: str, name: str = ""):
    """How a loaded run is served."""
    from chinchilla_jax.model.adapted import prefix
    from chinchilla_jax.serving.job import Model
    from chinchilla_jax.tasks.records import Turn
    from chinchilla_jax.training.load import run_folder

    run_dir = run_folder(folder)
    name = name or run_dir.resolve().name
    require(name.isprintable(), f"a model cannot be named {name!r}; choose printable characters, see --name")
    renderer = _renderer(run_dir, loaded)

    def chat(said: list[tuple[str, str]]) -> list[int]:
        several = sum(role != "system" for role, _ in said) > 1
        require(renderer.template.several or not several, "this model's template knows no second turn; send one")
        return renderer.prompt([Turn(*message) for message in said])

    return Model(
        name,
        renderer.stops if renderer else loaded.tokenizer.stops,
        renderer and chat,
        prefix(loaded.params["embed"]["table"]),
        f"{loaded.fingerprint[:12]}-{loaded.step}",
    )


def _sharing(weights, base):
    """`weights` with the very arrays of the base wherever theirs are equal."""
    import jax
    import jax.numpy as jnp

    if jax.tree.structure(weights) != jax.tree.structure(base):
        return weights
    return jax.tree.map(lambda w, b: b if jnp.array_equal(w, b) else w, weights, base)


def _renderer(run_dir: Path, loaded):
    """What turns messages into ids; None for a run without a chat template, or with one of a kind not understood."""
    from chinchilla_jax.tasks.kept import own_template
    from chinchilla_jax.tasks.render import Renderer

    require(
        loaded.program.config.task.source != "bidirectional",
        f"{run_dir} reads its prompts in both directions, which serve does not; use generate",
    )
    try:
        template = own_template(run_dir)
        return Renderer(template, loaded.tokenizer) if template else None
    except UserError as error:
        print(f"warning: no chat completions: {error}", file=sys.stderr)
        return None
