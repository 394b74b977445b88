// The sparse product on Hopper's tensor cores: an implicit GEMM over tiles of a kernel map.
//
// A block takes tiles of 64 * kGroups output slots by kWidth channels. Its first warpgroup streams, for every tap that the tile has, chunks of 64 contraction channels into a ring of
// shared-memory stages: input rows gathered 16 bytes a copy (nothing for absent rows and granules),
// weights by the bulk copy engine. The others multiply (wgmma, float32 sums in registers), each one
// granule, and skip the taps that it does not have. Narrow inputs put several taps in
// one chunk. Blocks stay and take the next tile that nobody has, whose first stages are loaded while the
// last one is written; every stage tells the multiplying warpgroups what it is.
//
// Limits: 2 * pairs * cin * cout operations times the padding of the tiles (1.8 on LiDAR scans), and
// from the L2 cache pairs * cin gathered elements plus cin * cout weights for every tap of every tile.
#include "cuda/conv.cuh"
#include "cuda/hopper.cuh"

#include <climits>
#include <map>
#include <optional>

namespace perception {
namespace {

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
  unsigned* next_item;  // 0 before and after
  ConvEnd end;
};

// Columns that an end with a norm is given for at most: scales and shifts lie in shared memory.
constexpr int kMostNormed = 1024;

// What a stage holds, for the warpgroups that multiply. Written by one thread before it arrives at the
// stage's full barrier (release) and read behind the wait for it (acquire); written again only behind the
// wait for the empty barrier, at which a lane arrives after __syncwarp(). (Race checkers that do not follow
// barriers in shared memory report it.)
struct alignas(8) Stage {
  uint32_t active;  // bit g: granule g of the tile has a tap of the chunk
  uint32_t last;    // of its tile
  int32_t item;     // tile * splits + split; -1: no more
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

template <int kWidth, int kGroups, int kPerSm>
struct Shape {
  static constexpr int kThreads = 128 + 128 * kGroups;
  static constexpr int kRowBytes = kGroups * kGranule * 128;
  static constexpr int kBlocks = (kWidth + 63) / 64;
  static constexpr int kStage = kRowBytes + kBlocks * kBlock;
  __host__ __device__ static constexpr int shared(int stages) { return stages * (kStage + 16 + static_cast<int>(sizeof(Stage))) + 1024 + 16; }
  // Registers: all a multiprocessor has, shared out evenly at the start, then by need.
  static constexpr int kEven = 65536 / (kThreads * kPerSm) / 8 * 8;
  static constexpr int kCopying = kPerSm == 1 ? 72 : 40;
  static constexpr int kMultiplying = (kEven * (kGroups + 1) - kCopying) / kGroups / 8 * 8;
};

template <class T, int kWidth, int kGroups, int kStages, int kPerSm, bool kPacked, bool kExchanged>
__global__ void __launch_bounds__(Shape<kWidth, kGroups, kPerSm>::kThreads, kPerSm)
    conv_kernel(const __grid_constant__ CUtensorMap weights, const __grid_constant__ Params<T> p) {
#if defined(PERCEPTION_HOPPER)
  using namespace hopper;
  using S = Shape<kWidth, kGroups, kPerSm>;
  extern __shared__ uint8_t memory[];
  uint8_t* const aligned = memory + ((1024 - shared_address(memory) % 1024) % 1024);
  const uint32_t ring = shared_address(aligned);
  const uint32_t full = ring + kStages * S::kStage, empty = full + 8 * kStages;
  Stage* const about = reinterpret_cast<Stage*>(aligned + kStages * (S::kStage + 16));
  volatile int* const shared_item = reinterpret_cast<int*>(about + kStages);
  // Of every output channel, the scale and the shift that make it the normalized one.
  constexpr int kBefore = S::shared(kStages) - 1024;
  float2* const affine = reinterpret_cast<float2*>(aligned + kBefore);
  if (p.end.normalizes) {
    for (int c = threadIdx.x; c < p.cout; c += S::kThreads) {
      const float scale = p.end.scale.at(c, 1.f) / sqrtf(p.end.var.at(c, 1.f) + p.end.eps);
      const float bias = p.bias ? static_cast<float>(p.bias[c]) : 0.f;
      affine[c] = {scale, p.end.shift.at(c, 0.f) + (bias - p.end.mean.at(c, 0.f)) * scale};
    }
  }
  if (threadIdx.x == 0) {
    for (int s = 0; s < kStages; ++s) {
      barrier_init(full + 8 * s, 128 + 1);  // every copying thread, and the bytes of the weights
      barrier_init(empty + 8 * s, 4 * kGroups);  // every multiplying warp
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

  if (threadIdx.x < 128) {
    fewer_registers<S::kCopying>();
    // Eight threads copy kRows consecutive rows, all of one granule, 16 bytes each. They hold their
    // input rows together and pass them round; in a packed chunk every thread has a tap of its own,
    // and holds all rows of it.
    constexpr int kRows = kGroups * 4, kHeld = kPacked ? kRows : kRows / 8;
    const int lane = threadIdx.x % 32, column = lane % 8, first_row = threadIdx.x / 8 * kRows, mine = first_row / kGranule;
    const int slot = kPacked ? column * 8 / p.cin : 0;  // which tap of the chunk
    const int piece = kPacked ? column % (p.cin / 8) : column;  // 16 bytes of the input row
    const int first_held = first_row % kGranule + (kPacked ? 0 : column * kHeld);
    const uint32_t pitch = p.cin * 2;
    const uint32_t place = ring + first_row * 128 + column * 16;  // of the first row, which is a multiple of 8
    const bool mirrored = __ldg(p.taps) != 0;
    const int items = p.tiles * p.splits;
    // From the front, where rows have the fewest taps: the other way round takes a tenth longer.
    int item = blockIdx.x;
    while (item < items) {
      const int granule = item / p.splits * kGroups, split = item % p.splits;
      uint32_t has[kGroups], left = 0;
      int word = -1, last_word = 0;
      const auto enter = [&](int w) {
        word = w;
        left = 0;
#pragma unroll
        for (int g = 0; g < kGroups; ++g) {
          has[g] = granule + g < p.granules ? __ldg(p.taps + int64_t{1 + granule + g} * p.words + word) : 0;
          left |= has[g];
        }
      };
      for (int w = p.words - 1; w > 0 && last_word == 0; --w) {
        enter(w);
        if (left) last_word = w;
      }
      enter(0);
      // The taps of the next chunk, and this thread's rows of its tap.
      uint32_t bits = 0;
      int32_t held[kHeld];
      const auto take = [&] {
        while (left == 0 && word < last_word) enter(word + 1);
        uint32_t rest = left;
        for (int t = 0; t < p.taps_per_chunk; ++t) rest &= rest - 1;
        bits = left ^ rest;
        left = rest;
        uint32_t tap_bits = bits;
        for (int t = 0; t < slot; ++t) tap_bits &= tap_bits - 1;
        const int tap = __ffs(tap_bits) - 1;
        uint32_t mask = has[0];
#pragma unroll
        for (int g = 1; g < kGroups; ++g) mask = mine == g ? has[g] : mask;
        const bool there = tap >= 0 && (mask >> tap & 1);
        const int32_t* from = p.rows + (int64_t{granule + mine} * p.num_taps + word * 32 + tap) * kGranule + first_held;
        if constexpr (kPacked) {
#pragma unroll
          for (int i = 0; i < kHeld / 4; ++i) {
            const int4 v = there ? __ldg(reinterpret_cast<const int4*>(from) + i) : make_int4(-1, -1, -1, -1);
            held[4 * i] = v.x;
            held[4 * i + 1] = v.y;
            held[4 * i + 2] = v.z;
            held[4 * i + 3] = v.w;
          }
        } else {
#pragma unroll
          for (int i = 0; i < kHeld; ++i) held[i] = there ? __ldg(from + i) : -1;
        }
      };
      take();
      bool more = true;
      while (more) {
        const uint32_t chunk = bits;
        const int chunk_word = word;
        uint32_t active = 0;
#pragma unroll
        for (int g = 0; g < kGroups; ++g) active |= (has[g] & chunk) ? 1u << g : 0u;
        uint32_t source[kRows];  // bytes from x on, ~0 for no row
#pragma unroll
        for (int i = 0; i < kHeld; ++i) source[i] = held[i] < 0 ? ~0u : held[i] * pitch;
        if constexpr (!kPacked) {
#pragma unroll
          for (int i = kRows - 1; i >= 0; --i) source[i] = __shfl_sync(0xffffffffu, source[i % kHeld], i / kHeld, 8);
        }
        more = left != 0 || word < last_word;
        if (more) take();  // its loads are under way while this chunk is copied
        const int parts = chunk ? p.chunks_per_tap : 1;
        for (int part = 0; part < parts; ++part) {
          barrier_wait(empty + 8 * stage, phase ^ 1);
          const uint32_t a = ring + stage * S::kStage, b = a + S::kRowBytes;
          if (threadIdx.x == 0) {
            about[stage] = {active, !more && part == parts - 1, item};
            barrier_arrive_expect(full + 8 * stage, chunk ? (kExchanged ? 1 : S::kBlocks) * p.taps_per_chunk * p.box_rows * 128 : 0);
            uint32_t rest = chunk;
            for (int t = 0; chunk && t < p.taps_per_chunk; ++t) {
              int row = INT_MAX / 2;  // outside the matrix: zeros
              if (rest) {
                const int tap = chunk_word * 32 + __ffs(rest) - 1;
                row = (mirrored ? p.num_taps - 1 - tap : tap) * (kExchanged ? p.cout : p.cin);
              }
              rest &= rest - 1;
              if constexpr (kExchanged) {
                copy_tile(b, &weights, part * kChunk, row + split * kWidth, full + 8 * stage);
              } else {
#pragma unroll
                for (int block = 0; block < S::kBlocks; ++block)
                  copy_tile(b + block * kBlock + t * p.box_rows * 128, &weights, split * kWidth + block * 64, row + part * kChunk,
                            full + 8 * stage);
              }
            }
          }
          if (active >> mine & 1) {
            const uint8_t* from = reinterpret_cast<const uint8_t*>(p.x) + part * (kChunk * 2) + piece * 16;
            const bool inside = piece + part * 8 < p.cin / 8;
            uint32_t to[8];
#pragma unroll
            for (int i = 0; i < 8; ++i) to[i] = (place + stage * S::kStage) ^ (i << 4);
#pragma unroll
            for (int i = 0; i < kRows; ++i) copy16(to[i % 8] + i * 128, from + source[i], !inside || source[i] == ~0u);
          }
          copies_arrive(full + 8 * stage);
          advance();
        }
      }
      // Asked for as late as this, the next tile goes to a block that is free.
      if (threadIdx.x == 0) *shared_item = gridDim.x + atomicInc(p.next_item, items - 1);
      asm volatile("bar.sync 1, 128;" ::: "memory");
      item = *shared_item;
      asm volatile("bar.sync 1, 128;" ::: "memory");
    }
    barrier_wait(empty + 8 * stage, phase ^ 1);
    if (threadIdx.x == 0) {
      about[stage].item = -1;
      barrier_arrive(full + 8 * stage);
    }
    barrier_arrive(full + 8 * stage);
  } else {
    more_registers<S::kMultiplying>();
    const int group = __shfl_sync(0xffffffffu, threadIdx.x / 128 - 1, 0), lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    const uint32_t group_rows = ring + group * kGranule * 128;
    float sum[kWidth / 2];
    const auto start = [&](int item) {
      const int first_column = item % p.splits * kWidth;
#pragma unroll
      for (int j = 0; j < kWidth / 8; ++j) {
        const int c = first_column + j * 8 + lane % 4 * 2;
        float2 bias = {0.f, 0.f};
        if (p.bias && !p.end.normalizes && c < p.cout) bias = unpack(__ldg(reinterpret_cast<const uint32_t*>(p.bias + c)), T{});
        sum[4 * j] = sum[4 * j + 2] = bias.x;
        sum[4 * j + 1] = sum[4 * j + 3] = bias.y;
      }
    };
    // A tile a turn. The warpgroups run on their own: while one looks at its next stage, the others
    // keep the tensor cores busy.
    while (true) {
      barrier_wait(full + 8 * stage, phase);
      const int item = about[stage].item;
      if (item < 0) break;
      start(item);
      while (true) {
        const uint2 now = *reinterpret_cast<const uint2*>(&about[stage].active);
        // The shuffles tell the compiler that the warp goes one way.
        if (__shfl_sync(0xffffffffu, now.x >> group & 1, 0)) {
          fence_async();
          const uint64_t a_operand = operand(group_rows + stage * S::kStage, 16, 1024);
          const uint64_t b_operand = operand(ring + stage * S::kStage + S::kRowBytes, kExchanged ? 16 : kBlock, 1024);
          pin(sum);
          wgmma_fence();
#pragma unroll
          for (int k = 0; k < kChunk / 16; ++k)
            Wgmma<T, kWidth, 0, kExchanged ? 0 : 1>::run(sum, a_operand + 2 * k, b_operand + (kExchanged ? 2 : 128) * k);
          wgmma_commit();
          wgmma_wait<0>();
          pin(sum);
        }
        __syncwarp();  // one lane speaks for what all have read
        if (lane == 0) barrier_arrive(empty + 8 * stage);
        advance();
        if (__shfl_sync(0xffffffffu, now.y, 0)) break;
        barrier_wait(full + 8 * stage, phase);
      }
      const int first_column = item % p.splits * kWidth;
      // Lane l of warp w holds rows 16 w + l / 4 and 8 below, columns 8 j + 2 (l % 4) and the next.
      const int granule = item / p.splits * kGroups + group;
      if (granule >= p.granules) continue;
      int32_t rows[2];
#pragma unroll
      for (int half = 0; half < 2; ++half)
        rows[half] = __ldg(p.order + int64_t{granule} * kGranule + warp * 16 + half * 8 + lane / 4);
#pragma unroll
      for (int j = 0; j < kWidth / 8; j += 4) {
        uint32_t v[2][4];
#pragma unroll
        for (int q = 0; q < 4; ++q) {
          float* const four = sum + 4 * (j + q);
          if (p.end.normalizes) {
            const float4 by = *reinterpret_cast<const float4*>(affine + first_column + (j + q) * 8 + lane % 4 * 2);
#pragma unroll
            for (int i = 0; i < 4; ++i) {
              four[i] = i % 2 == 0 ? four[i] * by.x + by.y : four[i] * by.z + by.w;
              if (p.end.relu && p.end.residual == nullptr) four[i] = four[i] < 0 ? 0 : four[i];  // NaN stays
            }
          }
#pragma unroll
          for (int half = 0; half < 2; ++half) v[half][q] = pack(four[2 * half], four[2 * half + 1], T{});
        }
        const int c = first_column + (j + lane % 4) * 8;
        const bool inside = c < p.cout && (j + lane % 4) * 8 < kWidth;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          transpose4(v[half], lane);
          const int64_t at = int64_t{rows[half]} * p.cout + c;
          const bool there = rows[half] >= 0 && inside;
          if (there && p.end.residual != nullptr) {
            const uint4 more = *reinterpret_cast<const uint4*>(static_cast<const T*>(p.end.residual) + at);
            const uint32_t others[4] = {more.x, more.y, more.z, more.w};
#pragma unroll
            for (int q = 0; q < 4; ++q) {
              const float2 a = unpack(v[half][q], T{}), b = unpack(others[q], T{});
              float one = a.x + b.x, two = a.y + b.y;
              if (p.end.relu) {
                one = one < 0 ? 0 : one;
                two = two < 0 ? 0 : two;
              }
              v[half][q] = pack(one, two, T{});
            }
          }
          if (there) *reinterpret_cast<uint4*>(p.out + at) = make_uint4(v[half][0], v[half][1], v[half][2], v[half][3]);
        }
      }
    }
  }
#endif
}

// Whether several taps fit into one chunk.
bool packs(int cin) { return cin <= kChunk / 2 && kChunk % cin == 0; }

// A number that the blocks of a launch count up from 0, and leave at 0. Launches of one stream take
// turns with it. The launches of a captured graph may later run beside any other: they get their own.
unsigned* counter(const ConvArgs& args, std::optional<Tensor>& scratch) {
  cudaStreamCaptureStatus capture;
  STD_CUDA_CHECK(cudaStreamIsCapturing(args.stream, &capture));
  if (capture != cudaStreamCaptureStatusNone) {
    scratch = empty_like_device(*args.like, {1}, ScalarType::Int);
    STD_CUDA_CHECK(cudaMemsetAsync(scratch->data_ptr(), 0, sizeof(unsigned), args.stream));
    return static_cast<unsigned*>(scratch->data_ptr());
  }
  static std::mutex mutex;
  static std::map<std::pair<int, cudaStream_t>, unsigned*> counters;
  int device = 0;
  STD_CUDA_CHECK(cudaGetDevice(&device));
  const std::lock_guard<std::mutex> lock(mutex);
  unsigned*& found = counters[{device, args.stream}];
  if (found == nullptr) {
    STD_CUDA_CHECK(cudaMalloc(&found, sizeof(unsigned)));
    STD_CUDA_CHECK(cudaMemset(found, 0, sizeof(unsigned)));
    STD_CUDA_CHECK(cudaDeviceSynchronize());
  }
  return found;
}

template <class T, int kWidth, int kGroups, int kStages, int kPerSm, bool kPacked, bool kExchanged>
void launch(const ConvArgs& args) {
  using S = Shape<kWidth, kGroups, kPerSm>;
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
  p.tiles = static_cast<int>(ceil_div(args.granules, kGroups));
  p.splits = static_cast<int>(ceil_div(args.cout, kWidth));
  p.taps_per_chunk = kPacked ? kChunk / args.cin : 1;
  p.chunks_per_tap = static_cast<int>(ceil_div(args.cin, kChunk));
  // A box may reach into the next tap's rows: they meet the zeros behind the input's last channel, or
  // make columns that nobody keeps.
  p.box_rows = kExchanged ? kWidth : kPacked ? args.cin : kChunk;
  const CUtensorMap weights = hopper::describe_matrix(args.weight, std::is_same_v<T, __nv_bfloat16>,
                                                      int64_t{args.num_taps} * (kExchanged ? args.cout : args.cin),
                                                      kExchanged ? args.cin : args.cout, p.box_rows);
  std::optional<Tensor> scratch;
  p.next_item = counter(args, scratch);
  p.end = args.end;
  constexpr int most = S::shared(kStages) + kMostNormed * static_cast<int>(sizeof(float2));
  const int shared = S::shared(kStages) + (args.end.normalizes ? p.splits * kWidth * static_cast<int>(sizeof(float2)) : 0);
  constexpr auto kernel = conv_kernel<T, kWidth, kGroups, kStages, kPerSm, kPacked, kExchanged>;
  allow_shared<kernel>(most);
  const int items = p.tiles * p.splits, blocks = device_facts().multiprocessors * kPerSm;
  kernel<<<items < blocks ? items : blocks, S::kThreads, shared, args.stream>>>(weights, p);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

template <class T, bool kExchanged>
void choose(const ConvArgs& args) {
  const int multiprocessors = device_facts().multiprocessors;
  // Tall tiles read the weights half as often; short ones leave no multiprocessor idle.
  const auto blocks = [&](int groups, int width) { return ceil_div(args.granules, groups) * ceil_div(args.cout, width); };
  if constexpr (!kExchanged) {
    if (packs(args.cin)) {
      if (args.cout <= 32) return launch<T, 32, 2, 4, 2, true, false>(args);
      return launch<T, 64, 2, 4, 2, true, false>(args);
    }
  }
  if (args.cout <= 32) return launch<T, 32, 2, 4, 2, false, kExchanged>(args);
  if (args.cout <= 64) return launch<T, 64, 2, 4, 2, false, kExchanged>(args);
  const bool tall = 2 * blocks(4, 128) >= 3 * multiprocessors;
  if (args.cout % 96 == 0 && args.cout % 128 != 0)
    return tall ? launch<T, 96, 4, 4, 1, false, kExchanged>(args) : launch<T, 96, 2, 6, 1, false, kExchanged>(args);
  if (tall) return launch<T, 128, 4, 4, 1, false, kExchanged>(args);
  if (5 * blocks(2, 128) >= 3 * multiprocessors) return launch<T, 128, 2, 6, 1, false, kExchanged>(args);
  return launch<T, 64, 2, 4, 2, false, kExchanged>(args);
}

template <class T>
void choose(const ConvArgs& args) {
  args.exchanged ? choose<T, true>(args) : choose<T, false>(args);
}

}  // namespace

bool conv_wgmma(const ConvArgs& args) {
  if (args.dtype != ScalarType::BFloat16 && args.dtype != ScalarType::Half) return false;
  if (args.groups != 1 || args.cin % 8 != 0 || args.cout % 8 != 0 || args.num_out == 0) return false;
  if (args.granules * args.num_taps >= (int64_t{1} << 31) / kGranule) return false;
  if (args.num_in * args.cin >= int64_t{1} << 31) return false;  // rows are reached by 32-bit byte offsets
  if (args.end.normalizes && args.cout > kMostNormed - 128) return false;
  for (const void* pointer : {args.x, args.weight, args.bias, static_cast<const void*>(args.out), args.end.residual})
    if (reinterpret_cast<uintptr_t>(pointer) % 16 != 0) return false;
  if (!hopper::available()) return false;
  if (args.exchanged && packs(args.cin)) return false;
  if (args.dtype == ScalarType::BFloat16)
    choose<__nv_bfloat16>(args);
  else
    choose<__half>(args);
  return true;
}

}  // namespace perception
