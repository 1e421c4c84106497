// Calls a parser as nvinfer does: parser_harness LIBRARY FUNCTION LAYER TYPE SCORE...
// Prints a line `index TAB label TAB confidence` for each attribute, then the description; ends with 1
// if the parser says that it failed. Each call is made twice, as for two frames.
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "nvdsinfer.h"

using Parser = bool (*)(std::vector<NvDsInferLayerInfo> const &, NvDsInferNetworkInfo const &, float,
                        std::vector<NvDsInferAttribute> &, std::string &);

int main(int count, char **words) {
  if (count < 5) return 2;
  void *library = dlopen(words[1], RTLD_LAZY);
  const auto parser = library ? reinterpret_cast<Parser>(dlsym(library, words[2])) : nullptr;
  if (!parser) {
    std::fprintf(stderr, "%s\n", dlerror());
    return 2;
  }
  std::vector<float> scores, features(7, 0.5f);
  for (int i = 5; i < count; ++i) scores.push_back(std::strtof(words[i], nullptr));

  std::vector<NvDsInferLayerInfo> layers(2);
  layers[0].layerName = "global_features";
  layers[0].inferDims.numDims = 1;
  layers[0].inferDims.d[0] = layers[0].inferDims.numElements = 7;
  layers[0].buffer = features.data();
  layers[1].layerName = words[3];
  layers[1].dataType = static_cast<NvDsInferDataType>(std::atoi(words[4]));
  layers[1].inferDims.numDims = 1;
  layers[1].inferDims.d[0] = layers[1].inferDims.numElements = scores.size();
  layers[1].buffer = scores.data();

  int failed = 0;
  for (int frame = 0; frame < 2; ++frame) {
    std::vector<NvDsInferAttribute> attributes;
    std::string description;
    failed = !parser(layers, {1920, 1080, 3}, 0.9f, attributes, description);
    for (const NvDsInferAttribute &attribute : attributes) {
      if (frame) {
        std::printf("%u\t%s\t%.9g\n", attribute.attributeValue, attribute.attributeLabel,
                    static_cast<double>(attribute.attributeConfidence));
      }
      std::free(attribute.attributeLabel);
    }
    if (frame) std::printf("%s\n", description.c_str());
  }
  return failed;
}
