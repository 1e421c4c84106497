// Both read-outs as TensorRT plugins: IPluginV3, TensorRT 10.0 and later, JetPack 6 included.
//
// Inputs X [B, P, D], T [C, D], then V [C, D] (of LocalSimilarity) and mask [B, P] where the node has
// them; X, T and V all fp32 or all fp16, mask bool. Output Y [B, C] fp32. Every size may be dynamic.
#include <NvInfer.h>
#include <NvInferRuntime.h>

#include <memory>
#include <string>
#include <vector>

#include "taidpt/local_similarity.h"

namespace {

using namespace nvinfer1;

constexpr char kVersion[] = "1";
constexpr char kNamespace[] = "taidpt";
constexpr char kTemperature[] = "temperature";
constexpr float kDefaultTemperature = 40.0f;
constexpr int kLeastInputs = 2;

// What the node computes, and how many inputs it may have.
struct ReadOut {
  char const *name;
  int most_inputs;
  bool competes;
};
constexpr ReadOut kLocal{"LocalSimilarity", 4, false};
constexpr ReadOut kCompeting{"CompetingSimilarity", 3, true};

ILoggerFinder *logger_finder = nullptr;

void log_error(const ReadOut &read_out, const char *message) noexcept {
  ILogger *logger = logger_finder == nullptr ? nullptr : logger_finder->findLogger();
  if (logger == nullptr) return;
  try {
    logger->log(ILogger::Severity::kERROR, (std::string(read_out.name) + ": " + message).c_str());
  } catch (...) {  // no memory for the name
    logger->log(ILogger::Severity::kERROR, message);
  }
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
  Plugin(const ReadOut &read_out, float temperature)
      : read_out_(read_out), temperature_(temperature) {
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

  AsciiChar const *getPluginName() const noexcept override { return read_out_.name; }
  AsciiChar const *getPluginVersion() const noexcept override { return kVersion; }
  AsciiChar const *getPluginNamespace() const noexcept override { return kNamespace; }

  int32_t getNbOutputs() const noexcept override { return 1; }

  int32_t configurePlugin(DynamicPluginTensorDesc const *in, int32_t inputs,
                          DynamicPluginTensorDesc const *, int32_t) noexcept override {
    if (inputs < kLeastInputs || inputs > read_out_.most_inputs) {
      fail(read_out_.competes ? "expected 2 or 3 inputs: X, T, mask" : "expected 2 to 4 inputs: X, T, V, mask");
      return 1;
    }
    if (in[0].desc.dims.nbDims != 3 || in[1].desc.dims.nbDims != 2) {
      fail("expected X of rank 3 [B, P, D] and T of rank 2 [C, D]");
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
    return position < read_out_.most_inputs - 1 && tensor.type == tensors[0].desc.type;
  }

  int32_t getOutputDataTypes(DataType *outputs, int32_t, DataType const *,
                             int32_t) const noexcept override {
    outputs[0] = DataType::kFLOAT;
    return 0;
  }

  int32_t getOutputShapes(DimsExprs const *inputs, int32_t count, DimsExprs const *, int32_t,
                          DimsExprs *outputs, int32_t, IExprBuilder &) noexcept override {
    if (count < kLeastInputs || inputs[0].nbDims != 3 || inputs[1].nbDims != 2) {
      fail("expected X of rank 3 [B, P, D] and T of rank 2 [C, D]");
      return 1;
    }
    outputs[0].nbDims = 2;
    outputs[0].d[0] = inputs[0].d[0];
    outputs[0].d[1] = inputs[1].d[0];
    return 0;
  }

  size_t getWorkspaceSize(DynamicPluginTensorDesc const *in, int32_t, DynamicPluginTensorDesc const *,
                          int32_t) const noexcept override {
    if (!read_out_.competes) return 0;
    taidpt_local_similarity_args largest{};
    largest.device = TAIDPT_CUDA_CURRENT;
    largest.batch = static_cast<int32_t>(in[0].max.d[0]);
    largest.patch_count = static_cast<int32_t>(in[0].max.d[1]);
    return taidpt_competing_workspace(&largest);
  }

  int32_t onShapeChange(PluginTensorDesc const *in, int32_t count, PluginTensorDesc const *,
                        int32_t) noexcept override {
    inputs_ = find_inputs(count, [in](int index) { return in[index].type; });
    if (in[0].dims.d[2] != in[1].dims.d[1]) {
      fail("X [B, P, D] and T [C, D] differ in D");
      return 1;
    }
    return 0;
  }

  int32_t enqueue(PluginTensorDesc const *in, PluginTensorDesc const *, void const *const *sources,
                  void *const *targets, void *workspace, cudaStream_t stream) noexcept override {
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
    const int status = read_out_.competes ? taidpt_competing_similarity(&args, workspace)
                                          : taidpt_local_similarity(&args);
    if (status != TAIDPT_OK) fail(taidpt_last_error());
    return status;
  }

  // Kernels are loaded here, where no CUDA graph is being captured yet.
  IPluginV3 *attachToContext(IPluginResourceContext *) noexcept override {
    if (taidpt_prepare(TAIDPT_CUDA_CURRENT) != TAIDPT_OK) {
      fail(taidpt_last_error());
      return nullptr;
    }
    return make();
  }

  PluginFieldCollection const *getFieldsToSerialize() noexcept override { return &fields_; }

 private:
  Plugin *make() const noexcept {
    try {
      auto copy = std::make_unique<Plugin>(read_out_, temperature_);
      copy->inputs_ = inputs_;
      return copy.release();
    } catch (...) {
      fail("out of memory");
      return nullptr;
    }
  }

  void fail(const char *message) const noexcept { log_error(read_out_, message); }

  const ReadOut &read_out_;
  float temperature_;
  Inputs inputs_;
  PluginField field_{};
  PluginFieldCollection fields_{};
};

class Creator final : public IPluginCreatorV3One {
 public:
  explicit Creator(const ReadOut &read_out)
      : read_out_(read_out), field_(kTemperature, nullptr, PluginFieldType::kFLOAT32, 1) {
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
      log_error(read_out_, "temperature must be above 0");
      return nullptr;
    }
    try {
      return new Plugin(read_out_, temperature);
    } catch (...) {
      log_error(read_out_, "out of memory");
      return nullptr;
    }
  }

  PluginFieldCollection const *getFieldNames() noexcept override { return &fields_; }
  AsciiChar const *getPluginName() const noexcept override { return read_out_.name; }
  AsciiChar const *getPluginVersion() const noexcept override { return kVersion; }
  AsciiChar const *getPluginNamespace() const noexcept override { return kNamespace; }

 private:
  const ReadOut &read_out_;
  PluginField field_;
  PluginFieldCollection fields_{};
};

}  // namespace

extern "C" {

// What TensorRT looks for in a plugin library.
TAIDPT_API void setLoggerFinder(nvinfer1::ILoggerFinder *finder) { logger_finder = finder; }

TAIDPT_API nvinfer1::IPluginCreatorInterface *const *getCreators(int32_t &count) {
  static Creator local(kLocal);
  static Creator competing(kCompeting);
  static nvinfer1::IPluginCreatorInterface *const creators[] = {&local, &competing};
  count = 2;
  return creators;
}

}  // extern "C"
