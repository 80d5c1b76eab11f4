"""Makes the schemas here of the CRDs of their projects: without prose, and strict: what they do not know is refused.

usage: trim.py FOLDER, with the files that SOURCES names in it, as the projects have them at these versions.
Of what is optional and long, only that is kept which deploy/ may have reason to use; the rest is refused too.
"""

import json
import pathlib
import sys

import yaml

HERE = pathlib.Path(__file__).resolve().parent
OPERATOR = "https://github.com/prometheus-operator/prometheus-operator/blob/v0.93.0/example/prometheus-operator-crd-full"
KEDA = "https://github.com/kedacore/keda/blob/v2.20.2/config/crd/bases"
CERTS = "https://github.com/cert-manager/cert-manager/blob/v1.21.1/deploy/crds"
SOURCES = {
    "ServiceMonitor": f"{OPERATOR}/monitoring.coreos.com_servicemonitors.yaml",
    "PodMonitor": f"{OPERATOR}/monitoring.coreos.com_podmonitors.yaml",
    "PrometheusRule": f"{OPERATOR}/monitoring.coreos.com_prometheusrules.yaml",
    "ScaledObject": f"{KEDA}/keda.sh_scaledobjects.yaml",
    "Certificate": f"{CERTS}/cert-manager.io_certificates.yaml",
    "Issuer": f"{CERTS}/cert-manager.io_issuers.yaml",
}
# Big, and of no use to us.
LEFT_OUT = {"acme", "vault", "venafi", "keystores", "oauth2", "sigv4", "azureAd", "basicAuth", "additionalOutputFormats", "status"}
KEPT = {
    "type", "required", "enum", "minimum", "maximum", "minLength", "maxLength", "minItems", "pattern", "anyOf",
    "x-kubernetes-int-or-string",
}


def trimmed(schema):
    made = {key: value for key, value in schema.items() if key in KEPT}
    if made.pop("x-kubernetes-int-or-string", False):
        made["type"] = ["integer", "string"]
        made.pop("anyOf", None)
    if "anyOf" in made:
        made["anyOf"] = [trimmed(part) for part in made["anyOf"]]
    if "items" in schema:
        made["items"] = trimmed(schema["items"])
    if "properties" in schema:
        made["properties"] = {name: trimmed(part) for name, part in schema["properties"].items() if name not in LEFT_OUT}
        made["additionalProperties"] = False
    elif isinstance(schema.get("additionalProperties"), dict):
        made["additionalProperties"] = trimmed(schema["additionalProperties"])
    elif schema.get("type") == "object" and not schema.get("x-kubernetes-preserve-unknown-fields"):
        made["additionalProperties"] = schema.get("additionalProperties", False)
    return made


def main(folder):
    for kind, source in SOURCES.items():
        crd = yaml.safe_load((folder / source.rsplit("/", 1)[1]).read_text(encoding="utf-8"))
        group = crd["spec"]["group"]
        (version,) = [version for version in crd["spec"]["versions"] if version["storage"]]
        schema = trimmed(version["schema"]["openAPIV3Schema"])
        # The API server's to check, and of every kind.
        schema["properties"]["metadata"] = {"type": "object", "required": ["name"]}
        schema["properties"]["apiVersion"] = {"const": f"{group}/{version['name']}"}
        schema["properties"]["kind"] = {"const": kind}
        schema["required"] = ["apiVersion", "kind", "metadata", "spec"]
        made = {"$comment": f"{source} (Apache-2.0), trimmed by trim.py", **schema}
        (HERE / f"{kind}.json").write_text(json.dumps(made, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
