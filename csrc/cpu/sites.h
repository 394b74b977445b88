// Sites as keys. A site (batch, x, y, ...) becomes one unsigned number whose order is the
// lexicographic order of sites: every column is taken relative to its smallest value and gets as
// many bits as its range needs. When all columns fit into 63 bits the number is the site, exactly;
// otherwise several words are used for sorting, and the hash index compares whole rows.
#pragma once

#include "cpu/parallel.h"

#include <array>

namespace perception {

// Site times stride plus offset then fits 64 bits.
inline void check_strides(const std::vector<int64_t>& stride, const char* op) {
  for (const int64_t s : stride)
    STD_TORCH_CHECK(s >= 1 && s <= std::numeric_limits<int32_t>::max(), op, ": a stride of ", s, " is not in 1 .. 2^31 - 1");
}

struct Bounds {
  std::array<int64_t, kMaxColumns> lo, hi;
};

inline Bounds site_bounds(const int32_t* sites, int64_t rows, int columns) {
  constexpr int64_t kBlock = 1 << 14;
  const int64_t blocks = (rows + kBlock - 1) / kBlock;
  std::vector<Bounds> partial(blocks);
  parallel_blocks(rows, kBlock, [&](int64_t b, int64_t begin, int64_t end) {
    int32_t lo[kMaxColumns], hi[kMaxColumns];
    for (int c = 0; c < columns; ++c) lo[c] = hi[c] = sites[begin * columns + c];
    for (int64_t i = begin + 1; i < end; ++i)
      for (int c = 0; c < columns; ++c) {
        const int32_t v = sites[i * columns + c];
        lo[c] = std::min(lo[c], v);
        hi[c] = std::max(hi[c], v);
      }
    for (int c = 0; c < columns; ++c) {
      partial[b].lo[c] = lo[c];
      partial[b].hi[c] = hi[c];
    }
  });
  Bounds all;
  all.lo.fill(0);
  all.hi.fill(-1);
  for (int64_t b = 0; b < blocks; ++b)
    for (int c = 0; c < columns; ++c) {
      all.lo[c] = b ? std::min(all.lo[c], partial[b].lo[c]) : partial[b].lo[c];
      all.hi[c] = b ? std::max(all.hi[c], partial[b].hi[c]) : partial[b].hi[c];
    }
  return all;
}

inline int bits_for(int64_t range) {
  int bits = 0;
  while (bits < 33 && (range >> bits) > 0) ++bits;
  return bits;
}

struct Packing {
  int columns = 0;
  int bits = 0;  // of the whole site
  std::array<int64_t, kMaxColumns> lo{}, range{};
  std::array<int, kMaxColumns> width{}, shift{};

  Packing() = default;
  Packing(const Bounds& bounds, int columns_) : columns(columns_) {
    for (int c = columns - 1; c >= 0; --c) {
      lo[c] = bounds.lo[c];
      range[c] = bounds.hi[c] - bounds.lo[c];
      width[c] = bits_for(range[c]);
      shift[c] = bits;
      bits += width[c];
    }
  }
  bool exact() const { return bits <= 63; }

  // Only for sites inside the bounds, and only when exact().
  uint64_t key(const int32_t* site) const {
    uint64_t k = 0;
    for (int c = 0; c < columns; ++c) k |= static_cast<uint64_t>(site[c] - lo[c]) << shift[c];
    return k;
  }
};

inline uint64_t mix(uint64_t h) {  // the finalizer of MurmurHash3 (Appleby, public domain)
  h ^= h >> 33;
  h *= 0xff51afd7ed558ccdULL;
  h ^= h >> 33;
  h *= 0xc4ceb9fe1a85ec53ULL;
  return h ^ (h >> 33);
}

inline uint64_t hash_site(const int32_t* site, int columns) {
  uint64_t h = 0x9e3779b97f4a7c15ULL;
  for (int c = 0; c < columns; ++c) h = mix(h ^ static_cast<uint32_t>(site[c])) + 0x9e3779b97f4a7c15ULL;
  return h;
}

// A view of the int64 tensor that build_index makes: a header, then the slots of an open-addressed
// table with linear probing. Exact keys: a slot is (key, row). Otherwise a slot is
// (upper half of the hash, row) in one word and the site's row itself is compared.
class IndexView {
 public:
  static constexpr int64_t kHeader = 32;
  static constexpr int64_t kEmpty = -1;

  IndexView(const Tensor& index, const Tensor& sites, const char* op) : sites_(sites.const_data_ptr<int32_t>()) {
    STD_TORCH_CHECK(index.dim() == 1 && index.scalar_type() == ScalarType::Long && index.size(0) > kHeader, op,
                    ": the index is not one that build_index has filled");
    const int64_t* data = index.const_data_ptr<int64_t>();
    slots_ = data + kHeader;
    exact_ = data[0] != 0;
    capacity_ = data[1];
    packing_.columns = static_cast<int>(data[2]);
    for (int c = 0; c < packing_.columns; ++c) {
      packing_.lo[c] = data[4 + c];
      packing_.range[c] = data[12 + c];
      packing_.shift[c] = static_cast<int>(data[20 + c]);
    }
    bucket_shift_ = bucket_shift(capacity_);
  }

  static int64_t capacity_for(int64_t rows) {
    int64_t capacity = 16;
    while (capacity < rows * 2) capacity *= 2;
    return capacity;
  }
  static int64_t words(bool exact, int64_t capacity) { return kHeader + capacity * (exact ? 2 : 1); }

  bool exact() const { return exact_; }
  const Packing& packing() const { return packing_; }

  // Four neighbours along the last axis share a cache line of slots.
  static int bucket_shift(int64_t capacity) {
    int log2 = 0;
    while ((int64_t{1} << log2) < capacity) ++log2;
    return 64 - (log2 - 2);
  }
  static int64_t home(uint64_t key, int bucket_shift) {
    const uint64_t bucket = ((key >> 2) * 0x9e3779b97f4a7c15ULL) >> bucket_shift;
    return static_cast<int64_t>((bucket << 2) | (key & 3));
  }

  void prefetch(uint64_t key) const { __builtin_prefetch(slots_ + 2 * home(key, bucket_shift_)); }

  int32_t find_key(uint64_t key) const {
    const int64_t wanted = static_cast<int64_t>(key);
    for (int64_t s = home(key, bucket_shift_);; ++s) {
      const int64_t* slot = slots_ + 2 * (s & (capacity_ - 1));
      if (slot[0] == wanted) return static_cast<int32_t>(slot[1]);
      if (slot[0] == kEmpty) return -1;
    }
  }

  // The query is 64 bits wide: a tap may point outside int32, where no site is.
  int32_t find(const int64_t* query) const {
    if (exact_) {
      uint64_t key = 0;
      for (int c = 0; c < packing_.columns; ++c) {
        const int64_t v = query[c] - packing_.lo[c];
        if (v < 0 || v > packing_.range[c]) return -1;
        key |= static_cast<uint64_t>(v) << packing_.shift[c];
      }
      return find_key(key);
    }
    int32_t site[kMaxColumns];
    for (int c = 0; c < packing_.columns; ++c) {
      const int64_t v = query[c] - packing_.lo[c];
      if (v < 0 || v > packing_.range[c]) return -1;
      site[c] = static_cast<int32_t>(query[c]);
    }
    const uint64_t hash = hash_site(site, packing_.columns);
    for (uint64_t s = hash;; ++s) {
      const int64_t slot = slots_[s & static_cast<uint64_t>(capacity_ - 1)];
      if (slot == kEmpty) return -1;
      if (static_cast<uint32_t>(slot >> 32) == tag(hash) && equal(static_cast<int32_t>(slot), site))
        return static_cast<int32_t>(slot);
    }
  }

  // 31 bits, so that a slot is never kEmpty.
  static uint32_t tag(uint64_t hash) { return static_cast<uint32_t>(hash >> 33); }

 private:
  bool equal(int32_t row, const int32_t* site) const {
    const int32_t* other = sites_ + int64_t{row} * packing_.columns;
    for (int c = 0; c < packing_.columns; ++c)
      if (other[c] != site[c]) return false;
    return true;
  }

  const int32_t* sites_;
  const int64_t* slots_;
  bool exact_ = false;
  int64_t capacity_ = 0;
  int bucket_shift_ = 0;
  Packing packing_;
};

struct Index {
  Tensor table;
  int64_t duplicates;  // rows that repeat an earlier site
  bool sorted;         // strict lexicographic order
};
Index build_index(const Tensor& contiguous_sites);

bool strictly_sorted(const int32_t* sites, int64_t rows, int columns);

// Sorts rows by keys of `bits` bits, stably: `order` holds rows and is permuted. Defined in unique.cpp.
void radix_sort(std::vector<uint64_t>& keys, std::vector<int32_t>& order, int bits);

// Sorted unique rows of `sites`; see unique_sites in ops.cpp.
struct Unique {
  Tensor sites, inverse, order, ptr;
};
Unique unique(const int32_t* sites, int64_t rows, int columns);

}  // namespace perception
