"""The GPUs behind the NVML stub: they get busy, hot and thirsty as the engines do."""

import copy
import json
import os
import pathlib
import random

TEMPLATE = pathlib.Path(__file__).parents[2] / "nvml-stub" / "two-gpus.json"
IDLE_WATTS, FULL_WATTS, CAP = 92.0, 700.0, 640.0
SW_POWER_CAP, HW_THERMAL, IDLE = 4, 64, 1


class Gpus:
    """Writes the stub's state from how many requests each engine runs, a GPU for each engine."""

    def __init__(self, path, seed=7):
        self.path, self.random = path, random.Random(seed)
        self.state = json.loads(TEMPLATE.read_text())
        self.state["xids"] = []
        self.gpus = [
            {"heat": 44.0 + 3 * index, "load": 0.0, "energy": 1.2e9, "corrected": 21}
            for index in range(len(self.state["gpus"]))
        ]
        for gpu in self.state["gpus"]:
            # Nothing wrong at first.
            gpu["fields"].update({"142": 0, "143": 0, "144": 0, "145": 0, "230": 0, "31": 0})
        self.write()

    def uuid(self, index):
        return self.state["gpus"][index]["uuid"]

    def tick(self, seconds, running):
        for index, (own, gpu) in enumerate(zip(self.gpus, self.state["gpus"])):
            self._tick(own, gpu, seconds, running[index] if index < len(running) else 0)
        self.write()

    def _tick(self, own, gpu, seconds, running):
        noise = self.random.gauss
        target = 0.0 if running == 0 else min(99.0, 24 + 15 * running**0.8)
        own["load"] += (target - own["load"]) * min(1.0, seconds / 2.5)
        load = max(0.0, min(100.0, own["load"] + (noise(0, 1.5) if running else 0)))
        watts = min(CAP + noise(0, 4), IDLE_WATTS + (FULL_WATTS - IDLE_WATTS) * (load / 100) ** 1.3 + noise(0, 3))
        own["heat"] += (35 + 0.062 * watts + 3 * (gpu["minor"]) - own["heat"]) * min(1.0, seconds / 25)
        own["energy"] += watts * seconds * 1000
        if self.random.random() < 0.008 * seconds:
            own["corrected"] += 1
        reasons = (
            (IDLE if load < 2 else 0)
            | (SW_POWER_CAP if watts > CAP - 25 else 0)
            | (HW_THERMAL if own["heat"] > 76 else 0)
        )
        clock = 1980 if load < 60 else 1980 - int((load - 60) * 4.5) - (90 if reasons & SW_POWER_CAP else 0)
        total, reserved = 85520809984, 638582784
        used = int(total * (0.885 + 0.0004 * running))
        values = gpu["values"]
        values["nvmlDeviceGetUtilizationRates"] = {"gpu": round(load), "memory": round(load * 0.55)}
        values["nvmlDeviceGetMemoryInfo_v2"] = {
            "total": total,
            "reserved": reserved,
            "used": used,
            "free": total - reserved - used,
        }
        values["nvmlDeviceGetTemperature"] = {"0": round(own["heat"])}
        values["nvmlDeviceGetPowerUsage"] = round(watts * 1000)
        values["nvmlDeviceGetTotalEnergyConsumption"] = round(own["energy"])
        values["nvmlDeviceGetClockInfo"] = {"1": clock, "2": 2619 if load > 1 else 1593}
        values["nvmlDeviceGetCurrentClocksEventReasons"] = reasons
        values["nvmlDeviceGetTotalEccErrors"].update({"0,0": own["corrected"]})
        gpu["fields"]["82"] = round(own["heat"] + 8)
        # 32-bit counters that do not move; GPM's rates are what is left to read.
        gpu["gpm"].update(
            {
                "1": load,
                "2": load * 0.86,
                "3": load * 0.44,
                "5": load * 0.36,
                "10": load * 0.66,
                "20": 40 + load * 6 + abs(noise(0, 15)),
                "21": 60 + load * 9 + abs(noise(0, 20)),
            }
        )

    def xid(self, gpu, code):
        self.state["xids"].append({"id": len(self.state["xids"]) + 1, "gpu": gpu, "xid": code})
        self.write()

    def write(self):
        """In one step: the stub reads it at each call."""
        draft = f"{self.path}.new"
        pathlib.Path(draft).write_text(json.dumps(copy.copy(self.state)))
        os.replace(draft, self.path)
