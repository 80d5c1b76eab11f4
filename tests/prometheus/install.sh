#!/bin/bash
# usage: install.sh [DIR]
# Puts two versions of Prometheus and promtool into DIR: DIR/new (3.x, Debian's next release) and DIR/old (2.42, Debian 12),
# and two of Alertmanager and amtool: DIR/alertmanager-new and DIR/alertmanager-old (0.25). Unpacked, and nothing of the
# system changed. DIR is ${TGTEST_CACHE:-~/.cache/tokenglass}/prometheus unless given.
# A second run changes nothing and needs no network.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
DIR=${1:-${TGTEST_CACHE:-$HOME/.cache/tokenglass}/prometheus}
mkdir -p "$DIR"
DIR=$(cd "$DIR" && pwd)

# shellcheck source=tests/unpack-deb.sh
source "$HERE/../unpack-deb.sh"
unpack new forky prometheus promtool
unpack old bookworm prometheus
# In folders of their own: what an earlier run has unpacked stays as it is.
unpack alertmanager-new forky prometheus-alertmanager
unpack alertmanager-old bookworm prometheus-alertmanager
for name in new old; do
  # What does not run is not installed.
  "$DIR/$name/bin/promtool" --version >/dev/null 2>&1 && "$DIR/$name/bin/prometheus" --version 2>&1 | sed -n 1p ||
    { rm -f "$DIR/$name/installed"; echo "Prometheus ($name) does not run here" >&2; exit 1; }
done
# Debian's Alertmanager reads templates and pages from /usr/share, where nothing is put here: the path in it becomes one of the
# same length that leads to file descriptor 9, and bin/alertmanager opens that and runs it.
for name in alertmanager-new alertmanager-old; do
  bin=$DIR/$name/root/usr/bin
  if [ ! -x "$bin/alertmanager" ]; then
    perl -0777 -pi -e 's{/usr/share/prometheus/alertmanager}{"/dev/fd" . "/" x 26 . "9"}ge' "$bin/prometheus-alertmanager"
    # shellcheck disable=SC2016 # that is the script's to expand
    printf '%s\n' '#!/bin/bash' 'root=$(cd -P "$(dirname "${BASH_SOURCE[0]}")" && cd ../.. && pwd)' \
      'exec 9<"$root/usr/share/prometheus/alertmanager"' 'exec "$root/usr/bin/prometheus-alertmanager" "$@"' >"$bin/alertmanager"
    chmod +x "$bin/alertmanager"
  fi
  "$bin/amtool" --version >/dev/null 2>&1 && "$bin/alertmanager" --version 2>&1 | sed -n 1p ||
    { rm -f "$DIR/$name/installed"; echo "Alertmanager ($name) does not run here" >&2; exit 1; }
done
