"""Parameter files, or the seeds of a verdict, as one Slurm job array, by submitit (pip install -e '.[slurm]').

    python docs/examples/submit.py params/imagenet_lt.yaml params/places_lt.yaml --gpus 4 --hours 24
    python docs/examples/submit.py params/cifar100_ir100.yaml --verdict-seeds 0 1 2 3 --gpus 1 --hours 12

A job at its time limit, or preempted, is queued again (three times at most) and goes on from its last checkpoint.
Without Slurm, and with --cluster local, the jobs are processes here.
"""

import argparse
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]


def commands(files: list[str], seeds: list[int]) -> list[list[list[str]]]:
    """What follows `python -m osdtw_lib` in each job, one command after the other: a run, or a seed's rows of the verdict."""
    if not seeds:
        return [[["run", file]] for file in files]
    jobs = []
    for file in files:
        for seed in seeds:
            own = ["--set", f"name={Path(file).stem}_seed{seed}", "--set", f"verdict.seeds=[{seed}]"]
            jobs.append([["split", file, *own], ["verdict", file, *own]])
    return jobs


def work(several: list[list[str]]) -> None:
    for command in several:
        subprocess.run([sys.executable, "-m", "osdtw_lib", *command], cwd=PROJECT, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--verdict-seeds", type=int, nargs="+", default=[])
    parser.add_argument("--gpus", type=int, default=1, help="of each job")
    parser.add_argument("--cores-per-gpu", type=int, default=8)
    parser.add_argument("--hours", type=float, default=24)
    parser.add_argument("--partition")
    parser.add_argument("--at-once", type=int, default=8, help="jobs that may run at the same time")
    parser.add_argument("--cluster", choices=("slurm", "local", "debug"), help="default: Slurm where it is")
    chosen = parser.parse_args()
    import submitit

    class Resumed(submitit.helpers.Checkpointable):  # queued again as it is
        def __call__(self, several: list[list[str]]) -> None:
            work(several)

    executor = submitit.AutoExecutor(folder=PROJECT / "outputs" / "slurm" / "%j", cluster=chosen.cluster)
    executor.update_parameters(
        name="osdtw",
        nodes=1,
        tasks_per_node=1,
        gpus_per_node=chosen.gpus,
        cpus_per_task=chosen.gpus * chosen.cores_per_gpu,
        timeout_min=int(60 * chosen.hours),
        slurm_array_parallelism=chosen.at_once,
        **({"slurm_partition": chosen.partition} if chosen.partition else {}),
    )
    jobs = executor.map_array(Resumed(), commands(chosen.files, chosen.verdict_seeds))
    print(*(job.job_id for job in jobs), flush=True)
    if executor.cluster != "slurm":  # these end with this process
        for job in jobs:
            job.result()


if __name__ == "__main__":
    main()
