// Reductions over segments: segment m holds the list entries ptr[m] .. ptr[m + 1], an entry names a
// row of x (or -1 for none). Pooling, voxel means and interpolation are all of this form.
// A segment is summed by one thread in the order of its list, in float64 (a voxel or a sample may
// hold very many rows; bytes are the limit anyway). Limit: bytes of x read once an entry.
#include "cpu/parallel.h"

#include <cmath>

namespace perception {
namespace {

struct Segments {
  const int32_t* rows;
  const int64_t* ptr;
  int64_t count, channels;

  Segments(const Tensor& x, const Tensor& rows_tensor, const Tensor& ptr_tensor, const char* op)
      : rows(rows_tensor.const_data_ptr<int32_t>()), ptr(ptr_tensor.const_data_ptr<int64_t>()),
        count(ptr_tensor.size(0) - 1), channels(x.size(1)) {
    const int64_t entries = rows_tensor.size(0), limit = x.size(0);
    check_parts(ptr_tensor, ptr[count], op);
    STD_TORCH_CHECK(ptr[count] <= entries, op, ": ptr reaches beyond the list");
    std::atomic<bool> outside{false};
    parallel_blocks(entries, 1 << 16, [&](int64_t, int64_t begin, int64_t end) {
      bool bad = false;
      for (int64_t i = begin; i < end; ++i) bad |= rows[i] < -1 || rows[i] >= limit;
      if (bad) outside = true;
    });
    STD_TORCH_CHECK(!outside, op, ": a row is outside 0 .. ", limit - 1);
  }
};

void check(const Tensor& x, const Tensor& rows, const Tensor& ptr, const char* op) {
  STD_TORCH_CHECK(x.dim() == 2, op, ": x must be [N, C]");
  check_rows(rows, op, "rows");
  check_ptr(ptr, op);
}

constexpr int64_t kBlock = 512;

// kChannels: as many as there are, known to the compiler, which then keeps the sums in registers; 0: any.
template <class T, int kChannels, bool kWeighted>
void sum_segments(const Segments& s, const T* x, const T* w, bool mean, int64_t begin, int64_t end, T* out) {
  using A = Accumulator<T>;  // what the features are converted to before they are added up
  const int64_t channels = kChannels ? kChannels : s.channels;
  double fixed[kChannels ? kChannels : 1];
  std::vector<double> any(kChannels ? 0 : channels);
  double* const sum = kChannels ? fixed : any.data();
  for (int64_t m = begin; m < end; ++m) {
    for (int64_t c = 0; c < channels; ++c) sum[c] = 0.0;
    const double scale = mean ? 1.0 / std::max<int64_t>(1, s.ptr[m + 1] - s.ptr[m]) : 1.0;
    for (int64_t p = s.ptr[m]; p < s.ptr[m + 1]; ++p) {
      if (s.rows[p] < 0) continue;
      const T* row = x + int64_t{s.rows[p]} * channels;
      const double weight = kWeighted ? static_cast<double>(static_cast<A>(w[p])) : 1.0;
      for (int64_t c = 0; c < channels; ++c) {
        const double value = static_cast<double>(static_cast<A>(row[c]));
        sum[c] += kWeighted ? weight * value : value;
      }
    }
    for (int64_t c = 0; c < channels; ++c) out[m * channels + c] = static_cast<T>(sum[c] * scale);
  }
}

template <class T, int kChannels>
void sum_segments(const Segments& s, const T* x, const T* w, bool mean, T* out) {
  parallel_blocks(s.count, kBlock, [&](int64_t, int64_t begin, int64_t end) {
    if (w)
      sum_segments<T, kChannels, true>(s, x, w, mean, begin, end, out);
    else
      sum_segments<T, kChannels, false>(s, x, w, mean, begin, end, out);
  });
}

Tensor segment_sum(const Tensor& x_tensor, const Tensor& rows_tensor, const Tensor& ptr_tensor,
                   const std::optional<Tensor>& weights, bool mean) {
  check(x_tensor, rows_tensor, ptr_tensor, "segment_sum");
  const Tensor x_c = torch::stable::contiguous(x_tensor), rows_c = torch::stable::contiguous(rows_tensor),
               ptr_c = torch::stable::contiguous(ptr_tensor);
  const Segments s(x_c, rows_c, ptr_c, "segment_sum");
  std::optional<Tensor> weights_c;
  if (weights) {
    STD_TORCH_CHECK(weights->scalar_type() == x_c.scalar_type() && weights->numel() == rows_c.numel(),
                    "segment_sum: weights must have the dtype of x and one entry a row");
    weights_c = torch::stable::contiguous(*weights);
  }
  Tensor out_tensor = empty({s.count, s.channels}, x_c.scalar_type());
  dispatch_floating(x_c.scalar_type(), "segment_sum", [&](auto tag) {
    using T = decltype(tag);
    const T* x = x_c.const_data_ptr<T>();
    const T* w = weights_c ? weights_c->const_data_ptr<T>() : nullptr;
    T* out = out_tensor.mutable_data_ptr<T>();
    switch (s.channels) {  // the features of points
      case 3: return sum_segments<T, 3>(s, x, w, mean, out);
      case 4: return sum_segments<T, 4>(s, x, w, mean, out);
      case 5: return sum_segments<T, 5>(s, x, w, mean, out);
      case 6: return sum_segments<T, 6>(s, x, w, mean, out);
      case 7: return sum_segments<T, 7>(s, x, w, mean, out);
      default: return sum_segments<T, 0>(s, x, w, mean, out);
    }
  });
  return out_tensor;
}

// The row of the largest entry of each segment and channel, the first of equal ones, a NaN before
// any number; -1 for an empty segment.
Tensor segment_argmax(const Tensor& x_tensor, const Tensor& rows_tensor, const Tensor& ptr_tensor) {
  check(x_tensor, rows_tensor, ptr_tensor, "segment_argmax");
  const Tensor x_c = torch::stable::contiguous(x_tensor), rows_c = torch::stable::contiguous(rows_tensor),
               ptr_c = torch::stable::contiguous(ptr_tensor);
  const Segments s(x_c, rows_c, ptr_c, "segment_argmax");
  Tensor out_tensor = empty({s.count, s.channels}, ScalarType::Long);
  int64_t* out = out_tensor.mutable_data_ptr<int64_t>();
  dispatch_floating(x_c.scalar_type(), "segment_argmax", [&](auto tag) {
    using T = decltype(tag);
    using A = Accumulator<T>;
    const T* x = x_c.const_data_ptr<T>();
    parallel_blocks(s.count, kBlock, [&](int64_t, int64_t begin, int64_t end) {
      std::vector<A> best(s.channels);
      for (int64_t m = begin; m < end; ++m) {
        int64_t* arg = out + m * s.channels;
        std::fill(arg, arg + s.channels, int64_t{-1});
        for (int64_t p = s.ptr[m]; p < s.ptr[m + 1]; ++p) {
          if (s.rows[p] < 0) continue;
          const T* row = x + int64_t{s.rows[p]} * s.channels;
          for (int64_t c = 0; c < s.channels; ++c) {
            const A v = static_cast<A>(row[c]);
            if (arg[c] < 0 || v > best[c] || (std::isnan(v) && !std::isnan(best[c]))) {
              best[c] = v;
              arg[c] = s.rows[p];
            }
          }
        }
      }
    });
  });
  return out_tensor;
}

// The gradient of the largest entries: row i of x gets, in every channel, what came to the segments
// (segments[p] for p in ptr[i] .. ptr[i + 1]) whose largest entry it is.
Tensor segment_max_grad(const Tensor& grad_tensor, const Tensor& arg_tensor, const Tensor& segments_tensor,
                        const Tensor& ptr_tensor) {
  check(grad_tensor, segments_tensor, ptr_tensor, "segment_max_grad");
  STD_TORCH_CHECK(arg_tensor.dim() == 2 && arg_tensor.scalar_type() == ScalarType::Long &&
                      arg_tensor.size(0) == grad_tensor.size(0) && arg_tensor.size(1) == grad_tensor.size(1),
                  "segment_max_grad: arg must be int64 [M, C] as grad");
  const Tensor grad_c = torch::stable::contiguous(grad_tensor), arg_c = torch::stable::contiguous(arg_tensor),
               segments_c = torch::stable::contiguous(segments_tensor), ptr_c = torch::stable::contiguous(ptr_tensor);
  const Segments s(grad_c, segments_c, ptr_c, "segment_max_grad");
  Tensor out_tensor = empty({s.count, s.channels}, grad_c.scalar_type());
  const int64_t* arg = arg_c.const_data_ptr<int64_t>();
  dispatch_floating(grad_c.scalar_type(), "segment_max_grad", [&](auto tag) {
    using T = decltype(tag);
    using A = Accumulator<T>;
    const T* grad = grad_c.const_data_ptr<T>();
    T* out = out_tensor.mutable_data_ptr<T>();
    parallel_blocks(s.count, kBlock, [&](int64_t, int64_t begin, int64_t end) {
      std::vector<double> sum(s.channels);
      for (int64_t i = begin; i < end; ++i) {
        std::fill(sum.begin(), sum.end(), 0.0);
        for (int64_t p = s.ptr[i]; p < s.ptr[i + 1]; ++p) {
          if (s.rows[p] < 0) continue;
          const int64_t at = int64_t{s.rows[p]} * s.channels;
          for (int64_t c = 0; c < s.channels; ++c)
            if (arg[at + c] == i) sum[c] += static_cast<double>(static_cast<A>(grad[at + c]));
        }
        for (int64_t c = 0; c < s.channels; ++c) out[i * s.channels + c] = static_cast<T>(static_cast<A>(sum[c]));
      }
    });
  });
  return out_tensor;
}

STABLE_TORCH_LIBRARY_IMPL(perception, CPU, m) {
  m.impl("segment_sum", TORCH_BOX(&segment_sum));
  m.impl("segment_argmax", TORCH_BOX(&segment_argmax));
  m.impl("segment_max_grad", TORCH_BOX(&segment_max_grad));
}

}  // namespace
}  // namespace perception
