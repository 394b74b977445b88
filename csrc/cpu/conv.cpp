// The sparse product.
//
// Outputs are cut into tiles that stay in the L2 cache. For a tile each tap's pairs are a contiguous
// run (pairs are sorted by output row); their input rows are read in place, multiplied by the tap's
// packed weights in registers and added to the tile, while the rows of the next pairs and the next
// weights are on their way into the cache. What follows the product (normalization, residual, ReLU)
// is done before the tile leaves the cache. One pass, no gathered copy, no scatter; taps are added
// in order, so the bits do not depend on the threads.
// Limit: 2 * pairs * Cin * Cout operations.
#include "cpu/conv.h"
#include "cpu/layers.h"
#include "cpu/memory.h"
#include "cpu/product.h"

#include <array>
#include <cstring>

namespace perception {
namespace {

constexpr std::array<int32_t, kRun> count_up() {
  std::array<int32_t, kRun> values{};
  for (int32_t i = 0; i < kRun; ++i) values[i] = i;
  return values;
}
constexpr std::array<int32_t, kRun> kIota = count_up();

// weight[k, i, g, c] of group g at k * tap + i * in + g * group + c * out.
struct WeightLayout {
  int64_t tap, in, group, out;
};

// Weights in panels [depth, vectors * W], converted, zero-padded to whole vectors; of bfloat16 two rows
// of depth side by side. See Product.
template <class T, class X>
void pack(const T* weight, const WeightLayout& at, const Shape& shape, int64_t k, int64_t padded, int64_t W, X* to) {
  constexpr int64_t P = sizeof(X) == 2 ? 2 : 1;
  for (int64_t g = 0; g < shape.groups; ++g) {
    const T* from = weight + k * at.tap + g * at.group;
    for (int64_t first = 0; first < padded;) {
      const int64_t wide = panel_vectors((padded - first) / W) * W, some = std::min(wide, shape.out - first);
      const auto place = [&](int64_t i, int64_t c) -> X& { return to[i / P * P * wide + c * P + i % P]; };
      if (at.out == 1)
        for (int64_t i = 0; i < shape.in; ++i)
          for (int64_t c = 0; c < some; ++c) place(i, c) = static_cast<X>(from[i * at.in + first + c]);
      else
        for (int64_t c = 0; c < some; ++c)
          for (int64_t i = 0; i < shape.in; ++i) place(i, c) = static_cast<X>(from[i * at.in + (first + c) * at.out]);
      for (int64_t i = 0; i < shape.in; ++i)
        for (int64_t c = some; c < wide; ++c) place(i, c) = X(0);
      to += shape.in * wide;
      first += wide;
    }
  }
}

struct Segment {
  int64_t tap, begin, end;
};

// X: what is multiplied, T itself or what sums are kept in.
template <class T, class X>
class Forward {
 public:
  using A = Accumulator<T>;

  Forward(void (*multiply)(const Product<X, A>&), const T* x, int64_t inputs, const T* weight, const WeightLayout& layout, const T* bias, const Map& map,
          const Shape& shape, int64_t num_out, const Ending<T, A>& ending, T* out)
      : multiply_(multiply), x_(x), inputs_(inputs), bias_(bias), map_(map), shape_(shape), num_out_(num_out), ending_(ending), out_(out) {
    const int64_t W = product_kernels_for<A>().width;
    vectors_ = (shape.out + W - 1) / W;
    padded_ = shape.depthwise() ? 1 : vectors_ * W;
    columns_ = shape.groups * padded_;
    panel_ = shape.in * padded_;
    in_place_ = std::is_same_v<T, A> && padded_ == shape.out;
    const int64_t count = std::max<int64_t>(1, shape.taps * shape.groups * panel_);
    if (shape.depthwise())
      scales_ = memory_.get<A>(count);
    else
      packed_ = memory_.get<X>(count);
    parallel_tasks(shape.taps, [&](int64_t k) {
      if (map.ptr[k] == map.ptr[k + 1]) return;
      if (shape.depthwise())
        for (int64_t g = 0; g < shape.groups; ++g)
          scales_[k * shape.groups + g] = static_cast<A>(weight[k * layout.tap + g * layout.group]);
      else
        pack(weight, layout, shape, k, padded_, W, packed_ + k * shape.groups * panel_);
    });
  }

  // Statistics of the result into `statistics` unless null.
  void run(Statistics* statistics) {
    for (int64_t k = 0; k < map_.taps; ++k)
      if (map_.ptr[k] < map_.ptr[k + 1]) inside_ = inside_ && map_.out[map_.ptr[k + 1] - 1] < num_out_;
    const int64_t tile_rows = std::clamp<int64_t>((int64_t{1} << 18) / (columns_ * sizeof(A)), 64, 4096);
    std::optional<Moments<T>> moments;
    const int64_t channels = shape_.groups * shape_.out;
    if (statistics) moments.emplace(num_out_, channels, tile_rows);
    parallel_blocks(num_out_, tile_rows, [&](int64_t, int64_t begin, int64_t end) {
      tile(begin, end);
      if (moments) moments->add(begin, end - begin, out_ + begin * channels);
    });
    if (moments) *statistics = moments->result();
    check_inside(inside_, "conv");
  }

 private:
  void tile(int64_t begin, int64_t end) {
    static thread_local Scratch<A> tile_memory;
    const int64_t rows = end - begin, channels = shape_.groups * shape_.out;
    A* tile;
    if constexpr (std::is_same_v<T, A>)
      tile = in_place_ ? out_ + begin * channels : tile_memory.get(rows * columns_);
    else
      tile = tile_memory.get(rows * columns_);
    start(tile, rows);
    const std::vector<Segment> segments = cut(begin, end);
    for (size_t s = 0; s < segments.size(); ++s) {
      const Segment& now = segments[s];
      const int32_t* next = nullptr;
      if (s + 1 < segments.size() && segments[s + 1].begin + kAhead <= map_.pairs) next = map_.in + segments[s + 1].begin;
      A* base = tile - begin * columns_;
      if (shape_.depthwise())
        rows_.add_scaled(x_, scales_ + now.tap * shape_.groups, shape_.groups, map_.in + now.begin, map_.out + now.begin,
                         now.end - now.begin, base);
      else
        add(now, next, base);
    }
    if (shape_.groups > 1 && padded_ != shape_.out)
      for (int64_t i = 0; i < rows; ++i)
        for (int64_t g = 1; g < shape_.groups; ++g)
          std::memmove(tile + i * columns_ + g * shape_.out, tile + i * columns_ + g * padded_, shape_.out * sizeof(A));
    Ending<T, A> ending = ending_;
    if (ending.residual) ending.residual += begin * channels;
    if (!in_place_ || ending.mean || ending.residual || ending.relu)
      rows_.finish(tile, columns_, rows, channels, ending, out_ + begin * channels);
  }

  // Bias, or zero.
  void start(A* tile, int64_t rows) const {
    if (!bias_) return std::fill(tile, tile + rows * columns_, A(0));
    for (int64_t g = 0; g < shape_.groups; ++g)
      for (int64_t c = 0; c < padded_; ++c)
        tile[g * padded_ + c] = c < shape_.out ? static_cast<A>(bias_[g * shape_.out + c]) : A(0);
    for (int64_t i = 1; i < rows; ++i) std::copy(tile, tile + columns_, tile + i * columns_);
  }

  // The pairs of a tile, tap by tap.
  std::vector<Segment> cut(int64_t begin, int64_t end) {
    std::vector<Segment> segments;
    segments.reserve(map_.taps);
    for (int64_t k = 0; k < map_.taps; ++k) {
      const int32_t* stop = map_.out + map_.ptr[k + 1];
      const int32_t* first = std::lower_bound(map_.out + map_.ptr[k], stop, static_cast<int32_t>(begin));
      const int32_t* last = std::lower_bound(first, stop, static_cast<int64_t>(end),
                                             [](int32_t row, int64_t limit) { return row < limit; });
      if (first == last) continue;
      const Segment segment{k, first - map_.out, last - map_.out};
      const int64_t count = segment.end - segment.begin;
      const auto within = row_kernels().within;
      if (within(map_.in + segment.begin, count, 0, static_cast<int32_t>(inputs_)) &&
          within(first, count, static_cast<int32_t>(begin), static_cast<int32_t>(end)))
        segments.push_back(segment);
      else
        inside_ = false;
    }
    return segments;
  }

  void add(const Segment& segment, const int32_t* next, A* base) const {
    const X* weights = packed_ + segment.tap * shape_.groups * panel_;
    const int64_t width = shape_.groups * shape_.in;
    Product<X, A> product{};
    product.depth = shape_.in;
    product.vectors = vectors_;
    product.x_stride = width;
    product.c_stride = columns_;
    const auto multiply = [&](const X* x) {
      for (int64_t g = 0; g < shape_.groups; ++g) {
        product.x = x + g * shape_.in;
        product.weights = weights + g * panel_;
        product.c = base + g * padded_;
        multiply_(product);
      }
    };
    if constexpr (std::is_same_v<T, X>) {
      product.in = map_.in + segment.begin;
      product.out = map_.out + segment.begin;
      product.rows = segment.end - segment.begin;
      product.readable = map_.pairs - segment.begin;
      product.next = next;
      multiply(x_);
    } else {
      static thread_local Scratch<A> row_memory;
      A* wide = row_memory.get(kRun * width);
      for (int64_t run = segment.begin; run < segment.end; run += kRun) {
        const int64_t rows = std::min(kRun, segment.end - run);
        for (int64_t i = 0; i < rows; ++i) rows_.widen(x_ + map_.in[run + i] * width, width, wide + i * width);
        product.in = kIota.data();
        product.out = map_.out + run;
        product.rows = product.readable = rows;
        multiply(wide);
      }
    }
  }

  void (*multiply_)(const Product<X, A>&);
  const RowKernels<T, A>& rows_ = row_kernels_for<T>();
  const T* x_;
  int64_t inputs_;
  const T* bias_;
  const Map& map_;
  const Shape& shape_;
  int64_t num_out_;
  Ending<T, A> ending_;
  T* out_;
  int64_t vectors_, padded_, columns_, panel_;  // of a group: vectors, columns; of all; weights of a tap and group
  bool in_place_;                     // the tile is the output itself
  Workspace memory_;
  X* packed_ = nullptr;
  A* scales_ = nullptr;  // depthwise
  std::atomic<bool> inside_{true};
};

}  // namespace

Tensor product(const Tensor& x, const Tensor& weight, bool swapped, const std::optional<Tensor>& bias,
               const std::vector<Tensor>& map_tensors, int64_t num_out, int64_t groups, const Finish* finish,
               Statistics* statistics) {
  STD_TORCH_CHECK(weight.dim() == 3, "conv: weight must be [K, Cin / groups, Cout]");
  STD_TORCH_CHECK(weight.scalar_type() == x.scalar_type(), "conv: x and weight have different dtypes");
  STD_TORCH_CHECK(num_out >= 0 && num_out <= kMaxRows, "conv: num_out is out of range");
  const Map map(map_tensors, "conv");
  const int64_t a = weight.size(1), b = weight.size(2);
  STD_TORCH_CHECK(groups >= 1 && (!swapped || b % groups == 0), "conv: Cout must be a multiple of groups");
  const Shape shape = swapped ? check_product(x, map.taps, groups, b / groups, a * groups, "conv")
                              : check_product(x, map.taps, groups, a, b, "conv");
  const int64_t channels = shape.groups * shape.out;
  STD_TORCH_CHECK(weight.size(0) == map.taps, "conv: the weight has ", weight.size(0), " taps and the map ", map.taps);
  STD_TORCH_CHECK(x.size(0) <= kMaxRows, "conv: x has more than 2^31 - 1 rows");
  const Tensor x_c = torch::stable::contiguous(x), weight_c = torch::stable::contiguous(weight);
  std::optional<Tensor> bias_c;
  if (bias) {
    STD_TORCH_CHECK(bias->scalar_type() == x.scalar_type() && bias->numel() == channels,
                    "conv: bias must be [Cout] in the dtype of x");
    bias_c = torch::stable::contiguous(*bias);
  }
  const WeightLayout layout = swapped ? WeightLayout{a * b, 1, b / groups, b} : WeightLayout{a * b, b, b / groups, 1};
  Tensor out = features({num_out, channels}, x.scalar_type());
  dispatch_floating(x.scalar_type(), "conv", [&](auto tag) {
    using T = decltype(tag);
    Ending<T, Accumulator<T>> ending{};
    Normalization<Accumulator<T>> norm;
    if (finish) ending = norm.template ending<T>(*finish, channels);
    const auto run = [&](auto multiply, auto multiplied) {
      Forward<T, decltype(multiplied)>(multiply, x_c.const_data_ptr<T>(), x_c.size(0), weight_c.const_data_ptr<T>(), layout,
                                       bias_c ? bias_c->const_data_ptr<T>() : nullptr, map, shape, num_out, ending,
                                       out.mutable_data_ptr<T>())
          .run(statistics);
    };
    if constexpr (std::is_same_v<T, BFloat16>)
      if (multiply_bf16() && shape.in % 2 == 0) return run(multiply_bf16(), T{});
    run(product_kernels_for<Accumulator<T>>().multiply, Accumulator<T>{});
  });
  return out;
}

Tensor conv(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, std::vector<Tensor> map,
            std::vector<Tensor> /*transposed: for the backward pass*/, int64_t num_out, int64_t groups, bool) {
  return product(x, weight, false, bias, map, num_out, groups);
}

namespace {

STABLE_TORCH_LIBRARY_IMPL(perception, CPU, m) { m.impl("conv", TORCH_BOX(&conv)); }

}  // namespace
}  // namespace perception
