"""Figures for Prometheus; no label comes from a request's text."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """`seen(name, value)` is what the scheduler calls."""

    def __init__(self):
        self.registry = CollectorRegistry()

        def made(kind, name, about, **more):
            return kind(f"chinchilla_{name}", about, registry=self.registry, **more)

        self.requests = made(Counter, "requests", "answers by endpoint and status", labelnames=("endpoint", "code"))
        self.running = made(Gauge, "requests_running", "requests that hold a slot")
        self.waiting = made(Gauge, "requests_waiting", "requests in the queue")
        self.slots = made(Gauge, "slots", "texts decoded side by side")
        self.programs = made(Gauge, "programs", "compiled programs; constant while requests are served")
        self.prefix_bytes = made(Gauge, "prefix_cache_bytes", "bytes kept of beginnings of prompts")
        counters = {
            "prompt_tokens": "tokens of prompts, as in usage",
            "tokens": "tokens generated, as in usage",
            "cached_tokens": "tokens of prompts that were not read again, as in usage",
            "prefix_cache_hits": "tokens of prompts found among the beginnings kept, every choice counted",
            "prefix_cache_queries": "tokens of prompts that were looked for",
            "draft_tokens": "tokens guessed by prompt lookup",
            "accepted_tokens": "guesses that were right",
            "cancelled": "requests whose client went away or whose stop string came",
        }
        histograms = {
            "queued": ("queue_seconds", "from arrival to a slot"),
            "first": ("time_to_first_token_seconds", "from arrival to the first token"),
            "step": ("step_seconds", "one token of all running texts"),
        }
        names = {"tokens": "generation_tokens"}
        self.counters = {key: made(Counter, names.get(key, key), about) for key, about in counters.items()}
        self.histograms = {
            key: made(Histogram, name, about, buckets=SECONDS) for key, (name, about) in histograms.items()
        }

    def seen(self, name: str, value: float) -> None:
        """A count or a duration."""
        if name in self.counters:
            self.counters[name].inc(value)
        else:
            self.histograms[name].observe(value)

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)
