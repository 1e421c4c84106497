// Output parser of DeepStream's nvinfer for graphs of `taidpt export deepstream`.
//
// nvinfer's own classifier parser attaches the best class of each output layer. This one attaches
// every tag whose score reaches the tag's own threshold. Build it in the folder of the configuration:
//
//   INCLUDES=/opt/nvidia/deepstream/deepstream/sources/includes
//   g++ -O2 -std=c++17 -fPIC -shared -I $INCLUDES nvdsinfer_taidpt.cpp -o libnvdsinfer_taidpt.so
//
// nvinfer passes no path to a parser, so the tags are read from tags.tsv in the library's own folder:
// `name TAB threshold`, then the points `TAB score TAB probability` of the tag's map, if it has one.
// A second model needs a copy of the library in its own folder.
#include <dlfcn.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <locale>
#include <mutex>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "nvdsinfer.h"
#if defined(__has_include)
#if __has_include("nvdsinfer_custom_impl.h") && __has_include(<NvInfer.h>) && \
    __has_include(<NvOnnxParser.h>)
#include "nvdsinfer_custom_impl.h"
#define TAIDPT_CHECK_PROTOTYPE
#endif
#endif

#define TAIDPT_EXPORT extern "C" __attribute__((visibility("default")))

TAIDPT_EXPORT bool NvDsInferParseCustomTaidpt(std::vector<NvDsInferLayerInfo> const &layers,
                                              NvDsInferNetworkInfo const &network,
                                              float classifierThreshold,
                                              std::vector<NvDsInferAttribute> &attributes,
                                              std::string &description);

namespace {

constexpr const char *kOutput = "scores";
constexpr const char *kTagsFile = "tags.tsv";

struct Point {
  double score, probability;
};

struct Tag {
  std::string name;
  double threshold;
  std::vector<Point> map;

  // The calibrated probability of a score, by straight lines between points; without a map the score.
  double confidence(double score) const {
    if (map.empty()) return score;
    if (score <= map.front().score) return map.front().probability;
    for (size_t i = 1; i < map.size(); ++i) {
      const Point &left = map[i - 1], &right = map[i];
      if (score < right.score) {
        const double share = (score - left.score) / (right.score - left.score);
        return left.probability + share * (right.probability - left.probability);
      }
    }
    return map.back().probability;
  }
};

std::string tagsPath() {
  Dl_info info{};
  if (!dladdr(reinterpret_cast<void *>(&NvDsInferParseCustomTaidpt), &info) || !info.dli_fname) {
    return kTagsFile;
  }
  const std::string library = info.dli_fname;
  const size_t slash = library.rfind('/');
  return (slash == std::string::npos ? std::string() : library.substr(0, slash + 1)) + kTagsFile;
}

double number(const std::string &text) {
  std::istringstream stream(text);
  stream.imbue(std::locale::classic());  // the application may have set a decimal comma
  double value = 0;
  if (!(stream >> value) || !stream.eof() || !std::isfinite(value)) {
    throw std::runtime_error("expected a number, got '" + text + "'");
  }
  return value;
}

Tag parseTag(const std::string &line) {
  std::vector<std::string> fields;
  std::istringstream stream(line);
  for (std::string field; std::getline(stream, field, '\t');) fields.push_back(field);
  if (fields.size() < 2 || fields.size() % 2 != 0 || fields[0].empty()) {
    throw std::runtime_error("expected name, threshold and pairs of score and probability");
  }
  Tag tag{fields[0], number(fields[1]), {}};
  for (size_t i = 2; i < fields.size(); i += 2) {
    const Point point{number(fields[i]), number(fields[i + 1])};
    if (!tag.map.empty() && point.score <= tag.map.back().score) {
      throw std::runtime_error("the scores of the map do not rise");
    }
    tag.map.push_back(point);
  }
  return tag;
}

std::vector<Tag> readTags(const std::string &path) {
  std::ifstream file(path);
  if (!file) {
    throw std::runtime_error(path + ": cannot be read; keep the library in the folder that "
                                    "`taidpt export deepstream` wrote");
  }
  std::vector<Tag> tags;
  for (std::string line; std::getline(file, line);) {
    try {
      tags.push_back(parseTag(line));
    } catch (const std::runtime_error &error) {
      throw std::runtime_error(path + ", line " + std::to_string(tags.size() + 1) + ": " +
                               error.what());
    }
  }
  if (file.bad() || tags.empty()) throw std::runtime_error(path + ": holds no tags");
  return tags;
}

const std::vector<Tag> &loadedTags() {
  static std::mutex mutex;
  static std::vector<Tag> tags;
  const std::lock_guard<std::mutex> lock(mutex);
  if (tags.empty()) tags = readTags(tagsPath());
  return tags;
}

const NvDsInferLayerInfo &scoresLayer(const std::vector<NvDsInferLayerInfo> &layers) {
  for (const NvDsInferLayerInfo &layer : layers) {
    if (layer.layerName && std::strcmp(layer.layerName, kOutput) == 0) {
      if (layer.dataType != FLOAT || !layer.buffer) {
        throw std::runtime_error("the output 'scores' is not float32 in host memory");
      }
      return layer;
    }
  }
  throw std::runtime_error("the engine has no output 'scores'; is it of another model?");
}

void parse(const std::vector<NvDsInferLayerInfo> &layers,
           std::vector<NvDsInferAttribute> &attributes, std::string &description) {
  const std::vector<Tag> &tags = loadedTags();
  const NvDsInferLayerInfo &layer = scoresLayer(layers);
  if (layer.inferDims.numElements != tags.size()) {
    throw std::runtime_error("the engine has " + std::to_string(layer.inferDims.numElements) +
                             " scores and " + tagsPath() + " " + std::to_string(tags.size()) +
                             " tags; remove the engine of the earlier export");
  }
  const float *scores = static_cast<const float *>(layer.buffer);
  for (size_t i = 0; i < tags.size(); ++i) {
    if (!std::isfinite(scores[i])) {
      throw std::runtime_error("the score of '" + tags[i].name +
                               "' is not finite; is the engine of another precision?");
    }
  }
  for (size_t i = 0; i < tags.size(); ++i) {
    const Tag &tag = tags[i];
    if (static_cast<double>(scores[i]) < tag.threshold) continue;
    NvDsInferAttribute attribute{};
    attribute.attributeIndex = 0;
    attribute.attributeValue = static_cast<unsigned int>(i);
    attribute.attributeConfidence = static_cast<float>(tag.confidence(scores[i]));
    attribute.attributeLabel = strdup(tag.name.c_str());  // nvinfer frees it
    attributes.push_back(attribute);
    // nvinfer attaches nothing while the description is empty
    description += (description.empty() ? "" : ", ") + tag.name;
  }
}

// One line for each new fault, not one for each frame.
void report(const char *message) {
  static std::mutex mutex;
  static std::string last;
  const std::lock_guard<std::mutex> lock(mutex);
  if (last == message) return;
  last = message;
  std::fprintf(stderr, "taidpt: %s\n", message);
}

}  // namespace

// The threshold of nvinfer's configuration is not used: each tag has its own.
bool NvDsInferParseCustomTaidpt(std::vector<NvDsInferLayerInfo> const &layers,
                                NvDsInferNetworkInfo const &, float,
                                std::vector<NvDsInferAttribute> &attributes,
                                std::string &description) {
  try {
    parse(layers, attributes, description);
    return true;
  } catch (const std::exception &error) {
    report(error.what());
    return false;
  }
}

#ifdef TAIDPT_CHECK_PROTOTYPE
CHECK_CUSTOM_CLASSIFIER_PARSE_FUNC_PROTOTYPE(NvDsInferParseCustomTaidpt)
#endif
