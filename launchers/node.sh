#!/usr/bin/env bash
# A sweep on one machine with several accelerators: one worker for each DEVICES of them (default: one). It keeps running
# after the terminal closes. CUDA_VISIBLE_DEVICES limits the accelerators that it uses.
#   DEVICES=2 launchers/node.sh -m experiment=demo
set -euo pipefail
mkdir -p outputs
log=outputs/node-$(date +%Y%m%dT%H%M%S)-$$.log
nohup "${SYNTHDIV:-synthdiv}" "$@" hydra/launcher=local hydra.launcher.devices="${DEVICES:-1}" </dev/null >"$log" 2>&1 &
echo "started as process $!; follow it with: tail -f $log"
