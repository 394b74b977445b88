// Operators of the CPU that others are made of; see their definitions.
#pragma once

#include "cpu/memory.h"

namespace perception {

Tensor conv(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, std::vector<Tensor> map,
            std::vector<Tensor> transposed, int64_t num_out, int64_t groups, bool tf32);
Tensor conv_weight_grad(const Tensor& x, const Tensor& grad, std::vector<Tensor> map, std::vector<Tensor> transposed,
                        int64_t groups, bool tf32, bool wide);
Tensor sum_rows(const Tensor& x);
std::tuple<Tensor, Tensor, Tensor> batch_norm(const Tensor& x, const std::optional<Tensor>& weight,
                                              const std::optional<Tensor>& bias, const std::optional<Tensor>& residual,
                                              bool relu, double eps);
std::tuple<Tensor, Tensor, Tensor, Tensor> batch_norm_backward(const Tensor& grad, const Tensor& x,
                                                               const std::optional<Tensor>& y,
                                                               const std::optional<Tensor>& weight, const Tensor& mean,
                                                               const Tensor& var, double eps, bool residual);
// out may be x
void normalize_into(const Tensor& x, const Tensor& out, const Tensor& mean, const Tensor& var,
                    const std::optional<Tensor>& weight, const std::optional<Tensor>& bias,
                    const std::optional<Tensor>& residual, bool relu, double eps);
void track_statistics(const Tensor& running_mean, const Tensor& running_var, const Tensor& batches, const Tensor& mean,
                      const Tensor& var, double unbias, double momentum);

}  // namespace perception
