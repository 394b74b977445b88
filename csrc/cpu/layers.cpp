// Layers as one operator: a convolution and what follows it. See csrc/ops.cpp.
#include "cpu/layers.h"

#include "cpu/conv.h"

namespace perception {
namespace {

// Batch norm that moves running statistics, if there are any, on the way.
std::tuple<Tensor, Tensor, Tensor> normalize_and_track(
    const Tensor& x, const Statistics* known, const std::optional<Tensor>& weight, const std::optional<Tensor>& bias,
    const std::optional<Tensor>& residual, bool relu, double eps, const std::optional<Tensor>& running_mean,
    const std::optional<Tensor>& running_var, const std::optional<Tensor>& batches, double momentum) {
  auto result = normalize_batch(x, known, weight, bias, residual, relu, eps);
  const double rows = static_cast<double>(x.size(0));
  if (running_mean)
    track_statistics(*running_mean, *running_var, *batches, std::get<1>(result), std::get<2>(result), rows / (rows - 1),
                     momentum);
  return result;
}

std::tuple<Tensor, Tensor, Tensor> batch_norm_tracked(
    const Tensor& x, const std::optional<Tensor>& weight, const std::optional<Tensor>& bias,
    const std::optional<Tensor>& residual, bool relu, double eps, const Tensor& running_mean, const Tensor& running_var,
    const Tensor& batches, double momentum) {
  return normalize_and_track(x, nullptr, weight, bias, residual, relu, eps, running_mean, running_var, batches, momentum);
}

// The tensor in another dtype; itself where it has that already.
Tensor cast(const Tensor& tensor, ScalarType dtype) {
  return tensor.scalar_type() == dtype ? tensor : torch::stable::to(tensor, dtype);
}
std::optional<Tensor> cast(const std::optional<Tensor>& tensor, ScalarType dtype) {
  if (!tensor) return std::nullopt;
  return cast(*tensor, dtype);
}

Tensor conv_norm(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, std::vector<Tensor> map,
                 int64_t num_out, int64_t groups, bool /*tf32*/, const Tensor& mean, const Tensor& var,
                 const std::optional<Tensor>& scale, const std::optional<Tensor>& shift, double eps,
                 const std::optional<Tensor>& residual, bool relu) {
  const ScalarType dtype = x.scalar_type();
  const Finish finish{mean, var, scale, shift, contiguous_residual(residual, num_out, weight.size(2), dtype, "conv_norm"),
                      relu, eps};
  return product(x, cast(weight, dtype), false, cast(bias, dtype), map, num_out, groups, &finish);
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> conv_batch_norm(
    const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, std::vector<Tensor> map, int64_t num_out,
    int64_t groups, bool /*tf32*/, const std::optional<Tensor>& scale, const std::optional<Tensor>& shift,
    const std::optional<Tensor>& residual, bool relu, double eps, const std::optional<Tensor>& running_mean,
    const std::optional<Tensor>& running_var, const std::optional<Tensor>& batches, double momentum) {
  const ScalarType dtype = x.scalar_type();
  const Tensor w = cast(weight, dtype);
  Statistics statistics;
  Tensor z = product(x, w, false, cast(bias, dtype), map, num_out, groups, nullptr, &statistics);
  auto [y, mean, var] = normalize_and_track(z, &statistics, scale, shift, residual, relu, eps, running_mean, running_var,
                                            batches, momentum);
  return {y, z, mean, var, weight.scalar_type() == dtype ? empty({0}, dtype) : w};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> conv_batch_norm_backward(
    const Tensor& grad, const Tensor& x, const Tensor& weight, std::vector<Tensor> map, std::vector<Tensor> transposed,
    int64_t groups, bool tf32, bool wide, const Tensor& z, const std::optional<Tensor>& y, const std::optional<Tensor>& scale,
    const Tensor& mean, const Tensor& var, double eps, int64_t wanted) {
  const ScalarType dtype = x.scalar_type();
  auto [dz, dscale, dshift, dresidual] = batch_norm_backward(grad, z, y, scale, mean, var, eps, (wanted & 8) != 0);
  Tensor dx = empty({0}, dtype), dweight = empty({0}, dtype), dbias = empty({0}, dtype);
  if (wanted & 1) dx = product(dz, weight, true, std::nullopt, transposed, x.size(0), groups);
  if (wanted & 2) dweight = conv_weight_grad(x, dz, std::move(map), {}, groups, tf32, wide);
  if (wanted & 4) dbias = sum_rows(dz);
  return {dx, dweight, dbias, dscale, dshift, dresidual};
}

STABLE_TORCH_LIBRARY_IMPL(perception, CPU, m) {
  m.impl("batch_norm_tracked", TORCH_BOX(&batch_norm_tracked));
  m.impl("conv_norm", TORCH_BOX(&conv_norm));
  m.impl("conv_batch_norm", TORCH_BOX(&conv_batch_norm));
  m.impl("conv_batch_norm_backward", TORCH_BOX(&conv_batch_norm_backward));
}

}  // namespace
}  // namespace perception
