#!/usr/bin/env bash
# All tests of a GPU, and a few figures of it: under four minutes on one. Needs no Ray and no MLflow.
# HEADWAY_GPU_TESTS=cpu rehearses them on a machine without one. OUT: a folder for the output and gpu.json.
set -uo pipefail
cd "$(dirname "$0")/../.."
export PYTHONPATH="platform:.${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 PYTORCH_NVML_BASED_CUDA_CHECK=1
log="${OUT:-$(mktemp -d)}/gpu.log"
# pytest-benchmark, where it is installed, does not go with -n, and says so in a warning, which is an error here
pytest=("${PYTHON:-python3}" -m pytest -q --tb=long -p no:cacheprovider -p no:benchmark --timeout=110 --durations=8 tests/gpu)
failed=0
"${pytest[@]}" -n "${JOBS:-4}" -m "not alone" 2>&1 | tee "$log" || failed=1
"${pytest[@]}" -m alone --timeout=170 2>&1 | tee -a "$log" || failed=1
echo "took $SECONDS s; the whole output: $log"
exit $failed
