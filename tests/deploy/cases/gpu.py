"""Cases of the GPU alerts."""

from base import Alert, same

SHORT = 'gpu="0",UUID="GPU-aaaa",instance="tg:9101",job="tokenglass"'
DCGM = SHORT + ',device="nvidia0",modelName="H100",Hostname="node1"'
OTHER = DCGM.replace("GPU-aaaa", "GPU-bbbb").replace('gpu="0"', 'gpu="1"')
ME = {"gpu": "0", "UUID": "GPU-aaaa", "instance": "tg:9101"}
NAMED = ME | {"modelName": "H100", "Hostname": "node1"}
WHICH = "GPU 0 (GPU-aaaa) of tg:9101"


def made(name, summary):
    return Alert(name, "gpu", "tokenglass-gpu", summary)


def temperature():
    alert = made("GpuTemperatureHigh", "A GPU is too hot")
    series = f"DCGM_FI_DEV_GPU_TEMP{{{DCGM}}}"
    warm = alert.fires("warning", f"{WHICH} is at 81 °C, above 80 °C.", **NAMED)
    alert.case("81 °C fires after 5 minutes", {series: same(81)}, ("4m30s", []), ("5m30s", [warm]))
    alert.case("80 °C is allowed", {series: same(80)}, ("20m", []))
    alert.case("cool again resolves", {series: "81+0x13 70+0x10"}, ("6m", [warm]), ("8m", []))
    alert.case("a dip starts the 5 minutes anew", {series: "81+0x8 80 81+0x8"}, ("6m", []), ("8m", []))
    hot = [
        alert.fires("critical", f"{WHICH} is at 91 °C, above 90 °C.", **NAMED),
        alert.fires("warning", f"{WHICH} is at 91 °C, above 80 °C.", **NAMED),
    ]
    alert.case("91 °C is critical after 2 minutes", {series: same(91)}, ("1m30s", []), ("2m30s", hot[:1]), ("6m", hot))
    alert.case(
        "90 °C is no more than a warning",
        {series: same(90)},
        ("10m", [alert.fires("warning", f"{WHICH} is at 90 °C, above 80 °C.", **NAMED)]),
    )
    alert.case(
        "the name of DCGM 4.7",
        {f"DCGM_FI_DEV_GPU_TEMP_CELSIUS{{{DCGM}}}": same(81), f"DCGM_FI_DEV_GPU_TEMP{{{OTHER}}}": same(60)},
        ("6m", [warm]),
    )
    alert.case("a GPU that is gone has no temperature", {series: "81+0x8 stale"}, ("6m", []))
    return alert


def throttled():
    alert = made("GpuHardwareThrottled", "The board keeps a GPU's clocks down")

    def fired(reason):
        return alert.fires("warning", f"{WHICH} runs slower than it could: {reason}.", reason=reason, **ME)

    for reason in ("hw_thermal", "hw_power_brake", "hw_slowdown"):
        series = f'tokenglass_gpu_clocks_event{{{SHORT},reason="{reason}"}}'
        alert.case(f"{reason} for 5 minutes", {series: same(1)}, ("4m30s", []), ("5m30s", [fired(reason)]))
    series = f'tokenglass_gpu_clocks_event{{{SHORT},reason="hw_thermal"}}'
    alert.case("at full speed again", {series: "1+0x12 0+0x10"}, ("6m", [fired("hw_thermal")]), ("7m", []))
    alert.case("in bursts", {series: "1 1 1 0 1 1 1 0 1 1 1 0 1 1 1 0 1 1 1 0"}, ("9m", []))
    alert.case("a power cap is how it is set", {series.replace("hw_thermal", "power_cap"): same(1)}, ("20m", []))

    soft = made("GpuSoftwareThrottled", "The driver keeps a GPU's clocks down")
    series = f'tokenglass_gpu_clocks_event{{{SHORT},reason="sw_thermal"}}'
    slow = soft.fires("warning", f"{WHICH} runs slower than it could: sw_thermal.", reason="sw_thermal", **ME)
    soft.case("half an hour", {series: same(1, 80)}, ("29m30s", []), ("30m30s", [slow]))
    soft.case("20 minutes", {series: "1+0x40 0+0x40"}, ("31m", []))
    soft.case("cooler again", {series: "1+0x64 0+0x10"}, ("31m", [slow]), ("33m", []))
    soft.case("idle is no throttling", {series.replace("sw_thermal", "gpu_idle"): same(1, 80)}, ("35m", []))
    return alert, soft


def memory():
    alert = made("GpuMemoryNearlyFull", "A GPU's memory is nearly full")
    used, free = f"DCGM_FI_DEV_FB_USED{{{DCGM}}}", f"DCGM_FI_DEV_FB_FREE{{{DCGM}}}"
    fired = alert.fires("warning", f"{WHICH} uses 96% of its memory.", **NAMED)
    alert.case("96 % for 5 minutes", {used: same(76800), free: same(3200)}, ("4m30s", []), ("5m30s", [fired]))
    alert.case("95 % is allowed", {used: same(76000), free: same(4000)}, ("20m", []))
    alert.case("freed", {used: "76800+0x12 40000+0x9", free: "3200+0x12 40000+0x9"}, ("6m", [fired]), ("7m", []))
    alert.case(
        "bytes, as DCGM 4.7 has them",
        {f"DCGM_FI_DEV_FB_USED_BYTES{{{DCGM}}}": same(96e9), f"DCGM_FI_DEV_FB_FREE_BYTES{{{DCGM}}}": same(4e9)},
        ("6m", [fired]),
    )
    alert.case("no free memory known", {used: same(76800)}, ("6m", []))
    ecc = made("GpuEccDoubleBit", "A GPU has lost data in its memory")
    series = f"DCGM_FI_DEV_ECC_DBE_VOL_TOTAL{{{DCGM}}}"
    fired = ecc.fires("critical", f"{WHICH} has had 2 double-bit ECC errors since the driver was loaded.", **NAMED)
    ecc.case("at once", {series: "0 0 2+0x10"}, ("30s", []), ("1m", [fired]), ("6m", [fired]))
    ecc.case("none", {series: same(0)}, ("6m", []))
    ecc.case("there from the first scrape on", {series: same(2)}, ("0m", [fired]))
    ecc.case("reset", {series: "2+0x4 0+0x10"}, ("2m", [fired]), ("3m", []))
    ecc.case("single-bit errors are corrected", {f"DCGM_FI_DEV_ECC_SBE_VOL_TOTAL{{{DCGM}}}": same(7)}, ("6m", []))
    rows = made("GpuRowRemapFailed", "A GPU has no spare memory rows left")
    fired = rows.fires(
        "critical", f"{WHICH} could not replace a broken row of its memory: it has to be exchanged.", **NAMED
    )
    series = f"DCGM_FI_DEV_ROW_REMAP_FAILURE{{{DCGM}}}"
    rows.case("for a minute", {series: same(1)}, ("30s", []), ("1m30s", [fired]))
    rows.case("not failed", {series: same(0)}, ("6m", []))
    rows.case("exchanged", {series: "1+0x4 stale"}, ("2m", [fired]), ("3m", []))
    rows.case("the name of DCGM 4.7", {f"DCGM_FI_DEV_ROW_REMAP_FAILED{{{DCGM}}}": same(1)}, ("2m", [fired]))
    return alert, ecc, rows


def faults():
    xid = made("GpuXidCritical", "A GPU has reported an error that needs a reset or a repair")

    def last(code):
        return f'tokenglass_gpu_xid_last_timestamp_seconds{{{SHORT},xid="{code}"}}'

    def fired(code, ago):
        return xid.fires("critical", f"{WHICH} reported XID {code} {ago} ago.", xid=code, **ME)

    xid.case("79 at once", {last(79): "_x4 120+0x40"}, ("1m30s", []), ("2m30s", [fired("79", "30s")]))
    xid.case("ten minutes later", {last(79): "_x4 120+0x40"}, ("11m", [fired("79", "9m 0s")]), ("12m", []))
    for code in (46, 48, 62, 64, 74, 95, 109, 119, 120, 140, 143):
        xid.case(f"{code} too", {last(code): "_ 30+0x10"}, ("1m", [fired(str(code), "30s")]))
    for code in (13, 31, 43, 45, 63, 94):
        xid.case(f"{code} is not for a page", {last(code): "_ 30+0x10"}, ("1m", []))
    xid.case("the GPU fell off the bus: what it said stays", {
        last(79): "_x4 120+0x40", f"tokenglass_gpu_up{{{SHORT}}}": "1 1 1 1 0+0x40"
    }, ("3m", [fired("79", "1m 0s")]))

    lost = made("GpuLost", "A GPU does not answer any more")
    up = f"tokenglass_gpu_up{{{SHORT}}}"
    gone = lost.fires("critical", f"{WHICH} was there and does not answer.", **ME)
    lost.case("two minutes", {up: "1 1 0+0x40"}, ("2m30s", []), ("3m30s", [gone]))
    lost.case("back within a minute", {up: "1 1 0 0 1+0x40"}, ("5m", []))
    lost.case("back", {up: "0+0x8 1+0x10"}, ("3m", [gone]), ("5m", []))
    lost.case("never seen", {"tokenglass_nvml_up": same(0)}, ("5m", []))

    reset = made("GpuResetNeeded", "A GPU waits for a reset")
    action = f"tokenglass_gpu_recovery_action{{{SHORT}}}"

    def asks(value):
        text = f"{WHICH} asks for action {value} (1 reset, 2 reboot, 3 drain peers, 4 drain and reset)."
        return reset.fires("warning", text, **ME)

    reset.case("a reboot", {action: same(2)}, ("4m30s", []), ("5m30s", [asks(2)]))
    reset.case("nothing", {action: same(0)}, ("10m", []))
    reset.case("rows wait", {f"DCGM_FI_DEV_ROW_REMAP_PENDING{{{DCGM}}}": same(1), action: same(0)}, ("6m", [asks(1)]))
    reset.case("pages wait", {f"DCGM_FI_DEV_RETIRED_PENDING{{{DCGM}}}": same(1)}, ("6m", [asks(1)]))
    reset.case("done", {action: "1+0x12 0+0x10"}, ("6m", [asks(1)]), ("7m", []))
    return xid, lost, reset


def alerts():
    return [temperature(), *throttled(), *memory(), *faults()]
