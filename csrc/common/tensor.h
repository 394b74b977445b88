// The thin layer between torch's stable ABI and the kernels: checks, allocation, dtype dispatch.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Exception.h>
#include <torch/headeronly/util/Half.h>

#include <cstdint>
#include <limits>
#include <optional>
#include <tuple>
#include <type_traits>
#include <vector>

namespace perception {

using torch::headeronly::BFloat16;
using torch::headeronly::Half;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr int kMaxColumns = 8;  // batch and up to seven axes
constexpr int64_t kMaxRows = std::numeric_limits<int32_t>::max();

template <class T>
constexpr ScalarType scalar_type();
template <> constexpr ScalarType scalar_type<float>() { return ScalarType::Float; }
template <> constexpr ScalarType scalar_type<double>() { return ScalarType::Double; }
template <> constexpr ScalarType scalar_type<Half>() { return ScalarType::Half; }
template <> constexpr ScalarType scalar_type<BFloat16>() { return ScalarType::BFloat16; }
template <> constexpr ScalarType scalar_type<int32_t>() { return ScalarType::Int; }
template <> constexpr ScalarType scalar_type<int64_t>() { return ScalarType::Long; }

// The type that sums are kept in.
template <class T>
using Accumulator = std::conditional_t<std::is_same_v<T, double>, double, float>;

inline Tensor empty(std::initializer_list<int64_t> size, ScalarType dtype) {
  return torch::stable::empty(size, dtype);
}

inline void check_sites(const Tensor& sites, const char* op, const char* name) {
  STD_TORCH_CHECK(sites.dim() == 2 && sites.size(1) >= 2 && sites.size(1) <= kMaxColumns,
                  op, ": ", name, " must be [N, 1 + D] with D = 1..7");
  STD_TORCH_CHECK(sites.scalar_type() == ScalarType::Int, op, ": ", name, " must be int32");
  STD_TORCH_CHECK(sites.size(0) <= kMaxRows, op, ": ", name, " has more than 2^31 - 1 rows");
}

inline void check_rows(const Tensor& rows, const char* op, const char* name) {
  STD_TORCH_CHECK(rows.dim() == 1 && rows.scalar_type() == ScalarType::Int, op, ": ", name,
                  " must be int32 [P]");
}

inline void check_ptr(const Tensor& ptr, const char* op) {
  STD_TORCH_CHECK(ptr.dim() == 1 && ptr.size(0) >= 1 && ptr.scalar_type() == ScalarType::Long, op,
                  ": ptr must be int64 with at least one entry");
}

// Calls f with a value of the C++ type of a floating dtype.
template <class F>
void dispatch_floating(ScalarType type, const char* op, const F& f) {
  switch (type) {
    case ScalarType::Float: return f(float{});
    case ScalarType::Double: return f(double{});
    case ScalarType::Half: return f(Half{});
    case ScalarType::BFloat16: return f(BFloat16{});
    default:
      STD_TORCH_CHECK(false, op, ": the dtype must be float32, float64, float16 or bfloat16");
  }
}

}  // namespace perception
