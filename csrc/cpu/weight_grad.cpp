// The weight gradient of the sparse product: each tap's pairs are cut into parts of fixed length; every
// part makes its own sum, and the parts of a tap are added in order, whatever the threads.
// A part goes through its pairs in runs whose rows stay in the L1 cache, while the next run's are fetched.
// Limit: 2 * pairs * Cin * Cout operations.
#include "cpu/layers.h"
#include "cpu/memory.h"
#include "cpu/product.h"

namespace perception {
namespace {

constexpr int64_t kShort = 32;  // pairs whose rows stay in the L1 cache

// Pointers to rows of x as the kernels read them: in place, or converted and padded in scratch.
template <class T, class A>
class Rows {
 public:
  Rows(const T* x, int64_t channels, int64_t padded) : x_(x), channels_(channels), padded_(padded) {}
  bool in_place() const { return std::is_same_v<T, A> && padded_ == channels_; }
  void gather(const int32_t* rows, int64_t count, const A** to, Scratch<A>& scratch) const {
    if constexpr (std::is_same_v<T, A>)
      if (in_place()) {
        for (int64_t i = 0; i < count; ++i) to[i] = x_ + int64_t{rows[i]} * channels_;
        return;
      }
    A* buffer = scratch.get(kShort * padded_);
    constexpr int64_t kEarly = 8;  // rows of x on their way
    for (int64_t i = 0; i < count; ++i) {
      if (i + kEarly < count)
        for (int64_t c = 0; c < channels_; c += 64 / sizeof(T))
          __builtin_prefetch(x_ + int64_t{rows[i + kEarly]} * channels_ + c);
      A* row = buffer + i * padded_;
      row_kernels_for<T>().widen(x_ + int64_t{rows[i]} * channels_, channels_, row);
      std::fill(row + channels_, row + padded_, A(0));
      to[i] = row;
    }
  }

 private:
  const T* x_;
  int64_t channels_, padded_;
};

struct Part {
  int64_t tap, begin, end;
};

// Out: the type of the result, T or what sums are kept in.
template <class T, class Out>
void weight_gradient(const T* x, int64_t inputs, const T* grad, int64_t outputs, const Map& map, const Shape& shape,
                     Out* out) {
  using A = Accumulator<T>;
  const ProductKernels<A>& kernel = product_kernels_for<A>();
  const int64_t W = kernel.width, groups = shape.groups, out_channels = groups * shape.out;
  // Groups narrower than a vector: pad the whole gradient row so that each group may be read past its end.
  const int64_t padded = shape.depthwise() ? 1 : (shape.out + W - 1) / W * W;
  const int64_t partial_size = groups * shape.in * padded;
  const int64_t length = std::max<int64_t>(4096, (map.pairs / 256 + kRun - 1) / kRun * kRun);
  std::vector<Part> parts;
  std::vector<int64_t> first_part(shape.taps + 1);
  for (int64_t k = 0; k < shape.taps; ++k) {
    first_part[k] = static_cast<int64_t>(parts.size());
    for (int64_t p = map.ptr[k]; p < map.ptr[k + 1]; p += length)
      parts.push_back({k, p, std::min(p + length, map.ptr[k + 1])});
  }
  first_part[shape.taps] = static_cast<int64_t>(parts.size());
  Workspace partial_memory;
  A* partial = partial_memory.get<A>(std::max<int64_t>(1, static_cast<int64_t>(parts.size()) * partial_size));
  const Rows<T, A> inputs_of(x, groups * shape.in, groups * shape.in);
  const int64_t grad_padded = shape.depthwise() ? out_channels
                              : groups == 1 || padded == shape.out ? groups * padded : out_channels + W;
  const Rows<T, A> grads_of(grad, out_channels, grad_padded);
  const bool fetch = inputs_of.in_place() && grads_of.in_place();
  std::atomic<bool> inside{true};
  parallel_tasks(static_cast<int64_t>(parts.size()), [&](int64_t i) {
    static thread_local Scratch<A> input_memory, grad_memory;
    const Part& part = parts[i];
    A* sum = partial + i * partial_size;
    std::fill(sum, sum + partial_size, A(0));
    const auto within = row_kernels().within;
    if (!within(map.in + part.begin, part.end - part.begin, 0, static_cast<int32_t>(inputs)) ||
        !within(map.out + part.begin, part.end - part.begin, 0, static_cast<int32_t>(outputs))) {
      inside = false;
      return;
    }
    const A* a[2][kShort];
    const A* b[2][kShort];
    const auto gather = [&](int64_t run, int place) {
      const int64_t rows = std::min(kShort, part.end - run);
      if (rows <= 0) return;
      inputs_of.gather(map.in + run, rows, a[place], input_memory);
      grads_of.gather(map.out + run, rows, b[place], grad_memory);
      if (rows < kShort)
        for (int64_t r = rows; r < kShort; ++r) a[place][r] = a[place][0], b[place][r] = b[place][0];
    };
    if (fetch) gather(part.begin, 0);
    for (int64_t run = part.begin, place = 0; run < part.end; run += kShort, place ^= fetch) {
      const int64_t rows = std::min(kShort, part.end - run);
      if (fetch)
        gather(run + kShort, static_cast<int>(place ^ 1));
      else
        gather(run, 0);
      if (shape.depthwise()) {
        row_kernels_for<A>().add_products(a[place], b[place], rows, groups, sum);
        continue;
      }
      const bool more = fetch && run + kShort < part.end;
      for (int64_t g = 0; g < groups; ++g) {
        kernel.outer({a[place], b[place], rows, shape.in, padded, sum + g * shape.in * padded, padded,
                      more && g == 0 ? a[place ^ 1] : nullptr, b[place ^ 1]});
        if (g + 1 < groups)
          for (int64_t p = 0; p < rows; ++p) {
            a[place][p] += shape.in;
            b[place][p] += shape.out;
          }
      }
    }
  });
  check_inside(inside, "conv_weight_grad");
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
  STD_TORCH_CHECK(x.size(0) <= kMaxRows && grad.size(0) <= kMaxRows, "conv_weight_grad: more than 2^31 - 1 rows");
  const Shape shape = check_product(x, map.taps, groups, x.size(1) / groups, grad.size(1), "conv_weight_grad");
  const Tensor x_c = torch::stable::contiguous(x), grad_c = torch::stable::contiguous(grad);
  Tensor out;
  dispatch_floating(x.scalar_type(), "conv_weight_grad", [&](auto tag) {
    using T = decltype(tag);
    const auto into = [&](auto kind) {
      using Out = decltype(kind);
      out = empty({shape.taps, shape.in, grad.size(1)}, scalar_type<Out>());
      weight_gradient(x_c.const_data_ptr<T>(), x_c.size(0), grad_c.const_data_ptr<T>(), grad_c.size(0), map, shape,
                      out.mutable_data_ptr<Out>());
    };
    wide ? into(Accumulator<T>{}) : into(T{});
  });
  return out;
}

namespace {

STABLE_TORCH_LIBRARY_IMPL(perception, CPU, m) { m.impl("conv_weight_grad", TORCH_BOX(&conv_weight_grad)); }

}  // namespace
}  // namespace perception
