// The sparse product and its weight gradient.
//
// Forward: outputs are cut into tiles that stay in the L2 cache. For a tile each tap's pairs are a
// contiguous run (pairs are sorted by output row); their input rows are read in place, multiplied by
// the tap's packed weights in registers and added to the tile. One pass, no gathered copy, no
// scatter; taps are added in order, so the bits do not depend on the threads.
// Limit: 2 * pairs * Cin * Cout operations.
//
// Weight gradient: each tap's pairs are cut into runs of fixed length; every run makes its own
// partial sum, and the runs of a tap are added in order.
#include "cpu/layers.h"
#include "cpu/parallel.h"
#include "cpu/product_kernels.h"

#include <cstring>

namespace perception {
namespace {

const KernelSet& choose_kernels() {
  const char* wanted = std::getenv("PERCEPTION_ISA");
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (wanted ? (std::strcmp(wanted, "avx512") == 0 && avx512) : avx512) return kernels_avx512();
  if (wanted ? (std::strcmp(wanted, "avx2") == 0 && avx2) : avx2) return kernels_avx2();
#endif
  STD_TORCH_CHECK(!wanted || std::strcmp(wanted, "portable") == 0, "PERCEPTION_ISA=", wanted,
                  " is not available on this processor; use avx512, avx2 or portable, or unset it");
  return kernels_portable();
}

const KernelSet& kernels() {
  static const KernelSet& set = choose_kernels();
  return set;
}

template <class A>
const ProductKernels<A>& kernels_for() {
  if constexpr (std::is_same_v<A, double>)
    return kernels().f64;
  else
    return kernels().f32;
}

struct Map {
  const int32_t* in;
  const int32_t* out;
  const int64_t* ptr;
  int64_t taps, pairs;

  explicit Map(const std::vector<Tensor>& map, const char* op) {
    STD_TORCH_CHECK(map.size() == 3, op, ": a map is [in_rows, out_rows, tap_ptr]");
    check_rows(map[0], op, "in_rows");
    check_rows(map[1], op, "out_rows");
    check_ptr(map[2], op);
    in = map[0].const_data_ptr<int32_t>();
    out = map[1].const_data_ptr<int32_t>();
    ptr = map[2].const_data_ptr<int64_t>();
    taps = map[2].size(0) - 1;
    pairs = map[0].size(0);
    STD_TORCH_CHECK(map[1].size(0) == pairs && ptr[0] == 0 && ptr[taps] == pairs, op, ": the map is inconsistent");
  }
  // Rows come from a map of these very tensors unless somebody mixed plans; then memory is at stake.
  void check_rows_below(int64_t inputs, int64_t outputs, const char* op) const {
    std::atomic<bool> outside{false};
    parallel_blocks(pairs, 1 << 16, [&](int64_t, int64_t begin, int64_t end) {
      int32_t top_in = -1, top_out = -1, low = 0;
      for (int64_t p = begin; p < end; ++p) {
        top_in = std::max(top_in, in[p]);
        top_out = std::max(top_out, out[p]);
        low = std::min({low, in[p], out[p]});
      }
      if (top_in >= inputs || top_out >= outputs || low < 0) outside = true;
    });
    STD_TORCH_CHECK(!outside, op, ": the map names rows that the features do not have");
  }
};

// Rows of x as pointers to accumulator-typed numbers: in place when x has that type and the row
// needs no padding, else converted into scratch.
template <class T, class A>
class Rows {
 public:
  Rows(const T* x, int64_t channels, int64_t padded) : x_(x), channels_(channels), padded_(padded) {}
  void gather(const int32_t* rows, int64_t count, const A** to, Scratch<A>& scratch) const {
    if constexpr (std::is_same_v<T, A>) {
      if (padded_ == channels_) {
        for (int64_t i = 0; i < count; ++i) to[i] = x_ + int64_t{rows[i]} * channels_;
        return;
      }
    }
    A* buffer = scratch.get(count * padded_);
    for (int64_t i = 0; i < count; ++i) {
      const T* from = x_ + int64_t{rows[i]} * channels_;
      A* row = buffer + i * padded_;
      for (int64_t c = 0; c < channels_; ++c) row[c] = static_cast<A>(from[c]);
      for (int64_t c = channels_; c < padded_; ++c) row[c] = A(0);
      to[i] = row;
    }
  }

 private:
  const T* x_;
  int64_t channels_, padded_;
};

constexpr int64_t kRun = 256;  // pairs gathered at a time

struct Shape {
  int64_t taps, groups, in, out;  // in and out: channels of one group
};

Shape check_product(const Tensor& x, int64_t taps, int64_t groups, int64_t in_group, int64_t out_channels, const char* op) {
  STD_TORCH_CHECK(x.dim() == 2, op, ": x must be [N, Cin]");
  STD_TORCH_CHECK(groups >= 1 && in_group * groups == x.size(1), op, ": the weight takes ", in_group * groups,
                  " channels and x has ", x.size(1));
  STD_TORCH_CHECK(out_channels % groups == 0, op, ": Cout must be a multiple of groups");
  return {taps, groups, in_group, out_channels / groups};
}

// Depthwise: out[o][c] += w[k][c] * x[i][c]; bytes are the limit.
template <class T, class A>
void add_depthwise(const Map& map, int64_t k, int64_t begin, int64_t end, const T* x, const A* weight, int64_t channels,
                   A* tile, int64_t first_row) {
  const A* w = weight + k * channels;
  for (int64_t p = begin; p < end; ++p) {
    const T* from = x + int64_t{map.in[p]} * channels;
    A* to = tile + (map.out[p] - first_row) * channels;
    for (int64_t c = 0; c < channels; ++c) to[c] += w[c] * static_cast<A>(from[c]);
  }
}

template <class T>
void conv_forward(const T* x, const T* weight, const T* bias, const Map& map, const Shape& shape, int64_t num_out, T* out) {
  using A = Accumulator<T>;
  const ProductKernels<A>& kernel = kernels_for<A>();
  const int64_t W = kernel.width, taps = shape.taps, groups = shape.groups;
  const bool depthwise = shape.in == 1 && shape.out == 1;
  const int64_t padded = depthwise ? 1 : (shape.out + W - 1) / W * W;  // columns of a group in the tile
  const int64_t columns = groups * padded, out_channels = groups * shape.out;
  const bool in_place = std::is_same_v<T, A> && padded == shape.out;

  // Weights in panels [depth, vectors * W], converted, zero-padded.
  Scratch<A> packed_memory;
  A* packed = packed_memory.get(std::max<int64_t>(1, taps * groups * shape.in * padded));
  parallel_tasks(taps, [&](int64_t k) {
    if (map.ptr[k] == map.ptr[k + 1]) return;
    for (int64_t g = 0; g < groups; ++g) {
      A* to = packed + (k * groups + g) * shape.in * padded;
      for (int64_t at = 0; at < padded;) {
        const int64_t wide = depthwise ? 1 : panel_vectors((padded - at) / W) * W;
        for (int64_t i = 0; i < shape.in; ++i) {
          const T* from = weight + (k * shape.in + i) * out_channels + g * shape.out;
          for (int64_t c = at; c < at + wide; ++c) *to++ = c < shape.out ? static_cast<A>(from[c]) : A(0);
        }
        at += wide;
      }
    }
  });

  const int64_t tile_rows = std::clamp<int64_t>((int64_t{1} << 18) / (columns * sizeof(A)), 64, 4096);
  const Rows<T, A> inputs(x, groups * shape.in, groups * shape.in);
  parallel_blocks(num_out, tile_rows, [&](int64_t, int64_t begin, int64_t end) {
    static thread_local Scratch<A> tile_memory, row_memory;
    A* tile;
    if constexpr (std::is_same_v<T, A>)
      tile = in_place ? out + begin * out_channels : tile_memory.get((end - begin) * columns);
    else
      tile = tile_memory.get((end - begin) * columns);
    for (int64_t i = 0; i < end - begin; ++i)
      for (int64_t g = 0; g < groups; ++g)
        for (int64_t c = 0; c < padded; ++c)
          tile[i * columns + g * padded + c] = bias && c < shape.out ? static_cast<A>(bias[g * shape.out + c]) : A(0);
    const A* from[kRun];
    A* to[kRun];
    for (int64_t k = 0; k < taps; ++k) {
      const int32_t* first = map.out + map.ptr[k];
      const int32_t* last = map.out + map.ptr[k + 1];
      const int64_t p0 = std::lower_bound(first, last, static_cast<int32_t>(begin)) - map.out;
      const int64_t p1 = std::lower_bound(map.out + p0, last, static_cast<int64_t>(end),
                                          [](int32_t row, int64_t limit) { return row < limit; }) - map.out;
      if (depthwise) {
        add_depthwise(map, k, p0, p1, x, packed, groups, tile, begin);
        continue;
      }
      for (int64_t run = p0; run < p1; run += kRun) {
        const int64_t rows = std::min(kRun, p1 - run);
        inputs.gather(map.in + run, rows, from, row_memory);
        for (int64_t i = 0; i < rows; ++i) to[i] = tile + (map.out[run + i] - begin) * columns;
        for (int64_t g = 0; g < groups; ++g) {
          const A* panel = packed + (k * groups + g) * shape.in * padded;
          for (int64_t at = 0; at < padded;) {
            const int vectors = panel_vectors((padded - at) / W);
            kernel.gemm(from, rows, shape.in, panel, vectors, to, g * padded + at);
            panel += shape.in * vectors * W;
            at += vectors * W;
          }
          if (g + 1 < groups)
            for (int64_t i = 0; i < rows; ++i) from[i] += shape.in;
        }
      }
    }
    if (!in_place)
      for (int64_t i = 0; i < end - begin; ++i)
        for (int64_t g = 0; g < groups; ++g)
          for (int64_t c = 0; c < shape.out; ++c)
            out[(begin + i) * out_channels + g * shape.out + c] = static_cast<T>(tile[i * columns + g * padded + c]);
  });
}

}  // namespace

Tensor conv(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, std::vector<Tensor> map_tensors,
            std::vector<Tensor> /*transposed: for the backward pass*/, int64_t num_out, int64_t groups, bool) {
  STD_TORCH_CHECK(weight.dim() == 3, "conv: weight must be [K, Cin / groups, Cout]");
  STD_TORCH_CHECK(weight.scalar_type() == x.scalar_type(), "conv: x and weight have different dtypes");
  STD_TORCH_CHECK(num_out >= 0 && num_out <= kMaxRows, "conv: num_out is out of range");
  const Map map(map_tensors, "conv");
  const Shape shape = check_product(x, map.taps, groups, weight.size(1), weight.size(2), "conv");
  STD_TORCH_CHECK(weight.size(0) == map.taps, "conv: the weight has ", weight.size(0), " taps and the map ", map.taps);
  map.check_rows_below(x.size(0), num_out, "conv");
  const Tensor x_c = torch::stable::contiguous(x), weight_c = torch::stable::contiguous(weight);
  std::optional<Tensor> bias_c;
  if (bias) {
    STD_TORCH_CHECK(bias->scalar_type() == x.scalar_type() && bias->numel() == weight.size(2),
                    "conv: bias must be [Cout] in the dtype of x");
    bias_c = torch::stable::contiguous(*bias);
  }
  Tensor out = empty({num_out, weight.size(2)}, x.scalar_type());
  dispatch_floating(x.scalar_type(), "conv", [&](auto tag) {
    using T = decltype(tag);
    conv_forward<T>(x_c.const_data_ptr<T>(), weight_c.const_data_ptr<T>(), bias_c ? bias_c->const_data_ptr<T>() : nullptr,
                    map, shape, num_out, out.mutable_data_ptr<T>());
  });
  return out;
}

namespace {

// Out: the type of the result, T or what sums are kept in.
template <class T, class Out>
void weight_gradient(const T* x, const T* grad, const Map& map, const Shape& shape, Out* out) {
  using A = Accumulator<T>;
  const ProductKernels<A>& kernel = kernels_for<A>();
  const int64_t W = kernel.width, groups = shape.groups, out_channels = groups * shape.out;
  const bool depthwise = shape.in == 1 && shape.out == 1;
  // Groups narrower than a vector: pad the whole gradient row so that each group may be read past its end.
  const int64_t padded = depthwise ? 1 : (shape.out + W - 1) / W * W;
  const int64_t partial_size = groups * shape.in * padded;
  const int64_t length = std::max<int64_t>(4096, (map.pairs / 256 + kRun - 1) / kRun * kRun);
  struct Part { int64_t tap, begin, end; };
  std::vector<Part> parts;
  std::vector<int64_t> first_part(shape.taps + 1);
  for (int64_t k = 0; k < shape.taps; ++k) {
    first_part[k] = static_cast<int64_t>(parts.size());
    for (int64_t p = map.ptr[k]; p < map.ptr[k + 1]; p += length)
      parts.push_back({k, p, std::min(p + length, map.ptr[k + 1])});
  }
  first_part[shape.taps] = static_cast<int64_t>(parts.size());
  Scratch<A> partial_memory;
  A* partial = partial_memory.get(std::max<int64_t>(1, static_cast<int64_t>(parts.size()) * partial_size));
  const Rows<T, A> inputs(x, groups * shape.in, groups * shape.in);
  const Rows<T, A> grads(grad, out_channels, groups == 1 || padded == shape.out ? groups * padded : out_channels + W);
  parallel_tasks(static_cast<int64_t>(parts.size()), [&](int64_t i) {
    static thread_local Scratch<A> input_memory, grad_memory;
    const A* a[kRun];
    const A* b[kRun];
    A* sum = partial + i * partial_size;
    std::fill(sum, sum + partial_size, A(0));
    for (int64_t run = parts[i].begin; run < parts[i].end; run += kRun) {
      const int64_t rows = std::min(kRun, parts[i].end - run);
      inputs.gather(map.in + run, rows, a, input_memory);
      grads.gather(map.out + run, rows, b, grad_memory);
      if (depthwise) {
        for (int64_t p = 0; p < rows; ++p)
          for (int64_t c = 0; c < groups; ++c) sum[c] += a[p][c] * b[p][c];
        continue;
      }
      for (int64_t g = 0; g < groups; ++g) {
        kernel.outer(a, b, rows, shape.in, padded, sum + g * shape.in * padded, padded);
        if (g + 1 < groups)
          for (int64_t p = 0; p < rows; ++p) {
            a[p] += shape.in;
            b[p] += shape.out;
          }
      }
    }
  });
  // out [K, Cin / groups, groups * (Cout / groups)]
  parallel_tasks(shape.taps, [&](int64_t k) {
    for (int64_t g = 0; g < groups; ++g)
      for (int64_t r = 0; r < shape.in; ++r) {
        Out* to = out + (k * shape.in + r) * out_channels + g * shape.out;
        const int64_t at = (g * shape.in + r) * padded;
        for (int64_t c = 0; c < shape.out; ++c) {
          A total = 0;
          for (int64_t i = first_part[k]; i < first_part[k + 1]; ++i) total += partial[i * partial_size + at + c];
          to[c] = static_cast<Out>(total);
        }
      }
  });
}

}  // namespace

Tensor conv_weight_grad(const Tensor& x, const Tensor& grad, std::vector<Tensor> map_tensors,
                        std::vector<Tensor> /*transposed: for the backward pass*/, int64_t groups, bool, bool wide) {
  const Map map(map_tensors, "conv_weight_grad");
  STD_TORCH_CHECK(x.dim() == 2 && grad.dim() == 2 && x.scalar_type() == grad.scalar_type(),
                  "conv_weight_grad: x [N, Cin] and grad [M, Cout] must have one dtype");
  STD_TORCH_CHECK(groups >= 1 && x.size(1) % groups == 0, "conv_weight_grad: Cin must be a multiple of groups");
  const Shape shape = check_product(x, map.taps, groups, x.size(1) / groups, grad.size(1), "conv_weight_grad");
  map.check_rows_below(x.size(0), grad.size(0), "conv_weight_grad");
  const Tensor x_c = torch::stable::contiguous(x), grad_c = torch::stable::contiguous(grad);
  Tensor out;
  dispatch_floating(x.scalar_type(), "conv_weight_grad", [&](auto tag) {
    using T = decltype(tag);
    const auto into = [&](auto kind) {
      using Out = decltype(kind);
      out = empty({shape.taps, shape.in, grad.size(1)}, scalar_type<Out>());
      weight_gradient(x_c.const_data_ptr<T>(), grad_c.const_data_ptr<T>(), map, shape, out.mutable_data_ptr<Out>());
    };
    wide ? into(Accumulator<T>{}) : into(T{});
  });
  return out;
}

namespace {

int64_t instruction_set() { return kernels().f32.width; }

STABLE_TORCH_LIBRARY_IMPL(perception, CPU, m) {
  m.impl("conv", TORCH_BOX(&conv));
  m.impl("conv_weight_grad", TORCH_BOX(&conv_weight_grad));
}
STABLE_TORCH_LIBRARY_IMPL(perception, CompositeExplicitAutograd, m) {
  m.impl("instruction_set", TORCH_BOX(&instruction_set));
}

}  // namespace
}  // namespace perception
