#!/usr/bin/env bash
# Start a sweep on this machine so that it outlives the terminal: launchers/local.sh -m experiment=demo
set -euo pipefail
mkdir -p outputs
log=outputs/local-$(date +%Y%m%dT%H%M%S).log
nohup "${SYNTHDIV:-synthdiv}" "$@" >"$log" 2>&1 &
echo "started as process $!; follow it with: tail -f $log"
