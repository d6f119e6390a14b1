#!/usr/bin/env bash
# What waits for a machine with an NVIDIA GPU, in at most eight minutes: the tests marked cuda, then speed.
#
#     pip install '.[test]' && bash benchmarks/on_gpu.sh OUT
#
# OUT gets the logs and JSON files; figures of theirs that are to stay go to benchmarks/results by hand.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-gpu-results}
mkdir -p "$out"
python -c 'import torch; print(torch.__version__, torch.cuda.get_device_name())' | tee "$out/machine.txt"
timeout 200 python -m pytest -q -m cuda tests/cuda 2>&1 | tee "$out/tests.log"
timeout 120 python -m benchmarks.speed.projection --device cuda --output "$out/projection.json" 2>&1 | tee "$out/projection.log"
timeout 150 python -m benchmarks.paper.table --data glyphs --systems sfsc --seeds 0 --work-dir "$out/runs" \
    --output "$out/glyphs" -- --epochs 5 --amp 2>&1 | tee "$out/training.log"
