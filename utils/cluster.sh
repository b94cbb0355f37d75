# shellcheck shell=bash disable=SC2154
# (SC2154: options are assigned by the function `option`.)
# Where a recipe's programs run: here, or as jobs of a cluster. Sourced by recipe.sh; docs/cluster.md.

option cmd_backend local "where long stages run: local, slurm, sge, pbs or ssh"
option cluster_config "" "commands and flags of the cluster (default: utils/cluster/CMD_BACKEND.yaml)" file
option_list resource "NAME=VALUE of every job: cpu=4, mem=8G, gpu=1, time=12:00:00, partition=..."
option max_jobs_run "" "jobs of a stage that run at once (default: all)" count
option retries 1 "how often a job that failed is run again, alone; 0: never" whole
option ngpu "" "GPUs of a training on each machine, with a process for each" count
option num_nodes 1 "machines that train one model together (slurm)" count

# run PROGRAM ARGUMENT...: run python -m espnet_lite.bin.PROGRAM, or print that with --dry_run. With
# another --cmd_backend than local, decode_asr and make_units submit their shares, and what works long in
# one piece becomes a job of its own.
run() {
    local job_options
    if [[ $cmd_backend == local ]]; then
        [[ $num_nodes == 1 ]] || die "--num_nodes $num_nodes: needs --cmd_backend slurm"
        execute "$python" -m "espnet_lite.bin.$1" "${@:2}"
        return
    fi
    job_options=(--cmd_backend "$cmd_backend" --retries "$retries"
        ${max_jobs_run:+--max_jobs_run "$max_jobs_run"}
        ${cluster_config:+--cluster_config "$cluster_config"} "${resource_list[@]/#/--resource=}")
    case $1 in
        decode_asr | make_units) execute "$python" -m "espnet_lite.bin.$1" "${@:2}" "${job_options[@]}" ;;
        run_processes | train_* | quantize_* | pack_*) run_job "$@" ;;
        *) execute "$python" -m "espnet_lite.bin.$1" "${@:2}" ;;
    esac
}

# run_job PROGRAM ARGUMENT...: run it as a job whose output is shown as it comes.
run_job() {
    local word option="" program=$1 arguments=("${@:2}") together=() data=() log command
    if [[ $program == run_processes ]]; then # --nproc N PROGRAM ARGUMENT...
        together=(run_processes --nproc "$nproc")
        program=$4
        arguments=("${@:5}")
    fi
    log=$program
    if [[ $program == train_* && $program != train_lm ]]; then
        ((num_nodes == 1)) || together=(run_processes --nproc "$nproc" --num_nodes "$num_nodes")
        job_options+=(--resource="cpu=$nproc" ${ngpu:+--resource="gpu=$ngpu"})
        # srun begins the processes of a training, of one machine too, and hands signals on to them.
        [[ $cmd_backend != slurm && $num_nodes == 1 ]] || job_options+=(--resource="nodes=$num_nodes")
    elif [[ $program == @(train_lm|quantize_*) && -n $ngpu ]]; then
        job_options+=(--resource=gpu=1) # trains in one process
    fi
    job_options+=("${resource_list[@]/#/--resource=}") # the user's count most
    for word in "${arguments[@]}"; do
        if [[ $word == --* ]]; then
            option=$word
        elif [[ $option == --expdir || $option == --output ]]; then
            log+=.${word##*/}
        elif [[ $option == --train_dirs || $option == --dev_dirs ]]; then
            data+=(--data_dir="$word")
        fi
    done
    command=("$python" -m "espnet_lite.bin.${together[0]:-$program}" "${together[@]:1}"
        ${together[0]:+"$program"} "${arguments[@]}")
    command=(--program "$program" ${together[0]:+--threads 1} "${job_options[@]}" "${data[@]}"
        "$expdir/logs/$log.log" "${command[@]}")
    execute "$python" -m espnet_lite.bin.run_jobs --follow "${command[@]}"
    if [[ $dry_run == true ]]; then
        "$python" -m espnet_lite.bin.run_jobs --dry_run "${command[@]}"
    fi
}
