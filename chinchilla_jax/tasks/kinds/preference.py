"""Pairs of answers of which one is preferred (DPO): a loss of two log-probabilities, against a reference model.

Segments 2i - 1 and 2i of a row are the chosen and the rejected answer of a pair. With l(x) the sum of log p over the
tokens of x that have a weight, and h = (l(chosen) - l(rejected)) - the same of the reference:

sigmoid   -(1 - e) log sigmoid(beta h) - e log sigmoid(-beta h)   (Rafailov et al. 2023; e: label smoothing, cDPO)
ipo       (h - 1 / (2 beta))^2, l being means over tokens   (Azar et al. 2023; means as in TRL)

The reference is the model that tuning starts from. Its log-probabilities are stored with the pairs before training, or
computed in every step: with adapters by the frozen base itself, so that there is no second copy, else with a copy of
the leaves that train in the objective's carry. Letters: P pairs of a row at most.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chinchilla_jax.config import Config, TaskConfig, require
from chinchilla_jax.model import transformer
from chinchilla_jax.objectives.dense import cross_entropy, dense, token_losses
from chinchilla_jax.objectives.objective import Binding, Objective
from chinchilla_jax.parallel.tiles import tile_size
from chinchilla_jax.tasks import reference
from chinchilla_jax.tasks.encode import Encoder, Item
from chinchilla_jax.tasks.kinds.kind import Examination, Figures, Kind, Rows
from chinchilla_jax.types import Batch, Sums


def scores(losses_BL, batch: Batch, mean: bool) -> jax.Array:
    """log p of every answer, chosen and rejected, summed or averaged over tokens: (B, P, 2); 0 where there is none."""
    log_p_BP2 = by_answer(-losses_BL * batch.weights, batch)
    return log_p_BP2 / jnp.maximum(by_answer(batch.weights, batch), 1.0) if mean else log_p_BP2


def by_answer(x_BL, batch: Batch) -> jax.Array:
    """The sum over every answer's tokens, (B, P, 2), by one-hot rows, since the batch is split."""
    answers = batch.segments[..., None] == jnp.arange(1, 2 * pairs_of(batch) + 1)
    return jnp.einsum("bl,bls->bs", x_BL, answers.astype(jnp.float32)).reshape(len(x_BL), -1, 2)


def pair_scores(config: Config, params, batch: Batch) -> jax.Array:
    """`scores` under whole parameters."""
    hidden_BLD = transformer.apply(params, batch, config.model)
    tiling = tile_size(config.model, config.objective)
    losses_BL = token_losses(hidden_BLD, transformer.unembedding(params), batch.targets, batch.weights, tiling)
    return scores(losses_BL, batch, config.task.preference == "ipo")


def pairs_of(batch: Batch) -> int:
    """P: a pair has four tokens at least."""
    return -(-batch.tokens.shape[1] // 4)


def there(batch: Batch) -> jax.Array:
    """1 for the pairs that are in a row, 0 for the others: (B, P)."""
    return (jnp.arange(1, pairs_of(batch) + 1) * 2 <= batch.segments.max(1, keepdims=True)).astype(jnp.float32)


def pair_losses(task: TaskConfig, scores_BP2, reference_BP2) -> tuple[jax.Array, jax.Array]:
    """The loss of every pair, and its margin beta * h: (B, P) each."""
    ratio_BP2 = scores_BP2 - reference_BP2
    h_BP = ratio_BP2[..., 0] - ratio_BP2[..., 1]
    if task.preference == "ipo":
        return jnp.square(h_BP - 1 / (2 * task.beta)), task.beta * h_BP
    right, wrong = jax.nn.log_sigmoid(task.beta * h_BP), jax.nn.log_sigmoid(-task.beta * h_BP)
    return -(1 - task.smoothing) * right - task.smoothing * wrong, task.beta * h_BP


def preference(config: Config, binding: Binding) -> Objective:
    """DPO over what trains. `evaluate` is the plain cross-entropy of the answers, for which no reference is needed.

    The gradient of the loss by a token's log-probability is the same for all tokens of an answer, so the second sweep
    over the vocabulary is a cross-entropy with other weights.
    """
    task, tiling = config.task, tile_size(config.model, config.objective)
    stored, mean = task.reference == "stored", task.preference == "ipo"
    inner = binding.bind(dense(config.model, config.objective))

    def under_reference(batch, carry):
        if stored:
            return by_answer(batch.reference, batch)
        params = binding.base(binding.frozen) if binding.base else binding.join(carry, binding.frozen)
        return pair_scores(config, jax.lax.stop_gradient(params), batch)

    def gradients(params, batch, key, step, carry):
        reference_BP2, there_BP = under_reference(batch, carry), there(batch)
        pairs = jnp.sum(there_BP)
        # A price of the method or of activations is one a pair here, as the loss is, however long the answers are.
        priced = dataclasses.replace(batch, weights=batch.weights * pairs / jnp.maximum(jnp.sum(batch.weights), 1.0))

        def head(hidden_BLD, table_VD, _):
            fixed = jax.lax.stop_gradient((hidden_BLD, table_VD))
            losses_BL = token_losses(*fixed, batch.targets, batch.weights, tiling)

            def total(losses_BL):
                found_BP, margin_BP = pair_losses(task, scores(losses_BL, batch, mean), reference_BP2)
                return jnp.sum(found_BP * there_BP), margin_BP

            (loss, margin_BP), weights_BL = jax.value_and_grad(total, has_aux=True)(losses_BL)
            plain = cross_entropy(hidden_BLD, table_VD, batch.targets, weights_BL, 0.0, tiling)
            return plain + jax.lax.stop_gradient(loss - plain), (loss, margin_BP)

        def summed(params):
            return inner.loss(params, priced, key, None, head)

        grads, (loss, margin_BP) = jax.grad(summed, has_aux=True)(params)
        others = {
            "margin": Sums(jnp.sum(margin_BP * there_BP), pairs),
            "preferred": Sums(jnp.sum((margin_BP > 0) * there_BP), pairs),
        }
        return grads, Sums(loss, pairs, others), carry

    whole = stored or binding.base is not None
    return inner._replace(
        init=lambda params: () if whole else jax.tree.map(jnp.copy, params),
        gradients=gradients,
        loss=None,
        carry_axes=() if whole else binding.axes,
        others=("margin", "preferred"),
        weighs="records",
    )


class Pairs:
    """The share of pairs whose chosen answer gained on the reference; its log-probabilities are computed once."""

    def __init__(self, examination: Examination):
        self.examination = examination
        self.scores = examination.compiled(partial(pair_scores, examination.program.config))
        self.reference: list[np.ndarray] = []

    def __call__(self, params: Any, poll: Callable[[], None]) -> tuple[Figures, Rows]:
        task, rows, losses = self.examination.data.task, [], []
        if not self.reference:
            self.reference = [out for _, _, out in self.examination.over(self.scores, self.start, poll)]
        found = self.examination.over(self.scores, params, poll)
        for (held, _, scores_BP2), reference_BP2 in zip(found, self.reference):
            loss_BP, margin_BP = map(np.asarray, pair_losses(task, scores_BP2, reference_BP2))
            for row, items in enumerate(held):
                for pair, item in enumerate(items):
                    losses.append(float(loss_BP[row, pair]))
                    rows.append(self.row(item, round(float(margin_BP[row, pair]), 5)))
        margins = [row["margin"] for row in rows]
        preferred = sum(margin > 0 for margin in margins) / len(margins)
        figures = {"preference_loss": sum(losses) / len(losses), "margin": sum(margins) / len(margins)}
        return figures | {"preferred": preferred}, rows

    @property
    def start(self) -> Any:
        """The whole parameters that tuning starts from: with the run's seed, since a soft prompt is drawn."""
        program = self.examination.program
        require(
            program.recipe.needs_base,
            "pairs are judged against the model before tuning, which a run that is merged or trained from nothing does "
            "not name; judge the run that was tuned with finetune --from",
        )
        key = jax.random.key(program.config.train.seed)
        start = program.whole(jax.jit(program.recipe.start)(key, program.base_params()))
        return jax.device_put(start, jax.tree.map(lambda leaf: leaf.sharding, program.abstract_whole))

    def before_training(self, items: Sequence[Item]) -> np.ndarray:
        """Log-probabilities of the two answers of every pair before any training: (n, 2)."""
        numbers, found_N2 = {id(item): number for number, item in enumerate(items)}, np.zeros((len(items), 2))
        for held, _, scores_BP2 in self.examination.over(self.scores, self.start, lambda: None, items):
            for row, pairs in enumerate(held):
                for pair, item in enumerate(pairs):
                    found_N2[numbers[id(item)]] = scores_BP2[row, pair]
        return found_N2

    def row(self, item: Any, margin: float) -> dict[str, Any]:
        """A line of predictions.jsonl."""
        record = self.examination.records[item.record]
        texts = ["\n".join(turn.content for turn in turns) for turns in (record.prompt, record.chosen, record.rejected)]
        output = texts[1] if margin > 0 else texts[2]
        return {"record": str(item.where), "input": texts[0], "output": output, "reference": texts[1], "margin": margin}


KIND = Kind(
    "preference", Encoder.preference, {"loss": False, "preference_loss": False, "margin": True, "preferred": True},
    metric="preferred", judge=Pairs, objective=preference, reads=("preference",), counts="tokens of answers",
    documents=2, keeps_template=True, generates=True, columns=("margin",), passing=reference.passing,
    prepare=reference.prepare, sources=("causal",), compares=True,
    follows=("sampling", "preference", "beta", "smoothing", "reference"),
)  # fmt: skip
