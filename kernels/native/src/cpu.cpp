// Both read-outs in portable C++17. Memory: the unit patches of one image and a row of P a thread.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <thread>
#include <vector>

#include "internal.h"

namespace taidpt {
namespace {

constexpr float kNormFloor = 1e-12f;
// Independent partial sums let the compiler use vector registers without reordering freely.
constexpr int kLanes = 16;
// Classes (or patches) that one thread takes at a time; fewer multiplications than this stay on one
// thread.
constexpr int kBlock = 16;
constexpr double kThreadedWork = 4e6;

float half_to_float(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  const uint32_t exponent = (bits >> 10) & 0x1fu;
  const uint32_t fraction = bits & 0x3ffu;
  if (exponent == 0) {  // zero and subnormals: fraction * 2^-24
    const float value = static_cast<float>(fraction) * 5.9604644775390625e-8f;
    return sign != 0 ? -value : value;
  }
  const uint32_t wide = exponent == 31 ? 255u : exponent + 112u;
  const uint32_t word = sign | (wide << 23) | (fraction << 13);
  float value;
  std::memcpy(&value, &word, sizeof value);
  return value;
}

float bfloat_to_float(uint16_t bits) {
  const uint32_t word = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &word, sizeof value);
  return value;
}

void load_row(const void *source, int dtype, int64_t first, int count, float *row) {
  if (dtype == TAIDPT_F32) {
    std::memcpy(row, static_cast<const float *>(source) + first, sizeof(float) * count);
    return;
  }
  const uint16_t *halves = static_cast<const uint16_t *>(source) + first;
  const auto widen = dtype == TAIDPT_BF16 ? bfloat_to_float : half_to_float;
  for (int i = 0; i < count; ++i) row[i] = widen(halves[i]);
}

float dot(const float *left, const float *right, int count) {
  float lanes[kLanes] = {};
  int i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += left[i + lane] * right[i + lane];
  }
  float sum = 0.0f;
  for (; i < count; ++i) sum += left[i] * right[i];
  for (float lane : lanes) sum += lane;
  return sum;
}

bool all_finite(const float *row, int count) {
  return std::all_of(row, row + count, [](float value) { return std::isfinite(value); });
}

// Patches of one image that count, each divided by its length; false: something is not finite.
bool unit_patches(const taidpt_local_similarity_args &args, int image, std::vector<float> &rows) {
  rows.clear();
  std::vector<float> row(args.dim);
  for (int p = 0; p < args.patch_count; ++p) {
    const int64_t place = static_cast<int64_t>(image) * args.patch_count + p;
    if (args.mask != nullptr && args.mask[place] == 0) continue;
    load_row(args.patches, args.dtype, place * args.dim, args.dim, row.data());
    if (!all_finite(row.data(), args.dim)) return false;
    const float length = std::sqrt(dot(row.data(), row.data(), args.dim));
    const float inverse = 1.0f / std::max(length, kNormFloor);
    for (float value : row) rows.push_back(value * inverse);
  }
  return true;
}

// Softmax-weighted sum over the patches; two passes, since the row of P is at hand.
float weighed_sum(const std::vector<float> &similarity, const std::vector<float> &counted,
                  float temperature) {
  if (similarity.empty()) return 0.0f;
  const float peak = *std::max_element(similarity.begin(), similarity.end());
  float total = 0.0f;
  float sum = 0.0f;
  for (size_t p = 0; p < similarity.size(); ++p) {
    const float weight = std::exp(temperature * (similarity[p] - peak));
    total += weight;
    sum += weight * counted[p];
  }
  return sum / total;
}

// One image's patches against class rows.
class Image {
 public:
  Image(const taidpt_local_similarity_args &args, const std::vector<float> &rows, int index)
      : args_(args), rows_(rows), index_(index) {}

  int patches() const { return static_cast<int>(rows_.size() / args_.dim); }

  // The first read-out of classes [first, last); false: a class row is not finite.
  bool weigh(int first, int last) const {
    const bool valued = args_.values != nullptr;
    std::vector<float> row(args_.dim);
    std::vector<float> similarity(patches());
    std::vector<float> counted(valued ? patches() : 0);
    for (int c = first; c < last; ++c) {
      if (!against(args_.class_embeddings, c, row, 0, similarity)) return false;
      if (valued && !against(args_.values, c, row, 0, counted)) return false;
      out(c) = weighed_sum(similarity, valued ? counted : similarity, args_.temperature);
    }
    return true;
  }

  // For patches [first, last): the log of the sum over classes of e^logit; false: as above.
  bool total(int first, int last, std::vector<float> &log_totals) const {
    std::vector<float> row(args_.dim);
    std::vector<float> similarity(last - first);
    std::vector<float> peak(last - first, -std::numeric_limits<float>::infinity());
    std::vector<float> sum(last - first, 0.0f);
    for (int c = 0; c < args_.class_count; ++c) {
      if (!against(args_.class_embeddings, c, row, first, similarity)) return false;
      for (int p = 0; p < last - first; ++p) {
        const float logit = args_.temperature * similarity[p];
        const float higher = std::max(peak[p], logit);
        sum[p] = sum[p] * std::exp(peak[p] - higher) + std::exp(logit - higher);
        peak[p] = higher;
      }
    }
    for (int p = first; p < last; ++p) {
      log_totals[p] = peak[p - first] + std::log(sum[p - first]);
    }
    return true;
  }

  // The second read-out of classes [first, last); false: as above.
  bool best(int first, int last, const std::vector<float> &log_totals) const {
    std::vector<float> row(args_.dim);
    std::vector<float> similarity(patches());
    for (int c = first; c < last; ++c) {
      if (!against(args_.class_embeddings, c, row, 0, similarity)) return false;
      float share = -std::numeric_limits<float>::infinity();
      for (int p = 0; p < patches(); ++p) {
        share = std::max(share, args_.temperature * similarity[p] - log_totals[p]);
      }
      out(c) = std::exp(share);
    }
    return true;
  }

 private:
  float &out(int c) const {
    return args_.similarities[static_cast<int64_t>(index_) * args_.class_count + c];
  }

  // Products of a class row with the patches from `first` on, as many as fit in `products`.
  bool against(const void *bank, int c, std::vector<float> &row, int first,
               std::vector<float> &products) const {
    load_row(bank, args_.dtype, static_cast<int64_t>(c) * args_.dim, args_.dim, row.data());
    if (!all_finite(row.data(), args_.dim)) return false;
    for (size_t p = 0; p < products.size(); ++p) {
      products[p] = dot(rows_.data() + (first + p) * args_.dim, row.data(), args_.dim);
    }
    return true;
  }

  const taidpt_local_similarity_args &args_;
  const std::vector<float> &rows_;
  int index_;
};

// Calls work(first, last) for blocks of [0, count), on several threads where the work is worth it;
// false as soon as one of them was.
template <typename Work>
bool in_blocks(int count, double multiplications, Work work) {
  const int blocks = (count + kBlock - 1) / kBlock;
  std::atomic<int> next{0};
  std::atomic<bool> finite{true};
  const auto run = [&] {
    for (int block = next++; block < blocks && finite; block = next++) {
      const int first = block * kBlock;
      if (!work(first, std::min(first + kBlock, count))) finite = false;
    }
  };
  const int cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  std::vector<std::thread> helpers;
  for (int i = 1; i < std::min(cores, blocks) && multiplications > kThreadedWork; ++i) {
    helpers.emplace_back(run);
  }
  run();
  for (std::thread &helper : helpers) helper.join();
  return finite;
}

// Reads each image's patches and runs `read_out` on it.
template <typename ReadOut>
Status each_image(const taidpt_local_similarity_args &args, ReadOut read_out) {
  std::vector<float> rows;
  for (int index = 0; index < args.batch; ++index) {
    if (!unit_patches(args, index, rows)) {
      return {TAIDPT_BAD_INPUT, "patches hold NaN or infinity in image " + std::to_string(index) +
                                    " (" + sizes(args) + ")"};
    }
    const double multiplications = static_cast<double>(rows.size()) * args.class_count;
    if (!read_out(Image(args, rows, index), multiplications)) {
      return {TAIDPT_BAD_INPUT,
              "class_embeddings or values hold NaN or infinity (" + sizes(args) + ")"};
    }
  }
  return {};
}

}  // namespace

Status run_on_cpu(const taidpt_local_similarity_args &args) {
  return each_image(args, [&](const Image &image, double multiplications) {
    return in_blocks(args.class_count, multiplications,
                     [&](int first, int last) { return image.weigh(first, last); });
  });
}

Status compete_on_cpu(const taidpt_local_similarity_args &args) {
  std::vector<float> log_totals;
  return each_image(args, [&](const Image &image, double multiplications) {
    log_totals.resize(image.patches());
    return in_blocks(image.patches(), multiplications,
                     [&](int first, int last) { return image.total(first, last, log_totals); }) &&
           in_blocks(args.class_count, multiplications, [&](int first, int last) {
             return image.best(first, last, log_totals);
           });
  });
}

}  // namespace taidpt
