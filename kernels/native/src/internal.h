// What the library's sources share; nothing of this is exported.
#pragma once

#include <string>

#include "taidpt/local_similarity.h"

namespace taidpt {

// A status of the C interface with the message that taidpt_last_error() will give.
struct Status {
  int code = TAIDPT_OK;
  std::string message;
};

Status run_on_cpu(const taidpt_local_similarity_args &args);
Status run_on_cuda(const taidpt_local_similarity_args &args);
Status compete_on_cpu(const taidpt_local_similarity_args &args);
Status compete_on_cuda(const taidpt_local_similarity_args &args, float *workspace);
Status prepare_cuda(int device);
int kernel_count();

// "B = 1, P = 49, C = 80, D = 512"
std::string sizes(const taidpt_local_similarity_args &args);

}  // namespace taidpt
