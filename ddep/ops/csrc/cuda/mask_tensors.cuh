// Tensors of masks as the kernels' arguments.
#pragma once

#include <ATen/ATen.h>

#include <vector>

#include "../mask_pairs.h"
#include "host_launch.cuh"
#include "mask_pairs.cuh"

namespace ddep {

inline std::vector<at::Tensor> contiguous_layers(at::TensorList layers) {
  std::vector<at::Tensor> ready;
  ready.reserve(layers.size());
  for (const at::Tensor& layer : layers) ready.push_back(layer.contiguous());
  return ready;
}

inline std::vector<at::Tensor> zeros_like_layers(at::TensorList layers) {
  std::vector<at::Tensor> zeros;
  zeros.reserve(layers.size());
  for (const at::Tensor& layer : layers) {
    zeros.push_back(at::zeros(layer.sizes(), layer.options()));
  }
  return zeros;
}

inline void check_layers(const char* operation, at::TensorList layers) {
  TORCH_CHECK(layers.size() <= kMaxLayers, operation, ": mask_logits are of ", layers.size(),
              " layers; CUDA kernels take at most ", kMaxLayers);
  narrow(operation, "the number of pixels of a predicted mask",
         layers[0].size(2) * layers[0].size(3));
}

template <typename T>
Layers<const T> layers_of(const std::vector<at::Tensor>& layers) {
  Layers<const T> result = {};
  for (size_t i = 0; i < layers.size(); ++i) result.of[i] = layers[i].const_data_ptr<T>();
  return result;
}

template <typename T>
Layers<T> mutable_layers_of(const std::vector<at::Tensor>& layers) {
  Layers<T> result = {};
  for (size_t i = 0; i < layers.size(); ++i) result.of[i] = layers[i].mutable_data_ptr<T>();
  return result;
}

// Contiguous tensors, which live as long as the kernels are being launched.
struct PredictionTensors {
  std::vector<at::Tensor> layers;
  at::Tensor images, queries;
  int pairs, rows;  // N and L N

  PredictionTensors(const char* operation, at::TensorList mask_logits, const at::Tensor& images,
                    const at::Tensor& queries)
      : layers(contiguous_layers(mask_logits)),
        images(images.contiguous()),
        queries(queries.contiguous()),
        pairs(static_cast<int>(images.size(1))),
        rows(narrow(operation, "the number of pairs of all layers", images.numel())) {
    check_layers(operation, mask_logits);
  }

  template <typename T>
  Predictions<T> arguments() const {
    const at::Tensor& first = layers[0];
    Predictions<T> p = {};
    p.layers = layers_of<T>(layers);
    p.num_images = first.size(0), p.num_queries = first.size(1);
    p.height = static_cast<int>(first.size(2)), p.width = static_cast<int>(first.size(3));
    p.pairs = pairs;
    p.images = images.const_data_ptr<int64_t>(), p.queries = queries.const_data_ptr<int64_t>();
    return p;
  }
};

struct PairTensors {
  PredictionTensors predictions;
  at::Tensor masks, targets;

  PairTensors(const char* operation, const MaskPairs& pairs)
      : predictions(operation, pairs.mask_logits, pairs.images, pairs.queries),
        masks(pairs.masks.contiguous()),
        targets(pairs.targets.contiguous()) {
    narrow(operation, "the number of pixels of a true mask", masks.size(1) * masks.size(2));
  }

  int rows() const { return predictions.rows; }

  template <typename T>
  Pairs<T> arguments() const {
    Pairs<T> p = {};
    p.predictions = predictions.arguments<T>();
    p.masks = static_cast<const uint8_t*>(masks.const_data_ptr());
    p.targets = targets.const_data_ptr<int64_t>();
    p.num_targets = masks.size(0);
    p.height = static_cast<int>(masks.size(1)), p.width = static_cast<int>(masks.size(2));
    return p;
  }
};

}  // namespace ddep
