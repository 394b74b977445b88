// The sparse product on CUDA: what the kernels are given, and the kernels there are.
//
// A product runs on tiles of a kernel map, made by make_tiles: output rows are permuted so that rows
// with the same taps stand together, and cut into granules of kGranule slots. For granule g:
//   order[g * kGranule + r]              output row of slot r, -1 behind the last row;
//   taps[(1 + g) * words + k / 32]       bit k % 32: some slot of the granule has tap k;
//   rows[(g * K + k) * kGranule + r]     input row of slot r at tap k, -1 for none;
//                                        undefined where the granule does not have tap k.
// taps[0] is a header: 1 if the tap numbered k here multiplies weight[K - 1 - k] (a submanifold map
// read backwards is itself with the taps reversed).
#pragma once

#include "cuda/normalization.cuh"

namespace perception {

constexpr int kGranule = 64;

// A product's weight: contiguous [K, Cin / groups, Cout], or [K, Cout, Cin] with `exchanged`.
struct Weight {
  Tensor tensor;
  bool exchanged;
};
// What follows a product: normalize with these, see csrc/ops.cpp.
struct Norm {
  const Tensor &mean, &var;
  const std::optional<Tensor>&scale, &shift, &residual;
  double eps;
  bool relu;
};
Tensor product(const Tensor& x, const Weight& weight, const std::optional<Tensor>& bias, const std::vector<Tensor>& map,
               int64_t num_out, int64_t groups, bool tf32, const Norm* norm);
Tensor conv_weight_grad(const Tensor& x, const Tensor& grad, std::vector<Tensor> map, std::vector<Tensor> transposed,
                        int64_t groups, bool tf32, bool wide);

// What is done to an output before it is written, conv_wgmma only: normalized by given statistics, + residual,
// cut to zero from below.
struct ConvEnd {
  bool normalizes = false;
  Column mean, var, scale, shift;  // [cout]
  float eps = 0;
  const void* residual = nullptr;  // [num_out, cout], contiguous, or null
  bool relu = false;
};

struct ConvArgs {
  ScalarType dtype;      // of x, weight, bias and out
  const void* x;         // [num_in, cin], contiguous
  const void* weight;    // [K, cin / groups, cout], contiguous, or
  bool exchanged;        // [K, cout, cin], contiguous (conv_wgmma only)
  const void* bias;      // [cout] or null
  void* out;             // [num_out, cout], every row is written
  int64_t num_in, num_out;
  int cin, cout, groups, num_taps;
  const int32_t* rows;
  const int32_t* order;
  const int32_t* taps;
  int64_t granules;
  int words;             // of a granule's bit set
  bool tf32;             // float32 may be rounded to tf32
  const Tensor* like;    // a tensor of the device, to allocate scratch memory with
  cudaStream_t stream;
  ConvEnd end;
};

// Tensor cores of sm_90a: bfloat16 and float16, channels a multiple of 8, one group. Returns false where
// it does not apply or would not win.
bool conv_wgmma(const ConvArgs& args);
// Everything else: any dtype, channel count and number of groups, on every architecture.
void conv_mma(const ConvArgs& args);

// dw[k] = sum over the pairs p of tap k of x[in_rows[p]]^T grad[out_rows[p]].
struct WeightGradArgs {
  ScalarType dtype;         // of x and grad
  bool wide;                // dw is in float32 where dtype has 16 bits; else in dtype
  const void* x;            // [num_in, cin], contiguous
  const void* grad;         // [num_out, cout], contiguous
  void* dw;                 // [K, cin / groups, cout], every element is written
  int64_t num_in, num_out;
  int cin, cout, groups, num_taps;
  const int32_t* in_rows;   // tap_ptr[K] entries, more memory may follow
  const int32_t* out_rows;
  const int64_t* tap_ptr;   // [K + 1], on the device
  int64_t most_pairs;       // an upper bound of tap_ptr[K], known without asking the device
  bool tf32;
  const Tensor* like;       // a tensor of the device, to allocate scratch memory with
  cudaStream_t stream;
};

bool conv_weight_grad_wgmma(const WeightGradArgs& args);
void conv_weight_grad_mma(const WeightGradArgs& args);

}  // namespace perception
