// The walk of runs of taps; CMake compiles this file for each instruction set (counting the bits of a
// mask is one instruction in all but the oldest).
//
// Moving all sites by one displacement keeps their order, so the wanted columns rise with the outputs:
// a cursor a run, no search. Several runs go side by side, for a cursor's steps wait for one another.
// A column answers for up to 64 outputs at once: what both masks have.
#include "cpu/map_kernels.h"

#include "cpu/vectors.h"

namespace perception {
namespace {

inline int32_t rank(uint64_t mask, int bit) { return __builtin_popcountll(mask & ((uint64_t{1} << bit) - 1)); }

// The first column not below `key`.
int64_t lower_bound(const uint64_t* keys, int64_t count, uint64_t key) {
  int64_t at = 0;
  while (count > 0) {
    const int64_t half = count / 2;
    const bool below = keys[at + half] < key;
    at = below ? at + half + 1 : at;
    count = below ? count - half - 1 : half;
  }
  return at;
}

struct Match {
  int32_t output, input;  // columns; the input's is the first of those that the run may want
};

constexpr int kTogether = 8;

// The columns of outputs that meet any of inputs, run by run.
void match(const Columns& inputs, int64_t input_columns, const Columns& outputs, int64_t begin, int64_t end,
           const TapRun* runs, int num_runs, Match (*matches)[kMapBlock], int64_t* found) {
  const uint64_t* const keys = inputs.keys;
  int64_t at[kTogether];
  uint64_t shift[kTogether], span[kTogether];
  for (int r = 0; r < num_runs; ++r) {
    shift[r] = static_cast<uint64_t>(runs[r].shift);
    span[r] = static_cast<uint64_t>(runs[r].span);
    at[r] = lower_bound(keys, input_columns, outputs.keys[begin] + shift[r]);
    found[r] = 0;
  }
  for (int64_t o = begin; o < end; ++o) {
    const uint64_t key = outputs.keys[o];
    for (int r = 0; r < num_runs; ++r) {
      const uint64_t wanted = key + shift[r];
      int64_t here = at[r];
      // Mostly no step or one or two: as numbers, for a branch would be guessed wrong every other time.
      here += keys[here] < wanted;
      here += keys[here] < wanted;
      while (keys[here] < wanted) ++here;
      at[r] = here;
      matches[r][found[r]] = {static_cast<int32_t>(o), static_cast<int32_t>(here)};
      found[r] += keys[here] - wanted <= span[r];
    }
  }
}

void emit(const Columns& inputs, const Columns& outputs, const TapRun& run, const Match* matches, int64_t found,
          int64_t room, int32_t* in, int32_t* out, int64_t* counts) {
  for (int t = 0; t < run.taps; ++t) counts[t] = 0;
  for (int64_t m = 0; m < found; ++m) {
    const Match now = matches[m];
    const uint64_t wanted = outputs.keys[now.output] + static_cast<uint64_t>(run.shift);
    const uint64_t span = static_cast<uint64_t>(run.span);
    uint64_t masks[TapRun::kMaxSpan + 1] = {};
    int32_t starts[TapRun::kMaxSpan + 1];
    for (int64_t i = now.input; inputs.keys[i] - wanted <= span; ++i) {
      masks[inputs.keys[i] - wanted] = inputs.masks[i];
      starts[inputs.keys[i] - wanted] = inputs.starts[i];
    }
    const uint64_t mask = outputs.masks[now.output];
    const int32_t first = outputs.starts[now.output];
    for (int t = 0; t < run.taps; ++t) {
      const int block = run.block[t], bit = run.bit[t];
      int32_t* to_in = in + t * room + counts[t];
      int32_t* to_out = out + t * room + counts[t];
      int64_t n = 0;
      for (uint64_t both = mask & (masks[block] >> bit); both; both &= both - 1, ++n) {
        const int place = __builtin_ctzll(both);
        to_out[n] = first + rank(mask, place);
        to_in[n] = starts[block] + rank(masks[block], place + bit);
      }
      if (bit)
        for (uint64_t both = mask & (masks[block + 1] << (64 - bit)); both; both &= both - 1, ++n) {
          const int place = __builtin_ctzll(both);
          to_out[n] = first + rank(mask, place);
          to_in[n] = starts[block + 1] + rank(masks[block + 1], place + bit - 64);
        }
      counts[t] += n;
    }
  }
}

void walk(const Columns& inputs, int64_t input_columns, const Columns& outputs, int64_t begin, int64_t end,
          const TapRun* runs, int num_runs, int64_t room, int32_t* in, int32_t* out, int64_t* counts) {
  Match matches[kTogether][kMapBlock];
  int64_t found[kTogether];
  for (int first = 0; first < num_runs; first += kTogether) {
    const int some = num_runs - first < kTogether ? num_runs - first : kTogether;
    match(inputs, input_columns, outputs, begin, end, runs + first, some, matches, found);
    for (int r = 0; r < some; ++r) {
      const TapRun& run = runs[first + r];
      emit(inputs, outputs, run, matches[r], found[r], room, in, out, counts);
      in += run.taps * room;
      out += run.taps * room;
      counts += run.taps;
    }
  }
}

}  // namespace

const MapKernels& PASTE(map_kernels_, KERNEL_ISA)() {
  static const MapKernels set{&walk};
  return set;
}

}  // namespace perception
