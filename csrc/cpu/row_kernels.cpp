// Passes over rows in vector extensions; CMake compiles this file for each instruction set.
#include "cpu/row_kernels.h"

#include "cpu/vectors.h"

#include <type_traits>

namespace perception {
namespace {

// Less than a vector, through memory of a whole one. (No arithmetic of the 16-bit types themselves
// here: an inline function of theirs that is compiled for one instruction set may be linked into
// code for all.)
template <class T>
struct Part {
  static constexpr int W = kBytes / (sizeof(T) == 2 ? sizeof(float) : sizeof(T));
  T values[W];
  Part() { std::memset(static_cast<void*>(values), 0, sizeof values); }
  Part(const T* from, int64_t count) : Part() { std::memcpy(static_cast<void*>(values), from, count * sizeof(T)); }
  T* data() { return values; }
  void copy_to(T* to, int64_t count) const { std::memcpy(static_cast<void*>(to), values, count * sizeof(T)); }
};

template <class T, class A>
void widen(const T* from, int64_t count, A* to) {
  constexpr int W = Vec<A>::width;
  int64_t i = 0;
  for (; i + W <= count; i += W) Vec<A>::store(to + i, load_wide(from + i));
  if (i == count) return;
  Part<T> rest(from + i, count - i);
  Part<A> wide;
  Vec<A>::store(wide.data(), load_wide(rest.data()));
  wide.copy_to(to + i, count - i);
}

template <class T, class A, bool kNorm, bool kResidual, bool kRelu>
void finish_rows(const A* from, int64_t stride, int64_t rows, int64_t channels, const Ending<T, A>& ending, T* to) {
  using vec = typename Vec<A>::type;
  constexpr int W = Vec<A>::width;
  const auto each = [](const A* x, const A* mean, const A* scale, const A* shift, const T* residual, T* y) {
    vec v = Vec<A>::load(x);
    if (kNorm) v = (v - Vec<A>::load(mean)) * Vec<A>::load(scale) + Vec<A>::load(shift);
    if (kResidual) v += load_wide(residual);
    if (kRelu) v = v < 0 ? vec{} : v;
    store_narrow(y, v);
  };
  const int64_t whole = channels / W * W, left = channels - whole;
  Part<A> mean, scale, shift;
  if (kNorm && left) {
    mean = Part<A>(ending.mean + whole, left);
    scale = Part<A>(ending.scale + whole, left);
    shift = Part<A>(ending.shift + whole, left);
  }
  for (int64_t r = 0; r < rows; ++r) {
    const A* x = from + r * stride;
    const T* residual = kResidual ? ending.residual + r * channels : nullptr;
    T* y = to + r * channels;
    for (int64_t c = 0; c < whole; c += W)
      each(x + c, ending.mean + c, ending.scale + c, ending.shift + c, residual + c, y + c);
    if (left) {
      Part<A> last(x + whole, left);
      Part<T> other, result;
      if (kResidual) other = Part<T>(residual + whole, left);
      each(last.data(), mean.data(), scale.data(), shift.data(), other.data(), result.data());
      result.copy_to(y + whole, left);
    }
  }
}

template <class T, class A>
void finish(const A* from, int64_t stride, int64_t rows, int64_t channels, const Ending<T, A>& ending, T* to) {
  const auto run = [&](auto norm, auto residual, auto relu) {
    finish_rows<T, A, norm.value, residual.value, relu.value>(from, stride, rows, channels, ending, to);
  };
  const auto with = [&](auto norm, auto residual) {
    ending.relu ? run(norm, residual, std::true_type{}) : run(norm, residual, std::false_type{});
  };
  const auto choose = [&](auto norm) {
    ending.residual ? with(norm, std::true_type{}) : with(norm, std::false_type{});
  };
  ending.mean ? choose(std::true_type{}) : choose(std::false_type{});
}

template <class T, class A>
void add_scaled(const T* x, const A* weight, int64_t channels, const int32_t* in, const int32_t* out, int64_t count, A* c) {
  constexpr int W = Vec<A>::width;
  constexpr int64_t kEarly = 8;
  const int64_t whole = channels / W * W, left = channels - whole;
  Part<A> last_weight;
  if (left) last_weight = Part<A>(weight + whole, left);
  for (int64_t p = 0; p < count; ++p) {
    if (p + kEarly < count)
      for (int64_t line = 0; line < channels; line += 64 / sizeof(T))
        __builtin_prefetch(x + in[p + kEarly] * channels + line);
    const T* from = x + in[p] * channels;
    A* to = c + out[p] * channels;
    for (int64_t i = 0; i < whole; i += W)
      Vec<A>::store(to + i, Vec<A>::load(to + i) + Vec<A>::load(weight + i) * load_wide(from + i));
    if (left) {
      Part<T> last(from + whole, left);
      Part<A> sum(to + whole, left);
      Vec<A>::store(sum.data(), Vec<A>::load(sum.data()) + Vec<A>::load(last_weight.data()) * load_wide(last.data()));
      sum.copy_to(to + whole, left);
    }
  }
}

// A vector of numbers, or the first `count` of one with zeros behind.
template <bool kWhole, class T>
auto load_some(const T* from, int64_t count) {
  if constexpr (kWhole) return load_wide(from);
  Part<T> part(from, count);
  return load_wide(part.data());
}
template <bool kWhole, class T, class V>
void store_some(T* to, V v, int64_t count) {
  if constexpr (kWhole) return store_narrow(to, v);
  Part<T> part;
  store_narrow(part.data(), v);
  part.copy_to(to, count);
}

// Sums in float64 of two quantities of a vector of channels, over a few rows.
class Sums {
 public:
  void add(Vec<float>::type first, Vec<float>::type second, Vec<float>::type third) {
    // second * third in float64
    constexpr int H = Vec<double>::width;
    typedef float half __attribute__((vector_size(H * sizeof(float))));
    for (int i = 0; i < 2; ++i) {
      half a, b, c;
      std::memcpy(&a, reinterpret_cast<const char*>(&first) + i * sizeof a, sizeof a);
      std::memcpy(&b, reinterpret_cast<const char*>(&second) + i * sizeof b, sizeof b);
      std::memcpy(&c, reinterpret_cast<const char*>(&third) + i * sizeof c, sizeof c);
      one_[i] += __builtin_convertvector(a, Vec<double>::type);
      two_[i] += __builtin_convertvector(b, Vec<double>::type) * __builtin_convertvector(c, Vec<double>::type);
    }
  }
  void add(Vec<double>::type first, Vec<double>::type second, Vec<double>::type third) {
    one_[0] += first;
    two_[0] += second * third;
  }
  // The numbers of `count` channels to sum[0 ..) and sum[channels ..).
  void add_to(double* sum, int64_t channels, int64_t count) const {
    constexpr int H = Vec<double>::width;
    for (int64_t i = 0; i < count; ++i) {
      sum[i] += one_[i / H][i % H];
      sum[channels + i] += two_[i / H][i % H];
    }
  }
  void add_whole(double* sum, int64_t channels, int parts) const {
    constexpr int H = Vec<double>::width;
    for (int i = 0; i < parts; ++i) {
      Vec<double>::store(sum + i * H, Vec<double>::load(sum + i * H) + one_[i]);
      double* second = sum + channels + i * H;
      Vec<double>::store(second, Vec<double>::load(second) + two_[i]);
    }
  }

 private:
  Vec<double>::type one_[2] = {}, two_[2] = {};
};

// each(c, count, whole) for vectors of channels, the last perhaps a part of one.
template <class A, class F>
inline __attribute__((always_inline)) void for_channels(int64_t channels, const F& each) {
  constexpr int W = Vec<A>::width;
  int64_t c = 0;
  for (; c + W <= channels; c += W) each(c, W, std::true_type{});
  if (c < channels) each(c, channels - c, std::false_type{});
}

constexpr int64_t kRowsAtOnce = 8;  // so many streams the processor foresees

template <class T, class A>
void moments(const T* x, int64_t rows, int64_t channels, const A* shift, double* sum) {
  for (int64_t begin = 0; begin < rows; begin += kRowsAtOnce) {
    const int64_t end = begin + kRowsAtOnce < rows ? begin + kRowsAtOnce : rows;
    for_channels<A>(channels, [&](int64_t c, int64_t count, auto whole) {
      Sums sums;
      const auto from = load_some<whole.value>(shift + c, count);
      for (int64_t r = begin; r < end; ++r) {
        const auto d = load_some<whole.value>(x + r * channels + c, count) - from;
        sums.add(d, d, d);
      }
      if constexpr (whole.value)
        sums.add_whole(sum + c, channels, sizeof(double) / sizeof(A));
      else
        sums.add_to(sum + c, channels, count);
    });
  }
}

template <bool kMask, bool kWhole, class T>
inline __attribute__((always_inline)) auto passed(const T* grad, const T* y, int64_t at, int64_t count) {
  auto g = load_some<kWhole>(grad + at, count);
  if constexpr (kMask) g = load_some<kWhole>(y + at, count) <= 0 ? decltype(g){} : g;
  return g;
}

template <bool kMask, class T, class A>
void gradient_sums_masked(const T* grad, const T* x, const T* y, int64_t rows, int64_t channels, const A* mean,
                          double* sum) {
  for (int64_t begin = 0; begin < rows; begin += kRowsAtOnce) {
    const int64_t end = begin + kRowsAtOnce < rows ? begin + kRowsAtOnce : rows;
    for_channels<A>(channels, [&](int64_t c, int64_t count, auto whole) {
      Sums sums;
      const auto centre = load_some<whole.value>(mean + c, count);
      for (int64_t r = begin; r < end; ++r) {
        const int64_t at = r * channels + c;
        const auto g = passed<kMask, whole.value>(grad, y, at, count);
        sums.add(g, g, load_some<whole.value>(x + at, count) - centre);
      }
      if constexpr (whole.value)
        sums.add_whole(sum + c, channels, sizeof(double) / sizeof(A));
      else
        sums.add_to(sum + c, channels, count);
    });
  }
}

template <class T, class A>
void gradient_sums(const T* grad, const T* x, const T* y, int64_t rows, int64_t channels, const A* mean, double* sum) {
  y ? gradient_sums_masked<true>(grad, x, y, rows, channels, mean, sum)
    : gradient_sums_masked<false>(grad, x, y, rows, channels, mean, sum);
}

template <bool kMask, class T, class A>
void gradient_masked(const T* grad, const T* x, const T* y, int64_t rows, int64_t channels, const A* mean, const A* scale,
                     const A* from_mean, const A* from_var, T* dx, T* residual) {
  for (int64_t r = 0; r < rows; ++r)
    for_channels<A>(channels, [&](int64_t c, int64_t count, auto whole) {
      constexpr bool kWhole = whole.value;
      const int64_t at = r * channels + c;
      const auto g = passed<kMask, kWhole>(grad, y, at, count);
      const auto centred = load_some<kWhole>(x + at, count) - load_some<kWhole>(mean + c, count);
      const auto inner = g - load_some<kWhole>(from_mean + c, count) - centred * load_some<kWhole>(from_var + c, count);
      store_some<kWhole>(dx + at, load_some<kWhole>(scale + c, count) * inner, count);
      if (residual) store_some<kWhole>(residual + at, g, count);
    });
}

template <class T, class A>
void gradient(const T* grad, const T* x, const T* y, int64_t rows, int64_t channels, const A* mean, const A* scale,
              const A* from_mean, const A* from_var, T* dx, T* residual) {
  y ? gradient_masked<true>(grad, x, y, rows, channels, mean, scale, from_mean, from_var, dx, residual)
    : gradient_masked<false>(grad, x, y, rows, channels, mean, scale, from_mean, from_var, dx, residual);
}

template <class A>
void add_products(const A* const* a, const A* const* b, int64_t count, int64_t channels, A* sum) {
  constexpr int W = Vec<A>::width;
  int64_t i = 0;
  for (; i + W <= channels; i += W) {
    auto total = Vec<A>::load(sum + i);
    for (int64_t p = 0; p < count; ++p) total += Vec<A>::load(a[p] + i) * Vec<A>::load(b[p] + i);
    Vec<A>::store(sum + i, total);
  }
  for (; i < channels; ++i)
    for (int64_t p = 0; p < count; ++p) sum[i] += a[p][i] * b[p][i];
}

bool within(const int32_t* values, int64_t count, int32_t low, int32_t high) {
  int32_t outside = 0;
  for (int64_t i = 0; i < count; ++i) outside |= (values[i] < low) | (values[i] >= high);
  return outside == 0;
}

template <class T, class A>
constexpr RowKernels<T, A> table() {
  return {&widen<T, A>,         &finish<T, A>,   &add_scaled<T, A>, &moments<T, A>,
          &gradient_sums<T, A>, &gradient<T, A>, &add_products<A>};
}

}  // namespace

const RowKernelSet& PASTE(row_kernels_, KERNEL_ISA)() {
  static const RowKernelSet set{table<float, float>(), table<double, double>(), table<Half, float>(),
                                table<BFloat16, float>(), &within};
  return set;
}

}  // namespace perception
