// The kernels of the fastest instruction set that the processor has.
#pragma once

#include "common/tensor.h"
#include "cpu/map_kernels.h"
#include "cpu/product_kernels.h"
#include "cpu/row_kernels.h"

namespace perception {

const KernelSet& product_kernels();
const RowKernelSet& row_kernels();
const MapKernels& map_kernels();

// Null where the processor has no such dot products.
using MultiplyBf16 = void (*)(const Product<BFloat16, float>&);
MultiplyBf16 multiply_bf16();

template <class A>
const ProductKernels<A>& product_kernels_for() {
  if constexpr (std::is_same_v<A, double>)
    return product_kernels().f64;
  else
    return product_kernels().f32;
}

template <class T>
const RowKernels<T, Accumulator<T>>& row_kernels_for() {
  if constexpr (std::is_same_v<T, double>)
    return row_kernels().f64;
  else if constexpr (std::is_same_v<T, Half>)
    return row_kernels().f16;
  else if constexpr (std::is_same_v<T, BFloat16>)
    return row_kernels().bf16;
  else
    return row_kernels().f32;
}

}  // namespace perception
