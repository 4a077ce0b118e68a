#!/usr/bin/env bash
# Makes a virtual environment, installs hierjax with its test tools, and runs format, lint, types and tests.
#   bash check.sh              with python3, in .venv
#   PYTHON=python3.12 VENV=.venv-3.12 bash check.sh
# Arguments go to pytest: bash check.sh -m slow
set -euo pipefail
cd "$(dirname "$0")"
python=${PYTHON:-python3}
venv=${VENV:-.venv}
"$python" -c 'import sys; sys.exit("hierjax needs Python 3.11 or newer, this is %d.%d" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable '.[test]'
"$venv/bin/python" -m ruff format --check .
"$venv/bin/python" -m ruff check .
types=$(mktemp)
"$venv/bin/python" -m mypy >"$types" 2>&1 &  # beside the tests, since it uses one core
mypy=$! status=0
"$venv/bin/python" -m pytest --numprocesses=2 --dist=worksteal "$@" || status=$?
wait $mypy || status=$?
cat "$types"
exit $status
