"""What is started again, after how long, and what never is; and two processes of which one is killed."""

import itertools
import signal
import sys

import pytest

from chinchilla_jax.commands import supervise
from chinchilla_jax.commands.supervise import named, supervised
from tests import runs


def course(codes, restarts=10, wait=2.0, lasts=1.0):
    """Exit code, attempts and waits of a command that ends with `codes`, each after `lasts` seconds."""
    clock, waits, left = itertools.count(step=lasts), [], iter(codes)
    found = supervised(lambda: next(left), restarts, wait, sleep=waits.append, now=lambda: float(next(clock)))
    return found, waits


@pytest.mark.parametrize("code", [1, 69, 75, 134, 137, 143, -9, -6, -11])
def test_a_crash_and_a_lost_peer_are_worth_another_attempt(code):
    assert course([code, code, 0]) == ((0, 3), [2.0, 4.0])


@pytest.mark.parametrize("code", [0, 74, 76, 77, 78, 130])
def test_a_users_error_and_an_end_are_not(code):
    assert course([code]) == ((code, 1), [])


def test_there_is_a_limit_and_the_waits_grow_to_one():
    found, waits = course([-9] * 20)
    assert found == (-9, 11) and waits == [min(300.0, 2.0 * 2**n) for n in range(10)]


def test_restarts_of_long_ago_do_not_count():
    found, waits = course([-9] * 20 + [0], restarts=2, lasts=2000.0)
    assert found == (0, 21) and set(waits) == {2.0}


def test_a_request_to_stop_is_not_a_crash():
    assert supervised(lambda: 75, 10, 0.0, asked=lambda: True) == (75, 1)


def test_a_request_to_stop_ends_the_wait_for_the_next_attempt(monkeypatch):
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(supervise.time, "sleep", sleep)
    with supervise.forwarding() as child:
        assert supervised(lambda: -9, 10, 300.0, lambda: child.asked, child.rest) == (-9, 1)
    assert len(slept) == 1 and slept[0] < 1


def test_a_request_to_stop_while_an_attempt_starts_reaches_it():
    with supervise.forwarding() as child:
        signal.raise_signal(signal.SIGTERM)
        assert child([sys.executable, "-c", "import time; time.sleep(60)"]) == -signal.SIGTERM


def test_the_run_directory_is_found_on_the_command_line():
    assert named(["pretrain", "--run-dir", "a b"], "--run-dir") == "a b" == named(["--run-dir=a b"], "--run-dir")
    assert named(["pretrain"], "--run-dir") == ""


@pytest.mark.parametrize("words, hint", [((), "supervise needs a command"), (("--restarts", "-1", "fit"), "negative")])
def test_a_wrong_flag_is_one_line(words, hint):
    code, said = runs.call("supervise", *words)
    assert code == 78 and said.count("\n") == 1 and hint in said
