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

// Of every channel over all rows: the mean, and the mean squared deviation from it.
struct Statistics {
  std::vector<double> mean, var;
};

// Statistics block by block: one pass over rows that are in
// the cache anyway, each block from its own first row, and joined in order (Chan et al. 1983).
template <class T>
class Moments {
 public:
  using A = Accumulator<T>;
  Moments(int64_t rows, int64_t channels, int64_t block_rows)
      : rows_(rows), channels_(channels), block_rows_(block_rows), sums_(blocks() * 2 * channels, 0.0),
        shifts_(blocks() * channels) {}

  // Rows [begin, begin + count), a whole block, at x.
  void add(int64_t begin, int64_t count, const T* x) {
    const int64_t b = begin / block_rows_;
    A* shift = shifts_.data() + b * channels_;
    row_kernels_for<T>().widen(x, channels_, shift);
    row_kernels_for<T>().moments(x, count, channels_, shift, sums_.data() + b * 2 * channels_);
  }

  Statistics result() const {
    Statistics all{std::vector<double>(channels_, 0.0), std::vector<double>(channels_, 0.0)};
    auto& [mean, var] = all;
    for (int pass = 0; pass < 2; ++pass)
      for (int64_t b = 0; b < blocks(); ++b) {
        const double count = static_cast<double>(std::min(block_rows_, rows_ - b * block_rows_));
        const double* sum = sums_.data() + b * 2 * channels_;
        const A* shift = shifts_.data() + b * channels_;
        for (int64_t c = 0; c < channels_; ++c) {
          const double here = static_cast<double>(shift[c]) + sum[c] / count;
          if (pass == 0)
            mean[c] += here * (count / rows_);
          else
            var[c] += (sum[channels_ + c] - sum[c] * (sum[c] / count) + count * (here - mean[c]) * (here - mean[c])) / rows_;
        }
      }
    for (double& v : var) v = std::max(v, 0.0);
    return all;
  }

 private:
  int64_t blocks() const { return (rows_ + block_rows_ - 1) / block_rows_; }
  int64_t rows_, channels_, block_rows_;
  std::vector<double> sums_;
  std::vector<A> shifts_;
};

// y = (x - mean) / sqrt(var + eps) * weight + bias and the ending, with the statistics of x itself, found
// here unless given; and mean and var.
std::tuple<Tensor, Tensor, Tensor> normalize_batch(const Tensor& x, const Statistics* known,
                                                   const std::optional<Tensor>& weight, const std::optional<Tensor>& bias,
                                                   const std::optional<Tensor>& residual, bool relu, double eps);

inline std::optional<Tensor> contiguous_residual(const std::optional<Tensor>& residual, int64_t rows, int64_t channels,
                                                 ScalarType dtype, const char* op) {
  if (!residual) return std::nullopt;
  STD_TORCH_CHECK(residual->dim() == 2 && residual->size(0) == rows && residual->size(1) == channels &&
                      residual->scalar_type() == dtype,
                  op, ": the residual must have the shape and dtype of the result");
  return torch::stable::contiguous(*residual);
}

}  // namespace perception
