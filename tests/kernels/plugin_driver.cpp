// Drives the plugin as TensorRT does, without TensorRT: made and asked at build, serialised to its
// fields, made again from them, attached to a context, told of shapes, enqueued.
//
//   c++ -std=c++17 -shared -fPIC -I<TensorRT headers> -I<CUDA headers> plugin_driver.cpp -ldl
#include <NvInfer.h>
#include <NvInferRuntime.h>
#include <dlfcn.h>

#include <cstdint>
#include <string>
#include <vector>

namespace {

using namespace nvinfer1;

std::string last_error;  // what the plugin said through TensorRT's logger, or what went wrong here

class Logger final : public ILogger, public ILoggerFinder {
 public:
  void log(Severity, AsciiChar const *message) noexcept override { last_error = message; }
  ILogger *findLogger() override { return this; }
} logger;

Dims dims_of(std::vector<int32_t> const &sizes) {
  Dims dims{};
  dims.nbDims = static_cast<int32_t>(sizes.size());
  for (size_t i = 0; i < sizes.size(); ++i) dims.d[i] = sizes[i];
  return dims;
}

PluginTensorDesc tensor_of(DataType type, std::vector<int32_t> const &sizes) {
  PluginTensorDesc tensor{};
  tensor.dims = dims_of(sizes);
  tensor.type = type;
  tensor.format = TensorFormat::kLINEAR;
  tensor.scale = 1.0f;
  return tensor;
}

struct Driven {
  std::string name;
  std::vector<char> workspace;
  IPluginV3 *plugin = nullptr;
  IPluginV3OneRuntime *runtime = nullptr;
  std::vector<PluginTensorDesc> inputs;
  PluginTensorDesc output{};
};

template <typename Capability>
Capability *capability_of(IPluginV3 *plugin, PluginCapabilityType type) {
  return static_cast<Capability *>(plugin->getCapabilityInterface(type));
}

bool fail(std::string const &what) {
  last_error = what + (last_error.empty() ? "" : ": " + last_error);
  return false;
}

// What the builder asks, and the answers that an engine needs.
bool configure(IPluginV3 *plugin, Driven &driven) {
  auto *build = capability_of<IPluginV3OneBuild>(plugin, PluginCapabilityType::kBUILD);
  if (build == nullptr) return fail("no build capability");
  const int32_t count = static_cast<int32_t>(driven.inputs.size());
  std::vector<DynamicPluginTensorDesc> tensors(driven.inputs.size() + 1);
  for (size_t i = 0; i < tensors.size(); ++i) {
    tensors[i].desc = i < driven.inputs.size() ? driven.inputs[i] : driven.output;
    tensors[i].min = tensors[i].opt = tensors[i].max = tensors[i].desc.dims;
  }
  for (int32_t position = 0; position <= count; ++position) {
    if (!build->supportsFormatCombination(position, tensors.data(), count, 1)) {
      return fail("position " + std::to_string(position) + " is not supported");
    }
  }
  if (build->configurePlugin(tensors.data(), count, &tensors[driven.inputs.size()], 1) != 0) {
    return fail("configurePlugin");
  }
  std::vector<DataType> types;
  for (auto const &input : driven.inputs) types.push_back(input.type);
  DataType type{};
  if (build->getOutputDataTypes(&type, 1, types.data(), count) != 0 ||
      type != driven.output.type) {
    return fail("getOutputDataTypes");
  }
  driven.workspace.resize(
      build->getWorkspaceSize(tensors.data(), count, &tensors[driven.inputs.size()], 1));
  return true;
}

bool open(Driven &driven, void *library, float temperature) {
  using Creators = IPluginCreatorInterface *const *(*)(int32_t &);
  auto creators = reinterpret_cast<Creators>(dlsym(library, "getCreators"));
  auto finder = reinterpret_cast<void (*)(ILoggerFinder *)>(dlsym(library, "setLoggerFinder"));
  if (creators == nullptr || finder == nullptr) return fail("no plugin library");
  finder(&logger);
  int32_t count = 0;
  auto *const *all = creators(count);
  IPluginCreatorV3One *creator = nullptr;
  for (int32_t i = 0; i < count; ++i) {
    auto *each = static_cast<IPluginCreatorV3One *>(all[i]);
    if (driven.name == each->getPluginName()) creator = each;
  }
  if (creator == nullptr) return fail("no creator of " + driven.name);
  PluginField field("temperature", &temperature, PluginFieldType::kFLOAT32, 1);
  PluginFieldCollection fields{1, &field};
  IPluginV3 *built = creator->createPlugin("node", &fields, TensorRTPhase::kBUILD);
  if (built == nullptr) return fail("createPlugin for the build");
  if (!configure(built, driven)) return false;
  // the engine keeps the fields, and the runtime makes the plugin of them again
  auto *serialised = capability_of<IPluginV3OneRuntime>(built, PluginCapabilityType::kRUNTIME);
  IPluginV3 *loaded = creator->createPlugin("node", serialised->getFieldsToSerialize(),
                                            TensorRTPhase::kRUNTIME);
  delete built;
  if (loaded == nullptr) return fail("createPlugin for the runtime");
  auto *detached = capability_of<IPluginV3OneRuntime>(loaded, PluginCapabilityType::kRUNTIME);
  driven.plugin = detached->attachToContext(nullptr);
  delete loaded;
  if (driven.plugin == nullptr) return fail("attachToContext");
  driven.runtime =
      capability_of<IPluginV3OneRuntime>(driven.plugin, PluginCapabilityType::kRUNTIME);
  const int32_t inputs = static_cast<int32_t>(driven.inputs.size());
  if (driven.runtime->onShapeChange(driven.inputs.data(), inputs, &driven.output, 1) != 0) {
    return fail("onShapeChange");
  }
  return true;
}

}  // namespace

extern "C" {

// sizes: B, P, C, D. Null where something went wrong; see driven_error.
void *driven_open(char const *path, char const *name, float temperature, int32_t half, int32_t valued,
                  int32_t masked, int32_t const *sizes) {
  last_error.clear();
  void *library = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
  if (library == nullptr) {
    last_error = dlerror();
    return nullptr;
  }
  auto *driven = new Driven;
  driven->name = name;
  bool const competes = driven->name == "CompetingSimilarity";
  const DataType type = half != 0 ? DataType::kHALF : DataType::kFLOAT;
  const int32_t B = sizes[0], P = sizes[1], C = sizes[2], D = sizes[3];
  driven->inputs = {tensor_of(type, {B, P, D}), tensor_of(type, {C, D})};
  // as the node has it: before a mask without values the class embeddings stand again
  if (!competes && (valued != 0 || masked != 0)) driven->inputs.push_back(tensor_of(type, {C, D}));
  if (masked != 0) driven->inputs.push_back(tensor_of(DataType::kBOOL, {B, P}));
  driven->output = tensor_of(DataType::kFLOAT, {B, C});
  if (open(*driven, library, temperature)) return driven;
  delete driven;
  return nullptr;
}

// inputs: X, T, V, mask as far as there are, then the output.
int32_t driven_enqueue(void *handle, void const *const *inputs, void *output, void *stream) {
  last_error.clear();
  auto *driven = static_cast<Driven *>(handle);
  void *const outputs[] = {output};
  void *workspace = driven->workspace.empty() ? nullptr : driven->workspace.data();
  return driven->runtime->enqueue(driven->inputs.data(), &driven->output, inputs, outputs, workspace,
                                  static_cast<cudaStream_t>(stream));
}

uint64_t driven_workspace(void *handle) { return static_cast<Driven *>(handle)->workspace.size(); }

void driven_close(void *handle) {
  auto *driven = static_cast<Driven *>(handle);
  delete driven->plugin;
  delete driven;
}

char const *driven_error() { return last_error.c_str(); }

}  // extern "C"
