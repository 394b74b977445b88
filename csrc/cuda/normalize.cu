// Normalization with given statistics, and the running statistics themselves, in one launch each.
// Limit: bytes, x read once and y written once.
#include "cuda/cuda.cuh"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace perception {
namespace {

// The parameters of all channels, converted to the type of the sums; null means the neutral value.
template <class A>
struct Column {
  const void* data;
  ScalarType type;

  __device__ A at(int64_t c, A otherwise) const {
    if (data == nullptr) return otherwise;
    switch (type) {
      case ScalarType::Double: return static_cast<A>(static_cast<const double*>(data)[c]);
      case ScalarType::Half: return static_cast<A>(__half2float(static_cast<const __half*>(data)[c]));
      case ScalarType::BFloat16: return static_cast<A>(__bfloat162float(static_cast<const __nv_bfloat16*>(data)[c]));
      default: return static_cast<A>(static_cast<const float*>(data)[c]);
    }
  }
};

template <class T>
__device__ inline Accumulator<T> widen(T v) { return static_cast<Accumulator<T>>(v); }

// A thread keeps the scale and shift of its kVector channels and walks down the rows.
template <class T, int kVector>
__global__ void __launch_bounds__(256)
    normalize_kernel(const T* x, T* y, Column<Accumulator<T>> mean, Column<Accumulator<T>> var, Column<Accumulator<T>> weight,
                     Column<Accumulator<T>> bias, Accumulator<T> eps, int64_t rows, int columns, int lanes) {
  using A = Accumulator<T>;
  struct alignas(sizeof(T) * kVector) Vector { T v[kVector]; };
  extern __shared__ double memory[];
  A* scales = reinterpret_cast<A*>(memory);
  A* shifts = scales + columns;
  for (int c = threadIdx.x; c < columns; c += blockDim.x) {
    scales[c] = weight.at(c, A(1)) / sqrt(var.at(c, A(1)) + eps);
    shifts[c] = bias.at(c, A(0)) - mean.at(c, A(0)) * scales[c];
  }
  __syncthreads();
  const int64_t thread = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const int64_t threads = int64_t{gridDim.x} * blockDim.x;
  const int64_t rows_at_once = threads / lanes;
  if (thread >= rows_at_once * lanes) return;
  const int first = static_cast<int>(thread % lanes) * kVector;
  A scale[kVector], shift[kVector];
#pragma unroll
  for (int i = 0; i < kVector; ++i) {
    scale[i] = scales[first + i];
    shift[i] = shifts[first + i];
  }
#pragma unroll 4
  for (int64_t row = thread / lanes; row < rows; row += rows_at_once) {
    const int64_t at = row * columns + first;
    Vector in = *reinterpret_cast<const Vector*>(x + at), out;
#pragma unroll
    for (int i = 0; i < kVector; ++i) out.v[i] = static_cast<T>(widen(in.v[i]) * scale[i] + shift[i]);
    *reinterpret_cast<Vector*>(y + at) = out;
  }
}

template <class A>
Column<A> column(const Tensor& t) {
  return {t.data_ptr(), t.scalar_type()};
}

Tensor normalize(const Tensor& x, const Tensor& mean, const Tensor& var, const std::optional<Tensor>& weight,
                 const std::optional<Tensor>& bias, double eps) {
  STD_TORCH_CHECK(x.dim() == 2, "normalize: x must be [N, C]");
  const int64_t rows = x.size(0), columns = x.size(1);
  for (const Tensor* t : {&mean, &var}) {
    check_same_device(x, *t, "normalize");
    STD_TORCH_CHECK(t->numel() == columns && t->is_contiguous(), "normalize: mean and var must be [C]");
  }
  for (const auto* t : {&weight, &bias})
    if (*t) STD_TORCH_CHECK((*t)->numel() == columns && (*t)->is_contiguous(), "normalize: weight and bias must be [C]");
  const Device device(x);
  const Tensor x_c = as_contiguous(x);
  Tensor y = torch::stable::empty_like(x_c);
  if (y.numel() == 0) return y;
  dispatch_floating(x.scalar_type(), "normalize", [&](auto tag) {
    using T = decltype(tag);
    using A = Accumulator<T>;
    const T* from = static_cast<const T*>(x_c.data_ptr());
    T* to = static_cast<T*>(y.data_ptr());
    const auto optional = [](const std::optional<Tensor>& t) {
      return t ? column<A>(*t) : Column<A>{nullptr, ScalarType::Float};
    };
    constexpr int kWide = 16 / sizeof(T);
    const bool wide = columns % kWide == 0 && reinterpret_cast<uintptr_t>(from) % 16 == 0 && reinterpret_cast<uintptr_t>(to) % 16 == 0;
    const int lanes = static_cast<int>(wide ? columns / kWide : columns);
    const unsigned least = static_cast<unsigned>(ceil_div(lanes, 256));
    unsigned grid = grid_for(ceil_div(rows * lanes, 4), 256, 1056);  // eight blocks a multiprocessor of the largest chip
    if (grid < least) grid = least;
    const auto kernel = wide ? normalize_kernel<T, kWide> : normalize_kernel<T, 1>;
    const int shared = static_cast<int>(2 * columns * sizeof(A));
    STD_TORCH_CHECK(shared <= 48 << 10, "normalize: more than ", (48 << 10) / (2 * sizeof(A)), " channels");
    kernel<<<grid, 256, shared, device.stream()>>>(from, to, column<A>(mean), column<A>(var), optional(weight), optional(bias),
                                              static_cast<A>(eps), rows, static_cast<int>(columns), lanes);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return y;
}

template <class T>
__global__ void track_kernel(T* running_mean, T* running_var, int64_t* batches, Column<double> mean, Column<double> var,
                             double unbias, double momentum, int channels) {
  for (int c = threadIdx.x; c < channels; c += blockDim.x) {
    const double old_mean = widen(running_mean[c]), old_var = widen(running_var[c]);
    running_mean[c] = static_cast<T>(static_cast<Accumulator<T>>(old_mean + momentum * (mean.at(c, 0) - old_mean)));
    running_var[c] = static_cast<T>(static_cast<Accumulator<T>>(old_var + momentum * (var.at(c, 1) * unbias - old_var)));
  }
  if (threadIdx.x == 0) ++*batches;
}

void track_statistics(const Tensor& running_mean, const Tensor& running_var, const Tensor& batches, const Tensor& mean,
                      const Tensor& var, double unbias, double momentum) {
  const int64_t channels = running_mean.numel();
  for (const Tensor* t : {&running_var, &mean, &var})
    STD_TORCH_CHECK(t->numel() == channels && t->is_contiguous(), "track_statistics: the statistics must be [C]");
  STD_TORCH_CHECK(running_mean.is_contiguous() && running_mean.scalar_type() == running_var.scalar_type() &&
                      batches.scalar_type() == ScalarType::Long,
                  "track_statistics: the running statistics must be of one dtype, batches int64");
  for (const Tensor* t : {&running_var, &batches, &mean, &var}) check_same_device(running_mean, *t, "track_statistics");
  const Device device(running_mean);
  dispatch_floating(running_mean.scalar_type(), "track_statistics", [&](auto tag) {
    using T = decltype(tag);
    track_kernel<T><<<1, 256, 0, device.stream()>>>(
        static_cast<T*>(running_mean.data_ptr()), static_cast<T*>(running_var.data_ptr()),
        static_cast<int64_t*>(batches.data_ptr()), column<double>(mean), column<double>(var), unbias, momentum,
        static_cast<int>(channels));
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
}

STABLE_TORCH_LIBRARY_IMPL(perception, CUDA, m) { 
  m.impl("normalize", TORCH_BOX(&normalize));
  m.impl("track_statistics", TORCH_BOX(&track_statistics));
}

}  // namespace
}  // namespace perception
