// Convolution over time, each channel for itself, of integers: codes of the input, sums, scales,
// bias and activation, of LANES channels at a time by one thread.
//
// A lane is a channel. Of each frame a lane holds the codes of this frame and the three behind it,
// so that four taps are one product of bytes; codes are unsigned there (plus 128), weights signed,
// and what the 128 adds is a number of each channel.
#pragma once

#include "codes.h"

namespace {

constexpr int TAPS = 4;        // of a word
constexpr int MOST_WORDS = 64;  // of a kernel: 256 taps

struct Depthwise {
    const int32_t* words;    // (words of a kernel, channels padded): four signed weights each
    const int32_t* terms;    // (channels padded), taken from the sums
    const float *scale, *bias;
    int64_t channels, padded, kernel, stride;
    int32_t activation, reserved;
    Quantizer quantizer;
};

struct Frames {
    const float* x;  // (batch, frames, channels)
    int64_t batch_stride, frame_stride, batch, frames;
    const uint8_t* valid;  // (batch, frames), or null
    float* out;            // (batch, frames_out, channels)
    int64_t frames_out, out_stride;  // floats from frame to frame
};

// sums + four products of bytes in each lane: unsigned codes, signed weights.
inline Ints add_fours(Ints sums, Ints codes, Ints weights) {
#if defined(__AVX512VNNI__)
    __m512i total = (__m512i)sums;
    __asm__("vpdpbusd %2, %1, %0" : "+v"(total) : "v"((__m512i)codes), "v"((__m512i)weights));
    return (Ints)total;
#elif defined(__AVX512BW__)
    // VPMADDUBSW saturates at 16 bits: never so with codes of 7 bits, or of their highest bit alone.
    const __m512i one = _mm512_set1_epi16(1), high = _mm512_set1_epi8(-128);
    const __m512i low =
        _mm512_maddubs_epi16(_mm512_andnot_si512(high, (__m512i)codes), (__m512i)weights);
    const __m512i rest =
        _mm512_maddubs_epi16(_mm512_and_si512(high, (__m512i)codes), (__m512i)weights);
    return sums + (Ints)_mm512_madd_epi16(low, one) + (Ints)_mm512_madd_epi16(rest, one);
#elif defined(__AVX2__)
    const __m256i one = _mm256_set1_epi16(1), high = _mm256_set1_epi8(-128);
    const __m256i low =
        _mm256_maddubs_epi16(_mm256_andnot_si256(high, (__m256i)codes), (__m256i)weights);
    const __m256i rest =
        _mm256_maddubs_epi16(_mm256_and_si256(high, (__m256i)codes), (__m256i)weights);
    return sums + (Ints)_mm256_madd_epi16(low, one) + (Ints)_mm256_madd_epi16(rest, one);
#else
    for (int tap = 0; tap < TAPS; ++tap)
        sums += ((codes >> (8 * tap)) & 255) * ((weights << (24 - 8 * tap)) >> 24);
    return sums;
#endif
}

template <int KIND>
inline void codes_of_frames(const Depthwise& layer, const Frames& frames, int64_t batch,
                            int64_t channel, int64_t count, int64_t rows, Ints* fours) {
    const Divisor by(layer.quantizer.scale);
    const int64_t before = layer.kernel / 2, left = layer.channels - channel;
    const Ints nothing = all_lanes(128 - layer.quantizer.zero);  // the code 0
    const float* x = frames.x + batch * frames.batch_stride + channel;
    Ints four = (Ints)((Bits)nothing * 0x01010101u);
    for (int64_t row = rows - 1; row >= 0; --row) {
        const int64_t frame = row - before;
        Ints code = nothing;
        if (frame >= 0 && frame < count &&
            (!frames.valid || frames.valid[batch * frames.frames + frame]))
            code = codes_of<KIND>(load_some(x + frame * frames.frame_stride, left), layer.quantizer,
                                  by) + 128;
        four = (Ints)((Bits)four << 8) | code;
        fours[row] = four;
    }
}

inline void convolve(const Depthwise& layer, const Frames& frames, int64_t batch, int64_t channel,
                     int64_t rows, Ints* fours) {
    switch (layer.quantizer.kind) {
        case LSQ: codes_of_frames<LSQ>(layer, frames, batch, channel, frames.frames, rows, fours); break;
        case SIGN: codes_of_frames<SIGN>(layer, frames, batch, channel, frames.frames, rows, fours); break;
        default: codes_of_frames<BINARY>(layer, frames, batch, channel, frames.frames, rows, fours);
    }
    const int64_t words = (layer.kernel + TAPS - 1) / TAPS, left = layer.channels - channel;
    Ints weights[MOST_WORDS];
    for (int64_t word = 0; word < words; ++word)
        __builtin_memcpy(weights + word, layer.words + word * layer.padded + channel, sizeof(Ints));
    Ints term;
    __builtin_memcpy(&term, layer.terms + channel, sizeof term);
    const Floats scale = load(layer.scale + channel), bias = load(layer.bias + channel);
    float* out = frames.out + batch * frames.frames_out * frames.out_stride + channel;
    for (int64_t frame = 0; frame < frames.frames_out; ++frame, out += frames.out_stride) {
        const Ints* from = fours + frame * layer.stride;
        Ints sums = -term, more{};  // two sums, for one alone would wait for itself
        int64_t word = 0;
        for (; word + 2 <= words; word += 2) {
            sums = add_fours(sums, from[TAPS * word], weights[word]);
            more = add_fours(more, from[TAPS * (word + 1)], weights[word + 1]);
        }
        if (word < words) sums = add_fours(sums, from[TAPS * word], weights[word]);
        const Floats real = __builtin_convertvector(sums + more, Floats);
        store_some(out, activated(real * scale + bias, layer.activation), left);
    }
}

// How much there is to do, and the memory that each thread wants for it.
struct Shape {
    int64_t blocks, rows, bytes;  // of LANES channels; of codes, as many as the last output looks at

    Shape(const Depthwise& layer, const Frames& frames) {
        blocks = (layer.channels + LANES - 1) / LANES;
        const int64_t words = (layer.kernel + TAPS - 1) / TAPS;
        const int64_t last = (frames.frames_out - 1) * layer.stride + TAPS * words;
        const int64_t needed = layer.kernel / 2 + frames.frames;
        rows = last > needed ? last : needed;
        bytes = 64 * rows;
    }
};

}  // namespace
