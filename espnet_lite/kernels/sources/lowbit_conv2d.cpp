// Two-dimensional convolution without padding that multiplies integers, channels last: codes of the
// image, sums, scales, bias and activation, and at will the codes that the next convolution takes.
// See ../lowbit_conv2d.py.
//
// The taps and channels under an output are a row of codes, side by side; rows are multiplied as
// those of a Linear are.

#include <omp.h>

#include "linear_rows.h"
#include "scratch.h"

namespace {

constexpr int64_t POSITIONS = 256;  // outputs computed at a time, about
// Inputs are a multiple of it where they are multiplied.
#if defined(__AMX_INT8__)
constexpr int64_t DEPTH_STEP = DEPTH;
#else
constexpr int64_t DEPTH_STEP = 4;
#endif

struct Convolution {
    const Weights* weights;  // inputs are (height, width, channels) of the kernel; multiplied as bytes
    int64_t channels, kernel_height, kernel_width, stride_height, stride_width;
    const Quantizer* next;  // of the outputs, or null
};

struct Image {
    const float* x;         // (batch, height, width, channels); null: it comes as codes
    const int8_t* codes;    // the same
    const int32_t* sums;    // (batch, height, width), of the codes of each position
    int64_t batch, height, width, height_out, width_out;
    float* out;             // (batch, height_out, width_out, results); null: codes go out
    int8_t* out_codes;
    int32_t* out_sums;
};

// The sum of the codes of each of `count` positions.
inline void sums_of_positions(const int8_t* codes, int64_t count, int64_t channels, int32_t* sums) {
    for (int64_t i = 0; i < count; ++i) {
        int32_t sum = 0;
        for (int64_t channel = 0; channel < channels; ++channel) sum += codes[i * channels + channel];
        sums[i] = sum;
    }
}

// Memory of a thread.
struct Room {
    int8_t* image;       // codes of rows of the image, and their sums
    int32_t* image_sums;
    int8_t* codes;       // TILE_ROWS rows that are multiplied
    float* results;      // TILE_ROWS rows
};

// The codes under TILE_ROWS outputs from number `first` of `width` in a line on; those from `end`
// on are 0. `image` has the rows under the first line.
inline void gather(const Convolution& layer, const int8_t* image, const int32_t* sums, int64_t width,
                   int64_t width_out, int64_t first, int64_t end, int64_t depth, int8_t* codes,
                   int32_t* terms) {
    const int64_t segment = layer.kernel_width * layer.channels;
    const int64_t inputs = segment * layer.kernel_height;
    for (int64_t i = 0; i < TILE_ROWS; ++i, codes += depth) {
        const int64_t position = first + i;
        terms[i] = 0;
        if (position >= end) {
            __builtin_memset(codes, 0, (size_t)depth);
            continue;
        }
        const int64_t corner = position / width_out * layer.stride_height * width +
                               position % width_out * layer.stride_width;
        int32_t sum = 0;
        for (int64_t row = 0; row < layer.kernel_height; ++row) {
            const int64_t at = corner + row * width;
            const int8_t* from = image + at * layer.channels;
            int8_t* to = codes + row * segment;
            if (segment < 16)
                for (int64_t byte = 0; byte < segment; ++byte) to[byte] = from[byte];
            else
                __builtin_memcpy(to, from, (size_t)segment);
            for (int64_t column = 0; column < layer.kernel_width; ++column) sum += sums[at + column];
        }
        terms[i] = layer.weights->offset * sum;
        for (int64_t byte = inputs; byte < depth; ++byte) codes[byte] = 0;
    }
}

template <int BITS>
inline void multiply_all(const Weights& weights, const int8_t* codes, int64_t depth,
                         const uint8_t* panels, const Rows& rows, const float* scales,
                         const int32_t* terms) {
    const int64_t panel_bytes = depth * PANEL, used = in_whole(weights.inputs, DEPTH_STEP);
    alignas(64) int32_t sums[TILE_ROWS * SUM_STRIDE];
    for (int64_t panel = 0; panel < weights.panel_count; panel += SUM_PANELS) {
        const int64_t left = weights.panel_count - panel;
        const int64_t here = left < SUM_PANELS ? left : SUM_PANELS;
        multiply_panels<BITS>(here, codes, depth, panels + panel * panel_bytes, panel_bytes, used,
                              sums);
        finish({sums, SUM_STRIDE, panel, here, 0, rows.count}, weights, rows, scales, terms,
               BITS == 1);
    }
}

// `lines` lines of the output from number `first` on.
inline void convolve(const Convolution& layer, const Image& image, int64_t batch, int64_t first,
                     int64_t lines, int64_t depth, const uint8_t* panels, const Room& room) {
    const Weights& weights = *layer.weights;
    const int64_t top = first * layer.stride_height;
    const int64_t height = (lines - 1) * layer.stride_height + layer.kernel_height;
    const int64_t begin = (batch * image.height + top) * image.width, count = height * image.width;
    const int8_t* codes = room.image;
    const int32_t* code_sums = room.image_sums;
    if (image.x) {
        float same;
        quantize_row(image.x + begin * layer.channels, count * layer.channels, weights.quantizer,
                     room.image, &same);
        sums_of_positions(room.image, count, layer.channels, room.image_sums);
    } else {
        codes = image.codes + begin * layer.channels;
        code_sums = image.sums + begin;
    }
    float scales[TILE_ROWS];
    int32_t terms[TILE_ROWS];
    for (float& scale : scales) scale = weights.quantizer.scale;
    const int64_t end = lines * image.width_out;
    const int64_t out = (batch * image.height_out + first) * image.width_out;
    for (int64_t position = 0; position < end; position += TILE_ROWS) {
        gather(layer, codes, code_sums, image.width, image.width_out, position, end, depth,
               room.codes, terms);
        Rows rows = {};
        rows.count = end - position < TILE_ROWS ? end - position : TILE_ROWS;
        rows.out_stride = weights.results;
        rows.out = image.out ? image.out + (out + position) * weights.results : room.results;
        switch (weights.bits) {
            case 1: multiply_all<1>(weights, room.codes, depth, panels, rows, scales, terms); break;
            case 2: multiply_all<2>(weights, room.codes, depth, panels, rows, scales, terms); break;
            case 4: multiply_all<4>(weights, room.codes, depth, panels, rows, scales, terms); break;
            default: multiply_all<8>(weights, room.codes, depth, panels, rows, scales, terms);
        }
        if (image.out) continue;
        for (int64_t row = 0; row < rows.count; ++row) {
            float same;
            image.out_sums[out + position + row] =
                quantize_row(room.results + row * weights.results, weights.results, *layer.next,
                             image.out_codes + (out + position + row) * weights.results, &same);
        }
    }
}

}  // namespace

// Fill image->out, or out_codes and out_sums; return 0, or 1 where there is no memory.
KERNEL(lowbit_conv2d)(const Convolution* layer_given, const Image* image_given, int threads) {
    const Convolution layer = *layer_given;
    const Image image = *image_given;
    const Weights weights = *layer.weights;
    const int64_t depth = in_whole(weights.inputs, DEPTH);
    // Lines of the output at a time, so that each thread gets some.
    const int64_t most = (POSITIONS + image.width_out - 1) / image.width_out;
    const int64_t fair = (image.batch * image.height_out + 4 * threads - 1) / (4 * threads);
    const int64_t lines = fair < most ? fair : most;
    const int64_t blocks = (image.height_out + lines - 1) / lines;

    const int64_t positions =
        ((lines - 1) * layer.stride_height + layer.kernel_height) * image.width;
    const int64_t image_bytes = image.x ? in_whole(positions * layer.channels, 64) : 0;
    const int64_t sum_bytes = image.x ? in_whole(4 * positions, 64) : 0;
    const int64_t code_bytes = TILE_ROWS * depth;
    const int64_t result_bytes = image.out ? 0 : in_whole(4 * TILE_ROWS * weights.results, 64);
    const int64_t of_thread = image_bytes + sum_bytes + code_bytes + result_bytes;
    const int64_t panel_bytes = weights.bits == 8 ? 0 : weights.panel_count * depth * PANEL;
    uint8_t* memory = scratch.take(panel_bytes + threads * of_thread);
    if (!memory) return 1;
    const uint8_t* panels = static_cast<const uint8_t*>(weights.panels);
    if (panel_bytes) {
        unpack(panels, weights.bits, weights.panel_count * depth / 4, memory);
        panels = memory;
    }
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        const int thread = threads > 1 ? omp_get_thread_num() : 0;
        uint8_t* own = memory + panel_bytes + thread * of_thread;
        Room room;
        room.image = reinterpret_cast<int8_t*>(own);
        room.image_sums = reinterpret_cast<int32_t*>(own + image_bytes);
        room.codes = reinterpret_cast<int8_t*>(own + image_bytes + sum_bytes);
        room.results = reinterpret_cast<float*>(own + image_bytes + sum_bytes + code_bytes);
        Tiles tiles;
        (void)tiles;
#pragma omp for schedule(dynamic, 1)
        for (int64_t item = 0; item < image.batch * blocks; ++item) {
            const int64_t first = item % blocks * lines, left = image.height_out - first;
            convolve(layer, image, item / blocks, first, left < lines ? left : lines, depth, panels,
                     room);
        }
    }
    scratch.release();
    return 0;
}
