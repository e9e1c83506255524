#!/bin/bash
# Trains with Slurm, one task for each GPU. From the repository's folder, for 2 nodes of 8 GPUs:
#
#   sbatch --nodes 2 tools/run-slurm.sh --config-file configs/ddep_swin.yaml OUTPUT_DIR output/ddep
#
# Arguments after the script's name go to train_net.py. Arguments before it go to sbatch and replace
# the settings below: --gpus-per-node 4 --ntasks-per-node 4, for example, for nodes of 4 GPUs; the
# two numbers must be equal.
#
# Two minutes before the time is up, the tasks save a checkpoint and exit, and the job returns to the
# queue. It then continues from the newest checkpoint in OUTPUT_DIR, as it does after a node has
# failed or another job has preempted it. A job that scancel or an error has ended is not repeated.
#SBATCH --job-name=ddep
#SBATCH --nodes=1
#SBATCH --gpus-per-node=8
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log

# Slurm sends the signal before the end only to the tasks, and the signal of scancel also to this
# script. The trap runs after srun has ended.
trap 'cancelled=1' TERM

# --cpus-per-task must be repeated, because srun does not take it from sbatch. If one task fails, the
# others are ended.
srun --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" --kill-on-bad-exit=1 \
    python -u train_net.py --resume "$@"
status=$?

# 128 + 15, the number of SIGTERM: stopped after saving.
if [[ $status -eq 143 && -z $cancelled ]]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit $status
