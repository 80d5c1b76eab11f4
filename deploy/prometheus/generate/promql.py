"""Pieces of PromQL that several rules share."""

from settings import SCOPE

KEEP = ", ".join(SCOPE["keep"])
# One model, wherever it is served.
MODEL = f"{KEEP}, model"
# One vLLM as one tokenglass sees it. `upstream` is there only where several are configured.
UPSTREAM = f"{KEEP}, instance, upstream"
# One model in one vLLM.
ENGINE = f"{UPSTREAM}, model"
# One GPU: tokenglass's own families have these labels, DCGM's some more.
GPU = f"{KEEP}, instance, gpu, UUID"
# One GPU or MIG instance, with what a person calls it.
GPU_NAMED = f"{GPU}, GPU_I_ID, modelName, Hostname"


def number(value):
    """0.005 and not 5e-03; 80 and not 80.0; no noise of binary fractions."""
    return f"{round(value, 10):.10f}".rstrip("0").rstrip(".")


def edge(seconds):
    """A matcher for the bucket with this edge. Prometheus 2 keeps le="1" or le="1.0", as it was exposed; 3 makes all "1.0"."""
    text = number(seconds).replace(".", "\\\\.")
    return f'le=~"{text}"' if "." in text else f'le=~"{text}(\\\\.0)?"'


def regex(values):
    return "|".join(str(value) for value in values)


def named(vector):
    """vLLM's own series call the model `model_name`; ours call it `model`."""
    return f'label_replace({vector}, "model", "$1", "model_name", "(.+)")'


def either(*expressions):
    """The first that has a series, for each label set."""
    return "\nor\n".join(expressions)


def both(*expressions):
    return "\nand\n".join(expressions)


def added(function, labels, family, window="5m", matchers=""):
    """`sum by (labels) (rate(family[window]))`, for our own names and for vLLM's."""
    vector = f"{function}({family}{matchers}[{window}])"
    if family.startswith("vllm:"):
        vector = named(vector)
    return f"sum by ({labels}) ({vector})"


def born(family, window, matchers=""):
    """How much a counter has grown in the window, if it is new with all that it has.

    A request that fails can be its series' first, which is then first scraped at 1: increase() sees no change. A series that was
    not there at the window's beginning counts whole. But only if its target was scraped then, or has started since: after a
    gap in the scrapes an old counter is not new.
    """
    counter = f"{family}{matchers}"
    job = f'job="{SCOPE["job"]}"'
    seconds = {"5m": 300, "15m": 900}[window]
    return (
        f"(\n"
        f"  ({counter} unless {counter} offset {window})\n"
        f"  and on (job, instance) (\n"
        f"    up{{{job}}} offset {window} == 1\n"
        f"    or time() - process_start_time_seconds{{{job}}} < {seconds}\n"
        f"  )\n"
        f")\n"
        f"or increase({counter}[{window}])"
    )
