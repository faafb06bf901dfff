"""Expositions of the recognised systems, with counters that grow at known rates. ``t`` is in
seconds; names and labels are those of the systems' own documentation."""

from __future__ import annotations

from collections.abc import Mapping


def histogram(name: str, t: float, rates: Mapping[float, float], mean: float, **labels: str) -> str:
    """A histogram whose buckets' upper bounds get that many observations a second each."""
    lines, count = [], 0.0
    for bound, rate in rates.items():
        count += rate * t
        le = "+Inf" if bound == float("inf") else str(bound)
        lines.append(f"{name}_bucket{_labels(labels | {'le': le})} {count}")
    lines.append(f"{name}_sum{_labels(labels)} {mean * count}")
    lines.append(f"{name}_count{_labels(labels)} {count}")
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    return "{" + ",".join(f'{key}="{value}"' for key, value in labels.items()) + "}"


def vllm(t: float) -> str:
    """20 requests a second: half within 0.5 s, half in 0.5 to 1 s; a quarter of that waiting."""
    model = {"model_name": "m", "engine": "0"}
    inf = float("inf")
    latency = histogram(
        "vllm:e2e_request_latency_seconds", t, {0.5: 10.0, 1.0: 10.0, inf: 0.0}, 0.6, **model
    )
    rest = ""
    for name, mean in {
        "request_queue_time_seconds": 0.15,
        "request_inference_time_seconds": 0.4,
        "time_to_first_token_seconds": 0.2,
    }.items():
        rest += histogram(f"vllm:{name}", t, {1.0: 20.0, inf: 0.0}, mean, **model)
    label = _labels(model)
    return (
        latency
        + rest
        + f"""
vllm:num_requests_running{label} 6
vllm:num_requests_waiting{label} {4 + 2 * t}
vllm:kv_cache_usage_perc{label} 0.75
vllm:generation_tokens_total{label} {800 * t}
vllm:num_preemptions_total{label} {0.5 * t}
vllm:request_success_total{_labels(model | {"finished_reason": "stop"})} {19 * t}
vllm:request_success_total{_labels(model | {"finished_reason": "error"})} {t}
"""
    )


def old_vllm(t: float) -> str:
    """The names of vLLM 0.6, which counts no errors, as Ray spells them."""
    inf = float("inf")
    return (
        histogram("vllm_e2e_request_latency_seconds", t, {1.0: 20.0, inf: 0.0}, 0.6)
        + histogram("vllm_time_in_queue_requests", t, {1.0: 20.0, inf: 0.0}, 0.3)
        + f"""
vllm_num_requests_running 6
vllm_num_requests_waiting 4
vllm_gpu_cache_usage_perc 0.5
vllm_request_success_total{{finished_reason="stop"}} {20 * t}
"""
    )


def triton(t: float) -> str:
    """10 requests a second, one in ten fails; batches of four; a second of it waiting in ten."""
    label = '{model="m",version="1"}'
    return f"""
nv_inference_request_success{label} {9 * t}
nv_inference_request_failure{label} {t}
nv_inference_count{label} {9 * t}
nv_inference_exec_count{label} {9 * t / 4}
nv_inference_request_duration_us{label} {9 * t * 100_000}
nv_inference_queue_duration_us{label} {9 * t * 10_000}
nv_inference_compute_input_duration_us{label} {9 * t * 5_000}
nv_inference_compute_infer_duration_us{label} {9 * t * 70_000}
nv_inference_compute_output_duration_us{label} {9 * t * 5_000}
nv_inference_pending_request_count{label} 3
nv_gpu_utilization{{gpu_uuid="GPU-0"}} 0.8
nv_gpu_utilization{{gpu_uuid="GPU-1"}} 0.4
nv_gpu_memory_used_bytes{{gpu_uuid="GPU-0"}} 30
nv_gpu_memory_total_bytes{{gpu_uuid="GPU-0"}} 40
nv_gpu_memory_used_bytes{{gpu_uuid="GPU-1"}} 10
nv_gpu_memory_total_bytes{{gpu_uuid="GPU-1"}} 40
nv_gpu_power_usage{{gpu_uuid="GPU-0"}} 300
nv_gpu_power_limit{{gpu_uuid="GPU-0"}} 400
nv_gpu_power_usage{{gpu_uuid="GPU-1"}} 100
nv_gpu_power_limit{{gpu_uuid="GPU-1"}} 400
"""


def triton_summaries(t: float) -> str:
    return (
        triton(t)
        + """
nv_inference_request_summary_us{model="m",version="1",quantile="0.9"} 90000
nv_inference_request_summary_us{model="m",version="1",quantile="0.95"} 120000
nv_inference_request_summary_us{model="m",version="1",quantile="0.99"} 130000
"""
    )


def torchserve(t: float) -> str:
    """50 requests a second of 20 ms each, 5 ms of which they wait; one in 50 is a 5XX."""
    label = '{model_name="m",model_version="default",hostname="h",}'
    host = '{Level="Host",Hostname="h",}'
    return f"""
ts_inference_requests_total{label} {50 * t}
ts_inference_latency_microseconds{label} {50 * t * 20_000}
ts_queue_latency_microseconds{label} {50 * t * 5_000}
Requests2XX{host} {500 * t}
Requests5XX{host} {t}
QueueTime{host} 99
PredictionTime{{ModelName="m",Level="Model",Hostname="h",}} 98
GPUUtilization{{Level="Host",DeviceId="0",Hostname="h",}} 40
GPUMemoryUtilization{{Level="Host",DeviceId="0",Hostname="h",}} 70
"""


def tgi(t: float) -> str:
    """8 requests a second; it has never failed, and so has no line for failures."""
    inf = float("inf")
    return (
        histogram("tgi_request_duration", t, {1.0: 0.0, 2.0: 8.0, inf: 0.0}, 1.5)
        + histogram("tgi_request_queue_duration", t, {1.0: 8.0, inf: 0.0}, 0.6)
        + histogram("tgi_request_inference_duration", t, {1.0: 8.0, inf: 0.0}, 0.9)
        + f"""
tgi_request_count {8 * t}
tgi_request_success{{method="single"}} {8 * t}
tgi_queue_size 5
tgi_batch_current_size 12
tgi_request_generated_tokens_sum {400 * t}
"""
    )


def failing_later(t: float) -> str:
    """Fails for the first time seconds after its start, 30 times at once."""
    return tgi(t) + ('tgi_request_failure{err="overloaded"} 30\n' if t > 4 else "")


def dcgm(pod: str, namespace: str, mask: int = 0x48) -> str:
    """A node's exporter: two GPUs of the pod, and one of somebody else's."""

    def gpu(number: int, owner: str, util: int, used: int) -> str:
        labels = _labels(
            {
                "gpu": str(number),
                "UUID": f"GPU-{number}",
                "namespace": namespace,
                "pod": owner,
                "container": "main",
            }
        )
        return f"""
DCGM_FI_DEV_GPU_UTIL{labels} {util}
DCGM_FI_DEV_FB_USED{labels} {used}
DCGM_FI_DEV_FB_FREE{labels} {80_000 - used}
DCGM_FI_PROF_SM_ACTIVE{labels} 0.5
DCGM_FI_PROF_PIPE_TENSOR_ACTIVE{labels} 0.25
DCGM_FI_PROF_DRAM_ACTIVE{labels} 0.125
DCGM_FI_DEV_CLOCK_THROTTLE_REASONS{labels} {mask if number == 0 else 4}
DCGM_FI_DEV_POWER_USAGE{labels} 350
DCGM_FI_DEV_POWER_MGMT_LIMIT{labels} 700
"""

    return gpu(0, pod, 90, 76_000) + gpu(1, pod, 70, 40_000) + gpu(2, "else-0", 5, 100)


def cadvisor(
    t: float, name: str, namespace: str, pod: str = "pod", container: str = "container"
) -> str:
    """A kubelet's: the container, its sidecar, the pause container and the pod as a whole. ``pod``
    and ``container`` are the labels that name them."""

    def cgroup(which: str | None, factor: float) -> str:
        labels = {"namespace": namespace, pod: name, "id": f"/{which}"}
        labels |= {container: which} if which is not None else {}
        label = _labels(labels)
        faults = _labels(labels | {"failure_type": "pgmajfault", "scope": "container"})
        return f"""
container_cpu_usage_seconds_total{label} {factor * 1.5 * t}
container_cpu_cfs_periods_total{label} {10 * t}
container_cpu_cfs_throttled_periods_total{label} {factor * 4 * t}
container_cpu_cfs_throttled_seconds_total{label} {factor * 0.3 * t}
container_spec_cpu_quota{label} 200000
container_spec_cpu_period{label} 100000
container_pressure_cpu_waiting_seconds_total{label} {factor * 0.2 * t}
container_pressure_memory_waiting_seconds_total{label} {factor * 0.1 * t}
container_pressure_io_waiting_seconds_total{label} {factor * 0.05 * t}
container_memory_working_set_bytes{label} {factor * 900}
container_spec_memory_limit_bytes{label} 1000
container_oom_events_total{label} {1 if t > 6 and factor == 1 else 0}
container_memory_failcnt{label} {factor * 3 * t}
container_memory_failures_total{faults} {factor * 2 * t}
container_fs_reads_bytes_total{label} {factor * 1e6 * t}
"""

    return cgroup("main", 1) + cgroup("bottleneck-agent", 7) + cgroup("POD", 7) + cgroup(None, 9)


def state_metrics(t: float, pod: str, namespace: str) -> str:
    who = {"namespace": namespace, "pod": pod, "container": "main"}
    cpu = _labels(who | {"resource": "cpu", "unit": "core"})
    return f"""
kube_pod_container_resource_limits{cpu} 3
kube_pod_container_resource_limits{_labels(who | {"resource": "memory", "unit": "byte"})} 4000
kube_pod_container_status_restarts_total{_labels(who)} {2 if t > 5 else 0}
kube_pod_container_status_last_terminated_reason{_labels(who | {"reason": "OOMKilled"})} 1
kube_pod_container_status_waiting_reason{_labels(who | {"reason": "CrashLoopBackOff"})} 1
kube_pod_status_unschedulable{_labels({"namespace": namespace, "pod": "waiting-0"})} 1
"""


def trainer(t: float, pace: float = 1.0) -> str:
    """The agent of a training pod: ``pace`` steps a second, 40% of each spent on waiting."""
    label = '{rank="0"}'
    phases = {"data": 0.4, "forward": 0.2, "backward": 0.3, "optimizer": 0.1}
    return f"""
bottleneck_training_steps_total{label} {pace * t}
bottleneck_training_samples_total{label} {32 * pace * t}
bottleneck_training_step_seconds_total{label} {t}
bottleneck_container_cpu_seconds_total {0.5 * t}
bottleneck_container_cpu_limit_cores 2
bottleneck_gpu_clock_event_reasons{{gpu="0",uuid="GPU-0"}} 4
""" + "".join(
        f'bottleneck_training_phase_seconds_total{{rank="0",phase="{name}"}} {share * t}\n'
        for name, share in phases.items()
    )
