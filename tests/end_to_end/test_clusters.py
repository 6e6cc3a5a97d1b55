"""The files for clusters: torchrun takes their command, the numbers in them belong together, the shell reads them.

`make test-clusters` asks the validators of each system.
"""

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch.distributed.run import get_args_parser

from triphase.rollouts.serving import SERVER_ENVIRONMENT, Base, server_command
from triphase.settings.schema import RunSettings

CLUSTERS = Path(__file__).parents[2] / "examples"
SLURM = CLUSTERS / "slurm" / "triphase.sbatch"
SKY = CLUSTERS / "skypilot" / "triphase.yaml"
GIVEN = {
    "SLURM_NNODES": "2",
    "SLURM_JOB_ID": "77",
    "SKYPILOT_NUM_NODES": "2",
    "SKYPILOT_NUM_GPUS_PER_NODE": "8",
    "SKYPILOT_NODE_RANK": "1",
    "SKYPILOT_TASK_ID": "77",
    "first": "host-a",
    "cards": "8",
    "config": "/shared/my.yaml",
}


def job() -> tuple[dict[str, Any], dict[str, Any]]:
    service, found = yaml.safe_load_all((CLUSTERS / "kubernetes" / "job.yaml").read_text())
    return service, found


def torchrun_of(text: str) -> list[str]:
    """The words after `torchrun` in a script, with its variables filled in."""
    line = text.replace("\\\n", " ").split("torchrun ")[1].splitlines()[0]
    return shlex.split(re.sub(r"\$\{?(\w+)\}?", lambda found: GIVEN[found[1]], line))


def commands() -> dict[str, list[str]]:
    container = job()[1]["spec"]["template"]["spec"]["containers"][0]
    assert container["command"][0] == "torchrun"
    return {
        "slurm": torchrun_of(SLURM.read_text()),
        "skypilot": torchrun_of(yaml.safe_load(SKY.read_text())["run"]),
        "kubernetes": container["command"][1:],
    }


@pytest.mark.parametrize("system", ["slurm", "skypilot", "kubernetes"])
def test_torchrun_takes_the_command(system: str) -> None:
    found = get_args_parser().parse_args(commands()[system])
    assert (found.nnodes, found.nproc_per_node, found.rdzv_backend, found.max_restarts) == ("2", "8", "c10d", 3)
    assert found.module and found.training_script == "triphase"
    assert found.training_script_args == ["run", "/shared/my.yaml"]
    assert found.rdzv_endpoint.endswith(":29500") and found.rdzv_id in ("77", "triphase")


def test_the_pods_find_one_another_and_the_shared_directory() -> None:
    service, found = job()
    spec, pod = found["spec"], found["spec"]["template"]["spec"]
    volume = yaml.safe_load((CLUSTERS / "kubernetes" / "volume.yaml").read_text())
    arguments = get_args_parser().parse_args(commands()["kubernetes"])
    # Pod 0 of an indexed job is JOB-0, and the headless service of its subdomain gives it that name.
    assert arguments.rdzv_endpoint == f"{found['metadata']['name']}-0.{pod['subdomain']}:29500"
    assert spec["completionMode"] == "Indexed" and spec["completions"] == spec["parallelism"] == int(arguments.nnodes)
    assert service["metadata"]["name"] == pod["subdomain"] and service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"].items() <= spec["template"]["metadata"]["labels"].items()
    assert service["spec"]["publishNotReadyAddresses"] and service["spec"]["ports"][0]["port"] == 29500
    claims = [each["persistentVolumeClaim"]["claimName"] for each in pod["volumes"] if "emptyDir" not in each]
    assert claims == [volume["metadata"]["name"]] and volume["spec"]["accessModes"] == ["ReadWriteMany"]
    container = pod["containers"][0]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == int(arguments.nproc_per_node)
    mounts = {each["mountPath"] for each in container["volumeMounts"]}
    assert mounts == {"/shared", "/dev/shm"}
    assert arguments.training_script_args[1].startswith("/shared/")


def test_the_servers_are_started_as_a_run_starts_them_and_only_the_job_reaches_them() -> None:
    pages = {page["kind"]: page for page in yaml.safe_load_all((CLUSTERS / "kubernetes" / "servers.yaml").read_text())}
    service, deployment, policy = pages["Service"], pages["Deployment"], pages["NetworkPolicy"]["spec"]
    template = deployment["spec"]["template"]
    container, labels = template["spec"]["containers"][0], template["metadata"]["labels"]
    words = dict((*word.split("=", 1), "")[:2] for word in container["command"])
    settings = RunSettings.model_validate({"name": "run", "model": {"name": words["--model"]}, "data": {}})
    own = server_command(settings, Base(words["--model"], words["--dtype"]), words["--host"], 8000)
    flags = [place for place, word in enumerate(own) if word.startswith("--")]
    values = {own[at]: "" if at + 1 in flags or at + 1 == len(own) else own[at + 1] for at in flags}
    assert {name: value for name, value in words.items() if name.startswith("--")} == values
    assert container["command"][1:3] == own[1:3]
    env = {each["name"]: each["value"] for each in container["env"]}
    assert env.items() >= SERVER_ENVIRONMENT.items()
    # One pod behind an address: an adapter is loaded at each address once.
    assert deployment["spec"]["replicas"] == 1 and service["spec"]["selector"] == labels
    assert service["spec"]["ports"][0]["port"] == container["ports"][0]["containerPort"] == 8000
    (allowed,) = policy["ingress"]
    assert policy["podSelector"]["matchLabels"] == deployment["spec"]["selector"]["matchLabels"] == labels
    assert allowed["from"][0]["podSelector"]["matchLabels"] == job()[1]["spec"]["template"]["metadata"]["labels"]
    # What the run writes is read under its path there, by the same user.
    pods = template["spec"], job()[1]["spec"]["template"]["spec"]
    assert pods[0]["volumes"] == pods[1]["volumes"]
    assert pods[0]["securityContext"]["runAsUser"] == pods[1]["securityContext"]["runAsUser"]
    mounts = [{mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]} for pod in pods]
    assert mounts[0] == mounts[1]


def test_the_job_asks_for_as_many_machines_and_cards_as_it_uses() -> None:
    asked = dict(re.findall(r"#SBATCH --([a-z-]+)=(\S+)", SLURM.read_text()))
    assert (asked["nodes"], asked["ntasks-per-node"], asked["gpus-per-node"]) == ("2", "1", "8")
    sky = yaml.safe_load(SKY.read_text())
    assert sky["num_nodes"] == 2 and sky["resources"]["accelerators"].endswith(":8") and "/shared" in sky["file_mounts"]


def test_the_shell_reads_the_scripts() -> None:
    sky = yaml.safe_load(SKY.read_text())
    for script in (SLURM.read_text(), sky["run"], sky["setup"]):
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
