"""Kubernetes' objects, and what has to hold of any set of them: schemas, Pod Security "restricted", and that what they name is
there. Each check gives a list of what is wrong, so that test_manifests.py can show that it would find something."""

import functools
import json
import re
import tomllib

import jsonschema
import kubernetes_validate
import yaml
from deployed import ROOT, THRESHOLDS

# The oldest that the manifests speak of, and two later ones.
KUBERNETES = ["1.30", "1.33", "1.37"]
VERSION = tomllib.loads((ROOT / "Cargo.toml").read_text(encoding="utf-8"))["workspace"]["package"]["version"]
CRDS = {
    path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (ROOT / "tests/deploy/schemas").glob("*.json")
}
WORKLOADS = {"Deployment", "StatefulSet", "DaemonSet", "Job"}
CLUSTER = {"Namespace", "ClusterRole", "ClusterRoleBinding", "MutatingWebhookConfiguration"}


def load(text):
    return [each for each in yaml.safe_load_all(text) if each]


def name(thing):
    return f"{thing['kind']}/{thing['metadata'].get('name')}"


def namespace(thing):
    return None if thing["kind"] in CLUSTER else thing["metadata"].get("namespace", "default")


def of(things, *kinds):
    return [thing for thing in things if thing["kind"] in kinds]


# === Schemas


def invalid(things, version):
    """Kubernetes' own kinds as `version` has them, the operators' as theirs; unknown fields are refused."""
    found = []
    for thing in things:
        if thing["kind"] in CRDS:
            errors = validator(thing["kind"]).iter_errors(thing)
            found += [f"{name(thing)}: {error.json_path}: {error.message[:300]}" for error in errors]
            continue
        try:
            kubernetes_validate.validate(thing, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            found.append(f"{name(thing)}: {'.'.join(str(part) for part in error.path)}: {error.message[:300]}")
        except kubernetes_validate.SchemaNotFoundError:
            found.append(f"{name(thing)}: {thing['apiVersion']} is not known to {version}")
    return found


@functools.cache
def validator(kind):
    return jsonschema.Draft202012Validator(CRDS[kind])


# === Pods


def template(thing):
    """Labels and spec of the pods that it makes."""
    if thing["kind"] == "Pod":
        return thing["metadata"].get("labels", {}), thing["spec"]
    made = thing["spec"]["template"]
    return made["metadata"].get("labels", {}), made["spec"]


def pods(things):
    """(object, labels, spec)"""
    return [(thing, *template(thing)) for thing in things if thing["kind"] in WORKLOADS | {"Pod"}]


def containers(spec):
    return spec.get("initContainers", []) + spec["containers"]


def serving(spec):
    """Those that run as long as the pod: native sidecars too."""
    sidecars = [each for each in spec.get("initContainers", []) if each.get("restartPolicy") == "Always"]
    return sidecars + spec["containers"]


def ports(spec):
    """Numbers and names that the pod declares."""
    found = set()
    for container in serving(spec):
        for port in container.get("ports", []):
            found |= {port["containerPort"], port.get("name")}
    return found - {None}


def listening(spec):
    """Those and what a command line says: a port need not be declared."""
    words = [word for container in serving(spec) for word in container.get("args", [])]
    return ports(spec) | {int(word.removeprefix("--port=")) for word in words if word.startswith("--port=")}


ALLOWED_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
SYSCTLS = {
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start", "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports", "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes",
}  # fmt: skip
SELINUX = {"container_t", "container_init_t", "container_kvm_t", "container_engine_t", None, ""}


def unrestricted(spec):
    """What Pod Security "restricted" has against it, control by control of the standard, baseline included."""
    found = [field for field in ("hostNetwork", "hostPID", "hostIPC") if spec.get(field)]
    of_pod = spec.get("securityContext") or {}
    found += [f"volume {v['name']}" for v in spec.get("volumes", []) if not ALLOWED_VOLUMES >= set(v) - {"name"}]
    found += [f"sysctl {each['name']}" for each in of_pod.get("sysctls", []) if each["name"] not in SYSCTLS]
    found += unrestricted_context(of_pod, "pod")
    for container in containers(spec) + spec.get("ephemeralContainers", []):
        here = container["name"]
        own = container.get("securityContext") or {}
        found += unrestricted_context(own, here)
        capabilities = own.get("capabilities") or {}
        if own.get("privileged"):
            found.append(f"{here}: privileged")
        if own.get("allowPrivilegeEscalation") is not False:
            found.append(f"{here}: allowPrivilegeEscalation")
        if "ALL" not in capabilities.get("drop", []):
            found.append(f"{here}: capabilities not dropped")
        if set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
            found.append(f"{here}: capabilities added")
        if own.get("procMount", "Default") != "Default":
            found.append(f"{here}: procMount")
        if not own.get("runAsNonRoot", of_pod.get("runAsNonRoot")):
            found.append(f"{here}: runAsNonRoot")
        seccomp = own.get("seccompProfile", of_pod.get("seccompProfile")) or {}
        if seccomp.get("type") not in ("RuntimeDefault", "Localhost"):
            found.append(f"{here}: seccompProfile")
        found += [f"{here}: hostPort" for port in container.get("ports", []) if port.get("hostPort")]
        hooks = [container.get(probe) for probe in ("livenessProbe", "readinessProbe", "startupProbe")]
        hooks += (container.get("lifecycle") or {}).values()
        for hook in filter(None, hooks):
            if any((hook.get(how) or {}).get("host") for how in ("httpGet", "tcpSocket")):
                found.append(f"{here}: host of a probe or hook")
    return found


def unrestricted_context(context, here):
    """What a pod's and a container's have in common."""
    found = []
    if context.get("runAsUser") == 0:
        found.append(f"{here}: runAsUser 0")
    if context.get("runAsNonRoot") is False:
        found.append(f"{here}: runAsNonRoot false")
    options = context.get("seLinuxOptions") or {}
    if options.get("type") not in SELINUX or options.get("user") or options.get("role"):
        found.append(f"{here}: seLinuxOptions")
    if (context.get("appArmorProfile") or {}).get("type") == "Unconfined":
        found.append(f"{here}: appArmorProfile")
    if (context.get("seccompProfile") or {}).get("type") == "Unconfined":
        found.append(f"{here}: seccompProfile")
    if (context.get("windowsOptions") or {}).get("hostProcess"):
        found.append(f"{here}: hostProcess")
    return found


def untidy(thing, spec):
    """Beyond the standard: what every pod of ours has."""
    found = []
    for container in containers(spec):
        here = f"{name(thing)}: {container['name']}"
        image = container["image"]
        if not re.search(r"(:v?\d+\.\d+\.\d+|:local|@sha256:[0-9a-f]{64})$", image):
            found.append(f"{here}: {image} is not one version")
        if re.match(r"ghcr\.io/tokenglass/[^:@]+:", image) and not image.endswith(f":{VERSION}"):
            found.append(f"{here}: {image} is not {VERSION}")
        resources = container.get("resources", {})
        requests, limits = resources.get("requests", {}), resources.get("limits", {})
        if not {"cpu", "memory"} <= set(requests) or "memory" not in limits:
            found.append(f"{here}: a request or the memory limit is missing")
        if "cpu" in limits:
            found.append(f"{here}: a CPU limit adds time to first token")
        # vLLM compiles, downloads and caches.
        if container["name"] != "vllm" and not container.get("securityContext", {}).get("readOnlyRootFilesystem"):
            found.append(f"{here}: the root file system can be written")
    return found


# === What names what


def matches(selector, labels):
    """A label selector, or a plain map of labels."""
    if not set(selector) <= {"matchLabels", "matchExpressions"}:
        selector = {"matchLabels": selector}
    for key, value in (selector.get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return False
    for each in selector.get("matchExpressions") or []:
        value, values = labels.get(each["key"]), each.get("values", [])
        holds = {
            "In": value in values,
            "NotIn": value not in values,
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }[each["operator"]]
        if not holds:
            return False
    return True


def selected(things, selector, where):
    return [(thing, labels, spec) for thing, labels, spec in pods(things) if namespace(thing) == where and matches(selector, labels)]


def dangling(things, outside=()):
    """What is named and not there, and what selects nothing or too much. `outside`: "Kind/name" of what others bring."""
    found = []
    keys = [(thing["kind"], namespace(thing), thing["metadata"]["name"]) for thing in things]
    found += [f"twice: {key}" for key in sorted({str(key) for key in keys if keys.count(key) > 1})]
    there = {(kind, where, what) for kind, where, what in keys}

    def want(kind, where, what, by):
        if (kind, where, what) not in there and f"{kind}/{what}" not in outside:
            found.append(f"{by}: no {kind} {where}/{what}")

    for thing in things:
        for check in CHECKS:
            check(things, thing, want, found)
    return found


def of_workload(things, thing, want, found):
    if thing["kind"] not in WORKLOADS | {"Pod"}:
        return
    labels, spec = template(thing)
    where, by = namespace(thing), name(thing)
    if thing["kind"] != "Pod" and not matches(thing["spec"]["selector"], labels):
        found.append(f"{by}: does not select its own pods")
    if "serviceAccountName" in spec:
        want("ServiceAccount", where, spec["serviceAccountName"], by)
    if spec.get("automountServiceAccountToken") is not entitled(things, where, spec.get("serviceAccountName")):
        found.append(f"{by}: a token without a right that needs it, or the other way round")
    if spec.get("enableServiceLinks") is not False:
        found.append(f"{by}: enableServiceLinks")
    volumes = spec.get("volumes", [])
    for volume in volumes:
        if "configMap" in volume:
            want("ConfigMap", where, volume["configMap"]["name"], by)
        if "secret" in volume and not certified(things, where, volume["secret"]["secretName"]):
            want("Secret", where, volume["secret"]["secretName"], by)
    for container in containers(spec):
        mounts = container.get("volumeMounts", [])
        if not {mount["name"] for mount in mounts} <= {volume["name"] for volume in volumes}:
            found.append(f"{by}: {container['name']} mounts a volume that is not there")
        for which in ("livenessProbe", "readinessProbe", "startupProbe"):
            port = container.get(which, {}).get("httpGet", {}).get("port")
            # A name is looked for in the container itself, a number anywhere in the pod.
            own = {each.get("name") for each in container.get("ports", [])}
            if port is not None and port not in (own if isinstance(port, str) else listening(spec)):
                found.append(f"{by}: {which} of {container['name']} asks port {port}")
        hook = container.get("lifecycle", {}).get("preStop", {}).get("httpGet")
        if hook and hook["port"] not in listening(spec):
            found.append(f"{by}: preStop of {container['name']} asks port {hook['port']}")
        arguments = container.get("args", [])
        paths = [word.split("=", 1)[-1] for word in arguments if re.match(r"(--[\w-]+=)?/", word)]
        for path in paths:
            if not any(path.startswith(f"{mount['mountPath']}/") for mount in mounts):
                found.append(f"{by}: {path} is not mounted")
    for spread in spec.get("topologySpreadConstraints", []):
        if not matches(spread["labelSelector"], labels):
            found.append(f"{by}: spreads other pods than its own")
    anti = spec.get("affinity", {}).get("podAntiAffinity", {}).get("preferredDuringSchedulingIgnoredDuringExecution", [])
    for term in anti:
        if not matches(term["podAffinityTerm"]["labelSelector"], labels):
            found.append(f"{by}: keeps away from other pods than its own")


def entitled(things, where, account):
    """Whether a role binding gives the account something."""
    return any(
        subject == {"kind": "ServiceAccount", "name": account, "namespace": where}
        for binding in of(things, "RoleBinding")
        for subject in binding["subjects"]
    )


def certified(things, where, secret):
    return any(namespace(each) == where and each["spec"]["secretName"] == secret for each in of(things, "Certificate"))


def of_service(things, thing, want, found):
    if thing["kind"] != "Service":
        return
    by = name(thing)
    chosen = selected(things, thing["spec"]["selector"], namespace(thing))
    if len(chosen) != 1:
        found.append(f"{by}: selects {len(chosen)} workloads")
    for _, _, spec in chosen:
        for port in thing["spec"]["ports"]:
            if port.get("targetPort", port["port"]) not in ports(spec):
                found.append(f"{by}: no port {port.get('targetPort')} there")


def of_budget(things, thing, want, found):
    if thing["kind"] == "PodDisruptionBudget":
        chosen = selected(things, thing["spec"]["selector"], namespace(thing))
        if len(chosen) != 1:
            found.append(f"{name(thing)}: selects {len(chosen)} workloads")
        if any(each["spec"].get("replicas", 2) < 2 for each, _, _ in chosen):
            found.append(f"{name(thing)}: of a single pod")


def of_policy(things, thing, want, found):
    if thing["kind"] != "NetworkPolicy":
        return
    chosen = selected(things, thing["spec"]["podSelector"], namespace(thing))
    if len(chosen) != 1:
        found.append(f"{name(thing)}: selects {len(chosen)} workloads")
    for rule in thing["spec"]["ingress"]:
        for port in rule["ports"]:
            if any(port["port"] not in ports(spec) for _, _, spec in chosen):
                found.append(f"{name(thing)}: no port {port['port']} there")
            # Whoever may read /metrics is said; whoever may send requests is not.
            if port["port"] in ("admin", "tg-admin", 9101) and not rule.get("from"):
                found.append(f"{name(thing)}: the admin port is open")


def of_scaler(things, thing, want, found):
    if thing["kind"] not in ("HorizontalPodAutoscaler", "ScaledObject"):
        return
    target = thing["spec"]["scaleTargetRef"]
    want(target["kind"], namespace(thing), target["name"], name(thing))
    for each in of(things, target["kind"]):
        same = each["metadata"]["name"] == target["name"] and namespace(each) == namespace(thing)
        if same and "replicas" in each["spec"]:
            found.append(f"{name(thing)}: each apply would undo it, its target has replicas")


def of_monitor(things, thing, want, found):
    if thing["kind"] not in ("ServiceMonitor", "PodMonitor"):
        return
    by, spec = name(thing), thing["spec"]
    service = thing["kind"] == "ServiceMonitor"
    scrapes = spec["endpoints" if service else "podMetricsEndpoints"]
    if service:
        services = [
            each
            for each in of(things, "Service")
            if namespace(each) == namespace(thing) and matches(spec["selector"], each["metadata"].get("labels", {}))
        ]
        offered = [{port["name"] for port in each["spec"]["ports"]} for each in services]
        if len(services) != 1:
            found.append(f"{by}: selects {len(services)} Services")
    else:
        # Pods are mostly others'. Those that are here and have no such port are none of its.
        offered = []
    for scrape in scrapes:
        found += [f"{by}: no port {scrape['port']} there" for each in offered if scrape["port"] not in each]
        jobs = [each["replacement"] for each in scrape["relabelings"] if each["targetLabel"] == "job"]
        webhook = thing["metadata"]["labels"].get("app.kubernetes.io/component") == "injector"
        if jobs != [THRESHOLDS["scope"]["injector_job" if webhook else "job"]]:
            found.append(f"{by}: the rules look for another job than {jobs}")
        if scrape["path"] != "/metrics" or scrape.get("honorLabels"):
            found.append(f"{by}: {scrape}")


def of_binding(things, thing, want, found):
    if thing["kind"] == "RoleBinding":
        want(thing["roleRef"]["kind"], namespace(thing), thing["roleRef"]["name"], name(thing))
        for subject in thing["subjects"]:
            want(subject["kind"], subject["namespace"], subject["name"], name(thing))


def of_webhook(things, thing, want, found):
    if thing["kind"] != "MutatingWebhookConfiguration":
        return
    by = name(thing)
    issued = thing["metadata"].get("annotations", {}).get("cert-manager.io/inject-ca-from")
    for hook in thing["webhooks"]:
        service = hook["clientConfig"]["service"]
        want("Service", service["namespace"], service["name"], by)
        for each in of(things, "Service"):
            if (namespace(each), each["metadata"]["name"]) == (service["namespace"], service["name"]):
                if service["port"] not in [port["port"] for port in each["spec"]["ports"]]:
                    found.append(f"{by}: no port {service['port']} there")
        if bool(issued) == bool(hook["clientConfig"].get("caBundle")):
            found.append(f"{by}: the CA comes from nowhere, or from two places")
        excluded = [each for each in hook["namespaceSelector"]["matchExpressions"] if each["operator"] == "NotIn"]
        if not any({"kube-system", service["namespace"]} <= set(each["values"]) for each in excluded):
            found.append(f"{by}: it would be asked about itself")
        if hook["sideEffects"] != "None" or hook["reinvocationPolicy"] != "IfNeeded" or hook["timeoutSeconds"] > 5:
            found.append(f"{by}: {hook['name']}")
        if issued:
            where, what = issued.split("/")
            want("Certificate", where, what, by)
            for each in of(things, "Certificate"):
                if f"{service['name']}.{service['namespace']}.svc" not in each["spec"]["dnsNames"]:
                    found.append(f"{by}: the certificate is for another name")
                want(each["spec"]["issuerRef"]["kind"], namespace(each), each["spec"]["issuerRef"]["name"], name(each))


CHECKS = [of_workload, of_service, of_budget, of_policy, of_scaler, of_monitor, of_binding, of_webhook]


# === The configuration


def configurations(things):
    """Text of each tokenglass.toml."""
    return [each["data"]["tokenglass.toml"] for each in of(things, "ConfigMap") if "tokenglass.toml" in each["data"]]


def seconds(text):
    """Of "5m", "10s"."""
    number, unit = re.fullmatch(r"(\d+)(s|m|h)", text).groups()
    return int(number) * {"s": 1, "m": 60, "h": 3600}[unit]


def hurried(things):
    """Pods of ours that are killed before they have drained, or that leave before anybody knows."""
    found = []
    for thing, _, spec in pods(things):
        for container in serving(spec):
            if container["name"] != "tokenglass":
                continue
            shutdown = {"ready_delay": "0s", "drain_timeout": "5m"}
            for text in configurations([each for each in things if namespace(each) == namespace(thing)]):
                if container.get("volumeMounts"):
                    shutdown |= tomllib.loads(text).get("shutdown", {})
            for variable in container.get("env", []):
                key = variable["name"].removeprefix("TOKENGLASS_SHUTDOWN__").lower()
                if key in shutdown:
                    shutdown[key] = variable["value"]
            ready, drain = seconds(shutdown["ready_delay"]), seconds(shutdown["drain_timeout"])
            if not 5 <= ready <= 10:
                found.append(f"{name(thing)}: ready_delay {ready} s")
            if spec.get("terminationGracePeriodSeconds", 30) <= ready + drain:
                found.append(f"{name(thing)}: killed after {spec.get('terminationGracePeriodSeconds')} s, drains {ready + drain} s")
    return found
