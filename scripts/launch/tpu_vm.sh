#!/usr/bin/env bash
# Trains on Cloud TPU VMs that a queued resource gives, a process a host, and asks for a new slice when one is taken away.
#   PROJECT=my-project ZONE=us-central1-a bash tpu_vm.sh cnnrnn_imagenet:images --workdir=/shared/runs/imagenet
# It runs on a machine that stays, such as a small VM. SETUP is run once on each host of a slice: it installs hierjax and mounts
# the shared disk (Filestore by NFS; a mounted bucket has neither renames nor locks). Arguments must have no blanks or quotes.
set -uo pipefail
: "${PROJECT:?set PROJECT}" "${ZONE:?set ZONE}"
name=${NAME:-hierjax}
type=${ACCELERATOR:-v5litepod-256}
image=${RUNTIME:-v2-alpha-tpuv5-lite}
setup=${SETUP:-"pip install --quiet 'jax[tpu]' hierjax && sudo mkdir -p /shared && sudo mount -t nfs FILESTORE:/share /shared"}
tries=${TRIES:-50}
spot=${SPOT---spot} # SPOT= for a slice that is not taken away

tpus() { gcloud compute tpus "$@" --project="$PROJECT" --zone="$ZONE"; }
state() { tpus queued-resources describe "$name" --format='value(state.state)' 2>/dev/null; }
each_host() { tpus tpu-vm ssh "$name" --worker=all --command="$1"; }
delete() { tpus queued-resources delete "$name" --force --quiet 2>/dev/null; }

create() {
  delete
  # shellcheck disable=SC2086  # no flag where SPOT is empty
  tpus queued-resources create "$name" --node-id="$name" --accelerator-type="$type" --runtime-version="$image" $spot || return
  until [[ $(state) == ACTIVE ]]; do
    case $(state) in FAILED | SUSPENDED) return 1 ;; esac
    sleep 30
  done
  each_host "$setup"
}

# JAX finds the other hosts in the metadata of the slice (--multihost=auto). Where a process of another host ends, those of this
# one end with 75 or a signal's status, and start anew; 1 and 2 are errors of config or data.
train="export JAX_PLATFORMS=tpu JAX_COMPILATION_CACHE_DIR=/shared/xla; \
for i in \$(seq $tries); do \
python3 -m hierjax train $* --multihost=auto --config.checkpoint_minutes=15; s=\$?; \
case \$s in 0 | 1 | 2) break ;; esac; sleep 10; done; exit \$s"

for ((i = 1; i <= tries; i++)); do
  if [[ $(state) != ACTIVE ]] && ! create; then
    echo "try $i: no slice; once more in a minute"
    sleep 60
    continue
  fi
  each_host "$train"
  status=$?
  if ((status == 0)); then
    echo "the run is complete; the slice is given back"
    delete
    exit 0
  fi
  if ((status != 255)) && [[ $(state) == ACTIVE ]]; then # 255: the connection broke
    echo "the log has the reason; a restart would not help. The slice is kept: delete the queued resource $name"
    exit "$status"
  fi
  echo "try $i ended with status $status; the run goes on from its last checkpoint"
done
exit 1
