// The sparse product, for operators that are made of it.
#pragma once

#include "cpu/normalization.h"

namespace perception {

// out [num_out, Cout] of x [N, Cin] over the map's pairs. Swapped: the weight is [K, Cout / groups, Cin],
// each tap and group the other way round, as for the gradient of the input. Null: nothing follows, no
// statistics of the result are wanted.
Tensor product(const Tensor& x, const Tensor& weight, bool swapped, const std::optional<Tensor>& bias,
               const std::vector<Tensor>& map, int64_t num_out, int64_t groups, const Finish* finish = nullptr,
               Statistics* statistics = nullptr);

}  // namespace perception
