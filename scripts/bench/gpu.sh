#!/usr/bin/env bash
# Everything that is to be measured on a machine with a CUDA device, in ten minutes: the GPU tests, the Fisher engine
# beside its peers, and precisions. What is printed, and OUT/*.json, goes into docs/benchmarks.md with the device's name.
#
#     bash scripts/bench/gpu.sh [OUT]
set -uo pipefail
cd "$(dirname "$0")/../.."
out="${1:-gpu-figures}"
python="${PYTHON:-.venv/bin/python}"
export PYTHONPATH="$PWD:$PWD/scripts/lib"
mkdir -p "$out"
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || exit 1
failed=0
timeout 90 "$python" -m pytest -q -m gpu -p no:cacheprovider tests/indexer || failed=1
timeout 240 "$python" scripts/bench/bench_fisher.py --device cuda --repeats 3 --limit-seconds 4 --limit-gib 32 \
    --networks resnet18@224,resnet50@224,mobilenet_v3_small@224,vit_b_16@224 --batch-sizes 64,512 \
    --json "$out/fisher.json" || failed=1
timeout 240 "$python" scripts/bench/bench_precision.py --device cuda --batch-sizes 64,128,512 \
    --json "$out/precision.json" || failed=1
exit "$failed"
