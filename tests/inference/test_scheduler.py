"""Requests side by side: each gets what it would get alone, and leaves its slot however it ends."""

import copy
import queue

import jax
import numpy as np

from chinchilla_jax.inference.sampling import Sampling
from chinchilla_jax.inference.scheduler import Request
from tests.slots import Gate, until

LIVELY = Sampling(0.9, top_p=0.9)


def request(ids, new=12, how=LIVELY, seed=0, **more):
    news = queue.Queue()
    made = Request(ids, new, how, seed, news.put, **{"model": "tiny", **more})
    made.news = news
    return made


def whole(made) -> tuple[list, list, str]:
    """(tokens, those of the prompt, why it ended)."""
    tokens, prompt = [], []
    while True:
        event = made.news.get(timeout=60)
        tokens, prompt = tokens + event.tokens, prompt + event.prompt
        if event.end:
            return tokens, prompt, event.end


def some(count: int) -> list[Request]:
    """Prompts of one token to two chunks, half of them greedy, with log-probabilities; one for another model."""
    made = []
    for i in range(count):
        ids = np.random.default_rng(i).integers(3, 280, [1, 5, 64, 90][i % 4]).tolist()
        how = Sampling(0) if i % 2 else Sampling(0.9, top_p=0.9, frequency_penalty=0.2)
        model = "other" if i == 2 else "tiny"
        made.append(request(ids, new=3 + i, how=how, seed=i, logprobs=True, echo=i % 3 == 0, model=model))
    return made


def test_tokens_and_log_probabilities_are_the_same_alone_and_in_company(scheduler):
    alone = []
    for one in some(7):
        scheduler.submit([one])
        alone.append(whole(one))
    together = some(7)
    scheduler.submit(together)
    assert [whole(one) for one in together] == alone
    assert [len(tokens) for tokens, _, end in alone] == [3 + i for i in range(7)]
    assert all(end == "length" for *_, end in alone)
    assert [len(prompt) for _, prompt, _ in alone] == [0, 0, 0, 89, 0, 0, 63], "echo scores every token but the first"


def test_short_prompts_are_read_at_once_and_long_ones_between_calls(scheduler, monkeypatch):
    """Up to a bound that counts the padding, by the length of the program that reads."""
    monkeypatch.setattr("chinchilla_jax.inference.scheduler.READ", 64)
    calls, prefill, decode, engine = [], scheduler.engine._prefill, scheduler.engine.decode, scheduler.engine
    read = lambda *args, **how: (calls.append(args[2].size), prefill(*args, **how))[1]  # noqa: E731
    monkeypatch.setattr(engine, "_prefill", read)
    monkeypatch.setattr(engine, "decode", lambda *args: (calls.append(0), decode(*args))[1])
    for sizes, expected in (((3, 32, 5), [32, 32, 0, 32, 0]), ((1, 33, 100), [32, 64, 0, 64, 0, 64, 0])):
        made = [request(list(range(3, 3 + size)), new=12) for size in sizes]
        calls.clear()
        scheduler.submit(made)
        for one in made:
            whole(one)
        assert calls[: len(expected)] == expected


def test_a_text_ends_at_a_stop_and_its_slot_is_free(scheduler):
    one = request([5], new=30, how=Sampling(0))
    scheduler.submit([one])
    tokens, _, _ = whole(one)
    stop = tokens[7].id
    again = request([5], new=30, how=Sampling(0), stops=frozenset({stop}))
    scheduler.submit([again])
    found, _, end = whole(again)
    first = [token.id for token in tokens].index(stop)
    assert (found, end) == (tokens[:first], "stop")
    until(lambda: not any(scheduler.running))


def test_a_cancelled_request_leaves_and_its_neighbour_goes_on(scheduler):
    quiet = request([7, 8], new=100)
    scheduler.submit([quiet])
    expected = whole(quiet)
    quiet, gone = request([7, 8], new=100), [request([9], new=120) for _ in range(5)]
    scheduler.submit([*gone[:2], quiet, *gone[2:]])
    gone[0].news.get(timeout=60)
    counted = []
    scheduler.seen = lambda name, value: counted.append(name)
    for one in gone:
        scheduler.cancel(one)
    assert whole(quiet) == expected
    until(lambda: not any(scheduler.running) and not scheduler.waiting)
    assert counted.count("cancelled") == 5, "those that waited too"


def test_the_queue_is_bounded_and_draining_ends_it(scheduler):
    scheduler.engine = gate = Gate(scheduler.engine)
    many = [request([3], new=100) for _ in range(8)]
    assert scheduler.submit(many) == "large"
    assert not scheduler.waiting and not any(scheduler.running), "all or none"
    assert scheduler.submit(many[:7]) == ""
    until(lambda: all(scheduler.running))
    assert scheduler.submit(many[:1]) == "full"
    scheduler.drain()
    gate.open.set()
    assert scheduler.submit([request([3])]) == "draining"
    assert sorted(whole(one)[2] for one in many[:7]) == ["draining"] * 4 + ["length"] * 3
    scheduler.thread.join(30)
    assert scheduler.status == "draining"


def test_what_still_runs_at_the_end_is_told(scheduler):
    scheduler.engine = gate = Gate(scheduler.engine)
    one = request([3], new=100)
    scheduler.submit([one])
    until(lambda: any(scheduler.running))
    scheduler.drain()
    scheduler.give_up()
    gate.open.set()
    assert whole(one)[2] == "draining"
    scheduler.thread.join(30)
    assert not scheduler.thread.is_alive()


def test_a_server_that_was_idle_is_not_stuck(scheduler):
    scheduler.engine = gate = Gate(scheduler.engine)
    scheduler.moved -= 100
    one = request([3], new=5)
    scheduler.submit([one])
    assert scheduler.status == "ok"
    scheduler.moved -= 100
    until(lambda: scheduler.status == "stuck")
    gate.open.set()
    assert whole(one)[2] == "length"


def test_nothing_is_compiled_after_the_start(scheduler):
    """Neither the engine's programs nor any small one: every compilation of the process is counted."""
    seen, count = [], lambda name, *_, **__: seen.append(name)
    scheduler.prefixes.most = 10**6
    before, made = scheduler.engine.programs, some(7)
    made[3].bias = {4: 5.0}
    jax.monitoring.register_event_duration_secs_listener(count)
    scheduler.submit(made)
    for one in made:
        whole(one)
    again = request(made[3].ids)
    scheduler.submit([again])
    whole(again)
    jax.monitoring.unregister_event_duration_listener(count)
    assert again.cached == 64 and scheduler.engine.programs == before
    assert not [name for name in seen if "compile" in name]


def test_a_beginning_that_was_read_before_changes_no_bit(scheduler):
    """Shared first chunks with other ends, other models with the same text; every answer as without what is kept."""
    draw = np.random.default_rng(3)
    common = draw.integers(3, 280, 64).tolist()
    prompts = [[*common, *draw.integers(3, 280, n).tolist()] for n in (1, 30, 50)] + [common, [*common[:-1], 5, 6]]

    def answers():
        models = "tiny", "other"
        made = [request(prompts[i % 5], 8, logprobs=True, seed=i, model=models[i % 2]) for i in range(10)]
        found = []
        for part in (made[:5], made[5:]):
            scheduler.submit(part)
            found += map(whole, part)
        return found, [one.cached for one in made]

    cold, none = answers()
    scheduler.prefixes.most = 10**6
    warm, cached = answers()
    assert warm == cold and not any(none)
    # The first of each model reads; `common` alone ends in a whole chunk, which gives its first token and is read.
    assert cached == [0, 0, 64, 0, 0, 64, 64, 64, 0, 0]
    size = scheduler.prefixes.bytes
    assert size == sum(block.nbytes for block in scheduler.prefixes.blocks.values()) > 0


def test_a_text_alone_goes_on_by_guesses_and_stays_the_same(scheduler):
    """Up to the very end of a slot, to a stop, and beside others, where nothing is guessed."""
    counts, repeated = {}, [7, 8, 9] * 6

    def answers():
        made = [request(repeated, 110, Sampling(0)), request(repeated, 30, stops=frozenset(range(3, 250, 9)))]
        made += [request(repeated, 110, Sampling(0, frequency_penalty=0.2)), request([5], 20), request([6], 20)]
        found = []
        for part in (made[:1], made[1:2], made[2:]):
            scheduler.submit(part)
            found += map(whole, part)
        return found

    expected, scheduler.lookup = answers(), True
    scheduler.seen = lambda name, value: counts.update({name: counts.get(name, 0) + value})
    assert answers() == expected
    assert 0 < counts["accepted_tokens"] <= counts["draft_tokens"]


def test_few_texts_are_decoded_apart_only_where_that_gives_the_same_bits(engine, scheduler):
    """This machine's program for few slots gives them; one that rounds otherwise is not used."""
    other, decode = copy.copy(engine[0]), engine[0]._decode

    def rounded(*args):
        state, drawn = decode(*args)
        return state, drawn._replace(logprob_S=drawn.logprob_S * (2 if len(args) > 4 else 1))

    assert scheduler.engine.few == 2
    other._decode = rounded
    other.warm_up([*engine[1].values()], 3, 128, False)
    assert other.few == 0
