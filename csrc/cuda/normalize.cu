// Normalization with given statistics, and the running statistics themselves, in one launch each.
// Limit: bytes, x read once and y written once.
#include "cuda/normalization.cuh"

namespace perception {
namespace {

template <class A>
struct Given {
  Column mean, var, weight, bias;
  A eps;
};

// A thread keeps the scale and shift of its V channels and walks down the rows.
template <class T, int V>
__global__ void __launch_bounds__(256)
    normalize_kernel(const T* x, const T* residual, T* y, const Given<Accumulator<T>> given, bool relu, int64_t rows,
                     int columns, int lanes) {
  using A = Accumulator<T>;
  extern __shared__ double memory[];
  A* scales = reinterpret_cast<A*>(memory);
  A* shifts = scales + columns;
  for (int c = threadIdx.x; c < columns; c += blockDim.x) {
    scales[c] = given.weight.at(c, A(1)) / sqrt(given.var.at(c, A(1)) + given.eps);
    shifts[c] = given.bias.at(c, A(0)) - given.mean.at(c, A(0)) * scales[c];
  }
  __syncthreads();
  const int64_t thread = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const int64_t threads = int64_t{gridDim.x} * blockDim.x;
  const int64_t rows_at_once = threads / lanes;
  if (thread >= rows_at_once * lanes) return;
  const int first = static_cast<int>(thread % lanes) * V;
  A scale[V], shift[V];
#pragma unroll
  for (int v = 0; v < V; ++v) {
    scale[v] = scales[first + v];
    shift[v] = shifts[first + v];
  }
#pragma unroll 4
  for (int64_t row = thread / lanes; row < rows; row += rows_at_once) {
    const int64_t at = row * columns + first;
    A value[V];
    load_pack<T, V>(x + at).widen(value);
#pragma unroll
    for (int v = 0; v < V; ++v) value[v] = value[v] * scale[v] + shift[v];
    if (residual) add(value, load_pack<T, V>(residual + at));
    if (relu) {
#pragma unroll
      for (int v = 0; v < V; ++v) value[v] = value[v] < 0 ? 0 : value[v];  // NaN stays
    }
    Pack<T, V> out;
    out.narrow(value);
    store_pack<T, V>(y + at, out);
  }
}

}  // namespace

void normalize_into(const Tensor& x, const Tensor& out, const Column& mean, const Column& var, const Column& scale,
                    const Column& shift, const std::optional<Tensor>& residual, bool relu, double eps, cudaStream_t stream) {
  const int64_t rows = x.size(0), columns = x.size(1);
  if (x.numel() == 0) return;
  const std::optional<Tensor> added = contiguous_residual(residual, x, "normalize");
  dispatch_floating(x.scalar_type(), "normalize", [&](auto tag) {
    using T = decltype(tag);
    using A = Accumulator<T>;
    const T* from = x.const_data_ptr<T>();
    const T* more = added ? added->const_data_ptr<T>() : nullptr;
    T* to = out.mutable_data_ptr<T>();
    with_pack<T>(columns, {from, to, more}, [&](auto pack) {
      constexpr int V = decltype(pack)::value;
      const int lanes = static_cast<int>(columns / V);
      const unsigned least = static_cast<unsigned>(ceil_div(lanes, 256));
      unsigned grid = grid_for(ceil_div(rows * lanes, 4), 256, 1056);  // eight blocks a multiprocessor of the largest chip
      if (grid < least) grid = least;
      const int shared = static_cast<int>(2 * columns * sizeof(A));
      STD_TORCH_CHECK(shared <= 48 << 10, "normalize: more than ", (48 << 10) / (2 * sizeof(A)), " channels");
      normalize_kernel<T, V><<<grid, 256, shared, stream>>>(from, more, to, {mean, var, scale, shift, static_cast<A>(eps)},
                                                           relu, rows, static_cast<int>(columns), lanes);
      STD_CUDA_KERNEL_LAUNCH_CHECK();
    });
  });
}

namespace {

Tensor normalize(const Tensor& x, const Tensor& mean, const Tensor& var, const std::optional<Tensor>& weight,
                 const std::optional<Tensor>& bias, const std::optional<Tensor>& residual, bool relu, double eps) {
  STD_TORCH_CHECK(x.dim() == 2, "normalize: x must be [N, C]");
  const Device device(x);
  const Tensor x_c = as_contiguous(x);
  Tensor y = empty_like_device(x_c, {x_c.size(0), x_c.size(1)}, x_c.scalar_type());
  normalize_into(x_c, y, column(mean, x.size(1), x, "normalize"), column(var, x.size(1), x, "normalize"),
                 column(weight, x, "normalize"), column(bias, x, "normalize"), residual, relu, eps, device.stream());
  return y;
}

__global__ void track_kernel(const Running running, Column mean, Column var, double unbias, int channels) {
  for (int c = threadIdx.x; c < channels; c += blockDim.x) running.move(c, mean.at(c, 0.0), var.at(c, 1.0) * unbias);
}

void track_statistics(const Tensor& running_mean, const Tensor& running_var, const Tensor& batches, const Tensor& mean,
                      const Tensor& var, double unbias, double momentum) {
  const Running running = running_statistics(mean, running_mean, running_var, batches, momentum);
  const int64_t channels = running_mean.numel();
  const Device device(running_mean);
  track_kernel<<<1, 256, 0, device.stream()>>>(running, column(mean, channels, mean, "track_statistics"),
                                               column(var, channels, mean, "track_statistics"), unbias,
                                               static_cast<int>(channels));
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

STABLE_TORCH_LIBRARY_IMPL(perception, CUDA, m) { 
  m.impl("normalize", TORCH_BOX(&normalize));
  m.impl("track_statistics", TORCH_BOX(&track_statistics));
}

}  // namespace
}  // namespace perception
