"""What processes tell one another, over a coordination service of ours: a dictionary that several of them share."""

import json
import sys
import threading
import time

import jax
import pytest

from chinchilla_jax.errors import Diverged, PeerLost, Preempted
from chinchilla_jax.parallel import peers
from chinchilla_jax.parallel.peers import Peers


class Service:
    """As much of JAX's client as is used: a key is written once, unless overwriting is allowed."""

    def __init__(self):
        self.words, self.changed = {}, threading.Condition()

    def key_value_set(self, key, value, allow_overwrite=False):
        with self.changed:
            if key in self.words and not allow_overwrite:
                raise jax.errors.JaxRuntimeError("ALREADY_EXISTS")
            self.words[key] = value
            self.changed.notify_all()

    def key_value_try_get(self, key):
        with self.changed:
            if key not in self.words:
                raise jax.errors.JaxRuntimeError("NOT_FOUND")
            return self.words[key]

    def blocking_key_value_get(self, key, milliseconds):
        with self.changed:
            if not self.changed.wait_for(lambda: key in self.words, milliseconds / 1e3):
                raise jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED")
            return self.words[key]


@pytest.fixture
def team(monkeypatch):
    """Three processes of one run; no threads of their own, and waits a hundred times as short."""
    for name in ("BEAT", "GRACE", "DRAIN"):
        monkeypatch.setattr(peers, name, getattr(peers, name) / 100)
    service = Service()
    return [Peers(service, process, 3, patience=0.3) for process in range(3)]


def at_once(work, members) -> list:
    """`work(member)` of all, each in a thread."""
    found = {}
    threads = [threading.Thread(target=lambda m=m: found.update({m.process: work(m)})) for m in members]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    return [found[member.process] for member in members]


@pytest.mark.parametrize("asked_at", [1, 7])
def test_all_stop_after_the_same_call_by_the_name_of_the_first_signal(team, asked_at):
    """One is far ahead of the others when it is asked; none may make a call more than another."""
    for member in team:
        member.patience = 20

    def work(member):
        hears = threading.Thread(target=member._hear)
        hears.start()
        for call in range(1, 200):
            asked = member.process == 2 and call >= asked_at
            if member.process == 2 and call == asked_at:
                member.ask("SIGTERM")
                member.ask("SIGINT")
            if name := member.agreed(asked):
                hears.join()
                return call, name
            time.sleep(0.002 * (2 - member.process))

    first, *others = at_once(work, team)
    assert first[1] == "SIGTERM" and first[0] > asked_at and others == [first, first]


def test_a_failure_is_told_once_and_what_all_come_to_alike_is_none(team, capsys):
    first, second, _ = team
    for error in (Preempted("stopped"), Diverged("bad steps")):
        first.failed(error)
    assert "failed" not in str(first.client.words) and not first.told
    first.failed(OSError("the disk\nis gone"))
    first.failed(ValueError("because of that"))
    second.failed(KeyError("x"))
    note = json.loads(first.client.words[f"{peers.ROOT}/failed"])
    assert note == {"process": 0, "why": "OSError: the disk is gone"} and first.told
    said = capsys.readouterr().err
    assert said.splitlines()[0] == "error: process 0 of 3 fails: OSError: the disk is gone" and "because" not in said
    assert "process 1 of 3 fails: KeyError" in said, "and its own too"


class Left(Exception):
    """In place of the end of the process."""


def test_a_collective_that_fails_with_its_peer_ends_as_a_lost_peer_does(team, monkeypatch, capsys):
    def leave(code):
        raise Left(code)

    one, other, _ = team
    monkeypatch.setattr(other, "leave", leave)
    drained = []
    other.drain = lambda: drained.append(True)
    one.failed(MemoryError("no room"))
    with pytest.raises(Left, match=str(PeerLost.exit_code)):
        other.failed(RuntimeError("Gloo all-reduce failed: Connection reset by peer"))
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("error: a peer was lost: process 0 (MemoryError: no room)") and drained == [True]


def test_a_silent_neighbour_is_noticed_in_its_time(team, monkeypatch):
    """Process 1 watches 2, which beats for a while and then no more; everybody may read why the run ended."""
    lost, began = [], time.monotonic()
    _, watcher, silent = team
    monkeypatch.setattr(watcher, "_lost", lost.append)
    watches = threading.Thread(target=watcher._watch)
    watches.start()
    while time.monotonic() - began < 0.6:
        silent._beat()
        time.sleep(0.02)
    assert not lost
    watches.join(10)
    assert lost == [{"process": 2, "why": "no sign of life for 0 s"}]
    assert json.loads(watcher.client.words[f"{peers.ROOT}/failed"]) == lost[0]


def test_words_of_the_others_are_taken_and_missing_ones_left_out(team):
    first, second, third = team
    second.give("sums/10", "b")
    assert first.take("sums/10", 0.05) == ["b"]
    third.give("sums/10", "c")
    third.give("sums/10", "too late")
    assert first.take("sums/10", 5) == ["b", "c"] and second.take("sums/10", 0.01) == ["c"]


def test_a_process_alone_has_no_peers(monkeypatch):
    peers.start()
    assert peers.current() is None and sys.modules["jax._src.distributed"].global_state.client is None
