// Kernel maps of sorted sites, by columns of 64 sites along the last axis.
#pragma once

#include <cstdint>

namespace perception {

// Sorted sites as occupied columns of 64 along the last axis: key (all other axes, and which 64), a mask
// of the sites that are there, and the row of the first. Keys rise; behind the last stands a largest
// key, and behind the last start the number of rows.
struct Columns {
  const uint64_t* keys;
  const uint64_t* masks;
  const int32_t* starts;
};

// Taps whose displacements differ on the last axis only: a tap moves a column's key by shift + block[t]
// and its mask by bit[t] places, 0 .. 63; block[t] is 0 .. span - 1.
struct TapRun {
  static constexpr int kMaxSpan = 4;
  int64_t shift;
  int taps, span;
  const int32_t* block;
  const int32_t* bit;
};

constexpr int64_t kMapBlock = 512;  // output columns a call

struct MapKernels {
  // Pairs of the output columns [begin, end), at most kMapBlock: tap t's (taps counted over all runs) to
  // in[t * room ..) and out[t * room ..), room for all output rows of theirs,, in the order of output rows, and how many to counts[t].
  void (*walk)(const Columns& inputs, int64_t input_columns, const Columns& outputs, int64_t begin, int64_t end,
               const TapRun* runs, int num_runs, int64_t room, int32_t* in, int32_t* out, int64_t* counts);
};

const MapKernels& map_kernels_portable();
const MapKernels& map_kernels_avx2();

}  // namespace perception
