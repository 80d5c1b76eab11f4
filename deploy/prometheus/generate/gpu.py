"""GPU layer: health of the devices."""

from alert import alert
from promql import GPU, GPU_NAMED, number, regex
from settings import limits

LAYER = "gpu"
WHICH = "GPU {{ $labels.gpu }} ({{ $labels.UUID }}) of {{ $labels.instance }}"


def heat():
    for severity in ("warning", "critical"):
        above = number(limits("GpuTemperatureHigh", severity)["above"])
        yield alert(
            "GpuTemperatureHigh", LAYER, severity, f"gpu:temperature_celsius:max > {above}",
            "A GPU is too hot",
            f"{WHICH} is at {{{{ $value }}}} °C, above {above} °C.",
        )
    throttled = "max by ({labels}, reason) (tokenglass_gpu_clocks_event{{reason=~\"{reasons}\"}}) == 1"
    for name, who in (("GpuHardwareThrottled", "The board"), ("GpuSoftwareThrottled", "The driver")):
        reasons = regex(limits(name, "warning")["reasons"])
        yield alert(
            name, LAYER, "warning", throttled.format(labels=GPU, reasons=reasons),
            f"{who} keeps a GPU's clocks down",
            f"{WHICH} runs slower than it could: {{{{ $labels.reason }}}}.",
        )


def memory():
    above = number(limits("GpuMemoryNearlyFull", "warning")["above"])
    yield alert(
        "GpuMemoryNearlyFull", LAYER, "warning", f"gpu:memory_used:ratio > {above}",
        "A GPU's memory is nearly full",
        f"{WHICH} uses {{{{ $value | humanizePercentage }}}} of its memory.",
    )
    above = number(limits("GpuEccDoubleBit", "critical")["above"])
    yield alert(
        "GpuEccDoubleBit", LAYER, "critical", f"max by ({GPU_NAMED}) (DCGM_FI_DEV_ECC_DBE_VOL_TOTAL) > {above}",
        "A GPU has lost data in its memory",
        f"{WHICH} has had {{{{ $value }}}} double-bit ECC errors since the driver was loaded.",
    )
    yield alert(
        "GpuRowRemapFailed", LAYER, "critical",
        f"max by ({GPU_NAMED}) (DCGM_FI_DEV_ROW_REMAP_FAILURE or DCGM_FI_DEV_ROW_REMAP_FAILED) == 1",
        "A GPU has no spare memory rows left",
        f"{WHICH} could not replace a broken row of its memory: it has to be exchanged.",
    )


def faults():
    limit = limits("GpuXidCritical", "critical")
    last = f'time() - tokenglass_gpu_xid_last_timestamp_seconds{{xid=~"{regex(limit["xids"])}"}}'
    yield alert(
        "GpuXidCritical", LAYER, "critical", f"min by ({GPU}, xid) ({last}) < {number(limit['within'])}",
        "A GPU has reported an error that needs a reset or a repair",
        f"{WHICH} reported XID {{{{ $labels.xid }}}} {{{{ $value | humanizeDuration }}}} ago.",
    )
    yield alert(
        "GpuLost", LAYER, "critical", f"min by ({GPU}) (tokenglass_gpu_up) == 0",
        "A GPU does not answer any more",
        f"{WHICH} was there and does not answer.",
    )
    yield alert(
        "GpuResetNeeded", LAYER, "warning",
        f"max by ({GPU}) (\n"
        "  tokenglass_gpu_recovery_action > 0\n"
        "  or DCGM_FI_DEV_ROW_REMAP_PENDING == 1\n"
        "  or DCGM_FI_DEV_RETIRED_PENDING == 1\n"
        "  or DCGM_FI_DEV_PAGE_RETIRED_PENDING == 1\n"
        ")",
        "A GPU waits for a reset",
        f"{WHICH} asks for action {{{{ $value }}}} (1 reset, 2 reboot, 3 drain peers, 4 drain and reset).",
    )


def groups():
    return [{"name": "tokenglass-gpu-alerts", "rules": [*heat(), *memory(), *faults()]}]
