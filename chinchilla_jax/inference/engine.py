"""The one engine that decodes: slots with texts of their own, prompts in chunks, then tokens a few steps a call.

A few programs of fixed shape serve every prompt length, every way to sample and every mixture of texts: `start` gives a
slot to a text, `prefill` reads a chunk of its prompt, `decode` makes tokens for all slots at once, `verify` reads what
was guessed of one text, `widen` makes the slots longer. Shapes do not depend on the load, so at one capacity the bits
of a row do not depend on its neighbours. (Another capacity may sum the same numbers in another order.)
"""

import dataclasses
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from chinchilla_jax.config import ModelConfig
from chinchilla_jax.inference.lookup import DRAFT, Lookup
from chinchilla_jax.inference.sampling import Drawn, Rows, Text, draw, masked, scored
from chinchilla_jax.model import cache as caches
from chinchilla_jax.model import transformer
from chinchilla_jax.model.adapted import prefix
from chinchilla_jax.parallel.sharding import replicated

CHUNK = 64  # tokens of a prompt that a call reads
BUCKET = 32  # prompts shorter than a chunk and slots are padded to multiples of this
SHORTEST = 128  # capacity of the shortest slots
STEPS = 16  # tokens between two looks at the terminal
FEW = 2  # slots that have a program of their own; one row alone XLA:CPU multiplies by a kernel that rounds otherwise
FEW_STEPS = 4  # where something may come in between: another request, a guess
# XLA:CPU gives sums of 4,096 numbers or more to YNNPACK, which adds in another order: the bits of a row would depend on
# how many rows there are. Products alone go there, where any number of rows above one gives the same bits.
PRODUCTS = "LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"
OPTIONS = {"cpu": {"xla_cpu_experimental_ynn_fusion_type": PRODUCTS}}


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class State:
    """What the slots hold: the cache, the last token of each text (not in the cache yet), how many were drawn."""

    cache: caches.Cache
    token_S: jax.Array
    drawn_S: jax.Array
    text: Text


class Engine:
    """The compiled functions for one shape of model. `pieces` is the size of the tokenizer, `steps` tokens a call.

    `prepare(params)` gives the weights laid out for decoding, in the compute type, or int8 for `form` "int8";
    `fitted(weights, capacity)` what goes with slots, which `stream` does by itself.
    """

    def __init__(self, cfg: ModelConfig, pieces: int, steps: int = STEPS, form: str = "float"):
        self.cfg, self.pieces, self.steps = cfg, pieces, steps
        self.few = 0  # as many texts are decoded apart: see `warm_up`
        self.prepare = jax.jit(partial(caches.split_layers, cfg=cfg, form=form))
        jit = partial(jax.jit, compiler_options=OPTIONS.get(cfg.kernels))
        self._start = jax.jit(_start, donate_argnums=0)
        self._prefill = jit(partial(_prefill, cfg=cfg, pieces=pieces), static_argnames="block", donate_argnums=1)
        self._decode = jit(partial(_decode, cfg=cfg, pieces=pieces, steps=steps), donate_argnums=1)
        self._verify = jit(partial(_verify, cfg=cfg, pieces=pieces), donate_argnums=1)
        self._distances = jax.jit(partial(caches.distances, cfg=cfg), static_argnames="capacity")
        self._widen = jax.jit(_widen, static_argnames="capacity")
        self._empty = jax.jit(partial(_empty, cfg=cfg), static_argnames=("slots", "capacity"))
        self._take = jax.jit(partial(caches.block_of, cfg=cfg, length=CHUNK))
        self._put = jax.jit(partial(_put, cfg=cfg), donate_argnums=0)

    @property
    def programs(self) -> int:
        """Programs compiled so far."""
        return sum(one._cache_size() for one in vars(self).values() if hasattr(one, "_cache_size"))

    def warm_up(self, models: Sequence[Any], slots: int, capacity: int, lookup: bool) -> State:
        """Empty slots, after every program has run until none is compiled any more.

        On a CPU one text or two among more slots are decoded by a program of their own, if that gives the same bits.
        """
        self.few, before, rows = FEW if slots > FEW and self.cfg.kernels == "cpu" else 0, -1, Rows.empty(slots)
        rows.logprobs_S[0] = True
        state = self.empty(models[0], slots, capacity)
        while before != self.programs:
            before = self.programs
            for weights in models:
                state, *_ = self.prefill(weights, self.start(state, 0, [0]), 0, [0] * CHUNK, rows, last=False)
                state, *found = self._tried(weights, state, rows)
                self.few *= found[0] == found[1]
                if lookup:
                    state, _ = self.verify(weights, state, 0, [0] * DRAFT, rows)
            state = self.put(state, 0, 0, self.take(state, 0, 0))
        return state

    def _tried(self, weights: Any, state: State, rows: Rows) -> tuple[State, list[bytes], list[bytes]]:
        """The bits that a text in slot 0 gives, decoded among all slots and among few."""
        few, found = self.few, []
        for self.few in (0, few):
            state = self.start(state, 0, [0])
            state, *_ = self.prefill(weights, state, 0, [0, 1, 2], rows)
            state, drawn = self.decode(weights, state, [0], rows)
            kept = np.asarray(self.take(state, 0, 0))  # keys and values of every layer
            found.append([x.tobytes() for x in (kept, *drawn)])
        return state, *found

    def empty(self, weights: Any, slots: int, capacity: int = SHORTEST) -> State:
        """Slots without texts, placed as the weights are: else every program would be compiled twice."""
        state, there = self._empty(weights, slots=slots, capacity=capacity), jax.tree.leaves(weights)[0].sharding
        return jax.device_put(state, replicated(there.mesh)) if isinstance(there, NamedSharding) else state

    def fitted(self, weights: Any, capacity: int) -> Any:
        """`weights` for slots of `capacity` tokens, as every call wants them that reads or writes in slots."""
        return caches.fitted(weights, self._distances(weights, capacity=capacity))

    def start(self, state: State, slot: int, ids: Sequence[int], bias: dict[int, float] | None = None) -> State:
        """Give `slot` to a text that begins with `ids`, none of which is in the cache yet."""
        V = self.cfg.vocab_size
        prompt_V, bias_V = np.zeros(V, bool), np.zeros(V, np.float32)
        prompt_V[[token for token in ids if token < V]] = True  # a soft prompt's ids go on behind the vocabulary
        for token, value in (bias or {}).items():
            bias_V[token] = value
        return self._start(state, np.int32(slot), prompt_V, bias_V)

    def prefill(
        self, weights: Any, state: State, slot: int, ids: Sequence[int], rows: Rows, *, last: bool = True,
        after: int = 0, wanted: bool = False, length: int | None = None, block: bool = False,
    ) -> tuple[State, Drawn, Drawn]:  # fmt: skip
        """Read a chunk of the prompt of `slot`; the `last` one draws the text's first token.

        It is padded to `length` tokens, by default to what `padded` says of so many.
        Last in what it gives are the chunk's next tokens, whose last is `after`, with log-probabilities where `wanted`.
        With `block`, the chunk's tokens see each other in both directions.
        """
        tokens_C, next_C = np.zeros((2, length or padded(len(ids))), np.int32)
        tokens_C[: len(ids)] = ids
        next_C[: len(ids)] = [*ids[1:], after]
        args = tokens_C, next_C, np.int32(len(ids)), np.int32(slot), rows, np.bool_(last), np.bool_(wanted)
        return self._prefill(weights, state, *args, block=block)

    def decode(self, weights: Any, state: State, slots: Sequence[int], rows: Rows) -> tuple[State, Drawn]:
        """`steps` more tokens for these slots; each field of `Drawn` is (steps, slots ...), in their order."""
        if len(slots) <= self.few:
            slot_B, places = np.resize(np.array(slots, np.int32), FEW), range(len(slots))
            state, drawn = self._decode(weights, state, np.ones(FEW, bool), rows, slot_B)
        else:
            places, active_S = list(slots), np.isin(np.arange(len(rows.seed_S)), slots)
            state, drawn = self._decode(weights, state, active_S, rows)
        return state, Drawn(*(np.asarray(x_nS)[:, places] for x_nS in drawn))

    def verify(self, weights: Any, state: State, slot: int, guess: Sequence[int], rows: Rows) -> tuple[State, Drawn]:
        """The tokens of `slot` up to the first of `DRAFT` guesses that is wrong, 1 to DRAFT + 1 of them.

        The slot must have room for DRAFT + 1 behind what it holds.
        """
        state, drawn, count = self._verify(weights, state, np.array(guess, np.int32), np.int32(slot), rows)
        return state, Drawn(*(np.asarray(x_L)[: int(count)] for x_L in drawn))

    def take(self, state: State, slot: int, at: int) -> jax.Array:
        """What was computed of a whole chunk of `slot`, for `put`."""
        return self._take(state.cache, np.int32(slot), np.int32(at))

    def put(self, state: State, slot: int, at: int, block: jax.Array) -> State:
        """The chunk of `slot` at `at` from one that `take` gave, in place of `prefill`: the same bits."""
        return self._put(state, np.int32(slot), np.int32(at), block)

    def read(
        self, weights: Any, state: State, slot: int, ids: Sequence[int], rows: Rows, length: int = CHUNK,
        numbers: Sequence[int] | None = None,
    ) -> State:  # fmt: skip
        """A whole prompt in `slot`, with the first token behind it, read in parts of at most `length` tokens.

        A soft prompt stands before it. `numbers` are those of a `Batch.blocks`: tokens of equal ones above 0 are one
        part and see each other in both directions.
        """
        soft = prefix(weights["embed"]["table"])
        ids, numbers = [*soft, *ids], None if numbers is None else [*[0] * len(soft), *numbers]
        state = self.start(state, slot, ids)
        whole = [(at, min(at + length, len(ids))) for at in range(0, len(ids), length)]
        for at, stop in whole if numbers is None else stretches(numbers):
            how = {"last": stop == len(ids), "length": length, "block": numbers is not None and numbers[at] > 0}
            state, *_ = self.prefill(weights, state, slot, ids[at:stop], rows, **how)
        return state

    def stream(
        self,
        weights: Any,
        prompts: Sequence[Sequence[int]],
        new: int,
        rows: Rows,
        blocks: Sequence[Sequence[int]] | None = None,
        lookup: bool = False,
    ) -> Iterator[np.ndarray]:
        """Blocks (B, some) of the `new` tokens that continue each prompt, all rows side by side.

        `blocks` are the numbers of each prompt for `read`. With `lookup`, a prompt that is alone goes on by guesses
        where it repeats itself.
        """
        longest = len(prefix(weights["embed"]["table"])) + max(map(len, prompts))
        end = _ceil(longest + new + (DRAFT if lookup else 0), BUCKET)
        whole = _ceil(longest, BUCKET)
        length = min(CHUNK, whole) if blocks is None else whole
        # A part is written with its padding, of which nothing may reach beyond the slot.
        written = _ceil(longest, length) if blocks is None else longest + length
        capacity = max(written, min(end, capacity_for(longest)))
        state, weights = self.empty(weights, len(prompts), capacity), self.fitted(weights, capacity)
        for slot, ids in enumerate(prompts):
            state = self.read(weights, state, slot, ids, rows, length, blocks and blocks[slot])
        made_BN, at = np.asarray(state.token_S)[:, None], 1
        yield made_BN
        known = Lookup([*prompts[0], *made_BN[0].tolist()]) if lookup and len(prompts) == 1 else None
        while at < new:
            capacity = min(end, capacity_for(longest + at + max(self.steps, DRAFT + 1)))
            if capacity > state.cache.capacity:
                state, weights = self._widen(state, capacity=capacity), self.fitted(weights, capacity)
            if guess := known and known.guess():
                state, drawn = self.verify(weights, state, 0, guess, rows)
                made_BN = drawn.token_S[None]
                known.heard(made_BN.shape[1])
            else:
                state, drawn = self.decode(weights, state, range(len(prompts)), rows)
                made_BN = drawn.token_S.T
            if known:
                known.add(made_BN[0].tolist())
            yield made_BN[:, : new - at]
            at += made_BN.shape[1]


def padded(count: int) -> int:
    """The tokens that a call reads where a chunk has `count`: a short prompt takes half the time."""
    return BUCKET if count <= BUCKET else CHUNK


def stretches(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Where runs of equal numbers begin and end."""
    cuts = [i for i in range(1, len(numbers)) if numbers[i] != numbers[i - 1]]
    return list(zip([0, *cuts], [*cuts, len(numbers)]))


def capacity_for(tokens: int) -> int:
    """The capacity of slots that hold `tokens`: a power of two, so that a text that grows compiles a few programs."""
    return max(SHORTEST, 1 << (tokens - 1).bit_length())


def _ceil(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


def _empty(weights, *, cfg: ModelConfig, slots: int, capacity: int) -> State:
    zeros_S, shape = jnp.zeros(slots, jnp.int32), (slots, cfg.vocab_size)
    text = Text(jnp.zeros(shape, bool), jnp.zeros(shape, jnp.int32), jnp.zeros(shape))
    return State(caches.empty(weights, cfg, slots, capacity), zeros_S, zeros_S, text)


def _widen(state: State, *, capacity: int) -> State:
    return dataclasses.replace(state, cache=caches.widen(state.cache, capacity))


def _put(state: State, slot, at, block, *, cfg: ModelConfig) -> State:
    return dataclasses.replace(state, cache=caches.with_block(state.cache, slot, at, block, cfg))


def _start(state: State, slot, prompt_V, bias_V) -> State:
    text = Text(
        state.text.prompt_SV.at[slot].set(prompt_V),
        state.text.made_SV.at[slot].set(0),
        state.text.bias_SV.at[slot].set(bias_V),
    )
    cache = dataclasses.replace(state.cache, used_S=state.cache.used_S.at[slot].set(0))
    return State(cache, state.token_S, state.drawn_S.at[slot].set(0), text)


def _prefill(
    weights, state: State, tokens_C, next_C, count, slot, rows: Rows, last, wanted, *, cfg, pieces: int, block: bool
):
    hidden_1CD, cache = caches.extend(
        weights, tokens_C[None], count[None], state.cache, cfg, slot_B=slot[None], block=block
    )
    row, text = jax.tree.map(lambda x: x[slot][None], (rows, state.text))
    logits_1V = transformer.logits(weights, jax.lax.dynamic_slice_in_dim(hidden_1CD[0], count - 1, 1))
    drawn = draw(logits_1V, row, text, state.drawn_S[slot][None], pieces)

    def likelihoods(hidden_CD):
        return scored(masked(transformer.logits(weights, hidden_CD), pieces), next_C)

    unscored = Drawn.unscored(next_C, cfg.vocab_size)
    prompt = jax.lax.cond(wanted, likelihoods, lambda _: unscored, hidden_1CD[0])
    token = jnp.where(last, drawn.token_S[0], state.token_S[slot])
    made_SV = state.text.made_SV.at[slot, token].add(last.astype(jnp.int32))
    state = State(
        cache,
        state.token_S.at[slot].set(token),
        state.drawn_S.at[slot].add(last.astype(jnp.int32)),
        state.text._replace(made_SV=made_SV),
    )
    return state, drawn, prompt


def _decode(weights, state: State, active_B, rows: Rows, slot_B=None, *, cfg, pieces: int, steps: int):
    """For all slots, or for those of `slot_B`, which may name one twice."""
    one_B, row_B = active_B.astype(jnp.int32), jnp.arange(active_B.shape[0])
    held = state.token_S, state.drawn_S, state.text
    *begun, rows = (*held, rows) if slot_B is None else jax.tree.map(lambda x_S: x_S[slot_B], (*held, rows))

    def one(carry, _):
        cache, token_B, drawn_B, text = carry
        hidden_B1D, cache = caches.extend(weights, token_B[:, None], one_B, cache, cfg, slot_B=slot_B)
        drawn = draw(transformer.logits(weights, hidden_B1D[:, 0]), rows, text, drawn_B, pieces)
        token_B = jnp.where(active_B, drawn.token_S, token_B)
        text = text._replace(made_SV=text.made_SV.at[row_B, token_B].add(one_B))
        return (cache, token_B, drawn_B + one_B, text), drawn

    (cache, *made), drawn = jax.lax.scan(one, (state.cache, *begun), length=steps)
    if slot_B is not None:
        made = jax.tree.map(lambda x_S, x_B: x_S.at[slot_B].set(x_B), held, tuple(made))
    return State(cache, *made), drawn


def _verify(weights, state: State, guess_C, slot, rows: Rows, *, cfg, pieces: int):
    used, tokens_L = state.cache.used_S[slot], jnp.concatenate([state.token_S[slot][None], guess_C])
    hidden_1LD, cache = caches.extend(
        weights, tokens_L[None], jnp.zeros(1, jnp.int32), state.cache, cfg, slot_B=slot[None]
    )
    logits_LV, next_L = transformer.logits(weights, hidden_1LD[0]), jnp.append(guess_C, -1)
    row, text = jax.tree.map(lambda x: x[slot][None], (rows, state.text))

    def one(carry):
        """What is drawn behind token `count`, by a text that knows of all before."""
        text, count, _, found = carry
        drawn = draw(logits_LV[count][None], row, text, (state.drawn_S[slot] + count)[None], pieces)
        text = text._replace(made_SV=text.made_SV.at[0, drawn.token_S[0]].add(1))
        found = jax.tree.map(lambda all_L, new_1: all_L.at[count].set(new_1[0]), found, drawn)
        return text, count + 1, drawn.token_S[0] == next_L[count], found

    # Draws end with the first wrong guess: over a large vocabulary they cost as much as the layers.
    begun = text, jnp.int32(0), jnp.bool_(True), Drawn.unscored(next_L, cfg.vocab_size)
    text, count, _, drawn = jax.lax.while_loop(lambda carry: carry[2], one, begun)
    state = State(
        dataclasses.replace(cache, used_S=cache.used_S.at[slot].set(used + count)),
        state.token_S.at[slot].set(drawn.token_S[count - 1]),
        state.drawn_S.at[slot].add(count),
        state.text._replace(made_SV=state.text.made_SV.at[slot].set(text.made_SV[0])),
    )
    return state, drawn, count
