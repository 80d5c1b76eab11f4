"""GPU overview: what the GPUs do, whether they are well, and whether what they do is what was asked for."""

from . import links, variables
from .links import runbook
from .panels import (
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    RED,
    YELLOW,
    Board,
    bars,
    colour,
    dashed,
    gauge,
    lines,
    mapping,
    neutral,
    override,
    query,
    rising,
    span,
    stat,
    states,
    table,
)
from .promql import RATE, engine_or_wire, or_zero, rate
from .variables import ENGINE, TARGET, WIRE

# DCGM 4.7 renames fields and changes their units: (name, factor) before and (name, factor) since, to the same unit.
MIB, MHZ, KIB = 1048576, 1000000, 1024
FIELDS = {
    "utilisation": (("DCGM_FI_DEV_GPU_UTIL", 1), ("DCGM_FI_DEV_GPU_UTIL_RATIO", 100)),
    "memory used": (("DCGM_FI_DEV_FB_USED", MIB), ("DCGM_FI_DEV_FB_USED_BYTES", 1)),
    "memory free": (("DCGM_FI_DEV_FB_FREE", MIB), ("DCGM_FI_DEV_FB_FREE_BYTES", 1)),
    "temperature": (("DCGM_FI_DEV_GPU_TEMP", 1), ("DCGM_FI_DEV_GPU_TEMP_CELSIUS", 1)),
    "memory temperature": (("DCGM_FI_DEV_MEMORY_TEMP", 1), ("DCGM_FI_DEV_MEMORY_TEMP_CELSIUS", 1)),
    "power": (("DCGM_FI_DEV_POWER_USAGE", 1), ("DCGM_FI_DEV_BOARD_POWER_WATTS", 1)),
    "power limit": (("DCGM_FI_DEV_ENFORCED_POWER_LIMIT", 1), ("DCGM_FI_DEV_BOARD_POWER_LIMIT_ENFORCED_WATTS", 1)),
    "SM clock": (("DCGM_FI_DEV_SM_CLOCK", MHZ), ("DCGM_FI_DEV_SM_CLOCK_HERTZ", 1)),
    "memory clock": (("DCGM_FI_DEV_MEM_CLOCK", MHZ), ("DCGM_FI_DEV_MEMORY_CLOCK_HERTZ", 1)),
    "SM active": (("DCGM_FI_PROF_SM_ACTIVE", 100), ("DCGM_FI_PROF_SM_UTIL_RATIO", 100)),
    "tensor active": (("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", 100), ("DCGM_FI_PROF_TENSOR_UTIL_RATIO", 100)),
    "DRAM active": (("DCGM_FI_PROF_DRAM_ACTIVE", 100), ("DCGM_FI_PROF_DRAM_UTIL_RATIO", 100)),
    # Gauges in spite of their names. The first is there with GPM or wide counters, the second else.
    "PCIe sent": (("DCGM_FI_PROF_PCIE_TX_BYTES", 1), ("DCGM_FI_DEV_PCIE_TX_THROUGHPUT", KIB)),
    "PCIe received": (("DCGM_FI_PROF_PCIE_RX_BYTES", 1), ("DCGM_FI_DEV_PCIE_RX_THROUGHPUT", KIB)),
    "retired rows": (("DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS", 1), ("DCGM_FI_DEV_ROW_REMAP_UNCORRECTABLE_TOTAL", 1)),
}
# A MIG instance is a GPU of its own here.
GPU = "cluster, namespace, instance, gpu, GPU_I_ID"
NAME = "{{instance}} GPU {{gpu}} {{GPU_I_ID}}"
INSTANCE = "cluster, namespace, instance"
# A clock is always held by something; these are no reason to worry.
HARMLESS = "gpu_idle|clocks_setting|sync_boost|display_clocks"
BUSY, IDLE = 10, 5
QUIET = "#2c3235"


def field(name):
    def scaled(metric, factor):
        return f"{metric}{{{TARGET}}}" + (f" * {factor}" if factor != 1 else "")

    old, new = (scaled(*pair) for pair in FIELDS[name])
    if name == "utilisation":
        # NVML does not say it of a GPU that is cut into MIG instances; the instances' engines do.
        engines = (scaled("DCGM_FI_PROF_GR_ENGINE_ACTIVE", 100), scaled("DCGM_FI_PROF_GR_ENGINE_UTIL_RATIO", 100))
        return f"({old} or {new} or on ({INSTANCE}, UUID) ({' or '.join(engines)}))"
    return f"({old} or {new})"


def each(name, how="max"):
    return f"{how} by ({GPU}) {field(name)}"


def memory_share(how):
    """Of what the driver leaves: used and free do not add up to the total."""
    return f"{how('memory used')} / ({how('memory used')} + {how('memory free')}) * 100"


def watts():
    """Energy over time is the exact mean power, where the GPU counts it."""
    energy = rate("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", TARGET), rate("DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL", TARGET)
    return f"(sum({energy[0]} / 1000 or {energy[1]}) or sum{field('power')})"


def tokens():
    wire = f"sum by ({INSTANCE}) ({rate('vllm_output_tokens_per_request_sum', WIRE)})"
    return f"sum({engine_or_wire(rate('vllm:generation_tokens_total', ENGINE), wire)})"


def requests_in_flight(series="vllm_requests_in_flight{%s}"):
    """0 before the first request, when the series is not there yet."""
    return or_zero(
        f"sum by ({INSTANCE}) ({series % TARGET})", f"sum by ({INSTANCE}) (tokenglass_build_info{{{TARGET}}})"
    )


def mismatch(gpu_over_time, utilisation, asked_over_time, requests):
    """All of a minute: both are looked at now and then only, and not at the same moment."""
    (old, _), (new, factor) = FIELDS["utilisation"]
    gpu = f"max by ({INSTANCE}) ({gpu_over_time}({old}{{{TARGET}}}[1m]) or {gpu_over_time}({new}{{{TARGET}}}[1m]) * {factor})"
    asked = requests_in_flight(f"{asked_over_time}(vllm_requests_in_flight{{%s}}[1m])")
    return f"({gpu} {utilisation}) * on ({INSTANCE}) ({asked} {requests})"


def board():
    board = Board(
        links.GPU,
        "tokenglass / GPU overview",
        "GPUs by NVML under DCGM's names, beside the requests that they work for.",
        variables.common(),
        ["gpu"],
    )
    first_row(board)
    utilisation(board)
    memory_heat_power(board)
    clocks(board)
    health(board)
    efficiency(board)
    return board


def first_row(board):
    board.row("Now")
    board.add(
        6,
        6,
        gauge(
            "GPU utilisation",
            "Mean over the GPUs chosen: the share of time in which a kernel ran. It says busy, not efficient: "
            "see the tensor pipe below.",
            [query(f"avg{field('utilisation')}", "utilisation")],
            "percent",
            rising(70, 90),
            0,
            100,
            see=[links.dashboard(links.INFERENCE)],
        ),
        gauge(
            "GPU memory",
            "Used of what the driver leaves. vLLM takes --gpu-memory-utilization at its start, so a high steady "
            "value is normal; a rising one is not.",
            [query(memory_share(lambda n: f"sum{field(n)}"), "memory")],
            "percent",
            rising(90, 95),
            0,
            100,
            see=[runbook("GpuMemoryNearlyFull")],
        ),
        gauge(
            "Temperature",
            "The hottest GPU.",
            [query(f"max{field('temperature')}", "hottest")],
            "celsius",
            rising(70, 80),
            0,
            100,
            see=[runbook("GpuTemperatureHigh")],
        ),
        stat(
            "Power",
            "All GPUs together, and their share of the limits that the driver enforces.",
            [
                query(f"sum{field('power')}", "draw"),
                query(f"sum{field('power')} / sum{field('power limit')} * 100", "of the limit"),
            ],
            "percent",
            rising(85, 98),
            overrides=[
                override(
                    "draw", unit="watt", thresholds={"mode": "absolute", "steps": [{"color": BLUE, "value": None}]}
                )
            ],
        ),
    )


def utilisation(board):
    board.row("Utilisation")
    board.add(
        16,
        9,
        lines(
            "GPU utilisation",
            "Share of time in which a kernel ran, for each GPU.",
            [query(each("utilisation"), NAME)],
            "percent",
            rising(70, 90),
            maximum=100,
            lines_at=True,
        ),
    )
    board.add(
        8,
        9,
        bars(
            "What the chip does",
            "Of the cycles of the last poll: SMs with work, tensor cores in use, memory moving data. High "
            "DRAM and low tensor is decoding, the other way round is prefill. Hopper and later.",
            [query(f"avg{field(n)}", n) for n in ("SM active", "tensor active", "DRAM active")],
            "percent",
            rising(70, 90),
            0,
            100,
        ),
    )


def memory_heat_power(board):
    board.row("Memory, temperature, power")
    board.add(
        8,
        9,
        lines(
            "Memory used and free",
            "Framebuffer of each GPU; what the driver reserves is in neither.",
            [query(each("memory used"), f"used {NAME}"), query(each("memory free"), f"free {NAME}")],
            "bytes",
            neutral(PURPLE),
            overrides=[dashed("/^free/")],
            see=[runbook("GpuMemoryNearlyFull")],
        ),
        lines(
            "Temperature",
            "Dashed: the temperature at which the GPU slows itself down, the lowest of all.",
            [
                query(each("temperature"), NAME),
                query(each("memory temperature"), f"memory {NAME}"),
                query(
                    f'min(tokenglass_gpu_temperature_threshold_celsius{{{TARGET},threshold="slowdown"}})',
                    "slows down at",
                ),
            ],
            "celsius",
            rising(70, 80),
            overrides=[dashed("slows down at", RED)],
            minimum=20,
            see=[runbook("GpuTemperatureHigh")],
        ),
        lines(
            "Power",
            "Draw of each GPU; dashed: the lowest limit that the driver enforces.",
            [query(each("power"), NAME), query(f"min{field('power limit')}", "limit")],
            "watt",
            neutral(ORANGE),
            overrides=[dashed("limit", RED)],
        ),
    )


def clocks(board):
    board.row("Clocks and PCIe")
    board.add(
        12,
        8,
        lines(
            "SM and memory clocks",
            "A clock that falls while the load stays is throttling: see the reasons below.",
            [query(each("SM clock"), f"SM {NAME}"), query(each("memory clock"), f"memory {NAME}")],
            "hertz",
            neutral(),
            overrides=[dashed("/^memory/")],
            see=[runbook("GpuHardwareThrottled")],
        ),
        lines(
            "PCIe",
            "What each GPU sends and receives. Tensor parallelism without NVLink, and KV cache that is offloaded, show here.",
            [query(each("PCIe sent"), f"sent {NAME}"), query(each("PCIe received"), f"received {NAME}")],
            "binBps",
            neutral(),
            overrides=[dashed("/^received/")],
        ),
    )


def health(board):
    board.row("Health")
    errors = "DCGM_FI_DEV_ECC_{}_VOL_TOTAL"
    board.add(
        8,
        8,
        lines(
            "ECC errors",
            "New errors in the interval. Single-bit errors are corrected; one double-bit error has ended a process.",
            [
                query(f"sum by ({GPU}) (increase({errors.format(kind)}{{{TARGET}}}[{RATE}]))", f"{name} {NAME}")
                for kind, name in (("SBE", "single-bit"), ("DBE", "double-bit"))
            ],
            "short",
            rising(1, 10),
            bars=True,
            overrides=[colour("/^double/", RED), colour("/^single/", YELLOW)],
            calcs=("max", "lastNotNull"),
            see=[runbook("GpuEccDoubleBit")],
        ),
        lines(
            "XID errors",
            "What the driver reported since tokenglass started, by code. 79: off the bus. 48, 62, 64, 95, 119, 120: memory or GSP, reset or reboot. "
            "13, 31, 43: usually the application's.",
            # Not its increase: a code's series begins with its first error, at 1.
            [
                query(
                    f"sum by ({INSTANCE}, gpu, xid) (tokenglass_gpu_xid_errors_total{{{TARGET}}}) or on ({INSTANCE}, gpu) "
                    f'label_replace(0 * sum by ({INSTANCE}, gpu) (tokenglass_gpu_up{{{TARGET}}}), "xid", "none", "", "")',
                    "{{instance}} GPU {{gpu}} XID {{xid}}",
                )
            ],
            "short",
            rising(1, 2),
            calcs=("max", "lastNotNull"),
            see=[runbook("GpuXidCritical")],
        ),
        states(
            "Throttle reasons",
            "Why clocks are held down, of any GPU; the table says of which. Power cap under full load is normal; hardware and thermal reasons are not.",
            [query(f'sum by (reason) (tokenglass_gpu_clocks_event{{{TARGET},reason!~"{HARMLESS}"}})', "{{reason}}")],
            [(None, QUIET), (1, RED)],
            [mapping({0: ("no GPU", QUIET)}), span(1, None, "some GPUs", RED, 1)],
            see=[runbook("GpuHardwareThrottled"), runbook("GpuSoftwareThrottled")],
        ),
    )
    board.add(
        24,
        5,
        table(
            "GPUs",
            "One line for each GPU, as of the last poll.",
            [
                (
                    "Answers",
                    f"min by ({INSTANCE}, gpu) (tokenglass_gpu_up{{{TARGET}}})",
                    "bool_yes_no",
                    [(None, RED), (1, GREEN)],
                ),
                ("Utilisation", per_gpu("utilisation"), "percent", rising(70, 90)),
                ("Memory", memory_share(lambda n: per_gpu(n, "sum")), "percent", rising(90, 95)),
                ("Temperature", per_gpu("temperature"), "celsius", rising(70, 80)),
                ("Power", per_gpu("power"), "watt", None),
                ("SM clock", per_gpu("SM clock"), "hertz", None),
                (
                    "Throttled",
                    f'sum by ({INSTANCE}, gpu) (tokenglass_gpu_clocks_event{{{TARGET},reason!~"{HARMLESS}"}})',
                    "short",
                    rising(1, 2),
                ),
                ("Rows lost", per_gpu("retired rows"), "short", rising(1, 8)),
                (
                    "Last XID",
                    f"max by ({INSTANCE}, gpu) (DCGM_FI_DEV_XID_ERRORS{{{TARGET}}} or DCGM_FI_DEV_XID_ERROR{{{TARGET}}})",
                    "none",
                    rising(1, 46),
                ),
            ],
            {"cluster": "Cluster", "namespace": "Namespace", "instance": "Instance", "gpu": "GPU"},
            "short",
            "Instance",
            down=False,
            see=[runbook("GpuLost")],
        ),
    )


def per_gpu(name, how="max"):
    return f"{how} by ({INSTANCE}, gpu) {field(name)}"


def efficiency(board):
    board.row("Is it worth its power?")
    board.add(
        8,
        8,
        lines(
            "Energy per token",
            "Joules of all GPUs chosen for each token generated, prefill and idling included. At little load "
            "it rises: the GPU burns much for being on.",
            [query(f"{watts()} / {tokens()}", "energy per token")],
            "joule",
            rising(20, 100),
            overrides=[colour("energy per token", ORANGE)],
        ),
        lines(
            "GPU work beside requests",
            "Mean utilisation, and the requests in flight that explain it.",
            [
                query(f"avg{field('utilisation')}", "utilisation"),
                query(f"sum({requests_in_flight()})", "requests in flight"),
            ],
            "percent",
            rising(70, 90),
            maximum=100,
            overrides=[
                override(
                    "requests in flight",
                    unit="short",
                    max=None,
                    custom__axisPlacement="right",
                    custom__fillOpacity=0,
                    color={"mode": "fixed", "fixedColor": ORANGE},
                )
            ],
            see=[links.dashboard(links.INFERENCE)],
        ),
        states(
            "GPU without requests, requests without GPU",
            f"Red above: over {BUSY} % busy while no request passes the proxy, so someone goes around it. Red below: requests in flight "
            f"and under {IDLE} % busy, so the engine hangs or waits for something else.",
            [
                query(
                    mismatch("min_over_time", f"> bool {BUSY}", "max_over_time", "== bool 0"),
                    "busy without requests {{instance}}",
                ),
                query(
                    mismatch("max_over_time", f"< bool {IDLE}", "min_over_time", "> bool 0"),
                    "requests without GPU {{instance}}",
                ),
            ],
            [(None, GREEN), (1, RED)],
            [mapping({0: ("as it should", GREEN), 1: ("mismatch", RED)})],
            see=[links.dashboard(links.REQUESTS), runbook("VllmEngineStalled")],
        ),
    )
