// The arithmetic of the sparse product on CPU, compiled once for each instruction set.
#pragma once

#include <cstdint>

#include <torch/headeronly/util/BFloat16.h>

namespace perception {

// Pairs of one tap and group: c[out[p]] += x[in[p]] * weights.
// X: the type of x and of the weights; A: that of the sums. Where X is bfloat16, depth is even and a
// panel holds the weights of two neighbouring input channels side by side: [depth / 2, columns, 2].
template <class X, class A>
struct Product {
  const X* x;
  int64_t x_stride;
  const int32_t* in;
  const int32_t* out;
  int64_t rows;
  int64_t depth;
  const X* weights;  // panels of panel_vectors(left) vectors, each [depth, vectors * width]
  int64_t vectors;   // of all panels
  A* c;
  int64_t c_stride;
  // Rows of x that will be wanted next, for the caches: behind in[rows - 1] where `readable` says
  // that entries stand there, and after the last block from `next` on, kAhead of them, or null.
  int64_t readable;
  const int32_t* next;
};
constexpr int kAhead = 8;

// c[m, n] += sum over `rows` rows p of a[p][m] * b[p][n], n a multiple of width, c of row stride ldc.
template <class A>
struct Outer {
  const A* const* a;
  const A* const* b;
  int64_t rows, m, n;
  A* c;
  int64_t ldc;
  // The rows that will be wanted next, as many; or null.
  const A* const* next_a;
  const A* const* next_b;
};

template <class A>
struct ProductKernels {
  int width;  // numbers a vector
  void (*multiply)(const Product<A, A>&);
  void (*outer)(const Outer<A>&);
};

// How many of `left` vectors of columns the next panel takes: one to four, and never three and one
// or four and one, for a panel of one vector runs at a fraction of the speed.
constexpr int panel_vectors(int64_t left) {
  if (left == 5 || left == 6) return 3;
  return left < 4 ? static_cast<int>(left) : 4;
}

struct KernelSet {
  const char* name;
  ProductKernels<float> f32;
  ProductKernels<double> f64;
};

// bfloat16 as it is, two multiply-adds a lane; what is smaller than a normal float32 counts as zero.
void multiply_avx512bf16(const Product<torch::headeronly::BFloat16, float>&);

const KernelSet& kernels_portable();
const KernelSet& kernels_avx2();
const KernelSet& kernels_avx512();

}  // namespace perception
