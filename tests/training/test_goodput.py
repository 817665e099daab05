"""Goodput against a scripted course with faults."""

import pytest

from chinchilla_jax.training.goodput import PARTS, goodput


def event(time, name, **facts):
    return {"time": float(time), "event": name, **facts}


COURSE = [
    event(0, "begin"), event(10, "compiled", seconds=8), event(11, "start", step=0),
    event(31, "saved", step=10, seconds=2),
    event(41, "evaluated", step=10, seconds=9), event(55, "skipped", step=14),
    # killed at some moment; step 10 is what is left
    event(100, "begin"), event(104, "restored", seconds=3), event(108, "compiled", seconds=4),
    event(109, "start", step=10),
    event(129, "saved", step=20, seconds=1), event(149, "saved", step=30, seconds=1),
    # step 30 was not complete when the process died
    event(200, "begin"), event(202, "restored", seconds=2), event(205, "start", step=20),
    event(225, "saved", step=30, seconds=1), event(230, "end", step=30),
]  # fmt: skip


def test_each_second_is_counted_once():
    found = goodput(COURSE)
    assert found["attempts"] == 3 and found["seconds"] == 230
    assert sum(found["shares"].values()) == pytest.approx(1, abs=1e-9) and set(found["shares"]) == set(PARTS)
    seconds = {name: share * 230 for name, share in found["shares"].items()}
    expected = {
        "compiling": 8 + 4,
        "restoring": 3 + 2,
        "saving": 2 + 1 + 1,
        "evaluating": 0,  # that of step 10 came after its save, and was done again
        "lost": (100 - 31) + (200 - 129),
        "productive": (31 - 10) + (29 - 8) + (30 - 3),
    }
    assert seconds == pytest.approx(expected)


def test_an_attempt_that_never_started_loses_its_time_alone():
    course = [
        *COURSE[:4],
        event(100, "begin"),
        event(120, "begin"),
        event(130, "start", step=10),
        event(140, "end", step=12),
    ]
    found = goodput(course)
    assert found["shares"]["lost"] * 140 == pytest.approx((100 - 31) + (120 - 100))
    assert goodput([])["seconds"] == 0
