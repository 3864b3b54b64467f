#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""deploy/kubernetes: every object fits Kubernetes' own definition, they fit each other, and promptd takes the settings."""
import copy
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

import jsonschema
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy/kubernetes"
SCHEMAS = json.loads(pathlib.Path(__file__).with_name("schemas.json").read_text())
LABELS = {"app.kubernetes.io/name": "promptd"}
KUSTOMIZATION_FIELDS = {"apiVersion", "kind", "resources", "patches", "configMapGenerator"}
OVERLAY = """
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: interviewly
resources: [base]
components: [components/service-monitor]
images: [{name: promptd, newName: registry.example/promptd, newTag: 0.2.0}]
configMapGenerator:
  - {name: promptd, behavior: merge, literals: [PROMPTD_DB_CONNECTIONS=8]}
"""


def load(path):
    return yaml.safe_load(path.read_text())


def manifests():
    """Every file of objects, by its kind."""
    found = {}
    for path in sorted(FOLDER.glob("**/*.yaml")):
        if path.name != "kustomization.yaml":
            found[load(path)["kind"]] = load(path)
    return found


def faults(thing):
    """What Kubernetes would say against an object."""
    name = f"{thing.get('apiVersion')}/{thing.get('kind')}"
    if name not in SCHEMAS["kinds"]:
        return [f"{name}: there is no definition of it"]
    schema = {"$ref": f"#/definitions/{SCHEMAS['kinds'][name]}", "definitions": SCHEMAS["definitions"]}
    validator = jsonschema.Draft7Validator(schema)
    return [f"{'/'.join(map(str, error.path))}: {error.message[:200]}" for error in validator.iter_errors(thing)]


def settings_of_base():
    lines = (FOLDER / "base/promptd.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def render():
    """What kubectl makes of base and component together, or None where it is too old or missing."""
    if not shutil.which("kubectl"):
        return None
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(FOLDER, f"{folder}/all")
        pathlib.Path(folder, "all/kustomization.yaml").write_text(OVERLAY)
        done = subprocess.run(["kubectl", "kustomize", f"{folder}/all"], capture_output=True, text=True)
        if "unknown field" in done.stderr:  # before kustomize 4
            return None
        assert done.returncode == 0, done.stderr
        return list(yaml.safe_load_all(done.stdout))


class TestManifests(unittest.TestCase):
    def setUp(self):
        self.found = manifests()
        self.pod = self.found["Deployment"]["spec"]["template"]["spec"]
        self.container = self.pod["containers"][0]

    def test_each_fits_its_definition(self):
        self.assertEqual(set(self.found), {"Deployment", "PodDisruptionBudget", "NetworkPolicy", "Service", "ServiceMonitor"})
        for kind, thing in self.found.items():
            self.assertEqual(faults(thing), [], kind)

    def test_faults_are_found(self):
        """A field misspelt, in the wrong place, of the wrong type, missing."""
        def spoil(change):
            thing = copy.deepcopy(self.found["Deployment"])
            change(thing["spec"]["template"]["spec"])
            return faults(thing)

        self.assertEqual(len(spoil(lambda pod: pod.update(terminationGracePeriod=30))), 1)
        self.assertEqual(len(spoil(lambda pod: pod["securityContext"].update(readOnlyRootFilesystem=True))), 1)
        self.assertEqual(len(spoil(lambda pod: pod["containers"][0]["resources"]["limits"].update(memory="256 MB"))), 1)
        self.assertEqual(len(spoil(lambda pod: pod["containers"][0].pop("name"))), 1)

    def test_kustomizations_name_files_that_are_there(self):
        paths = sorted(FOLDER.glob("**/kustomization.yaml"))
        self.assertEqual(len(paths), 2)
        for path in paths:
            text = load(path)
            self.assertLessEqual(set(text), KUSTOMIZATION_FIELDS)
            listed = text["resources"] + [name for each in text.get("configMapGenerator", []) for name in each["envs"]]
            there = {each.name for each in path.parent.iterdir()} - {"kustomization.yaml"}
            self.assertEqual(set(listed), there)

    def test_they_find_each_other(self):
        spec = self.found["Deployment"]["spec"]
        self.assertEqual(spec["template"]["metadata"]["labels"], LABELS)
        selectors = [spec["selector"], self.found["PodDisruptionBudget"]["spec"]["selector"],
                     self.found["NetworkPolicy"]["spec"]["podSelector"], self.found["ServiceMonitor"]["spec"]["selector"]]
        selectors += [each["labelSelector"] for each in self.pod["topologySpreadConstraints"]]
        for selector in selectors:
            self.assertEqual(selector, {"matchLabels": LABELS})
        service = self.found["Service"]
        self.assertEqual((service["spec"]["selector"], service["metadata"]["labels"]), (LABELS, LABELS))
        ports = {port["name"]: port["containerPort"] for port in self.container["ports"]}
        self.assertEqual(settings_of_base()["PROMPTD_ADMIN_LISTEN"].split(":")[-1], str(ports["admin"]))
        for port in (service["spec"]["ports"][0]["targetPort"], self.found["ServiceMonitor"]["spec"]["endpoints"][0]["port"],
                     *(self.container[probe]["httpGet"]["port"] for probe in ("livenessProbe", "readinessProbe"))):
            self.assertEqual(port, "admin")
        mount = self.container["volumeMounts"][0]["mountPath"]
        items = {f"{mount}/{item['path']}" for item in self.pod["volumes"][0]["secret"]["items"]}
        self.assertEqual({variable["value"] for variable in self.container["env"]}, items)

    def test_job_is_what_the_alert_rules_go_by(self):
        rules = (ROOT / "deploy/monitoring/promptd.rules.yml").read_text()
        self.assertIn(f'job="{self.found["Service"]["metadata"]["name"]}"', rules)

    def test_it_has_nothing_to_spare(self):
        dockerfile = (ROOT / "deploy/docker/Dockerfile").read_text()
        uid = int(re.search(r"--uid (\d+)", dockerfile)[1])
        context = self.pod["securityContext"]
        self.assertEqual((context["runAsUser"], context["runAsNonRoot"]), (uid, True))
        self.assertEqual(context["seccompProfile"], {"type": "RuntimeDefault"})
        self.assertEqual(self.container["securityContext"], {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                                                             "capabilities": {"drop": ["ALL"]}})
        self.assertIs(self.pod["automountServiceAccountToken"], False)
        self.assertIs(self.pod["enableServiceLinks"], False)

    def test_an_update_takes_nobody_away_too_soon(self):
        spec = self.found["Deployment"]["spec"]
        self.assertEqual(spec["strategy"]["rollingUpdate"], {"maxUnavailable": 0, "maxSurge": 1})
        self.assertGreaterEqual(spec["replicas"], 2)
        grace = self.pod["terminationGracePeriodSeconds"]
        self.assertGreaterEqual(grace, int(settings_of_base()["PROMPTD_SHUTDOWN_TIMEOUT_S"]) + 5)

    def test_promptd_takes_the_settings(self):
        """--check warns of a variable that it does not know, and refuses a value that it does not like."""
        with tempfile.TemporaryDirectory() as folder:
            environment = {"PATH": "/usr/bin:/bin", **settings_of_base()}
            for variable, url in (("DATABASE_URL", "postgresql://db.example/interviewly"), ("REDIS_URL", "redis://redis.example")):
                path = pathlib.Path(folder, variable)
                path.write_text(url)
                name = f"PROMPTD_{variable}_FILE"
                self.assertIn(name, [each["name"] for each in self.container["env"]])
                environment[name] = str(path)
            done = subprocess.run([os.environ["PROMPTD_BINARY"], "--check"], env=environment, capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)

    def test_rules_for_the_operator(self):
        """As the README makes them of the rules file."""
        text = (FOLDER / "README.md").read_text()
        head = re.search(r"printf '(apiVersion: monitoring[^']*)'", text)[1].replace("\\n", "\n")
        rules = (ROOT / "deploy/monitoring/promptd.rules.yml").read_text()
        made = yaml.safe_load(head + re.sub(r"^", "  ", rules, flags=re.MULTILINE))
        self.assertEqual((made["kind"], made["spec"]), ("PrometheusRule", yaml.safe_load(rules)))

    def test_as_kubectl_renders_it(self):
        rendered = render()
        if rendered is None:
            self.skipTest("needs kubectl, 1.21 or later")
        by_kind = {thing["kind"]: thing for thing in rendered}
        self.assertEqual(set(by_kind), set(self.found) | {"ConfigMap"})
        for kind in self.found:
            self.assertEqual(faults(by_kind[kind]), [], kind)
        container = by_kind["Deployment"]["spec"]["template"]["spec"]["containers"][0]
        self.assertEqual(container["image"], "registry.example/promptd:0.2.0")
        self.assertEqual(container["envFrom"][0]["configMapRef"]["name"], by_kind["ConfigMap"]["metadata"]["name"])
        self.assertEqual(by_kind["ConfigMap"]["data"], {**settings_of_base(), "PROMPTD_DB_CONNECTIONS": "8"})
        self.assertEqual(len(by_kind["NetworkPolicy"]["spec"]["ingress"]), 1)


if __name__ == "__main__":
    unittest.main()
