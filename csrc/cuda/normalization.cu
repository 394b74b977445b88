// Sums over all rows and batch normalization; see cpu/normalization.cpp. Three launches each: blocks sum
// their share of the rows, the shares are added in order, the result is applied. How rows are shared
// depends on the shape alone, so the same bits come out of every run on every GPU.
// Limit: bytes. The statistics read x once, from memory or from what the layer before left in the L2
// cache; applying them reads x again, mostly from L2, and writes y.
//
// A thread adds up to kRunRows rows in float32, the moments relative to the first of them: neither a
// large mean nor one wild row destroys the variance. Threads and blocks are added in float64.
#include "cuda/pack.cuh"

#include <algorithm>

namespace perception {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kBlocks = 264;  // two for each multiprocessor of an H100, more only for very many rows
constexpr int kRunRows = 64;
constexpr int kUnroll = 4;

// How the threads of a block lie on [rows, channels]: a thread owns V channels (a slot) and every
// `height`-th row of the block's rows; blocks y stand side by side where there are more slots than threads.
struct Layout {
  int64_t rows;
  int chunk;  // rows of a block
  int channels, slots, lanes, height;
  unsigned blocks, panels;

  Layout(int64_t rows_, int64_t channels_, int pack, int least_rows, int most_rows, int64_t wanted_blocks)
      : rows(rows_), channels(static_cast<int>(channels_)), slots(static_cast<int>(channels_ / pack)),
        lanes(std::min(slots, kThreads)), height(kThreads / lanes) {
    const int64_t a_thread = ceil_div(rows, wanted_blocks * height);
    chunk = height * static_cast<int>(std::max<int64_t>(least_rows, std::min<int64_t>(most_rows, a_thread)));
    blocks = static_cast<unsigned>(std::max<int64_t>(1, ceil_div(rows, chunk)));
    panels = static_cast<unsigned>(ceil_div(slots, lanes));
  }
  dim3 grid() const { return dim3(blocks, panels); }
};

// Where one thread stands.
template <int V>
struct Place {
  int slot, row, count;  // count: rows of this thread; 0 for one that has no slot
  int64_t at, step;      // its first element, and from there to the next row

  __device__ explicit Place(const Layout& l) {
    slot = blockIdx.y * l.lanes + threadIdx.x % l.lanes;
    row = threadIdx.x / l.lanes;
    const int64_t begin = int64_t{blockIdx.x} * l.chunk;
    const int rows = static_cast<int>(min(l.rows - begin, int64_t{l.chunk}));
    count = row < l.height && row < rows && slot < l.slots ? (rows - row + l.height - 1) / l.height : 0;
    at = (begin + row) * l.channels + slot * V;
    step = int64_t{l.height} * l.channels;
  }
};

// partial[block][s][channel] = sum over the threads of the block of sum[s][channel].
template <int S, int V>
__device__ void store_partial(const double (&sum)[S][V], const Layout& l, const Place<V>& place, double* partial) {
  __shared__ double shared[S][kThreads * V];
  const int width = l.lanes * V;
  if (place.row < l.height) {
#pragma unroll
    for (int s = 0; s < S; ++s)
#pragma unroll
      for (int v = 0; v < V; ++v) shared[s][threadIdx.x * V + v] = sum[s][v];
  }
  __syncthreads();
  const int first = blockIdx.y * width, count = min(width, l.channels - first);
  for (int e = threadIdx.x; e < S * count; e += kThreads) {
    const int s = e / count, c = e % count;
    double all = 0;
#pragma unroll 8
    for (int r = 0; r < l.height; ++r) all += shared[s][r * width + c];
    partial[(int64_t{blockIdx.x} * S + s) * l.channels + first + c] = all;
  }
}

template <class T, int V>
__global__ void __launch_bounds__(kThreads) add_rows(const T* __restrict__ x, Layout l, double* partial) {
  const Place<V> place(l);
  const T* from = x + place.at;
  double sum[1][V] = {};
  for (int i = 0; i < place.count; i += kUnroll, from += kUnroll * place.step) {
    Pack<T, V> in[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u)
      if (i + u < place.count) in[u] = load_pack<T, V>(from + u * place.step);
#pragma unroll
    for (int u = 0; u < kUnroll; ++u)
      if (i + u < place.count) {
        Accumulator<T> value[V];
        in[u].widen(value);
#pragma unroll
        for (int v = 0; v < V; ++v) sum[0][v] += static_cast<double>(value[v]);
      }
  }
  store_partial<1, V>(sum, l, place, partial);
}

// Sums of x - x[0] and of its square.
template <class T, int V>
__global__ void __launch_bounds__(kThreads) add_moments(const T* __restrict__ x, Layout l, double* partial) {
  using A = Accumulator<T>;
  const Place<V> place(l);
  double sum[2][V] = {};
  if (place.count > 0) {
    const T* from = x + place.at;
    A shift[V], first[V] = {}, second[V] = {};
    load_pack<T, V>(from).widen(shift);
    for (int i = 0; i < place.count; i += kUnroll, from += kUnroll * place.step) {
      Pack<T, V> in[kUnroll];
#pragma unroll
      for (int u = 0; u < kUnroll; ++u)
        if (i + u < place.count) in[u] = load_pack<T, V>(from + u * place.step);
#pragma unroll
      for (int u = 0; u < kUnroll; ++u)
        if (i + u < place.count) {
          A value[V];
          in[u].widen(value);
#pragma unroll
          for (int v = 0; v < V; ++v) {
            const A d = value[v] - shift[v];
            first[v] += d;
            second[v] += d * d;
          }
        }
    }
    A origin[V];
    load_pack<T, V>(x + place.slot * V).widen(origin);
    const double count = place.count;
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const double d = static_cast<double>(shift[v]) - static_cast<double>(origin[v]);
      const double s = static_cast<double>(first[v]);
      sum[0][v] = s + count * d;
      sum[1][v] = static_cast<double>(second[v]) + d * (2 * s + count * d);
    }
  }
  store_partial<2, V>(sum, l, place, partial);
}

// Sums of grad and of grad * (x - mean).
template <class T, int V>
__global__ void __launch_bounds__(kThreads)
    add_gradients(const T* __restrict__ grad, const T* __restrict__ x, const Accumulator<T>* __restrict__ means,
                  Layout l, double* partial) {
  using A = Accumulator<T>;
  const Place<V> place(l);
  A first[V] = {}, second[V] = {};
  if (place.count > 0) {
    const T *from_x = x + place.at, *from_grad = grad + place.at;
    A mean[V];
#pragma unroll
    for (int v = 0; v < V; ++v) mean[v] = means[place.slot * V + v];
    for (int i = 0; i < place.count; i += kUnroll, from_x += kUnroll * place.step, from_grad += kUnroll * place.step) {
      Pack<T, V> in[kUnroll], grads[kUnroll];
#pragma unroll
      for (int u = 0; u < kUnroll; ++u)
        if (i + u < place.count) {
          grads[u] = load_pack<T, V>(from_grad + u * place.step);
          in[u] = load_pack<T, V>(from_x + u * place.step);
        }
#pragma unroll
      for (int u = 0; u < kUnroll; ++u)
        if (i + u < place.count) {
          A value[V], g[V];
          in[u].widen(value);
          grads[u].widen(g);
#pragma unroll
          for (int v = 0; v < V; ++v) {
            first[v] += g[v];
            second[v] += g[v] * (value[v] - mean[v]);
          }
        }
    }
  }
  double sum[2][V];
#pragma unroll
  for (int v = 0; v < V; ++v) {
    sum[0][v] = static_cast<double>(first[v]);
    sum[1][v] = static_cast<double>(second[v]);
  }
  store_partial<2, V>(sum, l, place, partial);
}

// Adds the shares of the blocks, in order, for kColumns channels a block, and calls finish(channel, sums).
constexpr int kColumns = 8;

template <int S, class Finish>
__global__ void __launch_bounds__(kThreads, 4)
    add_partials(const double* __restrict__ partial, int blocks, int channels, Finish finish) {
  constexpr int kGroups = kThreads / kColumns;
  __shared__ double shared[S][kGroups][kColumns];
  const int group = threadIdx.x / kColumns, column = threadIdx.x % kColumns;
  const int c = blockIdx.x * kColumns + column;
  double sum[S] = {};
  if (c < channels) {
    for (int b = group; b < blocks; b += kUnroll * kGroups) {
      double share[kUnroll][S];
#pragma unroll
      for (int u = 0; u < kUnroll; ++u)
#pragma unroll
        for (int s = 0; s < S; ++s)
          share[u][s] = b + u * kGroups < blocks ? partial[(int64_t{b + u * kGroups} * S + s) * channels + c] : 0.0;
#pragma unroll
      for (int u = 0; u < kUnroll; ++u)
#pragma unroll
        for (int s = 0; s < S; ++s) sum[s] += share[u][s];
    }
  }
#pragma unroll
  for (int s = 0; s < S; ++s) shared[s][group][column] = sum[s];
  __syncthreads();
  if (group != 0 || c >= channels) return;
#pragma unroll
  for (int s = 0; s < S; ++s) {
    sum[s] = 0;
#pragma unroll 8
    for (int g = 0; g < kGroups; ++g) sum[s] += shared[s][g][column];
  }
  finish(c, sum);
}

// A vector [C] of any floating dtype, or a constant in its place.
struct Parameter {
  const void* data;
  ScalarType dtype;
  double otherwise;

  template <class A>
  __device__ A read(int c) const {
    if (!data) return static_cast<A>(otherwise);
    switch (dtype) {
      case ScalarType::Float: return static_cast<A>(static_cast<const float*>(data)[c]);
      case ScalarType::Double: return static_cast<A>(static_cast<const double*>(data)[c]);
      case ScalarType::Half: return static_cast<A>(static_cast<float>(static_cast<const Half*>(data)[c]));
      default: return static_cast<A>(static_cast<float>(static_cast<const BFloat16*>(data)[c]));
    }
  }
};

template <class T>
struct FinishSum {
  T* out;
  __device__ void operator()(int c, const double (&sum)[1]) const { out[c] = static_cast<T>(sum[0]); }
};

// Vectors [C] that the last pass multiplies with, each aligned for packs.
template <class A>
struct Affine {
  A *mean, *scale, *shift;
};

template <class T>
struct FinishMoments {
  const T* x;
  double rows, eps;
  Parameter weight, bias;
  Accumulator<T>*mean, *var;
  Affine<Accumulator<T>> affine;

  __device__ void operator()(int c, const double (&sum)[2]) const {
    using A = Accumulator<T>;
    const double off = sum[0] / rows;
    double v = sum[1] / rows - off * off;
    v = v < 0 ? 0 : v;  // NaN stays
    const A centre = static_cast<A>(static_cast<double>(static_cast<A>(x[c])) + off);
    mean[c] = affine.mean[c] = centre;
    var[c] = static_cast<A>(v);
    affine.scale[c] = weight.read<A>(c) * static_cast<A>(1.0 / sqrt(v + eps));
    affine.shift[c] = bias.read<A>(c);
  }
};

// The vector's values for the V channels of a slot.
template <class A, int V>
__device__ inline void read_slot(const A* vector, int slot, A (&out)[V]) {
  const Pack<A, V> pack = load_pack<A, V>(vector + slot * V);
#pragma unroll
  for (int v = 0; v < V; ++v) out[v] = pack.at[v];
}

template <class T, int V>
__global__ void __launch_bounds__(kThreads)
    normalize(const T* __restrict__ x, Layout l, Affine<Accumulator<T>> affine, T* __restrict__ y) {
  using A = Accumulator<T>;
  const Place<V> place(l);
  if (place.count == 0) return;
  A mean[V], scale[V], shift[V];
  read_slot(affine.mean, place.slot, mean);
  read_slot(affine.scale, place.slot, scale);
  read_slot(affine.shift, place.slot, shift);
  const T* from = x + place.at;
  T* to = y + place.at;
  for (int i = 0; i < place.count; i += kUnroll, from += kUnroll * place.step, to += kUnroll * place.step) {
    Pack<T, V> in[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u)
      if (i + u < place.count) in[u] = load_pack<T, V>(from + u * place.step);
#pragma unroll
    for (int u = 0; u < kUnroll; ++u)
      if (i + u < place.count) {
        A value[V];
        in[u].widen(value);
#pragma unroll
        for (int v = 0; v < V; ++v) value[v] = (value[v] - mean[v]) * scale[v] + shift[v];
        Pack<T, V> out;
        out.narrow(value);
        store_pack<T, V>(to + u * place.step, out);
      }
  }
}

// dx = scale * (grad - from_mean - (x - mean) * from_var)
template <class A>
struct Backward {
  A *mean, *scale, *from_mean, *from_var;
};

template <class A>
struct FinishGradients {
  const A *mean, *var;
  double rows, eps;
  Parameter weight;
  A *dweight, *dbias;
  Backward<A> backward;

  __device__ void operator()(int c, const double (&sum)[2]) const {
    const double inverse = 1.0 / sqrt(static_cast<double>(var[c]) + eps);
    dbias[c] = static_cast<A>(sum[0]);
    dweight[c] = static_cast<A>(sum[1] * inverse);
    backward.mean[c] = mean[c];
    backward.scale[c] = weight.read<A>(c) * static_cast<A>(inverse);
    backward.from_mean[c] = static_cast<A>(sum[0] / rows);
    backward.from_var[c] = static_cast<A>(sum[1] * inverse * inverse / rows);
  }
};

template <class T, int V>
__global__ void __launch_bounds__(kThreads)
    propagate(const T* __restrict__ grad, const T* __restrict__ x, Layout l, Backward<Accumulator<T>> backward,
              T* __restrict__ dx) {
  using A = Accumulator<T>;
  const Place<V> place(l);
  if (place.count == 0) return;
  A mean[V], scale[V], from_mean[V], from_var[V];
  read_slot(backward.mean, place.slot, mean);
  read_slot(backward.scale, place.slot, scale);
  read_slot(backward.from_mean, place.slot, from_mean);
  read_slot(backward.from_var, place.slot, from_var);
  const T *from_x = x + place.at, *from_grad = grad + place.at;
  T* to = dx + place.at;
  for (int i = 0; i < place.count; i += kUnroll) {
    Pack<T, V> in[kUnroll], grads[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u)
      if (i + u < place.count) {
        in[u] = load_pack<T, V>(from_x + u * place.step);
        grads[u] = load_pack<T, V>(from_grad + u * place.step);
      }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u)
      if (i + u < place.count) {
        A value[V], g[V];
        in[u].widen(value);
        grads[u].widen(g);
#pragma unroll
        for (int v = 0; v < V; ++v) value[v] = scale[v] * (g[v] - from_mean[v] - (value[v] - mean[v]) * from_var[v]);
        Pack<T, V> out;
        out.narrow(value);
        store_pack<T, V>(to + u * place.step, out);
      }
    from_x += kUnroll * place.step;
    from_grad += kUnroll * place.step;
    to += kUnroll * place.step;
  }
}

// -- host -----------------------------------------------------------------------------------------

// Shares of blocks in float64, then vectors of the statistics' type.
struct Workspace {
  Workspace(const Tensor& like, const Layout& l, int sums, int vectors)
      : shares(int64_t{l.blocks} * sums * l.channels), stride(ceil_div(l.channels, 32) * 32),
        memory(empty_like_device(like, {ceil_div(shares, 32) * 32 + vectors * stride}, ScalarType::Double)) {}
  double* partial() const { return memory.mutable_data_ptr<double>(); }
  template <class A>
  A* vector(int i) const { return reinterpret_cast<A*>(partial() + ceil_div(shares, 32) * 32 + i * stride); }

  int64_t shares, stride;
  Tensor memory;
};

template <int S, class Finish>
void finish_sums(const Workspace& w, const Layout& l, const Finish& finish, cudaStream_t stream) {
  add_partials<S><<<static_cast<unsigned>(ceil_div(l.channels, kColumns)), kThreads, 0, stream>>>(
      w.partial(), static_cast<int>(l.blocks), l.channels, finish);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

Layout summing(int64_t rows, int64_t channels, int pack) { return Layout(rows, channels, pack, kUnroll, kRunRows, kBlocks); }
Layout applying(int64_t rows, int64_t channels, int pack) {
  return Layout(rows, channels, pack, kUnroll, 2 * kUnroll, 2 * kBlocks);
}

Tensor sum_rows(const Tensor& x_tensor) {
  STD_TORCH_CHECK(x_tensor.dim() == 2, "sum_rows: x must be [N, C]");
  const Device device(x_tensor);
  const Tensor x_c = as_contiguous(x_tensor);
  const int64_t rows = x_c.size(0), channels = x_c.size(1);
  Tensor out = empty_like_device(x_c, {channels}, x_c.scalar_type());
  if (channels == 0) return out;
  dispatch_floating(x_c.scalar_type(), "sum_rows", [&](auto tag) {
    using T = decltype(tag);
    const T* x = x_c.const_data_ptr<T>();
    with_pack<T>(channels, {x}, [&](auto pack) {
      constexpr int V = decltype(pack)::value;
      const Layout layout = summing(rows, channels, V);
      const Workspace w(x_c, layout, 1, 0);
      add_rows<T, V><<<layout.grid(), kThreads, 0, device.stream()>>>(x, layout, w.partial());
      STD_CUDA_KERNEL_LAUNCH_CHECK();
      finish_sums<1>(w, layout, FinishSum<T>{out.mutable_data_ptr<T>()}, device.stream());
    });
  });
  return out;
}

// A contiguous copy is kept alive in `holder`.
Parameter parameter(const std::optional<Tensor>& values, const Tensor& x, double otherwise, std::optional<Tensor>& holder) {
  if (!values) return {nullptr, ScalarType::Float, otherwise};
  STD_TORCH_CHECK(values->numel() == x.size(1), "batch_norm: weight and bias must be [C]");
  check_same_device(*values, x, "batch_norm");
  dispatch_floating(values->scalar_type(), "batch_norm", [](auto) {});
  holder = as_contiguous(*values);
  return {holder->const_data_ptr(), values->scalar_type(), otherwise};
}

// y = (x - mean) / sqrt(var + eps) * weight + bias with the biased variance over all rows.
std::tuple<Tensor, Tensor, Tensor> batch_norm(const Tensor& x_tensor, const std::optional<Tensor>& weight,
                                              const std::optional<Tensor>& bias, double eps) {
  STD_TORCH_CHECK(x_tensor.dim() == 2 && x_tensor.size(0) > 0, "batch_norm: x must be [N > 0, C]");
  const Device device(x_tensor);
  const cudaStream_t stream = device.stream();
  const Tensor x_c = as_contiguous(x_tensor);
  const int64_t rows = x_c.size(0), channels = x_c.size(1);
  const ScalarType stats = x_c.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  std::optional<Tensor> weight_c, bias_c;
  const Parameter scale = parameter(weight, x_c, 1.0, weight_c), shift = parameter(bias, x_c, 0.0, bias_c);
  Tensor y_tensor = empty_like_device(x_c, {rows, channels}, x_c.scalar_type());
  Tensor mean = empty_like_device(x_c, {channels}, stats), var = empty_like_device(x_c, {channels}, stats);
  if (channels == 0) return {y_tensor, mean, var};
  dispatch_floating(x_c.scalar_type(), "batch_norm", [&](auto tag) {
    using T = decltype(tag);
    using A = Accumulator<T>;
    const T* x = x_c.const_data_ptr<T>();
    T* y = y_tensor.mutable_data_ptr<T>();
    with_pack<T>(channels, {x, y}, [&](auto pack) {
      constexpr int V = decltype(pack)::value;
      const Layout sums = summing(rows, channels, V), apply = applying(rows, channels, V);
      const Workspace w(x_c, sums, 2, 3);
      const Affine<A> affine{w.vector<A>(0), w.vector<A>(1), w.vector<A>(2)};
      add_moments<T, V><<<sums.grid(), kThreads, 0, stream>>>(x, sums, w.partial());
      STD_CUDA_KERNEL_LAUNCH_CHECK();
      finish_sums<2>(w, sums,
                     FinishMoments<T>{x, static_cast<double>(rows), eps, scale, shift, mean.mutable_data_ptr<A>(),
                                      var.mutable_data_ptr<A>(), affine},
                     stream);
      normalize<T, V><<<apply.grid(), kThreads, 0, stream>>>(x, apply, affine, y);
      STD_CUDA_KERNEL_LAUNCH_CHECK();
    });
  });
  return {y_tensor, mean, var};
}

std::tuple<Tensor, Tensor, Tensor> batch_norm_backward(const Tensor& grad_tensor, const Tensor& x_tensor,
                                                       const std::optional<Tensor>& weight, const Tensor& mean_tensor,
                                                       const Tensor& var_tensor, double eps) {
  STD_TORCH_CHECK(x_tensor.dim() == 2 && grad_tensor.scalar_type() == x_tensor.scalar_type() &&
                      grad_tensor.numel() == x_tensor.numel(),
                  "batch_norm_backward: grad and x must match");
  const int64_t rows = x_tensor.size(0), channels = x_tensor.size(1);
  const ScalarType stats = mean_tensor.scalar_type();
  STD_TORCH_CHECK(mean_tensor.numel() == channels && var_tensor.numel() == channels && var_tensor.scalar_type() == stats,
                  "batch_norm_backward: mean and var must be [C]");
  check_same_device(grad_tensor, x_tensor, "batch_norm_backward");
  check_same_device(mean_tensor, x_tensor, "batch_norm_backward");
  check_same_device(var_tensor, x_tensor, "batch_norm_backward");
  const Device device(x_tensor);
  const cudaStream_t stream = device.stream();
  const Tensor x_c = as_contiguous(x_tensor), grad_c = as_contiguous(grad_tensor),
               mean_c = as_contiguous(mean_tensor), var_c = as_contiguous(var_tensor);
  std::optional<Tensor> weight_c;
  const Parameter scale = parameter(weight, x_c, 1.0, weight_c);
  Tensor dx_tensor = empty_like_device(x_c, {rows, channels}, x_c.scalar_type());
  Tensor dweight = empty_like_device(x_c, {channels}, stats), dbias = empty_like_device(x_c, {channels}, stats);
  if (channels == 0) return {dx_tensor, dweight, dbias};
  dispatch_floating(x_c.scalar_type(), "batch_norm_backward", [&](auto tag) {
    using T = decltype(tag);
    using A = Accumulator<T>;
    STD_TORCH_CHECK(stats == scalar_type<A>(), "batch_norm_backward: mean and var have the wrong dtype");
    const T* x = x_c.const_data_ptr<T>();
    const T* grad = grad_c.const_data_ptr<T>();
    T* dx = dx_tensor.mutable_data_ptr<T>();
    with_pack<T>(channels, {x, grad, dx}, [&](auto pack) {
      constexpr int V = decltype(pack)::value;
      const Layout sums = summing(rows, channels, V), apply = applying(rows, channels, V);
      const Workspace w(x_c, sums, 2, 4);
      const Backward<A> backward{w.vector<A>(0), w.vector<A>(1), w.vector<A>(2), w.vector<A>(3)};
      add_gradients<T, V><<<sums.grid(), kThreads, 0, stream>>>(grad, x, mean_c.const_data_ptr<A>(), sums, w.partial());
      STD_CUDA_KERNEL_LAUNCH_CHECK();
      finish_sums<2>(w, sums,
                     FinishGradients<A>{mean_c.const_data_ptr<A>(), var_c.const_data_ptr<A>(), static_cast<double>(rows),
                                        eps, scale, dweight.mutable_data_ptr<A>(), dbias.mutable_data_ptr<A>(), backward},
                     stream);
      if (rows == 0) return;
      propagate<T, V><<<apply.grid(), kThreads, 0, stream>>>(grad, x, apply, backward, dx);
      STD_CUDA_KERNEL_LAUNCH_CHECK();
    });
  });
  return {dx_tensor, dweight, dbias};
}

STABLE_TORCH_LIBRARY_IMPL(perception, CUDA, m) {
  m.impl("sum_rows", TORCH_BOX(&sum_rows));
  m.impl("batch_norm", TORCH_BOX(&batch_norm));
  m.impl("batch_norm_backward", TORCH_BOX(&batch_norm_backward));
}

}  // namespace
}  // namespace perception
