"""The command line."""

import argparse
import json
import os
import signal
import sys
from pathlib import Path

from localcluster import binaries, cluster, download, images, imagestore, kind, lifecycle
from localcluster.errors import ClusterError
from localcluster.progress import Progress

EPILOG = """\
example:
  python3 hack/localcluster images                  # build the project's images
  python3 hack/localcluster up --name dev           # prints: export KUBECONFIG=...
  eval "$(python3 hack/localcluster env --name dev)"
  kubectl get nodes
  python3 hack/localcluster down --name dev
"""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; errors are for people, on standard error."""
    parsed = _parser().parse_args(arguments)
    # A polite end runs the same clean-up as Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    progress = Progress()
    try:
        return parsed.run(parsed, progress) or 0
    except ClusterError as error:
        progress.say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        progress.say("Interrupted. The same command goes on from here; `down` cleans up.")
        return 130


def _up(parsed: argparse.Namespace, progress: Progress) -> None:
    result = lifecycle.up(parsed.name, _options(parsed), progress, parsed.control_plane_only)
    _print_cluster(parsed, result)


def _restart(parsed: argparse.Namespace, progress: Progress) -> None:
    result = lifecycle.restart(parsed.name, parsed.component, _options(parsed), progress)
    _print_cluster(parsed, result)


def _down(parsed: argparse.Namespace, progress: Progress) -> None:
    names = cluster.names() if parsed.all else [parsed.name]
    for name in names:
        if not lifecycle.down(name, progress):
            progress.say(f"There is no cluster '{name}'.")
    if parsed.all:
        imagestore.stop()


def _status(parsed: argparse.Namespace, progress: Progress) -> int:
    result = lifecycle.status(parsed.name)
    if parsed.output == "json":
        print(json.dumps(result, indent=2))
    else:
        for key, value in result.items():
            if isinstance(value, dict):
                print(f"{key}:")
                for name, detail in value.items():
                    print(f"  {name:26}{detail if detail is not None else 'not running'}")
            else:
                print(f"{key + ':':20}{value}")
    return 0 if result["ready"] else 1


def _list(parsed: argparse.Namespace, progress: Progress) -> None:
    names = cluster.names()
    print(json.dumps(names) if parsed.output == "json" else "\n".join(names))


def _env(parsed: argparse.Namespace, progress: Progress) -> None:
    this = cluster.get(parsed.name)
    print(f"export KUBECONFIG={this.kubeconfig}")
    print(f"export PATH={this.directory / 'bin'}:$PATH")


def _images(parsed: argparse.Namespace, progress: Progress) -> None:
    result = images.build(parsed.names or images.PROJECT_IMAGES, progress, parsed.base_image)
    if lifecycle.can_run_here():
        images.unpack_built(progress)
    if parsed.output == "json":
        print(json.dumps({name: str(path) for name, path in result.items()}, indent=2))
    else:
        for name, path in result.items():
            print(f"{images.reference(name)}  {path}")


def _load(parsed: argparse.Namespace, progress: Progress) -> None:
    this = cluster.get(parsed.name)
    with cluster.exclusive(parsed.name), progress.phase("images"):
        fresh = images.load_built(this, parsed.names or None)
    print(json.dumps(fresh) if parsed.output == "json" else "\n".join(fresh))


def _binaries(parsed: argparse.Namespace, progress: Progress) -> None:
    found = binaries.ensure(_options(parsed), progress)
    if parsed.output == "json":
        print(json.dumps({name: str(path) for name, path in found.items()}, indent=2))
    else:
        print("\n".join(map(str, found.values())))


def _kind_up(parsed: argparse.Namespace, progress: Progress) -> None:
    _print_cluster(parsed, kind.up(parsed.name, _options(parsed), progress))


def _kind_down(parsed: argparse.Namespace, progress: Progress) -> None:
    kind.down(parsed.name, _options(parsed), progress)


def _print_cluster(parsed: argparse.Namespace, result: dict) -> None:
    if parsed.output == "json":
        print(json.dumps(result, indent=2))
    else:
        print(f"export KUBECONFIG={result['kubeconfig']}")


def _options(parsed: argparse.Namespace) -> binaries.Options:
    return binaries.Options(
        folder=Path(parsed.binaries).resolve() if parsed.binaries else None,
        mirror=parsed.mirror,
        may_download=not parsed.no_download,
        may_build=not parsed.no_build,
        limits=download.Limits(
            answer_seconds=parsed.answer_timeout, total_seconds=parsed.download_timeout
        ),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 hack/localcluster",
        description="A real Kubernetes cluster on this machine, without Docker.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    output = argparse.ArgumentParser(add_help=False)
    output.add_argument("-o", "--output", choices=("text", "json"), default="text")
    named = argparse.ArgumentParser(add_help=False)
    named.add_argument("--name", default="dev", help="which cluster (default: dev)")
    programs = _programs_arguments()

    def command(name, run, text, *parents):
        added = commands.add_parser(
            name, help=text, description=text, parents=parents, epilog=EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        added.set_defaults(run=run)
        return added

    up = command("up", _up, "Bring a cluster up, or heal it.", named, programs, output)
    up.add_argument(
        "--control-plane-only",
        action="store_true",
        help="only etcd and the API server, whose audit log then has the bodies of all writes",
    )
    down = command("down", _down, "Take a cluster down and leave nothing of it.", named)
    down.add_argument("--all", action="store_true", help="all clusters of this machine")
    command("status", _status, "How a cluster is (exit code 1: not ready).", named, output)
    command("list", _list, "The clusters of this machine.", output)
    command("env", _env, "Shell lines that select a cluster, its kubectl and helm.", named)
    restart = command("restart", _restart, "End a component and start it again.",
                      named, programs, output)  # fmt: skip
    restart.add_argument("component", choices=lifecycle.COMPONENTS)
    build = command("images", _images, "Build images from their Dockerfiles.", output)
    build.add_argument("names", nargs="*", metavar="NAME", help="default: all of the project's")
    build.add_argument("--base-image", help="a base image to use instead of building one")
    load = command("load", _load, "Load built images into a running cluster.", named, output)
    load.add_argument("names", nargs="*", metavar="NAME", help="default: all that are built")
    command("binaries", _binaries, "Get Kubernetes' programs and Helm.", programs, output)
    command("kind-up", _kind_up, "A cluster with Docker and kind, with the images in it.",
            named, programs, output)  # fmt: skip
    command("kind-down", _kind_down, "Delete that cluster.", named, programs)
    return parser


def _programs_arguments() -> argparse.ArgumentParser:
    limits = download.Limits()
    parser = argparse.ArgumentParser(add_help=False)
    group = parser.add_argument_group(
        "where the programs come from (a folder, the cache, a download, a build: in this order)"
    )
    group.add_argument(
        "--binaries",
        metavar="DIR",
        default=os.environ.get("BOTTLENECK_BINARIES"),
        help="a folder that holds them (or $BOTTLENECK_BINARIES)",
    )
    group.add_argument(
        "--mirror",
        metavar="URL",
        default=os.environ.get("BOTTLENECK_MIRROR"),
        help="where to download from instead of the official sites (or $BOTTLENECK_MIRROR)",
    )
    group.add_argument("--no-download", action="store_true", help="do not try to download")
    group.add_argument("--no-build", action="store_true", help="do not build with Go")
    group.add_argument(
        "--answer-timeout",
        type=float,
        metavar="SECONDS",
        default=limits.answer_seconds,
        help="how long a server may take to answer (default: %(default)g)",
    )
    group.add_argument(
        "--download-timeout",
        type=float,
        metavar="SECONDS",
        default=limits.total_seconds,
        help="how long one download may take (default: %(default)g)",
    )
    return parser
