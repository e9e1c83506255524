// The masks of matched pairs, row by row: predicted ones of any dtype and strides are copied into
// bordered maps, and gradients back.
#pragma once

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <numeric>
#include <tuple>
#include <utility>
#include <vector>

#include "../mask_pairs.h"
#include "point_mask_problem.h"

namespace ddep {

// One mask of (B, Q, h, w). `buffer` holds the copy.
template <typename T>
MaskMap<T> copy_map(const at::Tensor& logits, int64_t image, int64_t query,
                    std::vector<T>& buffer) {
  const int64_t height = logits.size(2), width = logits.size(3), stride = bordered(width);
  buffer.assign(bordered(height) * stride, T(0));
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, logits.scalar_type(), "copy_map", [&] {
    const scalar_t* from =
        logits.const_data_ptr<scalar_t>() + image * logits.stride(0) + query * logits.stride(1);
    const int64_t row_stride = logits.stride(2), step = logits.stride(3);
    for (int64_t row = 0; row < height; ++row) {
      const scalar_t* from_row = from + row * row_stride;
      T* to = buffer.data() + (kBefore + row) * stride + kBefore;
      for (int64_t column = 0; column < width; ++column) {
        to[column] = static_cast<T>(from_row[column * step]);
      }
    }
  });
  return {buffer.data(), height, width};
}

// Writes a bordered gradient to one mask of (B, Q, h, w), contiguous.
template <typename T>
void copy_gradient(const std::vector<T>& buffer, int64_t image, int64_t query,
                   const at::Tensor& gradient) {
  const int64_t height = gradient.size(2), width = gradient.size(3), stride = bordered(width);
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, gradient.scalar_type(), "copy_gradient", [&] {
        scalar_t* to = gradient.mutable_data_ptr<scalar_t>() +
                       (image * gradient.size(1) + query) * height * width;
        for (int64_t row = 0; row < height; ++row) {
          const T* from = buffer.data() + (kBefore + row) * stride + kBefore;
          for (int64_t column = 0; column < width; ++column) {
            to[row * width + column] = static_cast<scalar_t>(from[column]);
          }
        }
      });
}

// The pairs of all layers, one after the other.
class PairRows {
 public:
  explicit PairRows(const MaskPairs& pairs)
      : pairs_(pairs),
        images_(pairs.images.contiguous()),
        queries_(pairs.queries.contiguous()),
        targets_(pairs.targets.contiguous()),
        masks_(pairs.masks.contiguous()),
        in_layer_(pairs.images.size(1)) {}

  const MaskPairs& pairs() const { return pairs_; }
  at::ScalarType type() const { return compute_type(pairs_.mask_logits[0]); }
  int64_t count() const { return images_.numel(); }
  int64_t layer(int64_t row) const { return row / in_layer_; }
  int64_t image(int64_t row) const { return images_.const_data_ptr<int64_t>()[row]; }
  int64_t query(int64_t row) const { return queries_.const_data_ptr<int64_t>()[row]; }

  template <typename T>
  MaskMap<T> map(int64_t row, std::vector<T>& buffer) const {
    return copy_map(pairs_.mask_logits[layer(row)], image(row), query(row), buffer);
  }

  TrueMask mask(int64_t row) const {
    const int64_t height = masks_.size(1), width = masks_.size(2);
    const auto* pixels = static_cast<const uint8_t*>(masks_.const_data_ptr());
    return {pixels + targets_.const_data_ptr<int64_t>()[row] * height * width, height, width};
  }

  // All rows, those of one predicted mask side by side, and where each such group begins and ends.
  std::pair<std::vector<int64_t>, std::vector<int64_t>> groups() const {
    std::vector<int64_t> rows(count()), bounds;
    std::iota(rows.begin(), rows.end(), 0);
    const auto key = [&](int64_t row) { return std::tuple(layer(row), image(row), query(row)); };
    std::stable_sort(rows.begin(), rows.end(),
                     [&](int64_t one, int64_t other) { return key(one) < key(other); });
    for (int64_t i = 0; i < count(); ++i) {
      if (i == 0 || key(rows[i - 1]) != key(rows[i])) bounds.push_back(i);
    }
    bounds.push_back(count());
    return {rows, bounds};
  }

 private:
  const MaskPairs& pairs_;
  at::Tensor images_, queries_, targets_, masks_;
  int64_t in_layer_;
};

// Two losses of all rows, (L, N) each. In parallel, calls compute(row, map, mask, loss, dice) with
// pointers to the losses of a row.
template <typename Compute>
std::tuple<at::Tensor, at::Tensor> compute_losses(const PairRows& rows, const Compute& compute) {
  const auto options = rows.pairs().mask_logits[0].options().dtype(rows.type());
  at::Tensor losses = at::empty(rows.pairs().images.sizes(), options);
  at::Tensor dices = at::empty_like(losses);
  AT_DISPATCH_FLOATING_TYPES(rows.type(), "mask_losses", [&] {
    scalar_t* loss = losses.mutable_data_ptr<scalar_t>();
    scalar_t* dice = dices.mutable_data_ptr<scalar_t>();
    at::parallel_for(0, rows.count(), 1, [&](int64_t begin, int64_t end) {
      std::vector<scalar_t> map;
      for (int64_t row = begin; row < end; ++row) {
        compute(row, rows.map(row, map), rows.mask(row), loss + row, dice + row);
      }
    });
  });
  return {losses, dices};
}

// The gradients of all predictions. In parallel, calls add(row, map, mask, grad_loss, grad_dice,
// grad_map), which adds to a bordered map. One thread adds all that a predicted mask receives.
template <typename Add>
std::vector<at::Tensor> compute_gradients(const PairRows& rows, const at::Tensor& grad_losses,
                                          const at::Tensor& grad_dices, const Add& add) {
  const at::Tensor of_losses = grad_losses.to(rows.type()).contiguous();
  const at::Tensor of_dices = grad_dices.to(rows.type()).contiguous();
  std::vector<at::Tensor> gradients;
  for (const at::Tensor& logits : rows.pairs().mask_logits) {
    gradients.push_back(at::zeros(logits.sizes(), logits.options()));
  }
  const auto [order, bounds] = rows.groups();
  AT_DISPATCH_FLOATING_TYPES(
      rows.type(), "mask_losses_backward", [&, &order = order, &bounds = bounds] {
        const scalar_t* of_loss = of_losses.const_data_ptr<scalar_t>();
        const scalar_t* of_dice = of_dices.const_data_ptr<scalar_t>();
        const int64_t groups = static_cast<int64_t>(bounds.size()) - 1;
        at::parallel_for(0, groups, 1, [&](int64_t begin, int64_t end) {
          std::vector<scalar_t> pixels, grad_map;
          for (int64_t group = begin; group < end; ++group) {
            const int64_t first = order[bounds[group]];
            const MaskMap<scalar_t> map = rows.map(first, pixels);
            grad_map.assign(pixels.size(), scalar_t(0));
            for (int64_t i = bounds[group]; i < bounds[group + 1]; ++i) {
              const int64_t row = order[i];
              add(row, map, rows.mask(row), of_loss[row], of_dice[row], grad_map.data());
            }
            copy_gradient(grad_map, rows.image(first), rows.query(first),
                          gradients[rows.layer(first)]);
          }
        });
      });
  return gradients;
}

}  // namespace ddep
