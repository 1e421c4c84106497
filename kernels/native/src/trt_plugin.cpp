// The operator as a TensorRT plugin: IPluginV3, TensorRT 10.0 and later, JetPack 6 included.
//
// Inputs X [B, P, D], T [C, D], then V [C, D] and mask [B, P] where the node has them; X, T and V
// all fp32 or all fp16, mask bool. Output Y [B, C] fp32. Every size may be dynamic.
#include <NvInfer.h>
#include <NvInferRuntime.h>

#include <memory>
#include <string>
#include <vector>

#include "taidpt/local_similarity.h"

namespace {

using namespace nvinfer1;

constexpr char kName[] = "LocalSimilarity";
constexpr char kVersion[] = "1";
constexpr char kNamespace[] = "taidpt";
constexpr char kTemperature[] = "temperature";
constexpr float kDefaultTemperature = 40.0f;
constexpr int kLeastInputs = 2;
constexpr int kMostInputs = 4;

ILoggerFinder *logger_finder = nullptr;

void log_error(const char *message) noexcept {
  ILogger *logger = logger_finder == nullptr ? nullptr : logger_finder->findLogger();
  if (logger != nullptr) logger->log(ILogger::Severity::kERROR, message);
}

// Which inputs a node has. Before a mask without values the class embeddings stand again as V.
struct Inputs {
  int values = -1;
  int mask = -1;
};

template <typename TypeOf>
Inputs find_inputs(int count, TypeOf type_of) {
  Inputs inputs;
  for (int index = kLeastInputs; index < count; ++index) {
    (type_of(index) == DataType::kBOOL ? inputs.mask : inputs.values) = index;
  }
  return inputs;
}

class Plugin final : public IPluginV3,
                     public IPluginV3OneCore,
                     public IPluginV3OneBuild,
                     public IPluginV3OneRuntime {
 public:
  explicit Plugin(float temperature) : temperature_(temperature) {
    field_ = PluginField(kTemperature, &temperature_, PluginFieldType::kFLOAT32, 1);
    fields_.nbFields = 1;
    fields_.fields = &field_;
  }
  Plugin(const Plugin &) = delete;
  Plugin &operator=(const Plugin &) = delete;

  IPluginCapability *getCapabilityInterface(PluginCapabilityType type) noexcept override {
    switch (type) {
      case PluginCapabilityType::kCORE:
        return static_cast<IPluginV3OneCore *>(this);
      case PluginCapabilityType::kBUILD:
        return static_cast<IPluginV3OneBuild *>(this);
      case PluginCapabilityType::kRUNTIME:
        return static_cast<IPluginV3OneRuntime *>(this);
    }
    return nullptr;
  }

  IPluginV3 *clone() noexcept override { return make(); }

  AsciiChar const *getPluginName() const noexcept override { return kName; }
  AsciiChar const *getPluginVersion() const noexcept override { return kVersion; }
  AsciiChar const *getPluginNamespace() const noexcept override { return kNamespace; }

  int32_t getNbOutputs() const noexcept override { return 1; }

  int32_t configurePlugin(DynamicPluginTensorDesc const *in, int32_t inputs,
                          DynamicPluginTensorDesc const *, int32_t) noexcept override {
    if (inputs < kLeastInputs || inputs > kMostInputs) {
      log_error("LocalSimilarity: expected 2 to 4 inputs: X, T, V, mask");
      return 1;
    }
    if (in[0].desc.dims.nbDims != 3 || in[1].desc.dims.nbDims != 2) {
      log_error("LocalSimilarity: expected X of rank 3 [B, P, D] and T of rank 2 [C, D]");
      return 1;
    }
    return 0;
  }

  bool supportsFormatCombination(int32_t position, DynamicPluginTensorDesc const *tensors,
                                 int32_t inputs, int32_t) noexcept override {
    const PluginTensorDesc &tensor = tensors[position].desc;
    if (tensor.format != TensorFormat::kLINEAR) return false;
    if (position == inputs) return tensor.type == DataType::kFLOAT;
    if (position == 0) return tensor.type == DataType::kFLOAT || tensor.type == DataType::kHALF;
    if (position >= kLeastInputs && tensor.type == DataType::kBOOL) {
      return position == inputs - 1;  // the mask comes last
    }
    return position < 3 && tensor.type == tensors[0].desc.type;
  }

  int32_t getOutputDataTypes(DataType *outputs, int32_t, DataType const *,
                             int32_t) const noexcept override {
    outputs[0] = DataType::kFLOAT;
    return 0;
  }

  int32_t getOutputShapes(DimsExprs const *inputs, int32_t count, DimsExprs const *, int32_t,
                          DimsExprs *outputs, int32_t, IExprBuilder &) noexcept override {
    if (count < kLeastInputs || inputs[0].nbDims != 3 || inputs[1].nbDims != 2) {
      log_error("LocalSimilarity: expected X of rank 3 [B, P, D] and T of rank 2 [C, D]");
      return 1;
    }
    outputs[0].nbDims = 2;
    outputs[0].d[0] = inputs[0].d[0];
    outputs[0].d[1] = inputs[1].d[0];
    return 0;
  }

  size_t getWorkspaceSize(DynamicPluginTensorDesc const *, int32_t, DynamicPluginTensorDesc const *,
                          int32_t) const noexcept override {
    return 0;
  }

  int32_t onShapeChange(PluginTensorDesc const *in, int32_t count, PluginTensorDesc const *,
                        int32_t) noexcept override {
    inputs_ = find_inputs(count, [in](int index) { return in[index].type; });
    if (in[0].dims.d[2] != in[1].dims.d[1]) {
      log_error("LocalSimilarity: X [B, P, D] and T [C, D] differ in D");
      return 1;
    }
    return 0;
  }

  int32_t enqueue(PluginTensorDesc const *in, PluginTensorDesc const *, void const *const *sources,
                  void *const *targets, void *, cudaStream_t stream) noexcept override {
    taidpt_local_similarity_args args{};
    args.patches = sources[0];
    args.class_embeddings = sources[1];
    const bool own_values = inputs_.values >= 0 && sources[inputs_.values] != sources[1];
    args.values = own_values ? sources[inputs_.values] : nullptr;
    args.mask = inputs_.mask < 0 ? nullptr : static_cast<uint8_t const *>(sources[inputs_.mask]);
    args.similarities = static_cast<float *>(targets[0]);
    args.batch = static_cast<int32_t>(in[0].dims.d[0]);
    args.patch_count = static_cast<int32_t>(in[0].dims.d[1]);
    args.class_count = static_cast<int32_t>(in[1].dims.d[0]);
    args.dim = static_cast<int32_t>(in[0].dims.d[2]);
    args.temperature = temperature_;
    args.dtype = in[0].type == DataType::kHALF ? TAIDPT_F16 : TAIDPT_F32;
    args.device = TAIDPT_CUDA_CURRENT;
    args.stream = stream;
    const int status = taidpt_local_similarity(&args);
    if (status != TAIDPT_OK) log_error(taidpt_last_error());
    return status;
  }

  // Kernels are loaded here, where no CUDA graph is being captured yet.
  IPluginV3 *attachToContext(IPluginResourceContext *) noexcept override {
    if (taidpt_prepare(TAIDPT_CUDA_CURRENT) != TAIDPT_OK) {
      log_error(taidpt_last_error());
      return nullptr;
    }
    return make();
  }

  PluginFieldCollection const *getFieldsToSerialize() noexcept override { return &fields_; }

 private:
  Plugin *make() const noexcept {
    try {
      auto copy = std::make_unique<Plugin>(temperature_);
      copy->inputs_ = inputs_;
      return copy.release();
    } catch (...) {
      log_error("LocalSimilarity: out of memory");
      return nullptr;
    }
  }

  float temperature_;
  Inputs inputs_;
  PluginField field_{};
  PluginFieldCollection fields_{};
};

class Creator final : public IPluginCreatorV3One {
 public:
  Creator() : field_(kTemperature, nullptr, PluginFieldType::kFLOAT32, 1) {
    fields_.nbFields = 1;
    fields_.fields = &field_;
  }

  IPluginV3 *createPlugin(AsciiChar const *, PluginFieldCollection const *given,
                          TensorRTPhase) noexcept override {
    float temperature = kDefaultTemperature;
    for (int32_t i = 0; given != nullptr && i < given->nbFields; ++i) {
      const PluginField &field = given->fields[i];
      if (std::string(field.name) == kTemperature && field.data != nullptr) {
        temperature = *static_cast<float const *>(field.data);
      }
    }
    if (!(temperature > 0.0f)) {
      log_error("LocalSimilarity: temperature must be above 0");
      return nullptr;
    }
    try {
      return new Plugin(temperature);
    } catch (...) {
      log_error("LocalSimilarity: out of memory");
      return nullptr;
    }
  }

  PluginFieldCollection const *getFieldNames() noexcept override { return &fields_; }
  AsciiChar const *getPluginName() const noexcept override { return kName; }
  AsciiChar const *getPluginVersion() const noexcept override { return kVersion; }
  AsciiChar const *getPluginNamespace() const noexcept override { return kNamespace; }

 private:
  PluginField field_;
  PluginFieldCollection fields_{};
};

}  // namespace

extern "C" {

// What TensorRT looks for in a plugin library.
TAIDPT_API void setLoggerFinder(nvinfer1::ILoggerFinder *finder) { logger_finder = finder; }

TAIDPT_API nvinfer1::IPluginCreatorInterface *const *getCreators(int32_t &count) {
  static Creator creator;
  static nvinfer1::IPluginCreatorInterface *const creators[] = {&creator};
  count = 1;
  return creators;
}

}  // extern "C"
