"""Files that start an exported run: launch.sh for torchrun, and what SLURM, SkyPilot or Kubernetes needs to call it."""

from __future__ import annotations

from collections.abc import Callable

from planner.config.run import RunConfig
from planner.engines.engine import Engine, machines_of
from planner.engines.plain_yaml import yaml_text
from planner.errors import InputError

PORT = 29_500
SCRIPT = "launch.sh"
# SkyPilot's names of the cards in presets/gpus
SKY_CARDS = {
    "a10": "A10", "a10g": "A10G", "a100-40gb": "A100", "a100-80gb": "A100-80GB", "b200": "B200", "h100-80gb": "H100",
    "h200": "H200", "gh200-96gb": "GH200", "l4": "L4", "l40": "L40", "l40s": "L40S", "t4": "T4",
    "v100-16gb": "V100", "v100-32gb": "V100-32GB", "mi300x": "MI300X", "rtx-4090": "RTX4090", "p100-16gb": "P100",
}  # fmt: skip


def launch_script(engine: Engine, config: RunConfig) -> str:
    """launch.sh: starts the processes of one node."""
    machines, start = machines_of(config), engine.start(config)
    lines = [
        "#!/usr/bin/env bash",
        f"# {engine.stamp}: {machines.processes} processes on each of {machines.nodes} nodes",
    ]
    if machines.nodes > 1:
        lines.append("# on each node: NODE_RANK=0 … HEAD=address of node 0 bash launch.sh")
    lines += ["set -euo pipefail", 'HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"']
    if config.hardware.allocator == "expandable":
        lines.append("export PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True")
    folder = (
        f'"${{{start.folder}:?set {start.folder} to the checkout of {engine.title}}}"' if start.folder else '"$HERE"'
    )
    lines += [f"cd {folder}", 'export PYTHONPATH="$HERE${PYTHONPATH:+:$PYTHONPATH}"']
    lines += start.before
    lines.append(" ".join(["exec", *_runner(engine, config), *start.words, '"$@"']))
    return "\n".join([*lines, ""])


def _runner(engine: Engine, config: RunConfig) -> tuple[str, ...]:
    machines, start = machines_of(config), engine.start(config)
    if start.runner == "accelerate":
        several = ("--machine_rank", '"$NODE_RANK"', "--main_process_ip", '"$HEAD"', "--main_process_port", str(PORT))
        return "accelerate", "launch", "--config_file", start.settings, *(several if machines.nodes > 1 else ())
    if machines.nodes > 1:
        return (
            "torchrun", f"--nnodes={machines.nodes}", f"--nproc_per_node={machines.processes}",
            '--node_rank="$NODE_RANK"', "--rdzv_backend=c10d", "--rdzv_id=gptplan", f'--rdzv_endpoint="$HEAD:{PORT}"',
        )  # fmt: skip
    return (
        ("python",)
        if machines.processes == 1
        else ("torchrun", "--standalone", f"--nproc_per_node={machines.processes}")
    )


def _torchrun(engine: Engine, config: RunConfig) -> dict[str, str]:
    return {}


def _slurm(engine: Engine, config: RunConfig) -> dict[str, str]:
    machines = machines_of(config)
    lines = [
        "#!/usr/bin/env bash",
        f"# {engine.stamp}: sbatch job.slurm, in the folder of this file",
        "#SBATCH --job-name=gptplan",
        f"#SBATCH --nodes={machines.nodes}",
        "#SBATCH --ntasks-per-node=1",
        f"#SBATCH --gpus-per-node={machines.processes}",
        "#SBATCH --output=%x-%j.log",
        "set -euo pipefail",
        'HEAD="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"',
        "export HEAD",
        'cd "$SLURM_SUBMIT_DIR"',
        f"srun --kill-on-bad-exit=1 bash -c 'NODE_RANK=\"$SLURM_NODEID\" exec bash {SCRIPT}'",
    ]
    return {"job.slurm": "\n".join([*lines, ""])}


def _skypilot(engine: Engine, config: RunConfig) -> dict[str, str]:
    machines, card, start = machines_of(config), config.hardware.gpu, engine.start(config)
    if card not in SKY_CARDS:
        raise InputError(
            f"hardware.gpu = {card}: SkyPilot's name of it is not known here",
            why="sky.yaml asks for a card by SkyPilot's name",
            remedy=f"known: {', '.join(sorted(SKY_CARDS))}; or use --launcher slurm, kubernetes or torchrun",
        )
    checkout = engine.title
    folder = f'export {start.folder}="$HOME/sky_workdir/{checkout}"\n' if start.folder else ""
    values = {
        "name": "gptplan",
        "workdir": ".",
        "num_nodes": machines.nodes,
        "resources": {"accelerators": f"{SKY_CARDS[card]}:{machines.processes}"},
        "setup": "\n".join(engine.install),
        "run": f'{folder}HEAD="$(echo "$SKYPILOT_NODE_IPS" | head -n 1)" NODE_RANK="$SKYPILOT_NODE_RANK" bash {SCRIPT}',
    }
    return {"sky.yaml": f"# {engine.stamp}: sky launch sky.yaml, in the folder of this file\n{yaml_text(values)}"}


def _kubernetes(engine: Engine, config: RunConfig) -> dict[str, str]:
    machines = machines_of(config)
    start = engine.start(config)
    where = "HEAD=gptplan-0.gptplan NODE_RANK=$JOB_COMPLETION_INDEX"
    run = f"cp -L /files/* /run-files/ && cd /run-files && {where} exec bash {SCRIPT}"
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "gptplan"},
        "spec": {"clusterIP": "None", "selector": {"job-name": "gptplan"}},
    }
    container = {
        "name": "train",
        "image": "$IMAGE",
        "command": ["bash", "-c", run],
        "ports": [{"containerPort": PORT}],
        "resources": {"limits": {"nvidia.com/gpu": machines.processes}},
        "volumeMounts": [
            {"name": "files", "mountPath": "/files"},
            {"name": "run-files", "mountPath": "/run-files"},
            {"name": "shm", "mountPath": "/dev/shm"},
        ],
    }
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "gptplan"},
        "spec": {
            "completions": machines.nodes,
            "parallelism": machines.nodes,
            "completionMode": "Indexed",
            "backoffLimit": 0,
            "template": {
                "spec": {
                    "subdomain": "gptplan",
                    "restartPolicy": "Never",
                    "containers": [container],
                    "volumes": [
                        {"name": "files", "configMap": {"name": "gptplan-files"}},
                        {"name": "run-files", "emptyDir": {}},
                        {"name": "shm", "emptyDir": {"medium": "Memory"}},
                    ],
                }
            },
        },
    }
    steps = [
        f"# {engine.stamp}, in an image that has it{f' and sets {start.folder}' if start.folder else ''}:",
        "#   kubectl create configmap gptplan-files --from-file=.",
        "#   IMAGE=registry/name:tag envsubst '$IMAGE' < job.yaml | kubectl apply -f -",
    ]
    return {"job.yaml": "\n".join([*steps, yaml_text(service) + "---", yaml_text(job)])}


LAUNCHERS: dict[str, Callable[[Engine, RunConfig], dict[str, str]]] = {
    "torchrun": _torchrun,
    "slurm": _slurm,
    "skypilot": _skypilot,
    "kubernetes": _kubernetes,
}


def launcher_files(engine: Engine, config: RunConfig, launcher: str) -> dict[str, str]:
    """launch.sh and the files of the launcher that calls it. Raises InputError as `machines_of`."""
    return {SCRIPT: launch_script(engine, config)} | LAUNCHERS[launcher](engine, config)
