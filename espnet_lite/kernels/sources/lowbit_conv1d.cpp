// Convolution over time of integers: codes of the input, products, scales, bias and activation, of floats
// or as the codes of what comes next. See ../lowbit_conv1d.py for what it computes.
//
// Channels are last, so that what an output sees is one piece of kernel · channels codes: a row of the
// product, which is read where it is and overlaps its neighbours.

#include <cstdlib>
#include <omp.h>

#include "byte_products.h"

namespace {

constexpr int OFFSET = 128;  // of weights, which are kept as bytes
// Rows of a task: meanwhile the weights of two panels stay in the first-level cache.
constexpr int64_t BLOCK_ROWS = TILE_ROWS * (TILE_ROWS > 16 ? 4 : 16);
constexpr int64_t PIECE_BYTES = 16384;  // codes that a thread makes at a time

struct Convolution {
    const uint8_t* panels;        // of each group, as byte_products.h has them
    const float *scale, *bias;    // of each output, those of each group padded to whole panels
    const int32_t* column_terms;  // the same, added to the integer sums
    int64_t channels, outputs;    // of a group
    int64_t groups, kernel, stride;
    int64_t padding;              // frames before and behind
    int32_t activation, gives_codes;
    Quantizer input, output;
};

struct Frames {
    const float* x;       // (batch, frames, groups · channels), contiguous; or null, and
    const int8_t* codes;  // the same as codes: of one group, without padding
    int64_t batch, frames;
    float* out;           // (batch, frames_out, groups · outputs); or null, and
    int8_t* out_codes;    // the same as codes
    int64_t frames_out;
};

inline int32_t sum_of_bytes(const int8_t* bytes, int64_t count) {
    int64_t i = 0, sum = 0;
#if defined(__AVX512BW__)
    const __m512i flip = _mm512_set1_epi8(-128);
    __m512i sums = _mm512_setzero_si512();
    for (; i < count; i += 64) {
        const int64_t left = count - i;
        const __mmask64 there = left < 64 ? ((uint64_t)1 << left) - 1 : ~(uint64_t)0;
        const __m512i unsigned_bytes = _mm512_xor_si512(_mm512_maskz_loadu_epi8(there, bytes + i), flip);
        sums = _mm512_add_epi64(sums, _mm512_sad_epu8(unsigned_bytes, _mm512_setzero_si512()));
        sum -= 128 * 64;
    }
    sum += _mm512_reduce_add_epi64(sums);
#elif defined(__AVX2__)
    const __m256i flip = _mm256_set1_epi8(-128);
    __m256i sums = _mm256_setzero_si256();
    for (; i + 32 <= count; i += 32) {
        const __m256i from = _mm256_loadu_si256((const __m256i*)(bytes + i));
        sums = _mm256_add_epi64(
            sums, _mm256_sad_epu8(_mm256_xor_si256(from, flip), _mm256_setzero_si256()));
        sum -= 128 * 32;
    }
    for (int lane = 0; lane < 4; ++lane) sum += ((const int64_t*)&sums)[lane];
#endif
    for (; i < count; ++i) sum += bytes[i];
    return (int32_t)sum;
}

// Rows of the product that one thread multiplies at a time.
struct Block {
    int64_t batch, group, frame, count;
};

template <int ACTIVATION, int KIND>
inline void finish(const Convolution& layer, const Frames& frames, const Block& block, int64_t row,
                   int64_t panel, int64_t panels, const int32_t* sums, const int32_t* terms) {
    const Divisor by(layer.output.scale);
    const int64_t padded = in_whole(layer.outputs, PANEL), stride = layer.groups * layer.outputs;
    const int64_t first = block.batch * frames.frames_out + block.frame + row;
    const int64_t left_rows = block.count - row, count = left_rows < TILE_ROWS ? left_rows : TILE_ROWS;
    for (int64_t which = 0; which < panels; ++which)
        for (int part = 0; part < PANEL / LANES; ++part) {
            const int64_t column = (panel + which) * PANEL + part * LANES;
            const int64_t left = layer.outputs - column;
            if (left <= 0) return;
            const int64_t at = block.group * padded + column;
            const Floats scale = load(layer.scale + at), bias = load(layer.bias + at);
            Ints more;
            __builtin_memcpy(&more, layer.column_terms + at, sizeof more);
            const int64_t to = first * stride + block.group * layer.outputs + column;
            for (int64_t r = 0; r < count; ++r) {
                Ints sum;
                __builtin_memcpy(&sum, sums + r * SUM_STRIDE + which * PANEL + part * LANES,
                                 sizeof sum);
                const Floats real = __builtin_convertvector(sum + (more - terms[row + r]), Floats);
                const Floats y = activated(real * scale + bias, ACTIVATION);
                if constexpr (KIND == ABSMAX) {  // of which there are none: floats
                    store_some(frames.out + to + r * stride, y, left);
                } else {
                    const Ints lanes = codes_of<KIND>(y, layer.output, by);
                    store_some(frames.out_codes + to + r * stride,
                               __builtin_convertvector(lanes, ByteLanes), left);
                }
            }
        }
}

template <int ACTIVATION>
inline void finish(const Convolution& layer, const Frames& frames, const Block& block, int64_t row,
                   int64_t panel, int64_t panels, const int32_t* sums, const int32_t* terms) {
    switch (layer.gives_codes ? layer.output.kind : ABSMAX) {
        case LSQ: return finish<ACTIVATION, LSQ>(layer, frames, block, row, panel, panels, sums, terms);
        case SIGN: return finish<ACTIVATION, SIGN>(layer, frames, block, row, panel, panels, sums, terms);
        case BINARY: return finish<ACTIVATION, BINARY>(layer, frames, block, row, panel, panels, sums, terms);
        default: return finish<ACTIVATION, ABSMAX>(layer, frames, block, row, panel, panels, sums, terms);
    }
}

// Multiply the rows of a block, `row_bytes` apart, by all weights of its group.
inline void multiply(const Convolution& layer, const Frames& frames, const Block& block,
                     const int8_t* rows, int64_t row_bytes, int64_t depth, const int32_t* terms) {
    const int64_t panels = in_whole(layer.outputs, PANEL) / PANEL, panel_bytes = depth * PANEL;
    const uint8_t* weights = layer.panels + block.group * panels * panel_bytes;
    alignas(64) int32_t sums[TILE_ROWS * SUM_STRIDE];
    for (int64_t panel = 0; panel < panels; panel += SUM_PANELS) {
        const int64_t here = panels - panel < SUM_PANELS ? panels - panel : SUM_PANELS;
        for (int64_t row = 0; row < block.count; row += TILE_ROWS) {
            multiply_panels<8>(here, rows + row * row_bytes, row_bytes, weights + panel * panel_bytes,
                               panel_bytes, depth, sums);
            switch (layer.activation) {
                case RELU: finish<RELU>(layer, frames, block, row, panel, here, sums, terms); break;
                case SWISH: finish<SWISH>(layer, frames, block, row, panel, here, sums, terms); break;
                case GELU: finish<GELU>(layer, frames, block, row, panel, here, sums, terms); break;
                default: finish<LINEAR>(layer, frames, block, row, panel, here, sums, terms);
            }
        }
    }
}

// Codes of the frames from `begin` to `end` of one group, with what lies beyond the utterance.
inline void codes_of_piece(const Convolution& layer, const Frames& frames, int64_t batch,
                           int64_t group, int64_t begin, int64_t end, int64_t padded, int8_t* codes) {
    const int64_t channels = layer.channels, stride = layer.groups * channels;
    const int nothing = -layer.input.zero;  // the code 0
    float same;
    if (begin == 0) __builtin_memset(codes, nothing, (size_t)(layer.padding * channels));
    int8_t* to = codes + (layer.padding + begin) * channels;
    const int64_t from = (batch * frames.frames + begin) * stride + group * channels;
    if (!frames.x) {
        __builtin_memcpy(to, frames.codes + from, (size_t)((end - begin) * channels));
    } else if (layer.groups == 1) {
        quantize_row(frames.x + from, (end - begin) * channels, layer.input, to, &same);
    } else {
        for (int64_t i = 0; i < end - begin; ++i)
            quantize_row(frames.x + from + i * stride, channels, layer.input, to + i * channels, &same);
    }
    if (end == frames.frames) {
        const int64_t seen = layer.padding + frames.frames;
        __builtin_memset(codes + seen * channels, nothing, (size_t)((padded - seen) * channels));
    }
}

// Copy the rows of a block that do not fill a tile, zeros up to `depth`.
inline void copy_rows(const int8_t* rows, int64_t row_bytes, int64_t count, int64_t real,
                      int64_t depth, int8_t* to) {
    for (int64_t r = 0; r < count; ++r, to += depth) {
        __builtin_memcpy(to, rows + r * row_bytes, (size_t)real);
        __builtin_memset(to + real, 0, (size_t)(depth - real));
    }
}

// Sums of the codes of each row, from those of the frames they are made of.
inline void sum_frames(const Convolution& layer, int64_t rows, const int8_t* codes, int32_t* until,
                       int32_t* terms) {
    const int64_t seen = (rows - 1) * layer.stride + layer.kernel;
    until[0] = 0;
    for (int64_t i = 0; i < seen; ++i)
        until[i + 1] = until[i] + sum_of_bytes(codes + i * layer.channels, layer.channels);
    for (int64_t r = 0; r < rows; ++r, until += layer.stride)
        terms[r] = OFFSET * (until[layer.kernel] - until[0]);
}

}  // namespace

// Fill out or out_codes; return 0, or 1 where there is no memory.
KERNEL(lowbit_conv1d)
(const Convolution* layer_given, const Frames* frames_given, int threads) {
    const Convolution layer = *layer_given;
    const Frames frames = *frames_given;
    const int64_t real = layer.kernel * layer.channels, depth = in_whole(real, DEPTH);
    const int64_t row_bytes = layer.stride * layer.channels;
    // A row is read up to `depth`, which of codes that were given may be beyond their end.
    const bool has_own = frames.x || depth != real;
    const int64_t seen = (frames.frames_out - 1) * layer.stride + layer.kernel;
    int64_t padded = frames.frames;
    if (has_own) {
        padded += layer.padding;
        if (padded < seen) padded = seen;
    }
    const int64_t group_bytes = padded * layer.channels;

    int64_t piece = PIECE_BYTES / (layer.groups * layer.channels);
    if (piece < 1) piece = 1;
    const int64_t pieces = (frames.frames + piece - 1) / piece;

    // Outputs in blocks of whole tiles; what is left is a block by itself.
    const int64_t in_tiles = frames.frames_out / TILE_ROWS * TILE_ROWS;
    const int64_t whole_blocks = (in_tiles + BLOCK_ROWS - 1) / BLOCK_ROWS;
    const int64_t blocks = whole_blocks + (frames.frames_out > in_tiles);

    const int64_t numbers = BLOCK_ROWS + (BLOCK_ROWS - 1) * layer.stride + layer.kernel + 1;
    const int64_t own_bytes =
        has_own ? in_whole(frames.batch * layer.groups * group_bytes + DEPTH, 64) : 0;
    const int64_t room_bytes = TILE_ROWS * depth + in_whole(4 * numbers, 64);
    uint8_t* memory =
        static_cast<uint8_t*>(std::aligned_alloc(64, (size_t)(own_bytes + threads * room_bytes)));
    if (!memory) return 1;
    int8_t* own = reinterpret_cast<int8_t*>(memory);
    const int8_t* all_codes = has_own ? own : frames.codes;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        const int thread = threads > 1 ? omp_get_thread_num() : 0;
        int8_t* room = reinterpret_cast<int8_t*>(memory + own_bytes + thread * room_bytes);
        int32_t* terms = reinterpret_cast<int32_t*>(room + TILE_ROWS * depth);
        __builtin_memset(room, 0, (size_t)(TILE_ROWS * depth));
        if (has_own) {
#pragma omp for schedule(static)
            for (int64_t item = 0; item < frames.batch * layer.groups * pieces; ++item) {
                const int64_t begin = item % pieces * piece, of_group = item / pieces;
                const int64_t end = begin + piece < frames.frames ? begin + piece : frames.frames;
                codes_of_piece(layer, frames, of_group / layer.groups, of_group % layer.groups, begin,
                               end, padded, own + of_group * group_bytes);
            }
        }
        Tiles tiles;
        (void)tiles;
#pragma omp for schedule(dynamic, 1)
        for (int64_t item = 0; item < frames.batch * layer.groups * blocks; ++item) {
            const int64_t number = item % blocks, of_group = item / blocks;
            const bool is_whole = number < whole_blocks;
            const int64_t start = is_whole ? number * BLOCK_ROWS : in_tiles;
            const int64_t left = (is_whole ? in_tiles : frames.frames_out) - start;
            const Block block = {of_group / layer.groups, of_group % layer.groups, start,
                                 left < BLOCK_ROWS ? left : BLOCK_ROWS};
            const int8_t* rows = all_codes + of_group * group_bytes + start * row_bytes;
            sum_frames(layer, block.count, rows, terms + BLOCK_ROWS, terms);
            if (is_whole) {
                multiply(layer, frames, block, rows, row_bytes, depth, terms);
            } else {
                copy_rows(rows, row_bytes, block.count, real, depth, room);
                multiply(layer, frames, block, room, depth, depth, terms);
            }
        }
    }
    std::free(memory);
    return 0;
}
