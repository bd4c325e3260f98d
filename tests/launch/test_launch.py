"""Launch files: sound shell, the fields that their systems need, idle dry runs."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

LAUNCH = Path("launch")
SCRIPTS = [
    "tpu_vm.sh",
    "queued_resource.sh",
    "xpk.sh",
    "slurm_pyxis.sbatch",
]
TRAIN = ["--config", "configs/clip.py", "--data", "a b/*.tar", "--workdir", "it's"]
NEEDED = {"IMAGE": "r/dalle2:tpu", "HOSTS": 16, "BUCKET": "b", "TOPOLOGY": "4x4x4"}
NEEDED |= {"ACCELERATOR": "tpu-v5p-slice", "ARGS": "--config configs/clip.py"}


def run(*words, **environment):
    """A finished process, with programs of clouds that fail in PATH's place."""
    clean = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    return subprocess.run(
        [str(w) for w in words],
        capture_output=True,
        text=True,
        env={**clean, **environment},
    )


@pytest.fixture
def clouds(tmp_path):
    """A PATH on which every program of a cloud leaves a mark and fails."""
    mark = tmp_path / "called"
    for name in ("gcloud", "xpk", "srun", "scontrol", "kubectl", "sky"):
        fake = tmp_path / name
        fake.write_text(f"#!/bin/sh\necho {name} >> {mark}\nexit 9\n")
        fake.chmod(0o755)
    return {"PATH": f"{tmp_path}:{os.environ['PATH']}"}, mark


def shellcheck(text, *more):
    """What shellcheck has to say of a text."""
    program = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run(
        [program, *more, "-"], input=text, capture_output=True, text=True
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("name", [*SCRIPTS, "dry_run.sh"])
def test_shellcheck_finds_nothing(name):
    assert shellcheck((LAUNCH / name).read_text()) == ""


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_can_be_started(name):
    assert os.access(LAUNCH / name, os.X_OK)


@pytest.mark.parametrize("part", ["setup", "run"])
def test_shellcheck_finds_nothing_in_yaml(part):
    text = yaml.safe_load((LAUNCH / "sky.yaml").read_text())[part]
    assert shellcheck(text, "--shell=bash") == ""


TPU = {"ZONE": "us-east5-a", "TYPE": "v5p-128", "RUNTIME": "v2-alpha-tpuv5"}
XPK = {"CLUSTER": "c", "IMAGE": "r/dalle2:tpu", "TYPE": "v5p-128", "ZONE": "z"}
DRY = [  # script, its words, environment, what must be printed
    ("tpu_vm.sh", ["create"], TPU, "tpu-vm create dalle2 --zone=us-east5-a"),
    ("tpu_vm.sh", ["push"], TPU, "tpu-vm scp"),
    ("tpu_vm.sh", ["run", *TRAIN], TPU, "--worker=all"),
    ("tpu_vm.sh", ["logs"], TPU, "journalctl"),
    ("tpu_vm.sh", ["stop"], TPU, "systemctl"),
    ("tpu_vm.sh", ["delete"], TPU, "tpu-vm delete dalle2"),
    ("queued_resource.sh", ["create"], TPU, "queued-resources create dalle2-queued"),
    ("queued_resource.sh", ["wait"], TPU, "queued-resources describe"),
    ("queued_resource.sh", ["delete"], TPU, "--force"),
    ("xpk.sh", TRAIN, XPK, "xpk workload create --cluster c"),
    ("slurm_pyxis.sbatch", TRAIN, {"IMAGE": "r#dalle2"}, "--container-image=r#dalle2"),
]


@pytest.mark.parametrize("script, words, settings, said", DRY)
def test_a_dry_run_prints_the_command_and_calls_nothing(
    script, words, settings, said, clouds
):
    path, mark = clouds
    done = run("bash", LAUNCH / script, "--dry-run", *words, **{**settings, **path})
    assert done.returncode == 0, done.stderr
    assert said in done.stdout.replace("\\", "") and not mark.exists()


def test_arguments_arrive_as_they_were_given():
    done = run("bash", LAUNCH / "slurm_pyxis.sbatch", "--dry-run", *TRAIN, IMAGE="i")
    assert shlex.split(done.stdout)[-len(TRAIN) :] == TRAIN
    done = run("bash", LAUNCH / "xpk.sh", "--dry-run", *TRAIN, **XPK)
    inner = shlex.split(shlex.split(done.stdout)[-1])
    assert inner == ["dalle2", "train", *TRAIN]


@pytest.mark.parametrize(
    "script, words, missing",
    [("tpu_vm.sh", ["create"], "ZONE"), ("queued_resource.sh", ["create"], "ZONE")]
    + [("xpk.sh", TRAIN, "CLUSTER"), ("slurm_pyxis.sbatch", TRAIN, "IMAGE")],
)
def test_what_is_missing_is_named(script, words, missing):
    done = run("bash", LAUNCH / script, *words)
    assert done.returncode == 2 and missing in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("code, requeued", [(75, True), (0, False), (1, False)])
def test_slurm_puts_a_preempted_job_into_the_queue(code, requeued, tmp_path):
    for name, line in (("srun", f"exit {code}"), ("scontrol", "echo $@ > asked")):
        (tmp_path / name).write_text(f"#!/bin/sh\ncd {tmp_path}\n{line}\n")
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    more = {"IMAGE": "i", "SLURM_JOB_ID": "7", "PATH": path}
    done = run("bash", LAUNCH / "slurm_pyxis.sbatch", *TRAIN, **more)
    assert done.returncode == code
    asked = tmp_path / "asked"
    assert asked.exists() == requeued
    assert not requeued or asked.read_text() == "requeue 7\n"


def test_slurm_asks_for_time_to_commit_and_for_another_turn():
    text = (LAUNCH / "slurm_pyxis.sbatch").read_text()
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", text, re.M))
    assert asked["signal"] == "TERM@300" and "requeue" in asked
    assert asked["ntasks-per-node"] == asked["gpus-per-node"]
    assert asked["open-mode"] == "append", "a requeued job goes on in the same log"


def at(tree, path):
    """The value under "a.b.0.c"."""
    for part in path.split("."):
        tree = tree[int(part)] if part.isdigit() else tree[part]
    return tree


POD = "spec.replicatedJobs.0.template.spec.template.spec"
JOBSET = {  # what JobSet, Job and GKE's TPU pods ask for
    "apiVersion": "jobset.x-k8s.io/v1alpha2",
    "kind": "JobSet",
    "metadata.name": "dalle2",
    "spec.failurePolicy.maxRestarts": 100,
    "spec.failurePolicy.rules.0.action": "FailJobSet",
    "spec.failurePolicy.rules.0.onJobFailureReasons": ["PodFailurePolicy"],
    "spec.replicatedJobs.0.name": "slice",
    "spec.replicatedJobs.0.replicas": 2,
    "spec.replicatedJobs.0.template.spec.completionMode": "Indexed",
    "spec.replicatedJobs.0.template.spec.parallelism": 16,
    "spec.replicatedJobs.0.template.spec.completions": 16,
    "spec.replicatedJobs.0.template.spec.backoffLimit": 0,
    f"{POD}.restartPolicy": "Never",
    f"{POD}.terminationGracePeriodSeconds": 600,
    f"{POD}.containers.0.image": "r/dalle2:tpu",
    f"{POD}.containers.0.resources.limits": {"google.com/tpu": 4},
    f"{POD}.containers.0.command": [
        "bash",
        "-c",
        "exec dalle2 train --config configs/clip.py",
    ],
    f"{POD}.volumes.0.csi.volumeAttributes.bucketName": "b",
}


def rendered(**values):
    """A finished run of render.py over jobset.yaml."""
    pairs = [f"{name}={value}" for name, value in values.items()]
    return run(sys.executable, LAUNCH / "render.py", LAUNCH / "jobset.yaml", *pairs)


def test_the_jobset_has_the_fields_it_needs():
    done = rendered(**NEEDED, SLICES=2)
    tree = yaml.safe_load(done.stdout)
    assert {path: at(tree, path) for path in JOBSET} == JOBSET
    place = at(tree, f"{POD}.nodeSelector")
    assert place["cloud.google.com/gke-tpu-accelerator"] == "tpu-v5p-slice"
    assert place["cloud.google.com/gke-tpu-topology"] == "4x4x4"
    policy = at(tree, "spec.replicatedJobs.0.template.spec.podFailurePolicy.rules.0")
    assert policy["action"] == "FailJob"
    codes = policy["onExitCodes"]
    assert codes["values"] == [1, 2] and 75 not in codes["values"]
    assert codes["containerName"] == at(tree, f"{POD}.containers.0.name")
    mounts = at(tree, f"{POD}.containers.0.volumeMounts")
    volumes = {volume["name"] for volume in at(tree, f"{POD}.volumes")}
    assert {mount["name"] for mount in mounts} == volumes


def test_rendering_names_what_is_missing_or_too_many():
    few = {name: value for name, value in NEEDED.items() if name != "HOSTS"}
    for values, word in ((few, "needs HOSTS"), ({**NEEDED, "HOST": 1}, "field HOST")):
        done = rendered(**values)
        assert done.returncode == 2 and word in done.stderr and not done.stdout
    assert rendered(**{**NEEDED, "ARGS": '"'}).returncode == 2


def test_sky_nodes_find_each_other():
    tree = yaml.safe_load((LAUNCH / "sky.yaml").read_text())
    known = {"name", "resources", "num_nodes", "workdir", "envs", "file_mounts"}
    assert set(tree) == known | {"setup", "run"} and tree["num_nodes"] == 2
    assert tree["resources"]["job_recovery"]["strategy"] == "FAILOVER"
    places = {"SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2", "SKYPILOT_NUM_NODES": "2"}
    places |= {"SKYPILOT_NODE_RANK": "1", "DRY_RUN": "1", "ARGS": "--config x"}
    done = run("bash", "-c", tree["run"], **places)
    assert done.stdout == "1 of 2 at 10.0.0.1:8476: dalle2 train --config x\n"


@pytest.mark.parametrize("kind", ["tpu", "cuda"])
def test_images_install_what_setup_py_declares(kind):
    text = (LAUNCH / f"Dockerfile.{kind}").read_text().replace("\\\n", " ")
    steps = [line.split(" ", 1) for line in text.splitlines() if line[:1].isupper()]
    assert steps[0] == ["FROM", "python:3.12-slim"]
    known = {"FROM", "WORKDIR", "COPY", "RUN", "ENV", "CMD"}
    assert {step for step, _ in steps} <= known
    for sources in (rest.split()[:-1] for step, rest in steps if step == "COPY"):
        assert all(Path(source).exists() for source in sources)
    (install,) = [rest for step, rest in steps if "pip install" in rest]
    assert f"'.[{kind}]'" in install and "--constraint constraints.txt" in install
    assert f'"{kind}": [' in Path("setup.py").read_text()
