// Memory for features.
#pragma once

#include "common/tensor.h"

namespace perception {

// An uninitialized tensor, from memory that earlier results have left where it is large.
Tensor features(std::initializer_list<int64_t> size, ScalarType dtype);

inline Tensor features_like(const Tensor& x) { return features({x.size(0), x.size(1)}, x.scalar_type()); }

}  // namespace perception
