// A libcuda.so.1 that launches nothing: it writes down what the C library asks of a driver.
//
// TAIDPT_STUB_ARCH: compute capability, 87 for 8.7. TAIDPT_STUB_SMS: multiprocessors.
// TAIDPT_STUB_FAIL: a function that refuses with error 700. TAIDPT_STUB_CONTEXT: 0 for no current one.
// TAIDPT_STUB_SIZES: bytes of each kernel argument, "8,8,4"; the launch reads so many of each. Of a
// second launch in the same call they stand behind a semicolon.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sstream>
#include <string>

namespace {

std::string calls;
int pushed = 0;
int launches = 0;  // in this call
// Modules and functions are numbered from 1 on.
uintptr_t next_handle = 1;

int setting(const char *name, int otherwise) {
  const char *text = std::getenv(name);
  return text == nullptr ? otherwise : std::atoi(text);
}

int asked(const char *name) {
  const char *fails = std::getenv("TAIDPT_STUB_FAIL");
  return fails != nullptr && std::strcmp(fails, name) == 0 ? 700 : 0;
}

void note(const std::string &line) { calls += line + "\n"; }

template <typename Number>
Number read_at(const unsigned char *image, int offset) {
  Number value;
  std::memcpy(&value, image + offset, sizeof value);
  return value;
}

// An image tells its own length: PTX by its zero byte, ELF64 by its tables.
size_t length_of(const unsigned char *image) {
  if (std::memcmp(image, "\x7f""ELF", 4) != 0) return std::strlen(reinterpret_cast<const char *>(image));
  const auto programs = read_at<uint64_t>(image, 0x20) +
                        static_cast<uint64_t>(read_at<uint16_t>(image, 0x36)) * read_at<uint16_t>(image, 0x38);
  const auto sections = read_at<uint64_t>(image, 0x28) +
                        static_cast<uint64_t>(read_at<uint16_t>(image, 0x3a)) * read_at<uint16_t>(image, 0x3c);
  return programs > sections ? programs : sections;
}

std::string digest_of(const unsigned char *image) {
  uint64_t hash = 14695981039346656037ull;  // FNV-1a
  const size_t length = length_of(image);
  for (size_t i = 0; i < length; ++i) hash = (hash ^ image[i]) * 1099511628211ull;
  return std::to_string(length) + " " + std::to_string(hash);
}

// The arguments as the kernel would read them: little-endian numbers of the sizes it declares.
std::string arguments_of(void **parameters) {
  std::stringstream kernels(std::getenv("TAIDPT_STUB_SIZES"));
  std::string of_kernel;
  for (int i = 0; i <= launches; ++i) std::getline(kernels, of_kernel, ';');
  ++launches;
  std::stringstream sizes(of_kernel);
  std::string text;
  std::string size;
  for (int i = 0; std::getline(sizes, size, ','); ++i) {
    uint64_t bits = 0;
    std::memcpy(&bits, parameters[i], static_cast<size_t>(std::stoi(size)));
    text += " " + std::to_string(bits);
  }
  return text;
}

}  // namespace

extern "C" {

const char *stub_calls() { return calls.c_str(); }
void stub_clear() {
  calls.clear();
  launches = 0;
}
int stub_pushed() { return pushed; }

int cuInit(unsigned) { return asked("cuInit"); }

int cuDeviceGet(int *device, int ordinal) {
  *device = ordinal;
  return ordinal == 0 ? asked("cuDeviceGet") : 101;
}

int cuDeviceGetAttribute(int *value, int which, int) {
  const int architecture = setting("TAIDPT_STUB_ARCH", 87);
  *value = which == 75 ? architecture / 10 : which == 76 ? architecture % 10 : which == 16 ? setting("TAIDPT_STUB_SMS", 16) : 0;
  return 0;
}

int cuCtxGetCurrent(void **context) {
  *context = setting("TAIDPT_STUB_CONTEXT", 1) != 0 ? reinterpret_cast<void *>(0x1000) : nullptr;
  return 0;
}

int cuCtxGetDevice(int *device) {
  *device = 0;
  return 0;
}

int cuDevicePrimaryCtxRetain(void **context, int) {
  *context = reinterpret_cast<void *>(0x2000);
  return asked("cuDevicePrimaryCtxRetain");
}

int cuCtxPushCurrent_v2(void *) {
  ++pushed;
  return 0;
}

int cuCtxPopCurrent_v2(void **) {
  --pushed;
  return 0;
}

int cuModuleLoadData(void **module, const void *image) {
  note("load " + digest_of(static_cast<const unsigned char *>(image)));
  *module = reinterpret_cast<void *>(next_handle++);
  return asked("cuModuleLoadData");
}

int cuModuleGetFunction(void **function, void *, const char *name) {
  note(std::string("function ") + name);
  *function = reinterpret_cast<void *>(next_handle++);
  return asked("cuModuleGetFunction");
}

int cuFuncSetAttribute(void *, int which, int value) {
  note("attribute " + std::to_string(which) + " " + std::to_string(value));
  return asked("cuFuncSetAttribute");
}

int cuLaunchKernel(void *, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                   unsigned block_y, unsigned block_z, unsigned shared, void *stream, void **parameters,
                   void **extra) {
  std::stringstream line;
  line << "launch " << grid_x << " " << grid_y << " " << grid_z << " " << block_x << " " << block_y << " "
       << block_z << " " << shared << " " << reinterpret_cast<uintptr_t>(stream) << " "
       << (extra == nullptr ? 0 : 1) << arguments_of(parameters);
  note(line.str());
  return asked("cuLaunchKernel");
}

#ifndef TAIDPT_STUB_OLD
int cuGetErrorName(int result, const char **name) {
  *name = result == 700 ? "CUDA_ERROR_ILLEGAL_ADDRESS" : "CUDA_ERROR_INVALID_DEVICE";
  return 0;
}
#endif

}  // extern "C"
