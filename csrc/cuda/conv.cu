// The sparse product and its weight gradient on CUDA: checks, and the choice of the kernel.
#include "cuda/conv.cuh"

namespace perception {
namespace {

void check_floating(const Tensor& x, const char* op) {
  const ScalarType t = x.scalar_type();
  STD_TORCH_CHECK(t == ScalarType::Float || t == ScalarType::Double || t == ScalarType::Half || t == ScalarType::BFloat16, op,
                  ": the dtype must be float32, float64, float16 or bfloat16");
}

}  // namespace

Tensor product(const Tensor& x, const Weight& weight, const std::optional<Tensor>& bias, const std::vector<Tensor>& map,
               int64_t num_out, int64_t groups, bool tf32, const Norm* norm) {
  check_floating(x, "conv");
  STD_TORCH_CHECK(x.dim() == 2 && weight.tensor.dim() == 3, "conv: x must be [N, Cin] and weight [K, Cin / groups, Cout]");
  STD_TORCH_CHECK(map.size() == 3 || map.size() == 6, "conv: a map on CUDA is [rows, order, taps], pairs behind them");
  const int64_t taps = weight.tensor.size(0), cin = x.size(1), in = weight.tensor.size(weight.exchanged ? 2 : 1),
                cout = weight.tensor.size(weight.exchanged ? 1 : 2);
  STD_TORCH_CHECK(groups > 0 && in * groups == cin && cout % groups == 0 && (groups == 1 || !weight.exchanged),
                  "conv: x has ", cin, " channels and weight takes ", in, " x ", groups, " groups");
  STD_TORCH_CHECK(weight.tensor.scalar_type() == x.scalar_type() && (!bias || bias->scalar_type() == x.scalar_type()),
                  "conv: x, weight and bias differ in dtype");
  STD_TORCH_CHECK(!bias || (bias->dim() == 1 && bias->size(0) == cout), "conv: bias must be [Cout]");
  const Tensor &rows = map[0], &order = map[1], &bits = map[2];
  const int64_t granules = rows.size(0), words = bits.size(1);
  STD_TORCH_CHECK(rows.dim() == 3 && rows.size(1) == taps && rows.size(2) == kGranule &&
                      order.numel() == granules * kGranule && bits.size(0) == granules + 1 && words == ceil_div(taps, 32),
                  "conv: the map does not fit the weight, which has ", taps, " taps");
  STD_TORCH_CHECK(num_out <= order.numel() && order.numel() < num_out + (num_out ? kGranule : kGranule + 1),
                  "conv: the map has ", order.numel(), " slots for ", num_out, " outputs");
  for (const Tensor* t : {&weight.tensor, &rows, &order, &bits}) check_same_device(x, *t, "conv");
  if (bias) check_same_device(x, *bias, "conv");

  const Device device(x);
  const Tensor x_c = as_contiguous(x);
  Tensor weight_c = as_contiguous(weight.tensor);
  std::optional<Tensor> bias_c;
  if (bias) bias_c = as_contiguous(*bias);
  Tensor out = empty_like_device(x, {num_out, cout}, x.scalar_type());
  if (num_out == 0 || cout == 0) return out;
  ConvArgs args{};
  std::optional<Tensor> residual;
  if (norm) {
    residual = contiguous_residual(norm->residual, out, "conv_norm");
    args.end = {true,
                column(norm->mean, cout, x, "conv_norm"),
                column(norm->var, cout, x, "conv_norm"),
                column(norm->scale, out, "conv_norm"),
                column(norm->shift, out, "conv_norm"),
                static_cast<float>(norm->eps),
                residual ? residual->const_data_ptr() : nullptr,
                norm->relu};
  }
  args.dtype = x.scalar_type();
  args.x = x_c.data_ptr();
  args.weight = weight_c.data_ptr();
  args.exchanged = weight.exchanged;
  args.bias = bias_c ? bias_c->data_ptr() : nullptr;
  args.out = out.data_ptr();
  args.num_in = x.size(0);
  args.num_out = num_out;
  args.cin = static_cast<int>(cin);
  args.cout = static_cast<int>(cout);
  args.groups = static_cast<int>(groups);
  args.num_taps = static_cast<int>(taps);
  args.rows = rows.const_data_ptr<int32_t>();
  args.order = order.const_data_ptr<int32_t>();
  args.taps = bits.const_data_ptr<int32_t>();
  args.granules = granules;
  args.words = static_cast<int>(words);
  args.tf32 = tf32;
  args.like = &x_c;
  args.stream = device.stream();
  if (conv_wgmma(args)) return out;
  if (args.exchanged) {
    weight_c = torch::stable::contiguous(torch::stable::transpose(weight_c, 1, 2));
    args.weight = weight_c.data_ptr();
    args.exchanged = false;
    if (conv_wgmma(args)) return out;
  }
  conv_mma(args);
  if (norm)
    normalize_into(out, out, args.end.mean, args.end.var, args.end.scale, args.end.shift, residual, norm->relu, norm->eps,
                   device.stream());
  return out;
}

namespace {

Tensor conv(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, std::vector<Tensor> map,
            std::vector<Tensor> /*transposed: for the backward pass*/, int64_t num_out, int64_t groups, bool tf32) {
  // The gradient of the input takes the weight with its channels exchanged: a view, often read as it is.
  if (weight.dim() == 3 && groups == 1 && !weight.is_contiguous() && weight.stride(1) == 1 &&
      weight.stride(2) == weight.size(1) && weight.stride(0) == weight.size(1) * weight.size(2))
    return product(x, {torch::stable::transpose(weight, 1, 2), true}, bias, map, num_out, groups, tf32, nullptr);
  return product(x, {weight, false}, bias, map, num_out, groups, tf32, nullptr);
}

}  // namespace

Tensor conv_weight_grad(const Tensor& x, const Tensor& grad, std::vector<Tensor> map,
                        std::vector<Tensor> /*transposed: for the backward pass*/, int64_t groups, bool tf32, bool wide) {
  check_floating(x, "conv_weight_grad");
  STD_TORCH_CHECK(x.dim() == 2 && grad.dim() == 2 && x.scalar_type() == grad.scalar_type(),
                  "conv_weight_grad: x must be [N, Cin] and grad [M, Cout], of one dtype");
  STD_TORCH_CHECK(map.size() == 3 || map.size() == 6, "conv_weight_grad: a map ends in [in_rows, out_rows, tap_ptr]");
  const int64_t cin = x.size(1), cout = grad.size(1);
  STD_TORCH_CHECK(groups > 0 && cin % groups == 0 && cout % groups == 0, "conv_weight_grad: groups divide no channels");
  const Tensor* const pairs = map.data() + map.size() - 3;
  const Tensor &in_rows = pairs[0], &out_rows = pairs[1], &tap_ptr = pairs[2];
  check_rows(in_rows, "conv_weight_grad", "in_rows");
  check_rows(out_rows, "conv_weight_grad", "out_rows");
  check_ptr(tap_ptr, "conv_weight_grad");
  for (const Tensor* t : {&grad, &in_rows, &out_rows, &tap_ptr}) check_same_device(x, *t, "conv_weight_grad");

  const Device device(x);
  const Tensor x_c = as_contiguous(x), grad_c = as_contiguous(grad);
  const int64_t taps = tap_ptr.size(0) - 1;
  const bool widens = wide && x.scalar_type() != ScalarType::Double && x.scalar_type() != ScalarType::Float;
  Tensor dw = empty_like_device(x, {taps, cin / groups, cout}, widens ? ScalarType::Float : x.scalar_type());
  if (dw.numel() == 0) return dw;
  WeightGradArgs args;
  args.dtype = x.scalar_type();
  args.wide = widens;
  args.x = x_c.data_ptr();
  args.grad = grad_c.data_ptr();
  args.dw = dw.data_ptr();
  args.num_in = x.size(0);
  args.num_out = grad.size(0);
  args.cin = static_cast<int>(cin);
  args.cout = static_cast<int>(cout);
  args.groups = static_cast<int>(groups);
  args.num_taps = static_cast<int>(taps);
  args.in_rows = in_rows.const_data_ptr<int32_t>();
  args.out_rows = out_rows.const_data_ptr<int32_t>();
  args.tap_ptr = tap_ptr.const_data_ptr<int64_t>();
  args.most_pairs = in_rows.size(0);
  args.tf32 = tf32;
  args.like = &x_c;
  args.stream = device.stream();
  if (!conv_weight_grad_wgmma(args)) conv_weight_grad_mma(args);
  return dw;
}

namespace {

STABLE_TORCH_LIBRARY_IMPL(perception, CUDA, m) {
  m.impl("conv", TORCH_BOX(&conv));
  m.impl("conv_weight_grad", TORCH_BOX(&conv_weight_grad));
}

}  // namespace
}  // namespace perception
