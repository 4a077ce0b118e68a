#!/usr/bin/env bash
# Trains on Slurm, a process a GPU; copy it, and set what is in capitals.
#   sbatch slurm.sh cnnrnn_imagenet:images --workdir=/SHARED/runs/imagenet
# Two minutes before its time is over, each process gets SIGUSR1 and saves; the job then goes back to the queue and goes on.
# Preemption with requeueing (SIGTERM, then Slurm's own requeue) and a node that fails end in the same way.
#SBATCH --job-name=hierjax
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -uo pipefail
restarts=${RESTARTS:-50} # at most

# JAX reads Slurm's variables by itself (--multihost=auto), and takes one GPU a task. The coordinator is the first node.
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$HOME/.cache/hierjax/xla} # shared: a restart compiles nothing
export XDG_CACHE_HOME=${XDG_CACHE_HOME:-${TMPDIR:-$HOME/.cache}}                        # of decoded images, on the node
unset XLA_FLAGS
# source /SHARED/venv/bin/activate

srun --kill-on-bad-exit=1 hierjax train "$@" --multihost=auto --config.checkpoint_minutes=15
status=$?
case $status in
  0) echo "the run is complete" ;;
  75 | 129 | 134 | 137 | 138 | 143) # a process was lost, or a signal came; see docs/reference/reliability.md
    if ((${SLURM_RESTART_COUNT:-0} < restarts)); then
      echo "status $status: the job goes back to the queue"
      scontrol requeue "$SLURM_JOB_ID"
    fi
    ;;
  *) echo "status $status: the log has the reason; a restart would not help" ;;
esac
exit "$status"
