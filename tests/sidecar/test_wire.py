"""The wire format: whatever comes in is a message or a WireError, and nothing is lost."""

from __future__ import annotations

import json
from typing import Any

import pytest
from bottleneck_sidecar import wire
from bottleneck_sidecar.wire import (
    Acknowledgement,
    Container,
    Gpu,
    InferenceServer,
    Report,
    Sample,
    TrainingRank,
    WireError,
)
from hypothesis import given
from hypothesis import strategies as st

counts = st.integers(0, 2**53)
numbers = st.floats(0, 1e15, allow_nan=False)
texts = st.text(max_size=20)
knobs = st.dictionaries(texts, numbers | texts | st.booleans(), max_size=4)


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


acknowledgements = st.builds(
    Acknowledgement, generation=counts, result=texts, step=maybe(counts), message=texts
)
containers = st.builds(
    Container,
    cpu_seconds=maybe(numbers),
    periods=maybe(counts),
    memory_bytes=maybe(counts),
    cpus=maybe(counts),
    epoch=maybe(texts),
)
gpus = st.builds(Gpu, index=counts, uuid=texts, name=maybe(texts), utilization=maybe(numbers))
ranks = st.builds(
    TrainingRank,
    epoch=texts,
    rank=counts,
    world_size=counts,
    steps=counts,
    samples=counts,
    step_seconds=numbers,
    seconds=st.dictionaries(st.sampled_from(wire.PHASES), numbers),
    loss=maybe(st.floats(-1e9, 1e9)),
    knobs=maybe(knobs),
    settable=maybe(st.lists(texts, max_size=3)),
    acknowledgement=maybe(acknowledgements),
)
servers = st.builds(
    InferenceServer,
    epoch=texts,
    worker=counts,
    requests=counts,
    errors=counts,
    arrivals=counts,
    latency_buckets=st.lists(counts, max_size=66),
    latency_seconds=numbers,
    in_flight=maybe(counts),
    acknowledgement=maybe(acknowledgements),
)
versions = st.just(wire.VERSION)
reports = st.builds(
    Report,
    version=versions,
    time=numbers,
    training=ranks,
    inference=st.none(),
    container=maybe(containers),
    gpus=maybe(st.lists(gpus, max_size=3)),
) | st.builds(
    Report,
    version=versions,
    time=numbers,
    training=st.none(),
    inference=servers,
    container=maybe(containers),
    gpus=st.none(),
)
samples = st.builds(
    Sample,
    version=versions,
    time=numbers,
    sequence=counts,
    agent=texts,
    pod=texts,
    namespace=texts,
    uid=texts,
    container=maybe(containers),
    gpus=st.lists(gpus, max_size=3),
    training=st.lists(ranks, max_size=3),
    inference=st.lists(servers, max_size=3),
    ages=st.dictionaries(texts, numbers, max_size=3),
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=10,
)


@given(reports)
def test_a_report_survives_the_way(report: Report) -> None:
    assert wire.decode_report(wire.encode(report)) == report


@given(samples)
def test_a_sample_survives_the_way(sample: Sample) -> None:
    line = wire.encode(sample)
    assert b"\n" not in line
    assert wire.decode_sample(line) == sample


@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    for decode in (wire.decode_report, wire.decode_sample):
        with pytest.raises(WireError):
            decode(data)


@given(reports, st.data())
def test_any_document_is_a_message_or_refused(report: Report, data: st.DataObject) -> None:
    """Valid reports with something else put into one place."""
    document = json.loads(wire.encode(report))
    place = document
    while True:
        key = data.draw(st.sampled_from(sorted(place)))
        if not isinstance(place[key], dict) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(json_values)
    try:
        decoded = wire.decode_report(json.dumps(document).encode())
    except WireError:
        return
    assert wire.decode_report(wire.encode(decoded)) == decoded


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "at most"),
        ("[" * 60_000, "not a JSON document"),
        ("[]", "not a JSON object"),
        ("{}", "version None"),
        ('{"version": 2}', "same release"),
        ('{"version": 1}', "time: missing"),
        ('{"version": 1, "time": NaN}', "not a finite number"),
        ('{"version": 1, "time": 1e999}', "not a finite number"),
        ('{"version": 1, "time": -1}', "negative"),
        ('{"version": 1, "time": true}', "expected float, got bool"),
        ('{"version": 1, "time": 1}', "exactly one"),
    ],
)
def test_what_is_wrong_is_said(text: str, message: str) -> None:
    with pytest.raises(WireError, match=message):
        wire.decode_report(text.encode())


def test_unknown_fields_of_a_newer_release_are_ignored() -> None:
    report = Report(wire.VERSION, 1.0, training=None, inference=None)
    document = json.loads(wire.encode(report)) | {
        "novelty": [1],
        "inference": {
            "epoch": "a",
            "worker": 0,
            "requests": 0,
            "errors": 0,
            "arrivals": 0,
            "latency_buckets": [],
            "latency_seconds": 0,
            "more": {"x": 1},
        },
    }
    assert wire.decode_report(json.dumps(document).encode()).inference is not None
