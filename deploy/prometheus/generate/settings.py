"""thresholds.toml, read once."""

import pathlib
import tomllib

DEPLOY = pathlib.Path(__file__).resolve().parents[2]
THRESHOLDS = tomllib.loads((DEPLOY / "thresholds.toml").read_text(encoding="utf-8"))

SCOPE = THRESHOLDS["scope"]
TRAFFIC = THRESHOLDS["traffic"]
SLO = THRESHOLDS["slo"]
URLS = THRESHOLDS["urls"]
ALERTS = THRESHOLDS["alerts"]

# Windows that SLO error ratios are recorded over.
WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")


def limits(name, severity):
    """What thresholds.toml says of one alert."""
    return ALERTS[name][severity]
