"""Standard streams that cannot end the work, and variables that are no settings."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from chinchilla_jax.commands import startup

ROOT = Path(__file__).resolve().parents[2]


def test_variables_that_would_be_settings_are_taken_away():
    hidden = {"JAX_ENABLE_X64": "1", "JAX_NUMPY_RANK_PROMOTION": "raise", "JAX_DEFAULT_PRNG_IMPL": "rbg",
              "JAX_DEFAULT_MATMUL_PRECISION": "bfloat16", "JAX_DEBUG_NANS": "1", "JAX_RANDOM_SEED_OFFSET": "1",
              "JAX_DISABLE_JIT": "1", "JAX_TRANSFER_GUARD": "disallow", "FLAX_LAZY_RNG": "0"}  # fmt: skip
    kept = {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": "c", "JAX_NUM_CPU_DEVICES": "8", "XLA_FLAGS": "x",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_CUDA_VISIBLE_DEVICES": "0"}  # fmt: skip
    environment = {**hidden, **kept}
    assert startup.drop_hidden(environment) == sorted(hidden) and environment == kept


def test_a_sink_takes_everything_and_says_what_was_lost(tmp_path):
    with startup.writer(os.open(tmp_path / "a", os.O_WRONLY | os.O_CREAT), encoding="latin-1", own=True) as stream:
        print("é 海 \udce9", file=stream)
        assert startup.lost(stream) is None
    assert (tmp_path / "a").read_bytes() == b"\xe9 \\u6d77 \\udce9\n"
    reader, number = os.pipe()
    os.close(reader)
    with startup.writer(number, own=True) as stream:
        for _ in range(3):
            print("x" * 100_000, file=stream, flush=True)
        assert isinstance(startup.lost(stream), BrokenPipeError)
    with startup.writer(os.open("/dev/full", os.O_WRONLY), own=True) as stream:
        print("x", file=stream, flush=True)
        assert startup.lost(stream).strerror == "No space left on device"


WORK = """
import sys, types
from chinchilla_jax import __main__ as program
module = types.ModuleType("chinchilla_jax.commands.try")
module.SECTIONS, module.options = (), lambda parser: None
def run(config, args):
    for number in range(1000):
        print("step", number, "é", flush=True)
    open(args.run_dir, "w").write("kept")
    return {"wrote": [args.run_dir]}
module.run = run
sys.modules[module.__name__], program.COMMANDS["try"] = module, "a command of the tests"
sys.argv = ["x", *sys.argv[1:]]
sys.exit(program.program())
"""


def work(tmp_path, how: str, *words: str) -> subprocess.CompletedProcess:
    """A command that prints a lot and keeps a file, run by a shell in some way."""
    kept = tmp_path / "kept"
    command = f'"{sys.executable}" -c "$WORK" try --run-dir "{kept}" {" ".join(words)} {how}'
    environment = {**os.environ, "WORK": WORK, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], env=environment, cwd=ROOT, capture_output=True, text=True
    )
    assert kept.read_text() == "kept" and "Traceback" not in done.stderr, done.stderr
    return done


def test_work_outlives_its_reader(tmp_path):
    done = work(tmp_path, "| head -1")
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "step 0 \\xe9\n")


def test_work_outlives_a_closed_output(tmp_path):
    done = work(tmp_path, "<&- >&-")
    assert (done.returncode, done.stderr) == (0, "")
    assert work(tmp_path, ">&- 2>&-").returncode == 0


def test_a_full_disk_under_the_output_is_said_and_is_an_error_only_where_the_output_was_all(tmp_path):
    done = work(tmp_path, "> /dev/full")
    assert done.returncode == 0 and "could not be written (No space left on device)" in done.stderr
    assert work(tmp_path, "> /dev/full", "--json").returncode == 74


@pytest.mark.parametrize("flags, why", [
    ("--xla_nonsense=1", "Unknown flag in XLA_FLAGS: --xla_nonsense=1"),
    ("--xla_gpu_autotune_level=x", "Couldn't interpret value x for flag xla_gpu_autotune_level"),
    ("--xla_gpu_autotune_level=1", ""), ("--xla_force_host_platform_device_count=8", ""), ("", ""),
])  # fmt: skip
def test_flags_that_xla_would_abort_for_are_one_line(flags, why, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", flags)
    assert startup.unknown_flags(flags) == why


def test_what_pays_on_a_card_is_added_where_there_is_one_and_nothing_was_said(tmp_path, monkeypatch):
    monkeypatch.setattr(startup, "CARD", tmp_path / "version")
    off = "--xla_gpu_enable_triton_gemm=false"
    assert startup.card_flags({}) == ""
    startup.CARD.touch()
    for given, left in [
        ({}, {"XLA_FLAGS": off}),
        ({"XLA_FLAGS": "--xla_dump_to=x"}, {"XLA_FLAGS": f"--xla_dump_to=x {off}"}),
        ({"XLA_FLAGS": off.replace("false", "true")}, {"XLA_FLAGS": off.replace("false", "true")}),
        ({"JAX_PLATFORMS": "cpu"}, {"JAX_PLATFORMS": "cpu"}),
    ]:
        found = dict(given)
        assert startup.card_flags(found) == (off if found != given else "")
        assert found == left
    monkeypatch.setattr(startup, "CARD_FLAGS", ("--xla_gpu_of_another_version=1",))
    assert startup.card_flags({}) == ""


def test_a_command_with_an_unknown_flag_of_xla_ends_with_78():
    ran = subprocess.run(
        [sys.executable, "-m", "chinchilla_jax", "plan"],
        env=os.environ | {"XLA_FLAGS": "--xla_nonsense=1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 78
    assert ran.stderr == "error: Unknown flag in XLA_FLAGS: --xla_nonsense=1; correct or unset XLA_FLAGS\n"
