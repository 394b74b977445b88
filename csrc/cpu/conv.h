// The product on the CPU, for operators that go on with its result.
#pragma once

#include "common/tensor.h"

namespace perception {

Tensor conv(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, std::vector<Tensor> map,
            std::vector<Tensor> transposed, int64_t num_out, int64_t groups, bool tf32);

}  // namespace perception
