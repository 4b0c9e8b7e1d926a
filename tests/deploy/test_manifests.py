"""Files for compose, Kubernetes and systemd: real checkers take them, and they fit what the programs are.

What is not run: no image is built, no container or cluster started.
"""

import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from compose_spec import PyCompose

import gateway.__main__
import marsproxy.__main__
from marsproxy.config import Stop, settings
from marsproxy.workers.supervisor import KILL_AFTER_S

DEPLOY = Path(__file__).parents[2] / "deploy"
KUBERNETES = sorted(set(DEPLOY.glob("kubernetes/*.yaml")) - {DEPLOY / "kubernetes/kustomization.yaml"})
UNITS = sorted(DEPLOY.glob("systemd/*.service"))
APPS = {"marsproxy": marsproxy.__main__.build_app(), "mars-gateway": gateway.__main__.build_app()}


def objects() -> Iterator[dict[str, Any]]:
    for file in KUBERNETES:
        yield from yaml.safe_load_all(file.read_text())


def of_kind(*kinds: str) -> list[dict[str, Any]]:
    return [each for each in objects() if each["kind"] in kinds]


def named(kind: str, name: str) -> dict[str, Any]:
    [found] = [each for each in of_kind(kind) if each["metadata"]["name"] == name]
    return found


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return found


def proxy_settings() -> dict[str, dict[str, Any]]:
    """The settings files, by where they are from."""
    secret = named("Secret", "marsproxy")["stringData"]["marsproxy.toml"]
    file = (DEPLOY / "compose/marsproxy.toml").read_text()
    return {"kubernetes": tomllib.loads(secret), "compose": tomllib.loads(file)}


def longest_stop_s(tree: dict[str, Any]) -> float:
    stop = Stop(**tree["stop"])
    return stop.pause_s + stop.grace_s + KILL_AFTER_S


@pytest.mark.parametrize(
    "described", [pytest.param(each, id=f"{each['kind']}-{each['metadata']['name']}") for each in objects()]
)
def test_kubernetes_knows_every_field(described: dict[str, Any]) -> None:
    """Strictly: a misspelt one would be dropped without a word."""
    kubernetes_validate.validate(described, kubernetes_validate.latest_version(), strict=True)


def test_the_checker_finds_a_misspelt_field() -> None:
    broken = named("Deployment", "marsproxy") | {"spce": {}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, kubernetes_validate.latest_version(), strict=True)


def test_kustomization_lists_every_file() -> None:
    """But the example of secrets, which is filled in elsewhere."""
    listed = yaml.safe_load((DEPLOY / "kubernetes/kustomization.yaml").read_text())["resources"]
    assert sorted(listed) == sorted({file.name for file in KUBERNETES} - {"secrets.example.yaml"})


def test_selectors_find_their_pods() -> None:
    """Of services, budgets and network policies."""
    pods = [each["spec"]["template"]["metadata"]["labels"] for each in of_kind("Deployment", "StatefulSet")]
    selectors = [each["spec"]["selector"] for each in of_kind("Service")]
    selectors += [each["spec"]["selector"]["matchLabels"] for each in of_kind("PodDisruptionBudget")]
    selectors += [each["spec"]["podSelector"].get("matchLabels", {}) for each in of_kind("NetworkPolicy")]
    assert len(selectors) > 8
    for selector in selectors:
        assert any(selector.items() <= labels.items() for labels in pods), selector


def test_secrets_that_pods_mount_exist() -> None:
    known = {each["metadata"]["name"]: set(each["stringData"]) for each in of_kind("Secret")}
    volumes = [
        volume["secret"]
        for each in of_kind("Deployment", "StatefulSet")
        for volume in each["spec"]["template"]["spec"]["volumes"]
        if "secret" in volume
    ]
    assert len(volumes) == 3
    for volume in volumes:
        assert {item["key"] for item in volume.get("items", ())} <= known[volume["secretName"]]


@pytest.mark.parametrize("workload", ["marsproxy", "redis", "gateway"])
def test_pods_have_no_more_rights_than_they_need(workload: str) -> None:
    [found] = [e for e in of_kind("Deployment", "StatefulSet") if e["metadata"]["name"] == workload]
    pod = found["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    for container in pod["containers"]:
        rights = container["securityContext"]
        assert rights["readOnlyRootFilesystem"]
        assert not rights["allowPrivilegeEscalation"]
        assert rights["capabilities"]["drop"] == ["ALL"]


def test_nobody_kills_a_proxy_that_still_drains() -> None:
    """Each manager waits for longer than the longest stop."""
    files = proxy_settings()
    pod = named("Deployment", "marsproxy")["spec"]["template"]["spec"]
    [container] = pod["containers"]
    pre_stop_s = float(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] >= pre_stop_s + longest_stop_s(files["kubernetes"])
    grace = compose()["services"]["proxy-1"]["stop_grace_period"]
    assert float(grace.removesuffix("s")) >= longest_stop_s(files["compose"])
    unit = (DEPLOY / "systemd/marsproxy.service").read_text()
    assert (
        float(re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)[0]) >= Stop().grace_s + KILL_AFTER_S
    )


def test_the_pause_is_longer_than_probes_need() -> None:
    """Until then the balancer still sends new turns."""
    [container] = named("Deployment", "marsproxy")["spec"]["template"]["spec"]["containers"]
    probe = container["readinessProbe"]
    noticed_s = probe["periodSeconds"] * probe["failureThreshold"] + probe["timeoutSeconds"]
    assert proxy_settings()["kubernetes"]["stop"]["pause_s"] > noticed_s


def test_settings_exist() -> None:
    """Every name in the proxy's files, and that nothing secret is anything but a placeholder."""
    known = {setting.key for setting in settings()}
    for tree in proxy_settings().values():
        for name, value in tree.items():
            keys = [f"{name}.{key}" for key in value] if isinstance(value, dict) else [name]
            assert all(key in known or key.split(".")[0] in known for key in keys), keys
        assert tree["gateway"]["token"] == "change-me"


def command_lines() -> Iterator[list[str]]:
    """What containers and units run of ours."""
    for service in compose()["services"].values():
        if service["image"] == "mars":
            yield [*service.get("entrypoint", ["marsproxy"]), *service["command"]]
    for workload in of_kind("Deployment", "StatefulSet"):
        for container in workload["spec"]["template"]["spec"]["containers"]:
            if container["image"] == "mars":
                yield [*container.get("command", ["marsproxy"]), *container["args"]]
    for unit in UNITS:
        [line] = re.findall(r"^ExecStart=/opt/mars/bin/(.+)$", unit.read_text(), re.MULTILINE)
        yield line.split()


@pytest.mark.parametrize("line", list(command_lines()), ids=" ".join)
def test_commands_take_these_flags(line: list[str]) -> None:
    program, command, *arguments = line
    options = {
        name for argument in APPS[program][command].assemble_argument_collection() for name in argument.names
    }
    assert {word for word in arguments if word.startswith("--")} <= options


def test_compose_takes_the_file() -> None:
    """Fields by the specification; networks, volumes, secrets and configs that services name exist."""
    whole = PyCompose.from_json(json.dumps(compose()))
    whole.validate()
    whole.validate_networks()
    whole.validate_volumes()
    whole.validate_secrets()
    whole.validate_configs()


def test_compose_publishes_one_port() -> None:
    """The encrypted one. Whatever else listens is on networks without a way in."""
    services = compose()["services"]
    assert {name for name, service in services.items() if "ports" in service} == {"nginx"}
    assert compose()["networks"]["back"]["internal"]
    assert set(services["redis"]["networks"]) == {"back"}


def test_every_compose_service_says_whether_it_is_well() -> None:
    services = compose()["services"]
    assert {name for name, service in services.items() if "healthcheck" not in service} == {"nginx"}


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_takes_the_unit(unit: Path, tmp_path: Path) -> None:
    """With programs that exist here in place of ours: it looks for them."""
    copy = tmp_path / unit.name
    copy.write_text(re.sub(r"/opt/mars/bin/\S+", "/bin/true", unit.read_text()))
    checked = subprocess.run(
        [tool("systemd-analyze"), "verify", copy], capture_output=True, text=True, check=False, timeout=60
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_proxys_unit_exposes_little(tmp_path: Path) -> None:
    """By systemd's own measure, 10 being an ordinary service and 0 one that can do nothing."""
    copy = tmp_path / "marsproxy.service"
    copy.write_text((DEPLOY / "systemd/marsproxy.service").read_text())
    checked = subprocess.run(
        [tool("systemd-analyze"), "security", "--offline=true", "--threshold=20", copy],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert checked.returncode == 0, checked.stdout[-300:]


def test_images_run_as_nobody() -> None:
    image = (DEPLOY / "Dockerfile").read_text()
    assert re.search(r"^USER (?!0|root)", image, re.MULTILINE)
    copied = set(re.findall(r"^COPY (\w+) \w+$", image, re.MULTILINE))
    kept = set(re.findall(r"^!(\w+)$", (DEPLOY.parent / ".dockerignore").read_text(), re.MULTILINE))
    assert copied == {"marsproxy", "gateway", "backend_patch", "loadgen"} <= kept | copied


def tool(name: str) -> str:
    found = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
    assert found is not None, f"{name} is missing: .ci/packages installs it"
    return found
