"""Reading Prometheus's text format, as little of it as the tests need."""

import re

from support import eventually, get_text

SAMPLE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? ([^ ]+)(?: [0-9.]+)?$")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')


def parse(text):
    """A list of (name, labels, value)."""
    samples = []
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        match = SAMPLE.match(line)
        assert match, f"not a sample: {line!r}"
        samples.append((match[1], dict(LABEL.findall(match[2] or "")), float(match[3])))
    return samples


def total(samples, name, **labels):
    """The sum over all series of that name with these labels; 0 where there are none."""
    wanted = labels.items()
    return sum(value for sample, have, value in samples if sample == name and wanted <= have.items())


class Source:
    """A /metrics page."""

    def __init__(self, url):
        self.url = url

    def read(self):
        status, _, text = get_text(self.url, "/metrics")
        assert status == 200, (self.url, status, text[:300])
        return parse(text)

    def total(self, name, **labels):
        return total(self.read(), name, **labels)


class Engine(Source):
    """vLLM's own counters, read past the proxy."""

    def busy(self):
        samples = self.read()
        return total(samples, "vllm:num_requests_running") + total(samples, "vllm:num_requests_waiting")

    def running(self):
        return self.total("vllm:num_requests_running")

    def generated(self):
        return self.total("vllm:generation_tokens_total")


class Proxy(Source):
    """What the proxy measured."""

    def settled(self, before, expected, seconds=5):
        """Waits until every expected difference since `before` is there, then fails on any that is not exact.

        `expected` maps (name, label, value, label, value, …) to the difference.
        """
        def wrong():
            after = self.read()
            found = {key: total(after, key[0], **pairs(key)) - total(before, key[0], **pairs(key)) for key in expected}
            return {key: (found[key], "not", expected[key]) for key in expected if found[key] != expected[key]}

        try:
            eventually(lambda: not wrong(), seconds, "the proxy's counters settle")
        finally:
            # One more look: a counter that runs on past the right value is wrong too.
            left = wrong()
            if left:
                raise AssertionError(f"differences since the start of the test: {left}")


def pairs(key):
    return dict(zip(key[1::2], key[2::2], strict=True))
