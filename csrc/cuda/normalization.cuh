// What the sources of normalizations share: parameters of any floating dtype, residuals, running statistics.
#pragma once

#include "cuda/pack.cuh"

namespace perception {

// A vector [C] of any floating dtype, read one number at a time; null means a neutral value.
struct Column {
  const void* data = nullptr;
  ScalarType dtype = ScalarType::Float;

  template <class A>
  __device__ A at(int64_t c, A otherwise) const {
    if (data == nullptr) return otherwise;
    switch (dtype) {
      case ScalarType::Double: return static_cast<A>(static_cast<const double*>(data)[c]);
      case ScalarType::Half: return static_cast<A>(static_cast<float>(static_cast<const Half*>(data)[c]));
      case ScalarType::BFloat16: return static_cast<A>(static_cast<float>(static_cast<const BFloat16*>(data)[c]));
      default: return static_cast<A>(static_cast<const float*>(data)[c]);
    }
  }
};

inline Column column(const Tensor& values, int64_t channels, const Tensor& like, const char* op) {
  STD_TORCH_CHECK(values.numel() == channels && values.is_contiguous(), op,
                  ": statistics, weight and bias must be [C] and contiguous");
  check_same_device(values, like, op);
  dispatch_floating(values.scalar_type(), op, [](auto) {});
  return {values.const_data_ptr(), values.scalar_type()};
}
inline Column column(const std::optional<Tensor>& values, const Tensor& x, const char* op) {
  return values ? column(*values, x.size(1), x, op) : Column{};
}

inline std::optional<Tensor> contiguous_residual(const std::optional<Tensor>& residual, const Tensor& x, const char* op) {
  if (!residual) return std::nullopt;
  STD_TORCH_CHECK(residual->dim() == 2 && residual->size(0) == x.size(0) && residual->size(1) == x.size(1) &&
                      residual->scalar_type() == x.scalar_type(),
                  op, ": the residual must have the shape and dtype of the result");
  check_same_device(*residual, x, op);
  return as_contiguous(*residual);
}

template <class T, int V>
__device__ inline void add(Accumulator<T> (&value)[V], const Pack<T, V>& more) {
  Accumulator<T> other[V];
  more.widen(other);
#pragma unroll
  for (int v = 0; v < V; ++v) value[v] += other[v];
}

// Running statistics [C] that move towards a batch's; none where they are null.
struct Running {
  void *mean = nullptr, *var = nullptr;
  ScalarType dtype = ScalarType::Float;
  int64_t* batches = nullptr;
  double momentum = 0;

  // `unbiased`: the variance over one row less.
  __device__ void move(int c, double to_mean, double unbiased) const {
    if (mean == nullptr) return;
    switch (dtype) {
      case ScalarType::Double: move_both<double>(c, to_mean, unbiased); break;
      case ScalarType::Half: move_both<Half>(c, to_mean, unbiased); break;
      case ScalarType::BFloat16: move_both<BFloat16>(c, to_mean, unbiased); break;
      default: move_both<float>(c, to_mean, unbiased);
    }
    if (c == 0) ++*batches;
  }
  template <class T>
  __device__ void move_both(int c, double to_mean, double to_var) const {
    move_one(static_cast<T*>(mean)[c], to_mean);
    move_one(static_cast<T*>(var)[c], to_var);
  }
  template <class T>
  __device__ void move_one(T& value, double target) const {
    const double old = static_cast<double>(static_cast<Accumulator<T>>(value));
    value = static_cast<T>(static_cast<Accumulator<T>>(old + momentum * (target - old)));
  }
};

inline Running running_statistics(const Tensor& x, const Tensor& mean, const Tensor& var, const Tensor& batches,
                                  double momentum) {
  const int64_t channels = x.dim() == 2 ? x.size(1) : x.numel();
  for (const Tensor* t : {&mean, &var}) column(*t, channels, x, "running statistics");
  STD_TORCH_CHECK(mean.scalar_type() == var.scalar_type() && batches.scalar_type() == ScalarType::Long,
                  "running statistics: they must be of one dtype, batches int64");
  check_same_device(batches, x, "running statistics");
  return {mean.data_ptr(), var.data_ptr(), mean.scalar_type(), batches.mutable_data_ptr<int64_t>(), momentum};
}

// csrc/cuda/normalization.cu
Tensor sum_rows(const Tensor& x);
std::tuple<Tensor, Tensor, Tensor> normalize_by_batch(const Tensor& x, const std::optional<Tensor>& weight,
                                                      const std::optional<Tensor>& bias,
                                                      const std::optional<Tensor>& residual, bool relu, double eps,
                                                      const Running& running);
std::tuple<Tensor, Tensor, Tensor, Tensor> batch_norm_backward(const Tensor& grad, const Tensor& x,
                                                               const std::optional<Tensor>& y,
                                                               const std::optional<Tensor>& weight, const Tensor& mean,
                                                               const Tensor& var, double eps, bool residual);
// out = (x - mean) / sqrt(var + eps) * scale + shift [+ residual]; out may be x. csrc/cuda/normalize.cu
void normalize_into(const Tensor& x, const Tensor& out, const Column& mean, const Column& var, const Column& scale,
                    const Column& shift, const std::optional<Tensor>& residual, bool relu, double eps, cudaStream_t stream);

}  // namespace perception
