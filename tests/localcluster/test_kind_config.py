"""kind-config.yaml, checked with kind's own loader.

`kind create cluster` loads the file before it looks for Docker, so where no Docker can be found a
good file gives an error about Docker and a broken one an error about the file. The check makes sure
of that by hiding every program from kind.
"""

import os
import re
import subprocess
from pathlib import Path

import pytest
from localcluster import binaries
from localcluster.files import REPOSITORY
from localcluster.progress import Progress

CONFIG = (REPOSITORY / "kind-config.yaml").read_text()


@pytest.fixture(scope="session")
def kind() -> Path:
    """The pinned kind, built once if the cache does not have it."""
    options = binaries.Options(may_download=False)
    return binaries.ensure_release(binaries.kind(), options, Progress())["kind"]


def load(kind: Path, tmp_path: Path, text: str) -> str:
    """What kind says about a configuration."""
    config = tmp_path / "config.yaml"
    config.write_text(text)
    nothing = tmp_path / "no-programs"
    nothing.mkdir()
    result = subprocess.run(
        [kind, "create", "cluster", "--name", "never", "--config", config],
        env={
            "PATH": str(nothing),
            "HOME": str(tmp_path),
            "KUBECONFIG": os.devnull,
            "KIND_EXPERIMENTAL_PROVIDER": "docker",
        },
        capture_output=True,
        text=True,
    )
    assert result.returncode != 0
    return result.stderr


def with_gpu_node(text: str) -> str:
    """The file as it reads when someone with a GPU takes the comment signs away."""
    head, _, tail = text.partition("  # - role: worker\n")
    assert tail
    return head + "  - role: worker\n" + re.sub(r"^  # ", "  ", tail, flags=re.MULTILINE)


@pytest.mark.parametrize("text", [CONFIG, with_gpu_node(CONFIG)], ids=["as it is", "with GPU"])
def test_kind_accepts_the_file(kind, tmp_path, text):
    said = load(kind, tmp_path, text)
    assert '"docker": executable file not found' in said
    assert "config" not in said


@pytest.mark.parametrize(
    ("good", "broken", "message"),
    [
        ("role: worker", "rolle: worker", "field rolle not found"),
        ("nodes:", "nodes: 3\nrest:", "cannot unmarshal"),
        ("v1alpha4", "v1alpha9", "unknown apiVersion"),
    ],
)
def test_kind_refuses_a_broken_file(kind, tmp_path, good, broken, message):
    assert message in load(kind, tmp_path, CONFIG.replace(good, broken, 1))
