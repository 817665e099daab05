"""A run's adapter as peft keeps one: adapter_config.json, adapter_model.safetensors, tokenizer, a card.

A tensor a layer and module; a head is among the modules that peft saves whole, rows of new pieces are its trainable
tokens.
"""

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from chinchilla_jax.config import TuneConfig, require
from chinchilla_jax.finetuning.methods import below
from chinchilla_jax.finetuning.targets import Site
from chinchilla_jax.interop import config_json, files, heads, peft_config
from chinchilla_jax.interop import peft_names as names
from chinchilla_jax.interop.architectures import ARCHITECTURES
from chinchilla_jax.interop.names import Name, find
from chinchilla_jax.interop.tokenizers import export_tokenizer
from chinchilla_jax.interop.write_huggingface import TYPES, rounded
from chinchilla_jax.interop.write_tensors import Tensor, write_file
from chinchilla_jax.model.weights import array
from chinchilla_jax.tasks import kept
from chinchilla_jax.training import origin as origins
from chinchilla_jax.training.load import Loaded

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def write(folder: Path, run_dir: Path, loaded: Loaded, dtype: str) -> dict[str, Any]:
    """Fill `folder` with the adapter of a run; {"method": ..., "tensors": ..., "notes": [...]}."""
    program, recipe = loaded.program, loaded.program.recipe
    tune, model = program.config.tune, program.config.model
    check(loaded)
    head = heads.of_run(recipe.heads)
    arrays, ranks = adapters(loaded)
    # A class with a head has no output table, whose rows could matter.
    tables = [table for table in recipe.rows if not (head and table.startswith("unembed"))]
    rows = {table: merged_rows(loaded.params[table.split("/")[0]]["table"]) for table in tables}
    arrays |= {names.delta(table).theirs: x for table, x in rows.items()}
    leaves = {names.head(leaf, tune.method == "prompt").theirs: leaf for leaf in recipe.heads}
    arrays |= {name: np.asarray(below(loaded.trained["heads"], leaf), np.float32) for name, leaf in leaves.items()}
    kind = TYPES[dtype]
    tensors = [Tensor(name, x.shape, kind, partial(rounded, name, x, kind)) for name, x in arrays.items()]
    base = base_name(tune.base, origins.read(program.base.folder))
    modules = sorted({find(site.name).theirs.split(".")[-2] for site in recipe.sites})
    told = peft_config.to_config(tune, model, modules, base, ranks)
    row = heads.HEADS.get(head)
    told |= {"task_type": row.task_type, "modules_to_save": list(row.saved)} if row else {}
    ids = {find(table).theirs.split(".")[-2]: list(tune.rows) for table in rows}
    told |= {"trainable_token_indices": ids} if ids else {}
    (folder / CONFIG).write_text(json.dumps(told, indent=2) + "\n")
    write_file(folder / WEIGHTS, tensors)
    if (run_dir / kept.FILE).exists():
        shutil.copyfile(run_dir / kept.FILE, folder / kept.FILE)
    notes = export_tokenizer(run_dir, folder, program.config.context).notes
    sizes = program.base.loaded.program.config.model.vocab_size, model.vocab_size
    how = loading(f"AutoModel{row.ending if row else heads.CAUSAL}", base, len(program.config.task.labels), *sizes)
    how = [*([exported_first(base)] if base == tune.base else []), *how]
    (folder / "README.md").write_text(card(run_dir, base, tune.method, how), encoding="utf-8")
    files.write_sums(folder)
    if tune.weights != "float":
        notes.append(f"the adapter was trained on a base in {tune.weights}; on another its effect differs a little")
    return {"method": tune.method, "tensors": len(tensors), "load": how, "notes": notes}


def base_name(run: str, origin: dict[str, Any]) -> str:
    """What the base is called: as a person would look for it where it was imported, else its run.

    Weights that were trained on, merged or pruned since are no longer those of where they came from.
    """
    return origin["source"] if origin.get("format") in ("hf", "gguf") else run


def check(loaded: Loaded) -> None:
    """Raise a `UserError` for what peft has no form of, with what there is instead."""
    recipe = loaded.program.recipe
    tune, known = recipe.tune, ", ".join(peft_config.FORMS)
    instead = "the run directory itself is the form to pass on" if recipe.method.kind else "--format hf has all of it"
    require(
        tune.method in peft_config.FORMS,
        f"peft has no form of --tune.method {tune.method} (of {known} it has): {instead}",
    )
    origin, head = origins.read(loaded.program.base.folder), heads.of_run(recipe.heads)
    row = config_json.choose(loaded.program.config.model, origin.get("architecture", ""), head)
    require(
        ARCHITECTURES[row].trunks.get(head, "model") == "model",
        f"{heads.class_of(row, head)} of transformers takes no weights from the folder of a language model, so that an "
        "adapter would stand on random ones; --format hf --merge has all of it",
    )
    require(
        not tune.layers,
        f"peft has no form of a base cut to {tune.layers} layers (--tune.layers): --format hf --merge has all of it",
    )
    more = sorted(loaded.trained.keys() - {"adapters", "rows", "heads"})
    require(not more, f"this run trains {', '.join(more)} beside its adapters, which is not written for peft")
    tables = [site.name for site in recipe.sites if site.table and tune.method != "prompt"]
    require(not tables, f"adapters of {', '.join(tables)} are not written for peft; --format hf --merge has them")
    if recipe.rows:
        require(
            peft_config.FORMS[tune.method].rows,
            f"peft has no new rows beside {tune.method}; --format hf --merge has them",
        )
        untied = tune.untie and loaded.program.base.loaded.program.config.model.tied
        require(
            not untied, "rows of tables that --tune.untie parted have no form in peft; --format hf --merge has them"
        )


def adapters(loaded: Loaded) -> tuple[dict[str, np.ndarray], dict[str, list[bool]]]:
    """The tensors of the adapters, and which of AdaLoRA's triplets are left, by the name of their tensor."""
    recipe, found, ranks = loaded.program.recipe, {}, {}
    for site in recipe.sites:
        parts = {leaf: np.asarray(x, np.float32) for leaf, x in below(loaded.trained["adapters"], site.name).items()}
        for n in range(1 if site.table else recipe.cfg.layers):
            found |= layer(recipe.tune, site, parts, n, ranks)
    return found, ranks


def layer(tune: TuneConfig, site: Site, parts: dict[str, np.ndarray], n: int, ranks: dict) -> dict[str, np.ndarray]:
    """The tensors of one layer's adapter; of AdaLoRA's those of the triplets that are left, noted in `ranks`."""
    found = {}
    for leaf, x in parts.items():
        name = names.row(tune, site, leaf)
        found[name.theirs.format(n=n)] = x if site.table else shaped(name, name.to_theirs(x[n]))
    if "e" in parts:
        alive = parts["e"][n] != 0
        e = names.row(tune, site, "e").theirs.format(n=n)
        ranks[e.removeprefix(names.PREFIX)] = alive.tolist()
        found = {name: x[:, alive] if name.endswith("lora_B") else x[alive] for name, x in found.items()}
    return found


def shaped(name: Name, vector: np.ndarray) -> np.ndarray:
    """A vector as they hold it: E and the factors of outputs as a column, those of inputs as a row."""
    if name.theirs.endswith("lora_E"):
        return vector.reshape(-1, 1)
    if not name.theirs.endswith("ia3_l"):
        return vector
    return vector.reshape(1, -1) if f".{peft_config.FORWARD}." in name.theirs else vector.reshape(-1, 1)


def merged_rows(table: Any) -> np.ndarray:
    """The rows (n, D) that train of a `Rows`: peft keeps them whole, ours is what is added to them."""
    ids = np.array(table.ids)
    return np.asarray(array(table.kernel)[ids], np.float32) + np.asarray(table.rows_nD, np.float32)


def loading(loader: str, base: str, labels: int, there: int, wanted: int) -> list[str]:
    """The lines of Python that load the adapter."""
    more = f", num_labels={labels}" if labels else ""
    grown = [f"model.resize_token_embeddings({wanted})"] if wanted > there else []
    return [
        f"model = {loader}.from_pretrained({base!r}{more})",
        *grown,
        'model = PeftModel.from_pretrained(model, "THIS_FOLDER")',
    ]


def exported_first(base: str) -> str:
    """What is to be done with a base that is a run of ours, which transformers cannot read."""
    return f"# {base} is a run: name the folder that `export --run-dir {base} --format hf` writes, in its place"


def card(run_dir: Path, base: str, method: str, how: list[str]) -> str:
    """A short card of the adapter."""
    header = ["---", "library_name: peft", f"base_model: {json.dumps(base)}", "---", ""]
    header += [f"# {run_dir.absolute().name}", ""]
    said = [f"A {method} adapter of `{base}`, written by chinchilla_jax.", "", "```python", *how, "```", ""]
    return "\n".join(header + said)
