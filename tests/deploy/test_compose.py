"""deploy/compose and deploy/docker: what can be known without a container engine.

The schema is compose's own, as check-jsonschema ships it. Commands are tried with the real binaries where they are built:
TGTEST_BIN_DIR, else target/release, else target/debug. Prometheus' configuration is read by the promtools that
tests/prometheus/install.sh has installed."""

import importlib.resources
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "deploy/compose"
DOCKERFILE = ROOT / "deploy/docker/Dockerfile"
CACHE = Path(os.environ.get("TGTEST_CACHE") or Path.home() / ".cache/tokenglass")
VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


def load(name, variables=None):
    """A file as compose would read it: variables put in first, for each scalar."""
    put = lambda match: (variables or {}).get(match[1], match[2] or "")

    def walk(node):
        if isinstance(node, dict):
            return {key: walk(value) for key, value in node.items()}
        if isinstance(node, list):
            return [walk(value) for value in node]
        return VARIABLE.sub(put, node) if isinstance(node, str) else node

    return walk(yaml.safe_load((COMPOSE / name).read_text()))


@pytest.fixture(scope="module")
def services():
    return load("compose.yaml")["services"]


def env_example():
    lines = (COMPOSE / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@pytest.mark.parametrize("name", ["compose.yaml", "compose.gpu.yaml"])
def test_schema(name):
    vendored = importlib.resources.files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json"
    schema = json.loads(vendored.read_text())
    jsonschema.validators.validator_for(schema)(schema).validate(load(name))
    broken = load(name)
    broken["services"]["tokenglass"]["no_such_key"] = 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, schema)


def test_variables_are_those_of_the_example_with_the_same_defaults():
    text = (COMPOSE / "compose.yaml").read_text()
    example = env_example()
    assert example.pop("COMPOSE_PROFILES") == "sim"
    found = {}
    for name, default in VARIABLE.findall(text):
        assert found.setdefault(name, default) == default, name
    assert found == example


def test_images_are_pinned_or_built_here(services):
    stages = re.findall(r"^FROM .*\S+ AS (\w+)$", DOCKERFILE.read_text(), re.M)
    for name, service in services.items():
        image = service["image"]
        if image.endswith(":local"):
            built = [s["build"] for s in services.values() if s["image"] == image and "build" in s]
            assert built, name
            for build in built:
                assert (COMPOSE / build["context"]).resolve() == ROOT
                assert ROOT / build["dockerfile"] == DOCKERFILE
                assert build["target"] in stages
        else:
            assert re.search(r":v?\d+\.\d+\.\d+$", image), f"{name}: {image}"


def test_what_is_mounted_is_there(services):
    volumes = load("compose.yaml")["volumes"]
    for name, service in services.items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (COMPOSE / source).exists(), f"{name}: {source}"
                assert volume.endswith(":ro"), volume
            else:
                assert source in volumes


def test_ports_differ_and_are_on_loopback(services):
    published = [port.rsplit(":", 2) for service in services.values() for port in service.get("ports", [])]
    assert {address for address, _, _ in published} == {"127.0.0.1"}
    assert len({host for _, host, _ in published}) == len(published)
    for _, host, container in published:
        assert host == container  # The README names them.


def test_dependencies_exist_and_can_become_healthy(services):
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            assert other in services, name
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services[other], f"{name} would wait for {other} for ever"
            # What always runs must not wait for what a profile may leave out.
            assert service.get("profiles") or not services[other].get("profiles"), f"{name} → {other}"


def test_healthchecks_need_no_shell(services):
    clients = {"prometheus": "promtool", "alertmanager": "amtool", "grafana": "curl"}
    for name, service in services.items():
        if name in clients:
            kind, program, *_ = service["healthcheck"]["test"]
            assert (kind, program) == ("CMD", clients[name])
        else:
            # Distroless, and no command of ours asks for health.
            assert "healthcheck" not in service


def test_the_simulator_is_the_profile_and_the_default_upstream(services):
    assert {name for name, s in services.items() if s.get("profiles") == ["sim"]} == {"sim", "traffic"}
    upstream = services["tokenglass"]["command"][-1]
    listen = flag(services["sim"]["command"], "--listen")
    assert upstream == f"http://sim:{listen.rsplit(':', 1)[1]}"
    assert flag(services["traffic"]["command"], "--url") == "http://tokenglass:8080"
    mine = load("compose.yaml", {"VLLM_URL": "http://vllm:8000"})["services"]["tokenglass"]
    assert mine["command"][-1] == "http://vllm:8000"


def test_a_drain_is_shorter_than_the_stop(services):
    drain = services["tokenglass"]["environment"]["TOKENGLASS_SHUTDOWN__DRAIN_TIMEOUT"]
    stop = services["tokenglass"]["stop_grace_period"]
    assert int(drain.removesuffix("s")) < int(stop.removesuffix("s"))


def flag(command, name):
    (value,) = [word.split("=", 1)[1] for word in command if word.startswith(name + "=")]
    return value


# === Commands, with the real programs


def binary(name):
    folders = [os.environ.get("TGTEST_BIN_DIR"), ROOT / "target/release", ROOT / "target/debug"]
    for folder in filter(None, folders):
        if (Path(folder) / name).exists():
            return Path(folder) / name
    pytest.skip(f"{name} is not built")


def test_tokenglass_takes_its_command_and_environment(services):
    service = services["tokenglass"]
    verb, *arguments = service["command"]
    assert verb == "run"
    environment = {**os.environ, **service["environment"]}
    shown = subprocess.run(
        [binary("tokenglass"), "config", *arguments], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert "http://sim:8000" in shown
    assert "30s" in shown


def test_the_simulator_and_its_traffic_take_their_commands(services):
    loadtest = binary("loadtest")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = "127.0.0.1:%d" % probe.getsockname()[1]
    simulator = subprocess.Popen(
        [loadtest, *swap(services["sim"]["command"], "--listen", address)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert "simulating vLLM" in simulator.stdout.readline()
        wait_for(address)
        command = swap(services["traffic"]["command"], "--url", f"http://{address}")
        ran = subprocess.run(
            [loadtest, *command, "--duration=1", "--json"], capture_output=True, text=True, timeout=60, check=True
        )
        json.loads(ran.stdout)
    finally:
        simulator.terminate()
        simulator.wait(10)


def swap(command, name, value):
    return [f"{name}={value}" if word.startswith(name + "=") else word for word in command]


def wait_for(address):
    host, port = address.split(":")
    for _ in range(100):
        with socket.socket() as attempt:
            if attempt.connect_ex((host, int(port))) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(f"nothing listens on {address}")


# === Prometheus, Alertmanager, Grafana


@pytest.fixture
def prometheus_folder(tmp_path, services):
    """The container's /etc/prometheus."""
    for volume in services["prometheus"]["volumes"]:
        source, target, *_ = volume.split(":")
        if not source.startswith("."):
            continue
        place = tmp_path / Path(target).relative_to("/etc/prometheus")
        source = COMPOSE / source
        if source.is_dir():
            shutil.copytree(source, place)
        else:
            shutil.copy(source, place)
    return tmp_path


@pytest.mark.parametrize("version", ["new", "old"])
def test_promtool(prometheus_folder, version):
    promtool = CACHE / "prometheus" / version / "bin/promtool"
    if not promtool.exists():
        pytest.skip("tests/prometheus/install.sh has not run")
    checked = subprocess.run(
        [promtool, "check", "config", prometheus_folder / "prometheus.yml"], capture_output=True, text=True
    )
    output = checked.stdout + checked.stderr
    assert checked.returncode == 0, output
    files = len(list((prometheus_folder / "rules").glob("*.yaml")))
    assert files and f"{files} rule files found" in output.replace("1 rule file found", "1 rule files found"), output


def test_prometheus_asks_services_that_exist(services):
    config = yaml.safe_load((COMPOSE / "prometheus.yml").read_text())
    targets = {
        target for job in config["scrape_configs"] for s in job["static_configs"] for target in s["targets"]
    } | {t for a in config["alerting"]["alertmanagers"] for s in a["static_configs"] for t in s["targets"]}
    ports = {"tokenglass": "9101", "alertmanager": "9093", "localhost": "9090"}
    assert targets == {f"{host}:{port}" for host, port in ports.items()}
    jobs = [job["job_name"] for job in config["scrape_configs"]]
    assert len(set(jobs)) == len(jobs)


def test_alertmanagers_configuration_is_where_it_is_looked_for(services):
    path = flag(services["alertmanager"]["command"], "--config.file")
    assert (ROOT / "deploy/alertmanager" / Path(path).relative_to("/etc/alertmanager")).is_file()


def test_grafana_finds_its_dashboards_and_prometheus(services):
    provisioning = ROOT / "deploy/grafana/provisioning"
    targets = {volume.split(":")[1] for volume in services["grafana"]["volumes"]}
    providers = [yaml.safe_load(f.read_text()) for f in provisioning.glob("dashboards/*.y*ml")]
    paths = [provider["options"]["path"] for file in providers for provider in file["providers"]]
    assert paths
    for path in paths:
        assert any(Path(path).is_relative_to(target) for target in targets), path
    sources = [yaml.safe_load(f.read_text()) for f in provisioning.glob("datasources/*.y*ml")]
    # It may be a variable of Grafana's own with that default; the host is what matters.
    urls = [source["url"] for file in sources for source in file["datasources"] if source["type"] == "prometheus"]
    assert urls and all("prometheus:9090" in url for url in urls), urls


# === The images


def test_the_build_context_has_what_is_copied():
    ignored = (DOCKERFILE.parent / "Dockerfile.dockerignore").read_text().split()
    kept = {line[1:] for line in ignored if line.startswith("!")}
    assert all((ROOT / name).exists() for name in kept)
    manifest = (ROOT / "Cargo.toml").read_text()
    members = re.search(r"members = \[(.*?)\]", manifest)[1]
    for path in re.findall(r'"([^"]+)"', members) + re.findall(r'^path = "([^"]+)"$', manifest, re.M):
        assert path.split("/")[0] in kept, path
    for source in re.findall(r"^COPY (?!--from)(\S+)", DOCKERFILE.read_text(), re.M):
        assert source == "." or source in kept


def test_images_are_small_and_not_root():
    text = DOCKERFILE.read_text()
    stages = re.findall(r"^FROM (?:--platform=\$BUILDPLATFORM )?(\S+) AS (\w+)$", text, re.M)
    bases = {name: image for image, name in stages}
    # The last is what is built without --target.
    assert list(bases)[-1] == "tokenglass"
    shipped = ("tokenglass", "loadtest")
    assert all(bases[name] == "gcr.io/distroless/cc-debian12:nonroot" for name in shipped)
    for name in shipped:
        stage = text.split(f" AS {name}\n")[1].split("\nFROM ")[0]
        assert "\nUSER 65532:65532\n" in stage
        for label in ("title", "description", "source", "licenses"):
            assert f"org.opencontainers.image.{label}=" in stage, (name, label)
    assert "NVIDIA_VISIBLE_DEVICES=" not in text
    # The compiler that the project says it needs.
    needed = re.search(r'rust-version = "([\d.]+)"', (ROOT / "Cargo.toml").read_text())[1]
    assert bases["toolchain"] == f"rust:{needed}-bookworm"
    version = re.search(r'(?m)^version = "([\d.]+)"', (ROOT / "Cargo.toml").read_text())[1]
    assert f"ARG VERSION={version}\n" in text


def test_hadolint_takes_the_dockerfile(tmp_path):
    hadolint = Path(sys.executable).parent / "hadolint"
    checked = subprocess.run([hadolint, "--no-color", DOCKERFILE], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout
    broken = tmp_path / "Dockerfile"
    broken.write_text("FROM debian\nRUN cd / && ls\n")
    assert subprocess.run([hadolint, broken], capture_output=True).returncode == 1


@pytest.mark.parametrize(
    "architecture, target, crossed", [("amd64", "x86_64", False), ("arm64", "aarch64", True), ("riscv64", None, None)]
)
def test_the_toolchain_stage_by_architecture(tmp_path, architecture, target, crossed):
    """Its script, on a machine that says x86_64, with what it would install replaced by a note."""
    script = re.search(r"(?ms)^RUN <<'EOF'\n(.*?)^EOF$", DOCKERFILE.read_text())[1]
    for program, words in (("rustup", "echo rustup"), ("apt-get", "echo apt-get"), ("uname", "echo x86_64;:"), ("rm", ":")):
        (tmp_path / program).write_text(f'#!/bin/sh\n{words} "$@"\n')
        (tmp_path / program).chmod(0o755)
    made = tmp_path / "target.env"
    script = script.replace("/target.env", str(made))
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "TARGETARCH": architecture}
    ran = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True)
    if target is None:
        assert ran.returncode == 1 and "riscv64" in ran.stderr and not made.exists()
        return
    assert ran.returncode == 0, ran.stderr
    assert f"rustup target add {target}-unknown-linux-gnu" in ran.stdout
    assert ("apt-get install" in ran.stdout) == crossed
    words = dict(word.split("=") for line in made.read_text().splitlines() for word in line.removeprefix("export ").split())
    assert words["CARGO_BUILD_TARGET"] == f"{target}-unknown-linux-gnu"
    assert words["STRIP"] == f"{target}-linux-gnu-strip"
    linker = f"CARGO_TARGET_{target.upper()}_UNKNOWN_LINUX_GNU_LINKER"
    assert words.get(linker) == (f"{target}-linux-gnu-gcc" if crossed else None)
