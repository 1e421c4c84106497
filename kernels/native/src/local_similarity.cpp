// The C interface: checks, dispatch, and errors kept a thread.
#include <cmath>
#include <exception>

#include "internal.h"

namespace taidpt {

std::string sizes(const taidpt_local_similarity_args &args) {
  return "B = " + std::to_string(args.batch) + ", P = " + std::to_string(args.patch_count) +
         ", C = " + std::to_string(args.class_count) + ", D = " + std::to_string(args.dim);
}

namespace {

thread_local std::string last_error;

Status bad(const std::string &what, const taidpt_local_similarity_args &args) {
  return {TAIDPT_BAD_INPUT, what + " (" + sizes(args) + ")"};
}

Status check(const taidpt_local_similarity_args &args) {
  const bool some = args.batch > 0;  // an empty array may well be a null pointer
  if (some && (args.patches == nullptr || args.class_embeddings == nullptr ||
               args.similarities == nullptr)) {
    return bad("patches, class_embeddings and similarities must not be null", args);
  }
  if (args.batch < 0 || args.patch_count <= 0 || args.class_count <= 0 || args.dim <= 0) {
    return bad("expected B of 0 or more and P, C, D above 0", args);
  }
  if (static_cast<int64_t>(args.patch_count) * args.dim > INT32_MAX) {
    return bad("P * D must be below 2^31", args);
  }
  if (!(args.temperature > 0) || !std::isfinite(args.temperature)) {
    return bad("expected a finite temperature above 0, received " + std::to_string(args.temperature),
               args);
  }
  if (args.dtype != TAIDPT_F32 && args.dtype != TAIDPT_F16 && args.dtype != TAIDPT_BF16) {
    return bad("expected dtype 0 (fp32), 1 (fp16) or 2 (bf16), received " +
                   std::to_string(args.dtype),
               args);
  }
  if (args.device < TAIDPT_CUDA_CURRENT) {
    return bad("expected device -1 (CPU), -2 (current GPU) or an ordinal, received " +
                   std::to_string(args.device),
               args);
  }
  return {};
}

Status check_competing(const taidpt_local_similarity_args &args, const void *workspace) {
  if (args.values != nullptr) {
    return bad("competing similarity has no values: they must be null", args);
  }
  if (workspace == nullptr && taidpt_competing_workspace(&args) > 0) {
    return bad("competing similarity needs a workspace on a GPU, see taidpt_competing_workspace",
               args);
  }
  return {};
}

int report(const Status &status) {
  if (status.code != TAIDPT_OK) last_error = status.message;
  return status.code;
}

// Runs what gives a status; no exception, as of missing memory or threads, leaves C.
template <typename Call>
int guarded(Call call) {
  try {
    return report(call());
  } catch (const std::exception &error) {
    return report({TAIDPT_UNSUPPORTED, error.what()});
  }
}

}  // namespace
}  // namespace taidpt

extern "C" {

int taidpt_local_similarity(const taidpt_local_similarity_args *args) {
  using namespace taidpt;
  return guarded([&]() -> Status {
    if (args == nullptr) return {TAIDPT_BAD_INPUT, "args must not be null"};
    const Status status = check(*args);
    if (status.code != TAIDPT_OK || args->batch == 0) return status;
    return args->device == TAIDPT_CPU ? run_on_cpu(*args) : run_on_cuda(*args);
  });
}

int taidpt_competing_similarity(const taidpt_local_similarity_args *args, void *workspace) {
  using namespace taidpt;
  return guarded([&]() -> Status {
    if (args == nullptr) return {TAIDPT_BAD_INPUT, "args must not be null"};
    Status status = check(*args);
    if (status.code == TAIDPT_OK) status = check_competing(*args, workspace);
    if (status.code != TAIDPT_OK || args->batch == 0) return status;
    return args->device == TAIDPT_CPU ? compete_on_cpu(*args)
                                      : compete_on_cuda(*args, static_cast<float *>(workspace));
  });
}

size_t taidpt_competing_workspace(const taidpt_local_similarity_args *args) {
  if (args == nullptr || args->device == TAIDPT_CPU) return 0;
  if (args->batch <= 0 || args->patch_count <= 0) return 0;
  return 2 * sizeof(float) * static_cast<size_t>(args->batch) * args->patch_count;
}

int taidpt_prepare(int32_t device) {
  using namespace taidpt;
  if (device == TAIDPT_CPU) return TAIDPT_OK;
  return guarded([device] { return prepare_cuda(device); });
}

const char *taidpt_last_error(void) { return taidpt::last_error.c_str(); }

int taidpt_kernel_count(void) { return taidpt::kernel_count(); }

int taidpt_abi_version(void) { return TAIDPT_ABI_VERSION; }

}  // extern "C"
