// strided_sites: floor(site / stride), each once and in lexicographic order. Keys of the divided sites
// are sorted, without the rows that they came from, and become sites again; a key that the row before
// has too, as neighbours on the last axis often do, is dropped first.
// Limit: each radix pass streams 8 bytes a key in and 8 out.
#include "cpu/sites.h"

#include <utility>

namespace perception {
namespace {

constexpr int64_t kBlock = 1 << 13;
constexpr int kDigit = 11;
constexpr int64_t kBuckets = int64_t{1} << kDigit;

int64_t floor_divide(int64_t v, int64_t by) { return v >= 0 ? v / by : ~(~v / by); }

// Division of a column, whose stride is often a power of two.
class Divider {
 public:
  explicit Divider(int64_t by) : by_(std::min(by, int64_t{1} << 31)) {  // further: 0 or -1, as here
    while ((int64_t{1} << shift_) < by_) ++shift_;
    exact_ = int64_t{1} << shift_ == by_;
  }
  int64_t of(int64_t v) const { return floor_divide(v, by_); }
  // to[i] = to[i] << bits | (from[i * columns] / stride - lo)
  void append(const int32_t* from, int64_t rows, int columns, int64_t lo, int bits, uint64_t* to) const {
    const auto all = [&](const auto& divide) {
      for (int64_t i = 0; i < rows; ++i) to[i] = to[i] << bits | static_cast<uint64_t>(divide(from[i * columns]) - lo);
    };
    if (exact_) return all([&](int64_t v) { return v >> shift_; });
    const uint32_t by = static_cast<uint32_t>(by_);
    all([&](int32_t v) {
      const uint32_t flip = v < 0 ? ~0u : 0u;
      return int64_t{static_cast<int32_t>((static_cast<uint32_t>(v) ^ flip) / by ^ flip)};
    });
  }

 private:
  int64_t by_;
  int shift_ = 0;
  bool exact_;
};

void sort_keys(std::vector<uint64_t>& keys, int bits) {
  if (std::is_sorted(keys.begin(), keys.end())) return;
  const int64_t rows = static_cast<int64_t>(keys.size());
  const int64_t chunks = std::max<int64_t>(1, std::min<int64_t>(torch::stable::get_num_threads(), rows >> 14));
  const int64_t step = (rows + chunks - 1) / chunks;
  std::vector<uint64_t> other(rows);
  std::vector<int64_t> counts(chunks * kBuckets);
  for (int low = 0; low < bits; low += kDigit) {
    parallel_blocks(rows, step, [&](int64_t chunk, int64_t begin, int64_t end) {
      int64_t* count = counts.data() + chunk * kBuckets;
      std::fill(count, count + kBuckets, 0);
      for (int64_t i = begin; i < end; ++i) ++count[(keys[i] >> low) & (kBuckets - 1)];
    });
    int64_t total = 0;
    for (int64_t d = 0; d < kBuckets; ++d)
      for (int64_t chunk = 0; chunk < chunks; ++chunk) total += std::exchange(counts[chunk * kBuckets + d], total);
    parallel_blocks(rows, step, [&](int64_t chunk, int64_t begin, int64_t end) {
      int64_t* at = counts.data() + chunk * kBuckets;
      for (int64_t i = begin; i < end; ++i) other[at[(keys[i] >> low) & (kBuckets - 1)]++] = keys[i];
    });
    keys.swap(other);
  }
}

// The keys that differ from the one before.
std::vector<uint64_t> without_repeats(const std::vector<uint64_t>& keys) {
  const int64_t rows = static_cast<int64_t>(keys.size());
  std::vector<int64_t> starts((rows + kBlock - 1) / kBlock + 1, 0);
  const auto differs = [&](int64_t i) { return i == 0 || keys[i] != keys[i - 1]; };
  parallel_blocks(rows, kBlock, [&](int64_t b, int64_t begin, int64_t end) {
    int64_t n = 0;
    for (int64_t i = begin; i < end; ++i) n += differs(i);
    starts[b + 1] = n;
  });
  for (size_t b = 1; b < starts.size(); ++b) starts[b] += starts[b - 1];
  std::vector<uint64_t> out(starts.back());
  parallel_blocks(rows, kBlock, [&](int64_t b, int64_t begin, int64_t end) {
    int64_t at = starts[b];
    for (int64_t i = begin; i < end; ++i)
      if (differs(i)) out[at++] = keys[i];
  });
  return out;
}

Tensor strided_sites(const Tensor& given, std::vector<int64_t> stride) {
  check_sites(given, "strided_sites", "sites");
  const int64_t rows = given.size(0);
  const int columns = static_cast<int>(given.size(1));
  STD_TORCH_CHECK(static_cast<int>(stride.size()) == columns - 1, "strided_sites: stride must have one step an axis");
  for (const int64_t step : stride) STD_TORCH_CHECK(step > 0, "strided_sites: the stride must be positive");
  const Tensor contiguous = torch::stable::contiguous(given);
  const int32_t* sites = contiguous.const_data_ptr<int32_t>();
  std::vector<Divider> dividers{Divider(1)};
  for (const int64_t step : stride) dividers.emplace_back(step);
  Bounds bounds = site_bounds(sites, rows, columns);
  if (rows > 0)
    for (int c = 0; c < columns; ++c) {
      bounds.lo[c] = dividers[c].of(bounds.lo[c]);
      bounds.hi[c] = dividers[c].of(bounds.hi[c]);
    }
  const Packing packing(bounds, columns);
  if (!packing.exact()) {
    Tensor divided = empty({rows, columns}, ScalarType::Int);
    int32_t* to = divided.mutable_data_ptr<int32_t>();
    parallel_blocks(rows, kBlock, [&](int64_t, int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        for (int c = 0; c < columns; ++c)
          to[i * columns + c] = static_cast<int32_t>(dividers[c].of(sites[i * columns + c]));
    });
    return unique(to, rows, columns).sites;
  }
  std::vector<uint64_t> keys(rows);
  parallel_blocks(rows, kBlock, [&](int64_t, int64_t begin, int64_t end) {
    for (int c = 0; c < columns; ++c)
      dividers[c].append(sites + begin * columns + c, end - begin, columns, packing.lo[c], packing.width[c],
                         keys.data() + begin);
  });
  keys = without_repeats(keys);
  sort_keys(keys, packing.bits);
  keys = without_repeats(keys);
  const int64_t found = static_cast<int64_t>(keys.size());
  Tensor out = empty({found, columns}, ScalarType::Int);
  int32_t* to = out.mutable_data_ptr<int32_t>();
  parallel_blocks(found, kBlock, [&](int64_t, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      for (int c = 0; c < columns; ++c) {
        const uint64_t place = keys[i] >> packing.shift[c] & ((uint64_t{1} << packing.width[c]) - 1);
        to[i * columns + c] = static_cast<int32_t>(packing.lo[c] + static_cast<int64_t>(place));
      }
  });
  return out;
}

STABLE_TORCH_LIBRARY_IMPL(perception, CPU, m) { m.impl("strided_sites", TORCH_BOX(&strided_sites)); }

}  // namespace
}  // namespace perception
