// Kernel maps: for every tap the pairs (input row, output row) with
// in_site == stride * out_site + offset, sorted by output row within the tap.
//
// Sorted sites: taps that differ on the last axis only are found in one walk of occupied columns of 64
// beside those of the outputs, since moving all sites by one displacement keeps their order; no hash.
// Other sites: one probe of the hash index a (tap, output), prefetched.
// A submanifold map is symmetric: with sorted sites the second half of the taps mirrors the first.
// Blocks of outputs are joined in order, so the result does not depend on the threads.
// Limit: a walk reads 20 bytes a column of the inputs and of the outputs, in order, and writes the pairs.
#include "cpu/kernels.h"
#include "cpu/sites.h"

namespace perception {
namespace {

constexpr int64_t kBlock = 1024;
constexpr int64_t kAhead = 12;  // probes in flight
constexpr int64_t kScratch = 1 << 21;  // pairs a thread has room for, unless one column has more

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

// The columns of sorted sites; see Columns.
class ColumnList {
 public:
  // A column's key is the packed site without its last 6 bits.
  ColumnList(const Packing& packing, const int32_t* sites, int64_t rows, const int64_t* stride) {
    constexpr int64_t kRows = 1 << 14;
    const int64_t blocks = (rows + kRows - 1) / kRows;
    const int columns = packing.columns;
    const auto key = [&](int64_t i) {
      uint64_t k = 0;
      for (int c = 0; c < columns; ++c) {
        const int64_t v = sites[i * columns + c];
        k |= static_cast<uint64_t>((c && stride ? v * stride[c - 1] : v) - packing.lo[c]) << packing.shift[c];
      }
      return k;
    };
    std::vector<int64_t> first(blocks + 1, 0);  // column of each block of rows
    std::vector<uint64_t> keys(rows);
    parallel_blocks(rows, kRows, [&](int64_t b, int64_t begin, int64_t end) {
      uint64_t before = begin ? key(begin - 1) >> 6 : ~uint64_t{0};
      int64_t count = 0;
      for (int64_t i = begin; i < end; ++i) {
        keys[i] = key(i);
        count += keys[i] >> 6 != before;
        before = keys[i] >> 6;
      }
      first[b + 1] = count;
    });
    for (int64_t b = 0; b < blocks; ++b) first[b + 1] += first[b];
    count_ = first[blocks];
    keys_.resize(count_ + 1);
    masks_.resize(count_);
    starts_.resize(count_ + 1);
    keys_[count_] = ~uint64_t{0};
    starts_[count_] = static_cast<int32_t>(rows);
    parallel_blocks(rows, kRows, [&](int64_t b, int64_t begin, int64_t end) {
      int64_t at = first[b] - 1;
      // A column that began in the block before is that block's.
      int64_t i = begin;
      while (begin && i < end && keys[i] >> 6 == keys[begin - 1] >> 6) ++i;
      while (i < end) {
        const uint64_t column = keys[i] >> 6;
        starts_[++at] = static_cast<int32_t>(i);
        keys_[at] = column;
        uint64_t mask = 0;
        for (; i < rows && keys[i] >> 6 == column; ++i) mask |= uint64_t{1} << (keys[i] & 63);
        masks_[at] = mask;
      }
    });
  }
  int64_t size() const { return count_; }
  Columns view() const { return {keys_.data(), masks_.data(), starts_.data()}; }
  int64_t rows(int64_t begin, int64_t end) const { return starts_[end] - starts_[begin]; }

 private:
  int64_t count_ = 0;
  std::vector<uint64_t> keys_, masks_;
  std::vector<int32_t> starts_;
};

// Bounds that hold the inputs, and the outputs moved by any tap, with a free column of 64 at both ends of
// the last axis, so that no moved key runs into another axis. Empty where that is too wide to pack.
std::optional<Packing> packing_for(const int32_t* inputs, int64_t num_in, const int32_t* outputs, int64_t num_out,
                                   bool same, const int32_t* offsets, int64_t taps, int columns, const int64_t* stride) {
  Bounds all = site_bounds(inputs, num_in, columns);
  const Bounds out = same ? all : site_bounds(outputs, num_out, columns);
  for (int c = 0; c < columns; ++c) {
    int64_t low = 0, high = 0;
    for (int64_t k = 0; c && k < taps; ++k) {
      low = std::min<int64_t>(low, offsets[k * (columns - 1) + c - 1]);
      high = std::max<int64_t>(high, offsets[k * (columns - 1) + c - 1]);
    }
    const int64_t step = c ? stride[c - 1] : 1, free = c == columns - 1 ? 64 : 0;
    all.lo[c] = std::min(all.lo[c], out.lo[c] * step + low) - free;
    all.hi[c] = std::max(all.hi[c], out.hi[c] * step + high) + free;
    if (all.hi[c] - all.lo[c] >= int64_t{1} << 32) return std::nullopt;
  }
  const Packing packing(all, columns);
  if (!packing.exact()) return std::nullopt;
  return packing;
}

// Taps first .. last, equal but for a rising displacement on the last axis, of which they cover little.
struct Run {
  int64_t first;
  int64_t shift;
  int span;
  std::vector<int32_t> block, bit;  // one a tap; see TapRun
};

std::vector<Run> runs_of(const Packing& packing, const int32_t* offsets, int64_t taps, int64_t dim) {
  std::vector<Run> runs;
  for (int64_t k = 0; k < taps; ++k) {
    const int32_t* now = offsets + k * dim;
    const int32_t* start = runs.empty() ? nullptr : offsets + runs.back().first * dim;
    const int64_t block = now[dim - 1] >> 6, from = start ? start[dim - 1] >> 6 : 0;
    const bool goes_on = start && std::equal(now - dim, now - 1, now) && now[-1] < now[dim - 1] &&
                         block - from < TapRun::kMaxSpan;
    if (!goes_on) {
      int64_t shift = block;
      for (int64_t c = 0; c + 1 < dim; ++c) shift += static_cast<int64_t>(now[c]) * (int64_t{1} << (packing.shift[c + 1] - 6));
      runs.push_back({k, shift, 0, {}, {}});
    }
    Run& run = runs.back();
    run.block.push_back(goes_on ? static_cast<int32_t>(block - from) : 0);
    run.bit.push_back(now[dim - 1] & 63);
    run.span = run.block.back() + 1;
  }
  return runs;
}

Block walk_block(const ColumnList& inputs, const ColumnList& outputs, int64_t begin, int64_t end,
                 const std::vector<TapRun>& runs, int64_t taps) {
  const int64_t rows = outputs.rows(begin, end);
  Block block;
  block.counts.resize(taps);
  static thread_local Scratch<int32_t> in_memory, out_memory;
  int32_t* in = in_memory.get(taps * rows);
  int32_t* out = out_memory.get(taps * rows);
  map_kernels().walk(inputs.view(), inputs.size(), outputs.view(), begin, end, runs.data(), static_cast<int>(runs.size()),
                     rows, in, out, block.counts.data());
  int64_t pairs = 0;
  for (const int64_t count : block.counts) pairs += count;
  block.in.reserve(pairs);
  block.out.reserve(pairs);
  for (int64_t t = 0; t < taps; ++t) {
    block.in.insert(block.in.end(), in + t * rows, in + t * rows + block.counts[t]);
    block.out.insert(block.out.end(), out + t * rows, out + t * rows + block.counts[t]);
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
  check_strides(stride, "kernel_map");
  const Tensor in_c = torch::stable::contiguous(in_sites), out_c = torch::stable::contiguous(out_sites);
  const Tensor offsets_c = torch::stable::contiguous(offsets);
  const int32_t* inputs = in_c.const_data_ptr<int32_t>();
  const int32_t* outputs = out_c.const_data_ptr<int32_t>();
  const int32_t* taps_at = offsets_c.const_data_ptr<int32_t>();

  // Two views of one memory may begin at the same site and differ in length.
  const bool same_sites = inputs == outputs && in_c.size(0) == rows;
  STD_TORCH_CHECK(!symmetric || in_c.size(0) == rows, "kernel_map: a symmetric map is from sites to themselves");

  const int64_t probed = symmetric ? taps / 2 : taps;
  std::vector<Block> blocks;
  const int columns = static_cast<int>(dim) + 1;
  std::optional<Packing> packing;
  if (!given_index) packing = packing_for(inputs, in_c.size(0), outputs, rows, same_sites, taps_at, taps, columns, stride.data());
  if (packing) {
    const ColumnList in_columns(*packing, inputs, in_c.size(0), nullptr);
    const bool same = same_sites && std::all_of(stride.begin(), stride.end(), [](int64_t s) { return s == 1; });
    std::optional<ColumnList> moved;
    if (!same) moved.emplace(*packing, outputs, rows, stride.data());
    const ColumnList& out_columns = same ? in_columns : *moved;
    const std::vector<Run> runs = runs_of(*packing, taps_at, probed, dim);
    std::vector<TapRun> views;
    for (const Run& run : runs)
      views.push_back({run.shift, static_cast<int>(run.bit.size()), run.span, run.block.data(), run.bit.data()});
    // A block's pairs lie in scratch first, which very many taps would make very large.
    const int64_t block = std::clamp<int64_t>(kScratch / (64 * std::max<int64_t>(1, probed)), 1, kMapBlock);
    blocks.resize((out_columns.size() + block - 1) / block);
    parallel_blocks(out_columns.size(), block, [&](int64_t b, int64_t begin, int64_t end) {
      blocks[b] = walk_block(in_columns, out_columns, begin, end, views, probed);
    });
  } else {
    const Tensor index = given_index ? *given_index : build_index(in_c).table;
    const IndexView view(index, in_c, "kernel_map");
    blocks.resize((rows + kBlock - 1) / kBlock);
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
      const int64_t middle = ptr[taps / 2], count = static_cast<int64_t>(blocks.size());
      for (int64_t i = rows * b / count; i < rows * (b + 1) / count; ++i)
        in[middle + i] = out[middle + i] = static_cast<int32_t>(i);
    }
  });
  return {in_rows, out_rows, tap_ptr};
}

// The same pairs with input and output exchanged, sorted by the new output within each tap.
Map transpose_map(const Tensor& given_in, const Tensor& given_out, const Tensor& given_ptr, int64_t num_in) {
  check_rows(given_in, "transpose_map", "in_rows");
  check_rows(given_out, "transpose_map", "out_rows");
  check_ptr(given_ptr, "transpose_map");
  const Tensor in_rows = torch::stable::contiguous(given_in), out_rows = torch::stable::contiguous(given_out),
               tap_ptr = torch::stable::contiguous(given_ptr);
  check_parts(tap_ptr, in_rows.size(0), "transpose_map");
  STD_TORCH_CHECK(in_rows.size(0) == out_rows.size(0), "transpose_map: in_rows and out_rows differ in length");
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
