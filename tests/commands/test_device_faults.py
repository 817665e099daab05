"""Memory that does not suffice and devices that do not start are one line with the fix."""

import types

import pytest

from chinchilla_jax.__main__ import main
from chinchilla_jax.commands import cli
from tests.commands.conftest import WITH_COMMAND
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
def test_out_of_memory_names_the_mends(capsys, error, wrapped):
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


@pytest.mark.parametrize("platform", ["cuda", "tpu", "nothing"])
def test_devices_that_do_not_start_are_one_line(platform, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", platform)
    result = fresh("-c", WITH_COMMAND.format("import jax; jax.devices()"))
    assert result.returncode == 78 and "doctor" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


def test_memory_that_no_machine_has(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    result = fresh("-c", WITH_COMMAND.format("import jax; jax.numpy.zeros(1 << 46).block_until_ready()"))
    assert result.returncode == 78 and "out of memory" in result.stderr and "Traceback" not in result.stderr
