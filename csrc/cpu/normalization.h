// Normalization with given statistics, as what follows a product and as a pass of its own.
#pragma once

#include "cpu/kernels.h"

#include <cmath>

namespace perception {

// The numbers of a parameter or statistic in the type of sums; `otherwise` where there is none.
template <class A>
std::vector<A> read_channels(const std::optional<Tensor>& values, int64_t channels, double otherwise) {
  std::vector<A> out(channels, static_cast<A>(otherwise));
  if (values) {
    STD_TORCH_CHECK(values->numel() == channels, "batch_norm: weight, bias and statistics must be [C]");
    const Tensor contiguous = torch::stable::contiguous(*values);
    dispatch_floating(values->scalar_type(), "batch_norm", [&](auto tag) {
      using T = decltype(tag);
      for (int64_t c = 0; c < channels; ++c)
        out[c] = static_cast<A>(static_cast<Accumulator<T>>(contiguous.const_data_ptr<T>()[c]));
    });
  }
  return out;
}

// y = (x - mean) / sqrt(var + eps) * weight + bias, + residual, max(., 0)
struct Finish {
  const Tensor& mean;
  const Tensor& var;
  const std::optional<Tensor>& weight;
  const std::optional<Tensor>& bias;
  std::optional<Tensor> residual;  // contiguous, [N, C]
  bool relu;
  double eps;
};

// A Finish in the form that the kernels take, whose arrays it owns.
template <class A>
struct Normalization {
  std::vector<A> mean, scale, shift;

  template <class T>
  Ending<T, A> ending(const Finish& finish, int64_t channels) {
    mean = read_channels<A>(finish.mean, channels, 0);
    scale = read_channels<A>(finish.weight, channels, 1);
    shift = read_channels<A>(finish.bias, channels, 0);
    const std::vector<A> var = read_channels<A>(finish.var, channels, 1);
    for (int64_t c = 0; c < channels; ++c) scale[c] /= std::sqrt(var[c] + static_cast<A>(finish.eps));
    return {mean.data(), scale.data(), shift.data(), finish.residual ? finish.residual->const_data_ptr<T>() : nullptr,
            finish.relu};
  }
};

inline std::optional<Tensor> contiguous_residual(const std::optional<Tensor>& residual, int64_t rows, int64_t channels,
                                                 ScalarType dtype, const char* op) {
  if (!residual) return std::nullopt;
  STD_TORCH_CHECK(residual->dim() == 2 && residual->size(0) == rows && residual->size(1) == channels &&
                      residual->scalar_type() == dtype,
                  op, ": the residual must have the shape and dtype of the result");
  return torch::stable::contiguous(*residual);
}

}  // namespace perception
