"""The mistakes that are known of KubeRay manifests."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from headway.cluster.check.finding import Fault, Rule, Way, at, listed, mapped, texts
from headway.cluster.check.rules import RAY, SLOWEST_S
from headway.errors import nearest

GRACE_S = 30.0
"""What Kubernetes gives a pod that is to stop, where nothing is said."""
KINDS = {
    "RayCluster": "ray.io/v1",
    "RayJob": "ray.io/v1",
    "RayService": "ray.io/v1",
    "PodDisruptionBudget": "policy/v1",
    "PriorityClass": "scheduling.k8s.io/v1",
    "NetworkPolicy": "networking.k8s.io/v1",
    "Role": "rbac.authorization.k8s.io/v1",
    "RoleBinding": "rbac.authorization.k8s.io/v1",
    "ConfigMap": "v1",
    "Secret": "v1",
    "Service": "v1",
    "ServiceAccount": "v1",
    "PersistentVolumeClaim": "v1",
    "Namespace": "v1",
    "ResourceFlavor": "kueue.x-k8s.io/v1beta1",
    "ClusterQueue": "kueue.x-k8s.io/v1beta1",
    "LocalQueue": "kueue.x-k8s.io/v1beta1",
}
SPOT = {
    "headway/capacity": "spot",
    "eks.amazonaws.com/capacityType": "SPOT",
    "karpenter.sh/capacity-type": "spot",
    "cloud.google.com/gke-spot": "true",
    "cloud.google.com/gke-preemptible": "true",
    "kubernetes.azure.com/scalesetpriority": "spot",
}
"""Labels of nodes that may be taken away, by cloud."""
QUEUE = "kueue.x-k8s.io/queue-name"
_WAIT = re.compile(r"--deadline[= ]['\"]?(\d+(?:\.\d+)?)(s|m|)")


class Manifest:
    """A RayCluster or RayJob.

    Args:
        tree: of it.
        beside: all documents of the file.
    """

    def __init__(self, tree: Mapping[str, Any], beside: Sequence[Mapping[str, Any]] = ()) -> None:
        self.tree, self.beside = tree, beside
        self.job = tree.get("kind") == "RayJob"
        self.way: Way = ("spec", "rayClusterSpec") if self.job else ("spec",)
        self.cluster = mapped(at(tree, *self.way))
        self.labels = mapped(at(tree, "metadata", "labels"))

    def pods(self) -> Iterator[tuple[Way, str, Mapping[str, Any]]]:
        """Each pod's way, its group's name ("" of the head) and its spec."""
        yield (*self.way, "headGroupSpec", "template", "spec"), "", self.head
        for number, group in enumerate(self.groups):
            way = (*self.way, "workerGroupSpecs", number, "template", "spec")
            yield way, str(group.get("groupName", number)), mapped(at(group, "template", "spec"))

    @property
    def head(self) -> dict[Any, Any]:
        """The head's pod."""
        return mapped(at(self.cluster, "headGroupSpec", "template", "spec"))

    @property
    def groups(self) -> list[dict[Any, Any]]:
        """The worker groups."""
        return [mapped(group) for group in listed(self.cluster.get("workerGroupSpecs"))]

    @property
    def grows(self) -> bool:
        """Whether it is autoscaled."""
        return self.cluster.get("enableInTreeAutoscaling") is True


def shape(tree: Mapping[str, Any]) -> Iterator[Fault]:
    """What any manifest must have."""
    kind = str(tree.get("kind", ""))
    if kind not in KINDS:
        yield Fault(("kind",), f"kind: {kind}", "it is not one that is known here", nearest(kind, list(KINDS)), "warn")
    elif tree.get("apiVersion") != KINDS[kind] and kind not in ("RayCluster", "RayJob"):
        said = f"apiVersion: {tree.get('apiVersion')} of a {kind}"
        yield Fault(("apiVersion",), said, "Kubernetes serves it under another", f"apiVersion: {KINDS[kind]}")
    if not at(tree, "metadata", "name") and not at(tree, "metadata", "generateName"):
        yield Fault(("kind",), f"a {kind} without a name", "", "metadata: {name: …}")


def head_on_spot(view: Manifest) -> Iterator[Fault]:
    """See the rule of that name for cluster files."""
    if _on_spot(view.head):
        way = (*view.way, "headGroupSpec", "template", "spec", "nodeSelector")
        reason = "the cloud may take its node away, and the cluster ends with it"
        yield Fault(way, "the head is on a spot node", reason, "Select nodes on demand.")


def no_fallback(view: Manifest) -> Iterator[Fault]:
    """A group that can only be on spot nodes waits for ever where there are none."""
    spots = [group for group in view.groups if _on_spot(mapped(at(group, "template", "spec")))]
    others = [group for group in view.groups if group not in spots]
    for number, group in enumerate(view.groups):
        lower = [other for other in others if other.get("priority", 0) < group.get("priority", 0)]
        if group in spots and not lower:
            name = group.get("groupName", number)
            remedy = "Add a group on demand with a lower priority, or prefer spot by affinity instead of requiring it."
            way = (*view.way, "workerGroupSpecs", number)
            said = f"{name} is on spot nodes only, and no group stands in for it"
            yield Fault(way, said, "where none is left there is none", remedy, "warn")


def images(view: Manifest) -> Iterator[Fault]:
    """One version of Ray everywhere, and the one that was tried."""
    said = str(view.cluster.get("rayVersion", ""))
    if not said.startswith(f"{RAY}."):
        way = (*view.way, "rayVersion") if said else view.way
        yield Fault(way, f"rayVersion={said or 'none'}", f"Headway runs on Ray {RAY}", f"rayVersion: {RAY}.0")
    for way, _, pod in view.pods():
        for number, container in enumerate(listed(pod.get("containers"))):
            image = str(at(container, "image", default=""))
            place = (*way, "containers", number, "image")
            if ":" not in image.rpartition("/")[2] or image.endswith((":latest", ":nightly")) or "nightly" in image:
                reason = "pods that come later have another"
                yield Fault(place, f"the image {image} has no version", reason, "Name a version, or a digest.")
            found = re.search(r"rayproject/ray(?:-ml)?:(\d+\.\d+)", image)
            if found and found[1] != RAY:
                yield Fault(place, f"the image has Ray {found[1]}", f"Headway runs on Ray {RAY}", f"Ray {RAY}.0")


def autoscaler(view: Manifest) -> Iterator[Fault]:
    """The first autoscaler knows no drain; the second wants pods that are never restarted in their place."""
    if not view.grows:
        return
    options = mapped(view.cluster.get("autoscalerOptions"))
    if options.get("version") != "v2":
        way = (*view.way, "autoscalerOptions") if options else (*view.way, "enableInTreeAutoscaling")
        reason = "the first one ends nodes without draining them"
        yield Fault(way, "the autoscaler is not v2", reason, "autoscalerOptions: {version: v2}")
    for way, name, pod in view.pods():
        if pod.get("restartPolicy", "Never") != "Never":  # where nothing is said, KubeRay says it
            reason = "the autoscaler takes a container that was restarted for the node that it knew"
            said = f"restartPolicy of {name or 'the head'} is not Never"
            yield Fault(way, said, reason, "restartPolicy: Never")


def pre_stop(view: Manifest) -> Iterator[Fault]:
    """Kubernetes tells a pod of its end by its preStop hook: the only notice that there is."""
    for way, name, pod in view.pods():
        if not name:
            continue
        grace = pod.get("terminationGracePeriodSeconds", GRACE_S)
        container = mapped(at(listed(pod.get("containers")), 0))
        hook = at(container, "lifecycle", "preStop")
        command = " ".join(text for _, text in texts(hook))
        if "headway.cluster.agent" not in command:
            remedy = "lifecycle.preStop.exec: python -m headway.cluster.agent drain --wait --deadline …"
            place = (*way, "containers", 0)
            yield Fault(place, f"{name} has no preStop hook that drains", "its lanes are lost without notice", remedy)
            continue
        place = (*way, "containers", 0, "lifecycle", "preStop")
        asked = _WAIT.search(command)
        wait_s = float(asked[1]) * (60.0 if asked[2] == "m" else 1.0) if asked else 25.0
        if isinstance(grace, int | float) and wait_s > float(grace) - 5.0:
            said = f"{name}: preStop waits {wait_s:g} s of {float(grace):g} s that the pod has"
            reason = "Ray still needs some seconds to end; then it is killed"
            yield Fault(place, said, reason, f"terminationGracePeriodSeconds: {wait_s + 10:.0f}")


def disruption_budget(view: Manifest) -> Iterator[Fault]:
    """A node pool that is renewed evicts all pods at once, unless a budget says otherwise."""
    budgets = [each for each in view.beside if each.get("kind") == "PodDisruptionBudget"]
    if not budgets and not view.job:
        reason = "a node pool that is renewed evicts all workers, and the head, at once"
        remedy = "Add one that selects ray.io/cluster, as in cluster/kuberay/cluster.yaml."
        yield Fault(("kind",), "no PodDisruptionBudget beside it", reason, remedy, "warn")
    for budget in budgets:
        chosen = at(budget, "spec", "selector", "matchLabels", "ray.io/cluster")
        name = at(view.tree, "metadata", "name")
        if not view.job and chosen is not None and chosen != name:
            said = f"the PodDisruptionBudget is for ray.io/cluster={chosen}"
            yield Fault(("metadata", "name"), said, f"this cluster is called {name}", "Give both the same name.")


def slow_health_checks(view: Manifest) -> Iterator[Fault]:
    """See the rule of that name for cluster files."""
    known = {each.get("name"): str(each.get("value")) for each in _variables(view.head)}
    millis = [_number(known.get(f"RAY_health_check_{name}"), low) for name, low in _HEALTH]
    longest_s = (millis[0] + millis[1]) * millis[2] / 1000.0
    if longest_s > SLOWEST_S:
        way = (*view.way, "headGroupSpec", "template", "spec", "containers", 0)
        remedy = "env: RAY_health_check_period_ms=1000, …_timeout_ms=2000, …_failure_threshold=3"
        said = f"a silent machine is given up after {longest_s:.0f} s"
        yield Fault(way, said, "all others wait so long", remedy, "warn")


_HEALTH = (("period_ms", 3000.0), ("timeout_ms", 10000.0), ("failure_threshold", 5.0))


def no_token(view: Manifest) -> Iterator[Fault]:
    """Every pod of a Kubernetes cluster reaches every other, unless somebody forbids it."""
    if at(view.cluster, "authOptions", "mode") != "token":
        way = (*view.way, "authOptions") if "authOptions" in view.cluster else view.way
        reason = "every pod of the Kubernetes cluster reaches it, and runs what it likes"
        yield Fault(way, "the cluster has no token", reason, "authOptions: {mode: token}")


def open_ports(view: Manifest) -> Iterator[Fault]:
    """A service that balances load from outside opens Ray to it."""
    kind = at(view.cluster, "headGroupSpec", "serviceType")
    if kind in ("LoadBalancer", "NodePort"):
        way = (*view.way, "headGroupSpec", "serviceType")
        yield Fault(way, f"serviceType: {kind}", "Ray's ports are open outside of the cluster", "kubectl port-forward")
    if at(view.cluster, "headGroupSpec", "enableIngress") is True:
        way = (*view.way, "headGroupSpec", "enableIngress")
        yield Fault(way, "enableIngress", "the job API is open outside of the cluster", "kubectl port-forward")


def sizes(view: Manifest) -> Iterator[Fault]:
    """Groups that cannot be as they say."""
    for number, group in enumerate(view.groups):
        way, name = (*view.way, "workerGroupSpecs", number), group.get("groupName", number)
        least, most, now = (group.get(key) for key in ("minReplicas", "maxReplicas", "replicas"))
        if isinstance(least, int) and isinstance(most, int) and least > most:
            said = f"minReplicas={least} of {name} is more than maxReplicas={most}"
            yield Fault((*way, "minReplicas"), said, "there is no size that is both", "Mend one of both.")
        if view.grows and least is not None and least == most:
            said = f"{name} has minReplicas = maxReplicas"
            yield Fault((*way, "maxReplicas"), said, "it neither grows nor shrinks", "Give maxReplicas more.", "warn")
        if not view.grows and isinstance(now, int) and now == 0:
            yield Fault((*way, "replicas"), f"{name} has no replicas", "and nothing starts any", "replicas: 1")
        limits = mapped(at(group, "template", "spec", "containers", 0, "resources", "limits"))
        if "cpu" not in limits or "memory" not in limits:
            reason = "Ray takes what it gives out from the limits"
            place = (*way, "template", "spec", "containers", 0)
            yield Fault(
                place, f"{name} has no limits of cpu and memory", reason, "resources: {limits: {cpu: …, memory: …}}"
            )


def head_that_works(view: Manifest) -> Iterator[Fault]:
    """See the rule of that name for cluster files."""
    cpus = at(view.cluster, "headGroupSpec", "rayStartParams", "num-cpus")
    if str(cpus) != "0":
        way = (*view.way, "headGroupSpec")
        reason = "workers of a run are placed beside the cluster's own processes, and may take their memory"
        yield Fault(way, "the head has CPUs to give", reason, 'rayStartParams: {num-cpus: "0"}', "warn")


def no_end(view: Manifest) -> Iterator[Fault]:
    """See the rule of that name for cluster files."""
    if view.job and at(view.tree, "spec", "shutdownAfterJobFinishes") is not True:
        way = ("spec",)
        reason = "the cluster stays when the job is done"
        yield Fault(way, "shutdownAfterJobFinishes is not true", reason, "shutdownAfterJobFinishes: true")
    if view.job and not at(view.tree, "spec", "activeDeadlineSeconds"):
        reason = "a job that waits for ever costs for ever"
        yield Fault(("spec",), "the job has no activeDeadlineSeconds", reason, "activeDeadlineSeconds: 43200", "warn")


def kueue(view: Manifest) -> Iterator[Fault]:
    """What Kueue admits, it must be able to count."""
    if QUEUE not in view.labels:
        if any(label.startswith("kueue.x-k8s.io/") for label in view.labels):
            way = ("metadata", "labels")
            yield Fault(way, "labels of Kueue without its queue", "it is not queued", f"{QUEUE}: …")
        return
    queue = ("metadata", "labels", QUEUE)
    elastic = at(view.tree, "metadata", "annotations", "kueue.x-k8s.io/elastic-job") == "true"
    if view.grows and not elastic:
        reason = "Kueue admits a size, and refuses one that changes by itself"
        remedy = 'enableInTreeAutoscaling: false, or the annotation kueue.x-k8s.io/elastic-job: "true".'
        yield Fault((*view.way, "enableInTreeAutoscaling"), "queued by Kueue, and autoscaled", reason, remedy)
    if view.job and at(view.tree, "spec", "clusterSelector"):
        yield Fault(
            ("spec", "clusterSelector"), "queued, on a cluster that is there", "Kueue admits clusters", "Drop one."
        )
    if len(view.groups) > 7:
        yield Fault(queue, f"{len(view.groups)} worker groups", "Kueue takes seven at most", "Merge some.")


def _on_spot(pod: Mapping[str, Any]) -> bool:
    """Whether a pod can only be on nodes that may be taken away."""
    chosen = mapped(pod.get("nodeSelector"))
    if any(str(chosen.get(label, "")).lower() == value.lower() for label, value in SPOT.items()):
        return True
    required = at(
        pod, "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms"
    )
    terms = listed(required)
    return bool(terms) and all(
        any(_asks_for_spot(each) for each in listed(at(one, "matchExpressions"))) for one in terms
    )


def _asks_for_spot(expression: Any) -> bool:
    values = [str(value).lower() for value in listed(at(expression, "values"))]
    wanted = SPOT.get(str(at(expression, "key")))
    return wanted is not None and at(expression, "operator") == "In" and values == [wanted.lower()]


def _variables(pod: Mapping[str, Any]) -> list[Any]:
    return [mapped(each) for each in listed(at(listed(pod.get("containers")), 0, "env"))]


def _number(text: str | None, default: float) -> float:
    try:
        return float(text) if text is not None else default
    except ValueError:
        return default


RULES: tuple[Rule, ...] = (
    head_on_spot,
    no_fallback,
    images,
    autoscaler,
    pre_stop,
    disruption_budget,
    slow_health_checks,
    no_token,
    open_ports,
    sizes,
    head_that_works,
    no_end,
    kueue,
)
