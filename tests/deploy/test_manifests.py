"""What manifests.py checks, it would find: a sound set of objects is broken in one place at a time."""

import copy
import functools

import manifests
import pytest
from deployed import DEPLOY, run
from manifests import KUBERNETES, load, namespace, of
from test_kubernetes import KUSTOMIZE


@functools.cache
def sound():
    made = [load(run(KUSTOMIZE, "build", DEPLOY / f"kubernetes/overlays/{which}")) for which in ("gateway", "sidecar", "injector")]
    # Two overlays for one namespace, each with a vllm of its own.
    monitor, policy = (load((DEPLOY / f"kubernetes/components/{which}.yaml").read_text()) for which in ("monitoring/servicemonitor", "networkpolicy/networkpolicy"))
    for each in monitor + policy:
        each["metadata"]["namespace"] = "vllm"
    return sum(made, []) + monitor + policy


def find(things, kind, what):
    (thing,) = [each for each in of(things, kind) if each["metadata"]["name"] == what]
    return thing


def spec(things, what="tokenglass"):
    return find(things, "Deployment", what)["spec"]["template"]["spec"]


def container(things, what="tokenglass"):
    return spec(things, what)["containers"][0]


def test_sound():
    things = sound()
    assert manifests.dangling(things) == []
    assert manifests.hurried(things) == []
    assert all(manifests.unrestricted(pod) == [] for _, _, pod in manifests.pods(things))


def drop(mapping, key):
    del mapping[key]


def put(mapping, **more):
    mapping.update(more)


# === Pod Security


BREACHES = {
    "hostNetwork": lambda pod: put(pod, hostNetwork=True),
    "hostPID": lambda pod: put(pod, hostPID=True),
    "hostIPC": lambda pod: put(pod, hostIPC=True),
    "hostPath": lambda pod: pod["volumes"].append({"name": "h", "hostPath": {"path": "/"}}),
    "nfs": lambda pod: pod["volumes"].append({"name": "h", "nfs": {"server": "a", "path": "/"}}),
    "sysctl": lambda pod: put(pod["securityContext"], sysctls=[{"name": "kernel.msgmax", "value": "1"}]),
    "no seccomp": lambda pod: drop(pod["securityContext"], "seccompProfile"),
    "unconfined": lambda pod: put(pod["securityContext"], seccompProfile={"type": "Unconfined"}),
    "unconfined container": lambda pod: put(own(pod), seccompProfile={"type": "Unconfined"}),
    "root is allowed": lambda pod: drop(pod["securityContext"], "runAsNonRoot"),
    "root is allowed in a container": lambda pod: put(own(pod), runAsNonRoot=False),
    "user 0": lambda pod: put(pod["securityContext"], runAsUser=0),
    "user 0 in a container": lambda pod: put(own(pod), runAsUser=0),
    "privileged": lambda pod: put(own(pod), privileged=True),
    "escalation": lambda pod: drop(own(pod), "allowPrivilegeEscalation"),
    "capabilities kept": lambda pod: put(own(pod), capabilities={"drop": ["NET_RAW"]}),
    "capabilities added": lambda pod: put(own(pod)["capabilities"], add=["NET_ADMIN"]),
    "procMount": lambda pod: put(own(pod), procMount="Unmasked"),
    "hostPort": lambda pod: put(pod["containers"][0]["ports"][0], hostPort=80),
    "selinux": lambda pod: put(pod["securityContext"], seLinuxOptions={"type": "spc_t"}),
    "selinux user": lambda pod: put(own(pod), seLinuxOptions={"user": "root"}),
    "apparmor": lambda pod: put(own(pod), appArmorProfile={"type": "Unconfined"}),
    "windows": lambda pod: put(own(pod), windowsOptions={"hostProcess": True}),
    "probe elsewhere": lambda pod: put(pod["containers"][0]["livenessProbe"]["httpGet"], host="10.0.0.1"),
    "init container": lambda pod: put(pod, initContainers=[{"name": "i", "image": "i"}]),
}


def own(pod):
    return pod["containers"][0]["securityContext"]


@pytest.mark.parametrize("breach", BREACHES)
def test_pod_security(breach):
    pod = copy.deepcopy(spec(sound()))
    BREACHES[breach](pod)
    assert manifests.unrestricted(pod)


def test_net_bind_service_may_be_added():
    pod = copy.deepcopy(spec(sound()))
    own(pod)["capabilities"]["add"] = ["NET_BIND_SERVICE"]
    assert manifests.unrestricted(pod) == []


# === What is named


def selector(things, what):
    return find(things, "Deployment", what)["spec"]["selector"]["matchLabels"]


LOOSE = {
    "twice": lambda all: all.append(copy.deepcopy(find(all, "Service", "tokenglass"))),
    "own pods": lambda all: put(selector(all, "tokenglass"), tier="x"),
    "account": lambda all: all.remove(find(all, "ServiceAccount", "tokenglass")),
    "configuration": lambda all: put(spec(all)["volumes"][0]["configMap"], name="other"),
    "secret": lambda all: put(find(all, "Certificate", "tokenglass-injector")["spec"], secretName="other"),
    "volume": lambda all: put(container(all)["volumeMounts"][0], name="other"),
    "path": lambda all: put(container(all), args=["run", "--config", "/etc/other/tokenglass.toml"]),
    "path of a flag": lambda all: put(container(all, "tokenglass-injector"), args=["webhook", "--tls-cert=/other/tls.crt"]),
    "probe": lambda all: put(container(all)["readinessProbe"]["httpGet"], port="http2"),
    "probe by number": lambda all: put(container(all, "vllm")["readinessProbe"]["httpGet"], port=8002),
    "hook": lambda all: put(container(all, "vllm")["lifecycle"]["preStop"]["httpGet"], port=9102),
    "links": lambda all: drop(spec(all), "enableServiceLinks"),
    "token": lambda all: put(spec(all), automountServiceAccountToken=False),
    "token of no use": lambda all: put(spec(all, "vllm"), automountServiceAccountToken=True),
    "spread": lambda all: put(spec(all)["topologySpreadConstraints"][0]["labelSelector"], matchLabels={"a": "b"}),
    "service": lambda all: put(find(all, "Service", "tokenglass")["spec"], selector={"a": "b"}),
    "service of two": lambda all: put(find(all, "Service", "tokenglass")["spec"], selector={}),
    "target port": lambda all: put(find(all, "Service", "tokenglass")["spec"]["ports"][0], targetPort="web"),
    "target port by number": lambda all: put(find(all, "Service", "vllm")["spec"]["ports"][0], targetPort=8001),
    "budget": lambda all: put(find(all, "PodDisruptionBudget", "vllm")["spec"], selector={"matchLabels": {"a": "b"}}),
    "budget of one": lambda all: put(find(all, "Deployment", "tokenglass-injector")["spec"], replicas=1),
    "policy": lambda all: put(find(all, "NetworkPolicy", "vllm")["spec"], podSelector={"matchLabels": {"a": "b"}}),
    "policy's port": lambda all: put(find(all, "NetworkPolicy", "tokenglass")["spec"]["ingress"][0]["ports"][0], port="web"),
    "open admin port": lambda all: drop(find(all, "NetworkPolicy", "tokenglass")["spec"]["ingress"][1], "from"),
    "scaler": lambda all: put(find(all, "HorizontalPodAutoscaler", "tokenglass")["spec"]["scaleTargetRef"], name="other"),
    "scaler and replicas": lambda all: put(find(all, "Deployment", "tokenglass")["spec"], replicas=2),
    "monitor": lambda all: put(find(all, "ServiceMonitor", "tokenglass")["spec"]["selector"], matchLabels={"a": "b"}),
    "monitor's port": lambda all: put(find(all, "ServiceMonitor", "tokenglass")["spec"]["endpoints"][0], port="http"),
    "monitor's job": lambda all: put(find(all, "PodMonitor", "tokenglass")["spec"]["podMetricsEndpoints"][0], relabelings=[]),
    "monitor's labels": lambda all: put(find(all, "ServiceMonitor", "tokenglass")["spec"]["endpoints"][0], honorLabels=True),
    "role": lambda all: all.remove(find(all, "Role", "tokenglass-discovery")),
    "subject": lambda all: put(find(all, "RoleBinding", "tokenglass-discovery")["subjects"][0], name="other"),
    "webhook's service": lambda all: put(hook(all)["clientConfig"]["service"], name="other"),
    "webhook's port": lambda all: put(hook(all)["clientConfig"]["service"], port=8443),
    "webhook's CA": lambda all: put(hook(all)["clientConfig"], caBundle="YQ=="),
    "no CA": lambda all: drop(find(all, "MutatingWebhookConfiguration", "tokenglass-injector")["metadata"], "annotations"),
    "itself": lambda all: drop_all(hook(all)["namespaceSelector"]["matchExpressions"]),
    "patience": lambda all: put(hook(all), timeoutSeconds=30),
    "certificate": lambda all: put(find(all, "Certificate", "tokenglass-injector")["spec"], dnsNames=["other.svc"]),
    "issuer": lambda all: all.remove(find(all, "Issuer", "tokenglass-injector")),
}


def hook(things):
    return find(things, "MutatingWebhookConfiguration", "tokenglass-injector")["webhooks"][0]


def drop_all(items):
    items.clear()


@pytest.mark.parametrize("loose", LOOSE)
def test_dangling(loose):
    things = copy.deepcopy(sound())
    LOOSE[loose](things)
    assert manifests.dangling(things)


UNTIDY = {
    "latest": lambda one: put(one, image="ghcr.io/tokenglass/tokenglass:latest"),
    "no version": lambda one: put(one, image="nginx"),
    "another version": lambda one: put(one, image="ghcr.io/tokenglass/tokenglass:9.9.9"),
    "no limit": lambda one: drop(one["resources"]["limits"], "memory"),
    "no request": lambda one: drop(one["resources"]["requests"], "cpu"),
    "throttled": lambda one: put(one["resources"]["limits"], cpu="1"),
    "writable": lambda one: drop(one["securityContext"], "readOnlyRootFilesystem"),
}


@pytest.mark.parametrize("untidy", UNTIDY)
def test_untidy(untidy):
    things = copy.deepcopy(sound())
    thing = find(things, "Deployment", "tokenglass")
    assert manifests.untidy(thing, spec(things)) == []
    UNTIDY[untidy](container(things))
    assert manifests.untidy(thing, spec(things))


def test_hurried():
    things = copy.deepcopy(sound())
    spec(things)["terminationGracePeriodSeconds"] = 310
    assert len(manifests.hurried(things)) == 1
    del spec(things, "vllm")["terminationGracePeriodSeconds"]
    assert len(manifests.hurried(things)) == 2
    for variable in spec(things, "vllm")["initContainers"][0]["env"]:
        if variable["name"].endswith("READY_DELAY"):
            variable["value"] = "1s"
    assert len(manifests.hurried(things)) == 3


INVALID = {
    "Deployment": ("spec", "strategy", "rollingUpdate", "maxSurges"),
    "Service": ("spec", "targetPort"),
    "NetworkPolicy": ("spec", "ports"),
    "MutatingWebhookConfiguration": ("failurePolicy",),
    "ServiceMonitor": ("spec", "endpoint"),
    "PodMonitor": ("spec", "podMetricsEndpoint"),
    "Certificate": ("spec", "privateKey", "sizes"),
    "Issuer": ("spec", "selfSigned", "crl"),
}


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("kind", INVALID)
def test_invalid(kind, version):
    things = copy.deepcopy(sound())
    thing = of(things, kind)[0]
    assert manifests.invalid([thing], version) == []
    *way, last = INVALID[kind]
    place = thing
    for step in way:
        place = place[step]
    place[last] = 1
    assert manifests.invalid([thing], version)


def test_unknown_kinds_are_not_passed_over():
    thing = {"apiVersion": "example.com/v1", "kind": "Gadget", "metadata": {"name": "g"}}
    assert manifests.invalid([thing], KUBERNETES[0])
    assert namespace(thing) == "default"
