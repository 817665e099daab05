"""The pretrain command as a user meets it: what a run costs, and what it is refused for."""

import json
import resource
import signal

import pytest

from chinchilla_jax import config as configs
from chinchilla_jax.commands import hints
from chinchilla_jax.commands.pretrain import open_store
from chinchilla_jax.config import AdversarialConfig, Config, DataConfig
from chinchilla_jax.data.tokenizer import Tokenizer
from chinchilla_jax.training import loop
from tests import runs

pytestmark = pytest.mark.usefixtures("compiled_once")


@pytest.mark.parametrize("V, spare", [(320, {}), (352, {"model.vocab-size": 352})], ids=["fit", "room to spare"])
def test_a_dry_run_says_the_cost_and_leaves_nothing(V, spare, tiny_store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    report = runs.ask("pretrain", "--dry-run", **runs.SETTINGS, **{"data.store": tiny_store, "run-dir": "run"}, **spare)
    D, F, H, K = 32, 48, 2, 12
    layer = 4 * D * H * K + 3 * D * F + 2 * D
    assert report["parameters_non_embedding"] == layer + D
    assert report["parameters"] == V * D + layer + D
    assert report["flops_per_token"] > 6 * V * D and report["memory_bytes"] > 3 * 4 * report["parameters"]
    assert report["tokens"] == 20 * 8 * 16 and report["mesh"] == {"data": 8, "fsdp": 1, "tensor": 1}
    assert report["collectives"].keys() == {"all-reduce"}
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_of_a_preset_needs_no_store(tmp_path):
    shape = {"model.preset": "chinchilla-44m", "model.vocab-size": 32000}
    report = runs.ask("pretrain", "--dry-run", **shape, **{"train.seq-len": 64, "data.store": tmp_path / "none"})
    assert round(report["parameters"] / 1e6) == 44
    assert report["parameters_non_embedding"] == report["parameters"] - 32000 * 512


def test_a_dry_run_costs_the_model_that_training_would_start_from(whole_run, monkeypatch):
    costed = []
    monkeypatch.setattr("chinchilla_jax.aot.compile.report", lambda config, topology: costed.append(config) or {})
    monkeypatch.setattr("chinchilla_jax.aot.advice.table", lambda found: "")
    runs.ask("pretrain", "--dry-run", **{"from": whole_run})
    assert costed[0].model == runs.config(whole_run).model and costed[0].tune.method == "full"


def test_a_run_that_is_refused_keeps_its_plan(copy, tiny_store, tmp_path):
    (copy / "plan.json").write_text("its own")
    other = configs.replace(runs.config(copy), {"optimizer.peak_lr": 0.5, "data.store": str(tiny_store)})
    (tmp_path / "plan.json").write_text(json.dumps({"config": configs.to_dict(other)}))
    code, said = runs.call("pretrain", **{"run-dir": copy, "plan": tmp_path / "plan.json"})
    assert code == 78 and "other settings: optimizer.peak_lr" in said
    assert (copy / "plan.json").read_text() == "its own"


@pytest.mark.parametrize(
    "changes, hint",
    [
        ({"minutes": 2, "from": "runs/mine"}, "--minutes plans one"),
        ({"minutes": 2, "tune.base": "runs/mine", "tune.method": "full"}, "--minutes plans one"),
        ({"minutes": 2, "plan": runs.ROOT / "chinchilla_jax/configs/quickstart.py"}, "leave --plan"),
        ({"mesh.data": 3}, "--mesh axes"),
        ({"mesh.data": -1, "mesh.tensor": 3}, "multiple of 3"),
        ({"mesh.data": 1, "mesh.tensor": 8}, "--model.heads"),
        ({"train.batch-size": 12}, "microbatch"),
        ({"train.batch-ramp": "((5, 12),)"}, "--train.batch-ramp"),
        ({"model.vocab-size": 300}, "320"),
        ({"model.preset": "chinchilla-45m"}, "did you mean chinchilla-"),
        ({"train.seq-len": 1_000_000}, "--train.seq-len"),
        ({"optimizer.warmup-steps": 21}, "--optimizer.warmup-steps"),
        ({"coordinator": "127.0.0.1:5"}, "belong together"),
        ({"topology": "v5e:4x4"}, "--dry-run"),
        ({"data.store": "no/store/here"}, "no token store"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(changes, hint, tiny_store, tmp_path):
    code, said = runs.pretrain(tmp_path / "run", tiny_store, **changes)
    assert code == 78 and said.count("\n") == 1 and said.startswith("error: ") and hint in said, said
    assert not (tmp_path / "run" / "config.json").exists()


def test_the_tokenizer_says_what_is_never_perturbed(tiny_store, monkeypatch):
    """Unless the user does."""
    monkeypatch.setattr(Tokenizer, "special", (0, 1, 2, 5))
    for mine, expected in ((AdversarialConfig(), (0, 1, 2, 5)), (AdversarialConfig(special=(7,)), (7,))):
        config, _ = open_store(Config(data=DataConfig(store=str(tiny_store)), adversarial=mine))
        assert config.adversarial.special == expected and config.model.vocab_size > 7


def test_a_run_needs_a_folder(tiny_store):
    code, said = runs.call("pretrain", **runs.SETTINGS, **{"data.store": tiny_store})
    assert code == 78 and "--run-dir" in said and said.count("\n") == 1


def test_a_run_directory_that_cannot_be_made(tiny_store, tmp_path):
    (tmp_path / "file").write_text("")
    code, said = runs.pretrain(tmp_path / "file" / "run", tiny_store)
    assert code == 74 and said.count("\n") == 1 and "cannot lock" in said


def test_it_ends_with_the_next_command(tiny_store, tmp_path):
    plan = tmp_path / "planned.json"
    config = configs.replace(Config(), {name.replace("-", "_"): value for name, value in runs.SETTINGS.items()})
    plan.write_text(json.dumps({"config": configs.to_dict(config)}))
    code, said = runs.pretrain(tmp_path / "a run", tiny_store, plan=plan, **runs.SILENT)
    assert (tmp_path / "a run" / "plan.json").read_text() == plan.read_text()
    assert code == 0 and "starting from fresh parameters" in said and "compiled batches of 8 windows" in said
    assert said.splitlines()[-1] == f"next: {hints.line('evaluate', '--run-dir', str(tmp_path / 'a run'))}"


def test_a_full_disk_is_one_line_and_the_run_goes_on_later(tiny_store, tmp_path, whole_run):
    """Files of a checkpoint are larger than what is allowed, those of the log are not."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (24_000, resource.RLIM_INFINITY))"
    said = runs.finish(runs.start_pretrain(tmp_path, tiny_store, devices=8, wrap=limit), 74)
    assert said.count("error:") == 1 and "Traceback" not in said and "checkpoint 5 was not written" in said
    assert runs.saved(tmp_path) == [] and resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 24_000
    code, said = runs.pretrain(tmp_path, tiny_store)
    assert code == 0, said
    runs.assert_same_run(tmp_path, whole_run)


HITS = """
import jax, atexit
hits = []
jax.monitoring.register_event_listener(lambda name, **facts: hits.append(name) if "cache_hits" in name else None)
atexit.register(lambda: print("HITS", len(hits)))
"""


def hits(said: str) -> int:
    """Programs that a process took from the cache."""
    return int(said.rpartition("HITS ")[2])


def test_compiled_programs_are_kept_for_the_user_alone(tiny_store, tmp_path):
    changes = {"train.compile-cache": tmp_path / "kept", "train.steps": 3, **runs.SILENT}
    first = runs.finish(runs.start_pretrain(tmp_path / "one", tiny_store, wrap=HITS, **changes))
    kept = {path.name for path in (tmp_path / "kept").iterdir()}
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o700 and kept
    second = runs.finish(runs.start_pretrain(tmp_path / "two", tiny_store, wrap=HITS, **changes))
    # Whether a small program is slow enough to be kept is the clock's to say; the step's is, and is there once.
    later = {path.name for path in (tmp_path / "kept").iterdir()}
    assert kept <= later and sum("train_step" in name for name in later) == 1
    assert hits(second) > hits(first)
    runs.assert_same_run(tmp_path / "one", tmp_path / "two", 3)


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_a_signal_before_the_loop_is_one_line(number, code, tiny_store, tmp_path, monkeypatch):
    runs.signal_when(monkeypatch, loop, "Program", lambda *args, **how: True, number)
    found, said = runs.pretrain(tmp_path, tiny_store)
    assert found == code and said == f"error: stopped by {signal.Signals(number).name}\n"
