#!/usr/bin/env bash
# Trains with several processes on this machine: to try a run of many machines on one.
#   bash scripts/launch/local.sh 2 quickstart:smoke --workdir=runs/two
# The first argument is the number of processes; the others are those of `hierjax train`. A signal to this script goes to all
# processes, which save and end; the same command goes on. The status is that of the first process that failed, or 0.
set -uo pipefail
if [[ ! ${1:-} =~ ^[1-9][0-9]*$ ]]; then
  echo "usage: local.sh PROCESSES CONFIG [--workdir=FOLDER] [--config.KEY=VALUE ...]" >&2
  exit 2
fi
count=$1
shift
python=${PYTHON:-python3}
port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
pids=()
forward() { kill -"$1" "${pids[@]}" 2>/dev/null; }
trap 'forward TERM' TERM INT # which each process of several takes as a request to save
trap 'forward HUP' HUP
trap 'forward USR1' USR1
for ((i = 0; i < count; i++)); do
  "$python" -m hierjax train "$@" --multihost="127.0.0.1:$port,$count,$i" &
  pids+=($!)
done
failed=0
for pid in "${pids[@]}"; do
  while :; do
    wait "$pid"
    status=$?
    kill -0 "$pid" 2>/dev/null || break # it has ended; a signal to this script ends `wait` before
  done
  if ((failed == 0)); then failed=$status; fi
done
exit "$failed"
