"""What a case of a rule test is made of. Expectations are written by hand: nothing here reads the rules."""

RUNBOOKS = "https://github.com/tokenglass/tokenglass/blob/main/docs/runbooks"
DASHBOARDS = "https://grafana.example.com/d"


class Alert:
    """One alert name, and the cases that show what it does."""

    def __init__(self, name, layer, dashboard, summary):
        self.name, self.layer, self.dashboard, self.summary = name, layer, dashboard, summary
        self.cases = []

    def case(self, title, series, *checks, interval="30s"):
        """Series as promtool writes them; checks are (time, [what fires then])."""
        self.cases.append({"title": title, "series": series, "checks": checks, "interval": interval})

    def fires(self, severity, description, **labels):
        return {
            "exp_labels": {"severity": severity, "layer": self.layer} | labels,
            "exp_annotations": {
                "summary": self.summary,
                "description": description,
                "runbook_url": f"{RUNBOOKS}/{self.name}.md",
                "dashboard_url": f"{DASHBOARDS}/{self.dashboard}",
            },
        }


def same(value, steps=60):
    """The value, and so many times more."""
    return f"{value}+0x{steps}"


def grows(by, steps=60, start=0):
    """A counter that grows by so much each step."""
    return f"{start}+{by}x{steps}"


def histogram(family, labels, buckets, steps=60):
    """A histogram whose buckets (edge as exposed: growth a step) grow steadily. The last one is the count."""
    made = {f'{family}_bucket{{{labels},le="{edge}"}}': grows(by, steps) for edge, by in buckets.items()}
    every = list(buckets.values())[-1]
    return made | {f"{family}_count{{{labels}}}": grows(every, steps)}


def halted(series, steps=20):
    """The same until nothing is counted any more: what has been stays, and nothing comes."""
    made = {}
    for name, values in series.items():
        begin, by = values.split("x")[0].split("+")
        end = float(begin) + float(by) * steps
        made[name] = f"{begin}+{by}x{steps} {end:g}+0x60"
    return made
