"""The command line options about the sidecar, the same for the webhook and for kubectl."""

from __future__ import annotations

import argparse
from importlib.metadata import PackageNotFoundError, version

from .pod import InjectSettings


def _version() -> str:
    try:
        return version("bottleneck-sidecar")
    except PackageNotFoundError:  # run from the tree: the tag that `make images` gives
        return "dev"


DEFAULTS = InjectSettings(image=f"bottleneck/sidecar:{_version()}")


def add_sidecar_options(parser: argparse.ArgumentParser) -> None:
    """Adds an option for each setting of the sidecar."""
    group = parser.add_argument_group("sidecar")
    group.add_argument("--image", default=DEFAULTS.image, help="its image (%(default)s)")
    group.add_argument(
        "--image-pull-policy",
        default=DEFAULTS.pull_policy,
        choices=("Always", "IfNotPresent", "Never"),
        help="when the image is pulled (%(default)s)",
    )
    for option, value, what in (
        ("--cpu-request", DEFAULTS.cpu_request, "CPU it asks for"),
        ("--cpu-limit", DEFAULTS.cpu_limit, "its CPU limit on pods whose containers have one"),
        ("--memory-request", DEFAULTS.memory_request, "memory it asks for"),
        ("--memory-limit", DEFAULTS.memory_limit, "most memory it may use"),
    ):
        group.add_argument(option, default=value, metavar="QUANTITY", help=f"{what} (%(default)s)")
    group.add_argument(
        "--gpu", action="store_true", help="show it the NVIDIA devices of the node (off)"
    )


def sidecar_settings(arguments: argparse.Namespace) -> InjectSettings:
    """The settings that the options say."""
    return InjectSettings(
        image=arguments.image,
        pull_policy=arguments.image_pull_policy,
        cpu_request=arguments.cpu_request,
        cpu_limit=arguments.cpu_limit,
        memory_request=arguments.memory_request,
        memory_limit=arguments.memory_limit,
        gpu=arguments.gpu,
    )
