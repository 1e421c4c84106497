// The C library on a CPU against the definition in double precision; needs no Python and no GPU.
#include <taidpt/local_similarity.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

namespace {

// Products of unit rows in fp32 differ from double precision by less; tests/kernels/cases.py has the
// same bound.
constexpr double kTolerance = 1e-5;
int failures = 0;

void expect(bool holds, char const *what) {
  if (holds) return;
  ++failures;
  std::fprintf(stderr, "failed: %s (last error: %s)\n", what, taidpt_last_error());
}

struct Problem {
  int B, P, C, D;
  float temperature;
  std::vector<float> x, t, v;
  std::vector<uint8_t> mask;
};

Problem make(int B, int P, int C, int D) {
  std::mt19937 engine(7);
  std::normal_distribution<float> normal;
  Problem problem{B, P, C, D, 12.5f, {}, {}, {}, {}};
  for (int i = 0; i < B * P * D; ++i) problem.x.push_back(normal(engine));
  for (int i = 0; i < C * D; ++i) problem.t.push_back(normal(engine) / std::sqrt(float(D)));
  for (int i = 0; i < C * D; ++i) problem.v.push_back(normal(engine) / std::sqrt(float(D)));
  for (int i = 0; i < B * P; ++i) problem.mask.push_back(i < P ? 0 : uint8_t(engine() % 3 > 0));
  return problem;
}

double dot(float const *left, float const *right, int count) {
  double sum = 0;
  for (int i = 0; i < count; ++i) sum += double(left[i]) * right[i];
  return sum;
}

// Product of a patch, divided by its length, with a class row.
double similarity(Problem const &p, int b, int i, std::vector<float> const &bank, int c) {
  float const *x = &p.x[size_t((b * p.P + i) * p.D)];
  double const length = std::max(std::sqrt(dot(x, x, p.D)), 1e-12);
  return dot(x, &bank[size_t(c * p.D)], p.D) / length;
}

bool counts(Problem const &p, int b, int i, bool masked) {
  return !masked || p.mask[size_t(b * p.P + i)] != 0;
}

double defined(Problem const &p, int b, int c, bool masked, bool valued) {
  double const lowest = -std::numeric_limits<double>::infinity();
  std::vector<double> logits(size_t(p.P), lowest), weighed(size_t(p.P), 0.0);
  for (int i = 0; i < p.P; ++i) {
    if (!counts(p, b, i, masked)) continue;
    logits[size_t(i)] = p.temperature * similarity(p, b, i, p.t, c);
    weighed[size_t(i)] = similarity(p, b, i, valued ? p.v : p.t, c);
  }
  double const peak = *std::max_element(logits.begin(), logits.end());
  if (peak == lowest) return 0;
  double total = 0, sum = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    double const weight = std::exp(logits[i] - peak);
    total += weight;
    sum += weight * weighed[i];
  }
  return sum / total;
}

double defined_share(Problem const &p, int b, int c, bool masked) {
  double best = 0;
  for (int i = 0; i < p.P; ++i) {
    if (!counts(p, b, i, masked)) continue;
    double total = 0;
    for (int other = 0; other < p.C; ++other) {
      total += std::exp(p.temperature * similarity(p, b, i, p.t, other));
    }
    best = std::max(best, std::exp(p.temperature * similarity(p, b, i, p.t, c)) / total);
  }
  return best;
}

taidpt_local_similarity_args arguments(Problem const &p, std::vector<float> &out) {
  taidpt_local_similarity_args args{};
  args.patches = p.x.data();
  args.class_embeddings = p.t.data();
  args.similarities = out.data();
  args.batch = p.B;
  args.patch_count = p.P;
  args.class_count = p.C;
  args.dim = p.D;
  args.temperature = p.temperature;
  args.dtype = TAIDPT_F32;
  args.device = TAIDPT_CPU;
  return args;
}

// The largest difference between what was written and a definition by image and class.
template <typename Definition>
double largest_error(Problem const &p, std::vector<float> const &out, Definition definition) {
  double largest = 0;
  for (int b = 0; b < p.B; ++b) {
    for (int c = 0; c < p.C; ++c) {
      double const error = std::fabs(out[size_t(b * p.C + c)] - definition(b, c));
      largest = std::isnan(error) ? 1.0 : std::max(largest, error);
    }
  }
  return largest;
}

void check_values(Problem const &p, bool masked, bool valued) {
  std::vector<float> out(size_t(p.B * p.C), std::nanf(""));
  taidpt_local_similarity_args args = arguments(p, out);
  if (masked) args.mask = p.mask.data();
  if (valued) args.values = p.v.data();
  expect(taidpt_local_similarity(&args) == TAIDPT_OK, "a valid call succeeds");
  double const largest =
      largest_error(p, out, [&](int b, int c) { return defined(p, b, c, masked, valued); });
  std::printf("B %d P %d C %d D %d mask %d values %d: largest error %.1e\n", p.B, p.P, p.C, p.D,
              masked, valued, largest);
  expect(largest <= kTolerance, "similarities equal the definition");
}

void check_shares(Problem const &p, bool masked) {
  std::vector<float> out(size_t(p.B * p.C), std::nanf(""));
  taidpt_local_similarity_args args = arguments(p, out);
  if (masked) args.mask = p.mask.data();
  expect(taidpt_competing_workspace(&args) == 0, "a CPU needs no workspace");
  expect(taidpt_competing_similarity(&args, nullptr) == TAIDPT_OK, "a valid call succeeds");
  double const largest =
      largest_error(p, out, [&](int b, int c) { return defined_share(p, b, c, masked); });
  std::printf("B %d P %d C %d D %d mask %d shares: largest error %.1e\n", p.B, p.P, p.C, p.D,
              masked, largest);
  expect(largest <= kTolerance, "shares equal the definition");
}

void check_refusals() {
  Problem const p = make(1, 3, 5, 8);
  std::vector<float> out(5, 7.0f);
  taidpt_local_similarity_args args = arguments(p, out);
  args.patches = nullptr;
  expect(taidpt_local_similarity(&args) == TAIDPT_BAD_INPUT, "a null pointer is refused");
  expect(std::strstr(taidpt_last_error(), "null") != nullptr, "the message names the null pointer");
  args = arguments(p, out);
  args.temperature = 0;
  expect(taidpt_local_similarity(&args) == TAIDPT_BAD_INPUT, "temperature 0 is refused");
  expect(out[0] == 7.0f, "a refused call writes nothing");
}

}  // namespace

int main() {
  expect(taidpt_abi_version() == TAIDPT_ABI_VERSION, "library and header have one version");
  for (Problem const &p : {make(1, 1, 1, 1), make(2, 196, 100, 64), make(3, 50, 81, 200)}) {
    for (bool masked : {false, true}) {
      for (bool valued : {false, true}) check_values(p, masked, valued);
    }
  }
  for (Problem const &p : {make(1, 1, 1, 1), make(2, 20, 30, 64)}) {
    for (bool masked : {false, true}) check_shares(p, masked);
  }
  check_refusals();
  return failures == 0 ? 0 : 1;
}
