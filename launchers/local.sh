#!/usr/bin/env bash
# A sweep on this machine with JOBS workers (default: two). It keeps running after the terminal closes.
#   launchers/local.sh -m experiment=demo
set -euo pipefail
mkdir -p outputs
log=outputs/local-$(date +%Y%m%dT%H%M%S)-$$.log
nohup "${SYNTHDIV:-synthdiv}" "$@" hydra/launcher=local hydra.launcher.jobs="${JOBS:-2}" </dev/null >"$log" 2>&1 &
echo "started as process $!; follow it with: tail -f $log"
