/* A FAKE libnvidia-ml.so.1 for the tests: just the functions that gpu.py calls, with the signatures
 * of NVML, loaded by the real pynvml. FAKE_NVML chooses what is wrong:
 *   fine      two devices
 *   lost      the second of three devices is lost (every call about it fails)
 *   partial   a device without power and utilization readings
 *   broken    NVML cannot be initialised */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, NOT_SUPPORTED = 3, DRIVER_NOT_LOADED = 9, GPU_IS_LOST = 15 };
typedef struct { unsigned int gpu, memory; } utilization_t;
typedef struct { unsigned long long total, free, used; } memory_t;

static int is(const char *what) {
  const char *mode = getenv("FAKE_NVML");
  return mode && strcmp(mode, what) == 0;
}
static int devices[3] = {0, 1, 2};
static int lost(void *handle) { return is("lost") && *(int *)handle == 1; }

int nvmlInitWithFlags(unsigned int flags) { (void)flags; return is("broken") ? DRIVER_NOT_LOADED : OK; }
int nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(int error) { (void)error; return "fake error"; }
int nvmlDeviceGetCount_v2(unsigned int *count) { *count = is("lost") ? 3 : 2; return OK; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **handle) {
  *handle = &devices[index];
  return lost(*handle) ? GPU_IS_LOST : OK;
}
int nvmlDeviceGetUUID(void *handle, char *uuid, unsigned int length) {
  if (lost(handle)) return GPU_IS_LOST;
  snprintf(uuid, length, "GPU-0000-%d", *(int *)handle);
  return OK;
}
int nvmlDeviceGetName(void *handle, char *name, unsigned int length) {
  (void)handle;
  snprintf(name, length, "Fake H1");
  return OK;
}
int nvmlDeviceGetUtilizationRates(void *handle, utilization_t *rates) {
  if (is("partial")) return NOT_SUPPORTED;
  rates->gpu = 40 + *(int *)handle;
  rates->memory = 10;
  return OK;
}
int nvmlDeviceGetMemoryInfo(void *handle, memory_t *memory) {
  (void)handle;
  memory->total = 80ULL << 30;
  memory->used = 8ULL << 30;
  memory->free = 72ULL << 30;
  return OK;
}
int nvmlDeviceGetPowerUsage(void *handle, unsigned int *milliwatts) {
  (void)handle;
  if (is("partial")) return NOT_SUPPORTED;
  *milliwatts = 350500;
  return OK;
}
int nvmlDeviceGetCurrentClocksEventReasons(void *handle, unsigned long long *reasons) {
  (void)handle;
  *reasons = 0x24;
  return OK;
}
