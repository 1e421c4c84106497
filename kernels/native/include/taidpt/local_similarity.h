/* Local similarity behind a plain C interface, on a CPU or on an NVIDIA GPU: two read-outs.
 *
 *   local similarity:      Y[b, c] = sum_p softmax_p(temperature * x[b, p] . t[c]) * (x[b, p] . v[c])
 *   competing similarity:  Y[b, c] = max_p softmax_c(temperature * x[b, p] . t[c])
 *
 * x are the patches divided by their lengths, v = t unless values are given. The GPU driver is
 * opened at the first call for a GPU; a machine without one can load this library.
 */
#ifndef TAIDPT_LOCAL_SIMILARITY_H
#define TAIDPT_LOCAL_SIMILARITY_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define TAIDPT_API __attribute__((visibility("default")))
#else
#define TAIDPT_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define TAIDPT_ABI_VERSION 1

/* bf16 needs compute capability 8.0 on a GPU. */
enum { TAIDPT_F32 = 0, TAIDPT_F16 = 1, TAIDPT_BF16 = 2 };

/* Devices beside the ordinals 0, 1, … of GPUs. */
enum { TAIDPT_CPU = -1, TAIDPT_CUDA_CURRENT = -2 };

enum {
  TAIDPT_OK = 0,
  TAIDPT_BAD_INPUT = 1,   /* shapes, types, values; nothing was computed */
  TAIDPT_UNSUPPORTED = 2, /* no GPU, no driver, no kernel for this architecture */
  TAIDPT_CUDA_FAILED = 3  /* the driver refused */
};

typedef struct taidpt_local_similarity_args {
  const void *patches;          /* [B, P, D] packed, of `dtype`; need not be of unit length */
  const void *class_embeddings; /* [C, D] packed, of `dtype`, unit rows */
  const void *values;           /* [C, D] packed, of `dtype`; null: the class embeddings */
  const uint8_t *mask;          /* [B, P], 1 where a patch counts, else 0; null: all count */
  float *similarities;          /* [B, C], written */
  int32_t batch;                /* B */
  int32_t patch_count;          /* P */
  int32_t class_count;          /* C */
  int32_t dim;                  /* D */
  float temperature;            /* above 0 */
  int32_t dtype;                /* TAIDPT_F32, TAIDPT_F16 or TAIDPT_BF16 */
  int32_t device;               /* TAIDPT_CPU, TAIDPT_CUDA_CURRENT or an ordinal */
  void *stream;                 /* CUstream or cudaStream_t; null: the default stream */
} taidpt_local_similarity_args;

/* Compute; on a GPU only enqueue. Returns a status from above. An image whose mask is all 0 gets 0.
 * On a CPU, NaN and infinity are refused; a GPU's memory is not checked. */
TAIDPT_API int taidpt_local_similarity(const taidpt_local_similarity_args *args);

/* The second read-out, with the same statuses: shares in 0 … 1 of classes that compete within each
 * patch, the largest over the patches. `values` must be null. `workspace` is memory of the device,
 * taidpt_competing_workspace(args) bytes on 4-byte addresses, that nothing else uses until the call
 * is done; null where that is 0. */
TAIDPT_API int taidpt_competing_similarity(const taidpt_local_similarity_args *args,
                                           void *workspace);

/* Bytes of workspace that a call with these sizes and this device needs: 8 B P on a GPU, 0 on a CPU. */
TAIDPT_API size_t taidpt_competing_workspace(const taidpt_local_similarity_args *args);

/* Load a GPU's kernels now, so that a later call may be captured into a CUDA graph. */
TAIDPT_API int taidpt_prepare(int32_t device);

/* What went wrong in this thread's last call that did not return TAIDPT_OK; never null. */
TAIDPT_API const char *taidpt_last_error(void);

/* Number of embedded GPU kernels; 0 in a build for CPUs alone. */
TAIDPT_API int taidpt_kernel_count(void);

/* TAIDPT_ABI_VERSION of the library, to compare with the header's. */
TAIDPT_API int taidpt_abi_version(void);

#ifdef __cplusplus
}
#endif

#endif
