#!/bin/bash
# Measures BertLong's attention implementations and other models on one GPU, in one table. Options are those of gpu.py.
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${PYTHON:-python}" benchmarks/gpu.py --device cuda "$@"
