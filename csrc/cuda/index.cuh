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
// Which of these holds is found on the device and stands in the header. A search for a group or a hash
// looks at slot after slot; a group's search begins at an even one, two slots being one sector of memory.
#pragma once

#include "cuda/cuda.cuh"

namespace perception {

struct alignas(16) Slot {
  unsigned long long key, value;
};

// Words of 8 bytes: 32 with the packing, as IndexView reads it, then what blocks tell each other while
// the index is made. Slots begin at a multiple of 64 bytes.
constexpr int kIndexBlocks = 512;
constexpr int64_t kIndexHeader = 32 + (2 * kMaxColumns + 1) * kIndexBlocks / 2;
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

__device__ inline uint32_t scramble(unsigned long long x) {
  uint32_t h = static_cast<uint32_t>(x) * 0x9e3779b1u + static_cast<uint32_t>(x >> 32) * 0x85ebca77u;
  h ^= h >> 15;
  return h * 0x2c1b3c6du;
}

// Whether 0 <= v <= range.
__device__ inline bool within(int64_t v, uint32_t range) { return static_cast<uint64_t>(v) <= range; }

template <int C>
struct IndexView {
  enum Kind { kGroups, kKeys, kRows };
  // The header, in words of 4 bytes: lo, range and shift of each column, the kind, whether in strict order.
  enum { kLo = 0, kRange = kMaxColumns, kShift = 2 * kMaxColumns, kKind = 3 * kMaxColumns, kInOrder };

  const Slot* slots;
  const int32_t* sites;
  int log2;
  Kind kind;
  int32_t lo[C];
  uint32_t range[C];
  int shift[C];

  __device__ IndexView(const int64_t* index, int log2_, const int32_t* sites_)
      : IndexView(index, reinterpret_cast<const uint32_t*>(index), log2_, sites_) {}
  __device__ IndexView(const int64_t* index, const uint32_t* header, int log2_, const int32_t* sites_)
      : slots(reinterpret_cast<const Slot*>(index + kIndexHeader)), sites(sites_), log2(log2_) {
    const uint4* const quads = reinterpret_cast<const uint4*>(header);
#pragma unroll
    for (int first = 0; first < C; first += 4) {
      const uint4 a = quads[(kLo + first) / 4], b = quads[(kRange + first) / 4], c = quads[(kShift + first) / 4];
      const uint32_t los[4] = {a.x, a.y, a.z, a.w}, ranges[4] = {b.x, b.y, b.z, b.w}, shifts[4] = {c.x, c.y, c.z, c.w};
#pragma unroll
      for (int i = 0; i < 4 && first + i < C; ++i) {
        lo[first + i] = static_cast<int32_t>(los[i]);
        range[first + i] = ranges[i];
        shift[first + i] = static_cast<int>(shifts[i]);
      }
    }
    kind = static_cast<Kind>(header[kKind]);
  }

  // Of the least v ^ 2^31 (2c) and the least ~(v ^ 2^31) (2c + 1) of each column c, and 0 at 2C if the
  // sites are not in strict order.
  __device__ static void write_header(const uint32_t* least, uint32_t* header) {
    int bits = 0;
    for (int c = C - 1; c >= 0; --c) {
      const uint32_t low = least[2 * c], high = ~least[2 * c + 1];
      const bool none = low > high;  // of no sites at all
      const uint32_t range = none ? 0 : high - low;
      header[kLo + c] = none ? 0 : low ^ 0x80000000u;
      header[kRange + c] = range;
      header[kShift + c] = bits < 63 ? bits : 63;
      bits += 32 - __clz(static_cast<int>(range));
    }
    const bool in_order = least[2 * C] != 0;
    header[kKind] = bits > 63 ? kRows : in_order ? kGroups : kKeys;
    header[kInOrder] = in_order;
  }

  __device__ unsigned long long mask() const { return (1ull << log2) - 1; }

  // -- where the search begins ---------------------------------------------------------------------

  __device__ unsigned long long home_of_group(unsigned long long group) const {
    return static_cast<unsigned long long>(scramble(group) >> (33 - log2)) << 1;
  }
  __device__ unsigned long long home_of_key(unsigned long long key) const {
    return static_cast<unsigned long long>(scramble(key >> 2) >> (34 - log2)) << 2 | (key & 3);
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

  __device__ Slot load_inside(unsigned long long s) const {  // s is a slot's number
    const ulonglong2 words = __ldg(reinterpret_cast<const ulonglong2*>(slots) + static_cast<uint32_t>(s));
    return {words.x, words.y};
  }
  // First row and, in the lower half, the complement of the members; from the slot where the search begins.
  __device__ unsigned long long follow(Slot slot, unsigned long long group) const {
    for (int behind = 1; slot.key != group && slot.key != kEmptySlot; ++behind)
      slot = load(home_of_group(group) + behind);
    return slot.value;  // an empty slot has no members
  }
  __device__ unsigned long long find_group(unsigned long long group) const {
    return follow(load_inside(home_of_group(group)), group);
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
