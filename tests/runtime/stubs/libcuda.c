/* A stub of NVIDIA's driver: GPU memory is host memory, a stream runs at once, a graph is a list.

It checks what a driver checks (a current context, addresses that were handed out, no synchronising
while capturing) and writes each call into the file that STUB_CUDA_LOG names. Built by
tests/runtime/stub_driver.py; says nothing about speed or about a real GPU. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, INVALID_VALUE = 1, INVALID_CONTEXT = 201, NOT_FOUND = 500, CAPTURE_UNSUPPORTED = 900 };
enum { MOST = 4096, CONTEXT = 0x77 };
typedef void (*HostFunction)(void *);
typedef struct { void *to, *from; size_t size; HostFunction call; void *argument; } Step;
typedef struct { Step steps[64]; int count; } Graph;

static __thread void *current;
static uintptr_t live[MOST];
static size_t live_size[MOST];
static int live_count, graphs_live;
static Graph *recording;

static void say(const char *format, ...) {
  const char *path = getenv("STUB_CUDA_LOG");
  FILE *file = path ? fopen(path, "a") : NULL;
  if (!file) return;
  va_list rest;
  va_start(rest, format);
  vfprintf(file, format, rest);
  va_end(rest);
  fputc('\n', file);
  fclose(file);
}
static int remember(void *address, size_t size) {
  for (int i = 0; i < MOST; i++)
    if (!live[i]) { live[i] = (uintptr_t)address; live_size[i] = size; live_count++; return OK; }
  return INVALID_VALUE;
}
static int forget(void *address) {
  for (int i = 0; i < MOST; i++)
    if (live[i] == (uintptr_t)address) { live[i] = 0; live_count--; free(address); return OK; }
  return INVALID_VALUE;
}
static int inside(const void *address, size_t size) {
  uintptr_t at = (uintptr_t)address;
  for (int i = 0; i < MOST; i++)
    if (live[i] && at >= live[i] && at + size <= live[i] + live_size[i]) return 1;
  return 0;
}
static int make(void **address, size_t size) {
  if (current != (void *)CONTEXT) return INVALID_CONTEXT;
  if (posix_memalign(address, 256, size)) return INVALID_VALUE;
  memset(*address, 0xA5, size);
  return remember(*address, size);
}
static void perform(const Step *step) {
  if (step->call) step->call(step->argument);
  else memcpy(step->to, step->from, step->size);
}
static int put(Step step) {
  if (current != (void *)CONTEXT) return INVALID_CONTEXT;
  if (recording) recording->steps[recording->count++] = step;
  else perform(&step);
  return OK;
}

int cuInit(unsigned flags) { return flags ? INVALID_VALUE : OK; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return ordinal ? INVALID_VALUE : OK; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
  (void)device;
  *value = attribute == 75 ? 8 : attribute == 76 ? 7 : 0;
  if (attribute == 18) *value = getenv("STUB_CUDA_INTEGRATED") != NULL;
  return OK;
}
int cuDevicePrimaryCtxRetain(void **context, int device) {
  (void)device;
  *context = (void *)CONTEXT;
  say("retain");
  return OK;
}
int cuDevicePrimaryCtxRelease_v2(int device) {
  (void)device;
  say("release with %d allocations and %d graphs alive", live_count, graphs_live);
  return OK;
}
int cuCtxSetCurrent(void *context) { current = context; return OK; }
int cuMemAlloc_v2(void **address, size_t size) { say("allocate %zu", size); return make(address, size); }
int cuMemFree_v2(void *address) { return forget(address); }
int cuMemHostAlloc(void **address, size_t size, unsigned flags) {
  say("allocate host %zu flags %u", size, flags);
  return make(address, size);
}
int cuMemFreeHost(void *address) { return forget(address); }
int cuMemHostGetDevicePointer_v2(void **device, void *host, unsigned flags) {
  *device = host;
  return flags ? INVALID_VALUE : OK;
}
int cuPointerGetAttribute(void *value, int attribute, void *address) {
  if (attribute != 9 || !inside(address, 1)) return INVALID_VALUE;
  *(int *)value = 0;
  return OK;
}
int cuMemcpyHtoDAsync_v2(void *to, const void *from, size_t size, void *stream) {
  (void)stream;
  say("copy in %zu", size);
  if (!inside(to, size) || !inside(from, size)) return INVALID_VALUE;
  return put((Step){to, (void *)from, size, NULL, NULL});
}
int cuMemcpyDtoHAsync_v2(void *to, const void *from, size_t size, void *stream) {
  (void)stream;
  say("copy out %zu", size);
  if (!inside(to, size) || !inside(from, size)) return INVALID_VALUE;
  return put((Step){to, (void *)from, size, NULL, NULL});
}
int cuLaunchHostFunc(void *stream, HostFunction call, void *argument) {
  (void)stream;
  return put((Step){NULL, NULL, 0, call, argument});
}
int cuStreamCreate(void **stream, unsigned flags) {
  say("stream flags %u", flags);
  return make(stream, 1);
}
int cuStreamDestroy_v2(void *stream) { return forget(stream); }
int cuStreamSynchronize(void *stream) {
  (void)stream;
  say("wait");
  return recording ? CAPTURE_UNSUPPORTED : OK;
}
int cuStreamWaitEvent(void *stream, void *event, unsigned flags) {
  (void)stream, (void)event, (void)flags;
  say("wait for event");
  return OK;
}
int cuEventCreate(void **event, unsigned flags) { (void)flags; return make(event, 1); }
int cuEventRecord(void *event, void *stream) {
  (void)event;
  say("record event in stream %p", stream);
  return OK;
}
int cuEventDestroy_v2(void *event) { return forget(event); }
int cuStreamBeginCapture_v2(void *stream, int mode) {
  (void)stream;
  say("begin capture mode %d", mode);
  if (getenv("STUB_CUDA_NO_CAPTURE")) return CAPTURE_UNSUPPORTED;
  recording = calloc(1, sizeof(Graph));
  return OK;
}
int cuStreamEndCapture(void *stream, Graph **graph) {
  (void)stream;
  *graph = recording;
  recording = NULL;
  return OK;
}
int cuGraphInstantiateWithFlags(Graph **executable, Graph *graph, unsigned long long flags) {
  (void)flags;
  say("instantiate %d steps", graph->count);
  *executable = malloc(sizeof(Graph));
  **executable = *graph;
  graphs_live++;
  return OK;
}
int cuGraphDestroy(Graph *graph) { free(graph); return OK; }
int cuGraphExecDestroy(Graph *graph) { free(graph); graphs_live--; return OK; }
int cuGraphLaunch(Graph *graph, void *stream) {
  (void)stream;
  say("launch");
  if (current != (void *)CONTEXT) return INVALID_CONTEXT;
  for (int i = 0; i < graph->count; i++) perform(&graph->steps[i]);
  return OK;
}
int cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, int *status) {
  static const char *versioned[] = {"cuMemAlloc", "cuMemFree", "cuMemHostGetDevicePointer",
    "cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync", "cuStreamDestroy", "cuEventDestroy",
    "cuStreamBeginCapture", "cuDevicePrimaryCtxRelease", "cuGetProcAddress"};
  char full[128];
  (void)version, (void)flags;
  snprintf(full, sizeof full, "%s", name);
  for (size_t i = 0; i < sizeof versioned / sizeof *versioned; i++)
    if (!strcmp(name, versioned[i])) snprintf(full, sizeof full, "%s_v2", name);
  if (!strcmp(name, "cuGraphInstantiate")) snprintf(full, sizeof full, "cuGraphInstantiateWithFlags");
  *function = dlsym(RTLD_DEFAULT, full);
  if (status) *status = *function ? 0 : 1;
  return *function ? OK : NOT_FOUND;
}
