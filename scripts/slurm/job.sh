# Read by the *.sbatch files. run_tasks COMMAND... runs a command on all tasks of the job, one process each, and asks
# SLURM to start the job again if it was interrupted: the same command goes on.

run_tasks() {
    export MASTER_ADDR MASTER_PORT
    MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
    MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
    export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1} # srun does not take it from sbatch since SLURM 22.05
    # shellcheck disable=SC2016
    srun --kill-on-bad-exit=1 bash -c \
        'RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS exec "$@"' task "$@" &
    local step=$! code signalled=
    trap 'signalled=1; kill -USR1 $step' USR1 TERM # srun passes USR1 on to the tasks; at a TERM it kills them
    wait $step
    code=$?
    while [ $code -gt 128 ] && kill -0 $step 2>/dev/null; do # a signal cuts the wait off
        wait $step
        code=$?
    done
    # 75: all tasks stopped at a step. Above 128: a signal ended them before a step
    if [ $code -eq 75 ] || { [ $signalled ] && [ $code -gt 128 ]; }; then
        echo "job $SLURM_JOB_ID: interrupted (code $code), starts again"
        scontrol requeue "$SLURM_JOB_ID"
    fi
    exit $code
}
