"""What a process needs before a command runs in it: standard streams that cannot end the work, and no hidden settings.

Only the program calls `begin`; a notebook or a test that calls `main` keeps its own streams and environment.
"""

import contextlib
import io
import os
import re
import select
import subprocess
import sys
import warnings
from collections.abc import MutableMapping
from pathlib import Path

# Variables of JAX that say where and how a program runs, what is cached and what is logged. Every other one changes
# numbers or breaks a run (precision, random numbers, promotion, checks), which is what the config decides.
HARMLESS = re.compile(
    r"JAX_(PLATFORMS?|PLATFORM_NAME|\w+_VISIBLE_DEVICES|NUM_CPU_DEVICES|CPU_\w+|TPU_\w+|PJRT_\w+|MOCK_\w+|\w*CACHE\w*"
    r"|LOG_\w+|LOGGING_LEVEL|DEBUG_LOG_MODULES|DUMP_IR_\w+|TRACEBACK_\w+|INCLUDE_\w+|DISTRIBUTED_\w+|COORDINATOR_\w+"
    r"|NUM_PROCESSES|PROCESS_ID|LOCAL_\w+|MTLS_\w+|CROSS_HOST_\w+|FORCE_DCN_\w+|SHARE_BINARY_\w+|CHECK_PROXY_ENVS"
    r"|ENABLE_PREEMPTION_SERVICE|ENABLE_RECOVERABILITY|COMPILER_DETAILED_\w+|HLO_SOURCE_\w+|PPRINT_\w+)"
)


# XLA's flags that every supported jaxlib has; others are tried before they can end the command.
KNOWN_FLAGS = re.compile(r"--xla_(force_host_platform_device_count|backend_optimization_level)=\d+|"
                         r"--xla_llvm_disable_expensive_passes=true|--xla_dump_to=\S+")  # fmt: skip
# Flags that paid on an H100 (docs/performance.md): cuBLAS' own products in the place of Triton's.
CARD_FLAGS = ("--xla_gpu_enable_triton_gemm=false",)
CARD = Path("/proc/driver/nvidia/version")  # there where the driver of an NVIDIA card is
TRY = """
try:
    from jaxlib import xla_client
except ImportError:
    raise SystemExit  # no XLA, nothing to refuse
xla_client.CompileOptions()
"""


def begin() -> None:
    """Make the standard streams safe, leave out what the environment would change, and refuse what XLA would die of."""
    streams()
    needed = sys.argv[1:2] != ["doctor"]  # which shows it among other things
    if needed and (problem := unknown_flags(os.environ.get("XLA_FLAGS", ""))):
        print(f"error: {problem}; correct or unset XLA_FLAGS", file=sys.stderr)
        sys.exit(78)
    if needed and (added := card_flags(os.environ)):
        print(f"note: XLA_FLAGS gets {added} for the NVIDIA card; a value of yours is kept", file=sys.stderr)
    if any("error" in option for option in sys.warnoptions):
        warnings.resetwarnings()  # a library's deprecation warning is not an error of the user's
    for name in drop_hidden(os.environ):
        print(
            f"note: {name} is ignored; precision, random numbers and checks follow the config (--model.dtype, "
            "--train.seed)",
            file=sys.stderr,
        )
    os.environ["MPLBACKEND"] = "agg"  # pictures go into files; a notebook's backend need not exist here


def drop_hidden(environment: MutableMapping[str, str]) -> list[str]:
    """Remove the variables of JAX and Flax that would be settings; their names."""
    names = [n for n in environment if n.startswith(("JAX_", "FLAX_")) and not HARMLESS.fullmatch(n)]
    for name in names:
        del environment[name]
    return sorted(names)


def unknown_flags(flags: str) -> str:
    """What XLA has against these flags. It says so only as it aborts, so another process tries them where needed."""
    if all(KNOWN_FLAGS.fullmatch(flag) for flag in flags.split()):
        return ""
    env = {**os.environ, "XLA_FLAGS": flags}
    tried = subprocess.run(
        [sys.executable, "-c", TRY], env=env, capture_output=True, text=True, errors="replace", check=False
    )
    if tried.returncode == 0:
        return ""
    said = re.search(r"(Unknown flags? in XLA_FLAGS: .*|Couldn't interpret .*)", tried.stderr)
    return said.group(1).strip().rstrip(".") if said else f"XLA does not take XLA_FLAGS={flags}"


def card_flags(environment: MutableMapping[str, str]) -> str:
    """Add to XLA_FLAGS what pays on an NVIDIA card, if there is one, XLA knows it and the user has not set it; that."""
    given = environment.get("XLA_FLAGS", "")
    platforms = environment.get("JAX_PLATFORMS", "cuda")
    new = " ".join(flag for flag in CARD_FLAGS if flag.split("=")[0] not in given)
    if not CARD.exists() or not re.search("cuda|gpu", platforms) or not new or unknown_flags(new):
        return ""
    environment["XLA_FLAGS"] = f"{given} {new}".strip()
    return new


class Sink(io.FileIO):
    """A stream whose reader may go away: what cannot be written is dropped, and `lost` keeps the reason."""

    lost: OSError | None = None

    def write(self, data) -> int:
        """Write all of `data`; always its length."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        try:
            while rest:
                written = super().write(rest)
                if written is None:  # another process has set the terminal not to block
                    select.select([], [self], [])
                    continue
                rest = rest[written:]
        except OSError as error:
            if isinstance(error, BrokenPipeError):  # nobody will read again; C++ must not meet the pipe either
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, self.fileno())
                os.close(null)
            self.lost = error
        return size


def writer(number: int, *, encoding: str = "utf-8", buffered: bool = True, lines: bool = False, own: bool = False):
    """A text stream over the file descriptor `number` that never fails; `own` closes it at the end.

    What the encoding lacks is written as an escape.
    """
    sink = Sink(number, "w", closefd=own)
    below = io.BufferedWriter(sink) if buffered else sink
    return io.TextIOWrapper(
        below, encoding, "backslashreplace", newline="\n", line_buffering=lines, write_through=not buffered
    )


def streams() -> None:
    """Put safe streams in the place of the standard ones; one that was closed or missing reads and writes nothing."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one
    for name, number in (("stdout", 1), ("stderr", 2)):
        old = getattr(sys, name)
        how = {}
        if old is not None:
            with contextlib.suppress(OSError):
                old.flush()
            how = {"encoding": old.encoding, "buffered": not old.write_through, "lines": old.line_buffering}
        fresh = writer(number, **how)
        setattr(sys, name, fresh)
        setattr(sys, f"__{name}__", fresh)
    if sys.stdin is None:
        sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - lives with the process
    sys.stdin.reconfigure(errors="surrogateescape")  # what is no text is refused where it is used


def lost(stream) -> OSError | None:
    """Why something written to `stream` did not arrive, if so."""
    below = getattr(stream, "buffer", None)
    return getattr(getattr(below, "raw", below), "lost", None)
