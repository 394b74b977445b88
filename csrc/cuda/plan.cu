// What a layer asks of a kernel map, in one call: the operators that put the steps of maps.cuh together.
#include "cuda/index.cuh"
#include "cuda/maps.cuh"

namespace perception {
namespace {

void append(std::vector<Tensor>& out, const Tiles& tiles) {
  out.insert(out.end(), {tiles.rows, tiles.order, tiles.taps});
  if (tiles.back) out.push_back(*tiles.back);
}

void append_parts(std::vector<Tensor>& out, const Tensor& table, const Tensor* masks, const std::vector<int64_t>& rank,
                  bool mirrored, bool tiles, bool pairs, cudaStream_t stream) {
  if (tiles) append(out, make_tiles(table, masks, rank, mirrored, stream));
  if (pairs) {
    const Pairs made = make_pairs(table, stream);
    out.insert(out.end(), {made.in_rows, made.out_rows, made.tap_ptr});
  }
}

std::vector<Tensor> plan_table(const std::optional<Tensor>& given_index, const Tensor& in_sites, const Tensor& out_sites,
                               const Tensor& offsets, std::vector<int64_t> stride, std::vector<int64_t> rank,
                               bool mirrored, bool tiles, bool pairs) {
  check_map(in_sites, out_sites, offsets, stride, "plan_table");
  check_rank(rank, offsets.size(0), "plan_table");
  if (given_index) check_same_device(*given_index, in_sites, "plan_table");
  const Device device(in_sites);
  const Tensor in_c = as_contiguous(in_sites);
  std::vector<Tensor> out;
  if (!given_index) out.push_back(std::get<0>(make_index(in_c)));
  const Table table = make_table(given_index ? *given_index : out[0], in_c, as_contiguous(out_sites),
                                 as_contiguous(offsets), stride, tiles ? rank : std::vector<int64_t>{}, device.stream());
  out.push_back(table.rows);
  append_parts(out, table.rows, &table.masks, rank, mirrored, tiles, pairs, device.stream());
  return out;
}

std::vector<Tensor> plan_parts(const Tensor& table, std::vector<int64_t> rank, bool mirrored, bool tiles, bool pairs) {
  check_table(table, "plan_parts");
  check_rank(rank, table.size(1), "plan_parts");
  const Device device(table);
  std::vector<Tensor> out;
  append_parts(out, as_contiguous(table), nullptr, rank, mirrored, tiles, pairs, device.stream());
  return out;
}

std::vector<Tensor> plan_transposed(const Tensor& table, int64_t num_in, std::vector<int64_t> rank, bool tiles) {
  check_table(table, "plan_transposed");
  check_rank(rank, table.size(1), "plan_transposed");
  const Device device(table);
  const Tensor origin = as_contiguous(table);
  if (!tiles) return {make_transposed(origin, num_in, device.stream())};
  std::vector<Tensor> out{Tensor()};
  append(out, make_transposed_tiles(origin, num_in, rank, out[0], device.stream()));
  return out;
}

STABLE_TORCH_LIBRARY_IMPL(perception, CUDA, m) {
  m.impl("plan_table", TORCH_BOX(&plan_table));
  m.impl("plan_parts", TORCH_BOX(&plan_parts));
  m.impl("plan_transposed", TORCH_BOX(&plan_transposed));
}

}  // namespace
}  // namespace perception
