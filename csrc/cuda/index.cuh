// The index of a set of sites on CUDA: an int64 tensor with a header and the slots of an open-addressed
// table with linear probing, read by lookups and by kernel maps.
//
// Sites become keys as on the CPU (cpu/sites.h): every column relative to its smallest value, with as
// many bits as its range needs, the last axis in the lowest bits. Where these are 63 bits or fewer and
// the sites are in strict order, 32 consecutive keys are one group: their rows are consecutive, so
// that a slot (group, first row, members as a bit set) answers for a whole run of taps along the last
// axis. Sites in another order: a slot is (key, row), four consecutive keys to 64 bytes. More than 63
// bits: a slot is (upper half of a hash, row), and the site's row itself is compared.
//
// Which of these holds is found on the device: the header keeps the extremes of every column and
// whether the order is strict, and each reader derives the packing from them.
#pragma once

#include "cuda/cuda.cuh"

namespace perception {

struct alignas(16) Slot {
  unsigned long long key, value;
};

constexpr int64_t kIndexHeader = 32;  // words of 8 bytes, read as 64 words of 4:
constexpr int kHeaderUnordered = 16;  // 2c: least (v ^ 2^31); 2c + 1: least ~(v ^ 2^31); 16: 0 if not in strict order
constexpr unsigned long long kEmptySlot = ~0ull;

// The index of contiguous sites, and info as build_index returns it.
std::tuple<Tensor, Tensor> make_index(const Tensor& sites);

// log2 of the number of slots.
inline int index_log2(const Tensor& index, const char* op) {
  STD_TORCH_CHECK(index.dim() == 1 && index.scalar_type() == ScalarType::Long, op, ": index must be int64 [W]");
  const int64_t slots = (index.size(0) - kIndexHeader) / 2;
  int log2 = 4;
  while (log2 < 40 && (int64_t{1} << log2) < slots) ++log2;
  STD_TORCH_CHECK(index.size(0) == kIndexHeader + (int64_t{2} << log2), op,
                  ": index was not made by build_index on CUDA");
  return log2;
}

// Calls f with the number of columns as a compile-time constant.
template <class F>
void dispatch_columns(int64_t columns, const F& f) {
  switch (columns) {
    case 2: return f(std::integral_constant<int, 2>{});
    case 3: return f(std::integral_constant<int, 3>{});
    case 4: return f(std::integral_constant<int, 4>{});
    case 5: return f(std::integral_constant<int, 5>{});
    case 6: return f(std::integral_constant<int, 6>{});
    case 7: return f(std::integral_constant<int, 7>{});
    default: return f(std::integral_constant<int, 8>{});
  }
}

__device__ inline unsigned long long scramble(unsigned long long h) {
  h *= 0x9e3779b97f4a7c15ull;
  h ^= h >> 32;
  return h * 0x9e3779b97f4a7c15ull;
}

// Whether 0 <= v <= range.
__device__ inline bool within(int64_t v, uint32_t range) { return static_cast<uint64_t>(v) <= range; }

template <int C>
struct IndexView {
  enum Kind { kGroups, kKeys, kRows };

  const Slot* slots;
  const int32_t* sites;
  int log2;
  Kind kind;
  bool in_order;
  int32_t lo[C];
  uint32_t range[C];
  int shift[C];

  __device__ IndexView(const int64_t* index, int log2_, const int32_t* sites_)
      : slots(reinterpret_cast<const Slot*>(index + kIndexHeader)), sites(sites_), log2(log2_) {
    const uint32_t* header = reinterpret_cast<const uint32_t*>(index);
    int bits = 0;
#pragma unroll
    for (int c = C - 1; c >= 0; --c) {
      const uint32_t low = header[2 * c], high = ~header[2 * c + 1];
      const bool none = low > high;  // of no sites at all
      lo[c] = none ? 0 : static_cast<int32_t>(low ^ 0x80000000u);
      range[c] = none ? 0 : high - low;
      shift[c] = bits < 63 ? bits : 63;
      bits += 32 - __clz(static_cast<int>(range[c]));
    }
    in_order = header[kHeaderUnordered] != 0;
    kind = bits > 63 ? kRows : in_order ? kGroups : kKeys;
  }

  __device__ unsigned long long mask() const { return (1ull << log2) - 1; }

  // -- where the search begins ---------------------------------------------------------------------

  __device__ unsigned long long home_of_group(unsigned long long group) const { return scramble(group) >> (64 - log2); }
  __device__ unsigned long long home_of_key(unsigned long long key) const {
    return (scramble(key >> 2) >> (66 - log2)) << 2 | (key & 3);
  }
  __device__ static unsigned long long hash(const int32_t (&site)[C]) {
    unsigned long long h = 0x9e3779b97f4a7c15ull;
#pragma unroll
    for (int c = 0; c < C; ++c) {  // the finalizer of MurmurHash3 (Appleby, public domain)
      h ^= static_cast<uint32_t>(site[c]);
      h ^= h >> 33;
      h *= 0xff51afd7ed558ccdull;
      h ^= h >> 33;
      h *= 0xc4ceb9fe1a85ec53ull;
      h = (h ^ (h >> 33)) + 0x9e3779b97f4a7c15ull;
    }
    return h;
  }
  // 31 bits above a row, so that it is never kEmptySlot.
  __device__ static unsigned long long tagged(unsigned long long hash, int64_t row) {
    return (hash >> 33) << 32 | static_cast<unsigned long long>(row);
  }
  __device__ static bool same_tag(unsigned long long slot, unsigned long long hash) { return slot >> 32 == hash >> 33; }

  __device__ bool is_row(unsigned long long slot, const int32_t (&site)[C]) const {
    const int32_t* other = sites + static_cast<int64_t>(slot & 0xffffffffu) * C;
    bool same = true;
#pragma unroll
    for (int c = 0; c < C; ++c) same &= other[c] == site[c];
    return same;
  }

  // -- the key of a site inside the extremes -------------------------------------------------------

  __device__ unsigned long long key(const int32_t (&site)[C]) const {
    unsigned long long k = 0;
#pragma unroll
    for (int c = 0; c < C; ++c)
      k |= static_cast<unsigned long long>(static_cast<uint32_t>(site[c]) - static_cast<uint32_t>(lo[c])) << shift[c];
    return k;
  }

  // -- searches ------------------------------------------------------------------------------------

  __device__ Slot load(unsigned long long s) const {
    const ulonglong2 words = __ldg(reinterpret_cast<const ulonglong2*>(slots + (s & mask())));
    return {words.x, words.y};
  }

  // First row and, in the lower half, the complement of the members.
  __device__ unsigned long long find_group(unsigned long long group) const {
    const unsigned long long home = home_of_group(group);
    return follow(load(home), home, group);
  }
  __device__ void find_groups(unsigned long long first, unsigned long long last, unsigned long long& first_found,
                              unsigned long long& last_found) const {
    const unsigned long long first_home = home_of_group(first), last_home = home_of_group(last);
    const Slot first_slot = load(first_home);
    const Slot last_slot = last == first ? first_slot : load(last_home);
    first_found = follow(first_slot, first_home, first);
    last_found = last == first ? first_found : follow(last_slot, last_home, last);
  }
  __device__ unsigned long long follow(Slot slot, unsigned long long s, unsigned long long group) const {
    while (slot.key != group && slot.key != kEmptySlot) slot = load(++s);
    return slot.value;  // an empty slot has no members
  }
  __device__ static int32_t row_in_group(unsigned long long found, unsigned long long key) {
    const uint32_t members = ~static_cast<uint32_t>(found), member = 1u << (key & 31);
    return members & member ? static_cast<int32_t>(found >> 32) + __popc(members & (member - 1)) : -1;
  }

  __device__ int32_t find_key(unsigned long long key) const {
    for (unsigned long long s = home_of_key(key);; ++s) {
      const Slot slot = load(s);
      if (slot.key == key || slot.key == kEmptySlot) return static_cast<int32_t>(slot.value);  // empty: -1
    }
  }

  __device__ int32_t find_row(const int32_t (&site)[C]) const {
    const unsigned long long h = hash(site);
    for (unsigned long long s = h;; ++s) {
      const unsigned long long slot = load(s).key;
      if (slot == kEmptySlot) return -1;
      if (same_tag(slot, h) && is_row(slot, site)) return static_cast<int32_t>(slot & 0xffffffffu);
    }
  }

  __device__ int32_t find(const int32_t (&site)[C]) const {
#pragma unroll
    for (int c = 0; c < C; ++c)
      if (!within(static_cast<int64_t>(site[c]) - lo[c], range[c])) return -1;
    if (kind == kRows) return find_row(site);
    const unsigned long long k = key(site);
    return kind == kGroups ? row_in_group(find_group(k >> 5), k) : find_key(k);
  }
};

}  // namespace perception
