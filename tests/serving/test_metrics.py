"""Figures as Prometheus' own parser reads them."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from chinchilla_jax.serving.metrics import COUNTERS, GAUGES, TIMES, Metrics


def test_everything_seen_is_in_the_text():
    metrics = Metrics()
    for number, name in enumerate((*COUNTERS, *TIMES), 1):
        metrics.seen(name, number)
        metrics.seen(name, 0.5)
    metrics.requests.labels("/v1/completions", "200").inc()
    text = metrics.text(**dict.fromkeys(GAUGES, 7)).decode()
    found = {sample.name: sample for family in text_string_to_metric_families(text) for sample in family.samples}
    for number, name in enumerate((*COUNTERS, *TIMES), 1):
        end = "total" if name in COUNTERS else "sum"
        assert found[f"chinchilla_{name}_{end}"].value == number + 0.5
    assert all(found[f"chinchilla_{name}"].value == 7 for name in GAUGES)
    assert found["chinchilla_requests_total"].labels == {"endpoint": "/v1/completions", "code": "200"}
    assert found["chinchilla_queue_seconds_count"].value == 2


def test_servers_do_not_share_figures_and_an_unknown_name_is_an_error():
    one, two = Metrics(), Metrics()
    one.seen("generation_tokens", 3)
    assert one.text() != two.text()
    with pytest.raises(KeyError):
        one.seen("nothing", 1)
