"""The NVML path: the real pynvml on a fake library that is compiled here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from bottleneck_sidecar.wire import Gpu

from .conftest import Agent, eventually  # type: ignore[import-not-found]

READ = """
import sys
from bottleneck_sidecar import gpu
reader = gpu.Reader(sys.argv[1:] or None)
print(reader.available, reader.read())
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("no gcc to compile the fake NVML with")
    directory = tmp_path_factory.mktemp("nvml")
    source = Path(__file__).with_name("fake_nvml.c")
    target = directory / "libnvidia-ml.so.1"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", target, source], check=True)
    return directory


def read(library: Path | str, mode: str, *uuids: str) -> tuple[bool, list[Gpu]]:
    output = subprocess.run(
        [sys.executable, "-c", READ, *uuids],
        env={**os.environ, "LD_LIBRARY_PATH": str(library), "FAKE_NVML": mode},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    available, _, devices = output.partition(" ")
    return available == "True", eval(devices, {"Gpu": Gpu})  # noqa: S307 - our own repr


def device(index: int, **changes: object) -> Gpu:
    fields: dict[str, object] = {
        "index": index,
        "uuid": f"GPU-0000-{index}",
        "name": "Fake H1",
        "utilization": (40 + index) / 100,
        "memory_used_bytes": 8 << 30,
        "memory_total_bytes": 80 << 30,
        "power_watts": 350.5,
        "throttle_reasons": 0x24,
        **changes,
    }
    return Gpu(**fields)  # type: ignore[arg-type]


def test_two_devices(library: Path) -> None:
    assert read(library, "fine") == (True, [device(0), device(1)])


def test_only_the_devices_asked_for(library: Path) -> None:
    assert read(library, "fine", "0000-1") == (True, [device(1)])
    assert read(library, "fine", "GPU-none") == (True, [])


def test_a_lost_device_is_left_out_and_the_others_stay(library: Path) -> None:
    assert read(library, "lost") == (True, [device(0), device(2)])


def test_what_a_device_does_not_support_is_absent(library: Path) -> None:
    absent = {"utilization": None, "power_watts": None}
    assert read(library, "partial") == (True, [device(0, **absent), device(1, **absent)])


def test_no_driver_and_no_library(library: Path, tmp_path: Path) -> None:
    assert read(library, "broken") == (False, [])


def test_the_agent_reads_gpus_only_when_told(library: Path, tmp_path: Path) -> None:
    nvml = {"LD_LIBRARY_PATH": str(library), "FAKE_NVML": "fine"}
    for options, count in (((), 0), (("--gpu",), 2)):
        agent = Agent(tmp_path, *options, **nvml)
        stream = agent.stream()
        assert len(stream.read().gpus) == count
        name = 'bottleneck_gpu_power_watts{gpu="1",uuid="GPU-0000-1",model="Fake H1"}'
        assert agent.metric(name) == (350.5 if count else None)
        stream.close()
        assert agent.stop() == 0


def test_a_process_reports_its_gpus(library: Path, agent: Agent) -> None:
    subprocess.run(
        [
            sys.executable,
            "-c",
            "import time; from bottleneck_sidecar.client import Client\n"
            "from bottleneck_sidecar.wire import TrainingRank\n"
            "client = Client(); client.watch_gpus(['0000-1'])\n"
            "while not client._gpus(): time.sleep(0.01)\n"
            "client.send(training=TrainingRank('e', 0, 1, 0, 0, 0.0, {}))",
        ],
        env={
            **os.environ,
            "LD_LIBRARY_PATH": str(library),
            "FAKE_NVML": "fine",
            "BOTTLENECK_SOCKET": agent.socket,
        },
        check=True,
        timeout=60,
    )
    stream = agent.stream(interval=0.2)
    assert stream.until(lambda sample: sample.training).gpus == [device(1)]
    stream.close()
    assert eventually(lambda: agent.metric("bottleneck_agent_streams") == 0.0)
