// Sums over all rows and batch normalization. Rows are summed in fixed blocks, in float64, and the
// blocks in order: torch's own kernels split by thread, so their last bits depend on how many.
// Limit: bytes. Every pass reads and writes once; the statistics of a convolution's result are taken
// while it is in the cache (conv.cpp).
#include "cpu/normalization.h"

#include "cpu/layers.h"
#include "cpu/parallel.h"

#include <cmath>

namespace perception {
namespace {

constexpr int64_t kBlock = 2048;

// Sums in float64 that sum(begin, end, sums) adds up of each block of rows, the blocks added in order.
template <class F>
std::vector<double> block_sums(int64_t rows, int64_t count, const F& sum) {
  const int64_t blocks = (rows + kBlock - 1) / kBlock;
  std::vector<double> partial(blocks * count, 0.0);
  parallel_blocks(rows, kBlock,
                  [&](int64_t b, int64_t begin, int64_t end) { sum(begin, end, partial.data() + b * count); });
  std::vector<double> total(count, 0.0);
  for (int64_t b = 0; b < blocks; ++b)
    for (int64_t c = 0; c < count; ++c) total[c] += partial[b * count + c];
  return total;
}

}  // namespace

Tensor sum_rows(const Tensor& x_tensor) {
  STD_TORCH_CHECK(x_tensor.dim() == 2, "sum_rows: x must be [N, C]");
  const Tensor x_c = torch::stable::contiguous(x_tensor);
  const int64_t rows = x_c.size(0), channels = x_c.size(1);
  Tensor out = empty({channels}, x_c.scalar_type());
  dispatch_floating(x_c.scalar_type(), "sum_rows", [&](auto tag) {
    using T = decltype(tag);
    const T* x = x_c.const_data_ptr<T>();
    const std::vector<Accumulator<T>> zero(channels, 0);
    const auto sums = block_sums(rows, 2 * channels, [&](int64_t begin, int64_t end, double* sum) {
      row_kernels_for<T>().moments(x + begin * channels, end - begin, channels, zero.data(), sum);
    });
    for (int64_t c = 0; c < channels; ++c) out.mutable_data_ptr<T>()[c] = static_cast<T>(sums[c]);
  });
  return out;
}

namespace {

// y = ending(x); y may be x.
template <class T, class A>
void apply(const T* x, T* y, int64_t rows, int64_t channels, const Ending<T, A>& ending) {
  const RowKernels<T, A>& kernel = row_kernels_for<T>();
  parallel_blocks(rows, kBlock, [&](int64_t, int64_t begin, int64_t end) {
    Ending<T, A> here = ending;
    if (here.residual) here.residual += begin * channels;
    const int64_t at = begin * channels;
    if constexpr (std::is_same_v<T, A>) {
      kernel.finish(x + at, channels, end - begin, channels, here, y + at);
    } else {
      static thread_local Scratch<A> memory;
      A* wide = memory.get(kBlock * channels);
      kernel.widen(x + at, (end - begin) * channels, wide);
      kernel.finish(wide, channels, end - begin, channels, here, y + at);
    }
  });
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor> normalize_batch(const Tensor& x_tensor, const Statistics* known,
                                                   const std::optional<Tensor>& weight, const std::optional<Tensor>& bias,
                                                   const std::optional<Tensor>& residual, bool relu, double eps) {
  STD_TORCH_CHECK(x_tensor.dim() == 2 && x_tensor.size(0) > 0, "batch_norm: x must be [N > 0, C]");
  const Tensor x_c = torch::stable::contiguous(x_tensor);
  const std::optional<Tensor> residual_c = contiguous_residual(residual, x_c.size(0), x_c.size(1), x_c.scalar_type(), "batch_norm");
  const int64_t rows = x_c.size(0), channels = x_c.size(1);
  const ScalarType stats = x_c.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  Tensor y_tensor = features_like(x_c), mean_out = empty({channels}, stats), var_out = empty({channels}, stats);
  dispatch_floating(x_c.scalar_type(), "batch_norm", [&](auto tag) {
    using T = decltype(tag);
    using A = Accumulator<T>;
    const T* x = x_c.const_data_ptr<T>();
    A* mean = mean_out.mutable_data_ptr<A>();
    A* var = var_out.mutable_data_ptr<A>();
    Statistics found;
    if (!known) {
      Moments<T> moments(rows, channels, kBlock);
      parallel_blocks(rows, kBlock,
                      [&](int64_t, int64_t begin, int64_t end) { moments.add(begin, end - begin, x + begin * channels); });
      found = moments.result();
      known = &found;
    }
    std::vector<A> scale = read_channels<A>(weight, channels, 1.0), shift = read_channels<A>(bias, channels, 0.0);
    for (int64_t c = 0; c < channels; ++c) {
      mean[c] = static_cast<A>(known->mean[c]);
      var[c] = static_cast<A>(known->var[c]);
      scale[c] *= static_cast<A>(1.0 / std::sqrt(known->var[c] + eps));
    }
    apply<T, A>(x, y_tensor.mutable_data_ptr<T>(), rows, channels,
                {mean, scale.data(), shift.data(), residual_c ? residual_c->const_data_ptr<T>() : nullptr, relu});
  });
  return {y_tensor, mean_out, var_out};
}

std::tuple<Tensor, Tensor, Tensor> batch_norm(const Tensor& x, const std::optional<Tensor>& weight,
                                              const std::optional<Tensor>& bias, const std::optional<Tensor>& residual,
                                              bool relu, double eps) {
  return normalize_batch(x, nullptr, weight, bias, residual, relu, eps);
}

std::tuple<Tensor, Tensor, Tensor, Tensor> batch_norm_backward(const Tensor& grad_tensor, const Tensor& x_tensor,
                                                               const std::optional<Tensor>& y_tensor,
                                                               const std::optional<Tensor>& weight,
                                                               const Tensor& mean_tensor, const Tensor& var_tensor,
                                                               double eps, bool residual) {
  STD_TORCH_CHECK(x_tensor.dim() == 2 && grad_tensor.scalar_type() == x_tensor.scalar_type() &&
                      grad_tensor.numel() == x_tensor.numel() &&
                      (!y_tensor || (y_tensor->scalar_type() == x_tensor.scalar_type() && y_tensor->numel() == x_tensor.numel())),
                  "batch_norm_backward: grad, x and y must match");
  STD_TORCH_CHECK(mean_tensor.numel() == x_tensor.size(1) && var_tensor.numel() == x_tensor.size(1),
                  "batch_norm_backward: mean and var must be [C]");
  const Tensor x_c = torch::stable::contiguous(x_tensor), grad_c = torch::stable::contiguous(grad_tensor);
  std::optional<Tensor> y_c;
  if (y_tensor) y_c = torch::stable::contiguous(*y_tensor);
  const int64_t rows = x_c.size(0), channels = x_c.size(1);
  const ScalarType stats = mean_tensor.scalar_type();
  Tensor dx_tensor = features_like(x_c), dweight = empty({channels}, stats), dbias = empty({channels}, stats);
  Tensor dresidual = features({residual ? rows : 0, channels}, x_c.scalar_type());
  dispatch_floating(x_c.scalar_type(), "batch_norm_backward", [&](auto tag) {
    using T = decltype(tag);
    using A = Accumulator<T>;
    STD_TORCH_CHECK(stats == scalar_type<A>(), "batch_norm_backward: mean and var have the wrong dtype");
    const T* x = x_c.const_data_ptr<T>();
    const T* grad = grad_c.const_data_ptr<T>();
    const T* y = y_c ? y_c->const_data_ptr<T>() : nullptr;
    const A* mean = mean_tensor.const_data_ptr<A>();
    const A* var = var_tensor.const_data_ptr<A>();
    T* dx = dx_tensor.mutable_data_ptr<T>();
    T* dr = residual ? dresidual.mutable_data_ptr<T>() : nullptr;
    const RowKernels<T, A>& kernel = row_kernels_for<T>();
    const auto sums = block_sums(rows, 2 * channels, [&](int64_t begin, int64_t end, double* sum) {
      const int64_t at = begin * channels;
      kernel.gradient_sums(grad + at, x + at, y ? y + at : nullptr, end - begin, channels, mean, sum);
    });
    std::vector<A> scale = read_channels<A>(weight, channels, 1.0), from_mean(channels), from_var(channels);
    for (int64_t c = 0; c < channels; ++c) {
      const double inverse = 1.0 / std::sqrt(static_cast<double>(var[c]) + eps);
      dbias.mutable_data_ptr<A>()[c] = static_cast<A>(sums[c]);
      dweight.mutable_data_ptr<A>()[c] = static_cast<A>(sums[channels + c] * inverse);
      scale[c] *= static_cast<A>(inverse);
      from_mean[c] = static_cast<A>(sums[c] / rows);
      from_var[c] = static_cast<A>(sums[channels + c] * inverse * inverse / rows);
    }
    parallel_blocks(rows, kBlock, [&](int64_t, int64_t begin, int64_t end) {
      const int64_t at = begin * channels;
      kernel.gradient(grad + at, x + at, y ? y + at : nullptr, end - begin, channels, mean, scale.data(), from_mean.data(),
                      from_var.data(), dx + at, dr ? dr + at : nullptr);
    });
  });
  return {dx_tensor, dweight, dbias, dresidual};
}

// y = (x - mean) / sqrt(var + eps) * weight + bias with given statistics, written to `y`, which may be x.
void normalize_into(const Tensor& x_c, const Tensor& y_tensor, const Tensor& mean, const Tensor& var,
                    const std::optional<Tensor>& weight, const std::optional<Tensor>& bias,
                    const std::optional<Tensor>& residual, bool relu, double eps) {
  const int64_t rows = x_c.size(0), channels = x_c.size(1);
  const Finish finish{mean, var, weight, bias, contiguous_residual(residual, rows, channels, x_c.scalar_type(), "normalize"),
                      relu, eps};
  dispatch_floating(x_c.scalar_type(), "normalize", [&](auto tag) {
    using T = decltype(tag);
    Normalization<Accumulator<T>> norm;
    apply<T, Accumulator<T>>(x_c.const_data_ptr<T>(), y_tensor.mutable_data_ptr<T>(), rows, channels,
                             norm.template ending<T>(finish, channels));
  });
}

namespace {

Tensor normalize(const Tensor& x_tensor, const Tensor& mean, const Tensor& var, const std::optional<Tensor>& weight,
                 const std::optional<Tensor>& bias, const std::optional<Tensor>& residual, bool relu, double eps) {
  STD_TORCH_CHECK(x_tensor.dim() == 2, "normalize: x must be [N, C]");
  const Tensor x_c = torch::stable::contiguous(x_tensor);
  Tensor y_tensor = features_like(x_c);
  normalize_into(x_c, y_tensor, mean, var, weight, bias, residual, relu, eps);
  return y_tensor;
}

}  // namespace

// Moves running statistics towards a batch's; var times unbias is the unbiased variance.
void track_statistics(const Tensor& running_mean, const Tensor& running_var, const Tensor& batches, const Tensor& mean,
                      const Tensor& var, double unbias, double momentum) {
  const int64_t channels = running_mean.numel();
  STD_TORCH_CHECK(running_mean.is_contiguous() && running_var.is_contiguous() && running_var.numel() == channels &&
                      running_mean.scalar_type() == running_var.scalar_type() && batches.scalar_type() == ScalarType::Long,
                  "track_statistics: the running statistics must be [C] in one dtype, batches int64");
  const std::vector<double> new_mean = read_channels<double>(mean, channels, 0), new_var = read_channels<double>(var, channels, 1);
  dispatch_floating(running_mean.scalar_type(), "track_statistics", [&](auto tag) {
    using T = decltype(tag);
    using A = Accumulator<T>;
    T* to_mean = running_mean.mutable_data_ptr<T>();
    T* to_var = running_var.mutable_data_ptr<T>();
    const auto move = [momentum](T& value, double target) {
      const double old = static_cast<double>(static_cast<A>(value));
      value = static_cast<T>(static_cast<A>(old + momentum * (target - old)));
    };
    for (int64_t c = 0; c < channels; ++c) {
      move(to_mean[c], new_mean[c]);
      move(to_var[c], new_var[c] * unbias);
    }
  });
  ++*batches.mutable_data_ptr<int64_t>();
}

namespace {

STABLE_TORCH_LIBRARY_IMPL(perception, CPU, m) {
  m.impl("sum_rows", TORCH_BOX(&sum_rows));
  m.impl("normalize", TORCH_BOX(&normalize));
  m.impl("track_statistics", TORCH_BOX(&track_statistics));
  m.impl("batch_norm", TORCH_BOX(&batch_norm));
  m.impl("batch_norm_backward", TORCH_BOX(&batch_norm_backward));
}

}  // namespace
}  // namespace perception
