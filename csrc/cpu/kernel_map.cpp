// Kernel maps: for every tap the pairs (input row, output row) with
// in_site == stride * out_site + offset, sorted by output row within the tap.
// One probe a (tap, output) — half of that where the map of a submanifold layer is symmetric — and
// the probes of a block of outputs are prefetched. Blocks are joined in order, so the result does
// not depend on the threads.
#include "cpu/sites.h"

namespace perception {
namespace {

constexpr int64_t kBlock = 1024;
constexpr int64_t kAhead = 12;  // probes in flight

struct Block {
  std::vector<int32_t> in, out;  // tap after tap
  std::vector<int64_t> counts;
};

// The queries of one block of outputs, in exact keys, tap by tap.
class KeyedBlock {
 public:
  KeyedBlock(const IndexView& view, const int32_t* outputs, int64_t rows, const int64_t* stride)
      : view_(view), columns_(view.packing().columns), rows_(rows) {
    const Packing& p = view.packing();
    for (int c = 0; c < columns_; ++c)
      for (int64_t i = 0; i < rows; ++i) {
        const int64_t v = outputs[i * columns_ + c];
        base_[c][i] = (c == 0 ? v : v * stride[c - 1]) - p.lo[c];
      }
  }

  template <class Emit>
  void probe(const int32_t* offset, const Emit& emit) {
    const Packing& p = view_.packing();
    constexpr uint64_t kNone = ~uint64_t{0};
    for (int64_t i = 0; i < rows_; ++i) keys_[i] = 0;
    for (int c = 0; c < columns_; ++c) {
      const int64_t step = c == 0 ? 0 : offset[c - 1];
      const uint64_t range = static_cast<uint64_t>(p.range[c] + 1);
      const int shift = p.shift[c];
      for (int64_t i = 0; i < rows_; ++i) {
        const uint64_t v = static_cast<uint64_t>(base_[c][i] + step);
        keys_[i] = (v < range) ? (keys_[i] | (v << shift)) : kNone;
      }
    }
    const int64_t lead = std::min(kAhead, rows_);
    for (int64_t i = 0; i < lead; ++i) view_.prefetch(keys_[i]);
    for (int64_t i = 0; i < rows_; ++i) {
      if (i + kAhead < rows_) view_.prefetch(keys_[i + kAhead]);
      if (keys_[i] == kNone) continue;
      const int32_t row = view_.find_key(keys_[i]);
      if (row >= 0) emit(row, i);
    }
  }

 private:
  const IndexView& view_;
  int columns_;
  int64_t rows_;
  int64_t base_[kMaxColumns][kBlock];
  uint64_t keys_[kBlock];
};

Block probe_block(const IndexView& view, const int32_t* outputs, int64_t begin, int64_t end,
                  const int32_t* offsets, int64_t taps, const int64_t* stride) {
  const int columns = view.packing().columns, dim = columns - 1;
  Block block;
  block.counts.resize(taps);
  block.in.reserve(4 * (end - begin));
  block.out.reserve(4 * (end - begin));
  const auto emit = [&](int32_t row, int64_t i) {
    block.in.push_back(row);
    block.out.push_back(static_cast<int32_t>(begin + i));
  };
  const int32_t* first = outputs + begin * columns;
  std::unique_ptr<KeyedBlock> keyed;
  if (view.exact()) keyed = std::make_unique<KeyedBlock>(view, first, end - begin, stride);
  for (int64_t k = 0; k < taps; ++k) {
    const int64_t before = static_cast<int64_t>(block.in.size());
    const int32_t* offset = offsets + k * dim;
    if (keyed) {
      keyed->probe(offset, emit);
    } else {
      int64_t query[kMaxColumns];
      for (int64_t i = 0; i < end - begin; ++i) {
        const int32_t* site = first + i * columns;
        query[0] = site[0];
        for (int d = 0; d < dim; ++d) query[d + 1] = site[d + 1] * stride[d] + offset[d];
        const int32_t row = view.find(query);
        if (row >= 0) emit(row, i);
      }
    }
    block.counts[k] = static_cast<int64_t>(block.in.size()) - before;
  }
  return block;
}

using Map = std::tuple<Tensor, Tensor, Tensor>;

Map kernel_map(const Tensor& index, const Tensor& in_sites, const Tensor& out_sites,
               const Tensor& offsets, std::vector<int64_t> stride, bool symmetric) {
  check_sites(in_sites, "kernel_map", "in_sites");
  check_sites(out_sites, "kernel_map", "out_sites");
  const int64_t taps = offsets.size(0), dim = in_sites.size(1) - 1, rows = out_sites.size(0);
  STD_TORCH_CHECK(offsets.dim() == 2 && offsets.size(1) == dim && out_sites.size(1) == dim + 1 &&
                      static_cast<int64_t>(stride.size()) == dim,
                  "kernel_map: sites, offsets and stride have different numbers of axes");
  STD_TORCH_CHECK(offsets.scalar_type() == ScalarType::Int, "kernel_map: offsets must be int32");
  const Tensor in_c = torch::stable::contiguous(in_sites), out_c = torch::stable::contiguous(out_sites);
  const Tensor offsets_c = torch::stable::contiguous(offsets);
  const IndexView view(index.const_data_ptr<int64_t>(), in_c.const_data_ptr<int32_t>());
  const int32_t* outputs = out_c.const_data_ptr<int32_t>();
  const int32_t* taps_at = offsets_c.const_data_ptr<int32_t>();

  // A symmetric map (sorted sites onto themselves, tap K-1-k opposite to tap k): the second half
  // mirrors the first, and sorted sites make the mirrored pairs come out in order.
  const int64_t probed = symmetric ? taps / 2 : taps;
  std::vector<Block> blocks((rows + kBlock - 1) / kBlock);
  parallel_blocks(rows, kBlock, [&](int64_t b, int64_t begin, int64_t end) {
    blocks[b] = probe_block(view, outputs, begin, end, taps_at, probed, stride.data());
  });

  std::vector<int64_t> starts(blocks.size() * probed);
  Tensor tap_ptr = empty({taps + 1}, ScalarType::Long);
  int64_t* ptr = tap_ptr.mutable_data_ptr<int64_t>();
  std::vector<int64_t> counts(taps, 0);
  for (int64_t k = 0; k < probed; ++k)
    for (size_t b = 0; b < blocks.size(); ++b) {
      starts[b * probed + k] = counts[k];
      counts[k] += blocks[b].counts[k];
    }
  if (symmetric) {
    for (int64_t k = 0; k < probed; ++k) counts[taps - 1 - k] = counts[k];
    if (taps % 2) counts[taps / 2] = rows;
  }
  ptr[0] = 0;
  for (int64_t k = 0; k < taps; ++k) ptr[k + 1] = ptr[k] + counts[k];
  Tensor in_rows = empty({ptr[taps]}, ScalarType::Int), out_rows = empty({ptr[taps]}, ScalarType::Int);
  int32_t* in = in_rows.mutable_data_ptr<int32_t>();
  int32_t* out = out_rows.mutable_data_ptr<int32_t>();
  parallel_tasks(static_cast<int64_t>(blocks.size()), [&](int64_t b) {
    const Block& block = blocks[b];
    int64_t from = 0;
    for (int64_t k = 0; k < probed; ++k) {
      const int64_t n = block.counts[k], to = ptr[k] + starts[b * probed + k];
      std::copy_n(block.in.data() + from, n, in + to);
      std::copy_n(block.out.data() + from, n, out + to);
      if (symmetric) {
        const int64_t mirrored = ptr[taps - 1 - k] + starts[b * probed + k];
        std::copy_n(block.in.data() + from, n, out + mirrored);
        std::copy_n(block.out.data() + from, n, in + mirrored);
      }
      from += n;
    }
    if (symmetric && taps % 2) {
      const int64_t middle = ptr[taps / 2];
      for (int64_t i = b * kBlock; i < std::min(rows, (b + 1) * kBlock); ++i)
        in[middle + i] = out[middle + i] = static_cast<int32_t>(i);
    }
  });
  return {in_rows, out_rows, tap_ptr};
}

// The same pairs with input and output exchanged, sorted by the new output within each tap.
Map transpose_map(const Tensor& in_rows, const Tensor& out_rows, const Tensor& tap_ptr, int64_t num_in) {
  check_rows(in_rows, "transpose_map", "in_rows");
  check_rows(out_rows, "transpose_map", "out_rows");
  check_ptr(tap_ptr, "transpose_map");
  STD_TORCH_CHECK(num_in >= 0 && num_in <= kMaxRows, "transpose_map: num_in is out of range");
  const int32_t* in = in_rows.const_data_ptr<int32_t>();
  const int32_t* out = out_rows.const_data_ptr<int32_t>();
  const int64_t* ptr = tap_ptr.const_data_ptr<int64_t>();
  const int64_t taps = tap_ptr.size(0) - 1, pairs = in_rows.size(0);
  Tensor new_in = empty({pairs}, ScalarType::Int), new_out = empty({pairs}, ScalarType::Int);
  int32_t* to_in = new_in.mutable_data_ptr<int32_t>();
  int32_t* to_out = new_out.mutable_data_ptr<int32_t>();
  parallel_tasks(taps, [&](int64_t k) {
    std::vector<uint64_t> pair(ptr[k + 1] - ptr[k]);
    for (int64_t p = ptr[k]; p < ptr[k + 1]; ++p)
      pair[p - ptr[k]] = (static_cast<uint64_t>(static_cast<uint32_t>(in[p])) << 32) | static_cast<uint32_t>(out[p]);
    std::sort(pair.begin(), pair.end());
    for (int64_t p = ptr[k]; p < ptr[k + 1]; ++p) {
      to_out[p] = static_cast<int32_t>(pair[p - ptr[k]] >> 32);
      to_in[p] = static_cast<int32_t>(pair[p - ptr[k]]);
    }
  });
  return {new_in, new_out, torch::stable::clone(tap_ptr)};
}

STABLE_TORCH_LIBRARY_IMPL(perception, CPU, m) {
  m.impl("kernel_map", TORCH_BOX(&kernel_map));
  m.impl("transpose_map", TORCH_BOX(&transpose_map));
}

}  // namespace
}  // namespace perception
