"""What peft calls the tensors of an adapter, of a head, and of rows of a table that train beside them."""

import re

from chinchilla_jax.config import TuneConfig
from chinchilla_jax.finetuning.methods import Recipe
from chinchilla_jax.finetuning.targets import Site
from chinchilla_jax.interop import peft_config
from chinchilla_jax.interop.names import Name, find

PREFIX = "base_model.model."
MODULE = re.compile(r"base_model\.model\.model\.layers\.\d+\.(?:self_attn|mlp)\.(\w+)\.(lora_\w+|ia3_l)(?:\.weight)?")
PROMPT = "prompt_embeddings"
DELTA = "token_adapter.trainable_tokens_delta"  # of a table: whole rows, in spite of the name


def of(recipe: Recipe) -> dict[str, Name]:
    """The row of every leaf that trains, by our path; `UserError` for one that peft has no tensor for."""
    tune = recipe.tune
    rows = [row(tune, site, leaf) for site in recipe.sites for leaf in peft_config.FORMS[tune.method].tensors]
    rows += [delta(table) for table in recipe.rows] + [head(name, tune.method == "prompt") for name in recipe.heads]
    return {name.ours: name for name in rows}


def row(tune: TuneConfig, site: Site, leaf: str) -> Name:
    """The name of theirs, with {n} for the layer, of a leaf of ours at a site."""
    tensor = peft_config.FORMS[tune.method].tensors[leaf]
    ours = f"adapters/{site.name}/{leaf}"
    if site.table:
        return Name(ours, tensor)
    module = find(site.name).theirs.removesuffix(".weight")
    return Name(ours, f"{PREFIX}{module}.{tensor}", {"a": site.contract, "b": 1}.get(leaf, 0))


def delta(table: str) -> Name:
    """The rows of a table such as embed/table."""
    return Name(f"rows/{table}", f"{PREFIX}{find(table).theirs.removesuffix('.weight')}.{DELTA}")


def head(leaf: str, prompt: bool) -> Name:
    """A leaf of a head. A soft prompt is no module around the others, so that one prefix is missing."""
    prefix = PREFIX.removesuffix("model.") if prompt else PREFIX
    name = find(f"heads/{leaf}")
    return name._replace(theirs=f"{prefix}{name.theirs}")
