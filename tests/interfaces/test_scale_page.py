"""docs/scale.md and deploy/cluster: commands parse, files agree with the package, Ray has the options they use."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import headstart
from headstart.interfaces.cli.main import app

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs/scale.md"
FOLDER = ROOT / "deploy/cluster"
FILES = ("compose.yaml", "kuberay.yaml", "rayjob.yaml")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
BLOCK = re.compile(r"(<!-- TO CHECK[^>]*-->\n)?```sh\n(.*?)```", re.DOTALL)
COMMAND = re.compile(r"(?<![\w./-])(headstart (?:[a-z]+) .*)$")


def fault_of(command: Any, words: list[str]) -> str:
    """What is wrong with a command line; nothing is run. Typer brings a click of its own, so types differ."""
    try:
        while getattr(command, "commands", None):
            context = command.make_context(command.name or "", list(words))
            _, command, words = command.resolve_command(
                context, [*getattr(context, "_protected_args", ()), *context.args]
            )
        command.make_context(command.name or "", list(words))
    except Exception as error:
        return error.format_message() if hasattr(error, "format_message") else repr(error)
    return ""


def headstart_fault(line: str) -> str:
    words = shlex.split(line, comments=True)
    return fault_of(typer.main.get_command(app), words[1:])


def lines_of_page() -> Iterator[tuple[str, bool]]:
    """Commands of Headstart on the page, and whether each is marked as one to check."""
    for mark, block in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        for line in block.splitlines():
            if found := COMMAND.search(line):
                yield found[1], bool(mark)


def documents(name: str) -> list[dict[str, Any]]:
    yaml = pytest.importorskip("yaml", reason="needs PyYAML")
    return list(yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8")))


def found_values(tree: Any, key: str) -> Iterator[Any]:
    """All values of a key, at any depth."""
    if isinstance(tree, dict):
        for name, value in tree.items():
            if name == key:
                yield value
            yield from found_values(value, key)
    elif isinstance(tree, list):
        for one in tree:
            yield from found_values(one, key)


def test_the_commands_of_the_page_parse():
    lines = list(lines_of_page())
    assert len([line for line, pending in lines if not pending]) >= 3
    faults = [
        f"{line}: {fault}" for line, pending in lines if (fault := headstart_fault(line)) and not pending
    ]
    assert not faults, "\n".join(faults)


def test_a_wrong_command_is_found():
    assert "No such option" in headstart_fault("headstart transfer photos insects -o runs --runer ray")
    assert "No such command" in headstart_fault("headstart transport photos insects")
    assert headstart_fault("headstart transfer photos insects -o runs --runner ray  # a remark") == ""


@pytest.mark.parametrize("name", FILES)
def test_the_commands_in_the_files_parse(name: str):
    text = (FOLDER / name).read_text(encoding="utf-8")
    lines = [found[1] for line in text.splitlines() if (found := COMMAND.search(line))]
    assert lines or name == "kuberay.yaml"
    assert not [f"{line}: {fault}" for line in lines if (fault := headstart_fault(line))]


def test_every_file_names_the_same_image_with_the_version_of_the_package():
    image = f"headstart-cluster:{headstart.__version__}"
    for name in ("compose.yaml", "kuberay.yaml"):
        assert set(found_values(documents(name), "image")) == {image}, name
    assert f"-t {image} ." in (FOLDER / "Dockerfile").read_text(encoding="utf-8")


def test_ray_is_the_version_of_the_lock_file():
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    (locked,) = re.findall(r"^ray==(\S+)", lock, re.MULTILINE)
    (cluster,) = [one for one in documents("kuberay.yaml") if one["kind"] == "RayCluster"]
    assert cluster["spec"]["rayVersion"] == locked


def test_the_image_installs_extras_that_exist_from_files_that_it_copies():
    text = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
    (extras,) = re.findall(r"'\.\[([\w,]+)\]'", text)
    assert "cluster" in extras.split(",")
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])
    ignored = (FOLDER / "Dockerfile.dockerignore").read_text(encoding="utf-8")
    copied = [one for line in re.findall(r"^COPY (.*) \S+$", text, re.MULTILINE) for one in line.split()]
    assert copied
    for one in copied:
        assert (ROOT / one).exists() and f"!{one}" in ignored.splitlines(), one
    (python,) = re.findall(r"^FROM python:(\d+\.\d+)", text, re.MULTILINE)
    assert any(python in one for one in PROJECT["classifiers"])


def test_no_machine_reports_its_usage_and_each_has_the_secret():
    (compose,) = documents("compose.yaml")
    for service in compose["services"].values():
        environment = service["environment"]
        assert environment["RAY_USAGE_STATS_ENABLED"] == "0"
        assert environment["RAY_AUTH_MODE"] == "token" and ":?" in environment["RAY_AUTH_TOKEN"]
        assert "ports" not in service and "privileged" not in service
    (cluster,) = [one for one in documents("kuberay.yaml") if one["kind"] == "RayCluster"]
    containers = [one for group in found_values(cluster, "containers") for one in group]
    assert len(containers) == 2
    for one in containers:
        assert {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"} in one["env"]
        assert one["resources"]["requests"] == one["resources"]["limits"]
    assert cluster["spec"]["authOptions"] == {"mode": "token"}


def test_the_job_runs_on_the_cluster_of_the_other_file():
    (cluster,) = [one for one in documents("kuberay.yaml") if one["kind"] == "RayCluster"]
    (job,) = documents("rayjob.yaml")
    assert job["spec"]["clusterSelector"] == {"ray.io/cluster": cluster["metadata"]["name"]}
    assert job["apiVersion"] == cluster["apiVersion"] == "ray.io/v1"


def test_the_head_has_no_core_for_work_and_there_is_a_worker():
    (compose,) = documents("compose.yaml")
    assert "--num-cpus=0" in compose["services"]["head"]["command"]
    assert compose["services"]["worker"]["deploy"]["replicas"] == 2
    (cluster,) = [one for one in documents("kuberay.yaml") if one["kind"] == "RayCluster"]
    assert cluster["spec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    (workers,) = cluster["spec"]["workerGroupSpecs"]
    assert 1 <= workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]


def ray_commands() -> Iterator[list[str]]:
    """What the files start: the commands of Compose, and what KubeRay makes of rayStartParams."""
    (compose,) = documents("compose.yaml")
    for service in compose["services"].values():
        yield service["command"]
        yield service["healthcheck"]["test"][1:]
    for params in found_values(documents("kuberay.yaml"), "rayStartParams"):
        yield ["ray", "start", *(f"--{name}={value}" for name, value in params.items())]
    for _, block in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        yield from (shlex.split(one, comments=True) for one in block.splitlines() if one.startswith("ray "))


@pytest.mark.slow
def test_ray_knows_the_options():
    pytest.importorskip("ray", reason="needs ray")
    from ray.scripts.scripts import cli

    lines = list(ray_commands())
    assert len(lines) == 8
    assert not [f"{line}: {fault}" for line in lines if (fault := fault_of(cli, line[1:]))]
    assert fault_of(cli, ["start", "--number-cpus=1"])
