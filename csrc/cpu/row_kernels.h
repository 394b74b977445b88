// Passes over rows of features on CPU, compiled once for each instruction set.
#pragma once

#include <cstdint>

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

namespace perception {

// What follows a product, on every number: (v - mean) * scale + shift, + residual, max(., 0).
// Null for what is left out; NaN stays.
template <class T, class A>
struct Ending {
  const A* mean;  // [C] each, all three or none
  const A* scale;
  const A* shift;
  const T* residual;  // [N, C]
  bool relu;
};

template <class T, class A>
struct RowKernels {
  void (*widen)(const T* from, int64_t count, A* to);
  // to [rows, channels] = ending(from), from [rows] of `stride` numbers; `to` may be `from`.
  void (*finish)(const A* from, int64_t stride, int64_t rows, int64_t channels, const Ending<T, A>& ending, T* to);
  // Depthwise: c[out[p]] += weight * x[in[p]] for `count` pairs p, rows of `channels` numbers.
  void (*add_scaled)(const T* x, const A* weight, int64_t channels, const int32_t* in, const int32_t* out, int64_t count,
                     A* c);
  // Batch normalization, in float64: sum[c] += x - shift[c], sum[C + c] += (x - shift[c])^2.
  void (*moments)(const T* x, int64_t rows, int64_t channels, const A* shift, double* sum);
  // With g = grad where y > 0 (y null: everywhere): sum[c] += g, sum[C + c] += g * (x - mean[c]).
  void (*gradient_sums)(const T* grad, const T* x, const T* y, int64_t rows, int64_t channels, const A* mean, double* sum);
  // dx = scale * (g - from_mean - (x - mean) * from_var); residual = g unless null.
  void (*gradient)(const T* grad, const T* x, const T* y, int64_t rows, int64_t channels, const A* mean, const A* scale,
                   const A* from_mean, const A* from_var, T* dx, T* residual);
  // sum += sum over p of a[p] * b[p], number by number.
  void (*add_products)(const A* const* a, const A* const* b, int64_t count, int64_t channels, A* sum);
};

struct RowKernelSet {
  RowKernels<float, float> f32;
  RowKernels<double, double> f64;
  RowKernels<torch::headeronly::Half, float> f16;
  RowKernels<torch::headeronly::BFloat16, float> bf16;
  // Whether all of values[0 .. count) are in low .. high - 1.
  bool (*within)(const int32_t* values, int64_t count, int32_t low, int32_t high);
};

const RowKernelSet& row_kernels_portable();
const RowKernelSet& row_kernels_avx2();
const RowKernelSet& row_kernels_avx512();

}  // namespace perception
