"""Memory that does not suffice and devices that do not start are one line with the fix."""

import json
import types

import pytest

from chinchilla_jax.__main__ import main
from chinchilla_jax.commands import cli
from tests.runs import fresh


class JaxRuntimeError(RuntimeError):
    """Named as JAX names its own."""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 12 bytes.\nand a long table"),
        JaxRuntimeError("INTERNAL: CUDA: Out of memory"),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_out_of_memory_names_the_fixes(capsys, error, wrapped):
    def act():
        if not wrapped:
            raise error
        raise ValueError("checkpoint") from error

    module = types.SimpleNamespace(SECTIONS=(), options=lambda parser: None, run=lambda config, args: act())
    assert cli.run("pretrain", "", module, []) == 78
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "--train.microbatches" in said and "--model.remat full" in said


def test_other_errors_of_xla_keep_their_traceback(command):
    command.act = lambda: (_ for _ in ()).throw(JaxRuntimeError("INTERNAL: a bug"))
    with pytest.raises(JaxRuntimeError):
        main(["try"])


# A command on each platform in turn, in one interpreter: exit code and standard error of each. It asks for the devices,
# or makes an array at once.
ON_PLATFORMS = """
import contextlib, io, json, sys, types
from chinchilla_jax.__main__ import COMMANDS, main
import jax
module = types.ModuleType("chinchilla_jax.commands.try")
module.SECTIONS, module.options = (), lambda parser: None
module.run = lambda config, args: first()
COMMANDS["try"], sys.modules[module.__name__] = "", module
zeros = lambda: jax.numpy.zeros(1 << 46).block_until_ready()
for platform in sys.argv[1:]:
    jax.config.update("jax_platforms", platform.removesuffix("-array"))
    said, first = io.StringIO(), jax.devices if platform in ("cuda", "tpu", "nothing") else zeros
    with contextlib.redirect_stderr(said):
        code = main(["try"])
    print("FOUND", json.dumps([platform, code, said.getvalue()]))
"""
FOREIGN = ("cuda", "tpu", "nothing", "cuda-array", "nothing-array")


@pytest.fixture(scope="module")
def faults():
    """Exit code and standard error by platform; on the CPU there is too little memory."""
    result = fresh("-c", ON_PLATFORMS, *FOREIGN, "cpu")
    found = [json.loads(line.removeprefix("FOUND ")) for line in result.stdout.splitlines() if line.startswith("FOUND")]
    assert "Traceback" not in result.stderr
    return {platform: rest for platform, *rest in found}


@pytest.mark.parametrize("platform", FOREIGN)
def test_devices_that_do_not_start_are_one_line(platform, faults):
    code, said = faults[platform]
    assert code == 78 and "doctor" in said.splitlines()[-1] and "Traceback" not in said


def test_memory_that_no_machine_has(faults):
    code, said = faults["cpu"]
    assert code == 78 and "out of memory" in said and "Traceback" not in said
