#!/bin/sh
# The GPU tests and benchmarks, on a machine with a GPU and without a network: bench/gpu.sh [FOLDER for the JSON]
# It takes the torch, transformers and sacrebleu that are there, and this checkout of llmlab.
set -eu
cd "$(dirname "$0")/.."
out=${1:-nbs/results/gpu}
mkdir -p "$out"
export PYTHONPATH="$PWD" HF_HUB_OFFLINE=1 TQDM_DISABLE=1
python3 -c 'import sys, torch; torch.cuda.is_available() or sys.exit("torch sees no GPU here")'
nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader
python3 -m pytest -q -k gpu || echo "some GPU tests failed" >&2
for name in attention train_step generate perplexity bleu; do
  echo "▶ $name"
  python3 "bench/$name.py" --json "$out/$name.json" || echo "$name did not finish" >&2
done
