// Kernel maps: for every tap the pairs (input row, output row) with
// in_site == stride * out_site + offset, sorted by output row within the tap.
//
// Sorted sites: taps that differ on the last axis only are found in one walk of the sorted keys
// beside the sorted outputs, since moving all sites by one displacement keeps their order; no hash.
// Other sites: one probe of the hash index a (tap, output), prefetched.
// A submanifold map is symmetric: with sorted sites the second half of the taps mirrors the first.
// Blocks of outputs are joined in order, so the result does not depend on the threads.
// Limit: a walk reads 8 bytes an input and 8 an output, in order.
#include "cpu/sites.h"

namespace perception {
namespace {

constexpr int64_t kBlock = 1024;
constexpr int64_t kAhead = 12;  // probes in flight

struct Block {
  std::vector<int32_t> in, out;  // pairs, tap after tap
  std::vector<int64_t> counts;
};

// Outputs of one block as inputs' coordinates at displacement zero, relative to the packing.
class BlockBase {
 public:
  BlockBase(const Packing& packing, const int32_t* outputs, int64_t rows, const int64_t* stride)
      : packing_(packing), rows_(rows) {
    for (int c = 0; c < packing.columns; ++c)
      for (int64_t i = 0; i < rows; ++i) {
        const int64_t v = outputs[i * packing.columns + c];
        base_[c][i] = (c == 0 ? v : v * stride[c - 1]) - packing.lo[c];
      }
  }

  // The key of the first `columns` columns moved by the offset; kNone outside the packing.
  void keys(const int32_t* offset, int columns, uint64_t* key) const {
    std::fill_n(key, rows_, uint64_t{0});
    for (int c = 0; c < columns; ++c) {
      const int64_t step = c == 0 ? 0 : offset[c - 1];
      const uint64_t size = static_cast<uint64_t>(packing_.range[c] + 1);
      const int shift = packing_.shift[c];
      for (int64_t i = 0; i < rows_; ++i) {
        const uint64_t v = static_cast<uint64_t>(base_[c][i] + step);
        key[i] = v < size ? key[i] | (v << shift) : kNone;
      }
    }
  }
  const int64_t* last() const { return base_[packing_.columns - 1]; }

  static constexpr uint64_t kNone = ~uint64_t{0};

 private:
  const Packing& packing_;
  int64_t rows_;
  int64_t base_[kMaxColumns][kBlock];
};

// Taps first .. last, equal but for a rising displacement on the last axis.
struct Run {
  int64_t first, last;
};

std::vector<Run> runs_of(const int32_t* offsets, int64_t taps, int64_t dim) {
  std::vector<Run> runs;
  for (int64_t k = 0; k < taps; ++k) {
    const int32_t* now = offsets + k * dim;
    const bool goes_on = !runs.empty() && std::equal(now - dim, now - 1, now) && now[-1] < now[dim - 1];
    if (goes_on)
      runs.back().last = k + 1;
    else
      runs.push_back({k, k + 1});
  }
  return runs;
}

// in_keys: the sorted keys of all inputs, and behind them a largest one.
Block walk_block(const Packing& packing, const std::vector<uint64_t>& in_keys, const int32_t* outputs, int64_t begin,
                 int64_t end, const int32_t* offsets, const std::vector<Run>& runs, int64_t taps, const int64_t* stride) {
  const int columns = packing.columns, dim = columns - 1;
  const int64_t rows = end - begin, range = packing.range[dim];
  const BlockBase base(packing, outputs + begin * columns, rows, stride);
  Block block;
  block.counts.resize(taps);
  block.in.reserve(4 * rows);
  block.out.reserve(4 * rows);
  uint64_t column[kBlock];
  std::vector<int32_t> in, out;
  std::vector<int64_t> count;
  for (const Run& run : runs) {
    const int64_t length = run.last - run.first;
    const int32_t* steps = offsets + run.first * dim + dim - 1;
    base.keys(offsets + run.first * dim, dim, column);
    in.resize(length * kBlock);
    out.resize(length * kBlock);
    count.assign(length, 0);
    const uint64_t* at = nullptr;
    for (int64_t i = 0; i < rows; ++i) {
      if (column[i] == BlockBase::kNone) continue;
      const int64_t here = base.last()[i], lowest = std::max<int64_t>(here + steps[0], 0);
      if (lowest > range) continue;
      const uint64_t start = column[i] + static_cast<uint64_t>(lowest);
      if (at == nullptr) at = std::lower_bound(in_keys.data(), in_keys.data() + in_keys.size() - 1, start);
      while (*at < start) ++at;
      const uint64_t* found = at;
      for (int64_t t = 0; t < length; ++t) {
        const uint64_t moved = static_cast<uint64_t>(here + steps[t * dim]);
        if (moved > static_cast<uint64_t>(range)) continue;
        const uint64_t wanted = column[i] + moved;
        while (*found < wanted) ++found;
        const int64_t n = t * kBlock + count[t];
        in[n] = static_cast<int32_t>(found - in_keys.data());
        out[n] = static_cast<int32_t>(begin + i);
        count[t] += *found == wanted;
      }
    }
    for (int64_t t = 0; t < length; ++t) {
      block.counts[run.first + t] = count[t];
      block.in.insert(block.in.end(), in.begin() + t * kBlock, in.begin() + t * kBlock + count[t]);
      block.out.insert(block.out.end(), out.begin() + t * kBlock, out.begin() + t * kBlock + count[t]);
    }
  }
  return block;
}

Block probe_block(const IndexView& view, const int32_t* outputs, int64_t begin, int64_t end,
                  const int32_t* offsets, int64_t taps, const int64_t* stride) {
  const int columns = view.packing().columns, dim = columns - 1;
  const int64_t rows = end - begin;
  Block block;
  block.counts.resize(taps);
  block.in.reserve(4 * rows);
  block.out.reserve(4 * rows);
  const int32_t* first = outputs + begin * columns;
  const auto emit = [&](int32_t row, int64_t i) {
    if (row < 0) return;
    block.in.push_back(row);
    block.out.push_back(static_cast<int32_t>(begin + i));
  };
  std::unique_ptr<BlockBase> base;
  if (view.exact()) base = std::make_unique<BlockBase>(view.packing(), first, rows, stride);
  uint64_t keys[kBlock];
  for (int64_t k = 0; k < taps; ++k) {
    const int64_t before = static_cast<int64_t>(block.in.size());
    const int32_t* offset = offsets + k * dim;
    if (base) {
      base->keys(offset, columns, keys);
      for (int64_t i = 0; i < std::min(kAhead, rows); ++i) view.prefetch(keys[i]);
      for (int64_t i = 0; i < rows; ++i) {
        if (i + kAhead < rows) view.prefetch(keys[i + kAhead]);
        if (keys[i] != BlockBase::kNone) emit(view.find_key(keys[i]), i);
      }
    } else {
      int64_t query[kMaxColumns];
      for (int64_t i = 0; i < rows; ++i) {
        const int32_t* site = first + i * columns;
        query[0] = site[0];
        for (int d = 0; d < dim; ++d) query[d + 1] = site[d + 1] * stride[d] + offset[d];
        emit(view.find(query), i);
      }
    }
    block.counts[k] = static_cast<int64_t>(block.in.size()) - before;
  }
  return block;
}

using Map = std::tuple<Tensor, Tensor, Tensor>;

// Without an index both sets of sites are sorted.
Map kernel_map(const std::optional<Tensor>& given_index, const Tensor& in_sites, const Tensor& out_sites,
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
  const int32_t* inputs = in_c.const_data_ptr<int32_t>();
  const int32_t* outputs = out_c.const_data_ptr<int32_t>();
  const int32_t* taps_at = offsets_c.const_data_ptr<int32_t>();

  const int64_t probed = symmetric ? taps / 2 : taps;
  std::vector<Block> blocks((rows + kBlock - 1) / kBlock);
  const Packing packing(site_bounds(inputs, in_c.size(0), static_cast<int>(dim) + 1), static_cast<int>(dim) + 1);
  if (!given_index && packing.exact()) {
    std::vector<uint64_t> keys(in_c.size(0) + 1);
    parallel_blocks(in_c.size(0), 1 << 15, [&](int64_t, int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) keys[i] = packing.key(inputs + i * packing.columns);
    });
    keys.back() = ~uint64_t{0};
    const std::vector<Run> runs = runs_of(taps_at, probed, dim);
    parallel_blocks(rows, kBlock, [&](int64_t b, int64_t begin, int64_t end) {
      blocks[b] = walk_block(packing, keys, outputs, begin, end, taps_at, runs, probed, stride.data());
    });
  } else {
    const Tensor index = given_index ? *given_index : build_index(in_c).table;
    const IndexView view(index.const_data_ptr<int64_t>(), inputs);
    parallel_blocks(rows, kBlock, [&](int64_t b, int64_t begin, int64_t end) {
      blocks[b] = probe_block(view, outputs, begin, end, taps_at, probed, stride.data());
    });
  }

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
