// Launches the embedded kernels through the driver, which is opened at run time and never linked.
#include <dlfcn.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <utility>

#include "internal.h"

#ifdef TAIDPT_HAS_KERNELS
#include "taidpt_kernels.h"
#else
#define TAIDPT_KERNEL_COUNT 0
#endif

namespace taidpt {

int kernel_count() { return TAIDPT_KERNEL_COUNT; }

#if TAIDPT_KERNEL_COUNT == 0

namespace {
Status no_kernels() {
  return {TAIDPT_UNSUPPORTED,
          "this build of taidpt holds no GPU kernels; build it where Python finds triton, or with "
          "-DTAIDPT_AOT_DIR=<output of python -m taidpt.kernels.aot>"};
}
}  // namespace

Status run_on_cuda(const taidpt_local_similarity_args &) { return no_kernels(); }
Status compete_on_cuda(const taidpt_local_similarity_args &, float *) { return no_kernels(); }
Status prepare_cuda(int) { return no_kernels(); }

#else

namespace {

// The driver's types and numbers that are used, as its ABI has them.
using Result = int;
using Context = void *;
using Module = void *;
using Function = void *;
constexpr int kMultiprocessors = 16;
constexpr int kCapabilityMajor = 75;
constexpr int kCapabilityMinor = 76;
constexpr int kMaxDynamicShared = 8;
// Above this a kernel's shared memory must be asked for.
constexpr unsigned kFreeShared = 49152;
// Blocks of a grid's second dimension.
constexpr int kMostGridRows = 65535;

struct Driver {
  Result (*init)(unsigned);
  Result (*device_get)(int *, int);
  Result (*attribute)(int *, int, int);
  Result (*current)(Context *);
  Result (*current_device)(int *);
  Result (*retain)(Context *, int);
  Result (*push)(Context);
  Result (*pop)(Context *);
  Result (*load)(Module *, const void *);
  Result (*function)(Function *, Module, const char *);
  Result (*set_attribute)(Function, int, int);
  Result (*launch)(Function, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                   void *, void **, void **);
  Result (*error_name)(Result, const char **);
  std::string problem;  // empty: the driver is there and initialised
};

template <typename Pointer>
bool resolve(void *library, const char *name, Pointer &pointer) {
  pointer = reinterpret_cast<Pointer>(dlsym(library, name));
  return pointer != nullptr;
}

Driver open_driver() {
  Driver driver{};
  void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    driver.problem = "no NVIDIA driver on this machine (libcuda.so.1 was not found)";
    return driver;
  }
  const bool whole = resolve(library, "cuInit", driver.init) &&
                     resolve(library, "cuDeviceGet", driver.device_get) &&
                     resolve(library, "cuDeviceGetAttribute", driver.attribute) &&
                     resolve(library, "cuCtxGetCurrent", driver.current) &&
                     resolve(library, "cuCtxGetDevice", driver.current_device) &&
                     resolve(library, "cuDevicePrimaryCtxRetain", driver.retain) &&
                     resolve(library, "cuCtxPushCurrent_v2", driver.push) &&
                     resolve(library, "cuCtxPopCurrent_v2", driver.pop) &&
                     resolve(library, "cuModuleLoadData", driver.load) &&
                     resolve(library, "cuModuleGetFunction", driver.function) &&
                     resolve(library, "cuFuncSetAttribute", driver.set_attribute) &&
                     resolve(library, "cuLaunchKernel", driver.launch) &&
                     resolve(library, "cuGetErrorName", driver.error_name);
  if (!whole) {
    driver.problem = "libcuda.so.1 is no NVIDIA driver that taidpt knows";
  } else if (const Result result = driver.init(0); result != 0) {
    driver.problem = "cuInit failed with " + std::to_string(result) + ": no GPU can be used";
  }
  return driver;
}

const Driver &driver() {
  static const Driver opened = open_driver();
  return opened;
}

Status failed(const char *call, Result result) {
  const char *name = nullptr;
  driver().error_name(result, &name);
  return {TAIDPT_CUDA_FAILED, std::string(call) + " failed: " + (name ? name : "unknown error")};
}

// Makes a device's context current for a while.
class Scope {
 public:
  Status enter(int device) {
    if (!driver().problem.empty()) return {TAIDPT_UNSUPPORTED, driver().problem};
    if (device == TAIDPT_CUDA_CURRENT) return enter_current();
    int handle = 0;
    if (const Result result = driver().device_get(&handle, device); result != 0) {
      return failed("cuDeviceGet", result);
    }
    Context primary = nullptr;
    if (const Result result = driver().retain(&primary, handle); result != 0) {
      return failed("cuDevicePrimaryCtxRetain", result);
    }
    if (const Result result = driver().push(primary); result != 0) {
      return failed("cuCtxPushCurrent", result);
    }
    pushed_ = true;
    context = primary;
    this->device = handle;
    return {};
  }

  ~Scope() {
    Context ignored = nullptr;
    if (pushed_) driver().pop(&ignored);
  }

  Context context = nullptr;
  int device = 0;

 private:
  Status enter_current() {
    const Result result = driver().current(&context);
    if (result != 0) return failed("cuCtxGetCurrent", result);
    if (context == nullptr) return {TAIDPT_UNSUPPORTED, "no CUDA context is current"};
    const Result asked = driver().current_device(&device);
    return asked == 0 ? Status{} : failed("cuCtxGetDevice", asked);
  }

  bool pushed_ = false;
};

int attribute(int device, int which) {
  int value = 0;
  return driver().attribute(&value, which, device) == 0 ? value : 0;
}

int architecture_of(int device) {
  return 10 * attribute(device, kCapabilityMajor) + attribute(device, kCapabilityMinor);
}

// The exact architecture's machine code, else PTX that the driver compiles for a newer one.
const taidpt_kernel *find(int architecture, int dtype, int kind) {
  const taidpt_kernel *fallback = nullptr;
  for (const taidpt_kernel &kernel : taidpt_kernels) {
    if (kernel.dtype != dtype || kernel.kind != kind) continue;
    if (kernel.is_ptx == 0 && kernel.architecture == architecture) return &kernel;
    if (kernel.is_ptx != 0 && kernel.architecture <= architecture) fallback = &kernel;
  }
  return fallback;
}

const char *type_name(int dtype) {
  return dtype == TAIDPT_F32 ? "fp32" : dtype == TAIDPT_F16 ? "fp16" : "bf16";
}

Status unsupported(int architecture, int dtype) {
  std::string known;
  int before = 0;
  for (const taidpt_kernel &kernel : taidpt_kernels) {
    if (kernel.is_ptx != 0 || kernel.dtype != dtype || kernel.architecture == before) continue;
    before = kernel.architecture;
    known += (known.empty() ? "sm_" : ", sm_") + std::to_string(before);
  }
  return {TAIDPT_UNSUPPORTED, std::string("no ") + type_name(dtype) + " kernel for sm_" +
                                  std::to_string(architecture) + ": this build has " + known + ", and PTX for sm_80 and newer"};
}

Status load(Context context, const taidpt_kernel &kernel, Function &function) {
  static std::mutex mutex;
  static std::map<std::pair<Context, const taidpt_kernel *>, Function> loaded;
  const std::lock_guard<std::mutex> lock(mutex);
  Function &entry = loaded[{context, &kernel}];
  if (entry == nullptr) {
    Module module = nullptr;
    if (const Result result = driver().load(&module, kernel.image); result != 0) {
      return failed("cuModuleLoadData", result);
    }
    Function found = nullptr;
    if (const Result result = driver().function(&found, module, kernel.entry); result != 0) {
      return failed("cuModuleGetFunction", result);
    }
    if (kernel.shared_bytes > kFreeShared) {
      const Result result = driver().set_attribute(found, kMaxDynamicShared,
                                                   static_cast<int>(kernel.shared_bytes));
      if (result != 0) return failed("cuFuncSetAttribute", result);
    }
    entry = found;
  }
  function = entry;
  return {};
}

bool aligned(const void *pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

unsigned ceil_div(int32_t count, unsigned block) { return (count + block - 1) / block; }

unsigned blocks(const taidpt_local_similarity_args &args, const taidpt_kernel &kernel) {
  return ceil_div(args.class_count, kernel.block) * ceil_div(args.batch, kernel.images);
}

const taidpt_kernel *choose(const taidpt_local_similarity_args &args, int device) {
  const int architecture = architecture_of(device);
  const bool packed = args.values == nullptr && args.dim % 64 == 0 && aligned(args.patches) &&
                      aligned(args.class_embeddings);
  if (!packed) return find(architecture, args.dtype, TAIDPT_GENERAL);
  const taidpt_kernel *wide = find(architecture, args.dtype, TAIDPT_WIDE);
  // large tiles only where they fill the GPU
  const unsigned processors = static_cast<unsigned>(attribute(device, kMultiprocessors));
  if (wide != nullptr && blocks(args, *wide) >= processors) return wide;
  return find(architecture, args.dtype, TAIDPT_NARROW);
}

// Finds a kernel's function in this context and launches it.
Status launch(const Scope &scope, const taidpt_kernel &kernel, unsigned grid_x, unsigned grid_y,
              void *stream, void **parameters) {
  Function function = nullptr;
  if (Status status = load(scope.context, kernel, function); status.code != TAIDPT_OK) {
    return status;
  }
  const Result result = driver().launch(function, grid_x, grid_y, 1, kernel.threads, 1, 1,
                                        kernel.shared_bytes, stream, parameters, nullptr);
  return result == 0 ? Status{} : failed("cuLaunchKernel", result);
}

// What the kernels read from the caller's arguments, each where a parameter can point to it.
struct Operands {
  explicit Operands(const taidpt_local_similarity_args &args)
      : x(args.patches),
        bank(args.class_embeddings),
        values(args.values == nullptr ? args.class_embeddings : args.values),
        mask(args.mask),
        out(args.similarities),
        stride_image(args.patch_count * args.dim),
        stride(args.dim),
        use_mask(args.mask == nullptr ? 0 : 1),
        batch(args.batch),
        patches(args.patch_count),
        classes(args.class_count),
        dim(args.dim),
        temperature(args.temperature) {}

  const void *x;
  const void *bank;
  const void *values;
  const void *mask;
  float *out;
  int32_t stride_image;
  int32_t stride;
  int32_t use_mask;
  int32_t batch;
  int32_t patches;
  int32_t classes;
  int32_t dim;
  float temperature;
  void *reserved = nullptr;
};

template <typename... Parts>
std::array<void *, sizeof...(Parts)> pointers(Parts &...parts) {
  return {const_cast<void *>(static_cast<const void *>(&parts))...};
}

}  // namespace

Status run_on_cuda(const taidpt_local_similarity_args &args) {
  Scope scope;
  if (Status status = scope.enter(args.device); status.code != TAIDPT_OK) return status;
  const taidpt_kernel *kernel = choose(args, scope.device);
  if (kernel == nullptr) return unsupported(architecture_of(scope.device), args.dtype);
  Operands o(args);
  auto parameters = pointers(o.x, o.bank, o.values, o.mask, o.out, o.stride_image, o.stride, o.stride,
                             o.stride, o.use_mask, o.batch, o.patches, o.classes, o.dim,
                             o.temperature, o.reserved, o.reserved);
  static_assert(parameters.size() == TAIDPT_GENERAL_PARAMETERS, "the kernels take others");
  return launch(scope, *kernel, blocks(args, *kernel), 1, args.stream, parameters.data());
}

Status compete_on_cuda(const taidpt_local_similarity_args &args, float *workspace) {
  Scope scope;
  if (Status status = scope.enter(args.device); status.code != TAIDPT_OK) return status;
  const int architecture = architecture_of(scope.device);
  const taidpt_kernel *totals = find(architecture, args.dtype, TAIDPT_TOTALS);
  const taidpt_kernel *best = find(architecture, args.dtype, TAIDPT_BEST);
  if (totals == nullptr || best == nullptr) return unsupported(architecture, args.dtype);
  if (args.batch > kMostGridRows) {
    return {TAIDPT_BAD_INPUT, "competing similarity takes at most 65535 images on a GPU (" +
                                  sizes(args) + ")"};
  }
  Operands o(args);
  float *inverse = workspace;
  float *total = workspace + static_cast<size_t>(args.batch) * args.patch_count;
  auto first = pointers(o.x, o.bank, inverse, total, o.stride_image, o.stride, o.stride, o.patches,
                        o.classes, o.dim, o.temperature, o.reserved, o.reserved);
  static_assert(first.size() == TAIDPT_TOTALS_PARAMETERS, "the kernel takes others");
  auto second = pointers(o.x, o.bank, o.mask, inverse, total, o.out, o.stride_image, o.stride,
                         o.stride, o.use_mask, o.patches, o.classes, o.dim, o.temperature,
                         o.reserved, o.reserved);
  static_assert(second.size() == TAIDPT_BEST_PARAMETERS, "the kernel takes others");
  const unsigned images = static_cast<unsigned>(args.batch);
  const Status status = launch(scope, *totals, ceil_div(args.patch_count, totals->block), images,
                               args.stream, first.data());
  if (status.code != TAIDPT_OK) return status;
  return launch(scope, *best, ceil_div(args.class_count, best->block), images, args.stream,
                second.data());
}

Status prepare_cuda(int device) {
  Scope scope;
  if (Status status = scope.enter(device); status.code != TAIDPT_OK) return status;
  const int architecture = architecture_of(scope.device);
  for (const int dtype : {TAIDPT_F32, TAIDPT_F16, TAIDPT_BF16}) {
    for (const int kind :
         {TAIDPT_WIDE, TAIDPT_NARROW, TAIDPT_GENERAL, TAIDPT_TOTALS, TAIDPT_BEST}) {
      const taidpt_kernel *kernel = find(architecture, dtype, kind);
      if (kernel == nullptr && dtype == TAIDPT_BF16) continue;  // not before sm_80
      if (kernel == nullptr) return unsupported(architecture, dtype);
      Function ignored = nullptr;
      if (Status status = load(scope.context, *kernel, ignored); status.code != TAIDPT_OK) {
        return status;
      }
    }
  }
  return {};
}

#endif

}  // namespace taidpt
