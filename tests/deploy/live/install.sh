#!/bin/bash
# usage: install.sh
# What the dashboards' tests and the renderer need: node and chromium from Debian (as root, if missing), two versions of
# Prometheus, and in ${TGTEST_CACHE:-~/.cache/tokenglass}/grafana Grafana's schema, TypeScript and a charting library.
# A second run changes nothing and needs no network.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
CACHE=${TGTEST_CACHE:-$HOME/.cache/tokenglass}

missing=()
command -v node >/dev/null || missing+=(nodejs)
command -v npm >/dev/null || missing+=(npm)
command -v chromium >/dev/null || missing+=(chromium fonts-dejavu-core)
if [ ${#missing[@]} -gt 0 ]; then
  [ "$(id -u)" -eq 0 ] || { echo "not root: install ${missing[*]} and run again" >&2; exit 1; }
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

if [ -z "${PROMETHEUS_DIR:-}" ]; then "$HERE/../../prometheus/install.sh" >/dev/null; fi

# The versions are in package-lock.json, with their sums.
mkdir -p "$CACHE/grafana"
if ! cmp -s "$HERE/package-lock.json" "$CACHE/grafana/installed"; then
  cp "$HERE/package.json" "$HERE/package-lock.json" "$CACHE/grafana/"
  (cd "$CACHE/grafana" && npm ci --ignore-scripts --no-audit --no-fund --silent)
  cp "$HERE/package-lock.json" "$CACHE/grafana/installed"
fi
