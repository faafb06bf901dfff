"""A few questions to the API server, without a client library."""

import json
import ssl
import urllib.error
import urllib.request

from localcluster.cluster import Cluster

TIMEOUT_SECONDS = 5.0


def get(cluster: Cluster, path: str) -> bytes | None:
    """What the API server answers to the administrator; None for anything but a 200."""
    pki = cluster.directory / "pki"
    context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
    context.load_cert_chain(pki / "admin.crt", pki / "admin.key")
    # No proxy of the environment stands between this machine and itself.
    opener = urllib.request.build_opener(
        urllib.request.HTTPSHandler(context=context), urllib.request.ProxyHandler({})
    )
    try:
        with opener.open(cluster.server + path, timeout=TIMEOUT_SECONDS) as response:
            return response.read()
    except (urllib.error.URLError, OSError):
        return None


def is_ready(cluster: Cluster) -> bool:
    """Whether the API server says that it is ready."""
    return get(cluster, "/readyz") == b"ok"


def is_node_ready(cluster: Cluster) -> bool:
    """Whether the node is Ready and takes pods."""
    answer = get(cluster, f"/api/v1/nodes/{cluster.node_name}")
    if answer is None:
        return False
    node = json.loads(answer)
    conditions = {item["type"]: item["status"] for item in node["status"].get("conditions", [])}
    return conditions.get("Ready") == "True" and not node["spec"].get("taints")


def has_default_service_account(cluster: Cluster) -> bool:
    """Whether pods can be created in the default namespace."""
    return get(cluster, "/api/v1/namespaces/default/serviceaccounts/default") is not None
