"""Figures for Prometheus; no label comes from a request's text."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
COUNTERS = {
    "prompt_tokens": "tokens of prompts, as in usage",
    "generation_tokens": "tokens generated, as in usage",
    "cached_tokens": "tokens of prompts that were not read again, as in usage",
    "prefix_cache_hits": "tokens of prompts found among the beginnings kept, every choice counted",
    "prefix_cache_queries": "tokens of prompts that were looked for",
    "draft_tokens": "tokens guessed by prompt lookup",
    "accepted_tokens": "guesses that were right",
    "cancelled": "requests whose client went away or whose stop string came",
}
TIMES = {
    "queue_seconds": "from arrival to a slot",
    "time_to_first_token_seconds": "from arrival to the first token",
    "step_seconds": "one token of all running texts",
}
GAUGES = {
    "requests_running": "requests that hold a slot",
    "requests_waiting": "requests in the queue",
    "slots": "texts decoded side by side",
    "programs": "compiled programs; constant while requests are served",
    "prefix_cache_bytes": "bytes kept of beginnings of prompts",
}


class Metrics:
    """`seen(name, value)` is what the scheduler calls."""

    def __init__(self):
        self.registry = CollectorRegistry()

        def made(kind, names: dict[str, str], **more):
            return {name: kind(f"chinchilla_{name}", about, registry=self.registry, **more)
                    for name, about in names.items()}  # fmt: skip

        answers = {"requests": "answers by endpoint and status"}
        self.requests = made(Counter, answers, labelnames=("endpoint", "code"))["requests"]
        self.counters, self.gauges = made(Counter, COUNTERS), made(Gauge, GAUGES)
        self.times = made(Histogram, TIMES, buckets=SECONDS)

    def seen(self, name: str, value: float) -> None:
        """A count or a duration."""
        if name in self.counters:
            self.counters[name].inc(value)
        else:
            self.times[name].observe(value)

    def text(self, **gauges: float) -> bytes:
        """All of it in Prometheus' text format."""
        for name, value in gauges.items():
            self.gauges[name].set(value)
        return generate_latest(self.registry)
