// The sparse product on the tensor cores of any sm_80 or later (mma.sync), for every dtype, channel count
// and number of groups.
//
// A block takes one or two granules of output slots and up to 128 output channels. It lists the taps that
// its granules have and walks them in steps of 64 or 128 bytes of input channels (several taps a step when they
// have few channels): input rows are gathered and weights copied to shared memory by asynchronous copies,
// two or three steps ahead, and the row numbers as many again. A warp takes 32 slots and leaves out what none of
// them has. Sums stay in registers in float32; taps are added in order.
//
// Limits: 2 * pairs * Cin * Cout operations, and the gathered rows out of the L2 cache:
// pairs * Cin * ceil(Cout / 128) elements.
#include "cuda/conv_simt.cuh"
#include "cuda/fragment.cuh"

namespace perception {
namespace {

constexpr int kRing = 8;        // tap sets whose row numbers are in shared memory: two for every stage
constexpr int kListed = 1024;   // taps listed at a time
constexpr int kNarrowStep = 64; // bytes of input channels of a step where taps may share one
constexpr uint32_t kTapMask = (1u << 30) - 1;

struct ConvParams {
  const char* x;
  const char* weight;
  const void* bias;
  void* out;
  const int32_t* rows;
  const int32_t* order;
  const int32_t* taps;
  int granules;
  int cin, cout, group_in, group_out, num_taps, words;
  int column_tiles;
  int pack;                   // taps of a step; 1 when a tap has more than half a step of channels
  int shift;                  // log2 of the channels of a tap in a step
  int chunks;                 // steps of a tap
  int x_width, weight_width;  // bytes of a copy where rows are not made of 16 bytes
  bool wide_out;              // the output may be written in 16 bytes
};

template <class Math_, int kRows_, int kColumns_, bool kWide_>
struct ConvTile {
  using Math = Math_;
  using T = typename Math::T;
  static constexpr int kRows = kRows_, kColumns = kColumns_;
  static constexpr bool kWide = kWide_;
  static constexpr int kElement = sizeof(T);
  // Input channels of a step: bytes, numbers, steps of the tensor cores. Steps in shared memory.
  static constexpr int kRowBytes = kWide && kElement == 4 && (kColumns == 64 || kColumns == 96) ? 128 : kNarrowStep;
  static constexpr int kDepth = kRowBytes / kElement;
  static constexpr int kSteps = kDepth / Math::kDepth;
  static constexpr int kStages = kRowBytes == 64 ? 4 : 3;
  static constexpr int kWarps = kRows / (kColumns > 32 ? 16 : 32);
  static constexpr int kThreads = kWarps * 32;
  // Blocks on a multiprocessor: leaves a thread 128 registers, more where three terms need them.
  static constexpr int kResident =
      (Math::kTerms == 3 && kRows == kGranule ? (kColumns == 96 ? 256 : 384) : 512) / kThreads;
  static constexpr int kWarpsAcross = kColumns > 32 ? 2 : 1;
  static constexpr int kWarpRows = kRows / (kWarps / kWarpsAcross);
  static constexpr int kWarpColumns = kColumns / kWarpsAcross;
  static constexpr int kTall = kWarpRows / 16, kAcross = kWarpColumns / 16;
  static constexpr int kStride = padded_row<T>(kColumns);
  static constexpr int kLeft = kRows * kRowBytes;
  static constexpr int kStage = kLeft + kDepth * kStride;
  static constexpr int kPipeline = kStages * kStage;
  static constexpr int kOutStride = kWarpColumns * kElement + 16;
  static_assert((kWide || kSteps == 2) && 2 * kStages <= kRing && kRows % kGranule == 0 && kStage % 16 == 0, "its shape");
  static_assert(kElement == 4 || kWarps * kWarpRows * kOutStride <= kPipeline, "the output fits the pipeline's memory");
  // Where the 16 bytes of a row are kept, so that eight rows can be read at once.
  __device__ static int swizzle(int row, int vector) {
    return row * kRowBytes + ((vector ^ (kRowBytes == 64 ? row >> 1 & 3 : row & 7)) << 4);
  }
  static int shared(int pack) { return kPipeline + kRing * pack * kRows * static_cast<int>(sizeof(int32_t)); }
};

// Lists the taps first * 32 .. that a granule of the tile has: number, and bit 30 + i where granule i has
// it. For one warp.
template <int kGranules>
__device__ __forceinline__ int list_taps(const int32_t* taps, int granules, int words, int first, uint32_t* list) {
  const int lane = threadIdx.x & 31;
  int count = 0;
  for (int w = first; w < min(words, first + kListed / 32); ++w) {
    const uint32_t a = __ldg(taps + w);
    const uint32_t b = kGranules > 1 && granules > 1 ? __ldg(taps + words + w) : 0;
    const uint32_t any = a | b;
    if (any >> lane & 1)
      list[count + __popc(any & ((1u << lane) - 1))] = (w * 32 + lane) | (a >> lane & 1) << 30 | (b >> lane & 1) << 31;
    count += __popc(any);
  }
  return count;
}

// Position in the walk over sets of taps, and over the chunks of their channels.
struct Walk {
  int set = 0, chunk = 0;
  __device__ __forceinline__ void next(int chunks) {
    if (++chunk == chunks) {
      chunk = 0;
      ++set;
    }
  }
};

// What both ways of loading need to know of the block's tile.
template <class Tile>
struct TileSource {
  const char* x;        // the group's first channel
  const char* weight;   // the tile's first column
  const int32_t* rows;  // of the tile's first granule
  int columns;          // that there are from the tile's first on
  int mirror;           // tap k multiplies weight[k], or weight[mirror - k] where this is not negative
  const uint32_t* list;
  char* stages;
  int32_t* ring;

  __device__ __forceinline__ int weight_of(uint32_t entry) const {
    const int tap = entry & kTapMask;
    return mirror < 0 ? tap : mirror - tap;
  }
  // Four row numbers of a tap, or four times none.
  __device__ __forceinline__ void fetch_four(int32_t* to, uint32_t entry, int slot, int num_taps) const {
    const int granule = slot / kGranule;
    const int64_t block = static_cast<int64_t>(granule * num_taps) + (entry & kTapMask);
    if (entry >> (30 + granule) & 1)
      copy_async<16>(to, rows + block * kGranule + slot % kGranule, true);
    else
      *reinterpret_cast<int4*>(to) = make_int4(-1, -1, -1, -1);
  }
};

// Rows made of 16 bytes and taps of more than half a step: one tap a step.
template <class Tile>
struct WideLoader : TileSource<Tile> {
  static constexpr int kAcross = Tile::kRowBytes / 16;          // threads that copy a row of x
  static constexpr int kApart = Tile::kThreads / kAcross;       // rows from one copy of a thread to its next
  static constexpr int kLanes = Tile::kThreads / Tile::kDepth;  // threads that copy a row of the weight
  static constexpr int kVectors = Tile::kColumns * Tile::kElement / 16;
  static_assert(kApart % 8 == 0, "a thread's rows are swizzled alike");

  __device__ __forceinline__ WideLoader(const TileSource<Tile>& source, const ConvParams& p)
      : TileSource<Tile>(source), group_in(p.group_in), num_taps(p.num_taps), x_row(p.cin * Tile::kElement),
        weight_row(p.cout * Tile::kElement) {
    const int row = threadIdx.x / kAcross, vector = threadIdx.x % kAcross;
    left_to = Tile::swizzle(row, vector);
    right_to = Tile::kLeft + threadIdx.x / kLanes * Tile::kStride + threadIdx.x % kLanes * 16;
    this->x += vector * 16;
    this->weight += threadIdx.x % kLanes * 16;
    index = this->ring + row;
  }

  __device__ __forceinline__ void fetch_rows(int set, int) const {
    const int slot = threadIdx.x * 4;
    if (slot < Tile::kRows)
      this->fetch_four(this->ring + (set & (kRing - 1)) * Tile::kRows + slot, this->list[set], slot, num_taps);
  }

  __device__ __forceinline__ void load(const Walk& walk, int, int stage) const {
    char* to = this->stages + stage * Tile::kStage;
    {
      const bool there = walk.chunk * Tile::kDepth + threadIdx.x % kAcross * (16 / Tile::kElement) < group_in;
      const char* from = this->x + walk.chunk * Tile::kRowBytes;
      const int32_t* source = index + (walk.set & (kRing - 1)) * Tile::kRows;
#pragma unroll
      for (int i = 0; i < Tile::kRows / kApart; ++i) {
        const int row = source[i * kApart];
        copy_async<16>(to + left_to + i * (kApart * Tile::kRowBytes), from + static_cast<int64_t>(row) * x_row,
                       there && row >= 0);
      }
    }
    const int c = walk.chunk * Tile::kDepth + threadIdx.x / kLanes;
    const char* from =
        this->weight + static_cast<int64_t>(this->weight_of(this->list[walk.set]) * group_in + c) * weight_row;
#pragma unroll
    for (int i = 0; i < (kVectors + kLanes - 1) / kLanes; ++i) {
      const int vector = threadIdx.x % kLanes + i * kLanes;
      if (kVectors % kLanes == 0 || vector < kVectors)
        copy_async<16>(to + right_to + i * kLanes * 16, from + i * kLanes * 16,
                       c < group_in && vector * (16 / Tile::kElement) < this->columns);
    }
  }

  // Which of the tensor cores' steps have something for the warp, of whose slots each lane names one.
  __device__ __forceinline__ int active(const Walk& walk, int slot) const {
    if (!__any_sync(~0u, this->ring[(walk.set & (kRing - 1)) * Tile::kRows + slot] >= 0)) return 0;
    const int left = group_in - walk.chunk * Tile::kDepth, depth = Tile::Math::kDepth;
    return (1 << min(Tile::kSteps, (left + depth - 1) / depth)) - 1;
  }

  int group_in, num_taps, x_row, weight_row;
  int left_to, right_to;
  const int32_t* index;
};

// Rows of any length, by copies as wide as they allow, and several taps a step where they have few channels.
template <class Tile>
struct NarrowLoader : TileSource<Tile> {
  const ConvParams& p;

  __device__ __forceinline__ NarrowLoader(const TileSource<Tile>& source, const ConvParams& params)
      : TileSource<Tile>(source), p(params) {}

  __device__ __forceinline__ void fetch_rows(int set, int listed) const {
    int32_t* to = this->ring + (set & (kRing - 1)) * p.pack * Tile::kRows;
    for (int e = threadIdx.x * 4; e < p.pack * Tile::kRows; e += Tile::kThreads * 4) {
      const int at = set * p.pack + e / Tile::kRows;
      this->fetch_four(to + e, at < listed ? this->list[at] : 0, e % Tile::kRows, p.num_taps);
    }
  }

  template <int kBytes>
  __device__ __forceinline__ void gather(const Walk& walk, char* to) const {
    constexpr int kAcross = Tile::kRowBytes / kBytes;
    constexpr int kApart = Tile::kThreads / kAcross;
    const int byte = threadIdx.x % kAcross * kBytes;
    const int column = byte / Tile::kElement;
    const int c = walk.chunk * Tile::kDepth + (column & ((1 << p.shift) - 1));
    const int32_t* source = this->ring + ((walk.set & (kRing - 1)) * p.pack + (column >> p.shift)) * Tile::kRows;
    const char* from = this->x + c * Tile::kElement;
#pragma unroll 4
    for (int i = 0; i < Tile::kRows / kApart; ++i) {
      const int at = threadIdx.x / kAcross + i * kApart;
      const int row = source[at];
      copy_async<kBytes>(to + Tile::swizzle(at, byte >> 4) + (byte & 15),
                         from + static_cast<int64_t>(row) * (p.cin * Tile::kElement), row >= 0 && c < p.group_in);
    }
  }

  template <int kBytes>
  __device__ __forceinline__ void load_weight(const Walk& walk, int listed, char* to) const {
    constexpr int kVectors = Tile::kColumns * Tile::kElement / kBytes;
    constexpr int kLanes = Tile::kThreads / Tile::kDepth;
    const int k = threadIdx.x / kLanes, lane = threadIdx.x % kLanes;
    const int at = walk.set * p.pack + (k >> p.shift);
    const int c = walk.chunk * Tile::kDepth + (k & ((1 << p.shift) - 1));
    const bool there = at < listed && c < p.group_in;
    const int row = there ? this->weight_of(this->list[at]) * p.group_in + c : 0;
    const char* from = this->weight + static_cast<int64_t>(row) * (p.cout * Tile::kElement);
#pragma unroll 4
    for (int vector = lane; vector < kVectors; vector += kLanes)
      copy_async<kBytes>(to + k * Tile::kStride + vector * kBytes, from + vector * kBytes,
                         there && vector * kBytes / Tile::kElement < this->columns);
  }

  __device__ __forceinline__ void load(const Walk& walk, int listed, int stage) const {
    char* left = this->stages + stage * Tile::kStage;
    switch (p.x_width) {
      case 16: gather<16>(walk, left); break;
      case 8: gather<8>(walk, left); break;
      case 4: gather<4>(walk, left); break;
      default:
        if constexpr (Tile::kElement == 2) gather<2>(walk, left);
    }
    char* right = left + Tile::kLeft;
    switch (p.weight_width) {
      case 16: load_weight<16>(walk, listed, right); break;
      case 8: load_weight<8>(walk, listed, right); break;
      case 4: load_weight<4>(walk, listed, right); break;
      default:
        if constexpr (Tile::kElement == 2) load_weight<2>(walk, listed, right);
    }
  }

  __device__ __forceinline__ int active(const Walk& walk, int slot) const {
    const int32_t* source = this->ring + (walk.set & (kRing - 1)) * p.pack * Tile::kRows + slot;
    if (p.pack == 1) {
      if (!__any_sync(~0u, source[0] >= 0)) return 0;
      return walk.chunk * Tile::kDepth + Tile::kDepth / 2 < p.group_in ? 3 : 1;
    }
    int active = 0;  // a tap has at most half of the step
    for (int j = 0; j < p.pack; ++j)
      if (__any_sync(~0u, source[j * Tile::kRows] >= 0)) active |= 1 << ((j << p.shift) / (Tile::kDepth / 2));
    return active;
  }
};

// The bias of each of a lane's sums; n0 is the warp's first column in the group.
template <class Tile>
__device__ __forceinline__ void begin_sums(const ConvParams& p, float (&sums)[Tile::kTall][2 * Tile::kAcross][4],
                                           int n0) {
  using T = typename Tile::T;
  const T* bias = static_cast<const T*>(p.bias) + static_cast<int64_t>(blockIdx.y) * p.group_out;
  const int q = threadIdx.x & 3;
#pragma unroll
  for (int n = 0; n < 2 * Tile::kAcross; ++n)
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int column = n0 + (Tile::kElement == 2 ? n * 8 + q * 2 + i : n / 2 * 16 + q * 4 + i * 2 + n % 2);
      const float add = p.bias != nullptr && column < p.group_out ? as_float(bias[column]) : 0.f;
#pragma unroll
      for (int m = 0; m < Tile::kTall; ++m) sums[m][n][i] = sums[m][n][2 + i] = add;
    }
}

// Writes a warp's sums; n0 is its first column in the group, first_slot its first slot.
template <class Tile>
__device__ __forceinline__ void write_out(const ConvParams& p, const float (&sums)[Tile::kTall][2 * Tile::kAcross][4],
                                          int64_t first_slot, int n0, char* scratch) {
  using T = typename Tile::T;
  const int lane = threadIdx.x & 31, g = lane >> 2, q = lane & 3;
  T* const out = static_cast<T*>(p.out) + static_cast<int64_t>(blockIdx.y) * p.group_out;
  const auto row_of = [&](int row) {
    const int64_t slot = first_slot + row;
    return slot < int64_t{p.granules} * kGranule ? __ldg(p.order + slot) : -1;
  };
  if constexpr (Tile::kElement == 4) {
#pragma unroll
    for (int m = 0; m < Tile::kTall; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int64_t row = row_of(m * 16 + half * 8 + g);
        if (row < 0) continue;
        T* to = out + row * p.cout;
#pragma unroll
        for (int n = 0; n < Tile::kAcross; ++n) {
          const int at = n0 + n * 16 + q * 4;
          const float4 v = column_sums<Tile::kAcross>(sums[m], n, half);
          if (p.wide_out) {
            if (at < p.group_out) *reinterpret_cast<float4*>(to + at) = v;
          } else {
            if (at < p.group_out) to[at] = v.x;
            if (at + 1 < p.group_out) to[at + 1] = v.y;
            if (at + 2 < p.group_out) to[at + 2] = v.z;
            if (at + 3 < p.group_out) to[at + 3] = v.w;
          }
        }
      }
  } else {
    // Through the warp's own part of shared memory, so that neighbouring lanes write neighbouring bytes.
#pragma unroll
    for (int m = 0; m < Tile::kTall; ++m)
#pragma unroll
      for (int n = 0; n < 2 * Tile::kAcross; ++n)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          Packed<T, 2> pair;
          pair.value[0] = from_float<T>(sums[m][n][2 * half]);
          pair.value[1] = from_float<T>(sums[m][n][2 * half + 1]);
          *reinterpret_cast<Packed<T, 2>*>(scratch + (m * 16 + half * 8 + g) * Tile::kOutStride + n * 16 + q * 4) = pair;
        }
    __syncwarp();
    if (p.wide_out) {
      constexpr int kVectors = Tile::kWarpColumns / 8;
#pragma unroll 4
      for (int v = lane; v < Tile::kWarpRows * kVectors; v += 32) {
        const int r = v / kVectors, column = v % kVectors * 8;
        const int64_t row = row_of(r);
        if (row >= 0 && n0 + column < p.group_out)
          *reinterpret_cast<uint4*>(out + row * p.cout + n0 + column) =
              *reinterpret_cast<const uint4*>(scratch + r * Tile::kOutStride + column * 2);
      }
    } else {
      for (int v = lane; v < Tile::kWarpRows * Tile::kWarpColumns; v += 32) {
        const int r = v / Tile::kWarpColumns, column = v % Tile::kWarpColumns;
        const int64_t row = row_of(r);
        if (row >= 0 && n0 + column < p.group_out)
          out[row * p.cout + n0 + column] =
              *reinterpret_cast<const T*>(scratch + r * Tile::kOutStride + column * 2);
      }
    }
  }
}

template <class Tile>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kResident) conv_kernel(const ConvParams p) {
  using Math = typename Tile::Math;
  __shared__ uint32_t list[kListed];
  __shared__ int list_length;
  char* const stages = dynamic_shared();
  int32_t* const ring = reinterpret_cast<int32_t*>(stages + Tile::kPipeline);

  constexpr int kGranules = Tile::kRows / kGranule;
  const int first_granule = static_cast<int>(blockIdx.x / p.column_tiles) * kGranules;
  const int tile_column = blockIdx.x % p.column_tiles * Tile::kColumns;
  const int warp = threadIdx.x / 32, lane = threadIdx.x & 31;
  const int warp_row = warp / Tile::kWarpsAcross * Tile::kWarpRows;
  const int warp_column = warp % Tile::kWarpsAcross * Tile::kWarpColumns;

  TileSource<Tile> source;
  source.x = p.x + static_cast<int64_t>(blockIdx.y) * p.group_in * Tile::kElement;
  source.weight = p.weight + (static_cast<int64_t>(blockIdx.y) * p.group_out + tile_column) * Tile::kElement;
  source.rows = p.rows + static_cast<int64_t>(first_granule) * p.num_taps * kGranule;
  source.columns = p.group_out - tile_column;
  source.mirror = p.words > 0 && (__ldg(p.taps) & 1) ? p.num_taps - 1 : -1;
  source.list = list;
  source.stages = stages;
  source.ring = ring;
  const std::conditional_t<Tile::kWide, WideLoader<Tile>, NarrowLoader<Tile>> loader(source, p);

  float sums[Tile::kTall][2 * Tile::kAcross][4];
  begin_sums<Tile>(p, sums, tile_column + warp_column);

  // This lane's addresses in a stage: row and 16 bytes of the left factor, row and columns of the right.
  const int left = Tile::swizzle(warp_row + (lane & 15), lane >> 4);
  const int right = Tile::kLeft + right_offset<typename Tile::T, Tile::kStride>(lane) + warp_column * Tile::kElement;

  for (int first = 0; first < p.words; first += kListed / 32) {
    if (warp == 0) {
      const int count = list_taps<kGranules>(p.taps + (int64_t{1} + first_granule) * p.words, p.granules - first_granule,
                                             p.words, first, list);
      if (lane == 0) list_length = count;
    }
    __syncthreads();
    const int listed = list_length;
    const int steps = (Tile::kWide ? listed : (listed + p.pack - 1) / p.pack) * p.chunks;

    Walk fetching, loading, computing;
    const auto fetch = [&](int step) {
      if (step < steps && fetching.chunk == 0) loader.fetch_rows(fetching.set, listed);
      fetching.next(p.chunks);
    };
    constexpr int kStages = Tile::kStages;
    for (int s = 0; s < kStages - 1; ++s) fetch(s);
    copy_commit();
    copy_wait<0>();
    __syncthreads();
    for (int s = 0; s < kStages - 1; ++s) {
      if (s < steps) loader.load(loading, listed, s);
      loading.next(p.chunks);
      fetch(s + kStages - 1);
      copy_commit();
    }

    for (int s = 0; s < steps; ++s) {
      // Everything up to step s has arrived, the rows of step s + kStages - 1 too, and every warp has left
      // step s - 1, whose memory is next.
      copy_wait<kStages - 2>();
      __syncthreads();
      if (s + kStages - 1 < steps) loader.load(loading, listed, (s + kStages - 1) % kStages);
      loading.next(p.chunks);
      fetch(s + 2 * (kStages - 1));
      copy_commit();

      const int active = loader.active(computing, warp_row + (lane & (Tile::kWarpRows - 1)));
      computing.next(p.chunks);

      const char* stage = stages + s % kStages * Tile::kStage;
      const auto multiply = [&](int k) {
        uint32_t a[Tile::kTall][4];
#pragma unroll
        for (int m = 0; m < Tile::kTall; ++m)
          load_matrices(a[m], stage + (left ^ (k * 32)) + m * 16 * Tile::kRowBytes);
        multiply_step<Math, Tile::kTall, Tile::kAcross, Tile::kStride>(sums, a,
                                                                       stage + right + k * Math::kDepth * Tile::kStride);
      };
      if (Math::kTerms == 1 && active == (1 << Tile::kSteps) - 1) {
#pragma unroll
        for (int k = 0; k < Tile::kSteps; ++k) multiply(k);
      } else {  // three terms: one after the other, registers are short
#pragma unroll 1
        for (int rest = active; rest != 0; rest &= rest - 1) multiply(__ffs(rest) - 1);
      }
    }
    copy_wait<0>();
    __syncthreads();
  }

  write_out<Tile>(p, sums, static_cast<int64_t>(first_granule) * kGranule + warp_row, tile_column + warp_column,
                  stages + warp * Tile::kWarpRows * Tile::kOutStride);
}

template <class Tile>
void launch_tile(const ConvArgs& args, ConvParams p) {
  p.column_tiles = static_cast<int>(ceil_div(p.group_out, Tile::kColumns));
  if (!Tile::kWide && p.group_in <= Tile::kDepth / 2) {
    p.shift = 2;
    while (1 << p.shift < p.group_in) ++p.shift;
    p.chunks = 1;
  } else {
    p.shift = Tile::kDepth == 32 ? 5 : 4;
    p.chunks = static_cast<int>(ceil_div(p.group_in, Tile::kDepth));
  }
  p.pack = Tile::kDepth >> p.shift;
  const int64_t blocks = ceil_div(args.granules, Tile::kRows / kGranule) * p.column_tiles;
  STD_TORCH_CHECK(blocks <= std::numeric_limits<int32_t>::max() && args.groups <= 65535 &&
                      int64_t{p.num_taps} * p.group_in <= std::numeric_limits<int32_t>::max() &&
                      p.num_taps <= static_cast<int>(kTapMask / 2),
                  "conv: the problem is too large for one launch");
  launch(&conv_kernel<Tile>, dim3(static_cast<unsigned>(blocks), args.groups), Tile::kThreads, Tile::shared(p.pack),
         args.stream, p);
}

// The number of columns of a tile with the least time by tensor cores and gathered bytes together.
template <class Math>
int choose_columns(int group_out, std::initializer_list<int> choices) {
  constexpr double kProducts = Math::kDepth == 16 ? 1200 : Math::kTerms == 1 ? 600 : 200;  // a clock of an SM
  constexpr double kBytes = 30;
  int best = 0;
  double least = 0;
  for (const int columns : choices) {
    const double cost =
        static_cast<double>(ceil_div(group_out, columns)) * (columns / kProducts + sizeof(typename Math::T) / kBytes);
    if (best == 0 || cost < least) {
      best = columns;
      least = cost;
    }
  }
  return best;
}

template <class Math>
void launch_math(const ConvArgs& args, ConvParams p) {
  constexpr int kElement = sizeof(typename Math::T);
  const int64_t in_bytes = int64_t{p.group_in} * kElement, out_bytes = int64_t{p.group_out} * kElement;
  p.x_width = copy_width(p.x, in_bytes, kElement);
  p.weight_width = copy_width(p.weight, out_bytes, kElement);
  p.wide_out = copy_width(p.out, out_bytes, kElement) == 16;
  if (p.x_width < 16 || p.weight_width < 16 || !p.wide_out || in_bytes <= kNarrowStep / 2) {
    if (p.group_out <= 32) return launch_tile<ConvTile<Math, 64, 32, false>>(args, p);
    return launch_tile<ConvTile<Math, 64, 64, false>>(args, p);
  }
  const int64_t enough = 2 * multiprocessors();  // blocks
  if (p.group_out > 32) {
    constexpr int kWidest = Math::kTerms == 1 ? 128 : 64;  // three terms need the registers
    const int columns = choose_columns<Math>(p.group_out, {kWidest, 96, 64});
    if (ceil_div(args.granules, 2) * ceil_div(p.group_out, columns) * args.groups >= enough) {
      if (columns == 96) return launch_tile<ConvTile<Math, Math::kTerms == 1 ? 128 : 64, 96, true>>(args, p);
      if (columns == 64) return launch_tile<ConvTile<Math, 128, 64, true>>(args, p);
      return launch_tile<ConvTile<Math, 128, kWidest, true>>(args, p);
    }
    if (args.granules * ceil_div(p.group_out, 64) * args.groups >= enough / 2)
      return launch_tile<ConvTile<Math, 64, 64, true>>(args, p);
  }
  if (p.group_out <= 16) return launch_tile<ConvTile<Math, 64, 16, true>>(args, p);
  return launch_tile<ConvTile<Math, 64, 32, true>>(args, p);
}

}  // namespace

void conv_mma(const ConvArgs& args) {
  if (args.num_out == 0 || args.cout == 0) return;
  if (args.groups > 1 && args.cin / args.groups < 8) return conv_few_channels(args);
  if (args.dtype == ScalarType::Double) return conv_double(args);
  ConvParams p{};
  p.x = static_cast<const char*>(args.x);
  p.weight = static_cast<const char*>(args.weight);
  p.bias = args.bias;
  p.out = args.out;
  p.rows = args.rows;
  p.order = args.order;
  p.taps = args.taps;
  p.granules = static_cast<int>(args.granules);
  p.cin = args.cin;
  p.cout = args.cout;
  p.group_in = args.cin / args.groups;
  p.group_out = args.cout / args.groups;
  p.num_taps = args.num_taps;
  p.words = args.words;
  switch (args.dtype) {
    case ScalarType::Half: return launch_math<HalfMath>(args, p);
    case ScalarType::BFloat16: return launch_math<BFloat16Math>(args, p);
    default:
      STD_TORCH_CHECK(args.dtype == ScalarType::Float, "conv: the dtype must be float32, float64, float16 or bfloat16");
      return args.tf32 ? launch_math<Tf32Math>(args, p) : launch_math<FloatMath>(args, p);
  }
}

}  // namespace perception
