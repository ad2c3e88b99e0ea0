"""Monitoring of the stack in containers: its targets, its permissions, its secrets."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from local_stack.monitoring import CONFIGURATION
from support.prometheus import ROOT

GRAFANA = ROOT / "deploy" / "grafana"


def loaded(path: Path) -> Any:
    """Return what a file of YAML says."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


COMPOSE = loaded(ROOT / "docker-compose.yml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OPS = ("postgres-exporter", "prometheus", "grafana")
every_service = pytest.mark.parametrize("name", SERVICES)
# https://grafana.com/docs/grafana/latest/administration/provisioning/
KEYS = {
    "datasources": {"name", "type", "uid", "url", "access", "isDefault", "jsonData"},
    "providers": {"name", "folder", "type", "allowUiUpdates", "options"},
}


@every_service
def test_container_has_no_needless_permission(name: str) -> None:
    """No capability, no writing outside its volumes, a memory limit."""
    service = SERVICES[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service.get("user") not in {"root", "0"}


@every_service
def test_ports_are_published_on_loopback_only(name: str) -> None:
    """Other machines reach no database, broker or dashboard."""
    for port in SERVICES[name].get("ports", ()):
        assert port.startswith("127.0.0.1:")


@every_service
def test_image_is_named_by_its_version(name: str) -> None:
    """No image changes unnoticed; the project's own are named by TAG."""
    _, _, tag = SERVICES[name]["image"].partition(":")

    assert tag
    assert "latest" not in tag


def test_monitoring_has_a_profile_of_its_own() -> None:
    """Prometheus is optional, and nothing depends on it."""
    assert {name for name, each in SERVICES.items() if each.get("profiles") == ["ops"]} == set(OPS)
    for name, service in SERVICES.items():
        if name not in OPS:
            assert not set(OPS) & set(service.get("depends_on", ()))


def test_prometheus_targets_are_services_and_their_ports() -> None:
    """Each job's target is a service of docker-compose.yml; none is left out."""
    jobs = loaded(CONFIGURATION / "prometheus.yml")["scrape_configs"]
    files = {file for job in jobs for each in job["file_sd_configs"] for file in each["files"]}
    assert files == {f"targets/{path.name}" for path in (CONFIGURATION / "targets").iterdir()}

    hosts = set()
    for file in files:
        [group] = loaded(CONFIGURATION / file)
        hosts |= {target.partition(":")[0] for target in group["targets"]}

    ours = {name for name, each in SERVICES.items() if "SERVICE" in str(each.get("build"))}
    assert hosts == {*ours, "events-api", "usage-api", "rabbitmq", "postgres-exporter"}


def test_grafana_needs_the_generated_password() -> None:
    """No anonymous access, no signing up, no default password."""
    grafana = SERVICES["grafana"]
    settings = grafana["environment"]

    assert settings["GF_AUTH_ANONYMOUS_ENABLED"] == "false"
    assert settings["GF_USERS_ALLOW_SIGN_UP"] == "false"
    assert settings["GF_SECURITY_ADMIN_PASSWORD__FILE"] == "/run/secrets/grafana-password-admin"
    assert grafana["secrets"] == ["grafana-password-admin"]


def test_grafana_reads_the_committed_dashboards_only() -> None:
    """Both folders are mounted read-only, at the paths that Grafana uses."""
    mounts = {each for each in SERVICES["grafana"]["volumes"] if each.startswith("./")}
    [provider] = loaded(GRAFANA / "provisioning" / "dashboards" / "metering.yml")["providers"]

    assert mounts == {
        "./deploy/grafana/provisioning:/etc/grafana/provisioning:ro",
        f"./deploy/grafana/dashboards:{provider['options']['path']}:ro",
    }
    assert provider["allowUiUpdates"] is False


def test_grafana_uses_the_prometheus_of_the_stack() -> None:
    """The data source names the container and its port, and is the default."""
    [source] = loaded(GRAFANA / "provisioning" / "datasources" / "prometheus.yml")["datasources"]

    assert source["url"] == "http://prometheus:9090"
    assert "prometheus" in SERVICES
    assert SERVICES["prometheus"]["ports"][0].endswith(":9090")
    assert source["type"] == "prometheus"
    assert source["isDefault"] is True


def test_provisioning_has_only_keys_known_to_grafana() -> None:
    """Grafana ignores a misspelt key silently."""
    for path in sorted((GRAFANA / "provisioning").rglob("*.yml")):
        document = loaded(path)
        assert document.pop("apiVersion") == 1
        [(kind, entries)] = document.items()
        for entry in entries:
            assert entry.keys() <= KEYS[kind]


def test_each_secret_is_generated_and_mounted(tmp_path: Path) -> None:
    """docker-compose.yml mounts what secrets.sh writes, from a folder open to its owner only."""
    script = ROOT / "deploy" / "docker" / "secrets.sh"
    directory = tmp_path / "secrets"
    environment = {"PATH": "/usr/bin:/bin", "SECRETS_DIR": str(directory)}
    subprocess.run([script], env=environment, check=True, capture_output=True)

    used = {
        secret if isinstance(secret, str) else secret["source"]
        for service in SERVICES.values()
        for secret in service.get("secrets", ())
    }
    assert used == COMPOSE["secrets"].keys()
    assert used <= {path.name for path in directory.iterdir()}
    assert directory.stat().st_mode & 0o777 == 0o700
