// The operator in portable C++17. Memory: the unit patches of one image and a row of P a thread.
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
// Classes that one thread takes at a time; fewer multiplications than this stay on one thread.
constexpr int kClassBlock = 16;
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

class Image {
 public:
  Image(const taidpt_local_similarity_args &args, const std::vector<float> &rows, int index)
      : args_(args), rows_(rows), index_(index) {}

  // Classes [first, last); false: a class row is not finite.
  bool classes(int first, int last) const {
    const size_t count = rows_.size() / args_.dim;
    std::vector<float> bank(args_.dim);
    std::vector<float> similarity(count);
    std::vector<float> value_row(args_.values == nullptr ? 0 : args_.dim);
    std::vector<float> counted(args_.values == nullptr ? 0 : count);
    for (int c = first; c < last; ++c) {
      if (!against(args_.class_embeddings, c, bank, similarity)) return false;
      if (args_.values != nullptr && !against(args_.values, c, value_row, counted)) return false;
      args_.similarities[static_cast<int64_t>(index_) * args_.class_count + c] = weighed_sum(
          similarity, args_.values == nullptr ? similarity : counted, args_.temperature);
    }
    return true;
  }

 private:
  bool against(const void *bank, int c, std::vector<float> &row, std::vector<float> &out) const {
    load_row(bank, args_.dtype, static_cast<int64_t>(c) * args_.dim, args_.dim, row.data());
    if (!all_finite(row.data(), args_.dim)) return false;
    for (size_t p = 0; p < out.size(); ++p) {
      out[p] = dot(rows_.data() + p * args_.dim, row.data(), args_.dim);
    }
    return true;
  }

  const taidpt_local_similarity_args &args_;
  const std::vector<float> &rows_;
  int index_;
};

bool run_image(const taidpt_local_similarity_args &args, const std::vector<float> &rows, int index) {
  const Image image(args, rows, index);
  const int blocks = (args.class_count + kClassBlock - 1) / kClassBlock;
  std::atomic<int> next{0};
  std::atomic<bool> finite{true};
  const auto work = [&] {
    for (int block = next++; block < blocks && finite; block = next++) {
      const int first = block * kClassBlock;
      if (!image.classes(first, std::min(first + kClassBlock, args.class_count))) finite = false;
    }
  };
  const double multiplications = static_cast<double>(rows.size()) * args.class_count;
  const int cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  std::vector<std::thread> helpers;
  for (int i = 1; i < std::min(cores, blocks) && multiplications > kThreadedWork; ++i) {
    helpers.emplace_back(work);
  }
  work();
  for (std::thread &helper : helpers) helper.join();
  return finite;
}

}  // namespace

Status run_on_cpu(const taidpt_local_similarity_args &args) {
  std::vector<float> rows;
  for (int image = 0; image < args.batch; ++image) {
    if (!unit_patches(args, image, rows)) {
      return {TAIDPT_BAD_INPUT, "patches hold NaN or infinity in image " + std::to_string(image) +
                                    " (" + sizes(args) + ")"};
    }
    if (!run_image(args, rows, image)) {
      return {TAIDPT_BAD_INPUT,
              "class_embeddings or values hold NaN or infinity (" + sizes(args) + ")"};
    }
  }
  return {};
}

}  // namespace taidpt
