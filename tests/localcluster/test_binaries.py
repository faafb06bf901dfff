"""Where the programs come from: a folder, the cache, a mirror, a build."""

import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest
from localcluster import binaries, download
from localcluster.errors import ClusterError
from localcluster.progress import Progress

HACK = Path(binaries.__file__).parents[1]
LIMITS = download.Limits(answer_seconds=1.0, stall_seconds=1.0, total_seconds=2.0)


def options(mirror, **changes) -> binaries.Options:
    return binaries.Options(
        **{"mirror": mirror.url, "may_build": False, "limits": LIMITS, **changes}
    )


def offer_kubernetes(mirror) -> str:
    """Put a release on the mirror, laid out as the official site; return its folder."""
    release = binaries.kubernetes()
    folder = f"/{release.version}/bin/linux/{binaries._architecture()}"
    for name in release.names:
        content = f"#!/bin/sh\necho {name}\n".encode()
        mirror.answers[f"{folder}/{name}"] = content
        mirror.answers[f"{folder}/{name}.sha256"] = hashlib.sha256(content).hexdigest().encode()
    return folder


def offer_helm(mirror) -> None:
    release, folder = binaries.helm(), f"linux-{binaries._architecture()}"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        member = tarfile.TarInfo(f"{folder}/helm")
        member.size = 4
        tar.addfile(member, io.BytesIO(b"helm"))
    name = f"/helm-{release.version}-{folder}.tar.gz"
    checksum = hashlib.sha256(buffer.getvalue()).hexdigest()
    mirror.answers[name] = buffer.getvalue()
    mirror.answers[f"{name}.sha256sum"] = f"{checksum}  {name[1:]}\n".encode()


def files_in(cache: Path) -> list[Path]:
    """Everything in the cache but the locks, which are empty files."""
    return [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_a_mirror_fills_the_cache_once(mirror, cache):
    offer_kubernetes(mirror)
    offer_helm(mirror)

    found = binaries.ensure(options(mirror), Progress())

    assert set(found) == set(binaries.NAMES)
    assert found["helm"].read_bytes() == b"helm"
    assert subprocess.check_output([found["kubectl"]], text=True) == "kubectl\n"
    asked = len(mirror.asked)
    assert binaries.ensure(options(mirror), Progress()) == found
    assert len(mirror.asked) == asked, "what is cached was asked for again"


def test_a_given_folder_goes_first(mirror, cache, tmp_path):
    offer_kubernetes(mirror)
    offer_helm(mirror)
    (tmp_path / "given").mkdir()
    given = tmp_path / "given" / "kubelet"
    given.write_text("#!/bin/sh\n")
    given.chmod(0o755)

    found = binaries.ensure(options(mirror, folder=tmp_path / "given"), Progress())

    assert found["kubelet"] == given
    assert found["kubectl"].is_relative_to(cache)


def test_a_wrong_checksum_is_refused_and_nothing_stays(mirror, cache):
    folder = offer_kubernetes(mirror)
    mirror.answers[f"{folder}/kubelet"] = b"something else"

    with pytest.raises(ClusterError, match=r"(?s)kubelet has the wrong checksum.*--no-download"):
        binaries.ensure_release(binaries.kubernetes(), options(mirror), Progress())

    assert files_in(cache) == []


def test_a_missing_file_leaves_nothing_and_names_the_way_out(mirror, cache, capsys):
    folder = offer_kubernetes(mirror)
    del mirror.answers[f"{folder}/kubelet"]

    with pytest.raises(ClusterError, match=r"--binaries DIR"):
        binaries.ensure_release(binaries.kubernetes(), options(mirror), Progress())

    assert files_in(cache) == []


def test_a_mirror_that_never_answers_is_given_up(mirror, cache):
    let_go = threading.Event()
    mirror.answers["/"] = lambda _: let_go.wait(60)
    try:
        # On a busy machine the time may already run out while the connection is made.
        with pytest.raises(download.UnavailableError, match=r"did not answer within 1 s|timed out"):
            download.probe(mirror.url, LIMITS)
    finally:
        let_go.set()


def test_a_mirror_that_trickles_is_given_up_at_the_deadline(mirror, cache, tmp_path):
    let_go = threading.Event()

    def trickle(handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        while not let_go.wait(0.2):  # never stalls, never ends
            handler.wfile.write(b".")

    mirror.answers |= {"/slow": trickle, "/slow.sha256": b"0" * 64}
    url = f"{mirror.url}/slow"
    try:
        with pytest.raises(download.UnavailableError, match="took longer than 2 s"):
            download.file(url, f"{url}.sha256", tmp_path / "slow", LIMITS, Progress())
    finally:
        let_go.set()


def test_a_download_that_breaks_off_is_no_download(mirror, tmp_path):
    def break_off(handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b"half")

    mirror.answers |= {"/half": break_off, "/half.sha256": b"0" * 64}
    url = f"{mirror.url}/half"
    with pytest.raises(download.UnavailableError, match="half"):
        download.file(url, f"{url}.sha256", tmp_path / "half", LIMITS, Progress())


def test_no_server_at_all_falls_back_to_building(cache, capsys, monkeypatch):
    built = []
    monkeypatch.setattr(binaries, "_build", lambda release, *_: built.append(release.project))
    nobody = binaries.Options(mirror="http://127.0.0.1:9", limits=LIMITS)

    binaries.ensure_release(binaries.helm(), nobody, Progress())

    assert built == ["helm"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_download_leaves_no_half_program(mirror, cache, number):
    folder = offer_kubernetes(mirror)
    begun, let_go = threading.Event(), threading.Event()

    def hang(handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b"half")
        begun.set()
        let_go.wait(60)

    whole = mirror.answers[f"{folder}/kubelet"]
    mirror.answers[f"{folder}/kubelet"] = hang
    command = [sys.executable, HACK / "localcluster", "binaries", "--no-build"]
    run = subprocess.Popen(
        [*command, "--mirror", mirror.url], env=os.environ, stderr=subprocess.DEVNULL
    )
    try:
        assert begun.wait(30)
        run.send_signal(number)
        assert run.wait(30) != 0
        assert not binaries.kubernetes().cache.exists()
    finally:
        let_go.set()

    mirror.answers[f"{folder}/kubelet"] = whole
    found = binaries.ensure_release(binaries.kubernetes(), options(mirror), Progress())
    assert found["kubelet"].read_bytes() == whole
    assert not list(cache.rglob(".partial-*"))


def test_an_interrupted_build_leaves_no_half_program(cache, tmp_path, monkeypatch):
    """A stand-in for go, killed with a program half written."""
    stand_in = tmp_path / "bin" / "go"
    stand_in.parent.mkdir()
    stand_in.write_text(
        '#!/bin/sh\n[ "$1" = list ] && exit 0\n'
        'for last in "$@"; do case $last in */) echo half > "${last}helm";; esac; done\n'
        "kill -KILL $PPID\n"
    )
    stand_in.chmod(0o755)
    command = [sys.executable, "-c"]
    code = (
        "from localcluster import binaries\nfrom localcluster.progress import Progress\n"
        "binaries.ensure_release(binaries.helm(), binaries.Options(may_download=False), Progress())"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": str(HACK),
        "PATH": f"{stand_in.parent}:{os.environ['PATH']}",
    }
    killed = subprocess.run([*command, code], env=environment, capture_output=True)

    assert killed.returncode == -signal.SIGKILL
    assert not binaries.helm().cache.exists()
