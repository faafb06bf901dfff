"""Keys, certificates and kubeconfigs of a cluster, made with openssl."""

import base64
import json
import shutil
import subprocess
from pathlib import Path

from localcluster import files
from localcluster.cluster import Cluster
from localcluster.errors import ClusterError

DAYS = "3650"

# Who talks to the API server: file name, user and group.
CLIENTS = {
    "admin": ("kubernetes-admin", "system:masters"),
    "kube-controller-manager": ("system:kube-controller-manager", None),
    "kube-scheduler": ("system:kube-scheduler", None),
    "kube-proxy": ("system:kube-proxy", None),
}


def ensure(cluster: Cluster) -> Path:
    """Make the cluster's certificates once; all of them or none."""
    directory = cluster.directory / "pki"
    if not directory.exists():
        with files.scratch_directory(cluster.directory) as scratch:
            made = scratch / "pki"
            made.mkdir()
            _make_all(cluster, made)
            made.rename(directory)
    for client in (*CLIENTS, "kubelet"):
        kubeconfig = cluster.directory / f"{client}.kubeconfig"
        if not kubeconfig.exists():
            files.write_atomically(kubeconfig, _kubeconfig(cluster, client), mode=0o600)
    if not cluster.kubeconfig.exists():
        shutil.copy(cluster.directory / "admin.kubeconfig", cluster.kubeconfig)
    return directory


def _make_all(cluster: Cluster, directory: Path) -> None:
    service = next(cluster.services.hosts())
    _authority(directory, "ca")
    _authority(directory, "front-proxy-ca")
    _certificate(
        directory,
        "kube-apiserver",
        "/CN=kube-apiserver",
        names=(
            "DNS:kubernetes",
            "DNS:kubernetes.default",
            "DNS:kubernetes.default.svc",
            "DNS:kubernetes.default.svc.cluster.local",
            "DNS:localhost",
            "IP:127.0.0.1",
            f"IP:{cluster.node_address}",
            f"IP:{service}",
        ),
    )
    _certificate(
        directory,
        "kubelet",
        f"/O=system:nodes/CN=system:node:{cluster.node_name}",
        names=(f"DNS:{cluster.node_name}", f"IP:{cluster.node_address}"),
    )
    _certificate(directory, "apiserver-kubelet-client", "/O=system:masters/CN=kube-apiserver")
    _certificate(directory, "front-proxy-client", "/CN=front-proxy-client", "front-proxy-ca")
    for client, (user, group) in CLIENTS.items():
        _certificate(directory, client, f"{f'/O={group}' if group else ''}/CN={user}")
    _openssl("genrsa", "-out", directory / "service-account.key", "2048")


def _authority(directory: Path, name: str) -> None:
    _openssl(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
        *("-keyout", directory / f"{name}.key", "-out", directory / f"{name}.crt"),
        *("-days", DAYS, "-subj", f"/CN=bottleneck-{name}"),
        *("-addext", "keyUsage=critical,digitalSignature,keyEncipherment,keyCertSign"),
    )


def _certificate(
    directory: Path, name: str, subject: str, authority: str = "ca", names: tuple[str, ...] = ()
) -> None:
    request = directory / f"{name}.csr"
    _openssl(
        *("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
        *("-keyout", directory / f"{name}.key", "-out", request, "-subj", subject),
    )
    extensions = directory / f"{name}.ext"
    lines = ["keyUsage=critical,digitalSignature", "extendedKeyUsage=clientAuth,serverAuth"]
    if names:
        lines.append(f"subjectAltName={','.join(names)}")
    extensions.write_text("\n".join(lines))
    _openssl(
        *("x509", "-req", "-in", request, "-out", directory / f"{name}.crt", "-days", DAYS),
        *("-CA", directory / f"{authority}.crt", "-CAkey", directory / f"{authority}.key"),
        *("-CAcreateserial", "-extfile", extensions),
    )
    request.unlink()
    extensions.unlink()


def _kubeconfig(cluster: Cluster, client: str) -> str:
    """A kubeconfig with everything in it, so that it can be copied elsewhere."""
    pki = cluster.directory / "pki"
    context = f"bottleneck-{cluster.name}"

    def data(name: str) -> str:
        return _base64(pki / name)

    # JSON is YAML, and the standard library writes JSON.
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": context,
                    "cluster": {
                        "server": cluster.server,
                        "certificate-authority-data": data("ca.crt"),
                    },
                }
            ],
            "users": [
                {
                    "name": client,
                    "user": {
                        "client-certificate-data": data(f"{client}.crt"),
                        "client-key-data": data(f"{client}.key"),
                    },
                }
            ],
            "contexts": [{"name": context, "context": {"cluster": context, "user": client}}],
            "current-context": context,
        },
        indent=2,
    )


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _openssl(*arguments: str | Path) -> None:
    result = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True)
    if result.returncode:
        raise ClusterError(f"openssl {arguments[0]} failed:\n{result.stderr}")
