// Layers as one operator: a convolution and what follows it. See csrc/ops.cpp.
#include "cuda/conv.cuh"
#include "cuda/pack.cuh"

namespace perception {
namespace {

template <class T, int V>
__global__ void __launch_bounds__(256) narrow_kernel(const float* from, T* to, int64_t packs) {
  for (int64_t i = int64_t{blockIdx.x} * 256 + threadIdx.x; i < packs; i += int64_t{gridDim.x} * 256) {
    const Pack<float, V> in = load_pack<float, V>(from + i * V);
    Pack<T, V> out;
    out.narrow(in.at);
    store_pack<T, V>(to + i * V, out);
  }
}

// A float32 tensor as one of 16 bits; itself where it has the dtype already.
Tensor narrowed(const Tensor& tensor, ScalarType dtype) {
  if (tensor.scalar_type() == dtype) return tensor;
  STD_TORCH_CHECK(tensor.scalar_type() == ScalarType::Float && (dtype == ScalarType::Half || dtype == ScalarType::BFloat16),
                  "conv: x, weight and bias differ in dtype");
  if (!tensor.is_contiguous() || tensor.dim() > 4) return torch::stable::to(torch::stable::contiguous(tensor), dtype);
  const Device device(tensor);
  Tensor result = tensor.dim() == 3 ? empty_like_device(tensor, {tensor.size(0), tensor.size(1), tensor.size(2)}, dtype)
                                    : empty_like_device(tensor, {tensor.numel()}, dtype);
  if (tensor.numel() == 0) return result;
  const auto launch = [&](auto tag) {
    using T = decltype(tag);
    with_pack<T>(tensor.numel(), {tensor.data_ptr(), result.data_ptr()}, [&](auto pack) {
      constexpr int V = decltype(pack)::value;
      const int64_t packs = tensor.numel() / V;
      narrow_kernel<T, V><<<grid_for(packs, 256, 1056), 256, 0, device.stream()>>>(
          tensor.const_data_ptr<float>(), result.mutable_data_ptr<T>(), packs);
      STD_CUDA_KERNEL_LAUNCH_CHECK();
    });
  };
  dtype == ScalarType::Half ? launch(Half{}) : launch(BFloat16{});
  return result;
}
std::optional<Tensor> narrowed(const std::optional<Tensor>& tensor, ScalarType dtype) {
  if (!tensor) return std::nullopt;
  return narrowed(*tensor, dtype);
}

Tensor conv_norm(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, std::vector<Tensor> map,
                 int64_t num_out, int64_t groups, bool tf32, const Tensor& mean, const Tensor& var,
                 const std::optional<Tensor>& scale, const std::optional<Tensor>& shift, double eps,
                 const std::optional<Tensor>& residual, bool relu) {
  const Norm norm{mean, var, scale, shift, residual, eps, relu};
  const ScalarType dtype = x.scalar_type();
  return product(x, {narrowed(weight, dtype), false}, narrowed(bias, dtype), map, num_out, groups, tf32, &norm);
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> conv_batch_norm(
    const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, std::vector<Tensor> map, int64_t num_out,
    int64_t groups, bool tf32, const std::optional<Tensor>& scale, const std::optional<Tensor>& shift,
    const std::optional<Tensor>& residual, bool relu, double eps, const std::optional<Tensor>& running_mean,
    const std::optional<Tensor>& running_var, const std::optional<Tensor>& batches, double momentum) {
  const ScalarType dtype = x.scalar_type();
  const Tensor w = narrowed(weight, dtype);
  Tensor z = product(x, {w, false}, narrowed(bias, dtype), map, num_out, groups, tf32, nullptr);
  const Running running =
      running_mean ? running_statistics(z, *running_mean, *running_var, *batches, momentum) : Running{};
  auto [y, mean, var] = normalize_by_batch(z, scale, shift, residual, relu, eps, running);
  return {y, z, mean, var, weight.scalar_type() == dtype ? empty_like_device(x, {0}, dtype) : w};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> conv_batch_norm_backward(
    const Tensor& grad, const Tensor& x, const Tensor& weight, std::vector<Tensor> map, std::vector<Tensor> transposed,
    int64_t groups, bool tf32, bool wide, const Tensor& z, const std::optional<Tensor>& y, const std::optional<Tensor>& scale,
    const Tensor& mean, const Tensor& var, double eps, int64_t wanted) {
  const ScalarType dtype = x.scalar_type();
  auto [dz, dscale, dshift, dresidual] = batch_norm_backward(grad, z, y, scale, mean, var, eps, (wanted & 8) != 0);
  const auto none = [&] { return empty_like_device(x, {0}, dtype); };
  Tensor dx, dweight, dbias;
  if (wanted & 1) {
    Weight back{as_contiguous(weight), true};
    if (groups > 1) {
      const int64_t taps = weight.size(0), in = weight.size(1), out = weight.size(2) / groups;
      // [K, Cin / g, Cout] -> [K, Cout / g, Cin], group by group
      const Tensor split = torch::stable::view(back.tensor, {taps, in, groups, out});
      const Tensor swapped = torch::stable::contiguous(torch::stable::transpose(split, 1, 3));
      back = {torch::stable::view(swapped, {taps, out, groups * in}), false};
    }
    dx = product(dz, back, std::nullopt, transposed, x.size(0), groups, tf32, nullptr);
  } else {
    dx = none();
  }
  dweight = wanted & 2 ? conv_weight_grad(x, dz, std::move(map), {}, groups, tf32, wide) : none();
  dbias = wanted & 4 ? sum_rows(dz) : none();
  return {dx, dweight, dbias, dscale, dshift, dresidual};
}

STABLE_TORCH_LIBRARY_IMPL(perception, CUDA, m) {
  m.impl("conv_norm", TORCH_BOX(&conv_norm));
  m.impl("conv_batch_norm", TORCH_BOX(&conv_batch_norm));
  m.impl("conv_batch_norm_backward", TORCH_BOX(&conv_batch_norm_backward));
}

}  // namespace
}  // namespace perception
