#!/bin/bash
# Trains with Slurm, one task for each GPU. From the repository's folder, for 2 nodes of 8 GPUs:
#
#   sbatch --nodes 2 tools/run-slurm.sh --config-file configs/ddep_swin.yaml OUTPUT_DIR output/ddep
#
# What stands behind the script's name goes to train_net.py. What stands before it goes to sbatch and
# replaces the settings below, as --gpus-per-node 4 --ntasks-per-node 4 does for nodes of 4 GPUs; the
# two numbers must be the same.
#
# Two minutes before the time is up, the tasks save a checkpoint and end, and the job goes back into
# the queue. It then goes on behind the newest checkpoint in OUTPUT_DIR, as it does when a node has
# failed or another job has taken its place. Jobs that scancel or an error ended are not repeated.
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

# Slurm's signal before the end goes to the tasks alone, that of scancel to this script too. The
# trap waits until srun has ended.
trap 'cancelled=1' TERM

# --cpus-per-task must be repeated: srun does not take it from sbatch. Where one task fails, the
# others end too.
srun --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" --kill-on-bad-exit=1 \
    python -u train_net.py --resume "$@"
status=$?

# 128 + 15, SIGTERM's number: stopped in good order.
if [[ $status -eq 143 && -z $cancelled ]]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit $status
