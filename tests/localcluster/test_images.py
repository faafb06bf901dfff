"""What an image build depends on, and what pip inside one is told."""

from localcluster import archive, buildah, images
from localcluster.files import REPOSITORY


def test_an_image_depends_on_what_its_dockerfile_copies(tmp_path):
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text(
        "FROM base AS build\n"
        "COPY --chown=1:1 pyproject.toml \\\n  sidecar /src/\n"
        "COPY --from=build /elsewhere /there\n"
    )
    found = images.copied_files(dockerfile)
    assert REPOSITORY / "pyproject.toml" in found
    assert any(path.is_relative_to(REPOSITORY / "sidecar") for path in found)
    assert not any(path.is_relative_to(REPOSITORY / "operator") for path in found)
    assert not any("__pycache__" in path.parts for path in found)


def test_pip_in_a_build_is_told_what_pip_here_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    monkeypatch.setenv("PIP_FIND_LINKS", "/one /two")
    settings = buildah._pip_settings()["global"]
    assert settings["index-url"] == "http://127.0.0.1:1/simple"
    assert settings["find-links"] == "/one /two"


def test_the_pause_image_is_the_same_for_the_same_program(tmp_path):
    program = tmp_path / "pause"
    program.write_bytes(b"\x7fELF")
    for name in ("one.tar", "two.tar"):
        archive.write_single_file_image(program, "amd64", "x/y:z", tmp_path / name)
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
