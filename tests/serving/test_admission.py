"""Which requests are let in, without a server; `test_app.py` sends them to one."""

from unittest.mock import Mock

from chinchilla_jax.serving import admission


def test_at_most_as_many_arrive_as_there_are_places_and_a_place_is_not_held_for_long():
    """Each request for text that was let in counts until its answer, or for a second."""
    refused, timers = [], []
    door = admission.Admission(lambda: False, 2, refused.append)
    one, two, three, loop = Mock(), Mock(), Mock(), Mock(call_later=lambda *call: timers.append(call))
    asks = b"POST /v1/completions HTTP/1.1\r\n"
    assert door.admit(one, asks, loop) and door.admit(two, asks, loop) and not door.admit(three, asks, loop)
    assert door.admit(three, b"GET /health HTTP/1.1\r\n", loop) and door.admit(
        three, b"POST /tokenize HTTP/1.1\r\n", loop
    )
    [(seconds, release, who), _] = timers
    release(who)
    assert seconds == admission.ARRIVING and door.admit(three, asks, loop) and refused == ["/v1/completions"]
    assert not admission.Admission(lambda: True, 2, refused.append).admit(
        one, b"POST /v1/chat/completions HTTP/1.1", loop
    )
