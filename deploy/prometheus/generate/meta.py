"""Tokenglass itself: whether the numbers above can be trusted."""

from alert import alert
from promql import KEEP, UPSTREAM, number
from settings import SCOPE, limits

LAYER = "meta"
JOB = f'{{job="{SCOPE["job"]}"}}'
PLACE = f"{KEEP}, instance"


def above(name):
    return number(limits(name, "warning")["above"])


def alive():
    yield alert(
        "TokenglassDown", LAYER, "critical", f"up{JOB} == 0\nor\nabsent(up{JOB})",
        "tokenglass is down",
        "{{ with $labels.instance }}{{ . }} cannot be scraped.{{ else }}No target of tokenglass is left.{{ end }}",
    )
    yield alert(
        "TokenglassOverheadHigh", LAYER, "warning",
        f"histogram_quantile(0.99, sum by ({PLACE}, le) (rate(tokenglass_overhead_seconds_bucket[5m])))"
        f" > {above('TokenglassOverheadHigh')}",
        "tokenglass slows requests down",
        "{{ $labels.instance }} adds {{ $value | humanizeDuration }} to a request (P99).",
    )
    yield alert(
        "TokenglassFileDescriptorsLow", LAYER, "warning",
        f"process_open_fds{JOB} / process_max_fds{JOB} > {above('TokenglassFileDescriptorsLow')}",
        "tokenglass runs out of file descriptors",
        "{{ $labels.instance }} has {{ $value | humanizePercentage }} of its file descriptors open.",
    )
    failed = 'tokenglass_config_reloads_total{result="failure"}'
    yield alert(
        "TokenglassConfigReloadFailed", LAYER, "warning",
        f"sum by ({PLACE}) (increase({failed}[1h])) > {above('TokenglassConfigReloadFailed')}",
        "A configuration could not be loaded",
        "{{ $labels.instance }} refused a changed configuration and keeps the old one.",
    )


def pollers():
    upstream = "{{ $labels.instance }}{{ with $labels.upstream }} ({{ . }}){{ end }}"
    yield alert(
        # A vLLM that is down has an alert of its own.
        "TokenglassEngineMetricsStale", LAYER, "warning",
        f"(\n"
        f"  min by ({UPSTREAM}) (tokenglass_engine_up) == 0\n"
        f"  or max by ({UPSTREAM}) (time() - tokenglass_engine_last_scrape_timestamp_seconds)"
        f" > {above('TokenglassEngineMetricsStale')}\n"
        f")\n"
        f"unless\n"
        f"min by ({UPSTREAM}) (vllm_service_up) == 0",
        "vLLM's own metrics cannot be read",
        f"tokenglass at {upstream} reaches vLLM, but not its /metrics: alerts on queue, KV cache and preemptions are blind.",
    )
    yield alert(
        # Only where NVML has worked once: a machine without GPUs is no fault.
        "TokenglassGpuSnapshotStale", LAYER, "warning",
        f"max by ({PLACE}) (time() - tokenglass_nvml_last_success_timestamp_seconds)"
        f" > {above('TokenglassGpuSnapshotStale')}",
        "GPUs are not read any more",
        "{{ $labels.instance }} last read its GPUs {{ $value | humanizeDuration }} ago: GPU alerts are blind.",
    )


def measuring():
    yield alert(
        "TokenglassLabelOverflow", LAYER, "warning",
        f"sum by ({PLACE}, label) (increase(tokenglass_label_overflow_total[15m])) > {above('TokenglassLabelOverflow')}",
        "A label has more values than its cap",
        "{{ $labels.instance }} shows further values of the label {{ $labels.label }} as other.",
    )
    faults = "tokenglass_observer_faults_total"
    yield alert(
        "TokenglassObserverPanic", LAYER, "warning",
        f'sum by ({PLACE}) (increase({faults}{{reason="panic"}}[15m])) > {above("TokenglassObserverPanic")}',
        "The observer of tokenglass has panicked",
        "{{ $labels.instance }} has met a bug in its own measuring; the traffic went on.",
    )
    yield alert(
        "TokenglassObserverFaults", LAYER, "warning",
        f'sum by ({PLACE}, reason) (rate({faults}{{reason!="panic"}}[15m])) > {above("TokenglassObserverFaults")}',
        "Requests pass unmeasured",
        "{{ $labels.instance }} could not measure {{ $value | printf \"%.2g\" }} requests a second: {{ $labels.reason }}.",
    )


def injector():
    # By job: a reader of the alert sees whose `up` it is.
    yield alert(
        "TokenglassInjectorDown", LAYER, "warning",
        f'max by ({KEEP}, job) (up{{job="{SCOPE["injector_job"]}"}}) == 0',
        "The admission webhook does not answer",
        "No pod of {{ $labels.job }} can be scraped: new pods of vLLM start without the sidecar.",
    )
    failed = 'tokenglass_webhook_certificate_reloads_total{result="failure"}'
    yield alert(
        "TokenglassInjectorCertificateFailed", LAYER, "warning",
        f"sum by ({PLACE}) (increase({failed}[1h])) > {above('TokenglassInjectorCertificateFailed')}",
        "The admission webhook cannot use its new certificate",
        "{{ $labels.instance }} keeps its old certificate, which will expire: pods then start without the sidecar.",
    )


def groups():
    return [{"name": "tokenglass-meta-alerts", "rules": [*alive(), *pollers(), *measuring(), *injector()]}]
