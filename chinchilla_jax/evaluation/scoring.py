"""Log-probabilities of given continuations, in batches of a few fixed shapes."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chinchilla_jax.model import transformer
from chinchilla_jax.model.adapted import prefix
from chinchilla_jax.objectives.dense import tile_losses
from chinchilla_jax.parallel import sharding
from chinchilla_jax.parallel.flight import paced
from chinchilla_jax.parallel.tiles import over_tiles, tile_size
from chinchilla_jax.training.program import Program
from chinchilla_jax.types import Batch

SHORTEST = 32
MULTIPLE = {"tpu": 128}  # tokens of a row that a platform's attention wants multiples of
Pair = tuple[Sequence[int], Sequence[int]]


class Scorer:
    """log p(continuation | context) under whole parameters, and whether greedy decoding would give the continuation.

    A row holds one text. Texts of similar lengths share a batch, whose length is a power of two, so that a few programs
    serve all; a batch has about as many tokens as one of the program's.
    """

    def __init__(self, program: Program, params: Any):
        self.program, self.params = program, params
        self.soft = prefix(params["embed"]["table"])
        self.where = sharding.batch_sharding(program.mesh)
        self.score = jax.jit(self._score, out_shardings=sharding.replicated(program.mesh))

    def __call__(self, pairs: Sequence[Pair]) -> list[tuple[float, bool]]:
        """(sum of log p, greedy) of every pair (context, continuation); a context has a token at least."""
        found: list[tuple[float, bool]] = [(0.0, True)] * len(pairs)
        with jax.set_mesh(self.program.mesh):
            batches = [(chosen, self._batch(chosen, pairs)) for chosen in self._shared(pairs)]
            scored = paced((self.score(self.params, batch) for _, batch in batches), depth=1)
            for (chosen, _), (log_p_B, greedy_B) in zip(batches, scored):
                for number, log_p, greedy in zip(chosen, np.asarray(log_p_B), np.asarray(greedy_B)):
                    found[number] = float(log_p), bool(greedy)
        return found

    def _length(self, pair: Pair) -> int:
        """The length of the row that holds a pair, whose last token is only predicted."""
        needed = max(len(self.soft) + len(pair[0]) + len(pair[1]) - 1, SHORTEST)
        return max(1 << (needed - 1).bit_length(), MULTIPLE.get(self.program.config.model.kernels, 1))

    def _rows(self, length: int) -> int:
        shards = sharding.shards("batch", self.program.mesh)
        rows = self.program.microbatch * self.program.config.train.seq_len // length
        return max(1, rows // shards) * shards

    def _shared(self, pairs: Sequence[Pair]) -> Iterator[list[int]]:
        """The numbers of the pairs that share a batch, the longest first."""
        order, at = sorted(range(len(pairs)), key=lambda i: -self._length(pairs[i])), 0
        while at < len(order):
            length = self._length(pairs[order[at]])
            chosen = [i for i in order[at : at + self._rows(length)] if self._length(pairs[i]) == length]
            at += len(chosen)
            yield chosen

    def _batch(self, chosen: Sequence[int], pairs: Sequence[Pair]) -> Batch:
        length = self._length(pairs[chosen[0]])
        shape = self._rows(length), length
        tokens, targets, segments = (np.zeros(shape, np.int32) for _ in range(3))
        weights = np.zeros(shape, np.float32)
        for row, number in enumerate(chosen):
            context, continuation = pairs[number]
            ids = [*self.soft, *context, *continuation]
            end = len(ids) - 1
            tokens[row, :end], segments[row, :end] = ids[:-1], 1
            targets[row, end - len(continuation) : end] = continuation
            weights[row, end - len(continuation) : end] = 1
        positions = np.broadcast_to(np.arange(length, dtype=np.int32), shape)
        fields = tokens, targets, weights, segments, positions
        return Batch(*(jax.make_array_from_callback(shape, self.where, field.__getitem__) for field in fields))

    def _score(self, params: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
        config = self.program.config
        hidden_BLD = transformer.apply(params, batch, config.model)
        tiling = tile_size(config.model, dataclasses.replace(config.objective, positions="trained"))

        def one(table_VD, tile):
            losses_SM, (p_SMV, _, _, hit_SMV) = tile_losses(table_VD, 0.0, tile[:2], kernels=tiling.kernels)
            likeliest_SM = jnp.any(hit_SMV & (p_SMV == 1), -1)  # p is relative to the likeliest token's
            return jnp.sum(losses_SM), (losses_SM, likeliest_SM)

        table_VD = transformer.unembedding(params)
        _, (losses_BL, best_BL) = over_tiles(one, table_VD, (hidden_BLD, batch.targets, batch.weights), tiling)
        return -jnp.sum(losses_BL * batch.weights, 1), jnp.all(best_BL | (batch.weights == 0), 1)
