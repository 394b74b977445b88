// Sums over all rows and batch normalization; see cpu/normalization.cpp. A normalization is one launch:
// blocks sum their share of the rows, the shares are added in order, the result is applied, and between
// the three all blocks wait for each other. How rows are shared depends on the shape alone, so the same
// bits come out of every run on every GPU.
// Limit: bytes. The statistics read x once, from memory or from what the layer before left in the L2
// cache; applying them reads x again, mostly from L2, and writes y.
//
// A thread adds up to kRunRows rows in float32, the moments relative to the first of them: neither a
// large mean nor one wild row destroys the variance. Threads and blocks are added in float64.
#include "cuda/grid.cuh"
#include "cuda/normalization.cuh"
#include "cuda/pack.cuh"

#include <algorithm>

namespace perception {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kBlocks = 264;  // two for each multiprocessor of an H100, more only for very many rows
constexpr int kRunRows = 64;
constexpr int kUnroll = 4;

// How [rows, channels] are shared out: a share is `chunk` rows of a panel of channels, and a block takes
// one or more shares. In it a thread owns V channels (a slot) and every `height`-th row; panels stand side
// by side where there are more slots than threads.
struct Layout {
  int64_t rows;
  int chunk;  // rows of a share
  int channels, slots, lanes, height;
  unsigned blocks, panels;  // shares below each other, and side by side

  Layout(int64_t rows_, int64_t channels_, int pack, int least_rows, int most_rows, int64_t wanted_blocks)
      : rows(rows_), channels(static_cast<int>(channels_)), slots(static_cast<int>(channels_ / pack)),
        lanes(std::min(slots, kThreads)), height(kThreads / lanes) {
    const int64_t a_thread = ceil_div(rows, wanted_blocks * height);
    chunk = height * static_cast<int>(std::max<int64_t>(least_rows, std::min<int64_t>(most_rows, a_thread)));
    blocks = static_cast<unsigned>(std::max<int64_t>(1, ceil_div(rows, chunk)));
    panels = static_cast<unsigned>(ceil_div(slots, lanes));
  }
  __host__ __device__ unsigned all() const { return blocks * panels; }
};

// Where one thread stands.
template <int V>
struct Place {
  int slot, row, count;  // count: rows of this thread; 0 for one that has no slot
  int64_t at, step;      // its first element, and from there to the next row
  int64_t first_row;

  __device__ Place(const Layout& l, unsigned share) {
    slot = share / l.blocks * l.lanes + threadIdx.x % l.lanes;
    row = threadIdx.x / l.lanes;
    const int64_t begin = int64_t{share % l.blocks} * l.chunk;
    const int rows = static_cast<int>(min(l.rows - begin, int64_t{l.chunk}));
    count = row < l.height && row < rows && slot < l.slots ? (rows - row + l.height - 1) / l.height : 0;
    first_row = begin + row;
    at = first_row * l.channels + slot * V;
    step = int64_t{l.height} * l.channels;
  }
};

// partial[share][s][channel] = sum over the threads of sum[s][channel].
template <int S, int V>
__device__ void store_partial(const double (&sum)[S][V], const Layout& l, const Place<V>& place, unsigned which,
                              double* partial) {
  __shared__ double shared[S][kThreads * V];
  __syncthreads();  // the share before has been read
  const int width = l.lanes * V;
  if (place.row < l.height) {
#pragma unroll
    for (int s = 0; s < S; ++s)
#pragma unroll
      for (int v = 0; v < V; ++v) shared[s][threadIdx.x * V + v] = sum[s][v];
  }
  __syncthreads();
  const int first = which / l.blocks * width, count = min(width, l.channels - first);
  for (int e = threadIdx.x; e < S * count; e += kThreads) {
    const int s = e / count, c = e % count;
    double all = 0;
#pragma unroll 8
    for (int r = 0; r < l.height; ++r) all += shared[s][r * width + c];
    partial[(int64_t{which % l.blocks} * S + s) * l.channels + first + c] = all;
  }
}

template <class T, int V>
__global__ void __launch_bounds__(kThreads) add_rows(const T* __restrict__ x, Layout l, double* partial) {
  const Place<V> place(l, blockIdx.x);
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
  store_partial<1, V>(sum, l, place, blockIdx.x, partial);
}

// Sums of x - x[0] and of its square.
template <class T, int V>
__device__ void add_moments(const T* __restrict__ x, const Layout& l, unsigned share, double* partial) {
  using A = Accumulator<T>;
  const Place<V> place(l, share);
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
  store_partial<2, V>(sum, l, place, share, partial);
}

// Where the result y of a ReLU is not above zero, nothing passes back.
template <class T, int V>
__device__ inline void cut(Accumulator<T> (&grad)[V], const Pack<T, V>& result) {
  Accumulator<T> y[V];
  result.widen(y);
#pragma unroll
  for (int v = 0; v < V; ++v) grad[v] = y[v] <= 0 ? 0 : grad[v];
}

// Sums of grad and of grad * (x - mean); `y` null without a ReLU.
template <class T, int V>
__device__ void add_gradients(const T* __restrict__ grad, int64_t pitch, const T* __restrict__ x, const T* __restrict__ y,
                              const Accumulator<T>* __restrict__ means, const Layout& l, unsigned share, double* partial) {
  using A = Accumulator<T>;
  const Place<V> place(l, share);
  A first[V] = {}, second[V] = {};
  if (place.count > 0) {
    const T *from_x = x + place.at, *from_grad = grad + place.first_row * pitch + place.slot * V;
    const int64_t grad_step = l.height * pitch;
    A mean[V];
#pragma unroll
    for (int v = 0; v < V; ++v) mean[v] = means[place.slot * V + v];
    const T* from_y = y ? y + place.at : nullptr;
    for (int i = 0; i < place.count; i += kUnroll) {
      Pack<T, V> in[kUnroll], grads[kUnroll], results[kUnroll];
#pragma unroll
      for (int u = 0; u < kUnroll; ++u)
        if (i + u < place.count) {
          grads[u] = load_pack<T, V>(from_grad + u * grad_step);
          in[u] = load_pack<T, V>(from_x + u * place.step);
          if (y) results[u] = load_pack<T, V>(from_y + u * place.step);
        }
#pragma unroll
      for (int u = 0; u < kUnroll; ++u)
        if (i + u < place.count) {
          A value[V], g[V];
          in[u].widen(value);
          grads[u].widen(g);
          if (y) cut(g, results[u]);
#pragma unroll
          for (int v = 0; v < V; ++v) {
            first[v] += g[v];
            second[v] += g[v] * (value[v] - mean[v]);
          }
        }
      from_x += kUnroll * place.step;
      from_grad += kUnroll * grad_step;
      if (y) from_y += kUnroll * place.step;
    }
  }
  double sum[2][V];
#pragma unroll
  for (int v = 0; v < V; ++v) {
    sum[0][v] = static_cast<double>(first[v]);
    sum[1][v] = static_cast<double>(second[v]);
  }
  store_partial<2, V>(sum, l, place, share, partial);
}

// Adds `blocks` shares, in order, for kColumns channels from `first` on, and calls finish(channel, sums).
constexpr int kColumns = 8;

template <int S, class Finish>
__device__ void add_partials(const double* partial, int blocks, int channels, int first, const Finish& finish) {
  constexpr int kGroups = kThreads / kColumns;
  __shared__ double shared[S][kGroups][kColumns];
  const int group = threadIdx.x / kColumns, column = threadIdx.x % kColumns;
  const int c = first + column;
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
  if (group == 0 && c < channels) {
#pragma unroll
    for (int s = 0; s < S; ++s) {
      sum[s] = 0;
#pragma unroll 8
      for (int g = 0; g < kGroups; ++g) sum[s] += shared[s][g][column];
    }
    finish(c, sum);
  }
  __syncthreads();
}

template <int S, class Finish>
__global__ void __launch_bounds__(kThreads, 4) finish_sums(const double* partial, int blocks, int channels, Finish finish) {
  add_partials<S>(partial, blocks, channels, blockIdx.x * kColumns, finish);
}

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
  Column weight, bias;
  Accumulator<T>*mean, *var;
  Affine<Accumulator<T>> affine;
  Running running;

  __device__ void operator()(int c, const double (&sum)[2]) const {
    using A = Accumulator<T>;
    const double off = sum[0] / rows;
    double v = sum[1] / rows - off * off;
    v = v < 0 ? 0 : v;  // NaN stays
    const A centre = static_cast<A>(static_cast<double>(static_cast<A>(x[c])) + off);
    mean[c] = affine.mean[c] = centre;
    var[c] = static_cast<A>(v);
    affine.scale[c] = weight.at<A>(c, A(1)) * static_cast<A>(1.0 / sqrt(v + eps));
    affine.shift[c] = bias.at<A>(c, A(0));
    running.move(c, mean[c], static_cast<double>(var[c]) * (rows / (rows - 1)));
  }
};

// The vector's values for the V channels of a slot.
template <class A, int V>
__device__ inline void read_slot(const A* vector, int slot, A (&out)[V]) {
  const Pack<A, V> pack = load_pack<A, V>(vector + slot * V);
#pragma unroll
  for (int v = 0; v < V; ++v) out[v] = pack.at[v];
}

template <class T>
struct Forward {
  const T* x;
  const T* residual;  // or null
  T* y;
  bool relu;
  Layout layout;
  double* partial;
  FinishMoments<T> finish;
};

template <class T, int V>
__device__ void apply(const Forward<T>& p, unsigned share) {
  using A = Accumulator<T>;
  const Place<V> place(p.layout, share);
  if (place.count == 0) return;
  A mean[V], scale[V], shift[V];
  read_slot(p.finish.affine.mean, place.slot, mean);
  read_slot(p.finish.affine.scale, place.slot, scale);
  read_slot(p.finish.affine.shift, place.slot, shift);
  for (int i = 0; i < place.count; i += kUnroll) {
    const int64_t at = place.at + i * place.step;
    Pack<T, V> in[kUnroll], added[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u)
      if (i + u < place.count) {
        in[u] = load_pack<T, V>(p.x + at + u * place.step);
        if (p.residual) added[u] = load_pack<T, V>(p.residual + at + u * place.step);
      }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u)
      if (i + u < place.count) {
        A value[V];
        in[u].widen(value);
#pragma unroll
        for (int v = 0; v < V; ++v) value[v] = (value[v] - mean[v]) * scale[v] + shift[v];
        if (p.residual) add(value, added[u]);
        if (p.relu) {
#pragma unroll
          for (int v = 0; v < V; ++v) value[v] = value[v] < 0 ? 0 : value[v];  // NaN stays
        }
        Pack<T, V> out;
        out.narrow(value);
        store_pack<T, V>(p.y + at + u * place.step, out);
      }
  }
}

template <class T, int V>
__global__ void __launch_bounds__(kThreads, 2) batch_norm_kernel(const Forward<T> p) {
  const Layout& l = p.layout;
  for (unsigned share = blockIdx.x; share < l.all(); share += gridDim.x) add_moments<T, V>(p.x, l, share, p.partial);
  wait_for_grid();
  for (int c = blockIdx.x * kColumns; c < l.channels; c += gridDim.x * kColumns)
    add_partials<2>(p.partial, static_cast<int>(l.blocks), l.channels, c, p.finish);
  wait_for_grid();
  for (unsigned share = blockIdx.x; share < l.all(); share += gridDim.x) apply<T, V>(p, share);
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
  Column weight;
  A *dweight, *dbias;
  Backward<A> backward;

  __device__ void operator()(int c, const double (&sum)[2]) const {
    const double inverse = 1.0 / sqrt(static_cast<double>(var[c]) + eps);
    dbias[c] = static_cast<A>(sum[0]);
    dweight[c] = static_cast<A>(sum[1] * inverse);
    backward.mean[c] = mean[c];
    backward.scale[c] = weight.at<A>(c, A(1)) * static_cast<A>(inverse);
    backward.from_mean[c] = static_cast<A>(sum[0] / rows);
    backward.from_var[c] = static_cast<A>(sum[1] * inverse * inverse / rows);
  }
};

template <class T>
struct BackwardArgs {
  const T* grad;
  int64_t pitch;  // elements from one row of grad to the next
  const T* x;
  const T* y;  // null without a ReLU
  T* dx;
  T* dresidual;  // or null
  Layout layout;
  double* partial;
  FinishGradients<Accumulator<T>> finish;
};

template <class T, int V>
__device__ void propagate(const BackwardArgs<T>& p, unsigned share) {
  using A = Accumulator<T>;
  const Place<V> place(p.layout, share);
  if (place.count == 0) return;
  const Backward<A>& backward = p.finish.backward;
  A mean[V], scale[V], from_mean[V], from_var[V];
  read_slot(backward.mean, place.slot, mean);
  read_slot(backward.scale, place.slot, scale);
  read_slot(backward.from_mean, place.slot, from_mean);
  read_slot(backward.from_var, place.slot, from_var);
  const T* from_grad = p.grad + place.first_row * p.pitch + place.slot * V;
  const int64_t grad_step = p.layout.height * p.pitch;
  for (int i = 0; i < place.count; i += kUnroll, from_grad += kUnroll * grad_step) {
    const int64_t at = place.at + i * place.step;
    Pack<T, V> in[kUnroll], grads[kUnroll], results[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u)
      if (i + u < place.count) {
        in[u] = load_pack<T, V>(p.x + at + u * place.step);
        grads[u] = load_pack<T, V>(from_grad + u * grad_step);
        if (p.y) results[u] = load_pack<T, V>(p.y + at + u * place.step);
      }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u)
      if (i + u < place.count) {
        A value[V], g[V];
        in[u].widen(value);
        grads[u].widen(g);
        if (p.y) cut(g, results[u]);
        Pack<T, V> out;
        if (p.dresidual) {
          out.narrow(g);
          store_pack<T, V>(p.dresidual + at + u * place.step, out);
        }
#pragma unroll
        for (int v = 0; v < V; ++v) value[v] = scale[v] * (g[v] - from_mean[v] - (value[v] - mean[v]) * from_var[v]);
        out.narrow(value);
        store_pack<T, V>(p.dx + at + u * place.step, out);
      }
  }
}

template <class T, int V>
__global__ void __launch_bounds__(kThreads, 2) batch_norm_backward_kernel(const BackwardArgs<T> p) {
  const Layout& l = p.layout;
  for (unsigned share = blockIdx.x; share < l.all(); share += gridDim.x)
    add_gradients<T, V>(p.grad, p.pitch, p.x, p.y, p.finish.mean, l, share, p.partial);
  wait_for_grid();
  for (int c = blockIdx.x * kColumns; c < l.channels; c += gridDim.x * kColumns)
    add_partials<2>(p.partial, static_cast<int>(l.blocks), l.channels, c, p.finish);
  wait_for_grid();
  for (unsigned share = blockIdx.x; share < l.all(); share += gridDim.x) propagate<T, V>(p, share);
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

Layout summing(int64_t rows, int64_t channels, int pack) { return Layout(rows, channels, pack, kUnroll, kRunRows, kBlocks); }

// Blocks for all shares at once, or as many as the device holds.
template <auto kernel, class Args>
void launch_shares(const Layout& l, const Args& args, cudaStream_t stream) {
  const int64_t most = int64_t{device_facts().multiprocessors} * blocks_a_multiprocessor<kernel, kThreads>();
  launch_together(kernel, std::min<int64_t>(l.all(), most), kThreads, 0, args, stream);
}

}  // namespace

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
      add_rows<T, V><<<layout.all(), kThreads, 0, device.stream()>>>(x, layout, w.partial());
      STD_CUDA_KERNEL_LAUNCH_CHECK();
      finish_sums<1><<<static_cast<unsigned>(ceil_div(layout.channels, kColumns)), kThreads, 0, device.stream()>>>(
          w.partial(), static_cast<int>(layout.blocks), layout.channels, FinishSum<T>{out.mutable_data_ptr<T>()});
      STD_CUDA_KERNEL_LAUNCH_CHECK();
    });
  });
  return out;
}

// y = (x - mean) / sqrt(var + eps) * weight + bias [+ residual] with the biased variance over all rows.
std::tuple<Tensor, Tensor, Tensor> normalize_by_batch(const Tensor& x_tensor, const std::optional<Tensor>& weight,
                                                      const std::optional<Tensor>& bias,
                                                      const std::optional<Tensor>& residual, bool relu, double eps,
                                                      const Running& running) {
  STD_TORCH_CHECK(x_tensor.dim() == 2 && x_tensor.size(0) > 0, "batch_norm: x must be [N > 0, C]");
  const Device device(x_tensor);
  const Tensor x_c = as_contiguous(x_tensor);
  const int64_t rows = x_c.size(0), channels = x_c.size(1);
  const ScalarType stats = x_c.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  const Column scale = column(weight, x_c, "batch_norm"), shift = column(bias, x_c, "batch_norm");
  const std::optional<Tensor> added = contiguous_residual(residual, x_c, "batch_norm");
  Tensor y_tensor = empty_like_device(x_c, {rows, channels}, x_c.scalar_type());
  Tensor mean = empty_like_device(x_c, {channels}, stats), var = empty_like_device(x_c, {channels}, stats);
  if (channels == 0) return {y_tensor, mean, var};
  dispatch_floating(x_c.scalar_type(), "batch_norm", [&](auto tag) {
    using T = decltype(tag);
    using A = Accumulator<T>;
    const T* x = x_c.const_data_ptr<T>();
    const T* add = added ? added->const_data_ptr<T>() : nullptr;
    T* y = y_tensor.mutable_data_ptr<T>();
    with_pack<T>(channels, {x, y, add}, [&](auto pack) {
      constexpr int V = decltype(pack)::value;
      const Layout layout = summing(rows, channels, V);
      const Workspace w(x_c, layout, 2, 3);
      const Affine<A> affine{w.vector<A>(0), w.vector<A>(1), w.vector<A>(2)};
      const FinishMoments<T> finish{x, static_cast<double>(rows), eps, scale, shift, mean.mutable_data_ptr<A>(),
                                    var.mutable_data_ptr<A>(), affine, running};
      launch_shares<&batch_norm_kernel<T, V>>(layout, Forward<T>{x, add, y, relu, layout, w.partial(), finish}, device.stream());
    });
  });
  return {y_tensor, mean, var};
}

namespace {

std::tuple<Tensor, Tensor, Tensor> batch_norm(const Tensor& x, const std::optional<Tensor>& weight,
                                              const std::optional<Tensor>& bias, const std::optional<Tensor>& residual,
                                              bool relu, double eps) {
  return normalize_by_batch(x, weight, bias, residual, relu, eps, Running{});
}

std::tuple<Tensor, Tensor, Tensor> batch_norm_tracked(const Tensor& x, const std::optional<Tensor>& weight,
                                                      const std::optional<Tensor>& bias,
                                                      const std::optional<Tensor>& residual, bool relu, double eps,
                                                      const Tensor& running_mean, const Tensor& running_var,
                                                      const Tensor& batches, double momentum) {
  return normalize_by_batch(x, weight, bias, residual, relu, eps,
                            running_statistics(x, running_mean, running_var, batches, momentum));
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor, Tensor> batch_norm_backward(const Tensor& grad_tensor, const Tensor& x_tensor,
                                                               const std::optional<Tensor>& y_tensor,
                                                               const std::optional<Tensor>& weight,
                                                               const Tensor& mean_tensor, const Tensor& var_tensor,
                                                               double eps, bool residual) {
  STD_TORCH_CHECK(x_tensor.dim() == 2 && grad_tensor.scalar_type() == x_tensor.scalar_type() &&
                      grad_tensor.numel() == x_tensor.numel() &&
                      (!y_tensor || (y_tensor->scalar_type() == x_tensor.scalar_type() && y_tensor->numel() == x_tensor.numel())),
                  "batch_norm_backward: grad, x and y must match");
  const int64_t rows = x_tensor.size(0), channels = x_tensor.size(1);
  const ScalarType stats = mean_tensor.scalar_type();
  STD_TORCH_CHECK(mean_tensor.numel() == channels && var_tensor.numel() == channels && var_tensor.scalar_type() == stats,
                  "batch_norm_backward: mean and var must be [C]");
  for (const Tensor* t : {&grad_tensor, &mean_tensor, &var_tensor}) check_same_device(*t, x_tensor, "batch_norm_backward");
  if (y_tensor) check_same_device(*y_tensor, x_tensor, "batch_norm_backward");
  const Device device(x_tensor);
  // Half of what was joined by `cat` is read as it lies.
  const int64_t pitch = grad_tensor.stride(0), pack_bytes = 16 / grad_tensor.element_size();
  const bool in_rows = grad_tensor.dim() == 2 && grad_tensor.stride(1) == 1 && pitch >= channels && pitch % pack_bytes == 0;
  const Tensor x_c = as_contiguous(x_tensor), grad_c = in_rows ? grad_tensor : as_contiguous(grad_tensor),
               mean_c = as_contiguous(mean_tensor), var_c = as_contiguous(var_tensor);
  std::optional<Tensor> y_c;
  if (y_tensor) y_c = as_contiguous(*y_tensor);
  const Column scale = column(weight, x_c, "batch_norm_backward");
  Tensor dx_tensor = empty_like_device(x_c, {rows, channels}, x_c.scalar_type());
  Tensor dweight = empty_like_device(x_c, {channels}, stats), dbias = empty_like_device(x_c, {channels}, stats);
  Tensor dresidual = empty_like_device(x_c, {residual ? rows : 0, channels}, x_c.scalar_type());
  if (channels == 0) return {dx_tensor, dweight, dbias, dresidual};
  dispatch_floating(x_c.scalar_type(), "batch_norm_backward", [&](auto tag) {
    using T = decltype(tag);
    using A = Accumulator<T>;
    STD_TORCH_CHECK(stats == scalar_type<A>(), "batch_norm_backward: mean and var have the wrong dtype");
    const T* x = x_c.const_data_ptr<T>();
    const T* y = y_c ? y_c->const_data_ptr<T>() : nullptr;
    const T* grad = grad_c.const_data_ptr<T>();
    T* dx = dx_tensor.mutable_data_ptr<T>();
    T* to_residual = residual ? dresidual.mutable_data_ptr<T>() : nullptr;
    with_pack<T>(channels, {x, grad, dx, y, to_residual}, [&](auto pack) {
      constexpr int V = decltype(pack)::value;
      const Layout layout = summing(rows, channels, V);
      const Workspace w(x_c, layout, 2, 4);
      const Backward<A> backward{w.vector<A>(0), w.vector<A>(1), w.vector<A>(2), w.vector<A>(3)};
      const FinishGradients<A> finish{mean_c.const_data_ptr<A>(), var_c.const_data_ptr<A>(), static_cast<double>(rows),
                                      eps, scale, dweight.mutable_data_ptr<A>(), dbias.mutable_data_ptr<A>(), backward};
      launch_shares<&batch_norm_backward_kernel<T, V>>(
          layout, BackwardArgs<T>{grad, in_rows ? pitch : channels, x, y, dx, to_residual, layout, w.partial(), finish}, device.stream());
    });
  });
  return {dx_tensor, dweight, dbias, dresidual};
}

namespace {

STABLE_TORCH_LIBRARY_IMPL(perception, CUDA, m) {
  m.impl("sum_rows", TORCH_BOX(&sum_rows));
  m.impl("batch_norm", TORCH_BOX(&batch_norm));
  m.impl("batch_norm_tracked", TORCH_BOX(&batch_norm_tracked));
  m.impl("batch_norm_backward", TORCH_BOX(&batch_norm_backward));
}

}  // namespace
}  // namespace perception
