#!/bin/sh
# The GPU's tests and benchmarks in under nine minutes, on a machine with a GPU and without a network:
#
#     bench/gpu.sh [FOLDER]                               the results, as JSON; else nbs/results/gpu
#     LLMLAB_DEVICE=cpu bench/gpu.sh /tmp/gpu-dry         the dry run: tiny sizes on the CPU, measures nothing
#     LLMLAB_SECONDS=300 bench/gpu.sh                     what is not begun after so many seconds is left out (520)
#
# It needs torch, numpy, pytest, safetensors, tokenizers, jaxtyping and this checkout; llmlab need not be installed.
# transformers, sacrebleu and accelerate are raced where they are there, and pytest-xdist is not used: tests of memory
# must be alone on the device. The most important comes first, each part has its own limit, and a part that fails or is
# cut keeps what it wrote: the JSON is written after each contestant. FOLDER then holds at most seven files: tests.xml
# (JUnit), train_step.json, generate.json, attention.json, perplexity.json, bleu.json, train_masked.json, run.txt (what
# was printed). `make bench` renews BENCHMARKS.md from them, too.
set -u
cd "$(dirname "$0")/.."
out=${1:-nbs/results/gpu}
mkdir -p "$out"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" HF_HUB_OFFLINE=1 TQDM_DISABLE=1 PYTHONUNBUFFERED=1
export LLMLAB_DEVICE="${LLMLAB_DEVICE:-cuda}"
began=$(date +%s)
budget=${LLMLAB_SECONDS:-520}
failed=0
if [ "$LLMLAB_DEVICE" = cpu ]; then
  export LLMLAB_TINY=1 CUDA_VISIBLE_DEVICES=
else
  python3 -c 'import sys, torch; torch.cuda.is_available() or sys.exit("torch sees no GPU here; dry run: LLMLAB_DEVICE=cpu")' || exit 1
  nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader
fi

# part NAME SECONDS COMMAND…: at most so long, and at most until the budget ends
part() {
  name=$1 limit=$2
  shift 2
  left=$((budget - ($(date +%s) - began)))
  [ "$left" -lt "$limit" ] && limit=$left
  if [ "$limit" -lt 10 ]; then
    echo "– $name: left out, $budget seconds are over"
    failed=1
    return
  fi
  echo "▶ $name (at most $limit s)"
  start=$(date +%s)
  timeout -k 5 "$limit" "$@"
  status=$?
  if [ "$status" = 0 ]; then mark=✓; else mark="✗ ended with $status,"; failed=1; fi
  echo "$mark $name $(($(date +%s) - start)) s"
}

everything() {
  part tests 180 python3 -m pytest tests/gpu -p no:cacheprovider --durations=10 -rs --tb=short --junitxml="$out/tests.xml"
  part train_step 130 python3 bench/train_step.py --only causal --limit 70 --rounds 10 --json "$out/train_step.json"
  part generate 110 python3 bench/generate.py --rounds 2 --json "$out/generate.json"
  part attention 45 python3 bench/attention.py --rounds 20 --json "$out/attention.json"
  part perplexity 45 python3 bench/perplexity.py --json "$out/perplexity.json"
  part bleu 60 python3 bench/bleu.py --rounds 1 --json "$out/bleu.json"
  part train_masked 90 python3 bench/train_step.py --only masked --limit 40 --rounds 10 --json "$out/train_masked.json"
  return "$failed"
}

{ everything 2>&1; echo $? >"$out/.status"; } | tee "$out/run.txt"
status=$(cat "$out/.status")
rm -f "$out/.status"
exit "$status"
