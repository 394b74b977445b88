// The sparse product on Hopper's tensor cores: an implicit GEMM over tiles of a kernel map.
//
// A block of three warpgroups takes tiles of 128 * kHeight output slots by kWidth channels. The first
// warpgroup streams, for every tap that the tile has, chunks of 64 contraction channels into a ring of
// shared-memory stages: input rows gathered 16 bytes a copy (nothing for absent rows and granules),
// weights by the bulk copy engine. The other two multiply (wgmma, float32 sums in registers), each
// kHeight granules, and skip the granules that do not have the tap. Narrow inputs put several taps in
// one chunk. Blocks stay and take the next tile, whose first stages are loaded while the last one is
// written.
//
// Limits: 2 * pairs * cin * cout operations times the padding of the tiles (1.8 on LiDAR scans), and
// from the L2 cache pairs * cin gathered elements plus cin * cout weights for every tap of every tile.
#include "cuda/conv.cuh"
#include "cuda/hopper.cuh"

namespace perception {
namespace {

constexpr int kThreads = 384;
constexpr int kChunk = 64;             // contraction channels a stage: 128 bytes a row
constexpr int kBlock = kChunk * 128;   // bytes of 64 weight rows of 64 columns

template <class T>
struct Params {
  const T* x;
  const T* bias;
  T* out;
  const int32_t* rows;
  const int32_t* order;
  const int32_t* taps;
  int cin, cout, num_taps, words;
  int granules, tiles, splits;
  int taps_per_chunk, chunks_per_tap;
  int box_rows;
};

// The chunks of a block's tiles in order; both sides of the ring walk them alike.
template <class T, int kGranules>
struct Cursor {
  const Params<T>& p;
  int item;              // tile * splits + split
  int word;
  uint32_t left;         // taps of this word that are still to come
  uint32_t bits;         // taps of this chunk
  int part;              // chunk of the tap
  uint32_t has[kGranules];

  __device__ explicit Cursor(const Params<T>& params, int first) : p(params), item(first) {}

  __device__ bool valid() const { return item < p.tiles * p.splits; }
  __device__ int granule() const { return item / p.splits * kGranules; }
  __device__ int column_tile() const { return item % p.splits; }

  __device__ void enter_word(int w) {
    word = w;
    left = 0;
#pragma unroll
    for (int g = 0; g < kGranules; ++g) {
      const int granule_g = granule() + g;
      has[g] = granule_g < p.granules ? __ldg(p.taps + int64_t{1 + granule_g} * p.words + word) : 0;
      left |= has[g];
    }
    part = p.chunks_per_tap - 1;
  }
  // The next chunk of this tile; false behind the last one.
  __device__ bool next() {
    if (++part < p.chunks_per_tap) return true;
    while (left == 0) {
      if (word + 1 == p.words) return false;
      enter_word(word + 1);
    }
    uint32_t rest = left;
    for (int t = 0; t < p.taps_per_chunk; ++t) rest &= rest - 1;
    bits = left ^ rest;
    left = rest;
    part = 0;
    return true;
  }
};

// One register of each of four neighbouring lanes' four groups of columns, exchanged so that every lane
// holds four registers of one group: 16 contiguous bytes.
__device__ inline void transpose4(uint32_t (&v)[4], int lane) {
  const bool odd = lane & 1, high = lane & 2;
  uint32_t a = odd ? v[0] : v[1], b = odd ? v[2] : v[3];
  a = __shfl_xor_sync(0xffffffffu, a, 1);
  b = __shfl_xor_sync(0xffffffffu, b, 1);
  if (odd) { v[0] = a; v[2] = b; } else { v[1] = a; v[3] = b; }
  a = high ? v[0] : v[2];
  b = high ? v[1] : v[3];
  a = __shfl_xor_sync(0xffffffffu, a, 2);
  b = __shfl_xor_sync(0xffffffffu, b, 2);
  if (high) { v[0] = a; v[1] = b; } else { v[2] = a; v[3] = b; }
}

__device__ inline uint32_t pack(float a, float b, __half) {
  const __half2 v = __floats2half2_rn(a, b);
  return reinterpret_cast<const uint32_t&>(v);
}
__device__ inline uint32_t pack(float a, float b, __nv_bfloat16) {
  const __nv_bfloat162 v = __floats2bfloat162_rn(a, b);
  return reinterpret_cast<const uint32_t&>(v);
}
__device__ inline float2 unpack(uint32_t v, __half) { return __half22float2(reinterpret_cast<const __half2&>(v)); }
__device__ inline float2 unpack(uint32_t v, __nv_bfloat16) {
  return __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(v));
}

template <int kWidth, int kHeight>
struct Shape {
  static constexpr int kGranules = 2 * kHeight;
  static constexpr int kRowBytes = kGranules * kGranule * 128;
  static constexpr int kBlocks = (kWidth + 63) / 64;
  static constexpr int kStage = kRowBytes + kBlocks * kBlock;
  static constexpr int shared(int stages) { return stages * kStage + 1024 + 16 * stages; }
};

template <class T, int kWidth, int kHeight, int kStages, int kPerSm>
__global__ void __launch_bounds__(kThreads, kPerSm)
    conv_kernel(const __grid_constant__ CUtensorMap weights, const __grid_constant__ Params<T> p) {
#if defined(PERCEPTION_HOPPER)
  using namespace hopper;
  using S = Shape<kWidth, kHeight>;
  extern __shared__ uint8_t memory[];
  const uint32_t ring = (shared_address(memory) + 1023) & ~1023u;
  const uint32_t full = ring + kStages * S::kStage, empty = full + 8 * kStages;
  if (threadIdx.x == 0) {
    for (int s = 0; s < kStages; ++s) {
      barrier_init(full + 8 * s, 128 + 1);  // every copying thread, and the bytes of the weights
      barrier_init(empty + 8 * s, 8);       // every multiplying warp
    }
    barrier_init_fence();
  }
  __syncthreads();
  int stage = 0;
  uint32_t phase = 0;
  const auto advance = [&] {
    if (++stage == kStages) {
      stage = 0;
      phase ^= 1;
    }
  };
  const int step = gridDim.x;
  Cursor<T, S::kGranules> at(p, blockIdx.x);

  if (threadIdx.x < 128) {
    fewer_registers<kPerSm == 1 ? 56 : 40>();
    const int column = threadIdx.x % 8, first_row = threadIdx.x / 8;  // 16 bytes of rows first_row + 16 i
    const int slot = p.taps_per_chunk > 1 ? column * 8 / p.cin : 0;  // which tap of the chunk
    const int channel = p.taps_per_chunk > 1 ? column * 8 % p.cin : column * 8;
    const bool mirrored = __ldg(p.taps) != 0;
    int32_t source[S::kGranules * 4];
    for (; at.valid(); at.item += step) {
      at.enter_word(0);
      while (at.next()) {
        if (at.part == 0) {
          uint32_t mine = at.bits;
          for (int t = 0; t < slot; ++t) mine &= mine - 1;
          const int tap = mine ? __ffs(mine) - 1 : -1;
          const int32_t* rows = p.rows + (int64_t{at.granule()} * p.num_taps + at.word * 32 + tap) * kGranule + first_row;
#pragma unroll
          for (int i = 0; i < S::kGranules * 4; ++i) {
            const bool there = tap >= 0 && (at.has[i / 4] >> tap & 1);
            source[i] = there ? __ldg(rows + int64_t{i / 4} * p.num_taps * kGranule + i % 4 * 16) : -1;
          }
        }
        barrier_wait(empty + 8 * stage, phase ^ 1);
        const uint32_t a = ring + stage * S::kStage, b = a + S::kRowBytes;
        if (threadIdx.x == 0) {
          barrier_arrive_expect(full + 8 * stage, S::kBlocks * p.taps_per_chunk * p.box_rows * 128);
          uint32_t rest = at.bits;
          for (int t = 0; t < p.taps_per_chunk; ++t) {
            int row = p.num_taps * p.cin;  // outside the matrix: zeros
            if (rest) {
              const int tap = at.word * 32 + __ffs(rest) - 1;
              row = (mirrored ? p.num_taps - 1 - tap : tap) * p.cin + at.part * kChunk;
            }
            rest &= rest - 1;
#pragma unroll
            for (int block = 0; block < S::kBlocks; ++block)
              copy_tile(b + block * kBlock + t * p.box_rows * 128, &weights, at.column_tile() * kWidth + block * 64, row,
                        full + 8 * stage);
          }
        }
        const int from = channel + at.part * kChunk;
        const bool inside = from < p.cin;
#pragma unroll
        for (int i = 0; i < S::kGranules * 4; ++i) {
          if ((at.has[i / 4] & at.bits) == 0) continue;
          const int row = first_row + 16 * i;
          const bool there = inside && source[i] >= 0;
          copy16(a + row * 128 + ((column ^ (row & 7)) << 4), there ? p.x + int64_t{source[i]} * p.cin + from : p.x, there);
        }
        copies_arrive(full + 8 * stage);
        advance();
      }
    }
  } else {
    more_registers<kPerSm == 1 ? 224 : 96>();
    const int group = threadIdx.x / 128 - 1, lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    for (; at.valid(); at.item += step) {
      const int first_column = at.column_tile() * kWidth;
      float sum[kHeight][kWidth / 2];
#pragma unroll
      for (int j = 0; j < kWidth / 8; ++j) {
        const int c = first_column + j * 8 + lane % 4 * 2;
        float2 bias = {0.f, 0.f};
        if (p.bias && c < p.cout) bias = unpack(__ldg(reinterpret_cast<const uint32_t*>(p.bias + c)), T{});
#pragma unroll
        for (int h = 0; h < kHeight; ++h) {
          sum[h][4 * j] = sum[h][4 * j + 2] = bias.x;
          sum[h][4 * j + 1] = sum[h][4 * j + 3] = bias.y;
        }
      }
      at.enter_word(0);
      while (at.next()) {
        barrier_wait(full + 8 * stage, phase);
        fence_async();
        const uint32_t a = ring + stage * S::kStage, b = a + S::kRowBytes;
        const uint64_t b_operand = operand(b, kBlock, 1024);
#pragma unroll
        for (int h = 0; h < kHeight; ++h) {
          // Constant indices keep the granules' masks in registers; the shuffle tells the compiler that
          // the warp goes one way.
          const uint32_t mask = (group == 0 ? at.has[h] : at.has[kHeight + h]) & at.bits;
          if (__shfl_sync(0xffffffffu, mask, 0) != 0) {
            const uint64_t a_operand = operand(a + (group * kHeight + h) * kGranule * 128, 16, 1024);
            pin(sum[h]);
            wgmma_fence();
#pragma unroll
            for (int k = 0; k < kChunk / 16; ++k) Wgmma<T, kWidth, 0>::run(sum[h], a_operand + 2 * k, b_operand + 128 * k);
            wgmma_commit();
            wgmma_wait<0>();
            pin(sum[h]);
          }
        }
        if (lane == 0) barrier_arrive(empty + 8 * stage);
        advance();
      }
      // Lane l of warp w holds rows 16 w + l / 4 and 8 below, columns 8 j + 2 (l % 4) and the next.
#pragma unroll
      for (int h = 0; h < kHeight; ++h) {
        const int granule = at.granule() + group * kHeight + h;
        if (granule >= p.granules) continue;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int32_t row = __ldg(p.order + int64_t{granule} * kGranule + warp * 16 + half * 8 + lane / 4);
#pragma unroll
          for (int j = 0; j < kWidth / 8; j += 4) {
            uint32_t v[4];
#pragma unroll
            for (int q = 0; q < 4; ++q) v[q] = pack(sum[h][4 * (j + q) + 2 * half], sum[h][4 * (j + q) + 2 * half + 1], T{});
            transpose4(v, lane);
            const int c = first_column + (j + lane % 4) * 8;
            if (row >= 0 && c < p.cout && (j + lane % 4) * 8 < kWidth)
              *reinterpret_cast<uint4*>(p.out + int64_t{row} * p.cout + c) = make_uint4(v[0], v[1], v[2], v[3]);
          }
        }
      }
    }
  }
#endif
}

template <class T, int kWidth, int kHeight, int kStages, int kPerSm>
void launch(const ConvArgs& args, int multiprocessors) {
  using S = Shape<kWidth, kHeight>;
  Params<T> p;
  p.x = static_cast<const T*>(args.x);
  p.bias = static_cast<const T*>(args.bias);
  p.out = static_cast<T*>(args.out);
  p.rows = args.rows;
  p.order = args.order;
  p.taps = args.taps;
  p.cin = args.cin;
  p.cout = args.cout;
  p.num_taps = args.num_taps;
  p.words = args.words;
  p.granules = static_cast<int>(args.granules);
  p.tiles = static_cast<int>(ceil_div(args.granules, S::kGranules));
  p.splits = static_cast<int>(ceil_div(args.cout, kWidth));
  p.taps_per_chunk = args.cin <= kChunk / 2 && kChunk % args.cin == 0 ? kChunk / args.cin : 1;
  p.chunks_per_tap = static_cast<int>(ceil_div(args.cin, kChunk));
  // A box may reach into the next tap's rows: they meet the zeros behind the input's last channel.
  p.box_rows = p.taps_per_chunk > 1 ? args.cin : kChunk;
  const CUtensorMap weights =
      hopper::describe_matrix(args.weight, std::is_same_v<T, __nv_bfloat16>, int64_t{args.num_taps} * args.cin, args.cout,
                              p.box_rows);
  constexpr int shared = S::shared(kStages);
  const auto kernel = conv_kernel<T, kWidth, kHeight, kStages, kPerSm>;
  STD_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared));
  const int items = p.tiles * p.splits, blocks = multiprocessors * kPerSm;
  kernel<<<items < blocks ? items : blocks, kThreads, shared, args.stream>>>(weights, p);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

template <class T>
void choose(const ConvArgs& args, int multiprocessors) {
  // Tall tiles read the weights half as often; short ones leave no multiprocessor idle.
  const auto blocks = [&](int height, int width) {
    return ceil_div(args.granules, 2 * height) * ceil_div(args.cout, width);
  };
  if (args.cout <= 32) return launch<T, 32, 1, 4, 2>(args, multiprocessors);
  if (args.cout <= 64) return launch<T, 64, 1, 4, 2>(args, multiprocessors);
  const bool tall = blocks(2, 128) >= 2 * multiprocessors;
  if (args.cout % 96 == 0 && args.cout % 128 != 0)
    return tall ? launch<T, 96, 2, 4, 1>(args, multiprocessors) : launch<T, 96, 1, 6, 1>(args, multiprocessors);
  if (tall) return launch<T, 128, 2, 4, 1>(args, multiprocessors);
  if (blocks(1, 128) >= multiprocessors) return launch<T, 128, 1, 6, 1>(args, multiprocessors);
  return launch<T, 64, 1, 4, 2>(args, multiprocessors);
}

}  // namespace

bool conv_wgmma(const ConvArgs& args) {
  if (args.dtype != ScalarType::BFloat16 && args.dtype != ScalarType::Half) return false;
  if (args.groups != 1 || args.cin % 8 != 0 || args.cout % 8 != 0 || args.num_out == 0) return false;
  if (args.granules * args.num_taps >= (int64_t{1} << 31) / kGranule) return false;
  for (const void* pointer : {args.x, args.weight, args.bias, static_cast<const void*>(args.out)})
    if (reinterpret_cast<uintptr_t>(pointer) % 16 != 0) return false;
  if (!hopper::available()) return false;
  int device = 0, multiprocessors = 0;
  STD_CUDA_CHECK(cudaGetDevice(&device));
  STD_CUDA_CHECK(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device));
  if (args.dtype == ScalarType::BFloat16)
    choose<__nv_bfloat16>(args, multiprocessors);
  else
    choose<__half>(args, multiprocessors);
  return true;
}

}  // namespace perception
