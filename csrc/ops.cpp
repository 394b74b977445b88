// Schemas of all native operators. Every operator takes and returns tensors and numbers only;
// fake kernels, autograd and the torch twin that defines each one stand in perception/sparse/.
//
// Conventions: sites are int32 [N, 1 + D], batch first. Row indices are int32 with -1 for "none";
// pointers into lists (`ptr`) and all element counts are int64.
// A map is the list [in_rows (P), out_rows (P), tap_ptr (K + 1)]: the pairs of tap k are
// tap_ptr[k] .. tap_ptr[k + 1], sorted by out_row within the tap.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(perception, m) {
  m.def("unique_sites(Tensor sites) -> (Tensor unique, Tensor inverse, Tensor order, Tensor ptr)");
  m.def("strided_sites(Tensor sites, int[] stride) -> Tensor");
  m.def("build_index(Tensor sites, bool even_if_sorted) -> (Tensor index, Tensor info)");
  m.def("lookup(Tensor index, Tensor sites, Tensor queries) -> Tensor");
  m.def("reach_sites(Tensor sites, Tensor offsets, int[] stride, bool transposed, int[] bounds) -> Tensor");
  m.def(
      "kernel_map(Tensor? index, Tensor in_sites, Tensor out_sites, Tensor offsets, int[] stride, "
      "bool symmetric) -> (Tensor in_rows, Tensor out_rows, Tensor tap_ptr)");
  m.def(
      "transpose_map(Tensor in_rows, Tensor out_rows, Tensor tap_ptr, SymInt num_in) -> "
      "(Tensor in_rows, Tensor out_rows, Tensor tap_ptr)");
  m.def("group_by(Tensor keys, SymInt num_groups) -> (Tensor order, Tensor ptr)");
  m.def(
      "point_sites(Tensor points, Tensor? batch, float[] voxel_size, float[] origin, float[] bounds) "
      "-> (Tensor sites, Tensor info)");
  m.def(
      "conv(Tensor x, Tensor weight, Tensor? bias, Tensor[] map, Tensor[] transposed, "
      "SymInt num_out, int groups, bool tf32) -> Tensor");
  m.def(
      "conv_weight_grad(Tensor x, Tensor grad, Tensor[] map, Tensor[] transposed, int groups, bool tf32, "
      "bool wide) -> Tensor");
  // A layer in one call, so that it costs the host one way through the dispatcher: conv, then normalize with
  // given statistics (conv_norm, one pass) or batch_norm_tracked (conv_batch_norm; nothing is tracked without
  // running statistics). The weight and bias may be float32 where x has 16 bits; `cast` is then the weight as
  // it was multiplied, else empty. z is the result of the convolution. Of the gradients, bits 0 to 3 of
  // `wanted` say which of those by x, weight, bias and residual are made; the others are empty.
  m.def(
      "conv_norm(Tensor x, Tensor weight, Tensor? bias, Tensor[] map, SymInt num_out, int groups, bool tf32, "
      "Tensor mean, Tensor var, Tensor? scale, Tensor? shift, float eps, Tensor? residual, bool relu) -> Tensor");
  m.def(
      "conv_batch_norm(Tensor x, Tensor weight, Tensor? bias, Tensor[] map, SymInt num_out, int groups, bool tf32, "
      "Tensor? scale, Tensor? shift, Tensor? residual, bool relu, float eps, Tensor(a!)? running_mean, "
      "Tensor(b!)? running_var, Tensor(c!)? batches, float momentum) -> "
      "(Tensor y, Tensor z, Tensor mean, Tensor var, Tensor cast)");
  m.def(
      "conv_batch_norm_backward(Tensor grad, Tensor x, Tensor weight, Tensor[] map, Tensor[] transposed, int groups, "
      "bool tf32, bool wide, Tensor z, Tensor? y, Tensor? scale, Tensor mean, Tensor var, float eps, int wanted) "
      "-> (Tensor dx, Tensor dweight, Tensor dbias, Tensor dscale, Tensor dshift, Tensor dresidual)");
  // Kernel maps on CUDA: the index where none is given, the table, and what is asked for of tiles (rows,
  // order, taps, and of a mirrored map the taps read backwards; see cuda/conv.cuh) and pairs.
  m.def(
      "plan_table(Tensor? index, Tensor in_sites, Tensor out_sites, Tensor offsets, int[] stride, int[] rank, "
      "bool mirrored, bool tiles, bool pairs) -> Tensor[]");
  m.def("plan_parts(Tensor table, int[] rank, bool mirrored, bool tiles, bool pairs) -> Tensor[]");
  m.def("plan_transposed(Tensor table, SymInt num_in, int[] rank, bool tiles) -> Tensor[]");
  m.def("segment_sum(Tensor x, Tensor rows, Tensor ptr, Tensor? weights, bool mean) -> Tensor");
  m.def("segment_argmax(Tensor x, Tensor rows, Tensor ptr) -> Tensor");
  m.def("segment_max_grad(Tensor grad, Tensor arg, Tensor segments, Tensor ptr) -> Tensor");
  m.def("sum_rows(Tensor x) -> Tensor");
  // Normalizations end in `+ residual` and max(., 0) where asked. batch_norm_tracked moves running
  // statistics too; the gradient of a normalization with relu needs its result y.
  m.def(
      "batch_norm(Tensor x, Tensor? weight, Tensor? bias, Tensor? residual, bool relu, float eps) -> "
      "(Tensor y, Tensor mean, Tensor var)");
  m.def(
      "batch_norm_tracked(Tensor x, Tensor? weight, Tensor? bias, Tensor? residual, bool relu, float eps, "
      "Tensor(a!) running_mean, Tensor(b!) running_var, Tensor(c!) batches, float momentum) -> "
      "(Tensor y, Tensor mean, Tensor var)");
  m.def(
      "batch_norm_backward(Tensor grad, Tensor x, Tensor? y, Tensor? weight, Tensor mean, Tensor var, float eps, "
      "bool residual) -> (Tensor dx, Tensor dweight, Tensor dbias, Tensor dresidual)");
  m.def(
      "normalize(Tensor x, Tensor mean, Tensor var, Tensor? weight, Tensor? bias, Tensor? residual, bool relu, "
      "float eps) -> Tensor");
  m.def(
      "track_statistics(Tensor(a!) running_mean, Tensor(b!) running_var, Tensor(c!) batches, Tensor mean, "
      "Tensor var, float unbias, float momentum) -> ()");
  m.def("instruction_set() -> int");
  m.def("release_memory() -> int");
}
